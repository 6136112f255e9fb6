//! Probes onto the target's libraries: which files, which points, attached or why not, as data.
//!
//! In: a pid. Out: links that live as long as the [`Attacher`], a [`Coverage`] per library, and what the
//! correlation needs to know of the process. The target is never stopped, written to or traced.

mod ahead;
mod btf;
mod elf;
mod hooks;
mod kernel;
mod library;
mod linked;
mod links;
mod multi;
mod price;
mod programs;
mod publish;
mod runtime;
mod settings;
mod site;
mod tables;
mod targets;
mod tracefs;

pub use kernel::{Kernel, KernelError};
pub use library::{Alias, Group, Library, LibraryError, Missing, Point, Role, inspect};
pub use linked::unreadable as unreadable_tls;
pub use links::{EmptyProgram, LinkError, Links, Scope};
pub use multi::{RunStatistics, support as multi_support};
pub use price::{Price, measure as measure_price};
pub use publish::{Publisher, Unpublished, published};
pub use settings::{Adapters, Detail, KernelSettings, LinkKind, RING_BYTES};
pub use site::{Code, Cost, Machine, Site};
pub use tracefs::ensure_tracefs;

use crate::clock;
use crate::probe::Layer;
use crate::target::{self, Address, FileId, Mapping};
use ahead::Ahead;
use profiler_common::event::Variable;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Libraries of processes that are gone, for the summary: the newest.
const MOST_PAST: usize = 4096;

/// What is probed of one library in one process.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Coverage {
    /// Process.
    pub pid: u32,
    /// Path as the process sees it.
    pub library: String,
    /// What the file is, and how the runtime came into it.
    pub roles: Vec<Role>,
    /// GNU build id.
    pub build_id: Option<String>,
    /// Functions probed.
    pub attached: usize,
    /// Functions that are not, and why.
    pub missing: Vec<Missing>,
    /// Functions whose probe is dear, and why.
    pub expensive: Vec<Missing>,
    /// Names of functions that are probed under another name.
    pub aliases: Vec<Alias>,
}

/// What `attach` learnt of a process, for the correlation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Learnt {
    /// Process.
    pub pid: u32,
    /// Code of its probed runtime libraries, and of runtimes linked into others.
    pub runtime: Vec<(u64, u64)>,
    /// It has made no GPU call so far, and none that it makes is missed.
    pub from_start: bool,
    /// It mapped a library that was not expected: calls may have been missed after all.
    pub surprised: bool,
    /// Probes stand in libraries that it has not mapped yet: what they tell must wait for the next look at its mappings.
    pub ahead: bool,
    /// When its mappings were read, `CLOCK_MONOTONIC` nanoseconds.
    pub looked_ns: u64,
    /// Connections it had open: id and what their listener listens on.
    pub connections: Vec<(u64, Address)>,
    /// Its listening descriptors and what they listen on.
    pub listeners: Vec<(u32, Address)>,
}

/// Attaches to processes and keeps what it attached.
pub struct Attacher {
    kernel: Arc<Mutex<Kernel>>,
    /// What its probes are.
    scope: Scope,
    /// Every file that was ever looked at, also those of no interest: none is looked at twice.
    libraries: HashMap<FileId, Arc<Result<Library, LibraryError>>>,
    processes: BTreeMap<u32, Attached>,
    /// Coverage of processes that are gone, for the summary.
    past: Vec<Coverage>,
    next_connection: u64,
    inodes: HashMap<u64, u64>,
    /// Time spent attaching.
    pub attach_time: Duration,
}

#[derive(Default)]
struct Attached {
    files: BTreeMap<FileId, (Links, Coverage)>,
    failed: BTreeMap<FileId, Coverage>,
    /// Where the code of its runtime libraries lies, as last learnt.
    runtime: Vec<(u64, u64)>,
    /// Probes in libraries that it has not mapped yet.
    ahead: Ahead,
    /// Where its threads publish what they work for, or why that is not read; none where nothing is published.
    published: Option<Result<Variable, Unpublished>>,
}

impl Attached {
    /// Whether a library of the runtime, the driver or NCCL is mapped. A program with a runtime linked into it may still
    /// load the driver.
    fn has_gpu_library(&self) -> bool {
        let shared = |role: &Role| matches!(role, Role::Shared(_)) && role.is_gpu();
        let probed = self.files.values().map(|(_, coverage)| coverage);
        // What could not be read has a GPU library's name.
        let is_library = |coverage: &Coverage| coverage.roles.is_empty() || coverage.roles.iter().any(shared);
        probed.chain(self.failed.values()).any(is_library)
    }
}

impl Attacher {
    /// On a loaded kernel side that is its alone.
    #[must_use]
    pub fn new(kernel: Kernel) -> Self {
        Self::sharing(&Arc::new(Mutex::new(kernel)), 0)
    }

    /// On a kernel side that others use, too, each for a target group of its own.
    #[must_use]
    pub fn sharing(kernel: &Arc<Mutex<Kernel>>, group: u8) -> Self {
        Self {
            kernel: Arc::clone(kernel),
            scope: Scope { group, ..Scope::ALL },
            libraries: HashMap::new(),
            processes: BTreeMap::new(),
            past: Vec::new(),
            next_connection: 0,
            inodes: HashMap::new(),
            attach_time: Duration::ZERO,
        }
    }

    /// The kernel side, for as long as the answer is kept. No two are kept at once.
    pub fn kernel(&self) -> MutexGuard<'_, Kernel> {
        // Nothing under the lock can panic half-way, so a poisoned one is whole.
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The target group that its probes are of.
    #[must_use]
    pub fn group(&self) -> u8 {
        self.scope.group
    }

    /// Whether `pid` is attached to.
    #[must_use]
    pub fn has(&self, pid: u32) -> bool {
        self.processes.contains_key(&pid)
    }

    /// The processes attached to.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.processes.keys().copied()
    }

    /// Whether a GPU library of `pid` is probed.
    #[must_use]
    pub fn has_gpu(&self, pid: u32) -> bool {
        let is_gpu =
            |coverage: &Coverage| coverage.attached > 0 && coverage.roles.iter().any(|role| role.is_gpu());
        self.processes.get(&pid).is_some_and(|process| process.files.values().any(|(_, c)| is_gpu(c)))
    }

    /// Makes `pid` a target: socket and process hooks, then its open connections, then its libraries. `learn` is
    /// told what the correlation must know before the first event that needs it.
    ///
    /// # Errors
    /// When the target table cannot be changed. Libraries that cannot be probed are coverage, not errors.
    pub fn add(&mut self, pid: u32, learn: &mut dyn FnMut(Learnt)) -> Result<(), KernelError> {
        self.mark(pid);
        self.processes.entry(pid).or_default();
        let connections = self.watch_open_connections(pid);
        let listeners = target::listeners(pid);
        learn(Learnt { connections, listeners, ..Learnt::nothing(pid) });
        self.rescan(pid, learn);
        self.expect_libraries(pid, learn);
        Ok(())
    }

    /// Marks a process and its threads as targets: a thread that runs another program takes the process's number
    /// over, and the kernel side keeps the mark only if it knew the thread.
    pub fn mark(&mut self, pid: u32) {
        let threads = target::threads(pid);
        let mut kernel = self.kernel();
        for task in std::iter::once(pid).chain(threads) {
            kernel.set_target(task, true);
        }
    }

    /// Looks for libraries that have come since.
    pub fn rescan(&mut self, pid: u32, learn: &mut dyn FnMut(Learnt)) {
        let looked_ns = clock::monotonic_ns();
        self.look_at_mappings(pid, learn);
        self.look_at_publisher(pid);
        if self.processes.get(&pid).is_some_and(|process| process.ahead.is_any()) {
            learn(Learnt { ahead: true, looked_ns, ..Learnt::nothing(pid) });
        }
    }

    fn look_at_mappings(&mut self, pid: u32, learn: &mut dyn FnMut(Learnt)) {
        let start = Instant::now();
        let mappings = target::mappings(pid).unwrap_or_default();
        let libraries: Vec<_> = mappings.iter().filter_map(|m| Some((m, self.look(pid, m)?))).collect();
        let runtime = runtime::ranges(&libraries);
        let Some(process) = self.processes.get_mut(&pid) else { return };
        // Also when no file is new: a library may be loaded a second time, or again at another address.
        if process.runtime != runtime {
            process.runtime.clone_from(&runtime);
            learn(Learnt { runtime, ..Learnt::nothing(pid) });
        }
        let mut seen = HashSet::new();
        let known = |file| process.files.contains_key(&file) || process.failed.contains_key(&file);
        let new: Vec<_> =
            libraries.into_iter().filter(|(m, _)| !known(m.file) && seen.insert(m.file)).collect();
        if new.is_empty() {
            return;
        }
        for (mapping, library) in new {
            self.attach_library(pid, mapping, &library);
        }
        if self.processes.get_mut(&pid).is_some_and(|process| process.ahead.take_surprise()) {
            learn(Learnt { surprised: true, ..Learnt::nothing(pid) });
        }
        self.attach_time += start.elapsed();
    }

    /// Takes the probes on a process's receives out: it asks so often that they would slow it down.
    pub fn stop_receives(&mut self, pid: u32) -> bool {
        let Some(process) = self.processes.get_mut(&pid) else { return false };
        let mut stopped = false;
        for (links, _) in process.files.values_mut() {
            stopped |= links.stop_receives();
        }
        stopped
    }

    /// Takes the probes out of the GPU's libraries in all processes, or lets the next look at their mappings place them again.
    pub fn probe_gpu(&mut self, on: bool) {
        if std::mem::replace(&mut self.scope.gpu, on) == on {
            return;
        }
        for process in self.processes.values_mut() {
            if on {
                process.files.retain(|_, (links, _)| !links.lacks_gpu());
                continue;
            }
            process.files.values_mut().for_each(|(links, _)| links.stop_gpu());
            process.ahead.take_all().for_each(Links::stop);
        }
    }

    /// Takes the probes out of a library that a server talks through, in one of its processes.
    pub fn stop_listening(&mut self, pid: u32, layer: Layer) {
        let is = |role: &Role| matches!(role, Role::Shared(of) | Role::LinkedServer(of) if *of == layer);
        let files = self.processes.get_mut(&pid).into_iter().flat_map(|process| process.files.values_mut());
        for (links, _) in files.filter(|(_, coverage)| coverage.roles.iter().all(is)) {
            std::mem::take(links).stop();
        }
    }

    /// Whether functions of a server, or of a library that it talks through, are probed in a process.
    #[must_use]
    pub fn listens_inside(&self, pid: u32, layer: Layer) -> bool {
        let is = |role: &Role| matches!(role, Role::Shared(of) | Role::LinkedServer(of) if *of == layer);
        let probed = |coverage: &Coverage| coverage.attached > 0 && coverage.roles.iter().any(is);
        self.processes.get(&pid).is_some_and(|process| process.files.values().any(|(_, c)| probed(c)))
    }

    /// Ends the probing of a process that is gone.
    pub fn remove(&mut self, pid: u32) {
        let Some(process) = self.processes.remove(&pid) else { return };
        // The bit may already stand for another process that got the number; nobody asked for that one either.
        let mut kernel = self.kernel();
        kernel.set_target(pid, false);
        kernel.forget_process(pid);
        drop(kernel);
        self.past.extend(process.files.into_values().map(|(_, coverage)| coverage));
        self.past.extend(process.failed.into_values());
        let beyond = self.past.len().saturating_sub(MOST_PAST);
        self.past.drain(..beyond);
    }

    /// Ends all probing; returns how long it took.
    pub fn detach(&mut self) -> Duration {
        let start = Instant::now();
        for pid in self.processes.keys() {
            let threads = target::threads(*pid);
            let mut kernel = self.kernel();
            std::iter::once(*pid).chain(threads).for_each(|task| kernel.set_target(task, false));
        }
        let mut all = Vec::new();
        for process in self.processes.values_mut() {
            all.extend(process.ahead.take_all());
            for (links, _) in process.files.values_mut() {
                all.push(std::mem::take(links));
            }
        }
        links::detach(all);
        start.elapsed()
    }

    /// Coverage of every library of every process, past ones included.
    pub fn coverage(&self) -> impl Iterator<Item = &Coverage> {
        let live =
            self.processes.values().flat_map(|p| p.files.values().map(|(_, c)| c).chain(p.failed.values()));
        live.chain(&self.past)
    }

    fn watch_open_connections(&mut self, pid: u32) -> Vec<(u64, Address)> {
        let mut found = Vec::new();
        for socket in target::open_connections(pid).unwrap_or_default() {
            let known = self.inodes.get(&socket.inode).copied();
            let id = known.unwrap_or_else(|| {
                self.next_connection += 1;
                kernel::found_open_id(self.scope.group, self.next_connection)
            });
            if self.kernel().watch_open(pid, socket.fd, id) && known.is_none() {
                self.inodes.insert(socket.inode, id);
                found.push((id, socket.address));
            }
        }
        found
    }

    /// What the mapped file offers; none when it is of no interest.
    fn look(&mut self, pid: u32, mapping: &Mapping) -> Option<Arc<Result<Library, LibraryError>>> {
        let layer = target::layer(mapping.name());
        let look = || Arc::new(inspect(&mapping.openable(pid), layer));
        let inside = self.kernel().listens_inside();
        let library = self.libraries.entry(mapping.file).or_insert_with(look);
        let of_interest = match library.as_ref() {
            Ok(library) if !inside && library.is_of_servers() => false,
            Ok(library) => library.is_of_interest(),
            // Many things can be mapped; what is not called like a GPU library need not be one.
            Err(_) => layer.is_some(),
        };
        of_interest.then(|| Arc::clone(library))
    }

    fn attach_library(&mut self, pid: u32, mapping: &Mapping, library: &Result<Library, LibraryError>) {
        let (links, coverage) = match library {
            Err(error) => {
                tracing::warn!(pid, library = mapping.path, error = %crate::chain(error), "library not probed");
                (None, Coverage::none(pid, mapping, Vec::new()))
            }
            Ok(library) if library.points.is_empty() => (None, Coverage::of(pid, mapping, library)),
            Ok(library) => match self.links(pid, mapping, library) {
                Ok(links) => (Some(links), Coverage::of(pid, mapping, library)),
                Err(error) => {
                    tracing::warn!(pid, library = mapping.path, error = %crate::chain(&error), "library not probed");
                    (None, Coverage::refused(pid, mapping, library))
                }
            },
        };
        let Some(process) = self.processes.get_mut(&pid) else { return };
        match links {
            Some(links) => drop(process.files.insert(mapping.file, (links, coverage))),
            None => drop(process.failed.insert(mapping.file, coverage)),
        }
    }
}

impl Learnt {
    pub(crate) fn nothing(pid: u32) -> Self {
        Self {
            pid,
            runtime: Vec::new(),
            from_start: false,
            surprised: false,
            ahead: false,
            looked_ns: 0,
            connections: Vec::new(),
            listeners: Vec::new(),
        }
    }
}

impl Coverage {
    fn of(pid: u32, mapping: &Mapping, library: &Library) -> Self {
        let dear = library.points.iter().filter(|point| point.site.cost == Cost::SingleStepped);
        let expensive = dear.filter_map(|point| {
            let symbol = crate::probe::api(point.api)?.symbol;
            Some(Missing { symbol, group: Group::Expensive, reason: point.site.why })
        });
        Self {
            roles: library.roles.clone(),
            build_id: library.build_id.clone(),
            attached: library.points.len(),
            expensive: expensive.collect(),
            aliases: library.aliases.clone(),
            ..Self::none(pid, mapping, library.missing.clone())
        }
    }

    fn none(pid: u32, mapping: &Mapping, missing: Vec<Missing>) -> Self {
        Self {
            pid,
            library: mapping.path.clone(),
            roles: Vec::new(),
            build_id: None,
            attached: 0,
            missing,
            expensive: Vec::new(),
            aliases: Vec::new(),
        }
    }

    fn refused(pid: u32, mapping: &Mapping, library: &Library) -> Self {
        let refused = library.points.iter().filter_map(|point| {
            let symbol = crate::probe::api(point.api)?.symbol;
            Some(Missing { symbol, group: Group::Refused, reason: "the kernel refused the probe" })
        });
        let missing = library.missing.iter().cloned().chain(refused).collect();
        let (roles, build_id) = (library.roles.clone(), library.build_id.clone());
        Self { roles, build_id, ..Self::none(pid, mapping, missing) }
    }
}
