//! What probes saw being named: host functions, handles, and handles that stand for something else, by process.
//! Bounded; what no longer fits is counted.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Entries of all processes together: an attach before the start of a server with PyTorch and three extensions
/// learns 40,000.
const MOST: usize = 1 << 18;
/// Text of all names together.
const MOST_TEXT: usize = 64 << 20;
/// The longest name that is taken; a name is never cut short, because then it could be another's.
pub const MOST_NAME: usize = 32 << 10;
/// How far aliases are followed: a function of a kernel of a host function.
const MOST_HOPS: usize = 4;

/// What one process named.
#[derive(Debug, Default)]
struct Process {
    hosts: HashMap<u64, Arc<str>>,
    handles: HashMap<u64, Arc<str>>,
    aliases: HashMap<u64, u64>,
}

impl Process {
    fn len(&self) -> usize {
        self.hosts.len() + self.handles.len() + self.aliases.len()
    }
}

/// What all processes named.
#[derive(Debug, Default)]
pub struct Learnt {
    processes: HashMap<u32, Process>,
    /// Every name once.
    names: HashSet<Arc<str>>,
    entries: usize,
    text: usize,
    /// Entries that did not fit.
    pub dropped: u64,
}

/// What a handle turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A registered host function with this device name.
    Registered(Arc<str>),
    /// A handle that the driver gave out under this name.
    Driver(Arc<str>),
    /// It stands for this, of which nothing else was learnt.
    Alias(u64),
}

impl Learnt {
    /// A process registered a host function.
    pub fn host(&mut self, pid: u32, function: u64, name: &str) {
        if let Some(name) = self.intern(name) {
            self.insert(pid, |process| process.hosts.insert(function, name).is_none());
        }
    }

    /// A process got a handle by name. Of a name that was cut short, the rest could be any other's: it is told with its
    /// handle, so that no two kernels share it.
    pub fn handle(&mut self, pid: u32, handle: u64, name: &str, cut: bool) {
        let told = if cut { Cow::Owned(format!("{name}…{handle:#x}")) } else { Cow::Borrowed(name) };
        if let Some(name) = self.intern(&told) {
            self.insert(pid, |process| {
                process.aliases.remove(&handle);
                process.handles.insert(handle, name).is_none()
            });
        }
    }

    /// A process got a handle for a host function or another handle.
    pub fn alias(&mut self, pid: u32, handle: u64, of: u64) {
        if handle != of {
            self.insert(pid, |process| {
                process.handles.remove(&handle);
                process.aliases.insert(handle, of).is_none()
            });
        }
    }

    /// A process is gone.
    pub fn forget(&mut self, pid: u32) {
        if self.processes.remove(&pid).is_some() {
            self.entries = self.processes.values().map(Process::len).sum();
            self.names.retain(|name| Arc::strong_count(name) > 1);
            self.text = self.names.iter().map(|name| name.len()).sum();
        }
    }

    /// What `function` of a process means, if anything was learnt of it.
    #[must_use]
    pub fn meaning(&self, pid: u32, function: u64) -> Option<Meaning> {
        let process = self.processes.get(&pid)?;
        let mut at = function;
        for _ in 0..MOST_HOPS {
            if let Some(name) = process.hosts.get(&at) {
                return Some(Meaning::Registered(name.clone()));
            }
            if let Some(name) = process.handles.get(&at) {
                return Some(Meaning::Driver(name.clone()));
            }
            match process.aliases.get(&at) {
                Some(of) => at = *of,
                None => break,
            }
        }
        (at != function).then_some(Meaning::Alias(at))
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries
    }

    fn insert(&mut self, pid: u32, put: impl FnOnce(&mut Process) -> bool) {
        if self.entries >= MOST {
            self.dropped += 1;
            return;
        }
        let process = self.processes.entry(pid).or_default();
        let before = process.len();
        put(process);
        let after = process.len();
        self.entries = self.entries + after - before;
    }

    fn intern(&mut self, name: &str) -> Option<Arc<str>> {
        if let Some(known) = self.names.get(name) {
            return Some(known.clone());
        }
        if name.is_empty() || name.len() > MOST_NAME || self.text + name.len() > MOST_TEXT {
            self.dropped += 1;
            return None;
        }
        let name: Arc<str> = name.into();
        self.text += name.len();
        self.names.insert(name.clone());
        Some(name)
    }
}
