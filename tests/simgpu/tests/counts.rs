//! The truth is exact. In: the calls program, whose own counts are known. Out: the log files compared with them. Absent:
//! the behaviour of the device (`device.rs`).

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use simgpu::{Environment, Kind, Runtime, Truth, calls_program, command_env, ops};

const APIS: &str = "cudaLaunchKernel,cudaLaunchKernelExC,__cudaLaunchKernel,cudaLaunchCooperativeKernel,cudaLaunchKernel_ptsz,\
    cudaGraphLaunch,cudaMemcpy,cudaMemcpyAsync,cudaMemcpyAsyncDtoH,cudaMemcpyAsyncDtoD,cudaMemset,cudaMemsetAsync,\
    cudaMalloc,cudaMallocAsync,cudaHostAlloc,cudaStreamSynchronize,cudaEventRecord,cudaEventQuery,\
    cudaEventSynchronize,cudaStreamWaitEvent,cudaGetDevice,cuLaunchKernel,cuLaunchKernelEx,cuMemcpyHtoDAsync_v2,cuMemAlloc_v2";

fn settings(log: &Path) -> Environment {
    Environment {
        log_dir: Some(log.to_owned()),
        ops: true,
        kernel_time: Some(Duration::from_micros(3)),
        ..Default::default()
    }
}

fn program(runtime: Runtime, log: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(calls_program());
    command.args(arguments).envs(command_env(runtime, &settings(log)));
    command
}

/// Runs to the end and returns the program's own counts.
fn run(runtime: Runtime, log: &Path, arguments: &[&str]) -> serde_json::Value {
    let output = program(runtime, log, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn made(report: &serde_json::Value, name: &str) -> u64 {
    report["calls"][name].as_u64().unwrap_or(0)
}

fn counts_are_exact(runtime: Runtime, threads: u64, times: u64) {
    let log = tempfile::tempdir().unwrap();
    let arguments = ["--threads", &threads.to_string(), "--times", &times.to_string(), "--api", APIS];
    let report = run(runtime, log.path(), &arguments);
    let truth = Truth::read(log.path()).unwrap();
    assert_eq!(truth.processes.len(), 1);
    let total = &truth.total;
    for (name, count) in report["calls"].as_object().unwrap() {
        let count = count.as_u64().unwrap();
        if name.starts_with("cuda") && name != "cudaLaunchKernel" || name.starts_with("__") {
            assert_eq!(total.call(name), count, "{name}");
        }
    }
    // A launch by the new syntax passes through cudaLaunchKernel, and each through one driver launch.
    let runtime_launches = made(&report, "cudaLaunchKernel") + made(&report, "__cudaLaunchKernel");
    assert_eq!(total.call("cudaLaunchKernel"), runtime_launches);
    assert_eq!(total.call("cuLaunchKernel"), runtime_launches + made(&report, "cuLaunchKernel"));
    assert_eq!(
        total.call("cuLaunchKernelEx"),
        made(&report, "cudaLaunchKernelExC") + made(&report, "cuLaunchKernelEx")
    );
    assert_eq!(total.call("cuLaunchKernel_ptsz"), made(&report, "cudaLaunchKernel_ptsz"));
    assert_eq!(total.call("cuGraphLaunch"), made(&report, "cudaGraphLaunch"));

    let each = threads * times;
    assert_eq!(total.launches(), 7 * each, "seven of the APIs launch");
    assert_eq!(total.fact("captured_launches"), 3 * threads, "three nodes for each thread's graph");
    assert_eq!(total.fact("graph_launches"), each);
    assert_eq!(total.fact("graph_nodes"), 3 * each);
    assert_eq!(total.fact("graph_kernel_nodes"), 3 * each);
    let kernels = &total.kernels;
    assert_eq!(kernels["calls_kernel"].launched, 3 * each);
    assert_eq!(kernels["calls_kernel"].captured, 3 * threads);
    assert_eq!(kernels["calls_kernel"].graph_runs, 3 * each);
    assert_eq!(kernels["calls_kernel"].total_ns, 6 * each * 3000);
    assert_eq!(kernels["calls_other_kernel"].launched, 2 * each);
    assert_eq!(kernels["calls_driver_kernel"].launched, 2 * each);

    let bytes = 4096;
    assert_eq!((total.copies("htod").count, total.copies("htod").bytes), (3 * each, 3 * each * bytes));
    assert_eq!((total.copies("dtoh").count, total.copies("dtoh").bytes), (each, each * bytes));
    assert_eq!((total.copies("dtod").count, total.copies("dtod").bytes), (each, each * bytes));
    assert_eq!(total.fact("memsets"), 2 * each);
    assert_eq!(total.fact("allocations"), 2 * threads + 3 * each);
    assert_eq!(total.fact("frees"), 3 * each);
    assert_eq!(total.fact("live_bytes"), 2 * threads * bytes);
    assert_eq!(total.fact("allocated_bytes") - total.fact("freed_bytes"), total.fact("live_bytes"));
    assert!(total.unsupported().is_empty(), "{:?}", total.unsupported());
    operations_agree(log.path(), total, each);
}

fn operations_agree(log: &Path, total: &simgpu::Totals, each: u64) {
    let all = ops(log).unwrap();
    let kernels: Vec<_> = all.iter().filter(|op| op.kind == Kind::Kernel).collect();
    assert_eq!(kernels.len() as u64, 10 * each, "seven launches and three nodes");
    assert_eq!(kernels.iter().filter(|op| op.graph != 0).count() as u64, 3 * each);
    assert!(kernels.iter().all(|op| op.end_ns - op.start_ns == 3000 && op.start_ns >= op.submit_ns));
    assert_eq!(all.iter().filter(|op| op.kind == Kind::Copy).count() as u64, 5 * each);
    assert_eq!(all.iter().filter(|op| op.kind == Kind::Graph).count() as u64, each);
    let time: u64 = kernels.iter().map(|op| op.end_ns - op.start_ns).sum();
    assert_eq!(time, total.fact("kernel_ns"));
    // Within a stream nothing overlaps, nodes of a graph aside.
    let mut last = std::collections::HashMap::new();
    for op in all.iter().filter(|op| op.graph == 0 || op.kind == Kind::Graph) {
        let end = last.insert((op.pid, op.stream), op.end_ns).unwrap_or(0);
        assert!(op.start_ns >= end, "{op:?} begins before its predecessor's end at {end}");
    }
}

#[test]
fn one_thread_is_counted_exactly() {
    counts_are_exact(Runtime::Cuda13, 1, 200);
}

#[test]
fn eight_threads_are_counted_exactly() {
    counts_are_exact(Runtime::Cuda13, 8, 200);
}

#[test]
fn cuda_12_is_counted_exactly() {
    counts_are_exact(Runtime::Cuda12, 2, 50);
}

struct Waiting {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Waiting {
    fn start(log: &Path, arguments: &[&str]) -> Self {
        let mut command = program(Runtime::Cuda13, log, arguments);
        let mut child =
            command.arg("--wait-stdin").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }
    fn line(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }
    fn go(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

#[test]
fn a_killed_process_leaves_its_truth() {
    let log = tempfile::tempdir().unwrap();
    let mut waiting =
        Waiting::start(log.path(), &["--times", "300", "--api", "cudaLaunchKernel,cudaMemcpyAsync"]);
    assert_eq!(waiting.line()["waiting"], "start");
    assert_eq!(Truth::read(log.path()).unwrap().total.launches(), 0);
    waiting.go();
    let report = waiting.line();
    assert_eq!(waiting.line()["waiting"], "end");
    waiting.child.kill().unwrap();
    waiting.child.wait().unwrap();
    let truth = Truth::read(log.path()).unwrap();
    let process = truth.process(report["pid"].as_u64().unwrap().try_into().unwrap()).unwrap();
    assert_eq!(process.totals.launches(), 300);
    assert_eq!(process.totals.copies("htod").bytes, 300 * 4096);
    assert_eq!(ops(log.path()).unwrap().iter().filter(|op| op.kind == Kind::Kernel).count(), 300);
}

#[test]
fn a_forked_child_and_an_executed_program_are_counted() {
    for mode in ["--fork", "--exec"] {
        let log = tempfile::tempdir().unwrap();
        let report = run(Runtime::Cuda13, log.path(), &[mode, "--times", "50"]);
        let truth = Truth::read(log.path()).unwrap();
        let process = truth.process(report["pid"].as_u64().unwrap().try_into().unwrap()).unwrap();
        assert_eq!(process.totals.launches(), 50, "{mode}");
        assert_eq!(truth.total.launches(), 50, "{mode}");
    }
}

#[test]
fn late_and_deleted_libraries_are_counted() {
    for mode in [["--dlopen-after-ms", "50"].as_slice(), &["--copy-library-and-delete"]] {
        let log = tempfile::tempdir().unwrap();
        let report = run(Runtime::Cuda13, log.path(), &[mode, &["--times", "50"]].concat());
        assert_eq!(Truth::read(log.path()).unwrap().total.launches(), 50, "{mode:?}");
        assert_eq!(made(&report, "cudaLaunchKernel"), 50);
    }
}
