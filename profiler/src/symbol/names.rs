//! One place that knows what every kernel of every process is called.
//!
//! In: what probes saw being named ([`Names::learn_host`] and its like), and functions that were launched together with
//! the process's mappings. Out: [`Name`]s. Every table is bounded, and what does not fit is counted ([`Counts`]).

use super::cache::Cache;
use super::file::{FileKernels, Found};
use super::learnt::{Learnt, MOST_NAME, Meaning};
use super::{Evidence, Kernel, Name, Reason, short, slots};
use crate::target::{FileId, Mapping};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// Names that are kept for the account; kernels of an observation beyond these stay unknown.
const MOST_RESOLVED: usize = 1 << 17;
/// Files whose kernels are kept at a time; a server maps some 300.
const MOST_FILES: usize = 4096;

/// What became of names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries learnt from probes.
    pub learnt: u64,
    /// Learnt entries and resolved names that did not fit.
    pub dropped: u64,
    /// Handles that stood for two kernels.
    pub reused: u64,
}

/// What every kernel is called.
#[derive(Default)]
pub struct Names {
    cache: Cache,
    files: HashMap<FileId, FileKernels>,
    learnt: Learnt,
    resolved: HashMap<(u32, u64), Name>,
    /// Launched functions of which something was learnt after they had been looked for in vain.
    again: Vec<(u32, u64)>,
    /// Memory of the process that registered last: it registers thousands in a row.
    memory: Option<(u32, File)>,
    /// Kernels by short name, and short names by kernel.
    by_short: HashMap<Arc<str>, Arc<str>>,
    shorts: HashMap<Arc<str>, Arc<str>>,
    dropped: u64,
    reused: u64,
}

impl Names {
    /// With the tables that are kept in `cache`.
    #[must_use]
    pub fn new(cache: Cache) -> Self {
        Self { cache, ..Self::default() }
    }

    /// Process `pid` was seen registering a kernel (`__cudaRegisterFunction`).
    pub fn learn_host(&mut self, pid: u32, host_function: u64, device_name: &str) {
        self.learnt.host(pid, host_function, device_name);
        self.learnt_of(pid, host_function);
    }

    /// Process `pid` was seen registering a kernel whose name stands at `name_address` of its memory.
    pub fn learn_host_at(&mut self, pid: u32, host_function: u64, name_address: u64) {
        if self.memory.as_ref().is_none_or(|(of, _)| *of != pid) {
            self.memory = File::open(format!("/proc/{pid}/mem")).ok().map(|file| (pid, file));
        }
        // A process that is gone has registered for nobody.
        if let Some(name) = self.memory.as_ref().and_then(|(_, memory)| text(memory, name_address)) {
            self.learn_host(pid, host_function, &name);
        }
    }

    /// Process `pid` was seen getting a handle by name (`cuModuleGetFunction`, `cuLibraryGetKernel`, …), of which only
    /// the start may have been seen (`cut`).
    pub fn learn_handle(&mut self, pid: u32, handle: u64, name: &str, cut: bool) {
        self.learnt.handle(pid, handle, name, cut);
        self.learnt_of(pid, handle);
    }

    /// Process `pid` was seen getting a handle that stands for a host function or another handle (`__cudaGetKernel`,
    /// `cuKernelGetFunction`).
    pub fn learn_alias(&mut self, pid: u32, handle: u64, of: u64) {
        self.learnt.alias(pid, handle, of);
        self.learnt_of(pid, handle);
    }

    /// Process `pid` is gone. What its kernels are called stays for the account.
    pub fn forget(&mut self, pid: u32) {
        self.learnt.forget(pid);
        self.memory.take_if(|(of, _)| *of == pid);
        self.again.retain(|(of, _)| *of != pid);
    }

    /// Names `functions` of process `pid`, given its executable mappings, and what was learnt of it meanwhile. Returns
    /// what is new.
    pub fn resolve(&mut self, pid: u32, mappings: &[Mapping], functions: &[u64]) -> Vec<(u64, Name)> {
        let mut wanted: Vec<u64> = functions.to_vec();
        wanted.extend(self.again.extract_if(.., |(of, _)| *of == pid).map(|(_, function)| function));
        let mut found: HashMap<u64, Found> = HashMap::new();
        let mut behind: Vec<(u64, u64)> = Vec::new();
        for function in wanted {
            match self.learnt.meaning(pid, function) {
                Some(Meaning::Registered(name)) => {
                    found.insert(function, Ok((name.to_string(), Evidence::Registered)));
                }
                Some(Meaning::Driver(name)) => {
                    found.insert(function, Ok((name.to_string(), Evidence::Driver)));
                }
                Some(Meaning::Alias(of)) => behind.push((function, of)),
                None => behind.push((function, function)),
            }
        }
        let addresses: HashSet<u64> = behind.iter().map(|(_, of)| *of).collect();
        let by_address = self.look(pid, mappings, &addresses);
        for (function, of) in behind {
            found.insert(function, by_address.get(&of).cloned().unwrap_or(Err(Reason::OpaqueHandle)));
        }
        found.into_iter().map(|(function, found)| (function, self.settle(pid, function, found))).collect()
    }

    /// Processes of which something was learnt that [`Names::resolve`] has yet to take up.
    #[must_use]
    pub fn waiting(&self) -> HashSet<u32> {
        self.again.iter().map(|(pid, _)| *pid).collect()
    }

    /// A kernel's name, if it has been looked for.
    #[must_use]
    pub fn name(&self, pid: u32, function: u64) -> Name {
        self.resolved.get(&(pid, function)).cloned().unwrap_or(Name::Unknown(Reason::ProcessGone))
    }

    /// What became of names.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            learnt: self.learnt.len() as u64,
            dropped: self.learnt.dropped + self.dropped,
            reused: self.reused,
        }
    }

    /// Something was learnt of what has been launched already.
    fn learnt_of(&mut self, pid: u32, function: u64) {
        if self.resolved.contains_key(&(pid, function)) && self.again.len() < MOST_RESOLVED {
            self.again.push((pid, function));
        }
    }

    /// What the files of a process, and the variables in its memory, say of addresses and handles.
    fn look(&mut self, pid: u32, mappings: &[Mapping], wanted: &HashSet<u64>) -> HashMap<u64, Found> {
        if mappings.is_empty() {
            return wanted.iter().map(|address| (*address, Err(Reason::ProcessGone))).collect();
        }
        let mut by_mapping: HashMap<usize, Vec<u64>> = HashMap::new();
        let mut opaque = HashSet::new();
        for address in wanted {
            match mappings.iter().position(|mapping| (mapping.start..mapping.end).contains(address)) {
                Some(mapping) => by_mapping.entry(mapping).or_default().push(*address),
                None => _ = opaque.insert(*address),
            }
        }
        let mut found = HashMap::new();
        for (mapping, addresses) in by_mapping {
            let Some(mapping) = mappings.get(mapping) else { continue };
            let offset = |address: &u64| address - mapping.start + mapping.offset;
            let offsets: Vec<u64> = addresses.iter().map(offset).collect();
            let names = self.file(pid, mapping).at_offsets(pid, mapping, &offsets);
            found.extend(addresses.into_iter().zip(names));
        }
        self.look_at_variables(pid, mappings, opaque, &mut found);
        found
    }

    fn look_at_variables(
        &mut self,
        pid: u32,
        mappings: &[Mapping],
        mut wanted: HashSet<u64>,
        found: &mut HashMap<u64, Found>,
    ) {
        let Ok(memory) = File::open(format!("/proc/{pid}/mem")) else { return };
        let mut seen = HashSet::new();
        for mapping in mappings {
            if wanted.is_empty() {
                return;
            }
            // A file has one set of variables, however many mappings of its code there are.
            if !seen.insert(mapping.file) {
                continue;
            }
            let table = self.file(pid, mapping).table();
            if table.variables().next().is_none() {
                continue;
            }
            let Ok(image) = super::image::Image::open(&mapping.openable(pid)) else { continue };
            let Some(bias) = slots::bias(&image, mapping) else { continue };
            for (handle, name, evidence) in slots::kept(&memory, table, bias, &wanted) {
                found.insert(handle, Ok((name.to_owned(), evidence)));
            }
            wanted.retain(|handle| !found.contains_key(handle));
        }
    }

    fn file(&mut self, pid: u32, mapping: &Mapping) -> &mut FileKernels {
        if self.files.len() >= MOST_FILES && !self.files.contains_key(&mapping.file) {
            self.files.clear();
        }
        let cache = &self.cache;
        self.files.entry(mapping.file).or_insert_with(|| FileKernels::open(pid, mapping, cache))
    }

    /// Keeps a name. A handle that has stood for one kernel and now stands for another has no name that is true of
    /// everything launched by it.
    fn settle(&mut self, pid: u32, function: u64, found: Found) -> Name {
        let new = match found {
            Ok((symbol, evidence)) => Name::Known(self.kernel(symbol, evidence)),
            Err(reason) => Name::Unknown(reason),
        };
        let settled = match (self.resolved.get(&(pid, function)), new) {
            (Some(Name::Unknown(Reason::HandleReused)), _) => Name::Unknown(Reason::HandleReused),
            (Some(Name::Known(old)), Name::Known(new)) if old.symbol != new.symbol => {
                self.reused += 1;
                Name::Unknown(Reason::HandleReused)
            }
            (Some(old @ Name::Known(_)), _) => old.clone(),
            (_, new) => new,
        };
        if self.resolved.len() < MOST_RESOLVED || self.resolved.contains_key(&(pid, function)) {
            self.resolved.insert((pid, function), settled.clone());
        } else {
            self.dropped += 1;
        }
        settled
    }

    fn kernel(&mut self, symbol: String, evidence: Evidence) -> Kernel {
        if let Some((symbol, short)) = self.shorts.get_key_value(symbol.as_str()) {
            return Kernel { symbol: symbol.clone(), short: short.clone(), evidence };
        }
        let symbol: Arc<str> = symbol.into();
        let mut name: Arc<str> = short::short(&symbol).into();
        if self.by_short.contains_key(&name) {
            name = short::distinct(&symbol).into();
        }
        if self.shorts.len() < MOST_RESOLVED {
            self.by_short.insert(name.clone(), symbol.clone());
            self.shorts.insert(symbol.clone(), name.clone());
        }
        Kernel { symbol, short: name, evidence }
    }
}

/// The text at an address of a process, whole or not at all.
fn text(memory: &File, address: u64) -> Option<String> {
    const PAGE: u64 = 4096;
    let mut text = Vec::new();
    while text.len() < MOST_NAME {
        let at = address.checked_add(text.len() as u64)?;
        // Never across a page that may not be there.
        let mut page = [0; PAGE as usize];
        let part = page.get_mut(..usize::try_from(PAGE - at % PAGE).ok()?)?;
        memory.read_exact_at(part, at).ok()?;
        match memchr::memchr(0, part) {
            Some(end) => {
                text.extend(part.get(..end)?);
                return String::from_utf8(text).ok();
            }
            None => text.extend_from_slice(part),
        }
    }
    None
}
