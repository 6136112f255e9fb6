//! GPU calls → operations. What comes back from a call is read in `returned`.
//!
//! A launch or copy of the runtime passes through the driver too. The driver's record is *nested*, and not an
//! operation of its own, when it was called from a probed runtime library (its return address lies there) and the
//! same thread has just entered a runtime call of the same class. Both conditions are needed: a runtime function
//! that is not probed makes driver calls that nobody else reports.

mod returned;

use super::arguments::{Arguments, Described};
use super::beyond::Forgotten;
use super::capture::Captures;
use super::device::Devices;
use super::graph::{Graphs, Nodes};
use super::kernel::{KernelKey, Naming};
use super::memory::Blocks;
use super::operation::{Ignored, Operation};
use crate::decode::{CallData, GpuCall, Launch};
use crate::probe::{self, Api, Layer, Meaning, Memory, Node, Size, StreamAt, Way};
use std::collections::HashMap;
use std::sync::Arc;

/// Classes of calls that nest into their like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Launch,
    Graph,
    Copy,
    Other,
}

/// What is remembered of one process to read its calls.
#[derive(Debug, Default)]
pub struct Reader {
    pid: u32,
    /// Text of the probed runtime libraries.
    runtime: Vec<(u64, u64)>,
    /// Runtime calls have been counted in the kernel, so that not all that enter are seen to.
    counted: bool,
    /// The runtime call each thread entered last, until its driver half was seen.
    entered: HashMap<u32, Class>,
    /// Stream in which each event was recorded last, and its mark there. Bounded by [`MAX_EVENTS`].
    events: HashMap<u64, (u64, u64)>,
    /// Marks made so far.
    marks: u64,
    captures: Captures,
    graphs: Graphs,
    devices: Devices,
    /// Batches with more elements than the kernel side sums.
    cut_batches: u64,
    /// Events that found no room.
    lost_events: u64,
}

/// Events are created by the thousand: past this many the table starts anew, and waits for older events close no step.
const MAX_EVENTS: usize = 65_536;

impl Reader {
    /// For a process.
    #[must_use]
    pub fn new(pid: u32) -> Self {
        Self { pid, ..Self::default() }
    }

    /// Address ranges of the probed runtime libraries.
    pub fn set_runtime(&mut self, ranges: Vec<(u64, u64)>) {
        self.runtime = ranges;
    }

    /// Whether the process was observed from before its first call.
    pub fn set_from_start(&mut self, all: bool) {
        self.devices.set_from_start(all);
    }

    /// There is one device only.
    pub fn set_only_device(&mut self) {
        self.devices.set_only();
    }

    /// The devices of its threads and streams.
    #[must_use]
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// Calls of the process are counted in the kernel, or have been.
    pub fn set_counted(&mut self) {
        self.counted = true;
    }

    /// Forgets an ended thread.
    pub fn forget_thread(&mut self, tid: u32) {
        self.entered.remove(&tid);
        self.devices.forget_thread(tid);
    }

    /// Kernel launches recorded into graphs so far.
    #[must_use]
    pub fn captured_launches(&self) -> u64 {
        self.captures.launches()
    }

    /// Batches of copies of which only a part of the bytes is known.
    #[must_use]
    pub fn cut_batches(&self) -> u64 {
        self.cut_batches
    }

    /// What tables had to forget.
    #[must_use]
    pub fn forgotten(&self) -> Forgotten {
        Forgotten {
            events: self.lost_events,
            graphs: self.graphs.forgotten,
            captures: self.captures.forgotten,
            contexts: self.devices.forgotten,
            ..Forgotten::default()
        }
    }

    /// As if a context had found no room.
    #[cfg(test)]
    pub fn forget_for_test(&mut self) {
        self.devices.forgotten += 1;
    }

    /// Whether a driver call with this return address is a runtime call's inner half.
    #[must_use]
    pub fn is_in_runtime(&self, caller: u64) -> bool {
        self.runtime.iter().any(|(start, end)| (*start..*end).contains(&caller))
    }

    /// Reads one call of thread `tid`; `blocks` is what the process holds.
    ///
    /// # Errors
    /// The reason why it is no operation.
    pub fn read(&mut self, tid: u32, call: &GpuCall, blocks: &Blocks) -> Result<Operation, Ignored> {
        let Some(api) = probe::api(call.api) else { return Err(Ignored::Bookkeeping) };
        self.learn_context(tid, api, &call.data);
        if self.is_nested(tid, api, &call.data) {
            return Err(Ignored::Nested);
        }
        let seen = Seen { tid, api, blocks };
        match &call.data {
            CallData::Launch(launch) => self.launch(&seen, launch),
            CallData::Entered { args, caller: _ } => {
                self.entered(&seen, &Arguments { args, pointee: &[], second: 0 })
            }
            CallData::Wide(wide) => {
                self.entered(&seen, &Arguments { args: &wide.args, pointee: &wide.pointee, second: 0 })
            }
            CallData::Returned { args, result, out, entered_ns, caller } => {
                let read = Arguments { args, pointee: &[], second: out[1] };
                self.returned(
                    &seen,
                    &read,
                    &Return { entered_ns: *entered_ns, result: *result, out: out[0], caller: *caller },
                )
            }
            CallData::Named { handle, name, cut } => {
                Ok(Operation::Named(Naming::Handle { handle: *handle, name: Arc::from(&**name), cut: *cut }))
            }
            CallData::Failed { .. } => Err(Ignored::Failed),
        }
    }

    /// Contexts that the runtime makes for itself tell their device too.
    fn learn_context(&mut self, tid: u32, api: &Api, data: &CallData) {
        let (Meaning::MakeContext { device, current }, CallData::Returned { args, result: 0, out, .. }) =
            (api.meaning, data)
        else {
            return;
        };
        let device = args.get(usize::from(device)).map_or(0, |ordinal| *ordinal as u32);
        self.devices.made(out[0], device);
        if current {
            self.devices.set(tid, device);
        }
    }

    fn is_nested(&mut self, tid: u32, api: &Api, data: &CallData) -> bool {
        let class = class(api.meaning);
        if api.layer == Layer::Runtime {
            // What is reported at its return has its driver half behind it.
            if !matches!(data, CallData::Failed { .. } | CallData::Returned { .. }) {
                self.entered.insert(tid, class);
            }
            return false;
        }
        let caller = match data {
            CallData::Launch(launch) => launch.caller,
            CallData::Entered { caller, .. } | CallData::Returned { caller, .. } => *caller,
            CallData::Wide(wide) => wide.caller,
            CallData::Failed { .. } | CallData::Named { .. } => return false,
        };
        if !self.is_in_runtime(caller) {
            return false;
        }
        // A wait is reported at its return, the driver's half before the runtime's: the caller decides alone. So it
        // does when the outer half may have been counted.
        if class == Class::Other || self.counted {
            return true;
        }
        let nested = self.entered.get(&tid) == Some(&class);
        if nested {
            self.entered.remove(&tid);
        }
        nested
    }

    fn launch(&mut self, seen: &Seen, launch: &Launch) -> Result<Operation, Ignored> {
        let kernel = self.kernel(launch.function);
        let stream = self.stream(seen, launch.stream);
        self.devices.launched(seen.tid, stream);
        match self.captures.record(stream, |nodes| nodes.add_launch(kernel)) {
            true => Err(Ignored::Captured),
            false => Ok(Operation::Launch { kernel, stream }),
        }
    }

    fn stream(&self, seen: &Seen, handle: u64) -> u64 {
        self.devices.stream(seen.tid, handle, seen.api.per_thread)
    }

    fn stream_at(&self, seen: &Seen, at: StreamAt, read: &Arguments) -> u64 {
        self.stream(seen, seen.handle_at(at, read))
    }

    fn kernel(&self, function: u64) -> KernelKey {
        KernelKey { pid: self.pid, function }
    }

    fn entered(&mut self, seen: &Seen, read: &Arguments) -> Result<Operation, Ignored> {
        match seen.api.meaning {
            Meaning::LegacyLaunch { stream } => {
                let launch = Launch {
                    function: read.at(0),
                    stream: seen.handle_at(stream, read),
                    caller: 0,
                    grid: [1; 3],
                    block: [1; 3],
                    shared_bytes: 0,
                };
                self.launch(seen, &launch)
            }
            Meaning::MultiLaunch { element } => Ok(self.launches(seen, read, element)),
            Meaning::GraphLaunch { exec, stream } => {
                let (nodes, stream) =
                    (self.graphs.executable(read.at(exec)), self.stream(seen, read.at(stream)));
                Ok(Operation::GraphLaunch { nodes, stream })
            }
            Meaning::HostFunction { stream } => {
                let stream = self.stream(seen, read.at(stream));
                match self.captures.record(stream, |nodes| nodes.host_functions += 1) {
                    true => Err(Ignored::Captured),
                    false => Ok(Operation::HostFunction { stream }),
                }
            }
            Meaning::Copy { size, way, stream } => self.copy(seen, read, (size, way, stream)),
            Meaning::Set { size, stream } => {
                let (bytes, stream) = (read.size(size), self.stream_at(seen, stream, read));
                match self.captures.record(stream, |nodes| nodes.add_set(bytes)) {
                    true => Err(Ignored::Captured),
                    false => Ok(Operation::Set { bytes, stream }),
                }
            }
            Meaning::Free { key } => match read.at(key) {
                0 => Err(Ignored::Bookkeeping),
                key => Ok(Operation::Freed {
                    key,
                    kind: freed_kind(seen.api),
                    device: self.devices.current(seen.tid),
                }),
            },
            Meaning::Collective { count, .. } => {
                let bytes = read.at(count).wrapping_mul(nccl_type_bytes(read.at(count + 1)));
                Ok(Operation::Collective { bytes })
            }
            Meaning::Registered { host, name } => {
                Ok(Operation::Named(Naming::Host { function: read.at(host), name_address: read.at(name) }))
            }
            Meaning::EventRecord { event, stream } => {
                self.record_event(read.at(event), self.stream(seen, read.at(stream)))
            }
            Meaning::StreamWait { stream, event } => {
                self.follow(self.stream(seen, read.at(stream)), read.at(event))
            }
            // Launches come as launches; the rest is reported at return, or its return was not probed.
            meaning => {
                self.keep_book(seen, meaning, read);
                Err(Ignored::Bookkeeping)
            }
        }
    }

    /// Calls that ask nothing of the GPU, but say what later ones mean.
    fn keep_book(&mut self, seen: &Seen, meaning: Meaning, read: &Arguments) {
        match meaning {
            Meaning::EventDestroy => drop(self.events.remove(&read.at(0))),
            Meaning::StreamDestroy => self.devices.forget_stream(read.at(0)),
            Meaning::SetDevice { device } => self.devices.set(seen.tid, read.at(device) as u32),
            Meaning::SetContext { context } => self.devices.set_context(seen.tid, read.at(context)),
            Meaning::PushContext { context } => self.devices.push(seen.tid, read.at(context)),
            Meaning::PopContext => self.devices.pop(seen.tid),
            Meaning::GraphDestroy => self.graphs.destroy(read.at(0)),
            Meaning::ExecDestroy => self.graphs.destroy_executable(read.at(0)),
            Meaning::AddNode { graph, node } => self.add_node(seen, read, read.at(graph), node),
            _ => {}
        }
    }

    fn copy(
        &mut self,
        seen: &Seen,
        read: &Arguments,
        (size, way, at): (Size, Way, StreamAt),
    ) -> Result<Operation, Ignored> {
        let (bytes, stream) = (read.size(size), self.stream_at(seen, at, read));
        let direction = read.direction(way, size, &|address| seen.blocks.side(address));
        let (count, summed) = read.count(size);
        // A copy of nothing asks nothing of the device.
        if bytes == 0 && summed >= count {
            return Err(Ignored::Bookkeeping);
        }
        self.cut_batches += u64::from(summed < count);
        let record = |nodes: &mut Nodes| {
            let (copies, sum) = nodes.copies.entry(direction).or_default();
            *copies += count;
            *sum += bytes;
        };
        match self.captures.record(stream, record) {
            true => Err(Ignored::Captured),
            false => Ok(Operation::Copy { direction, count, bytes, stream, blocks: at == StreamAt::Default }),
        }
    }

    /// The kernels of an array of launches; of elements that were not copied only the number is known.
    fn launches(&self, seen: &Seen, read: &Arguments, element: (u8, u8)) -> Operation {
        let mut launches: Vec<_> = read
            .launches(element)
            .map(|(function, stream)| (self.kernel(function), self.stream(seen, stream)))
            .collect();
        const MOST_DEVICES: u64 = 64;
        let there = usize::try_from(read.at(1).min(MOST_DEVICES)).unwrap_or(0);
        launches.resize(there.max(launches.len()), (self.kernel(0), 0));
        Operation::Launches(launches)
    }

    fn add_node(&mut self, seen: &Seen, read: &Arguments, graph: u64, node: Node) {
        let side = |address| seen.blocks.side(address);
        let pid = self.pid;
        let described = match node {
            Node::Copy { size, way } => Described::Copy(read.direction(way, size, &side), read.size(size)),
            Node::Set(size) => Described::Set(read.size(size)),
            Node::Child(index) => Described::Child(read.at(index)),
            Node::Host => Described::Host,
            Node::Described => read.described(seen.api.layer, &side),
            // Kernels are added at the return of the call, which hands back the node.
            Node::Kernel | Node::Other => Described::Other,
        };
        match described {
            Described::Kernel(function) => {
                self.graphs.change(graph, |nodes| nodes.add_launch(KernelKey { pid, function }));
            }
            Described::Copy(direction, bytes) => {
                self.graphs.change(graph, |nodes| nodes.add_copy(direction, bytes));
            }
            Described::Set(bytes) => self.graphs.change(graph, |nodes| nodes.add_set(bytes)),
            Described::Host => self.graphs.change(graph, |nodes| nodes.host_functions += 1),
            Described::Child(child) => self.graphs.add_child(graph, child),
            Described::Other => {}
        }
    }

    fn record_event(&mut self, event: u64, stream: u64) -> Result<Operation, Ignored> {
        if self.events.len() >= MAX_EVENTS && !self.events.contains_key(&event) {
            self.lost_events += self.events.len() as u64;
            self.events.clear();
        }
        self.marks += 1;
        self.events.insert(event, (stream, self.marks));
        self.captures.record_event(event, stream);
        match self.captures.record(stream, |_| ()) {
            true => Err(Ignored::Captured),
            false => Ok(Operation::Marked { stream, mark: self.marks }),
        }
    }

    fn follow(&mut self, stream: u64, event: u64) -> Result<Operation, Ignored> {
        self.captures.wait(stream, event);
        let captured = self.captures.record(stream, |_| ());
        match self.events.get(&event).filter(|_| !captured) {
            Some(of) => Ok(Operation::Follows { stream, of: *of }),
            None => Err(Ignored::Bookkeeping),
        }
    }
}

/// A call as it is being read.
struct Seen<'a> {
    tid: u32,
    api: &'static Api,
    blocks: &'a Blocks,
}

impl Seen<'_> {
    fn handle_at(&self, at: StreamAt, read: &Arguments) -> u64 {
        match at {
            StreamAt::Arg(index) => read.at(index),
            StreamAt::Default | StreamAt::DefaultAsync => 0,
        }
    }
}

/// What came back from a call.
struct Return {
    entered_ns: u64,
    result: i64,
    out: u64,
    caller: u64,
}

fn class(meaning: Meaning) -> Class {
    match meaning {
        Meaning::Launch | Meaning::LegacyLaunch { .. } | Meaning::MultiLaunch { .. } => Class::Launch,
        Meaning::GraphLaunch { .. } => Class::Graph,
        Meaning::Copy { .. } => Class::Copy,
        _ => Class::Other,
    }
}

/// What a freeing function frees when nothing is known of the address.
fn freed_kind(api: &Api) -> Memory {
    match api.symbol {
        "cudaFreeHost" | "cudaHostUnregister" | "cuMemFreeHost" | "cuMemHostUnregister" => Memory::Pinned,
        "cuMemAddressFree" => Memory::Reserved,
        _ => Memory::Device,
    }
}

/// Bytes of an element of an `ncclDataType_t` (nccl.h 2.32).
fn nccl_type_bytes(kind: u64) -> u64 {
    match kind as u32 {
        // int8, uint8, and the two float8.
        0 | 1 | 10 | 11 => 1,
        // float16, bfloat16.
        6 | 9 => 2,
        // int64, uint64, float64.
        4 | 5 | 8 => 8,
        // int32, uint32, float32.
        _ => 4,
    }
}

#[cfg(test)]
mod tests;
