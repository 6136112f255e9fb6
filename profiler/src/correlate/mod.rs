//! Events → operations → steps → requests, on one clock, in bounded tables.
//!
//! In: decoded [`Event`]s and what `attach` learnt of the processes. Out: finished [`Request`]s and closed
//! [`Step`]s, and running totals. Deliberately absent: I/O, clocks, names of kernels, spans.
//!
//! ```text
//! GPU calls ─► operation (each once) ─► step ─┐
//!              └ capture (graphs)             ├─► share ─► request ─► finished
//! sockets ───► http ─► signals ───────────────┘
//! ```

mod capture;
mod connection;
mod kernel;
mod memory;
mod operation;
mod request;
mod share;
mod step;
mod totals;

pub use connection::{ConnectionCounts, Connections};
pub use kernel::KernelKey;
pub use memory::MemoryTotals;
pub use operation::Ignored;
pub use request::{Evidence, Outcome, Request, Thinned};
pub use share::Share;
pub use step::{Step, Work};
pub use totals::{MOST_KERNELS, Totals};

use crate::decode::{Body, Change, Event, GpuCall};
use crate::probe::Direction;
use memory::Allocations;
use operation::{Operation, Reader};
use std::collections::HashMap;
use step::Steps;

/// What the correlation of a batch of events brought.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Requests that ended.
    pub requests: Vec<Request>,
    /// Steps that closed.
    pub steps: Vec<Step>,
    /// Sizes of copies that ran by themselves (not as nodes of graphs), bytes.
    pub copies: Vec<(Direction, u64)>,
    /// Connections that speak no protocol we read: their payload need not travel any more.
    pub uninteresting: Vec<u64>,
    /// Processes that changed in a way that `attach` must look at.
    pub changes: Vec<(u32, Change)>,
}

/// The correlation of one target group.
#[derive(Debug, Default)]
pub struct Engine {
    processes: HashMap<u32, Process>,
    memory: Allocations,
    connections: Connections,
    totals: Totals,
    /// Turns with each step, so that what does not divide goes to each member in turn.
    rotation: u64,
    closed: Vec<Step>,
}

#[derive(Debug, Default)]
struct Process {
    reader: Reader,
    steps: Steps,
}

impl Engine {
    /// The text ranges of a process's probed runtime libraries: driver calls from there are nested.
    pub fn set_runtime(&mut self, pid: u32, ranges: Vec<(u64, u64)>) {
        self.process(pid).reader.set_runtime(ranges);
    }

    /// A connection that was open before the attach.
    pub fn found_open(&mut self, pid: u32, connection: u64, port: u16) {
        self.connections.found_open(pid, connection, port);
    }

    /// The port behind a listening descriptor, as `target` found it.
    pub fn set_listener(&mut self, pid: u32, fd: u32, port: u16) {
        self.connections.set_listener(pid, fd, port);
    }

    /// Listening descriptors whose port has not been looked up.
    pub fn unknown_listeners(&mut self) -> Vec<(u32, u32)> {
        self.connections.unknown_listeners()
    }

    /// Running totals since the attach.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Device memory since the attach.
    #[must_use]
    pub fn memory(&self) -> MemoryTotals {
        self.memory.totals
    }

    /// Requests under way.
    #[must_use]
    pub fn active_requests(&self) -> usize {
        self.connections.active()
    }

    /// The connections, for a live view.
    #[must_use]
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Takes one event.
    pub fn event(&mut self, event: Event, out: &mut Outcomes) {
        match event.body {
            Body::Gpu(call) => self.gpu((event.pid, event.tid, event.time_ns), &call, out),
            Body::Socket(socket) => {
                self.totals.joined += 1;
                self.connections.event(event.pid, event.time_ns, socket, out);
            }
            Body::Process(change) => {
                self.totals.joined += 1;
                self.changed(event.pid, event.tid, change, out);
            }
        }
    }

    /// Time passed: work that nobody waits for closes.
    pub fn tick(&mut self, now_ns: u64, out: &mut Outcomes) {
        let mut closed = std::mem::take(&mut self.closed);
        for process in self.processes.values_mut() {
            process.steps.close_paused(now_ns, &mut closed);
        }
        self.join(&mut closed, out);
        self.closed = closed;
    }

    /// The observation ends: everything open is closed, requests under way stay counted as pending.
    pub fn finish(&mut self, out: &mut Outcomes) {
        self.tick(u64::MAX, out);
        self.totals.pending = self.connections.active() as u64;
    }

    /// A process is gone: its requests are lost, its memory is free.
    pub fn process_gone(&mut self, pid: u32, time_ns: u64, out: &mut Outcomes) {
        if let Some(mut process) = self.processes.remove(&pid) {
            let mut closed = std::mem::take(&mut self.closed);
            process.steps.close_paused(u64::MAX, &mut closed);
            self.join(&mut closed, out);
            self.closed = closed;
            self.totals.captured_launches += process.reader.captured_launches();
        }
        self.memory.forget_process(pid);
        self.connections.process_gone(pid, time_ns, out);
    }

    /// Kernel launches recorded into graphs instead of run.
    #[must_use]
    pub fn captured_launches(&self) -> u64 {
        self.totals.captured_launches
            + self.processes.values().map(|process| process.reader.captured_launches()).sum::<u64>()
    }

    fn gpu(&mut self, at: (u32, u32, u64), call: &GpuCall, out: &mut Outcomes) {
        self.totals.call(call.api);
        let (pid, tid, _) = at;
        let process = self.processes.entry(pid).or_insert_with(|| Process::new(pid));
        let operation = match process.reader.read(tid, call) {
            Ok(operation) => operation,
            Err(reason) => return self.totals.ignored(reason),
        };
        self.totals.joined += 1;
        match operation {
            Operation::Allocated { address, bytes } => self.memory.allocated(pid, address, bytes),
            Operation::Freed { address } => drop(self.memory.freed(pid, address)),
            _ => {
                if let Operation::Copy { direction, bytes, .. } = operation {
                    out.copies.push((direction, bytes));
                }
                process.steps.operation(at, &operation, &mut self.closed);
                if !self.closed.is_empty() {
                    let mut closed = std::mem::take(&mut self.closed);
                    self.join(&mut closed, out);
                    self.closed = closed;
                }
            }
        }
    }

    /// Gives each closed step to the requests that may have ridden in it.
    fn join(&mut self, closed: &mut Vec<Step>, out: &mut Outcomes) {
        for step in closed.drain(..) {
            self.rotation = self.rotation.wrapping_add(1);
            let members = self.connections.ride(&step, self.rotation);
            self.totals.step(&step, members > 0);
            out.steps.push(step);
        }
    }

    fn changed(&mut self, pid: u32, tid: u32, change: Change, out: &mut Outcomes) {
        if let (Change::Exited, Some(process)) = (change, self.processes.get_mut(&pid)) {
            process.reader.forget_thread(tid);
        }
        if !matches!(change, Change::Exited) || pid == tid {
            out.changes.push((pid, change));
        }
    }

    fn process(&mut self, pid: u32) -> &mut Process {
        self.processes.entry(pid).or_insert_with(|| Process::new(pid))
    }
}

impl Process {
    fn new(pid: u32) -> Self {
        Self { reader: Reader::new(pid), steps: Steps::default() }
    }
}

#[cfg(test)]
mod tests;
