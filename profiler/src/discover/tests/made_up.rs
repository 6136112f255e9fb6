//! A process table that is made up, and a story told on it second by second.

use super::super::*;
use super::S;
use crate::target::Address;
use std::sync::{Arc, Mutex, MutexGuard};

/// A made-up process.
#[derive(Clone, Debug, Default)]
pub struct Of {
    pub parent: u32,
    pub comm: &'static str,
    pub executable: &'static str,
    pub line: &'static str,
    pub cgroup: &'static str,
    pub gpu: Option<&'static str>,
    pub pages: u64,
    pub code_kb: u64,
    pub start_ticks: u64,
    pub descriptors: u64,
    pub listens: Vec<(u64, Address)>,
}

/// How often something was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    pub status: u64,
    pub examined: u64,
}

/// The table.
#[derive(Debug, Default)]
pub struct Made {
    pub processes: BTreeMap<u32, Of>,
    pub groups: Vec<BTreeSet<u32>>,
    pub counts: Counts,
    /// Start of the process that a size was first asked for, as a held file has it.
    held: BTreeMap<u32, u64>,
}

struct Shared(Arc<Mutex<Made>>);

impl Processes for Shared {
    fn pids(&mut self) -> Vec<u32> {
        self.made().processes.keys().copied().collect()
    }

    fn pages(&mut self, pid: u32) -> Option<u64> {
        let mut made = self.made();
        let (start, pages) = made.processes.get(&pid).map(|of| (of.start_ticks, of.pages))?;
        let held = *made.held.entry(pid).or_insert(start);
        (held == start).then_some(pages)
    }

    fn forget(&mut self, pid: u32) {
        self.made().held.remove(&pid);
    }

    fn status(&self, pid: u32) -> Option<Status> {
        let mut made = self.made();
        made.counts.status += 1;
        let of = made.processes.get(&pid)?;
        Some(Status { comm: of.comm.to_owned(), parent: of.parent, uid: 0, code_kb: of.code_kb })
    }

    fn command_line(&self, pid: u32) -> Vec<String> {
        let made = self.made();
        let words = made.processes.get(&pid).map(|of| of.line.split(' ').map(str::to_owned).collect());
        words.unwrap_or_default()
    }

    fn program(&self, pid: u32) -> Option<Program> {
        let mut made = self.made();
        made.counts.examined += 1;
        let of = made.processes.get(&pid)?;
        Some(Program {
            start_ticks: of.start_ticks,
            executable: of.executable.to_owned(),
            command_line: of.line.split(' ').map(str::to_owned).collect(),
            cgroup: of.cgroup.to_owned(),
        })
    }

    fn gpu(&self, pid: u32) -> Option<String> {
        self.made().processes.get(&pid)?.gpu.map(str::to_owned)
    }

    fn descriptors(&self, pid: u32) -> u64 {
        self.made().processes.get(&pid).map_or(0, |of| of.descriptors)
    }

    fn forget_sockets(&mut self) {}

    fn listens(&mut self, pid: u32) -> Vec<(u64, Address)> {
        self.made().processes.get(&pid).map(|of| of.listens.clone()).unwrap_or_default()
    }

    fn group(&self, root: u32) -> BTreeSet<u32> {
        let made = self.made();
        made.groups.iter().find(|group| group.contains(&root)).cloned().unwrap_or_default()
    }

    fn on_amd(&self) -> BTreeSet<u32> {
        BTreeSet::new()
    }
}

impl Shared {
    fn made(&self) -> MutexGuard<'_, Made> {
        self.0.lock().unwrap()
    }
}

/// A story.
pub struct Story {
    pub discovery: Discovery,
    pub now: Instant,
    pub on_gpu: BTreeSet<u32>,
    pub most_status_of_a_look: u64,
    made: Arc<Mutex<Made>>,
    places: BTreeMap<u32, PlaceFacts>,
    starts: u64,
}

impl Story {
    pub fn new(rules: &str) -> Self {
        let rules: Vec<Rule> = serde_saphyr::from_str(rules).unwrap();
        let made = Arc::<Mutex<Made>>::default();
        let shared = Box::new(Shared(Arc::clone(&made)));
        let mut story = Self {
            discovery: Discovery::on(shared, Rules::new(&rules).unwrap(), Settings::default()),
            now: Instant::now(),
            on_gpu: BTreeSet::new(),
            most_status_of_a_look: 0,
            made,
            places: BTreeMap::new(),
            starts: 0,
        };
        story.start(1, 0, "/usr/lib/systemd/systemd", "/sbin/init");
        story
    }

    pub fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap()
    }

    pub fn start(&mut self, pid: u32, parent: u32, executable: &'static str, line: &'static str) {
        self.starts += 1;
        let comm = executable.rsplit('/').next().unwrap();
        let of = Of {
            parent,
            comm,
            executable,
            line,
            pages: 100,
            code_kb: 10,
            start_ticks: self.starts,
            descriptors: 3,
            ..Of::default()
        };
        self.made().processes.insert(pid, of);
    }

    pub fn end(&mut self, pid: u32) {
        self.made().processes.remove(&pid);
    }

    pub fn change(&mut self, pid: u32, how: impl FnOnce(&mut Of)) {
        how(self.made().processes.get_mut(&pid).unwrap());
    }

    pub fn place(&mut self, pid: u32, namespace: Option<&str>) {
        let facts =
            PlaceFacts { in_pod: true, namespace: namespace.map(str::to_owned), ..PlaceFacts::default() };
        self.places.insert(pid, facts);
    }

    /// A look, and a second goes by.
    pub fn look(&mut self) -> Look {
        let before = self.made().counts.status;
        let facts = |pid| self.places.get(&pid).cloned().unwrap_or_default();
        let look = self.discovery.look(self.now, &self.on_gpu, &facts);
        self.most_status_of_a_look = match before {
            0 => 0,
            before => self.most_status_of_a_look.max(self.made().counts.status - before),
        };
        self.now += S;
        look
    }

    /// A look at those that something happened to, and no time goes by.
    pub fn look_hinted(&mut self) -> Option<Look> {
        let facts = |pid| self.places.get(&pid).cloned().unwrap_or_default();
        self.discovery.look_at_hinted(self.now, &self.on_gpu, &facts)
    }

    pub fn roots(&self, look: &Look) -> Vec<(u32, &'static str)> {
        look.found.iter().map(|found| (found.root, found.server)).collect()
    }

    pub fn roots_now(&mut self) -> Vec<(u32, &'static str)> {
        let look = self.look();
        self.roots(&look)
    }
}
