//! Every call of the catalogue, a known number of times: the profiler's counts, the stand-ins' log and what the program
//! says of itself agree, for each API and for all together, and each operation counts once whatever layers it crossed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use e2e::calls::{self, After};
use e2e::stage::{device, since};
use e2e::summary::Copies;
use e2e::{Calls, Observation, Summary, or_skip};
use profiler::probe::CATALOG;
use simgpu::{Environment, Runtime, Totals};
use tempfile::TempDir;

use crate::checks::nothing_lost;

const DIRECTIONS: [&str; 4] = ["HtoD", "DtoH", "DtoD", "HtoH"];

/// One run of the program, as everybody saw it.
struct Seen {
    made: After,
    /// Of the stand-ins, in the window alone.
    device: Totals,
    summary: Summary,
}

/// Runs the program under observation, from its wait on.
fn observe(
    runtime: Runtime,
    (threads, times): (u32, u32),
    apis: &str,
    more: &[&str],
    gpuspan: &[&str],
) -> Seen {
    let log = TempDir::new().unwrap();
    let settings = Environment {
        log_dir: Some(log.path().to_owned()),
        kernel_time: Some(Duration::from_micros(1)),
        devices: Some(2),
        ..Environment::default()
    };
    let (threads, times) = (threads.to_string(), times.to_string());
    let usual = ["--wait-stdin", "--threads", &threads, "--times", &times, "--api", apis];
    let arguments = [&usual[..], more].concat();
    let mut program = Calls::start(calls::command_on(runtime, &settings), &arguments).unwrap();
    let pid = program.waits_before("start").unwrap();
    let observation = Observation::start(pid, gpuspan).unwrap();
    let before = device(log.path(), pid).unwrap();
    let made = program.make().unwrap();
    let device = since(&before, &device(log.path(), pid).unwrap());
    let report = observation.stop().unwrap();
    program.end().unwrap();
    Seen { made: made.after, device, summary: report.summary }
}

impl Seen {
    fn check(&self) {
        assert_eq!(self.device.unsupported(), Vec::<&str>::new());
        self.calls_agree();
        self.launches_agree();
        self.copies_agree();
        nothing_lost(&self.summary);
    }

    /// Each probed function as often as the stand-ins were entered, which is as often as the program called it.
    fn calls_agree(&self) {
        let probed: BTreeSet<_> = CATALOG.iter().map(|api| api.symbol).collect();
        let keep = |calls: &BTreeMap<String, u64>| -> BTreeMap<String, u64> {
            let probed = calls.iter().filter(|(name, count)| **count > 0 && probed.contains(name.as_str()));
            probed.map(|(name, count)| (name.clone(), *count)).collect()
        };
        same(&self.summary.calls, &keep(&self.device.calls), "calls of the stand-ins");
        let mut made = self.made.calls.clone();
        for suffix in ["", "_ptsz"] {
            // The launch that nvcc 13 emits passes through the other.
            let through = made.get(&format!("__cudaLaunchKernel{suffix}")).copied().unwrap_or(0);
            *made.entry(format!("cudaLaunchKernel{suffix}")).or_default() += through;
        }
        made.retain(|name, _| name.starts_with("cuda") || name.starts_with("nccl"));
        let mut seen = self.summary.calls.clone();
        seen.retain(|name, _| name.starts_with("cuda") || name.starts_with("nccl"));
        same(&seen, &keep(&made), "calls of the program");
    }

    fn launches_agree(&self) {
        let (seen, done) = (&self.summary.launches, &self.made.done);
        assert_eq!(
            (done.launches, done.captured),
            (self.device.launches(), self.device.fact("captured_launches"))
        );
        assert_eq!((seen.total, seen.captured), (done.launches, done.captured));
        assert_eq!((seen.graph_launches, seen.unknown_graphs), (done.graph_launches, done.unknown_graphs));
    }

    /// Those of replayed graphs included, as far as their making was seen.
    fn copies_agree(&self) {
        for direction in DIRECTIONS {
            let (done, nodes) = (self.made.done.copies[direction], self.made.graph_nodes.copies[direction]);
            let ran = self.device.copies(&direction.to_lowercase());
            assert_eq!((done.count, done.bytes), (ran.count, ran.bytes), "{direction}");
            let expected = Copies { count: done.count + nodes.count, bytes: done.bytes + nodes.bytes };
            assert_eq!(self.summary.copies(direction), expected, "{direction}");
        }
        assert_eq!(self.summary.copies("unknown"), Copies::default());
    }
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

/// The program's APIs of a group whose function is probed.
fn probed(group: &str) -> String {
    let is_probed = |name: &str| CATALOG.iter().any(|api| Some(api.symbol) == name.split(':').next());
    let known = calls::known().unwrap();
    let names = known.into_iter().filter(|(name, of)| of == group && is_probed(name));
    names.map(|(name, _)| name).collect::<Vec<_>>().join(",")
}

#[test]
fn each_group_by_itself() {
    or_skip!();
    let only = std::env::var("GROUP").ok();
    for group in ["launch", "set", "memory", "stream", "context", "module", "collective"] {
        if only.as_ref().is_some_and(|only| only != group) {
            continue;
        }
        for runtime in [Runtime::Cuda12, Runtime::Cuda13] {
            let apis = probed(group);
            println!("{group}: {apis}");
            if apis.is_empty() {
                continue;
            }
            observe(runtime, (1, 3), &apis, &[], &[]).check();
        }
    }
}
