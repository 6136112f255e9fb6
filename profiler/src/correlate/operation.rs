//! GPU calls → operations: what truly goes to the GPU, each once, whatever layers it crossed.
//!
//! A launch or copy of the runtime passes through the driver too. The driver's record is *nested*, and not an
//! operation of its own, when it was called from a probed runtime library (its return address lies there) and the
//! same thread has just entered a runtime call of the same class. Both conditions are needed: a runtime function
//! that is not probed makes driver calls that nobody else reports.

use super::arguments::{Arguments, Described};
use super::capture::Captures;
use super::device::Devices;
use super::graph::{Graphs, Nodes};
use super::kernel::{KernelKey, Naming};
use super::memory::Blocks;
use crate::decode::{Burst, CallData, GpuCall, Launch};
use crate::probe::{self, Api, Direction, KeyAt, Layer, Meaning, Memory, Node, Size, StreamAt, Waits, Way};
use std::collections::HashMap;
use std::sync::Arc;

/// Something the GPU was asked to do, or a wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A kernel.
    Launch {
        /// Which.
        kernel: KernelKey,
        /// Where.
        stream: u64,
    },
    /// Kernels by one call, each with its stream.
    Launches(Vec<(KernelKey, u64)>),
    /// An executable graph; its nodes when its making was seen.
    GraphLaunch {
        /// What it consists of, if known.
        nodes: Option<Arc<Nodes>>,
        /// Where.
        stream: u64,
    },
    /// A host function that the stream calls.
    HostFunction {
        /// Where.
        stream: u64,
    },
    /// A copy; `blocks` when the call returns only after it is done.
    Copy {
        /// Which way.
        direction: Direction,
        /// How many: a batch is one call.
        count: u64,
        /// How much altogether.
        bytes: u64,
        /// Where.
        stream: u64,
        /// The call waits for it.
        blocks: bool,
    },
    /// A memory set.
    Set {
        /// How much.
        bytes: u64,
        /// Where.
        stream: u64,
    },
    /// A collective or a message between devices. Its kernels are launches of their own.
    Collective {
        /// How much this rank gives or takes.
        bytes: u64,
    },
    /// A wait that returned.
    Synchronized {
        /// For what.
        what: Waited,
        /// When it was entered.
        entered_ns: u64,
    },
    /// Memory was handed out.
    Allocated {
        /// Address or handle.
        key: u64,
        /// Size.
        bytes: u64,
        /// Of which kind.
        kind: Memory,
        /// On which device, if known.
        device: Option<u32>,
        /// Who asked: a return address, or 0.
        caller: u64,
    },
    /// Memory was given back.
    Freed {
        /// Address or handle.
        key: u64,
        /// Of which kind the function frees, on which device the thread is.
        kind: Memory,
        /// The thread's device, if known.
        device: Option<u32>,
    },
    /// Memory was asked for and not given.
    AllocationFailed {
        /// How much.
        bytes: u64,
        /// On which device, if known.
        device: Option<u32>,
        /// Why.
        result: i64,
    },
    /// What a kernel is called was told.
    Named(Naming),
    /// What a thread sent since the last time this was told, counted in the kernel.
    Burst(Burst),
}

/// What a wait waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// A stream.
    Stream(u64),
    /// The whole device.
    Device,
    /// An event, recorded in this stream if that was seen.
    Event(Option<u64>),
}

/// Why a call is no operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ignored {
    /// The driver's half of a runtime call.
    Nested,
    /// Recorded into a graph, not run.
    Captured,
    /// Book-keeping that asks nothing of the GPU.
    Bookkeeping,
    /// The call failed.
    Failed,
}

impl Ignored {
    /// All reasons, in the order of the summary.
    pub const ALL: [Self; 4] = [Self::Nested, Self::Captured, Self::Bookkeeping, Self::Failed];

    /// The name in summaries and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nested => "nested",
            Self::Captured => "captured",
            Self::Bookkeeping => "bookkeeping",
            Self::Failed => "failed",
        }
    }
}

/// Classes of calls that nest into their like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Launch,
    Graph,
    Copy,
    Other,
}

/// Set in the number of a thread's own default stream (`cudaStreamPerThread`); the rest is the thread.
const PER_THREAD: u64 = 1 << 63;

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
    /// Stream in which each event was recorded last. Bounded by [`MAX_EVENTS`].
    events: HashMap<u64, u64>,
    captures: Captures,
    graphs: Graphs,
    devices: Devices,
    /// Batches with more elements than the kernel side sums.
    cut_batches: u64,
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

    /// The process was observed from before its first call.
    pub fn set_from_start(&mut self) {
        self.devices.set_from_start();
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
        let stream = seen.stream(launch.stream);
        match self.captures.record(stream, |nodes| nodes.add_launch(kernel)) {
            true => Err(Ignored::Captured),
            false => Ok(Operation::Launch { kernel, stream }),
        }
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
                let (nodes, stream) = (self.graphs.executable(read.at(exec)), seen.stream(read.at(stream)));
                Ok(Operation::GraphLaunch { nodes, stream })
            }
            Meaning::HostFunction { stream } => {
                let stream = seen.stream(read.at(stream));
                match self.captures.record(stream, |nodes| nodes.host_functions += 1) {
                    true => Err(Ignored::Captured),
                    false => Ok(Operation::HostFunction { stream }),
                }
            }
            Meaning::Copy { size, way, stream } => self.copy(seen, read, (size, way, stream)),
            Meaning::Set { size, stream } => {
                let (bytes, stream) = (read.size(size), seen.stream_at(stream, read));
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
            Meaning::EventRecord { event, stream } => {
                self.record_event(read.at(event), seen.stream(read.at(stream)));
            }
            Meaning::EventDestroy => drop(self.events.remove(&read.at(0))),
            Meaning::StreamWait { stream, event } => {
                self.captures.wait(seen.stream(read.at(stream)), read.at(event));
            }
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
        let (bytes, stream) = (read.size(size), seen.stream_at(at, read));
        let direction = read.direction(way, size, &|address| seen.blocks.side(address));
        let (count, summed) = read.count(size);
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
            .map(|(function, stream)| (self.kernel(function), seen.stream(stream)))
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

    fn returned(&mut self, seen: &Seen, read: &Arguments, done: &Return) -> Result<Operation, Ignored> {
        let meaning = seen.api.meaning;
        if done.result != 0 {
            return self.failed(seen, read, done);
        }
        match meaning {
            Meaning::Allocate { kind, size, key } => Ok(Operation::Allocated {
                key: match key {
                    KeyAt::Out => done.out,
                    KeyAt::Arg(index) => read.at(index),
                },
                bytes: read.size(size),
                kind,
                device: self.device_of(kind, seen.tid),
                caller: done.caller,
            }),
            Meaning::Create { bytes } => Ok(Operation::Allocated {
                key: done.out,
                bytes: read.at(bytes),
                kind: Memory::Device,
                device: created_on(read.second),
                caller: done.caller,
            }),
            Meaning::Synchronize(waits) => {
                let what = match waits {
                    Waits::Stream(index) => Waited::Stream(seen.stream(read.at(index))),
                    Waits::Device => Waited::Device,
                    Waits::Event(index) => Waited::Event(self.events.get(&read.at(index)).copied()),
                };
                Ok(Operation::Synchronized { what, entered_ns: done.entered_ns })
            }
            Meaning::Alias { of } => {
                Ok(Operation::Named(Naming::Alias { handle: done.out, of: read.at(of) }))
            }
            meaning => {
                self.keep_graph_book(seen, meaning, read, done);
                Err(Ignored::Bookkeeping)
            }
        }
    }

    fn keep_graph_book(&mut self, seen: &Seen, meaning: Meaning, read: &Arguments, done: &Return) {
        let kernel = self.kernel(read.second);
        match meaning {
            Meaning::BeginCapture { stream, into } => {
                self.captures.begin(seen.stream(read.at(stream)), into.map(|index| read.at(index)));
            }
            Meaning::EndCapture { stream } => {
                if let Some(recording) = self.captures.end(seen.stream(read.at(stream))) {
                    self.graphs.recorded(done.out, &recording.nodes, recording.into.is_some());
                }
            }
            Meaning::GraphCreate => self.graphs.create(done.out),
            Meaning::GraphClone { of } => self.graphs.clone_of(done.out, read.at(of)),
            Meaning::AddNode { graph, node: Node::Kernel } => {
                self.graphs.add_kernel(read.at(graph), done.out, kernel);
            }
            Meaning::ChangeNode { removes } => {
                self.graphs.change_node(read.at(0), (!removes).then_some(kernel));
            }
            Meaning::Instantiate { graph } => self.graphs.instantiate(read.at(graph), done.out),
            Meaning::ExecUpdate { exec, graph } => self.graphs.instantiate(read.at(graph), read.at(exec)),
            Meaning::ExecChangeNode { kernel: true } => {
                self.graphs.change_executable(read.at(0), read.at(1), kernel);
            }
            _ => {}
        }
    }

    fn failed(&mut self, seen: &Seen, read: &Arguments, done: &Return) -> Result<Operation, Ignored> {
        let (bytes, device) = match seen.api.meaning {
            // An end that fails ends the capture all the same; nothing comes of it (cudaStreamEndCapture).
            Meaning::EndCapture { stream } => {
                drop(self.captures.end(seen.stream(read.at(stream))));
                return Err(Ignored::Failed);
            }
            Meaning::Allocate { size: Size::PitchTimes(height), kind, .. } => {
                // No pitch was given: what was asked for is at least width times height.
                (read.at(2).wrapping_mul(read.at(height)), self.device_of(kind, seen.tid))
            }
            Meaning::Allocate { size: Size::PitchTimesArea(height, depth), kind, .. } => {
                (read.size(Size::Volume(1, height, depth)), self.device_of(kind, seen.tid))
            }
            Meaning::Allocate { size, kind, .. } => (read.size(size), self.device_of(kind, seen.tid)),
            Meaning::Create { bytes } => (read.at(bytes), created_on(read.second)),
            _ => return Err(Ignored::Failed),
        };
        Ok(Operation::AllocationFailed { bytes, device, result: done.result })
    }

    /// The device that memory of this kind is on when thread `tid` asks for it.
    fn device_of(&self, kind: Memory, tid: u32) -> Option<u32> {
        if kind == Memory::Device { self.devices.current(tid) } else { None }
    }

    fn record_event(&mut self, event: u64, stream: u64) {
        if self.events.len() >= MAX_EVENTS && !self.events.contains_key(&event) {
            self.events.clear();
        }
        self.events.insert(event, stream);
        self.captures.record_event(event, stream);
    }
}

/// A call as it is being read.
struct Seen<'a> {
    tid: u32,
    api: &'static Api,
    blocks: &'a Blocks,
}

impl Seen<'_> {
    /// One number for each stream of the process: the legacy default stream goes by two handles (0 and
    /// `cudaStreamLegacy`, 1), and each thread's own default stream by one for all threads (`cudaStreamPerThread`, 2;
    /// 0 in per-thread forms of functions).
    fn stream(&self, handle: u64) -> u64 {
        match handle {
            2 => PER_THREAD | u64::from(self.tid),
            0 if self.api.per_thread => PER_THREAD | u64::from(self.tid),
            1 => 0,
            handle => handle,
        }
    }

    fn handle_at(&self, at: StreamAt, read: &Arguments) -> u64 {
        match at {
            StreamAt::Arg(index) => read.at(index),
            StreamAt::Default | StreamAt::DefaultAsync => 0,
        }
    }

    fn stream_at(&self, at: StreamAt, read: &Arguments) -> u64 {
        self.stream(self.handle_at(at, read))
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

/// `CUmemLocation`: type (1 is a device) in the lower half, id in the upper.
fn created_on(location: u64) -> Option<u32> {
    const DEVICE: u32 = 1;
    (location as u32 == DEVICE).then_some((location >> 32) as u32)
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
mod tests {
    use super::*;

    const IN_RUNTIME: u64 = 0x5000;
    const ELSEWHERE: u64 = 0x9000;

    fn reader() -> Reader {
        let mut reader = Reader::new(1);
        reader.set_runtime(vec![(0x4000, 0x6000)]);
        reader
    }

    fn none() -> Blocks {
        Blocks::default()
    }

    fn index(symbol: &str) -> u16 {
        probe::CATALOG.iter().position(|api| api.symbol == symbol).unwrap() as u16
    }

    fn launch(symbol: &str, stream: u64, caller: u64) -> GpuCall {
        let launch = Launch { function: 7, stream, caller, grid: [1; 3], block: [1; 3], shared_bytes: 0 };
        GpuCall { api: index(symbol), data: CallData::Launch(launch) }
    }

    fn six([a, b, c, d, e]: [u64; 5]) -> [u64; 6] {
        [a, b, c, d, e, 0]
    }

    fn entered(symbol: &str, args: [u64; 5]) -> GpuCall {
        entered_from(symbol, args, 0)
    }

    fn entered_from(symbol: &str, args: [u64; 5], caller: u64) -> GpuCall {
        GpuCall { api: index(symbol), data: CallData::Entered { caller, args: six(args) } }
    }

    fn returned(symbol: &str, args: [u64; 5], result: i64, out: u64) -> GpuCall {
        let args = six(args);
        let data = CallData::Returned { entered_ns: 1, caller: 0, args, result, out: [out, 0] };
        GpuCall { api: index(symbol), data }
    }

    #[test]
    fn a_launch_through_both_layers_is_one() {
        let mut reader = reader();
        assert!(reader.read(1, &launch("cudaLaunchKernel", 0, ELSEWHERE), &none()).is_ok());
        assert_eq!(reader.read(1, &launch("cuLaunchKernel", 0, IN_RUNTIME), &none()), Err(Ignored::Nested));
        assert!(
            reader.read(1, &launch("cuLaunchKernel", 0, ELSEWHERE), &none()).is_ok(),
            "Triton's own launch"
        );
    }

    #[test]
    fn a_driver_launch_under_an_unprobed_runtime_function_counts() {
        let mut reader = reader();
        assert!(reader.read(1, &launch("cuLaunchKernel", 0, IN_RUNTIME), &none()).is_ok());
    }

    #[test]
    fn nesting_is_per_thread_and_per_class() {
        let mut reader = reader();
        assert!(reader.read(1, &launch("cudaLaunchKernel", 0, ELSEWHERE), &none()).is_ok());
        assert!(reader.read(2, &launch("cuLaunchKernel", 0, IN_RUNTIME), &none()).is_ok(), "another thread");
        assert!(
            reader
                .read(1, &entered_from("cuMemcpyHtoDAsync_v2", [1, 2, 3, 0, 0], IN_RUNTIME), &none())
                .is_ok(),
            "another class"
        );
        assert_eq!(reader.read(1, &launch("cuLaunchKernel", 0, IN_RUNTIME), &none()), Err(Ignored::Nested));
    }

    #[test]
    fn launches_on_capturing_streams_are_nodes_and_replays_know_them() {
        let mut reader = reader();
        let _ = reader.read(1, &returned("cudaStreamBeginCapture", [5, 0, 0, 0, 0], 0, 0), &none());
        assert_eq!(reader.read(1, &launch("cudaLaunchKernel", 5, 0), &none()), Err(Ignored::Captured));
        // Another stream joins by waiting for an event recorded in the capture.
        let _ = reader.read(1, &entered("cudaEventRecord", [0xe, 5, 0, 0, 0]), &none());
        let _ = reader.read(1, &entered("cudaStreamWaitEvent", [6, 0xe, 0, 0, 0]), &none());
        assert_eq!(reader.read(1, &launch("cudaLaunchKernel", 6, 0), &none()), Err(Ignored::Captured));
        assert!(
            reader.read(1, &launch("cudaLaunchKernel", 7, 0), &none()).is_ok(),
            "a stream outside the capture"
        );
        let _ = reader.read(1, &returned("cudaStreamEndCapture", [5, 0, 0, 0, 0], 0, 0x6a), &none());
        assert!(reader.read(1, &launch("cudaLaunchKernel", 6, 0), &none()).is_ok(), "the capture is over");
        let _ = reader.read(1, &returned("cudaGraphInstantiate", [0, 0x6a, 0, 0, 0], 0, 0xec), &none());
        let Ok(Operation::GraphLaunch { nodes: Some(nodes), stream: 5 }) =
            reader.read(1, &entered("cudaGraphLaunch", [0xec, 5, 0, 0, 0]), &none())
        else {
            panic!("the executable graph is known");
        };
        assert_eq!(nodes.launches(), 2);
        let unknown = reader.read(1, &entered("cudaGraphLaunch", [0xbad, 5, 0, 0, 0]), &none());
        assert_eq!(unknown, Ok(Operation::GraphLaunch { nodes: None, stream: 5 }));
        assert_eq!(reader.captured_launches(), 2);
    }

    #[test]
    fn failed_captures_hide_no_launches() {
        let mut reader = reader();
        let _ = reader.read(1, &returned("cudaStreamBeginCapture", [5, 0, 0, 0, 0], 35, 0), &none());
        assert!(reader.read(1, &launch("cudaLaunchKernel", 5, 0), &none()).is_ok(), "it never began");
        let _ = reader.read(1, &returned("cudaStreamBeginCapture", [5, 0, 0, 0, 0], 0, 0), &none());
        assert_eq!(reader.read(1, &launch("cudaLaunchKernel", 5, 0), &none()), Err(Ignored::Captured));
        let _ = reader.read(1, &returned("cudaStreamEndCapture", [5, 0, 0, 0, 0], 901, 0), &none());
        assert!(reader.read(1, &launch("cudaLaunchKernel", 5, 0), &none()).is_ok(), "it ended with an error");
    }

    #[test]
    fn copies_know_their_way_and_failures_do_not_count() {
        let mut reader = reader();
        let copy = reader.read(1, &entered("cudaMemcpyAsync", [1, 2, 300, 2, 9]), &none());
        let expected =
            Operation::Copy { direction: Direction::DtoH, count: 1, bytes: 300, stream: 9, blocks: false };
        assert_eq!(copy, Ok(expected));
        let failed = reader.read(1, &returned("cudaMalloc", [1, 64, 0, 0, 0], 2, 0), &none());
        assert_eq!(failed, Ok(Operation::AllocationFailed { bytes: 64, device: None, result: 2 }));
    }

    #[test]
    fn a_wait_for_an_event_knows_the_stream_it_was_recorded_in() {
        let mut reader = reader();
        let _ = reader.read(1, &entered("cudaEventRecord", [0xe, 5, 0, 0, 0]), &none());
        let wait = reader.read(1, &returned("cudaEventSynchronize", [0xe, 0, 0, 0, 0], 0, 0), &none());
        assert_eq!(wait, Ok(Operation::Synchronized { what: Waited::Event(Some(5)), entered_ns: 1 }));
    }
}
