//! What is known of each process, kept up to date for as little as can be.
//!
//! In: the process table, again and again. Out: the same with what each program is and whether it has to do with a GPU,
//! and who is gone. A new process is examined at once. A known one is asked for its size, 0.6 µs; only if that has
//! changed for its executable mappings, and only if those have for its program and its libraries. Every half a minute it
//! is asked anyway, each process at a time of its own.

use super::kind::{Kind, kind};
use super::procfs::{Processes, Program, Status};
use crate::target::Address;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How often a process is asked that does not seem to change.
const REFRESH: Duration = Duration::from_secs(30);
/// For how long a new process is asked for its command line whenever its size has changed.
const YOUNG: Duration = Duration::from_secs(10);
/// Sizes that are asked for in one look. On a machine with more processes each is asked less often.
const MOST_SIZES: usize = 4096;
/// Processes that are known at most.
const MOST: usize = 65_536;
/// Between two examinations of a process, in units of what one takes: one that generates code all the time costs 0.5 %
/// of a core at most.
const REST: u32 = 200;
/// Between two looks at a process's sockets when the number of its descriptors stays the same.
const SOCKETS: Duration = Duration::from_secs(10);
/// For how long they are looked at every time after the number has changed: a socket may exist before it listens.
const SETTLING: Duration = Duration::from_secs(3);
/// The most ancestors of a process.
const DEEPEST: usize = 64;

/// A process.
#[derive(Debug)]
pub struct Process {
    /// What was cheap to know.
    pub status: Status,
    /// What it runs.
    pub program: Program,
    /// Its command line in one piece.
    pub command: String,
    /// What that is.
    pub kind: Kind,
    /// What shows that it has to do with a GPU.
    pub gpu: Option<String>,
    /// When it was first seen; none if it is older than this table.
    pub seen: Option<Instant>,
    /// Since when it could be a server; for how long its pod is waited for.
    pub candidate: Option<Instant>,
    /// Whether a rule asks for it by name; none until rules were asked.
    pub wanted: Option<bool>,
    /// The target that it was part of, by pid and start.
    pub part_of: Option<(u32, u64)>,
    /// The back-off knows that it was started.
    pub counted: bool,
    pages: u64,
    stale: bool,
    rest_until: Instant,
    refresh_at: Instant,
    sockets: Sockets,
}

#[derive(Debug, Default)]
struct Sockets {
    descriptors: u64,
    changed: Option<Instant>,
    looked: Option<Instant>,
    listening: Vec<(u64, Address)>,
}

/// All processes.
#[derive(Debug, Default)]
pub struct Table {
    known: BTreeMap<u32, Process>,
    /// Kernel threads, and processes that have ended and not been waited for: when to ask again.
    idle: BTreeMap<u32, Instant>,
    looks: usize,
    /// Programs and libraries that were examined so far.
    pub examined: u64,
}

impl Table {
    /// Brings it up to date; `hints` are examined whatever they look like. Tells who is gone.
    pub fn update(
        &mut self,
        now: Instant,
        processes: &mut dyn Processes,
        hints: &BTreeSet<u32>,
    ) -> Vec<(u32, Process)> {
        let running: BTreeSet<u32> = processes.pids().into_iter().take(MOST).collect();
        let missing: Vec<u32> = self.known.keys().filter(|pid| !running.contains(pid)).copied().collect();
        let mut gone: Vec<_> = missing.into_iter().filter_map(|pid| self.remove(pid, processes)).collect();
        self.idle.retain(|pid, _| running.contains(pid));
        let stride = running.len().div_ceil(MOST_SIZES).max(1);
        for (index, pid) in running.into_iter().enumerate() {
            let hinted = hints.contains(&pid);
            match self.known.get_mut(&pid) {
                Some(_) if index % stride != self.looks % stride && !hinted => {}
                Some(process) => {
                    let same = process.renew(pid, now, hinted, processes, &mut self.examined);
                    if !same {
                        gone.extend(self.remove(pid, processes));
                        self.meet(pid, now, processes);
                    }
                }
                None if self.idle.get(&pid).is_some_and(|again| now < *again) && !hinted => {}
                None => self.meet(pid, now, processes),
            }
        }
        self.looks += 1;
        gone
    }

    /// Brings only these up to date, of which some are examined whatever they look like. Tells who is gone.
    pub fn update_some(
        &mut self,
        now: Instant,
        processes: &mut dyn Processes,
        some: &BTreeMap<u32, bool>,
    ) -> Vec<(u32, Process)> {
        processes.forget_sockets();
        let mut gone = Vec::new();
        for (pid, whole) in some {
            let same = match self.known.get_mut(pid) {
                Some(process) => process.renew(*pid, now, *whole, processes, &mut self.examined),
                None => false,
            };
            if !same {
                gone.extend(self.remove(*pid, processes));
                self.meet(*pid, now, processes);
            }
        }
        gone
    }

    /// A new process.
    fn meet(&mut self, pid: u32, now: Instant, processes: &mut dyn Processes) {
        let again = now + REFRESH;
        let met = processes
            .pages(pid)
            .filter(|pages| *pages > 0)
            .and_then(|pages| Some((pages, processes.status(pid)?, processes.program(pid)?)));
        let Some((pages, status, program)) = met else {
            processes.forget(pid);
            self.idle.insert(pid, again);
            return;
        };
        self.idle.remove(&pid);
        let mut process = Process {
            status,
            program: Program::default(),
            command: String::new(),
            kind: Kind::Other,
            gpu: None,
            seen: (self.looks > 0).then_some(now),
            candidate: None,
            wanted: None,
            part_of: None,
            counted: false,
            pages,
            stale: false,
            rest_until: now,
            // The first time is at a moment of its own.
            refresh_at: now + REFRESH * (pid % 30 + 1) / 30,
            sockets: Sockets::default(),
        };
        process.examine(pid, program, processes);
        self.examined += 1;
        self.known.insert(pid, process);
    }

    fn remove(&mut self, pid: u32, processes: &mut dyn Processes) -> Option<(u32, Process)> {
        processes.forget(pid);
        Some((pid, self.known.remove(&pid)?))
    }

    /// A process.
    #[must_use]
    pub fn get(&self, pid: u32) -> Option<&Process> {
        self.known.get(&pid)
    }

    /// A process, to note something.
    pub fn get_mut(&mut self, pid: u32) -> Option<&mut Process> {
        self.known.get_mut(&pid)
    }

    /// Every process.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Process)> {
        self.known.iter().map(|(pid, process)| (*pid, process))
    }

    /// Every process, to note something.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Process)> {
        self.known.iter_mut().map(|(pid, process)| (*pid, process))
    }

    /// The parent, its parent, and so on. A process that began after its child got the number of one that is gone.
    #[must_use]
    pub fn ancestors(&self, pid: u32) -> Vec<u32> {
        let parent = |pid: &u32| {
            let child = self.known.get(pid)?;
            let parent = self.known.get(&child.status.parent)?;
            (parent.program.start_ticks <= child.program.start_ticks).then_some(child.status.parent)
        };
        std::iter::successors(Some(pid), parent).skip(1).take(DEEPEST).collect()
    }

    /// A process and everything under it.
    #[must_use]
    pub fn descendants(&self, root: u32) -> Vec<u32> {
        let under = |pid: &u32| *pid == root || self.ancestors(*pid).contains(&root);
        self.known.keys().copied().filter(under).collect()
    }

    /// The listening sockets of a process.
    pub fn listens(&mut self, pid: u32, now: Instant, processes: &mut dyn Processes) -> &[(u64, Address)] {
        let Some(process) = self.known.get_mut(&pid) else { return &[] };
        process.sockets.look(pid, now, processes);
        &process.sockets.listening
    }
}

impl Process {
    /// How long it has lived, as far as that is known: what is older than the table is old.
    #[must_use]
    pub fn lived(&self, now: Instant) -> Duration {
        self.seen.map_or(Duration::MAX, |seen| now.duration_since(seen))
    }

    /// Learns what has changed; false if this is another process by now.
    fn renew(
        &mut self,
        pid: u32,
        now: Instant,
        hinted: bool,
        processes: &mut dyn Processes,
        examined: &mut u64,
    ) -> bool {
        let Some(pages) = processes.pages(pid).filter(|pages| *pages > 0) else { return false };
        let due = hinted || now >= self.refresh_at;
        if pages != self.pages || due {
            let Some(status) = processes.status(pid) else { return false };
            self.stale |= hinted || status.code_kb != self.status.code_kb || status.comm != self.status.comm;
            // Another program of the same interpreter may look the same but for its command line.
            let is_asked = due || self.lived(now) < YOUNG;
            self.stale |= is_asked && processes.command_line(pid) != self.program.command_line;
            self.pages = pages;
            self.status = status;
            self.refresh_at = if due { now + REFRESH } else { self.refresh_at };
        }
        if hinted {
            self.sockets.changed = Some(now);
        }
        if self.stale && (hinted || now >= self.rest_until) {
            let began = Instant::now();
            let Some(program) = processes.program(pid) else { return false };
            if program.start_ticks != self.program.start_ticks {
                return false;
            }
            self.examine(pid, program, processes);
            *examined += 1;
            self.rest_until = now + began.elapsed() * REST;
        }
        true
    }

    fn examine(&mut self, pid: u32, program: Program, processes: &dyn Processes) {
        self.stale = false;
        self.gpu = processes.gpu(pid);
        self.kind = kind(&self.status.comm, &program.executable, &program.command_line);
        if pid == std::process::id() {
            self.kind = Kind::Own;
        }
        if program != self.program {
            self.wanted = None;
            self.command = program.command_line.join(" ");
            self.program = program;
        }
    }
}

impl Sockets {
    fn look(&mut self, pid: u32, now: Instant, processes: &mut dyn Processes) {
        let descriptors = processes.descriptors(pid);
        // Linux before 6.2 does not count them.
        if descriptors != self.descriptors || descriptors == 0 || self.changed.is_none() {
            self.descriptors = descriptors;
            self.changed = Some(now);
        }
        let within =
            |since: Option<Instant>, time| since.is_some_and(|since| now.duration_since(since) < time);
        if within(self.looked, SOCKETS) && !within(self.changed, SETTLING) {
            return;
        }
        // Within one look a process is asked once.
        if self.looked != Some(now) {
            self.looked = Some(now);
            self.listening = processes.listens(pid);
        }
    }
}
