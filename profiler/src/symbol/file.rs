//! The kernels of one mapped file: address or variable → name. Reads the file when it is first asked, and what is
//! kept of it on disk before that.

use super::cache::Cache;
use super::image::{Broken, Image};
use super::symtab::{self, Table as Symbols};
use super::table::{self, Table};
use super::{Evidence, Reason, mangle, registration, vendor};
use crate::target::Mapping;
use std::collections::{BTreeSet, HashMap, HashSet};

/// A name, and how it is known.
pub type Found = Result<(String, Evidence), Reason>;

/// Addresses of one file whose symbols are remembered.
const MOST_LOOKED: usize = 1 << 16;

/// What is known of a file.
pub struct FileKernels {
    table: Table,
    nvidias: bool,
    has_kernels: bool,
    broken: bool,
    /// What symbols said.
    looked: HashMap<u64, Found>,
}

impl FileKernels {
    /// Reads the file behind `mapping` of process `pid`, or what is kept of it.
    #[must_use]
    pub fn open(pid: u32, mapping: &Mapping, cache: &Cache) -> Self {
        match Image::open(&mapping.openable(pid)) {
            Ok(image) => Self::of(&image, mapping.name(), cache),
            Err(broken) => Self::none(broken == Broken::Unreadable),
        }
    }

    fn none(broken: bool) -> Self {
        Self { table: Table::default(), nvidias: false, has_kernels: false, broken, looked: HashMap::new() }
    }

    fn of(image: &Image, name: &str, cache: &Cache) -> Self {
        let nvidias = vendor::is_nvidias(image, name);
        if !registration::has_device_code(image) {
            return Self { nvidias, ..Self::none(false) };
        }
        let started = std::time::Instant::now();
        let key = image.build_id().map(|build_id| (build_id, table::identity(image)));
        let kept = key.as_ref().and_then(|(build_id, identity)| cache.load(build_id, identity));
        let from_cache = kept.is_some();
        let table = kept.unwrap_or_else(|| Table::of(image, nvidias));
        if let Some((build_id, identity)) = key.filter(|_| !from_cache) {
            cache.save(&build_id, &identity, &table);
        }
        let (kernels, handles) = (table.kernels().count(), table.variables().count());
        let elapsed_ms = started.elapsed().as_millis() as u64;
        tracing::debug!(name, kernels, handles, from_cache, elapsed_ms, "read kernel names");
        Self { table, nvidias, has_kernels: true, broken: false, looked: HashMap::new() }
    }

    /// What its variables keep.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The kernels whose host functions are at these offsets of the file.
    pub fn at_offsets(&mut self, pid: u32, mapping: &Mapping, offsets: &[u64]) -> Vec<Found> {
        let Ok(image) = Image::open(&mapping.openable(pid)) else {
            return offsets.iter().map(|_| Err(Reason::Unreadable)).collect();
        };
        let addresses: Vec<Option<u64>> = offsets.iter().map(|offset| image.address(*offset)).collect();
        let known =
            |address: &u64| self.table.kernel(*address).is_some() || self.looked.contains_key(address);
        let unknown: HashSet<u64> = addresses.iter().flatten().copied().filter(|a| !known(a)).collect();
        self.look(&image, &unknown);
        addresses.into_iter().map(|address| address.map_or(Err(Reason::NoSymbol), |a| self.at(a))).collect()
    }

    fn at(&self, address: u64) -> Found {
        if let Some((name, evidence)) = self.table.kernel(address) {
            return Ok((name.to_owned(), evidence));
        }
        match self.looked.get(&address) {
            Some(found) => found.clone(),
            None => Err(self.lacking()),
        }
    }

    /// Why a host function of this file has no name.
    fn lacking(&self) -> Reason {
        match (self.broken, self.nvidias) {
            (true, _) => Reason::Unreadable,
            (_, true) => Reason::NvidiaLibrary,
            _ if self.has_kernels && !self.table.complete => Reason::Unrecovered,
            _ => Reason::NoSymbol,
        }
    }

    fn look(&mut self, image: &Image, addresses: &HashSet<u64>) {
        if addresses.is_empty() || self.looked.len() + addresses.len() > MOST_LOOKED {
            return;
        }
        for (table, evidence) in [(Symbols::Full, Evidence::Symtab), (Symbols::Dynamic, Evidence::Dynsym)] {
            let left =
                addresses.iter().filter(|address| !self.looked.contains_key(address)).copied().collect();
            for (address, names) in symtab::names_at(image, table, &left) {
                let names: BTreeSet<String> =
                    names.iter().map(|name| mangle::device_name(name).into_owned()).collect();
                let several = names.len() > 1 || self.table.is_ambiguous(address);
                let found = match names.into_iter().next() {
                    Some(_) if several => Err(Reason::Ambiguous),
                    Some(name) => Ok((name, evidence)),
                    None => continue,
                };
                self.looked.insert(address, found);
            }
        }
        for address in addresses {
            let reason = if self.table.is_ambiguous(*address) { Reason::Ambiguous } else { self.lacking() };
            self.looked.entry(*address).or_insert(Err(reason));
        }
    }
}
