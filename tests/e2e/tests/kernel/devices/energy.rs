//! Energy of requests, against the power that the stand-in says it takes and what truly ran.

use std::time::Duration;

use e2e::{Observation, Report, Stage, or_skip, recording};
use serde_json::Value;
use simgpu::{Environment, Runtime, library_dir};
use tempfile::TempDir;
use workload::{ClientOptions, ServerOptions, load};

use super::{points, value};

/// Spans of time, as one that has each moment once.
fn union(mut spans: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    spans.sort_unstable();
    let mut all: Vec<(u64, u64)> = Vec::new();
    for (start, end) in spans {
        match all.last_mut().filter(|last| start <= last.1) {
            Some(last) => last.1 = last.1.max(end),
            None => all.push((start, end)),
        }
    }
    all
}

fn within(spans: &[(u64, u64)], others: &[(u64, u64)]) -> u64 {
    let common =
        |span: &(u64, u64), other: &(u64, u64)| span.1.min(other.1).saturating_sub(span.0.max(other.0));
    spans.iter().map(|span| others.iter().map(|other| common(span, other)).sum::<u64>()).sum()
}

/// The stand-in takes 25 W, and 300 W while anything runs. What requests are told to have taken is what it took while
/// iterations ran, but for power figures that are means over 100 ms.
#[test]
fn energy_of_requests_is_the_devices_while_it_worked_for_them_and_a_replay_has_the_same() {
    or_skip!();
    let folder = TempDir::new().unwrap();
    let recording = folder.path().join("recording");
    let settings = Environment { ops: true, ..Environment::default() };
    let stage = Stage::start_with(
        &ServerOptions { kernel_ns: 100_000, ..ServerOptions::default() },
        settings.clone(),
    )
    .unwrap();
    let settings = Environment { log_dir: Some(stage.folder().to_owned()), ..settings };
    let library = library_dir(Runtime::Cuda13).join("libnvidia-ml.so.1");
    let pairs = settings.pairs();
    let mut variables: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    variables.push(("GPUSPAN_NVML", library.to_str().unwrap()));
    let arguments = ["--output", "json", "--record", recording.to_str().unwrap()];
    let observation = Observation::start_with(stage.server.pid(), &arguments, &variables).unwrap();
    let client = ClientOptions { concurrency: 8, requests: 120, ..ClientOptions::new(stage.server.url()) };
    load(&client).unwrap();
    // The last power figure comes after the last work.
    std::thread::sleep(Duration::from_millis(700));
    let report = observation.stop().unwrap();

    let lines = report.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let steps: Vec<_> = lines.filter(|line| line["type"] == "step" && !line["gpu"].is_null()).collect();
    let time = |step: &Value, name: &str| step["gpu"][name].as_u64().unwrap();
    let iterations = union(steps.iter().map(|step| (time(step, "start_ns"), time(step, "end_ns"))).collect());
    let is_work = |kind| matches!(kind, simgpu::Kind::Kernel | simgpu::Kind::Copy | simgpu::Kind::Fill);
    let ops = stage.operations().unwrap();
    let busy = union(ops.iter().filter(|op| is_work(op.kind)).map(|op| (op.start_ns, op.end_ns)).collect());
    let seconds = |ns: u64| ns as f64 / 1e9;
    let length = seconds(iterations.iter().map(|span| span.1 - span.0).sum());
    let truth = 25.0 * length + 275.0 * seconds(within(&iterations, &busy));

    let told: f64 = points(&report, "gpuspan.gpu.energy").iter().map(|point| point.value).sum();
    let nobodys = value(&report, "gpuspan.gpu.energy", &[("gpuspan.part", "unattributed")]).unwrap_or(0.0);
    let requests: Vec<f64> = report
        .spans
        .iter()
        .filter(|span| span.is_server())
        .filter_map(|span| span.double("gpuspan.gpu.energy_j"))
        .collect();
    let sum: f64 = requests.iter().sum();
    println!(
        "{told:.3} J told, {truth:.3} J true, {length:.3} s, {} requests, {nobodys:.3} J nobody's",
        requests.len()
    );
    assert_eq!(requests.len(), 120);
    assert!((sum + nobodys - told).abs() < 1e-3, "{sum} and {nobodys} are not {told}");
    assert!((told / truth - 1.0).abs() < 0.1, "{told} J, not {truth} J");
    let whole = value(&report, "hw.energy", &[("gpuspan.energy.source", "counter")]).unwrap();
    assert!(told < whole, "{told} of {whole}");

    let again = recording::replay(&recording, "json").unwrap();
    recording::assert_same(&again, &report);
    let replayed = Report { otlp: again.otlp, ..report.clone() };
    for metric in ["gpuspan.gpu.energy", "hw.energy", "hw.power", "gpuspan.process.gpu.memory.usage"] {
        let values =
            |report: &Report| points(report, metric).iter().map(|point| point.value).collect::<Vec<_>>();
        assert_eq!(values(&replayed), values(&report), "{metric}");
    }
}
