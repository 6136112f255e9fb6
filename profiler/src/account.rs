//! The profiler's account of itself: loss equations, own cost, and the summary file.
//!
//! In: the counters of every hop. Out: [`Summary`], whose field names scripts and tests rely on.

mod own;

pub use own::Own;

use crate::attach::Coverage;
use crate::correlate::{
    Agreement, BoardCounts, ConnectionCounts, Counted, Forgotten, GpuTimes, MemoryTotals, SpeakerState,
};
use crate::interned::{self, Name};
use crate::span::TraceCounts;
use crate::target::Member;
use profiler_common::counter::{Counters, family};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one observation saw, as one JSON object.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Seconds observed.
    pub window_s: f64,
    /// Whom.
    pub target: Target,
    /// Calls of each probed function, as made.
    pub calls: BTreeMap<String, u64>,
    /// Kernel launches.
    pub launches: Launches,
    /// Copies by direction.
    pub copies: BTreeMap<&'static str, Copies>,
    /// Memory: of each device by its number (`unknown` where the thread's device is not known), and what is on no
    /// device by kind (`managed`, `pinned`, `reserved`).
    pub memory: BTreeMap<String, MemoryTotals>,
    /// Large pieces of device memory, by who asked for them.
    pub reservations: Vec<Reserved>,
    /// Memory sets.
    pub sets: Copies,
    /// Collectives and messages between devices, by function.
    pub collectives: BTreeMap<&'static str, Copies>,
    /// Calls that failed, by function and error. Launches, copies and frees are among them only with `--results all`.
    pub failures: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// The last times that memory ran out.
    pub out_of_memory: OutOfMemory,
    /// Calls that were counted in the kernel instead of sent.
    pub counted: Counted,
    /// CPU stacks of launches, most frequent first.
    pub stacks: Stacks,
    /// What found no room, or is known in part only.
    pub beyond: Beyond,
    /// Requests.
    pub requests: Requests,
    /// What became of their traces.
    pub traces: TraceCounts,
    /// Connections that requests could come on.
    pub connections: ConnectionCounts,
    /// What may have gone unseen of which process, and why.
    pub blind: Vec<Blind>,
    /// What servers said inside.
    pub engines: Engines,
    /// Steps and GPU time.
    pub steps: Steps,
    /// What devices said, and what asking them cost.
    pub devices: crate::device::Devices,
    /// The loss equations.
    pub loss: Loss,
    /// What was probed and what not.
    pub coverage: Vec<Coverage>,
    /// Own cost: of the observation, also where a recording of it was replayed.
    #[serde(rename = "self")]
    pub own: Own,
    /// What is to be known of the recording that this is from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording: Option<crate::record::Account>,
}

/// Whom the observation was about.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Target {
    /// The pid that was asked for.
    pub pid: u32,
    /// Every process of the group.
    pub processes: Vec<Member>,
    /// The model server it was recognised as, or `generic`.
    #[serde(deserialize_with = "interned::one")]
    pub server: Name,
}

/// Something that may have gone unseen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Blind {
    /// Process.
    pub pid: u32,
    /// Why.
    #[serde(deserialize_with = "interned::one")]
    pub reason: Name,
}

/// Kernel launches.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Launches {
    /// Launches, each once, whatever layers it crossed; nodes of graphs not included.
    pub total: u64,
    /// Graph launches.
    pub graph_launches: u64,
    /// Kernel nodes that those graph launches ran, as far as known.
    pub graph_nodes: u64,
    /// Graph launches whose nodes are not known.
    pub unknown_graphs: u64,
    /// Launches recorded into graphs instead of run.
    pub captured: u64,
    /// Host functions that streams called.
    pub host_functions: u64,
    /// By kernel, most launched first.
    pub by_kernel: Vec<KernelCount>,
    /// Launches and nodes of kernels without a name.
    pub unnamed: u64,
}

/// Launches of one kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelCount {
    /// Short name, no other kernel's; the handle where there is none.
    pub name: String,
    /// The whole name for people, with template arguments and parameters.
    pub full: Option<String>,
    /// The mangled name, as the device knows it where that could be learnt.
    pub symbol: Option<String>,
    /// Launches.
    pub count: u64,
    /// Runs as a node of a graph.
    pub graph_count: u64,
    /// Where the name is from, or why there is none.
    pub evidence: &'static str,
}

/// Large pieces of device memory that one library asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reserved {
    /// File name of the library that called.
    pub library: String,
    /// Device, where it is known.
    pub device: Option<u32>,
    /// How many.
    pub count: u64,
    /// Bytes altogether, freed ones included.
    pub bytes: u64,
    /// The largest.
    pub largest_bytes: u64,
}

/// Allocations that found no room.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OutOfMemory {
    /// How often.
    pub count: u64,
    /// The last ones.
    pub last: Vec<AskedFor>,
}

/// An allocation that found no room.
#[derive(Clone, Debug, Serialize)]
pub struct AskedFor {
    /// Process.
    pub pid: u32,
    /// Function.
    pub function: &'static str,
    /// What it asked for.
    pub bytes: u64,
    /// On which device, where it is known.
    pub device: Option<u32>,
}

/// What found no room in a table, or is known in part only. No count of calls is among it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Beyond {
    /// Batches of copies of whose bytes only a part is known: the copies are all counted.
    pub batches_cut: u64,
    /// Names of kernels that probes told and that found no room.
    pub names_dropped: u64,
    /// Handles that stood for two kernels, whose launches therefore have no name.
    pub handles_reused: u64,
    /// Names and large pieces of memory that waited to be looked into and found no room.
    pub looks_dropped: u64,
    /// What tables of the correlation had to forget, by table.
    #[serde(flatten)]
    pub tables: Forgotten,
}

/// CPU stacks of launches.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stacks {
    /// Samples taken.
    pub samples: u64,
    /// Samples of stacks beyond those that are told apart.
    pub beyond: u64,
    /// Stacks, most frequent first.
    pub top: Vec<StackCount>,
}

/// A CPU stack of a launch.
#[derive(Clone, Debug, Serialize)]
pub struct StackCount {
    /// Samples.
    pub count: u64,
    /// What was launched.
    pub kernel: String,
    /// Names of the functions, outermost first, as flame graphs have them.
    pub frames: Vec<String>,
}

/// Copies in one direction, or other things that have a size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Copies {
    /// How many.
    pub count: u64,
    /// How much.
    pub bytes: u64,
}

/// Requests.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Requests {
    /// Finished ones.
    pub total: u64,
    /// By status; `none` where no status was seen.
    pub by_status: BTreeMap<String, u64>,
    /// By how they ended.
    pub by_outcome: BTreeMap<&'static str, u64>,
    /// Answered as a stream.
    pub streaming: u64,
    /// Of which a part was not seen.
    pub partial: u64,
    /// Under way when the observation ended.
    pub in_flight: u64,
    /// Moments of requests that broke the rules of a request's life: bugs of gpuspan, or of clocks.
    pub violations: u64,
    /// Tokens of prompts, as the server reported them.
    pub input_tokens: u64,
    /// Tokens generated, as the server reported them.
    pub output_tokens: u64,
}

/// What servers said inside.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Engines {
    /// The adapters that heard something, and how they are.
    pub adapters: Vec<SpeakerState>,
    /// Iterations of engines.
    pub steps: u64,
    /// Of these, attempts that failed and were made again.
    pub failed_steps: u64,
    /// Members of iterations, all together.
    pub members: u64,
    /// Tokens that came out.
    pub tokens: u64,
    /// Requests that lost their place.
    pub preemptions: u64,
    /// The newest numbers of each engine.
    pub gauges: Vec<EngineGauges>,
    /// Requests tied to what was said of them, by evidence.
    pub joined: BTreeMap<&'static str, u64>,
    /// Inference requests of which nothing was said although an adapter listened.
    pub unjoined: u64,
    /// Requests whose counts of tokens agree on both sides.
    pub agreed: u64,
    /// Requests whose counts do not.
    pub disagreed: u64,
}

/// The newest numbers of an engine, as it reports them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EngineGauges {
    /// Process.
    pub pid: u32,
    /// Engine of the process.
    pub engine: u64,
    /// Requests that run.
    pub running: Option<u64>,
    /// Requests that wait.
    pub waiting: Option<u64>,
    /// Share of the KV cache in use.
    pub kv_usage: Option<f64>,
}

/// Steps and GPU time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Steps {
    /// Closed steps.
    pub total: u64,
    /// GPU time by class, nanoseconds.
    pub gpu_ns: GpuTime,
    /// Of the estimated GPU time, what belongs to no request, nanoseconds.
    pub unattributed_ns: u64,
    /// Kernel launches and graph launches that belong to no request: with those of all requests, every one.
    pub unattributed_launches: u64,
    /// What iterations were made of: `gpu_ns = shared_ns + unattributed_ns`.
    pub iterations: BoardCounts,
    /// How the GPU time of each process passed on each device, by process and device (its ordinal there, or `unknown`):
    /// `window = busy + no_request + cpu_late + launch_bound`, and `busy + overlap` is the GPU time of all steps.
    pub times: BTreeMap<u32, BTreeMap<String, GpuTimes>>,
    /// Whether devices say the same of their load as the steps on them, by their number in `devices`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub utilization: BTreeMap<String, Agreement>,
}

/// GPU time by class, nanoseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GpuTime {
    /// Measured on the device, of the estimate.
    pub measured: u64,
    /// At least.
    pub bounded_lo: u64,
    /// At most.
    pub bounded_hi: u64,
    /// The best that is known of all of it, between the bounds.
    pub estimated: u64,
}

/// Every term of the loss equations.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Loss {
    /// `seen = submitted + ring_full + oversized + map_full`, by probe family.
    pub kernel: BTreeMap<&'static str, KernelTerms>,
    /// `received = submitted`, after the drain.
    pub receive: ReceiveTerms,
    /// `received = decoded + rejected`.
    pub decode: DecodeTerms,
    /// `decoded = joined + expired + ignored`.
    pub correlate: CorrelateTerms,
    /// `produced = exported + dropped + queued`, by destination and signal.
    pub export: BTreeMap<String, ExportTerms>,
    /// All equations hold.
    pub balanced: bool,
    /// Records known to be lost.
    pub lost: u64,
}

/// The kernel side's terms.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[expect(missing_docs, reason = "the terms are those of profiler_common::counter::Counters")]
pub struct KernelTerms {
    pub seen: u64,
    pub submitted: u64,
    pub ring_full: u64,
    pub oversized: u64,
    pub map_full: u64,
    pub bytes_uncopied: u64,
}

impl From<Counters> for KernelTerms {
    fn from(c: Counters) -> Self {
        Self {
            seen: c.seen,
            submitted: c.submitted,
            ring_full: c.ring_full,
            oversized: c.oversized,
            map_full: c.map_full,
            bytes_uncopied: c.bytes_uncopied,
        }
    }
}

/// Receiving.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ReceiveTerms {
    /// Records that entered the ring.
    pub submitted: u64,
    /// Records taken from it.
    pub received: u64,
}

/// Decoding.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DecodeTerms {
    /// Records taken from the ring.
    pub received: u64,
    /// Records understood.
    pub decoded: u64,
    /// Records not understood, by reason.
    pub rejected: BTreeMap<&'static str, u64>,
}

/// Correlating.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CorrelateTerms {
    /// Events taken.
    pub decoded: u64,
    /// Became part of an operation, a request or a process's life.
    pub joined: u64,
    /// Waiting for their other half.
    pub pending: u64,
    /// Given up.
    pub expired: BTreeMap<&'static str, u64>,
    /// Became nothing of their own, by reason.
    pub ignored: BTreeMap<&'static str, u64>,
}

/// Exporting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExportTerms {
    /// Spans or points handed to the exporter.
    pub produced: u64,
    /// Taken by the backend.
    pub exported: u64,
    /// Given up, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Under way.
    pub queued: u64,
}

impl Loss {
    /// Works out whether the equations hold, and what is lost.
    pub fn settle(&mut self) {
        let kernel_holds = |t: &KernelTerms| t.seen == t.submitted + t.ring_full + t.oversized + t.map_full;
        let rejected: u64 = self.decode.rejected.values().sum();
        let correlate = &self.correlate;
        let settled: u64 = correlate.expired.values().chain(correlate.ignored.values()).sum();
        let export_holds =
            |t: &ExportTerms| t.produced == t.exported + t.dropped.values().sum::<u64>() + t.queued;
        self.balanced = self.kernel.values().all(kernel_holds)
            && self.receive.received == self.receive.submitted
            && self.decode.received == self.decode.decoded + rejected
            && correlate.decoded == correlate.joined + correlate.pending + settled
            && self.export.values().all(export_holds);
        let kernel_lost: u64 = self.kernel.values().map(|t| t.ring_full + t.oversized + t.map_full).sum();
        self.lost = kernel_lost + rejected + correlate.expired.values().sum::<u64>();
    }

    /// The kernel side's terms from its counters.
    #[must_use]
    pub fn kernel_terms(counters: &[Counters]) -> BTreeMap<&'static str, KernelTerms> {
        family::NAMES.into_iter().zip(counters.iter().copied().map(KernelTerms::from)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equations_hold_or_say_so() {
        let mut loss = Loss::default();
        let terms = Counters { seen: 10, submitted: 7, ring_full: 2, oversized: 1, ..Counters::default() };
        loss.kernel = Loss::kernel_terms(&[terms, Counters::default(), Counters::default()]);
        loss.receive = ReceiveTerms { submitted: 7, received: 7 };
        loss.decode = DecodeTerms { received: 7, decoded: 6, rejected: BTreeMap::from([("truncated", 1)]) };
        loss.correlate = CorrelateTerms {
            decoded: 6,
            joined: 4,
            ignored: BTreeMap::from([("nested", 2)]),
            ..CorrelateTerms::default()
        };
        loss.settle();
        assert!(loss.balanced);
        assert_eq!(loss.lost, 4);
        loss.receive.received = 6;
        loss.settle();
        assert!(!loss.balanced, "a record that vanished between ring and reader shows");
    }
}
