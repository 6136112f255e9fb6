//! The run that everything is asked about: gpuspan attached to the workload server on the stand-in GPU, and a second one
//! to processes that speak as SGLang does, both under load and both sending to one backend.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use e2e::{Observation, Report, Stage};
use serde_json::Value;
use simgpu::{Environment, Told};
use tempfile::TempDir;
use workload::client::StreamMode;
use workload::options::Graphs;
use workload::{ClientOptions, ServerOptions, load};
use xtask::backend::Name;

use crate::ask;
use crate::program::{Prometheus, VictoriaMetrics, backend};

#[path = "../../../../profiler/tests/python/mod.rs"]
mod environment;

/// What the stand-in of SGLang is built on; the same environment as in the target `engines`.
const PACKAGES: &[&str] = &["pyzmq==27.1.0", "msgspec==0.20.0"];
/// Two layers of two heads.
const SHAPE: &str =
    r#"{"num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8, "dtype": "float32"}"#;
/// Between two snapshots, milliseconds.
const INTERVAL: &str = "1000";
/// For the last snapshots to arrive.
const SETTLE: Duration = Duration::from_millis(2500);

/// What is left of the run.
pub struct Scene {
    /// Unix time of its begin and end, seconds.
    pub window: (f64, f64),
    /// Metrics as they were written to the files, request by request.
    pub metrics: Vec<Value>,
    /// Ids of the traces that were told.
    pub traces: BTreeSet<String>,
    /// An answer to a scrape in the older format, which Prometheus does not ask for.
    pub scrape: String,
    /// What scraped it, where it can be had.
    pub prometheus: Option<Prometheus>,
}

impl Scene {
    /// Runs it; nothing where the servers cannot be had.
    pub fn play(victoria: &VictoriaMetrics) -> Option<Self> {
        e2e::program::gpuspan().unwrap();
        let sglang = Sglang::start()?;
        let options = ServerOptions {
            kernel_ns: 20_000,
            graphs: Graphs::Lazy,
            max_batch: 8,
            ..ServerOptions::default()
        };
        // A device that has everything there is to read.
        let folder = TempDir::new().unwrap();
        let mut told = Told::new(folder.path()).unwrap();
        let values = [
            ("0.violation.0", 5e9),
            ("0.violation.1", 1e9),
            ("0.rows.corrected", 2.0),
            ("0.rows.pending", 0.0),
        ];
        told.tell(&values).unwrap();
        let nvml = Some(told.path().to_owned());
        let device = Environment { compute_capability: Some(90), nvml, ..Environment::default() };
        let stage = Stage::start_with(&options, device.clone()).unwrap();
        let library = simgpu::library_dir(simgpu::Runtime::Cuda12).join("libnvidia-ml.so.1");
        let read = Environment { log_dir: Some(stage.folder().to_owned()), ..device }.pairs();
        let start = now();
        let endpoint = victoria.endpoint();
        let mut variables = vec![
            ("GPUSPAN_NVML", library.to_str().unwrap()),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"),
            ("OTEL_METRIC_EXPORT_INTERVAL", INTERVAL),
        ];
        variables.extend(read.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let arguments = [
            "--step-sample",
            "10",
            "--compat",
            "transformers",
            "--device-interval",
            "100ms",
            "--prometheus-listen",
            "127.0.0.1:0",
        ];
        let observe = |pid| Observation::start_with(pid, &arguments, &variables).unwrap();
        let observations = [observe(stage.server.pid()), observe(sglang.child.id())];
        let scraped: Vec<_> = observations.iter().map(|one| one.scraped_at().unwrap()).collect();
        let prometheus = backend(Name::Prometheus).map(|binary| Prometheus::start(&binary, &scraped));
        std::thread::scope(|scope| {
            scope.spawn(|| serve(&stage));
            scope.spawn(|| sglang.load());
        });
        std::thread::sleep(SETTLE);
        let end = now();
        let port = scraped.first().and_then(|address| address.rsplit(':').next()).unwrap();
        let (status, scrape) = ask::get(port.parse().unwrap(), "/metrics").unwrap();
        assert_eq!(status, 200, "{scrape}");
        let reports: Vec<_> = observations.into_iter().map(|one| one.stop().unwrap()).collect();
        let metrics = reports.iter().flat_map(written).collect();
        let traces =
            reports.iter().flat_map(|report| &report.spans).map(|span| span.trace_id.clone()).collect();
        Some(Self { window: (start, end), metrics, traces, scrape, prometheus })
    }
}

/// Twelve seconds of requests, a few of which name a model that there is not.
fn serve(stage: &Stage) {
    let options = |requests, rate| ClientOptions {
        requests,
        rate: Some(rate),
        concurrency: 12,
        stream: StreamMode::Mix,
        ..ClientOptions::new(stage.server.url())
    };
    std::thread::scope(|scope| {
        scope.spawn(|| load(&options(360, 30.0)).unwrap());
        scope.spawn(|| load(&ClientOptions { model: "absent".to_owned(), ..options(12, 1.0) }).unwrap());
    });
}

/// Lines of the file that are metrics.
fn written(report: &Report) -> Vec<Value> {
    let lines = report.otlp.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line.get("resourceMetrics").is_some()).collect()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Three processes that send each other SGLang's messages.
struct Sglang {
    child: Child,
    python: PathBuf,
    port: String,
    _folder: TempDir,
}

impl Sglang {
    fn start() -> Option<Self> {
        let python = environment::interpreter("sglang-wire", PACKAGES)?;
        let folder = TempDir::new().unwrap();
        // The client asks for the model `tiny`, whose shape says what a token takes of the KV cache.
        let model = folder.path().join("tiny");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(model.join("config.json"), SHAPE).unwrap();
        let mut command = Command::new(&python);
        command.arg(program("sglang.py")).arg("--log").arg(folder.path().join("log"));
        command.args(["--max-total-tokens", "4096"]).current_dir(folder.path());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let said: Value = serde_json::from_str(&first).unwrap();
        let server = Self { child, python, port: said["port"].to_string(), _folder: folder };
        server.run("warm");
        Some(server)
    }

    /// As long as the other server's load.
    fn load(&self) {
        let begun = now();
        while now() < begun + 11.0 {
            self.run("mixed");
        }
    }

    fn run(&self, scenario: &str) {
        let mut client = Command::new(&self.python);
        client.arg(program("sglang_client.py")).arg(&self.port).arg(scenario);
        environment::run(&mut client).unwrap();
    }
}

impl Drop for Sglang {
    fn drop(&mut self) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: kill has no pointers, and the child has not been waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let _ = self.child.wait();
    }
}

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../servers").join(name)
}
