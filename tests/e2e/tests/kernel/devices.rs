//! What devices say, against what the stand-in management library was told to say, while it is told something else, and
//! while it fails in every way it can.

use std::time::Duration;

mod energy;

use e2e::metrics::Point;
use e2e::{Metrics, Observation, Report, Stage, or_skip, wait};
use serde_json::Value;
use simgpu::{Environment, Runtime, Told, Truth, library_dir};
use tempfile::TempDir;
use workload::{ClientOptions, ServerOptions, load};

/// Read as often as can be: what is dear each second, unless that takes too long.
const OFTEN: [&str; 2] = ["--device-interval", "100ms"];

/// A server on stand-ins that are told what to say.
struct Bench {
    stage: Stage,
    told: Told,
    settings: Environment,
    _folder: TempDir,
}

impl Bench {
    fn start(values: &[(&str, f64)], settings: Environment) -> Self {
        let folder = TempDir::new().unwrap();
        let mut told = Told::new(folder.path()).unwrap();
        told.tell(values).unwrap();
        let settings = Environment { nvml: Some(told.path().to_owned()), ..settings };
        let stage = Stage::start_with(&ServerOptions::default(), settings.clone()).unwrap();
        let settings = Environment { log_dir: Some(stage.folder().to_owned()), ..settings };
        Self { stage, told, settings, _folder: folder }
    }

    fn observe(&self, arguments: &[&str]) -> Observation {
        let library = library_dir(Runtime::Cuda13).join("libnvidia-ml.so.1");
        self.observe_by(library.to_str().unwrap(), arguments)
    }

    fn observe_by(&self, library: &str, arguments: &[&str]) -> Observation {
        let pairs = self.settings.pairs();
        let mut variables: Vec<(&str, &str)> =
            pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        variables.push(("GPUSPAN_NVML", library));
        Observation::start_with(self.stage.server.pid(), arguments, &variables).unwrap()
    }

    /// How often a function of the library was called, by whomever.
    fn calls(&self, function: &str) -> u64 {
        Truth::read(self.stage.folder()).map_or(0, |truth| truth.total.call(function))
    }

    /// Waits until what is dear has been read so often from now on.
    fn wait_for_rounds(&self, rounds: u64) {
        let wanted = self.calls(ENERGY) + rounds;
        wait::until("another reading", || Ok((self.calls(ENERGY) >= wanted).then_some(()))).unwrap();
    }
}

const ENERGY: &str = "nvmlDeviceGetTotalEnergyConsumption";

/// Every point of a metric as it was told last.
fn points(report: &Report, name: &str) -> Vec<Point> {
    Metrics::last(&report.otlp).unwrap().of(name, &[]).cloned().collect()
}

/// The value of the only point with these attributes.
fn value(report: &Report, name: &str, wanted: &[(&str, &str)]) -> Option<f64> {
    let metrics = Metrics::last(&report.otlp).unwrap();
    let fitting: Vec<_> = metrics.of(name, wanted).collect();
    assert!(fitting.len() <= 1, "{name}{wanted:?} names several points: {fitting:?}");
    fitting.first().map(|point| point.value)
}

fn notes(report: &Report) -> Vec<String> {
    let summary: Value = serde_json::from_str(&report.summary_text).unwrap();
    let notes = summary["devices"]["notes"].as_array().unwrap().iter();
    let said = notes.map(|note| note["what"].as_str().unwrap().to_owned());
    // Stand-ins on a machine that does other things are slow to answer.
    said.filter(|what| !what.starts_with("reading is dear")).collect()
}

fn close(found: Option<f64>, expected: f64) -> bool {
    found.is_some_and(|found| (found - expected).abs() <= expected.abs() * 1e-9)
}

#[test]
fn values_are_what_the_library_was_told_in_units_of_the_catalogue() {
    or_skip!();
    let hopper = Environment { compute_capability: Some(90), ..Environment::default() };
    let mut bench = Bench::start(
        &[
            ("0.utilization", 37.0),
            ("0.encoder", 5.0),
            ("0.decoder", 6.0),
            ("0.power", 412_500.0),
            ("0.energy", 1_000_000.0),
            ("0.temperature", 61.0),
            ("0.memory_temperature", 71.0),
            ("0.clock.sm", 1980.0),
            ("0.clock.memory", 2619.0),
            ("0.reasons", 0x44.into()),
            ("0.violation.0", 5e9),
            ("0.ecc.corrected", 3.0),
            ("0.ecc.uncorrected", 1.0),
            ("0.pcie_replays", 9.0),
            ("0.rows.corrected", 2.0),
            ("0.rows.pending", 1.0),
            ("0.memory_used", f64::from(1 << 30)),
            ("0.memory_total", f64::from(1 << 30) * 80.0),
            ("0.gpm.5", 93.4),
            ("0.gpm.3", f64::NAN),
            ("0.gpm.20", 100.0),
            ("0.xids", 4.0),
        ],
        hopper,
    );
    let own = bench.stage.server.pid();
    bench
        .told
        .tell(&[(&format!("0.process.{own}"), 5e8), (&format!("0.process_utilization.{own}"), 56.0)])
        .unwrap();
    let observation = bench.observe(&OFTEN);
    bench.wait_for_rounds(2);
    let changed = [
        ("0.energy", 1_007_500.0),
        ("0.violation.0", 7e9),
        ("0.ecc.corrected", 4.0),
        ("0.xids", 6.0),
        ("0.xid", 79.0),
    ];
    bench.told.tell(&changed).unwrap();
    bench.wait_for_rounds(2);
    let report = observation.stop().unwrap();
    let id = "GPU-53494d47-5055-0000-0000-000000000000";
    for (name, wanted, expected) in [
        ("hw.gpu.utilization", &[("hw.gpu.task", "general"), ("hw.id", id)][..], 0.37),
        ("hw.gpu.utilization", &[("hw.gpu.task", "encoder")], 0.05),
        ("hw.gpu.utilization", &[("hw.gpu.task", "decoder")], 0.06),
        ("hw.power", &[("hw.type", "gpu"), ("hw.vendor", "nvidia"), ("hw.name", "nvidia0")], 412.5),
        ("hw.energy", &[("gpuspan.energy.source", "counter")], 7.5),
        ("hw.temperature", &[("hw.sensor_location", "gpu")], 61.0),
        ("hw.temperature", &[("hw.sensor_location", "memory")], 71.0),
        ("hw.temperature.limit", &[("hw.limit_type", "high.critical")], 95.0),
        ("hw.gpu.memory.usage", &[], f64::from(1 << 30)),
        ("hw.gpu.memory.limit", &[], f64::from(1 << 30) * 80.0),
        ("hw.gpu.memory.utilization", &[], 1.0 / 80.0),
        ("hw.errors", &[("error.type", "corrected")], 4.0),
        ("hw.errors", &[("error.type", "uncorrected")], 1.0),
        ("hw.errors", &[("error.type", "pcie_replay")], 9.0),
        ("hw.status", &[("hw.state", "degraded")], 1.0),
        ("hw.status", &[("hw.state", "ok")], 0.0),
        ("gpuspan.gpu.clock", &[("gpuspan.gpu.clock_domain", "sm")], 1.98e9),
        ("gpuspan.gpu.clock", &[("gpuspan.gpu.clock_domain", "memory")], 2.619e9),
        ("gpuspan.gpu.throttled", &[("gpuspan.gpu.throttle_reason", "sw_power_cap")], 1.0),
        ("gpuspan.gpu.throttled", &[("gpuspan.gpu.throttle_reason", "hw_thermal_slowdown")], 1.0),
        ("gpuspan.gpu.throttled", &[("gpuspan.gpu.throttle_reason", "gpu_idle")], 0.0),
        ("gpuspan.gpu.throttle.time", &[("gpuspan.gpu.throttle_reason", "power")], 2.0),
        ("gpuspan.gpu.activity", &[("gpuspan.gpu.unit", "tensor")], 0.934),
        ("gpuspan.gpu.xid", &[("gpuspan.gpu.xid_code", "79")], 2.0),
        ("gpuspan.gpu.remapped_rows", &[("gpuspan.gpu.rows", "corrected")], 2.0),
        ("gpuspan.process.gpu.memory.usage", &[("process.pid", &own.to_string()), ("hw.id", id)], 5e8),
        ("gpuspan.process.gpu.utilization", &[("process.pid", &own.to_string())], 0.56),
    ] {
        let found = value(&report, name, wanted);
        assert!(close(found, expected), "{name}{wanted:?}: {found:?}, not {expected}");
    }
    assert_eq!(
        value(&report, "gpuspan.gpu.activity", &[("gpuspan.gpu.unit", "sm_occupancy")]),
        None,
        "it was NaN"
    );
    // 100 MiB a second for as long as it was observed, less what came before the first sample.
    let sent =
        value(&report, "hw.gpu.io", &[("gpuspan.gpu.link", "pcie"), ("network.io.direction", "transmit")])
            .unwrap();
    let most = report.summary.window_s * 100.0 * 1_048_576.0;
    assert!((most * 0.3..=most).contains(&sent), "{sent} of at most {most}");
    let [power] = &points(&report, "hw.power")[..] else { panic!("one device has power") };
    assert!(
        power.resource.contains_key("host.name") && !power.resource.contains_key("process.pid"),
        "{power:?}"
    );
    let [memory] = &points(&report, "gpuspan.process.gpu.memory.usage")[..] else { panic!("one process") };
    assert_eq!(memory.resource.get("process.pid"), Some(&own.to_string()));
    assert_eq!(notes(&report), Vec::<String>::new());
}

#[test]
fn counters_that_wrap_or_begin_anew_never_go_back() {
    or_skip!();
    let near = f64::from(u32::MAX) - 999.0;
    let mut bench = Bench::start(
        &[
            ("0.pcie_sent", near),
            ("0.pcie_received", 5000.0),
            ("0.energy", 9_000_000.0),
            ("0.nvlink_sent", 10.0),
        ],
        Environment::default(),
    );
    let observation = bench.observe(&OFTEN);
    bench.wait_for_rounds(1);
    // 1,500 bytes further is behind the end of 32 bits; the others begin anew with a driver that was loaded again.
    let after =
        [("0.pcie_sent", 500.0), ("0.pcie_received", 300.0), ("0.energy", 2_000.0), ("0.nvlink_sent", 12.0)];
    bench.told.tell(&after).unwrap();
    bench.wait_for_rounds(2);
    bench.told.tell(&[("0.energy", 3_000.0)]).unwrap();
    bench.wait_for_rounds(2);
    let report = observation.stop().unwrap();
    let link =
        |link, way| value(&report, "hw.gpu.io", &[("gpuspan.gpu.link", link), ("network.io.direction", way)]);
    assert_eq!(link("pcie", "transmit"), Some(1500.0));
    assert_eq!(link("pcie", "receive"), Some(300.0));
    assert_eq!(link("nvlink", "transmit"), Some(2048.0));
    assert_eq!(link("nvlink", "receive"), None, "it was told nothing");
    assert_eq!(value(&report, "hw.energy", &[]), Some(3.0));
}

#[test]
fn a_device_that_falls_off_the_bus_is_told_once_and_comes_back() {
    or_skip!();
    let mut bench = Bench::start(&[("0.power", 100_000.0)], Environment::default());
    let observation = bench.observe(&OFTEN);
    bench.wait_for_rounds(1);
    bench.told.tell(&[("0.lost", 1.0)]).unwrap();
    let says = |what: &str| observation.stderr().contains(what).then_some(());
    wait::until("word of the loss", || Ok(says("it does not answer"))).unwrap();
    // The server is served all the same, and the library is let go and loaded again meanwhile.
    load(&ClientOptions { requests: 4, ..bench_client(&bench) }).unwrap();
    wait::until("the library's being loaded anew", || Ok((bench.calls("nvmlInit_v2") >= 3).then_some(())))
        .unwrap();
    bench.told.untell(&["0.lost"]).unwrap();
    wait::until("word of the return", || Ok(says("it answers again"))).unwrap();
    let report = observation.stop().unwrap();
    let said = notes(&report);
    let times = |what: &str| said.iter().filter(|note| note.contains(what)).count();
    assert_eq!((times("it does not answer"), times("it answers again")), (1, 1), "{said:?}");
    assert_eq!(value(&report, "hw.status", &[("hw.state", "ok")]), Some(1.0));
    assert_eq!(value(&report, "hw.power", &[]), Some(100.0));
    assert_eq!(report.summary.requests.total, 4);
}

fn bench_client(bench: &Bench) -> ClientOptions {
    ClientOptions::new(bench.stage.server.url())
}

#[test]
fn what_is_not_there_or_not_allowed_is_told_and_nothing_else_suffers() {
    or_skip!();
    let hopper = Environment { compute_capability: Some(90), ..Environment::default() };
    let mut bench =
        Bench::start(&[("0.error.nvmlGpmSampleGet", 4.0), ("0.error.nvmlDeviceGetTemperature", 3.0)], hopper);
    let observation = bench.observe(&OFTEN);
    bench.wait_for_rounds(2);
    let report = observation.stop().unwrap();
    assert!(points(&report, "gpuspan.gpu.activity").is_empty());
    assert!(points(&report, "hw.temperature").is_empty(), "not supported is no trouble");
    assert!(!points(&report, "hw.power").is_empty());
    assert!(!points(&report, "hw.gpu.io").is_empty(), "bytes come from the counters instead");
    let said = notes(&report);
    assert!(said.len() == 1 && said[0].contains("GPM") && said[0].contains("run privileged"), "{said:?}");

    bench.told.tell(&[("error.nvmlInit_v2", 9.0)]).unwrap();
    let observation = bench.observe(&OFTEN);
    let says = |what: &str| observation.stderr().contains(what).then_some(());
    wait::until("word of the driver", || Ok(says("the NVIDIA driver is not loaded"))).unwrap();
    bench.told.untell(&["error.nvmlInit_v2"]).unwrap();
    wait::until("word of its return", || Ok(says("can be used again"))).unwrap();
    assert!(!points(&observation.stop().unwrap(), "hw.power").is_empty());

    let observation = bench.observe_by("/nonexistent/libnvidia-ml.so.1", &[]);
    wait::until("word of the library", || {
        Ok(observation.stderr().contains("no NVIDIA library").then_some(()))
    })
    .unwrap();
    assert!(points(&observation.stop().unwrap(), "hw.power").is_empty());

    let before = bench.calls("nvmlInit_v2");
    let report = bench.observe(&["--device", "off"]).stop().unwrap();
    assert_eq!((points(&report, "hw.power").len(), bench.calls("nvmlInit_v2")), (0, before));
}

#[test]
fn instances_of_a_gpu_are_devices_with_a_parent_and_others_devices_are_left_alone() {
    or_skip!();
    let bench_settings =
        Environment { devices: Some(2), compute_capability: Some(90), ..Environment::default() };
    let mut bench = Bench::start(
        &[("1.mig", 2.0), ("1.mig.1.memory_used", 4096.0), ("1.mig.1.gpm.5", 50.0)],
        bench_settings,
    );
    let own = bench.stage.server.pid();
    // The only process of the target is on the second instance of the second GPU.
    bench.told.tell(&[("0.process.1", 1.0), (&format!("1.mig.1.process.{own}"), 4096.0)]).unwrap();
    let observation = bench.observe(&OFTEN);
    wait::until("two readings", || Ok((bench.calls("nvmlGpmMetricsGet") >= 2).then_some(()))).unwrap();
    let report = observation.stop().unwrap();
    let parent = "GPU-53494d47-5055-0000-0000-000000000001";
    let part = [("hw.id", "MIG-53494d47-5055-0000-0001-000000000001"), ("hw.parent", parent)];
    assert_eq!(value(&report, "hw.gpu.memory.usage", &part), Some(4096.0));
    assert_eq!(value(&report, "gpuspan.gpu.activity", &[part[0], ("gpuspan.gpu.unit", "tensor")]), Some(0.5));
    assert_eq!(value(&report, "gpuspan.process.gpu.memory.usage", &part[..1]), Some(4096.0));
    let powers: Vec<_> =
        points(&report, "hw.power").into_iter().map(|point| point.attributes["hw.id"].clone()).collect();
    assert_eq!(powers, [parent], "an instance's power is its GPU's, and the other GPU is not the target's");
    let report = bench.observe(&["--device", "all"]).stop().unwrap();
    assert_eq!(points(&report, "hw.power").len(), 2);
    assert_eq!(points(&report, "hw.gpu.memory.limit").len(), 4);
}

/// CPU time of the thread that reads devices, nanoseconds.
fn reading_ns(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().map(|entry| entry.path());
    let text = |path: &std::path::Path, file| std::fs::read_to_string(path.join(file)).unwrap_or_default();
    let mut own = threads.filter(|path| text(path, "comm").trim() == "devices");
    let times = text(&own.next().expect("no thread reads devices"), "schedstat");
    times.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn reading_eight_devices_takes_half_a_percent_of_a_core_at_most() {
    or_skip!();
    // What calls take on an H100 (docs/gpu.md), microseconds.
    let costs = [
        ("nvmlDeviceGetTotalEnergyConsumption", 2400.0),
        ("nvmlGpmSampleGet", 450.0),
        ("nvmlGpmMetricsGet", 2500.0),
        ("nvmlDeviceGetComputeRunningProcesses_v3", 45.0),
        ("nvmlDeviceGetTotalEccErrors", 90.0),
        ("nvmlDeviceGetUtilizationRates", 15.0),
        ("nvmlDeviceGetClockInfo", 14.0),
    ];
    let settings = Environment { devices: Some(8), compute_capability: Some(90), ..Environment::default() };
    let mut bench = Bench::start(&[], settings);
    let keys: Vec<_> =
        (0..8).flat_map(|device| costs.map(|(name, cost)| (format!("{device}.cost.{name}"), cost))).collect();
    let values: Vec<_> = keys.iter().map(|(key, cost)| (key.as_str(), *cost)).collect();
    bench.told.tell(&values).unwrap();
    let observation = bench.observe(&["--device", "all"]);
    bench.wait_for_rounds(8);
    std::thread::sleep(Duration::from_secs(4));
    let before = (reading_ns(observation.pid()), std::time::Instant::now());
    std::thread::sleep(Duration::from_secs(30));
    let spent = (reading_ns(observation.pid()) - before.0) as f64 / before.1.elapsed().as_nanos() as f64;
    let report = observation.stop().unwrap();
    println!("{:.3} % of a core", spent * 100.0);
    // One dear round more or less may fall into the time.
    assert!(spent <= 0.005, "{spent}");
    assert_eq!(points(&report, "hw.power").len(), 8);
}
