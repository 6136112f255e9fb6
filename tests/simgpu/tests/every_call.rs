//! The account of every call. In: the calls program with all its APIs, which says what each should do. Out: the log's
//! facts compared with that. Absent: the behaviour of the device (`device.rs`), anything that is observed from outside.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use simgpu::{Environment, Runtime, Totals, Truth, calls_program, command_env};

const DIRECTIONS: [&str; 4] = ["HtoD", "DtoH", "DtoD", "HtoH"];
/// Nodes of the graph that the program makes before it begins, of which it cannot speak as an observer would.
const NODES_BEFORE: u64 = 3;

/// The program's own account and the log of one run.
fn run(runtime: Runtime, arguments: &[&str]) -> (Value, Totals) {
    let log = tempfile::tempdir().unwrap();
    let settings = Environment {
        log_dir: Some(log.path().to_owned()),
        kernel_time: Some(Duration::from_micros(1)),
        devices: Some(2),
        ..Environment::default()
    };
    let output =
        Command::new(calls_program()).args(arguments).envs(command_env(runtime, &settings)).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    (serde_json::from_slice(&output.stdout).unwrap(), Truth::read(log.path()).unwrap().total)
}

/// `{count, bytes}` beside the facts `name` and `name_bytes`.
fn pair_agrees(said: &Value, total: &Totals, name: &str) {
    let facts = (total.fact(name), total.fact(&format!("{name}_bytes")));
    assert_eq!((said["count"].as_u64().unwrap(), said["bytes"].as_u64().unwrap()), facts, "{name}");
}

fn work_agrees(after: &Value, total: &Totals) {
    let (done, nodes) = (&after["done"], &after["graph_nodes"]);
    for (said, fact) in [("launches", "launches"), ("host_functions", "host_functions")] {
        assert_eq!(done[said].as_u64().unwrap(), total.fact(fact), "{said}");
    }
    assert_eq!(done["graph_launches"].as_u64().unwrap(), total.fact("graph_launches"));
    let known = nodes["kernels"].as_u64().unwrap();
    let before = done["unknown_graphs"].as_u64().unwrap() * NODES_BEFORE;
    assert_eq!(known + before, total.fact("graph_kernel_nodes"));
    assert_eq!(nodes["host_functions"].as_u64().unwrap(), total.fact("graph_host_functions"));
    for direction in DIRECTIONS {
        let name = direction.to_lowercase();
        pair_agrees(&done["copies"][direction], total, &format!("copies_{name}"));
        pair_agrees(&nodes["copies"][direction], total, &format!("graph_copies_{name}"));
    }
    pair_agrees(&done["sets"], total, "memsets");
    pair_agrees(&nodes["sets"], total, "graph_memsets");
}

/// Everything that was handed out after the preparation is given back, each kind by itself.
///
/// The program takes note of a call when it has returned: of several threads, one's memory may be given back and
/// another's handed out before the first is noted, so that the program knows a peak that never was.
fn memory_agrees(after: &Value, total: &Totals, threads: u32) {
    let memory = after["memory"].as_object().unwrap();
    assert!(memory.contains_key("1"), "two devices: {memory:?}");
    for (name, said) in memory {
        let kind = match name.as_str() {
            number if number.parse::<u32>().is_ok() => format!("device{number}"),
            "arrays" => "array".to_owned(),
            kind => kind.to_owned(),
        };
        let fact = |of: &str| total.fact(&format!("{kind}_{of}"));
        let said = |of: &str| said[of].as_u64().unwrap();
        assert_eq!(said("frees"), fact("frees"), "{kind}");
        assert_eq!(said("freed_bytes"), said("allocated_bytes"), "{kind}");
        assert_eq!(fact("allocated_bytes") - fact("freed_bytes"), fact("live_bytes"), "{kind}");
        let highest = if threads == 1 { fact("peak_bytes") } else { said("allocated_bytes") };
        assert!(said("peak_bytes") <= highest, "{kind}");
    }
    for kind in ["managed", "registered", "reserved"] {
        assert!(total.fact(&format!("{kind}_allocations")) > 0, "{kind}");
        assert_eq!(total.fact(&format!("{kind}_live_bytes")), 0, "{kind}");
    }
}

fn agrees(runtime: Runtime, threads: u32, more: &[&str]) -> Totals {
    let usual = ["--threads", &threads.to_string(), "--times", "5", "--api", "all"];
    let (report, total) = run(runtime, &[&usual[..], more].concat());
    let after = &report["after"];
    assert_eq!(total.unsupported(), Vec::<&str>::new());
    work_agrees(after, &total);
    memory_agrees(after, &total, threads);
    let collectives = after["collectives"].as_object().unwrap();
    let sum = |of: &str| collectives.values().map(|entry| entry[of].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("count"), sum("bytes")), (total.fact("collectives"), total.fact("collective_bytes")));
    assert!(collectives.len() >= 20, "{collectives:?}");
    // The one call that shall fail: the end of a capture that a stream never came back to.
    for failure in after["failures"].as_array().unwrap() {
        let (name, code) = (failure["name"].as_str().unwrap(), failure["code"].as_i64().unwrap());
        let not_ready = code == 600 && (name.contains("Query") || name.contains("Elapsed"));
        assert!(not_ready || (name, code) == ("cudaStreamEndCapture", 904), "{failure}");
    }
    let calls = report["calls"].as_object().unwrap();
    for (name, count) in calls.iter().filter(|(name, _)| name.starts_with("cuda") || name.starts_with("nccl"))
    {
        let through = calls.get(&name.replace("cudaLaunchKernel", "__cudaLaunchKernel"));
        let through = through.filter(|_| name.starts_with("cudaLaunchKernel") && !name.contains("ExC"));
        let expected = count.as_u64().unwrap() + through.and_then(Value::as_u64).unwrap_or(0);
        assert_eq!(total.call(name), expected, "{name}");
    }
    total
}

#[test]
fn the_log_agrees_with_the_program() {
    for runtime in [Runtime::Cuda12, Runtime::Cuda13] {
        for threads in [1, 8] {
            agrees(runtime, threads, &[]);
        }
    }
}

#[test]
fn what_shall_fail_fails_as_it_should() {
    for runtime in [Runtime::Cuda12, Runtime::Cuda13] {
        let (report, total) = run(runtime, &["--times", "3", "--api", "@failing"]);
        let failures = report["after"]["failures"].as_array().unwrap();
        let mut codes: Vec<_> = failures
            .iter()
            .map(|failure| (failure["name"].as_str().unwrap(), failure["code"].as_i64().unwrap()))
            .collect();
        codes.sort_unstable();
        let expected = [
            ("cuLaunchKernel", 1),
            ("cuMemAlloc_v2", 2),
            ("cudaLaunchKernel", 9),
            ("cudaMalloc", 2),
            ("cudaMallocAsync", 2),
            ("cudaMemcpy", 21),
            ("cudaMemcpyAsync", 21),
        ];
        assert_eq!(codes, expected);
        assert!(failures.iter().all(|failure| failure["count"] == 3));
        assert_eq!((total.launches(), total.copies("htod").count), (0, 0));
    }
}

#[test]
fn two_runtimes_in_one_process() {
    let second = simgpu::library_dir(Runtime::Cuda13).join("libcudart.so.13");
    let libraries = ["--library", "libcudart.so.12", "--second-library", second.to_str().unwrap()];
    let total = agrees(Runtime::Cuda12, 4, &libraries);
    let only_in = ["cudaLaunchCooperativeKernelMultiDevice", "cudaLaunchHostFunc_v2"];
    assert_eq!(only_in.map(|name| total.call(name)), [10, 10], "two threads on each");
}

/// A program that has no runtime library: the same calls of the driver do the same.
#[test]
fn the_driver_alone() {
    let (report, total) = run(Runtime::Cuda12, &["--no-runtime", "--times", "5", "--api", "all"]);
    work_agrees(&report["after"], &total);
    assert!(total.calls.keys().all(|name| !name.starts_with("cuda")));
    assert!(total.launches() > 50);
}
