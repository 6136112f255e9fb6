//! Every call of the catalogue, a known number of times: what the profiler counts, what the stand-ins' log says and what
//! the program works out from its own arguments agree, for each group of functions and for all of them together,
//! whatever layers a call crosses and at both levels of detail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use e2e::calls::{self, After};
use e2e::stage::{device, since};
use e2e::summary::{Copies, Memory};
use e2e::{Calls, Observation, Summary, code, or_skip};
use profiler::probe::CATALOG;
use simgpu::{Environment, Runtime, Totals};
use tempfile::TempDir;

use crate::checks::nothing_lost;

const DIRECTIONS: [&str; 4] = ["HtoD", "DtoH", "DtoD", "HtoH"];
const RUNTIMES: [Runtime; 2] = [Runtime::Cuda12, Runtime::Cuda13];

/// One run of the program, as everybody saw it.
struct Seen {
    made: After,
    /// Of the stand-ins, in the window alone.
    device: Totals,
    summary: Summary,
    pid: u32,
}

/// What a run is made of.
#[derive(Clone, Copy)]
struct Run<'a> {
    runtime: Runtime,
    threads: u32,
    times: u32,
    apis: &'a str,
    /// More arguments of the program, and of the profiler.
    program: &'a [&'a str],
    profiler: &'a [&'a str],
}

impl<'a> Run<'a> {
    fn new(runtime: Runtime, apis: &'a str) -> Self {
        Self { runtime, threads: 1, times: 3, apis, program: &[], profiler: &[] }
    }

    fn start(&self, log: &TempDir) -> Calls {
        let settings = Environment {
            log_dir: Some(log.path().to_owned()),
            kernel_time: Some(Duration::from_micros(1)),
            devices: Some(2),
            ..Environment::default()
        };
        let (threads, times) = (self.threads.to_string(), self.times.to_string());
        let usual = ["--wait-stdin", "--threads", &threads, "--times", &times, "--api", self.apis];
        let arguments = [&usual[..], self.program].concat();
        Calls::start(calls::command_on(self.runtime, &settings), &arguments).unwrap()
    }

    /// Observes the program from its wait on, when it has loaded, allocated and captured what it needs.
    fn observe(&self) -> Seen {
        self.observe_while(|_, program| program.make().unwrap().after)
    }

    fn observe_while(&self, make: impl FnOnce(&mut Observation, &mut Calls) -> After) -> Seen {
        let log = TempDir::new().unwrap();
        let mut program = self.start(&log);
        let pid = program.waits_before("start").unwrap();
        let mut observation = Observation::start(pid, self.profiler).unwrap();
        let before = device(log.path(), pid).unwrap();
        let made = make(&mut observation, &mut program);
        let device = since(&before, &device(log.path(), pid).unwrap());
        let summary = observation.stop().unwrap().summary;
        program.end().unwrap();
        Seen { made, device, summary, pid }
    }

    /// Observes the program from before its first call, and from before it has loaded anything.
    fn observe_from_start(&self, libraries: usize) -> Seen {
        let log = TempDir::new().unwrap();
        let program = [self.program, &["--wait-load"]].concat();
        let mut program = Run { program: &program, ..*self }.start(&log);
        let pid = program.waits_before("load").unwrap();
        let observation = Observation::start(pid, self.profiler).unwrap();
        program.go_on().unwrap();
        program.waits_before("loaded").unwrap();
        code::wait_until_probed(pid, libraries).unwrap();
        program.go_on().unwrap();
        program.waits_before("start").unwrap();
        let made = program.make().unwrap().after;
        let device = device(log.path(), pid).unwrap();
        let summary = observation.stop().unwrap().summary;
        program.end().unwrap();
        Seen { made, device, summary, pid }
    }
}

impl Seen {
    /// Everything that holds also of a program that was under way before the attach.
    fn check(&self) {
        // First, since what was lost is missing everywhere.
        nothing_lost(&self.summary);
        self.calls_agree();
        self.launches_agree();
        self.copies_agree();
        self.memory_agrees();
        assert_eq!(self.summary.collectives, self.made.collectives);
    }

    /// Each probed function as often as the stand-ins were entered, and as the program called it.
    fn calls_agree(&self) {
        assert_eq!(self.device.unsupported(), Vec::<&str>::new());
        same(&self.summary.calls, &probed_alone(&self.device.calls), "calls of the stand-ins");
        let outer = |calls: &BTreeMap<String, u64>| -> BTreeMap<String, u64> {
            let outer = calls.iter().filter(|(name, _)| !name.starts_with("cu") || name.starts_with("cuda"));
            outer.map(|(name, count)| (name.clone(), *count)).collect()
        };
        same(&outer(&self.summary.calls), &outer(&expected_calls(&self.made)), "calls of the program");
    }

    fn launches_agree(&self) {
        let (seen, done) = (&self.summary.launches, &self.made.done);
        let logged = (self.device.launches(), self.device.fact("captured_launches"));
        assert_eq!((done.launches, done.captured), logged);
        assert_eq!((seen.total, seen.captured), logged);
        assert_eq!(seen.graph_launches, done.graph_launches);
        assert_eq!(seen.unknown_graphs, done.unknown_graphs);
        assert_eq!(seen.graph_nodes, self.made.graph_nodes.kernels);
        let hosts = done.host_functions + self.made.graph_nodes.host_functions;
        assert_eq!(seen.host_functions, hosts);
        let by_kernel: u64 = seen.by_kernel.iter().map(|kernel| kernel.count + kernel.graph_count).sum();
        assert_eq!(by_kernel, seen.total + seen.graph_nodes);
    }

    /// Copies and sets, those of replayed graphs included. Where a call leaves the direction to the addresses, it may
    /// not be known; the number and the bytes are.
    fn copies_agree(&self) {
        let mut all = Copies::default();
        for direction in DIRECTIONS {
            let (done, expected) = (self.made.done.copies[direction], self.expected_copies(direction));
            let ran = self.device.copies(&direction.to_lowercase());
            assert_eq!((done.count, done.bytes), (ran.count, ran.bytes), "{direction}");
            let seen = self.summary.copies(direction);
            assert!(seen.count <= expected.count && seen.bytes <= expected.bytes, "{direction}: {seen:?}");
            all = sum(all, expected);
        }
        let seen = self.summary.copies.values().fold(Copies::default(), |all, copies| sum(all, *copies));
        assert_eq!(seen, all, "{:?}", self.summary.copies);
        assert_eq!(self.summary.sets, sum(self.made.done.sets, self.made.graph_nodes.sets));
    }

    /// Of launches and copies, the share that the kernel counted instead of sending.
    fn counted_share(&self) -> f64 {
        let copies: u64 = self.summary.copies.values().map(|copies| copies.count).sum();
        self.summary.counted.own as f64 / (self.summary.launches.total + copies) as f64
    }

    fn expected_copies(&self, direction: &str) -> Copies {
        sum(self.made.done.copies[direction], self.made.graph_nodes.copies[direction])
    }

    /// Sums over the devices: of a thread that was under way before the attach the device is not known at first.
    fn memory_agrees(&self) {
        let devices = |memory: &BTreeMap<String, Memory>| {
            let is_device = |name: &str| name == "unknown" || name.parse::<u32>().is_ok();
            let of =
                memory.iter().filter(|(name, _)| is_device(name)).map(|(_, memory)| without_peak(*memory));
            of.fold(Memory::default(), together)
        };
        assert_eq!(devices(&self.summary.memory), devices(&self.made.memory));
        for kind in ["managed", "pinned", "reserved"] {
            assert_eq!(self.memory(kind), self.expected_memory(kind).map(without_peak), "{kind}");
        }
    }

    fn memory(&self, kind: &str) -> Option<Memory> {
        self.summary.memory.get(kind).copied().map(without_peak)
    }

    /// Memory of the host that was registered counts as pinned, as far as the device is concerned.
    fn expected_memory(&self, kind: &str) -> Option<Memory> {
        let memory = &self.made.memory;
        let more = (kind == "pinned").then(|| memory.get("registered")).flatten();
        match (memory.get(kind), more) {
            (Some(one), Some(other)) => Some(together(*one, *other)),
            (one, other) => one.or(other).copied(),
        }
    }
}

fn sum(one: Copies, other: Copies) -> Copies {
    Copies { count: one.count + other.count, bytes: one.bytes + other.bytes }
}

fn without_peak(memory: Memory) -> Memory {
    Memory { peak_bytes: 0, ..memory }
}

fn together(one: Memory, other: Memory) -> Memory {
    Memory {
        allocated_bytes: one.allocated_bytes + other.allocated_bytes,
        freed_bytes: one.freed_bytes + other.freed_bytes,
        live_bytes: one.live_bytes + other.live_bytes,
        peak_bytes: one.peak_bytes.max(other.peak_bytes),
        allocations: one.allocations + other.allocations,
        frees: one.frees + other.frees,
        frees_of_unknown: one.frees_of_unknown + other.frees_of_unknown,
    }
}

/// Of these calls those of functions that the profiler probes.
fn probed_alone(calls: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let probed: BTreeSet<_> = CATALOG.iter().map(|api| api.symbol).collect();
    let probed = calls.iter().filter(|(name, count)| **count > 0 && probed.contains(name.as_str()));
    probed.map(|(name, count)| (name.clone(), *count)).collect()
}

/// The program's own calls of probed functions. The launch that nvcc 13 emits passes through the older one.
pub fn expected_calls(made: &After) -> BTreeMap<String, u64> {
    let mut calls = made.calls.clone();
    for suffix in ["", "_ptsz"] {
        let through = calls.get(&format!("__cudaLaunchKernel{suffix}")).copied().unwrap_or(0);
        *calls.entry(format!("cudaLaunchKernel{suffix}")).or_default() += through;
    }
    probed_alone(&calls)
}

/// Two counts by name; says only what differs.
pub fn same(seen: &BTreeMap<String, u64>, truth: &BTreeMap<String, u64>, what: &str) {
    let names: BTreeSet<_> = seen.keys().chain(truth.keys()).collect();
    let of = |counts: &BTreeMap<String, u64>, name: &String| counts.get(name).copied().unwrap_or(0);
    let differ: Vec<_> = names
        .into_iter()
        .map(|name| (name, of(seen, name), of(truth, name)))
        .filter(|(_, seen, truth)| seen != truth)
        .collect();
    assert!(differ.is_empty(), "{what}: (function, seen, true): {differ:?}");
}

/// What the profiler does not follow yet, with the reason.
const NOT_FOLLOWED: &[&str] = &[
    // Of the nodes of a graph only those of kernels are known one by one: what becomes of others is not seen.
    "cudaGraphDestroyNode:copy",
    "cudaGraphMemcpyNodeSetParams",
    "cudaGraphExecMemcpyNodeSetParams",
    "cudaGraphExecNodeSetParams",
    "cudaGraphExecChildGraphNodeSetParams",
    "cuGraphMemcpyNodeSetParams",
    "cuGraphExecMemcpyNodeSetParams",
    "cuGraphExecNodeSetParams",
];

/// The program's APIs that shall succeed, or some of them.
fn apis(is_wanted: impl Fn(&str, &str) -> bool) -> String {
    let known = calls::known().unwrap().into_iter();
    let names = known.filter(|(name, group)| {
        group != "failing" && !NOT_FOLLOWED.contains(&name.as_str()) && is_wanted(name, group)
    });
    names.map(|(name, _)| name).collect::<Vec<_>>().join(",")
}

fn all() -> String {
    apis(|_, _| true)
}

#[test]
fn each_group_by_itself() {
    or_skip!();
    for group in ["launch", "copy", "set", "memory", "stream", "context", "module", "graph", "collective"] {
        for runtime in RUNTIMES {
            println!("{group} of {runtime:?}");
            Run::new(runtime, &apis(|_, of| of == group)).observe().check();
        }
    }
}

/// Launches and replays by kernel: with CUDA 12 a launch names its host function, and a graph's node too, also one
/// that was given another kernel later.
#[test]
fn each_kernel_by_its_name() {
    or_skip!();
    // Launches of graphs from before the wait run kernels that nobody saw recorded.
    let known = |name: &str| name.starts_with("cuda") && !name.starts_with("cudaGraphLaunch");
    let apis = apis(|name, group| ["launch", "graph"].contains(&group) && known(name));
    let seen = Run::new(Runtime::Cuda12, &apis).observe();
    seen.check();
    for name in ["calls_kernel", "calls_other_kernel"] {
        let truth = seen.device.kernels[name];
        let of = seen.summary.launches.by_kernel.iter().filter(|kernel| kernel.name == name);
        let counts = of.fold((0, 0), |(all, nodes), kernel| (all + kernel.count, nodes + kernel.graph_count));
        assert_eq!(counts, (truth.launched, truth.graph_runs), "{name}");
    }
    assert_eq!(seen.summary.launches.unnamed, 0);
}

#[test]
fn all_of_them_by_eight_threads() {
    or_skip!();
    let all = all();
    for runtime in RUNTIMES {
        let seen = Run { threads: 8, times: 10, ..Run::new(runtime, &all) }.observe();
        seen.check();
        assert_eq!(seen.summary.counted.own, 0, "every launch and copy has a record");
    }
}

/// A program that uses the driver alone has no outer calls.
#[test]
fn the_driver_alone() {
    or_skip!();
    let all = all();
    let seen = Run { program: &["--no-runtime"], ..Run::new(Runtime::Cuda12, &all) }.observe();
    assert!(seen.summary.calls.keys().all(|name| !name.starts_with("cuda")));
    seen.check();
}

/// Every second thread uses CUDA 13 and the others CUDA 12, in one process.
#[test]
fn two_runtimes_in_one_process() {
    or_skip!();
    let all = all();
    let second = simgpu::library_dir(Runtime::Cuda13).join("libcudart.so.13");
    let libraries = ["--library", "libcudart.so.12", "--second-library", second.to_str().unwrap()];
    let seen = Run { threads: 4, program: &libraries, ..Run::new(Runtime::Cuda12, &all) }.observe();
    let only_in = ["cudaLaunchCooperativeKernelMultiDevice", "cudaLaunchHostFunc_v2"];
    assert!(only_in.into_iter().all(|name| seen.summary.call(name) > 0));
    seen.check();
}

/// Attached before the libraries are loaded, nothing is unknown: each direction, each device, each graph.
#[test]
fn from_the_first_call_on() {
    or_skip!();
    for runtime in RUNTIMES {
        // The directions inside a batch are not known, by then or ever.
        let apis = apis(|name, _| !name.contains("Batch"));
        let seen = Run::new(runtime, &apis).observe_from_start(3);
        same(&seen.summary.calls, &probed_alone(&seen.device.calls), "calls of the stand-ins");
        let (summary, device) = (&seen.summary, &seen.device);
        assert_eq!(summary.launches.total, device.launches());
        assert_eq!(summary.launches.unknown_graphs, 0);
        assert_eq!(summary.launches.graph_nodes, device.fact("graph_kernel_nodes"));
        for direction in DIRECTIONS {
            assert_eq!(summary.copies(direction), seen.expected_copies(direction), "{direction}");
        }
        assert_eq!(summary.copies("unknown"), Copies::default());
        for (name, kind) in
            [("0", "device0"), ("1", "device1"), ("managed", "managed"), ("reserved", "reserved")]
        {
            assert_eq!(summary.memory[name], logged(device, kind), "{name}");
        }
        assert_eq!(summary.memory.get("unknown"), None);
        let both = together(logged(device, "pinned"), logged(device, "registered"));
        assert_eq!(without_peak(summary.memory["pinned"]), without_peak(both));
        nothing_lost(summary);
    }
}

/// What the stand-ins logged of a kind of memory.
fn logged(device: &Totals, kind: &str) -> Memory {
    let fact = |of: &str| device.fact(&format!("{kind}_{of}"));
    Memory {
        allocated_bytes: fact("allocated_bytes"),
        freed_bytes: fact("freed_bytes"),
        live_bytes: fact("live_bytes"),
        peak_bytes: fact("peak_bytes"),
        allocations: fact("allocations"),
        frees: fact("frees"),
        frees_of_unknown: 0,
    }
}

#[test]
fn sums_instead_of_records() {
    or_skip!();
    let all = all();
    for runtime in RUNTIMES {
        for threads in [1, 8] {
            let run =
                Run { threads, times: 10, profiler: &["--detail", "aggregate"], ..Run::new(runtime, &all) };
            let seen = run.observe();
            seen.check();
            let counted = seen.summary.counted;
            assert!(counted.own > seen.summary.launches.total / 2, "{counted:?}");
            assert!(counted.nested > 0, "{counted:?}");
            println!(
                "{:.0} % of launches and copies were counted in the kernel",
                seen.counted_share() * 100.0
            );
        }
    }
}

/// SIGUSR1 changes the level while the calls are made; not one is counted twice or not at all.
#[test]
fn the_level_changed_while_observing() {
    or_skip!();
    let all = all();
    for runtime in RUNTIMES {
        // Pauses, so that the calls last as long as the changes, and the ring holds what they send.
        let pauses = ["--interval-ns", "10000000"];
        let run = Run { threads: 4, times: 40, program: &pauses, ..Run::new(runtime, &all) };
        let seen = run.observe_while(|observation, program| {
            program.go_on().unwrap();
            for _ in 0..20 {
                observation.signal(libc::SIGUSR1).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
            let made = program.made().unwrap();
            program.waits_before("end").unwrap();
            made.after
        });
        seen.check();
        let share = seen.counted_share();
        println!("{:.0} % of launches and copies were counted in the kernel", share * 100.0);
        assert!(share > 0.0, "{:?}", seen.summary.counted);
    }
}

/// Which failures are told without asking, and which with `--results all`.
#[test]
fn failures_by_name() {
    or_skip!();
    // A function of the driver fails by itself, and inside the runtime's.
    let allocations = [
        ("cuMemAllocAsync", "CUDA_ERROR_OUT_OF_MEMORY", 3),
        ("cuMemAlloc_v2", "CUDA_ERROR_OUT_OF_MEMORY", 6),
        ("cudaMalloc", "cudaErrorMemoryAllocation", 3),
        ("cudaMallocAsync", "cudaErrorMemoryAllocation", 3),
    ];
    let work = [
        ("cuLaunchKernel", "CUDA_ERROR_INVALID_VALUE", 6),
        ("cudaLaunchKernel", "cudaErrorInvalidConfiguration", 3),
        ("cudaMemcpy", "cudaErrorInvalidMemcpyDirection", 3),
        ("cudaMemcpyAsync", "cudaErrorInvalidMemcpyDirection", 3),
    ];
    for (wanted, expected) in [("some", allocations.to_vec()), ("all", [&allocations[..], &work].concat())] {
        let run = Run { profiler: &["--results", wanted], ..Run::new(Runtime::Cuda13, "@failing") };
        let seen = run.observe();
        let named = |(name, error, count): &(&str, &str, u64)| {
            ((*name).to_owned(), BTreeMap::from([((*error).to_owned(), *count)]))
        };
        assert_eq!(seen.summary.failures, expected.iter().map(named).collect(), "--results {wanted}");
        let memory = &seen.summary.out_of_memory;
        assert_eq!((memory.count, memory.last.len()), (9, 9));
        assert!(memory.last.iter().all(|asked| asked.bytes == 1 << 50 && asked.pid == seen.pid));
        nothing_lost(&seen.summary);
    }
}

/// The program calls every GPU function of the catalogue that the stand-ins have.
#[test]
fn the_program_knows_the_whole_catalogue() {
    or_skip!();
    let mut called = BTreeSet::new();
    for runtime in RUNTIMES {
        let log = TempDir::new().unwrap();
        let mut program = Run { times: 1, ..Run::new(runtime, "all") }.start(&log);
        let pid = program.waits_before("start").unwrap();
        program.make().unwrap();
        called.extend(device(log.path(), pid).unwrap().calls.into_keys());
        program.end().unwrap();
    }
    let gpu = CATALOG.iter().filter(|api| api.layer.is_gpu());
    let never: Vec<_> = gpu.map(|api| api.symbol).filter(|symbol| !called.contains(*symbol)).collect();
    assert_eq!(never, NEVER_CALLED);
}

/// Functions that are probed and that the program does not call, with the reason.
const NEVER_CALLED: &[&str] = &[
    // What the stand-ins refuse: execution contexts, recaptures, memory nodes and batches of memory operations.
    "cudaExecutionCtxSynchronize",
    "cudaStreamBeginRecaptureToGraph",
    "cudaStreamBeginRecaptureToGraph_ptsz",
    "cudaGraphAddMemAllocNode",
    "cudaGraphAddMemFreeNode",
    "cuStreamBeginRecaptureToGraph",
    "cuStreamBeginRecaptureToGraph_ptsz",
    "cuGraphAddMemAllocNode",
    "cuGraphAddMemFreeNode",
    "cuGraphAddBatchMemOpNode",
];
