//! A small GPU, a small server and what they do: acts → inputs of the correlator, and the truth about them.
//!
//! Each stream of the GPU runs its pieces one after the other, each for as long as the act says; streams run beside each
//! other. A thread that waits does nothing until what it waits for is done. Absent: how the correlator sees any of it.

mod server;

use super::act::{Act, ENGINE, THREADS, What};
use crate::correlate::request::Outcome;
use crate::correlate::tap::Spoke;
use crate::decode::{Body, Burst, CallData, Event, GpuCall, Launch};
use crate::probe;
use server::Connection;
pub use server::LISTENER;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Calls from here are the runtime's own.
pub const RUNTIME: (u64, u64) = (0x4000, 0x6000);
/// How long after its work a wait returns.
const RETURN_NS: u64 = 4_000;
/// Where captures record: nothing else goes there.
const CAPTURED: u64 = 0x99;

/// What reaches the correlator.
#[derive(Clone, Debug)]
pub enum Input {
    Event(Event),
    /// An adapter spoke.
    Spoke(u64, Box<Spoke>),
    /// A process is gone.
    Gone(u32, u64),
}

impl Input {
    pub fn time_ns(&self) -> u64 {
        match self {
            Self::Event(event) => event.time_ns,
            Self::Spoke(time_ns, _) | Self::Gone(_, time_ns) => *time_ns,
        }
    }
}

/// How a request truly ended, and how many deltas left.
pub type Ending = (Outcome, u64);

/// What truly happened.
#[derive(Debug, Default)]
pub struct Truth {
    /// When the GPU worked for each thread.
    pub busy: HashMap<(u32, u32), Vec<(u64, u64)>>,
    /// Requests that ended, by connection and exchange.
    pub requests: HashMap<(u64, u32), Ending>,
}

/// The stage on which a history is played.
#[derive(Debug, Default)]
pub struct Stage {
    now_ns: u64,
    pub inputs: Vec<Input>,
    pub truth: Truth,
    /// Until when each thread waits.
    blocked: [u64; THREADS.len()],
    /// When each stream of each process is done.
    streams: HashMap<(u32, u64), u64>,
    /// When what was sent before each event is done.
    events: HashMap<(u32, u64), u64>,
    bursts: HashMap<usize, Burst>,
    /// Slots that hold memory.
    held: HashMap<(u32, u64), ()>,
    connections: [Connection; 4],
    made: u64,
    /// An adapter speaks.
    pub has_adapter: bool,
    checked: u64,
    failed: u64,
}

static INDEX: LazyLock<HashMap<&'static str, u16>> =
    LazyLock::new(|| probe::CATALOG.iter().map(|api| api.symbol).zip(0..).collect());

/// The place of a function in the catalogue.
pub fn index(symbol: &str) -> u16 {
    INDEX[symbol]
}

impl Stage {
    pub fn new(has_adapter: bool) -> Self {
        Self { now_ns: 1_000_000, has_adapter, ..Self::default() }
    }

    /// Plays acts, a few microseconds apart; afterwards what happened is in the order of its times.
    pub fn play(&mut self, acts: &[Act]) {
        for act in acts {
            self.now_ns += 7_000;
            self.act(act);
        }
        self.inputs.sort_by_key(Input::time_ns);
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Launch { thread, stream, kernel, took_us, nested } => {
                self.launch(thread, stream, kernel, nested);
                self.run(thread, stream, took_us);
            }
            Act::Burst { thread, launches, copies } => self.burst(thread, launches, copies),
            Act::Copy { thread, stream, kind, bytes, took_us } => {
                self.call(thread, "cudaMemcpyAsync", [0, 0, bytes, kind, handle(stream), 0]);
                self.run(thread, stream, took_us);
            }
            Act::BlockingCopy { thread, kind, bytes } => {
                self.call(thread, "cudaMemcpy", [0, 0, bytes, kind, 0, 0]);
            }
            Act::Set { thread, stream, bytes, took_us } => {
                self.call(thread, "cudaMemsetAsync", [0, 0, bytes, handle(stream), 0, 0]);
                self.run(thread, stream, took_us);
            }
            Act::HostFunction { thread, stream } => {
                self.call(thread, "cudaLaunchHostFunc", [handle(stream), 0, 0, 0, 0, 0]);
            }
            Act::Capture { thread, graph, kernels } => self.capture(thread, graph, kernels),
            Act::Graph { thread, stream, graph, took_us } => {
                self.call(thread, "cudaGraphLaunch", [0xe0 + graph, handle(stream), 0, 0, 0, 0]);
                self.run(thread, stream, took_us);
            }
            Act::Record { thread, stream, event } => {
                self.record(thread, stream, event);
            }
            Act::Timed { thread, stream, kernels, took_us } => {
                let events = [0, 1].map(|event| 100 + 10 * thread as u64 + event);
                self.record(thread, stream, events[0]);
                for kernel in 0..kernels {
                    self.now_ns += 3000;
                    self.act(&Act::Launch { thread, stream, kernel, took_us, nested: false });
                }
                self.now_ns += 1000;
                self.record(thread, stream, events[1]);
                self.now_ns += 1000;
                self.wait(thread, What::Event(events[1]));
                self.elapsed(thread, events.into());
            }
            Act::Elapsed { thread, events } => self.elapsed(thread, events),
            Act::Follow { thread, stream, event } => {
                self.call(thread, "cudaStreamWaitEvent", [handle(stream), 0xa0 + event, 0, 0, 0, 0]);
                let pid = THREADS[thread].0;
                let after = self.events.get(&(pid, event)).copied().unwrap_or(0);
                let free = self.streams.entry((pid, stream)).or_default();
                *free = (*free).max(after);
            }
            Act::Wait { thread, what } => self.wait(thread, what),
            Act::Allocate { thread, slot, bytes } => self.allocate(thread, slot, bytes),
            Act::Free { thread, slot } => {
                if self.held.remove(&(THREADS[thread].0, slot)).is_some() {
                    self.call(thread, "cudaFree", [0x10_000 * (slot + 1), 0, 0, 0, 0, 0]);
                }
            }
            Act::Ask { connection, streams } => self.ask(connection, streams),
            Act::Speak { connection, tokens } => self.speak(connection, tokens),
            Act::Finish { connection } => self.finish(connection),
            Act::Leave { connection } => self.leave(connection),
            Act::Tell { computed, complete, failed } => self.tell(computed, complete, failed),
            Act::Babble => {
                (self.checked, self.failed) = (self.checked + 100, self.failed + 50);
                self.say(Vec::new());
            }
            Act::Pause { us } => self.now_ns += us * 1000,
        }
    }

    /// A thread that waits acts when it is back.
    pub fn turn(&mut self, thread: usize) {
        self.now_ns = self.now_ns.max(self.blocked[thread]);
    }

    fn put(&mut self, (pid, tid): (u32, u32), time_ns: u64, body: Body) {
        self.inputs.push(Input::Event(Event { pid, tid, time_ns, body }));
    }

    fn gpu(&mut self, thread: usize, symbol: &str, time_ns: u64, data: CallData) {
        self.put(THREADS[thread], time_ns, Body::Gpu(GpuCall { api: index(symbol), data }));
    }

    fn call(&mut self, thread: usize, symbol: &str, args: [u64; 6]) {
        self.turn(thread);
        self.gpu(thread, symbol, self.now_ns, CallData::Entered { caller: 0, args });
    }

    fn done(&mut self, thread: usize, symbol: &str, args: [u64; 6], out: u64) {
        self.turn(thread);
        let data = CallData::Returned { entered_ns: self.now_ns, caller: 0, args, result: 0, out: [out, 0] };
        self.gpu(thread, symbol, self.now_ns, data);
    }

    fn launch(&mut self, thread: usize, stream: u64, kernel: u64, nested: bool) {
        self.turn(thread);
        let launch = |caller| Launch {
            function: kernel,
            stream: handle(stream),
            caller,
            grid: [1; 3],
            block: [1; 3],
            shared_bytes: 0,
        };
        self.gpu(thread, "cudaLaunchKernel", self.now_ns, CallData::Launch(launch(0)));
        if nested {
            self.gpu(thread, "cuLaunchKernel", self.now_ns + 1, CallData::Launch(launch(RUNTIME.0)));
        }
    }

    /// The GPU runs a piece of work.
    fn run(&mut self, thread: usize, stream: u64, took_us: u64) {
        let free = self.streams.entry((THREADS[thread].0, stream)).or_default();
        let start = self.now_ns.max(*free);
        *free = start + took_us * 1000;
        self.truth.busy.entry(THREADS[thread]).or_default().push((start, *free));
    }

    fn burst(&mut self, thread: usize, launches: u64, copies: u64) {
        self.turn(thread);
        let now_ns = self.now_ns;
        let burst = self.bursts.entry(thread).or_default();
        let sums = (burst.launches + launches, burst.copies + copies, burst.copy_bytes + 100 * copies);
        *burst = Burst {
            first_ns: now_ns - 5000,
            last_ns: now_ns,
            launches: sums.0,
            copies: sums.1,
            copy_bytes: sums.2,
        };
        let body = Body::Burst(*burst);
        self.put(THREADS[thread], now_ns, body);
    }

    fn capture(&mut self, thread: usize, graph: u64, kernels: u64) {
        self.done(thread, "cudaStreamBeginCapture", [CAPTURED, 0, 0, 0, 0, 0], 0);
        for kernel in 0..kernels {
            self.now_ns += 1000;
            self.turn(thread);
            let launch = Launch {
                function: 7 + kernel % 3,
                stream: CAPTURED,
                caller: 0,
                grid: [1; 3],
                block: [1; 3],
                shared_bytes: 0,
            };
            self.gpu(thread, "cudaLaunchKernel", self.now_ns, CallData::Launch(launch));
        }
        self.now_ns += 1000;
        self.done(thread, "cudaStreamEndCapture", [CAPTURED, 0, 0, 0, 0, 0], 0xd0 + graph);
        self.now_ns += 1000;
        self.done(thread, "cudaGraphInstantiate", [0, 0xd0 + graph, 0, 0, 0, 0], 0xe0 + graph);
    }

    fn wait(&mut self, thread: usize, what: What) {
        self.turn(thread);
        let pid = THREADS[thread].0;
        let (symbol, argument, done) = match what {
            What::Stream(stream) => {
                ("cudaStreamSynchronize", handle(stream), self.streams.get(&(pid, stream)).copied())
            }
            What::Event(event) => {
                ("cudaEventSynchronize", 0xa0 + event, self.events.get(&(pid, event)).copied())
            }
            What::Device => {
                let all = self.streams.iter().filter(|((of, _), _)| *of == pid);
                ("cudaDeviceSynchronize", 0, all.map(|(_, done)| *done).max())
            }
        };
        let back_ns = self.now_ns.max(done.unwrap_or(0)) + RETURN_NS;
        let args = [argument, 0, 0, 0, 0, 0];
        let data = CallData::Returned { entered_ns: self.now_ns, caller: 0, args, result: 0, out: [0; 2] };
        self.gpu(thread, symbol, back_ns, data);
        self.blocked[thread] = back_ns + 1;
    }

    fn record(&mut self, thread: usize, stream: u64, event: u64) {
        self.call(thread, "cudaEventRecord", [0xa0 + event, handle(stream), 0, 0, 0, 0]);
        let pid = THREADS[thread].0;
        let done = self.streams.get(&(pid, stream)).copied().unwrap_or(0);
        self.events.insert((pid, event), done.max(self.now_ns));
    }

    /// Where both events are done the GPU's clock says what lies between them.
    fn elapsed(&mut self, thread: usize, (first, second): (u64, u64)) {
        self.turn(thread);
        let pid = THREADS[thread].0;
        let done = |event| self.events.get(&(pid, event)).copied();
        let (Some(from), Some(to)) = (done(first), done(second)) else { return };
        if from.max(to) < self.now_ns {
            let took_ms = ((to as f64 - from as f64) / 1e6) as f32;
            let args = [0x7000, 0xa0 + first, 0xa0 + second, 0, 0, 0];
            // What lies behind the number in the program's memory comes along.
            let out = u64::from(took_ms.to_bits()) | 0xdead_beef << 32;
            self.done(thread, "cudaEventElapsedTime", args, out);
        }
    }

    fn allocate(&mut self, thread: usize, slot: u64, bytes: u64) {
        if self.held.insert((THREADS[thread].0, slot), ()).is_none() {
            self.done(thread, "cudaMalloc", [0, bytes, 0, 0, 0, 0], 0x10_000 * (slot + 1));
        }
    }
}

/// Stream 0 is the default one; the handles 1 and 2 would be, too.
fn handle(stream: u64) -> u64 {
    if stream == 0 { 0 } else { 0x50 + stream }
}
