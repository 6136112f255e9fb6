//! The controlling side of an observation: which processes are in the group, what is attached, what things are called.
//!
//! In: a pid, and [`Report`]s of the correlating thread. Out: attached probes, [`Input`]s that say what was learnt.
//! All looking at the system while observing happens here, on one thread.

mod inside;
mod resource;

pub use resource::Around;

use crate::account::Reserved;
use crate::attach::{Attacher, Detail, KernelError, Learnt};
use crate::clock;
use crate::correlate::{KernelKey, Naming, Payload, Reservation};
use crate::decode::Change;
use crate::server::known;
use crate::session::{Input, Report, Wants};
use crate::stack::{Sample, Symbolizer};
use crate::symbol::{self, Name, Names};
use crate::target::{self, Identity, Mapping, Member};
use crate::view::Whom;
use profiler_common::stream::Wish;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks at processes that map files: long enough that a program that loads hundreds of libraries costs a
/// few looks, short enough that a library is probed before much is called in it.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Processes that are told in a summary, also those that are gone.
const MOST_MEMBERS: usize = 4096;

/// Why requests of a process may go unseen.
const IO_URING: &str =
    "it has an io_uring: what it reads and writes through that passes no system call that is watched";

/// Keeps the group and its probes.
pub struct Control {
    root: u32,
    /// Probes and kernel side.
    pub attacher: Attacher,
    /// Every process of the group, also those that are gone.
    members: BTreeMap<u32, Member>,
    start_ticks: HashMap<u32, u64>,
    /// Processes that mapped files since they were looked at.
    mapped: BTreeSet<u32>,
    last_look: Option<Instant>,
    mappings: HashMap<u32, Vec<Mapping>>,
    /// Kernels that wait for a look at their process.
    unnamed: Vec<KernelKey>,
    names: Names,
    given: Vec<(String, String)>,
    /// Tells attributes of the place where a process runs.
    around: Option<Around>,
    /// What does not change about a process, by its pid and start.
    fixed: HashMap<(u32, u64), resource::Fixed>,
    /// The server that the group was recognised as.
    pub server: &'static str,
    /// How much is sent from the kernel.
    pub detail: Detail,
    /// Names of addresses on stacks.
    pub symbolizer: Symbolizer,
    /// What cannot be seen of a process, and why.
    pub blind: BTreeSet<(u32, &'static str)>,
    /// Large pieces of device memory, by who asked: library, device.
    pub reserved: BTreeMap<(String, Option<u32>), Reserved>,
    inside: inside::Inside,
}

impl Control {
    /// For the tree of `root`. `given` are the operator's resource attributes.
    #[must_use]
    pub fn new(root: u32, attacher: Attacher, given: Vec<(String, String)>) -> Self {
        Self {
            root,
            attacher,
            members: BTreeMap::new(),
            start_ticks: HashMap::new(),
            mapped: BTreeSet::new(),
            last_look: None,
            mappings: HashMap::new(),
            unnamed: Vec::new(),
            names: Names::default(),
            given,
            around: None,
            fixed: HashMap::new(),
            server: recognise(&target::identity(root)),
            detail: Detail::Events,
            symbolizer: Symbolizer::default(),
            blind: BTreeSet::new(),
            reserved: BTreeMap::new(),
            inside: inside::Inside::default(),
        }
    }

    /// With attributes of the place where processes run, which all other words beat.
    #[must_use]
    pub fn within(mut self, around: Around) -> Self {
        self.around = Some(around);
        self
    }

    /// Attaches to the whole tree as it is now.
    ///
    /// # Errors
    /// When the kernel side cannot be told its targets.
    pub fn attach_tree(&mut self, learn: &mut dyn FnMut(Input)) -> Result<(), KernelError> {
        for (pid, role) in target::group(self.root, &is_server) {
            self.add(pid, role, learn)?;
        }
        // A child born between the walk and its parent's becoming a target was seen by neither.
        let members: Vec<u32> = self.attacher.pids().collect();
        for pid in members.into_iter().flat_map(target::descendants) {
            self.add(pid, target::role::CHILD, learn)?;
        }
        Ok(())
    }

    /// Acts upon a report.
    ///
    /// # Errors
    /// When the kernel side cannot be told.
    pub fn act(&mut self, report: Report, learn: &mut dyn FnMut(Input)) -> Result<(), KernelError> {
        match report {
            Report::Changed(_, Change::Forked { task }) => {
                if target::is_process(task) {
                    self.add(task, target::role::CHILD, learn)?;
                }
            }
            Report::Changed(pid, Change::Mapped) => drop(self.mapped.insert(pid)),
            Report::Changed(pid, Change::MadeIoUring) => self.saw_io_uring(pid),
            Report::Changed(pid, Change::Executed) => {
                self.attacher.runs_another_program(pid);
                self.rescan(pid, learn);
                self.expect_libraries(pid, learn);
            }
            Report::Changed(pid, Change::Exited) => match self.is_alive(pid) {
                // Its first thread ended and others go on: the kernel side has taken the mark off.
                true if self.attacher.has(pid) => self.attacher.mark(pid),
                true => {}
                false => self.remove(pid, learn),
            },
            Report::Payload(connection, payload) => self.attacher.kernel().wish(
                connection,
                match payload {
                    Payload::Nothing => Wish::NOTHING,
                    Payload::Whole => Wish::WHOLE,
                    Payload::BriefWhile(received) => received,
                },
            ),
            Report::Listener(pid, fd) | Report::Changed(pid, Change::Listens { fd }) => {
                if let Some(address) = target::listener_address(pid, fd) {
                    learn(Input::Listener { pid, fd, address });
                }
            }
            Report::Kernel(kernel) => self.unnamed.push(kernel),
        }
        Ok(())
    }

    /// Looks at processes that mapped files, once for all that each mapped in between. Importing PyTorch maps 500 files
    /// within seconds, and each look reads a thousand lines.
    pub fn look_at_mapped(&mut self, learn: &mut dyn FnMut(Input)) {
        if self.mapped.is_empty() || self.last_look.is_some_and(|last| last.elapsed() < BETWEEN_LOOKS) {
            return;
        }
        for pid in std::mem::take(&mut self.mapped) {
            self.rescan(pid, learn);
        }
        self.last_look = Some(Instant::now());
    }

    /// Whether a process has mapped files that have not been looked at.
    #[must_use]
    pub fn has_mapped(&self) -> bool {
        !self.mapped.is_empty()
    }

    /// Names kernels that were launched since the last call, and lets go of processes that are gone.
    pub fn sweep(&mut self, learn: &mut dyn FnMut(Input)) {
        self.attacher.kernel().flush_log();
        self.name_kernels(learn);
        self.look_inside(learn);
        self.let_go(learn);
        self.look_at_contexts();
    }

    /// Lets go of processes that are gone.
    pub fn let_go(&mut self, learn: &mut dyn FnMut(Input)) {
        let gone: Vec<u32> = self.attacher.pids().filter(|pid| !self.is_alive(*pid)).collect();
        for pid in gone {
            self.remove(pid, learn);
        }
    }

    /// Chooses how much is sent from the kernel. The correlation is told first that calls may be counted.
    ///
    /// # Errors
    /// When the kernel side cannot be told.
    pub fn set_detail(&mut self, level: Detail, learn: &mut dyn FnMut(Input)) -> Result<(), KernelError> {
        if level == Detail::Aggregate {
            learn(Input::Counting);
        }
        self.attacher.kernel().set_detail(self.attacher.group(), level)?;
        self.detail = level;
        tracing::info!(?level, "detail level");
        Ok(())
    }

    /// Observes more or less than so far: with or without probes in GPU libraries, or not at all.
    ///
    /// # Errors
    /// When the kernel side cannot be told.
    pub fn set_level(
        &mut self,
        detail: Detail,
        gpu: bool,
        any: bool,
        learn: &mut dyn FnMut(Input),
    ) -> Result<(), KernelError> {
        if !any {
            self.let_go_of_all(learn);
            return Ok(());
        }
        self.set_detail(detail, learn)?;
        self.attacher.probe_gpu(gpu);
        self.rescan_all(learn)
    }

    /// Takes all probes out of processes that go on; returns how long that took.
    pub fn let_go_of_all(&mut self, learn: &mut dyn FnMut(Input)) -> Duration {
        self.name_kernels(learn);
        let took = self.attacher.detach();
        let pids: Vec<u32> = self.attacher.pids().collect();
        for pid in pids {
            self.remove(pid, learn);
        }
        took
    }

    /// Passes on what has been counted in the kernel for processes of the group.
    pub fn count(&self, learn: &mut dyn FnMut(Input)) {
        let (mut sums, mut threads) = {
            let kernel = self.attacher.kernel();
            (kernel.counts(), kernel.threads())
        };
        sums.retain(|(key, _)| self.attacher.has(key.tgid));
        threads.retain(|(pid, ..)| self.attacher.has(*pid));
        learn(Input::Counted { sums, threads });
    }

    /// Looks at the system for what correlation wants to know of it.
    pub fn look(&mut self, wants: Wants, stacks: Vec<Sample>, learn: &mut dyn FnMut(Input)) {
        for (pid, model) in wants.models {
            if let Some(kv_bytes) = target::kv_bytes(pid, &model) {
                learn(Input::Shape { model, kv_bytes });
            }
        }
        for (pid, naming) in wants.names {
            self.learn_name(pid, naming);
        }
        for reservation in wants.reservations {
            self.reserve(&reservation);
        }
        for sample in stacks {
            self.symbolizer.learn(sample.kernel.pid, sample.frames.iter().copied());
        }
    }

    /// A large piece of memory is told by the library that asked for it.
    fn reserve(&mut self, reservation: &Reservation) {
        let Reservation { pid, bytes, device, caller } = *reservation;
        let mappings = target::mappings(pid).unwrap_or_default();
        let mapping = mappings.iter().find(|mapping| (mapping.start..mapping.end).contains(&caller));
        let library = mapping.map_or_else(|| "unknown".to_owned(), |mapping| mapping.name().to_owned());
        let reserved = self.reserved.entry((library, device)).or_default();
        reserved.count += 1;
        reserved.bytes += bytes;
        reserved.largest_bytes = reserved.largest_bytes.max(bytes);
    }

    /// Looks at every process anew: reports may have been dropped.
    ///
    /// # Errors
    /// When the kernel side cannot be told.
    pub fn rescan_all(&mut self, learn: &mut dyn FnMut(Input)) -> Result<(), KernelError> {
        self.attach_tree(learn)?;
        let pids: Vec<u32> = self.attacher.pids().collect();
        for pid in pids {
            self.rescan(pid, learn);
        }
        self.sweep(learn);
        Ok(())
    }

    /// The pid that was asked for.
    #[must_use]
    pub fn root(&self) -> u32 {
        self.root
    }

    /// Whether no process of the group is left.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.attacher.pids().next().is_none()
    }

    /// Every process of the group, also those that are gone.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.members.values().cloned().collect()
    }

    /// Whom this is about, for a view.
    #[must_use]
    pub fn whom(&self) -> Whom {
        Whom { pid: self.root, server: self.server, detail: self.detail, members: self.members() }
    }

    /// A kernel's name, if it has been looked for.
    #[must_use]
    pub fn name(&self, kernel: KernelKey) -> Name {
        self.names.name(kernel.pid, kernel.function)
    }

    /// What names were learnt, and what found no room.
    #[must_use]
    pub fn name_counts(&self) -> symbol::Counts {
        self.names.counts()
    }

    fn saw_io_uring(&mut self, pid: u32) {
        if self.blind.insert((pid, IO_URING)) {
            tracing::warn!(pid, "{IO_URING}");
        }
    }

    fn add(&mut self, pid: u32, role: &'static str, learn: &mut dyn FnMut(Input)) -> Result<(), KernelError> {
        if self.attacher.has(pid) || target::require(pid).is_err() {
            return Ok(());
        }
        let identity = target::identity(pid);
        self.start_ticks.insert(pid, identity.start_ticks);
        if self.members.len() >= MOST_MEMBERS {
            self.forget_members();
        }
        self.members.insert(pid, Member { pid, comm: identity.comm.clone(), role, gpu: false });
        if self.server == "generic" {
            self.server = recognise(&identity);
        }
        self.tell_server(learn);
        self.tell_limits(&identity.command_line, learn);
        let resource = self.resource(pid);
        self.attacher.add(pid, &mut |learnt| learn(Input::Learnt(learnt, Arc::clone(&resource))))?;
        self.remember(pid);
        if target::has_io_uring(pid) {
            self.saw_io_uring(pid);
        }
        tracing::info!(pid, comm = identity.comm, gpu = self.attacher.has_gpu(pid), "attached");
        Ok(())
    }

    fn rescan(&mut self, pid: u32, learn: &mut dyn FnMut(Input)) {
        if !self.attacher.has(pid) {
            return;
        }
        let resource = self.resource(pid);
        self.attacher.rescan(pid, &mut |learnt: Learnt| learn(Input::Learnt(learnt, Arc::clone(&resource))));
        self.remember(pid);
    }

    /// A new program looks for its libraries elsewhere.
    fn expect_libraries(&mut self, pid: u32, learn: &mut dyn FnMut(Input)) {
        let resource = self.resource(pid);
        let tell = &mut |learnt: Learnt| learn(Input::Learnt(learnt, Arc::clone(&resource)));
        self.attacher.expect_libraries(pid, tell);
    }

    /// Keeps what is wanted of a process after it is gone: its code's mappings and whether it used the GPU.
    fn remember(&mut self, pid: u32) {
        if let Some(member) = self.members.get_mut(&pid) {
            member.gpu = self.attacher.has_gpu(pid);
        }
        self.mappings.remove(&pid);
    }

    fn remove(&mut self, pid: u32, learn: &mut dyn FnMut(Input)) {
        self.name_kernels(learn);
        self.count(learn);
        self.attacher.remove(pid);
        self.names.forget(pid);
        self.forget_inside(pid);
        self.mappings.remove(&pid);
        self.fixed.retain(|(of, _), _| *of != pid);
        self.start_ticks.remove(&pid);
        learn(Input::Gone { pid, time_ns: clock::monotonic_ns() });
        tracing::info!(pid, "process ended");
    }

    /// A server that forks for years: half of those that are gone, and never used the GPU, are told no longer.
    fn forget_members(&mut self) {
        let gone = self.members.values().filter(|of| !of.gpu && !self.attacher.has(of.pid)).map(|of| of.pid);
        let gone: Vec<u32> = gone.take(MOST_MEMBERS / 2).collect();
        gone.iter().for_each(|pid| drop(self.members.remove(pid)));
    }

    /// The same process, not another that got its number, and not one whose last thread has ended.
    fn is_alive(&self, pid: u32) -> bool {
        let same = target::start_ticks(pid).is_some_and(|ticks| self.start_ticks.get(&pid) == Some(&ticks));
        same && std::fs::read_link(format!("/proc/{pid}/exe")).is_ok()
    }

    /// A call told what a kernel is called.
    fn learn_name(&mut self, pid: u32, naming: Naming) {
        match naming {
            Naming::Handle { handle, name, cut } => self.names.learn_handle(pid, handle, &name, cut),
            Naming::Alias { handle, of } => self.names.learn_alias(pid, handle, of),
            Naming::Host { function, name_address } => self.names.learn_host_at(pid, function, name_address),
        }
    }

    fn name_kernels(&mut self, learn: &mut dyn FnMut(Input)) {
        let mut by_process: HashMap<u32, Vec<u64>> = HashMap::new();
        for kernel in self.unnamed.drain(..) {
            by_process.entry(kernel.pid).or_default().push(kernel.function);
        }
        for pid in self.names.waiting() {
            by_process.entry(pid).or_default();
        }
        for (pid, functions) in by_process {
            let mappings =
                self.mappings.entry(pid).or_insert_with(|| target::mappings(pid).unwrap_or_default());
            let named = self.names.resolve(pid, mappings, &functions).into_iter();
            let short = |name| if let Name::Known(kernel) = name { Some(kernel.short) } else { None };
            let key = |function| KernelKey { pid, function };
            learn(Input::Named(named.map(|(function, name)| (key(function), short(name))).collect()));
        }
    }
}

fn is_server(identity: &Identity) -> bool {
    known::is_server(&identity.comm, &identity.executable.to_string_lossy(), &identity.command_line)
}

fn recognise(identity: &Identity) -> &'static str {
    known::recognise(&identity.comm, &identity.executable.to_string_lossy(), &identity.command_line)
}
