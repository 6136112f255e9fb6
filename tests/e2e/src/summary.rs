//! The summary file as its readers see it: the names that scripts rely on, so that a renamed field fails here.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `--summary`.
#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    /// Seconds observed.
    pub window_s: f64,
    /// Whom.
    pub target: Target,
    /// Calls of each probed function.
    pub calls: BTreeMap<String, u64>,
    /// Kernel launches.
    pub launches: Launches,
    /// By direction.
    pub copies: BTreeMap<String, Copies>,
    /// By device, and by kind of what is on no device.
    pub memory: BTreeMap<String, Memory>,
    /// Large pieces of device memory by who asked.
    pub reservations: Vec<Reserved>,
    /// CPU stacks of launches.
    pub stacks: Stacks,
    /// What found no room, by table.
    pub beyond: BTreeMap<String, u64>,
    /// Memory sets.
    pub sets: Copies,
    /// By function.
    pub collectives: BTreeMap<String, Copies>,
    /// By function and error.
    pub failures: BTreeMap<String, BTreeMap<String, u64>>,
    /// Allocations that found no room.
    pub out_of_memory: OutOfMemory,
    /// Calls that were counted in the kernel instead of sent.
    pub counted: Counted,
    /// Requests.
    pub requests: Requests,
    /// Their traces.
    pub traces: Traces,
    /// Connections.
    pub connections: Connections,
    /// What may have gone unseen.
    pub blind: Vec<Blind>,
    /// Steps.
    pub steps: Steps,
    /// What engines said of themselves, as it stands in the file.
    #[serde(default)]
    pub engines: serde_json::Value,
    /// What devices said, as it stands in the file.
    #[serde(default)]
    pub devices: serde_json::Value,
    /// The loss equations.
    pub loss: Loss,
    /// What was probed.
    pub coverage: Vec<Coverage>,
    /// Own cost.
    #[serde(rename = "self")]
    pub own: Own,
}

/// `target`.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Target {
    pub pid: u32,
    pub processes: Vec<Process>,
    pub server: String,
}

/// A process of the target group.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Process {
    pub pid: u32,
    pub comm: String,
    pub role: String,
    pub gpu: bool,
}

/// One of `blind`.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Blind {
    pub pid: u32,
    pub reason: String,
}

/// `launches`.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Launches {
    pub total: u64,
    pub graph_launches: u64,
    pub graph_nodes: u64,
    pub unknown_graphs: u64,
    pub captured: u64,
    pub host_functions: u64,
    pub by_kernel: Vec<Kernel>,
    pub unnamed: u64,
}

/// A kernel.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Kernel {
    pub name: String,
    pub symbol: Option<String>,
    pub count: u64,
    pub graph_count: u64,
    pub evidence: String,
}

/// A direction of `copies`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Copies {
    pub count: u64,
    pub bytes: u64,
}

/// A device of `memory`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Memory {
    pub allocated_bytes: u64,
    pub freed_bytes: u64,
    pub live_bytes: u64,
    pub peak_bytes: u64,
    pub allocations: u64,
    pub frees: u64,
    pub frees_of_unknown: u64,
}

/// `counted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Counted {
    pub own: u64,
    pub nested: u64,
    pub not_ready: u64,
}

/// `out_of_memory`.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct OutOfMemory {
    pub count: u64,
    pub last: Vec<AskedFor>,
}

/// An allocation that found no room.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct AskedFor {
    pub pid: u32,
    pub function: String,
    pub bytes: u64,
    pub device: Option<u32>,
}

/// One of `reservations`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Reserved {
    pub library: String,
    pub device: Option<u32>,
    pub count: u64,
    pub bytes: u64,
    pub largest_bytes: u64,
}

/// `stacks`.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Stacks {
    pub samples: u64,
    pub beyond: u64,
    pub top: Vec<StackCount>,
}

/// One of `stacks.top`.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct StackCount {
    pub count: u64,
    pub kernel: String,
    pub frames: Vec<String>,
}

/// `requests`.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Requests {
    pub total: u64,
    pub by_status: BTreeMap<String, u64>,
    pub by_outcome: BTreeMap<String, u64>,
    pub streaming: u64,
    pub partial: u64,
    pub in_flight: u64,
    pub violations: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
}

/// `traces`.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Traces {
    pub requests: BTreeMap<String, u64>,
    pub steps: BTreeMap<String, u64>,
    pub cut: BTreeMap<String, u64>,
}

/// `connections`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Connections {
    pub total: u64,
    pub found_open: u64,
    pub tls: u64,
    pub tls_unread: u64,
    pub tls_doubts: u64,
    pub http2: u64,
    pub other: u64,
    pub not_watched: u64,
}

/// `steps`.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Steps {
    pub total: u64,
    pub gpu_ns: GpuTime,
    pub unattributed_ns: u64,
    pub unattributed_launches: u64,
    pub iterations: Iterations,
    pub times: BTreeMap<u32, BTreeMap<String, GpuTimes>>,
}

/// `steps.gpu_ns`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct GpuTime {
    pub measured: u64,
    pub bounded_lo: u64,
    pub bounded_hi: u64,
    pub estimated: u64,
}

/// `steps.iterations`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Iterations {
    pub told: u64,
    pub generic: u64,
    pub stated: u64,
    pub gpu_ns: u64,
    pub shared_ns: u64,
    pub unattributed_ns: u64,
    pub unattributed_launches: u64,
    pub evicted: u64,
    pub late: u64,
}

/// `steps.times`, by process and device.
#[derive(Clone, Copy, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct GpuTimes {
    pub window_ns: u64,
    pub busy_ns: u64,
    pub no_request_ns: u64,
    pub cpu_late_ns: u64,
    pub launch_bound_ns: u64,
}

/// `loss`.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Loss {
    pub kernel: BTreeMap<String, KernelTerms>,
    pub receive: Receive,
    pub decode: Decode,
    pub correlate: Correlate,
    pub export: BTreeMap<String, Export>,
    pub balanced: bool,
    pub lost: u64,
}

/// A probe family of `loss.kernel`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct KernelTerms {
    pub seen: u64,
    pub submitted: u64,
    pub ring_full: u64,
    pub oversized: u64,
    pub map_full: u64,
}

impl KernelTerms {
    /// What the kernel side could not send.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.ring_full + self.oversized + self.map_full
    }
}

/// `loss.receive`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Receive {
    pub submitted: u64,
    pub received: u64,
}

/// `loss.decode`.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Decode {
    pub received: u64,
    pub decoded: u64,
    pub rejected: BTreeMap<String, u64>,
}

/// `loss.correlate`.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Correlate {
    pub decoded: u64,
    pub joined: u64,
    pub pending: u64,
    pub expired: BTreeMap<String, u64>,
    pub ignored: BTreeMap<String, u64>,
}

/// A destination and signal of `loss.export`.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Export {
    pub produced: u64,
    pub exported: u64,
    pub dropped: BTreeMap<String, u64>,
    pub queued: u64,
}

/// A library of `coverage`.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Coverage {
    pub pid: u32,
    pub library: String,
    pub roles: Vec<String>,
    pub attached: usize,
    pub missing: Vec<Missing>,
    pub expensive: Vec<Missing>,
    pub aliases: Vec<Alias>,
}

/// A function that is not probed, or at a price.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Missing {
    pub symbol: String,
    pub group: String,
    pub reason: String,
}

/// A function that is counted under another name.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Alias {
    pub symbol: String,
    pub counted_as: String,
}

/// `self`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the file")]
pub struct Own {
    pub cpu_s: f64,
    pub max_rss_bytes: u64,
    pub attach_ms: f64,
    pub detach_ms: f64,
}

impl Summary {
    /// Calls of one function.
    #[must_use]
    pub fn call(&self, name: &str) -> u64 {
        self.calls.get(name).copied().unwrap_or(0)
    }

    /// Memory of all devices together.
    #[must_use]
    pub fn device_memory(&self) -> Memory {
        let on_device = |name: &str| name == "unknown" || name.parse::<u32>().is_ok();
        self.memory.iter().filter(|(name, _)| on_device(name)).fold(Memory::default(), |sum, (_, one)| {
            Memory {
                allocated_bytes: sum.allocated_bytes + one.allocated_bytes,
                freed_bytes: sum.freed_bytes + one.freed_bytes,
                live_bytes: sum.live_bytes + one.live_bytes,
                peak_bytes: sum.peak_bytes + one.peak_bytes,
                allocations: sum.allocations + one.allocations,
                frees: sum.frees + one.frees,
                frees_of_unknown: sum.frees_of_unknown + one.frees_of_unknown,
            }
        })
    }

    /// Copies in one direction.
    #[must_use]
    pub fn copies(&self, direction: &str) -> Copies {
        self.copies.get(direction).copied().unwrap_or_default()
    }
}
