//! GPU calls → operations: what truly goes to the GPU, each once, whatever layers it crossed.
//!
//! A launch or copy of the runtime passes through the driver too. The driver's record is *nested*, and not an
//! operation of its own, when it was called from a probed runtime library (its return address lies there) and the
//! same thread has just entered a runtime call of the same class. Both conditions are needed: a runtime function
//! that is not probed makes driver calls that nobody else reports.

use super::capture::{Captures, Nodes};
use super::kernel::KernelKey;
use crate::decode::{CallData, GpuCall, Launch};
use crate::probe::{self, Api, Direction, Layer, Meaning, StreamAt, Waits, Way};
use std::collections::HashMap;

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
    /// An executable graph; its nodes when its making was seen.
    GraphLaunch {
        /// What it consists of, if known.
        nodes: Option<std::sync::Arc<Nodes>>,
        /// Where.
        stream: u64,
    },
    /// A copy; `blocks` when the call returns only after it is done.
    Copy {
        /// Which way.
        direction: Direction,
        /// How much.
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
    /// A wait that returned.
    Synchronized {
        /// For what.
        what: Waited,
        /// When it was entered.
        entered_ns: u64,
    },
    /// Device memory was handed out.
    Allocated {
        /// Address, 0 when the call failed.
        address: u64,
        /// Size.
        bytes: u64,
    },
    /// Device memory was given back.
    Freed {
        /// Address.
        address: u64,
    },
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

/// What is remembered of one process to read its calls.
#[derive(Debug, Default)]
pub struct Reader {
    pid: u32,
    /// Text of the probed runtime libraries.
    runtime: Vec<(u64, u64)>,
    /// The runtime call each thread entered last, until its driver half was seen.
    entered: HashMap<u32, Class>,
    /// Stream in which each event was recorded last. Bounded by [`MAX_EVENTS`].
    events: HashMap<u64, u64>,
    captures: Captures,
}

/// Events are created by the thousand and rarely destroyed through a probed function: past this many the table
/// starts anew, and waits for older events close no step.
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

    /// Forgets an ended thread.
    pub fn forget_thread(&mut self, tid: u32) {
        self.entered.remove(&tid);
    }

    /// Kernel launches recorded into graphs so far.
    #[must_use]
    pub fn captured_launches(&self) -> u64 {
        self.captures.launches()
    }

    /// Reads one call of thread `tid`.
    ///
    /// # Errors
    /// The reason why it is no operation.
    pub fn read(&mut self, tid: u32, call: &GpuCall) -> Result<Operation, Ignored> {
        let Some(api) = probe::api(call.api) else { return Err(Ignored::Bookkeeping) };
        if self.is_nested(tid, api, call) {
            return Err(Ignored::Nested);
        }
        match call.data {
            CallData::Launch(launch) => self.launch(&launch),
            CallData::Entered { args } => self.entered(api.meaning, &args),
            CallData::Returned { entered_ns, args, result, out } => {
                self.returned(api.meaning, &args, entered_ns, result, out)
            }
        }
    }

    fn is_nested(&mut self, tid: u32, api: &Api, call: &GpuCall) -> bool {
        let class = class(api.meaning);
        let caller = match (api.layer, &call.data) {
            (Layer::Runtime, _) => {
                self.entered.insert(tid, class);
                return false;
            }
            (Layer::Driver, CallData::Launch(launch)) => launch.caller,
            (Layer::Driver, CallData::Entered { args } | CallData::Returned { args, .. }) => args[4],
        };
        if !self.runtime.iter().any(|(start, end)| (*start..*end).contains(&caller)) {
            return false;
        }
        // A wait is reported at its return, the driver's half before the runtime's: the caller decides alone.
        if class == Class::Other {
            return true;
        }
        let nested = self.entered.get(&tid) == Some(&class);
        if nested {
            self.entered.remove(&tid);
        }
        nested
    }

    fn launch(&mut self, launch: &Launch) -> Result<Operation, Ignored> {
        let kernel = KernelKey { pid: self.pid, function: launch.function };
        match self.captures.record(launch.stream, |nodes| nodes.add_launch(kernel)) {
            true => Err(Ignored::Captured),
            false => Ok(Operation::Launch { kernel, stream: launch.stream }),
        }
    }

    fn entered(&mut self, meaning: Meaning, args: &[u64; 5]) -> Result<Operation, Ignored> {
        let arg = |index: u8| args.get(usize::from(index)).copied().unwrap_or(0);
        let stream_at = |at: StreamAt| match at {
            StreamAt::Arg(index) => arg(index),
            StreamAt::Default => 0,
        };
        match meaning {
            Meaning::GraphLaunch { exec, stream } => {
                Ok(Operation::GraphLaunch { nodes: self.captures.executable(arg(exec)), stream: arg(stream) })
            }
            Meaning::Copy { bytes, way, stream: at } => {
                let direction = match way {
                    Way::Fixed(direction) => direction,
                    Way::Kind(index) => Direction::from_memcpy_kind(arg(index)),
                };
                let (bytes, stream) = (arg(bytes), stream_at(at));
                match self.captures.record(stream, |nodes| nodes.add_copy(direction, bytes)) {
                    true => Err(Ignored::Captured),
                    false => {
                        Ok(Operation::Copy { direction, bytes, stream, blocks: at == StreamAt::Default })
                    }
                }
            }
            Meaning::Set { bytes, stream } => {
                let (bytes, stream) = (arg(bytes), stream_at(stream));
                match self.captures.record(stream, |_| {}) {
                    true => Err(Ignored::Captured),
                    false => Ok(Operation::Set { bytes, stream }),
                }
            }
            Meaning::Free { address } => match arg(address) {
                0 => Err(Ignored::Bookkeeping),
                address => Ok(Operation::Freed { address }),
            },
            Meaning::EventRecord { event, stream } => {
                self.record_event(arg(event), arg(stream));
                Err(Ignored::Bookkeeping)
            }
            Meaning::StreamWait { stream, event } => {
                self.captures.wait(arg(stream), arg(event));
                Err(Ignored::Bookkeeping)
            }
            // Launches come as launches; the rest is reported at return, or its return was not probed.
            _ => Err(Ignored::Bookkeeping),
        }
    }

    fn returned(
        &mut self,
        meaning: Meaning,
        args: &[u64; 5],
        entered_ns: u64,
        result: i64,
        out: u64,
    ) -> Result<Operation, Ignored> {
        let arg = |index: u8| args.get(usize::from(index)).copied().unwrap_or(0);
        if result != 0 {
            // An end that fails ends the capture all the same; nothing comes of it (cudaStreamEndCapture).
            if let Meaning::EndCapture { stream } = meaning {
                self.captures.abandon(arg(stream));
            }
            return Err(Ignored::Failed);
        }
        match meaning {
            Meaning::BeginCapture { stream } => {
                self.captures.begin(arg(stream));
                Err(Ignored::Bookkeeping)
            }
            Meaning::Allocate { bytes } => Ok(Operation::Allocated { address: out, bytes: arg(bytes) }),
            Meaning::Synchronize(waits) => {
                let what = match waits {
                    Waits::Stream(index) => Waited::Stream(arg(index)),
                    Waits::Device => Waited::Device,
                    Waits::Event(index) => Waited::Event(self.events.get(&arg(index)).copied()),
                };
                Ok(Operation::Synchronized { what, entered_ns })
            }
            Meaning::EndCapture { stream } => {
                self.captures.end(arg(stream), out);
                Err(Ignored::Bookkeeping)
            }
            Meaning::Instantiate { graph } => {
                self.captures.instantiate(arg(graph), out);
                Err(Ignored::Bookkeeping)
            }
            _ => Err(Ignored::Bookkeeping),
        }
    }

    fn record_event(&mut self, event: u64, stream: u64) {
        if self.events.len() >= MAX_EVENTS && !self.events.contains_key(&event) {
            self.events.clear();
        }
        self.events.insert(event, stream);
        self.captures.record_event(event, stream);
    }
}

fn class(meaning: Meaning) -> Class {
    match meaning {
        Meaning::Launch => Class::Launch,
        Meaning::GraphLaunch { .. } => Class::Graph,
        Meaning::Copy { .. } => Class::Copy,
        _ => Class::Other,
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

    fn index(symbol: &str) -> u16 {
        probe::CATALOG.iter().position(|api| api.symbol == symbol).unwrap() as u16
    }

    fn launch(symbol: &str, stream: u64, caller: u64) -> GpuCall {
        let launch = Launch { function: 7, stream, caller, grid: [1; 3], block: [1; 3], shared_bytes: 0 };
        GpuCall { api: index(symbol), data: CallData::Launch(launch) }
    }

    fn entered(symbol: &str, args: [u64; 5]) -> GpuCall {
        GpuCall { api: index(symbol), data: CallData::Entered { args } }
    }

    fn returned(symbol: &str, args: [u64; 5], result: i64, out: u64) -> GpuCall {
        GpuCall { api: index(symbol), data: CallData::Returned { entered_ns: 1, args, result, out } }
    }

    #[test]
    fn a_launch_through_both_layers_is_one() {
        let mut reader = reader();
        assert!(reader.read(1, &launch("cudaLaunchKernel", 0, ELSEWHERE)).is_ok());
        assert_eq!(reader.read(1, &launch("cuLaunchKernel", 0, IN_RUNTIME)), Err(Ignored::Nested));
        assert!(reader.read(1, &launch("cuLaunchKernel", 0, ELSEWHERE)).is_ok(), "Triton's own launch");
    }

    #[test]
    fn a_driver_launch_under_an_unprobed_runtime_function_counts() {
        let mut reader = reader();
        assert!(reader.read(1, &launch("cuLaunchKernel", 0, IN_RUNTIME)).is_ok());
    }

    #[test]
    fn nesting_is_per_thread_and_per_class() {
        let mut reader = reader();
        assert!(reader.read(1, &launch("cudaLaunchKernel", 0, ELSEWHERE)).is_ok());
        assert!(reader.read(2, &launch("cuLaunchKernel", 0, IN_RUNTIME)).is_ok(), "another thread");
        assert!(
            reader.read(1, &entered("cuMemcpyHtoDAsync_v2", [1, 2, 3, 0, IN_RUNTIME])).is_ok(),
            "another class"
        );
        assert_eq!(reader.read(1, &launch("cuLaunchKernel", 0, IN_RUNTIME)), Err(Ignored::Nested));
    }

    #[test]
    fn launches_on_capturing_streams_are_nodes_and_replays_know_them() {
        let mut reader = reader();
        let _ = reader.read(1, &returned("cudaStreamBeginCapture", [5, 0, 0, 0, 0], 0, 0));
        assert_eq!(reader.read(1, &launch("cudaLaunchKernel", 5, 0)), Err(Ignored::Captured));
        // Another stream joins by waiting for an event recorded in the capture.
        let _ = reader.read(1, &entered("cudaEventRecord", [0xe, 5, 0, 0, 0]));
        let _ = reader.read(1, &entered("cudaStreamWaitEvent", [6, 0xe, 0, 0, 0]));
        assert_eq!(reader.read(1, &launch("cudaLaunchKernel", 6, 0)), Err(Ignored::Captured));
        assert!(reader.read(1, &launch("cudaLaunchKernel", 7, 0)).is_ok(), "a stream outside the capture");
        let _ = reader.read(1, &returned("cudaStreamEndCapture", [5, 0, 0, 0, 0], 0, 0x6a));
        assert!(reader.read(1, &launch("cudaLaunchKernel", 6, 0)).is_ok(), "the capture is over");
        let _ = reader.read(1, &returned("cudaGraphInstantiate", [0, 0x6a, 0, 0, 0], 0, 0xec));
        let Ok(Operation::GraphLaunch { nodes: Some(nodes), stream: 5 }) =
            reader.read(1, &entered("cudaGraphLaunch", [0xec, 5, 0, 0, 0]))
        else {
            panic!("the executable graph is known");
        };
        assert_eq!(nodes.launches(), 2);
        let unknown = reader.read(1, &entered("cudaGraphLaunch", [0xbad, 5, 0, 0, 0]));
        assert_eq!(unknown, Ok(Operation::GraphLaunch { nodes: None, stream: 5 }));
        assert_eq!(reader.captured_launches(), 2);
    }

    #[test]
    fn failed_captures_hide_no_launches() {
        let mut reader = reader();
        let _ = reader.read(1, &returned("cudaStreamBeginCapture", [5, 0, 0, 0, 0], 35, 0));
        assert!(reader.read(1, &launch("cudaLaunchKernel", 5, 0)).is_ok(), "it never began");
        let _ = reader.read(1, &returned("cudaStreamBeginCapture", [5, 0, 0, 0, 0], 0, 0));
        assert_eq!(reader.read(1, &launch("cudaLaunchKernel", 5, 0)), Err(Ignored::Captured));
        let _ = reader.read(1, &returned("cudaStreamEndCapture", [5, 0, 0, 0, 0], 901, 0));
        assert!(reader.read(1, &launch("cudaLaunchKernel", 5, 0)).is_ok(), "it ended with an error");
    }

    #[test]
    fn copies_know_their_way_and_failures_do_not_count() {
        let mut reader = reader();
        let copy = reader.read(1, &entered("cudaMemcpyAsync", [1, 2, 300, 2, 9]));
        let expected = Operation::Copy { direction: Direction::DtoH, bytes: 300, stream: 9, blocks: false };
        assert_eq!(copy, Ok(expected));
        let failed = reader.read(1, &returned("cudaMalloc", [1, 64, 0, 0, 0], 2, 0));
        assert_eq!(failed, Err(Ignored::Failed));
    }

    #[test]
    fn a_wait_for_an_event_knows_the_stream_it_was_recorded_in() {
        let mut reader = reader();
        let _ = reader.read(1, &entered("cudaEventRecord", [0xe, 5, 0, 0, 0]));
        let wait = reader.read(1, &returned("cudaEventSynchronize", [0xe, 0, 0, 0, 0], 0, 0));
        assert_eq!(wait, Ok(Operation::Synchronized { what: Waited::Event(Some(5)), entered_ns: 1 }));
    }
}
