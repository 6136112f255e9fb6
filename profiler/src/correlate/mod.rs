//! Events → operations → steps → requests, on one clock, in bounded tables.
//!
//! In: decoded [`Event`]s and what `attach` learnt of the processes. Out: finished [`Request`]s and closed
//! [`Step`]s, and running totals. Deliberately absent: I/O, clocks, names of kernels, spans.
//!
//! ```text
//! GPU calls ─► operation (each once) ─► step ─┐
//!              └ capture (graphs)             ├─► share ─► request ─► finished
//! sockets ───► http ─► signals ───────────────┤
//! servers' own calls ─► inside ───────────────┘
//! ```

mod arguments;
mod beyond;
mod capture;
mod connection;
mod context;
mod count;
mod device;
mod energy;
mod failure;
mod graph;
mod inside;
mod kernel;
mod life;
mod memory;
mod operation;
mod power;
mod reader;
mod request;
mod ride;
mod settle;
mod step;
mod tap;
mod totals;
mod utilization;

pub use crate::evidence::Evidence;
pub use beyond::Forgotten;
pub use connection::{ConnectionCounts, Connections, Payload};
pub use context::Origin;
pub use energy::Purpose;
pub use failure::{Failures, OutOfMemory};
pub use inside::{Inside, InsideCounts, Sequence, Served, SpeakerState};
pub use kernel::{KernelKey, Naming};
pub use life::{Hook, Life, State, Transition};
pub use memory::{Account, MemoryTotals};
pub use operation::Ignored;
pub use power::Power;
pub use request::{Outcome, Owner, Request, Thinned};
pub use ride::{
    BoardCounts, GpuTimes, GpuWork, Iteration, KernelShare, KernelShares, Phase, Piece, Ride, Rider, Share,
    TimeClass, Who,
};
pub use step::{Step, Work};
pub use tap::Parsed;
pub use totals::{Counted, MOST_KERNELS, Totals};
pub use utilization::Agreement;

use crate::decode::{Body, Burst, CallData, Change, Event, GpuCall, Stack};
use crate::probe::{self, Direction, Layer, Memory};
use crate::target::Address;
use context::Contexts;
use count::Counts;
use memory::{Accounts, Block, Blocks};
use operation::Operation;
use reader::Reader;
use ride::Board;
use std::collections::{BTreeMap, HashMap};
use step::Steps;
use utilization::Utilization;

/// What the correlation of a batch of events brought.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Requests that ended.
    pub requests: Vec<Request>,
    /// Steps that closed.
    pub steps: Vec<Step>,
    /// Sizes of copies that ran by themselves (not as nodes of graphs), bytes.
    pub copies: Vec<(Direction, u64)>,
    /// Connections of whose payload not all is of use any more.
    pub payload: Vec<(u64, Payload)>,
    /// Processes that changed in a way that `attach` must look at.
    pub changes: Vec<(u32, Change)>,
    /// What calls told about kernels' names, with their process.
    pub names: Vec<(u32, Naming)>,
    /// Kernels that were counted in the kernel for the first time.
    pub kernels: Vec<KernelKey>,
    /// Copies that were counted in the kernel: direction and bytes.
    pub counted_copies: Vec<(Direction, u64)>,
    /// Stacks of launches that count once, with their process.
    pub stacks: Vec<(u32, Stack)>,
    /// Large pieces of device memory that were handed out.
    pub reservations: Vec<Reservation>,
    /// Iterations of engines, as their servers said them.
    pub iterations: Vec<Iteration>,
    /// What shards of a server said: for [`Inside`].
    pub(crate) shards: Vec<inside::ShardFact>,
    /// Frames of messages that went over connections: for [`Inside`].
    pub(crate) frames: Vec<inside::WireFrame>,
}

/// A large piece of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Process.
    pub pid: u32,
    /// Size.
    pub bytes: u64,
    /// Device, if known.
    pub device: Option<u32>,
    /// Return address of the call: who asked.
    pub caller: u64,
}

/// From this size on an allocation is a reservation worth naming: a model's weights, a KV cache, a pool's segment.
pub const RESERVATION_BYTES: u64 = 64 << 20;

/// The correlation of one target group.
#[derive(Debug, Default)]
pub struct Engine {
    /// In an order that does not change from run to run.
    processes: BTreeMap<u32, Process>,
    memory: Accounts,
    counts: Counts,
    /// Calls have been counted in the kernel.
    counting: bool,
    connections: Connections,
    inside: Inside,
    totals: Totals,
    closed: Vec<Step>,
    board: Board,
    utilization: Utilization,
    contexts: Contexts,
    /// Finished requests whose last iterations are not settled.
    settling: Vec<Request>,
}

#[derive(Debug, Default)]
struct Process {
    reader: Reader,
    steps: Steps,
    blocks: Blocks,
    /// What each thread was told to have sent so far.
    bursts: HashMap<u32, Burst>,
}

impl Engine {
    /// The text ranges of a process's probed runtime libraries: driver calls from there are nested.
    pub fn set_runtime(&mut self, pid: u32, ranges: Vec<(u64, u64)>) {
        self.process(pid).reader.set_runtime(ranges);
    }

    /// Whether all of the process's GPU calls have been seen, its very first among them.
    pub fn set_from_start(&mut self, pid: u32, all: bool) {
        let process = self.process(pid);
        process.reader.set_from_start(all);
        process.blocks.set_from_start(all);
    }

    /// A connection that was open before the attach.
    pub fn found_open(&mut self, pid: u32, connection: u64, address: Address) {
        self.connections.found_open(pid, connection, address);
    }

    /// What a descriptor listens on, as `target` found it.
    pub fn set_listener(&mut self, pid: u32, fd: u32, address: Address) {
        self.connections.set_listener(pid, fd, address);
    }

    /// Listening descriptors whose address has not been looked up.
    pub fn unknown_listeners(&mut self) -> Vec<(u32, u32)> {
        self.connections.unknown_listeners()
    }

    /// Running totals since the attach.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Memory since the attach, by account.
    pub fn memory(&self) -> impl Iterator<Item = (Account, &MemoryTotals)> {
        self.memory.totals()
    }

    /// Device memory since the attach, all devices together.
    #[must_use]
    pub fn device_memory(&self) -> MemoryTotals {
        let mut sum = MemoryTotals::default();
        for (_, totals) in self.memory().filter(|(account, _)| account.kind == Memory::Device) {
            sum.add(totals);
        }
        sum
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
        if matches!(event.body, Body::Server(_) | Body::Socket(_)) {
            self.hand_over(out);
        }
        match event.body {
            Body::Gpu(call) => self.gpu((event.pid, event.tid, event.time_ns), &call, out),
            Body::Stack(stack) => self.stack(event.pid, *stack, out),
            Body::Burst(burst) => {
                self.totals.joined += 1;
                self.burst(event.pid, event.tid, burst, out);
            }
            Body::Server(call) => {
                self.totals.joined += 1;
                let told = out.iterations.len();
                self.inside.call((event.pid, event.tid, event.time_ns), &call, &mut out.iterations);
                self.seat(told, out);
                let from = out.requests.len();
                self.inside.screen(&mut out.requests, from, event.time_ns);
                self.depart(from, out);
            }
            Body::Socket(socket) => {
                self.totals.joined += 1;
                let from = out.requests.len();
                let context = self.contexts.of((event.pid, event.tid));
                let at = (event.pid, event.tid, event.time_ns);
                self.connections.event_for(context, at, socket, out);
                self.listen(from, event.time_ns, out);
            }
            Body::Process(change) => {
                self.totals.joined += 1;
                self.changed(event.pid, event.tid, change, out);
            }
            Body::Context(context) => self.calls_for((event.pid, event.tid), context),
        }
    }

    /// Time passed: work that nobody waits for closes.
    pub fn tick(&mut self, now_ns: u64, out: &mut Outcomes) {
        self.hand_over(out);
        let from = out.requests.len();
        self.connections.tick(now_ns, out);
        self.listen(from, now_ns, out);
        let mut closed = std::mem::take(&mut self.closed);
        for process in self.processes.values_mut() {
            process.steps.close_paused(now_ns, &mut closed);
        }
        self.join(&mut closed, out);
        self.closed = closed;
        self.claim(now_ns);
        let told = out.iterations.len();
        let from = out.requests.len();
        self.inside.tick(now_ns, &mut out.requests, &mut out.iterations);
        self.seat(told, out);
        if !self.inside.is_believed() {
            self.board.hush();
        }
        self.depart(from, out);
        self.settle(now_ns, out);
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
            self.totals.cut_batches += process.reader.cut_batches();
            self.totals.forgotten.add(&process.forgotten());
            self.memory.forget(&process.blocks);
        }
        self.counts.forget(pid);
        self.contexts.gone(pid, None);
        self.board.gone(pid);
        let told = out.iterations.len();
        self.inside.process_gone(pid, time_ns, &mut out.iterations);
        self.seat(told, out);
        let from = out.requests.len();
        self.connections.process_gone(pid, time_ns, out);
        self.listen(from, time_ns, out);
    }

    /// What the servers of the group say inside.
    #[must_use]
    pub fn inside(&self) -> &Inside {
        &self.inside
    }

    /// Which server the group is.
    pub fn set_server(&mut self, server: &'static str) {
        self.inside.set_server(server);
    }

    /// A snapshot that a server publishes was read.
    pub fn snapshot(&mut self, pid: u32, time_ns: u64, bytes: &[u8], out: &mut Outcomes) {
        self.hand_over(out);
        let told = out.iterations.len();
        self.inside.snapshot(pid, time_ns, bytes, &mut out.iterations);
        self.seat(told, out);
    }

    /// Kernel launches recorded into graphs instead of run.
    #[must_use]
    pub fn captured_launches(&self) -> u64 {
        self.totals.captured_launches
            + self.processes.values().map(|process| process.reader.captured_launches()).sum::<u64>()
    }

    /// Calls are counted in the kernel from here on, or may be.
    pub fn set_counting(&mut self) {
        self.counting = true;
        self.processes.values_mut().for_each(|process| process.reader.set_counted());
    }

    /// Takes what a thread has sent so far, as the kernel side counted it.
    pub fn burst(&mut self, pid: u32, tid: u32, now: Burst, out: &mut Outcomes) {
        let process = self.process(pid);
        let before = process.bursts.get(&tid).copied().unwrap_or_default();
        // A look at the table may arrive behind a record that is newer.
        if now.launches < before.launches || now.copies < before.copies {
            return;
        }
        process.bursts.insert(tid, now);
        let more = Burst {
            launches: now.launches.saturating_sub(before.launches),
            copies: now.copies.saturating_sub(before.copies),
            copy_bytes: now.copy_bytes.saturating_sub(before.copy_bytes),
            first_ns: if now.first_ns == 0 { now.last_ns } else { now.first_ns },
            last_ns: now.last_ns,
        };
        if more.launches + more.copies > 0 {
            self.operate((pid, tid, now.last_ns), &Operation::Burst(more), out);
        }
    }

    fn gpu(&mut self, at: (u32, u32, u64), call: &GpuCall, out: &mut Outcomes) {
        let (pid, tid, time_ns) = at;
        // A failure was counted as a call when it was entered.
        self.totals.calls_of(call.api, u64::from(!matches!(call.data, CallData::Failed { .. })));
        self.failure(call);
        let process = self.processes.entry(pid).or_insert_with(|| Process::new(pid, self.counting));
        let operation = match process.reader.read(tid, call, &process.blocks) {
            Ok(operation) => operation,
            Err(reason) => return self.totals.ignored(reason),
        };
        if let Operation::AllocationFailed { bytes, device, result } = operation {
            let failed = OutOfMemory { pid, api: call.api, bytes, device, time_ns };
            self.totals.failures.allocation(result, failed);
            return self.totals.ignored(Ignored::Failed);
        }
        self.totals.joined += 1;
        match operation {
            Operation::Allocated { key, bytes, kind, device, caller } => {
                let block = Block { bytes, account: Account { kind, device } };
                self.memory.allocated(&mut process.blocks, key, block);
                if kind == Memory::Device && bytes >= RESERVATION_BYTES {
                    out.reservations.push(Reservation { pid, bytes, device, caller });
                }
            }
            Operation::Freed { key, kind, device } => {
                let device = device.filter(|_| kind == Memory::Device);
                self.memory.freed(&mut process.blocks, key, Account { kind, device });
            }
            Operation::Collective { bytes } => self.totals.collective(call.api, bytes),
            Operation::Named(naming) => out.names.push((pid, naming)),
            operation => self.operate(at, &operation, out),
        }
    }

    /// An operation goes into its step, and closed steps to their requests.
    fn operate(&mut self, at: (u32, u32, u64), operation: &Operation, out: &mut Outcomes) {
        if let Operation::Copy { direction, bytes, .. } = operation {
            out.copies.push((*direction, *bytes));
        }
        let mut closed = std::mem::take(&mut self.closed);
        let Process { steps, reader, .. } = self.process(at.0);
        steps.operation(at, operation, reader.devices(), &mut closed);
        if !closed.is_empty() {
            self.join(&mut closed, out);
        }
        self.closed = closed;
    }

    /// The stack of a driver's half is that of the runtime call around it, which has been seen.
    fn stack(&mut self, pid: u32, stack: Stack, out: &mut Outcomes) {
        let inner = probe::api(stack.api).is_some_and(|api| api.layer == Layer::Driver)
            && self.process(pid).reader.is_in_runtime(stack.caller);
        if inner {
            return self.totals.ignored(Ignored::Nested);
        }
        self.totals.joined += 1;
        out.stacks.push((pid, stack));
    }

    /// Closed steps become work that waits for its iteration.
    fn join(&mut self, closed: &mut Vec<Step>, out: &mut Outcomes) {
        for step in closed.drain(..) {
            self.totals.step(&step);
            self.board.done(&step, &mut out.iterations);
            out.steps.push(step);
        }
    }

    fn changed(&mut self, pid: u32, tid: u32, change: Change, out: &mut Outcomes) {
        if let (Change::Exited, Some(process)) = (change, self.processes.get_mut(&pid)) {
            process.reader.forget_thread(tid);
            process.bursts.remove(&tid);
        }
        self.contexts_of(pid, tid, change);
        if let Change::Listens { fd } = change {
            self.connections.listens(pid, fd);
        }
        if !matches!(change, Change::Exited) || pid == tid {
            out.changes.push((pid, change));
        }
    }

    fn process(&mut self, pid: u32) -> &mut Process {
        self.processes.entry(pid).or_insert_with(|| Process::new(pid, self.counting))
    }
}

impl Process {
    fn new(pid: u32, counting: bool) -> Self {
        let mut reader = Reader::new(pid);
        if counting {
            reader.set_counted();
        }
        Self { reader, ..Self::default() }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
