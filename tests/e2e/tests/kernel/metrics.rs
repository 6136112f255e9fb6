//! Metrics: what they add up to is what the client, the server and the summary say.

use std::collections::BTreeMap;

use e2e::stage::since;
use e2e::{Metrics, Observation, Stage, or_skip};
use serde_json::json;
use tempfile::TempDir;
use workload::client::StreamMode;
use workload::{ClientOptions, ServerOptions, load};

use crate::checks::{Observed, client, nothing_lost, observe, options};

const PARTS: [&str; 8] =
    ["front_end", "queue", "prefill", "decode", "blocked_by_prefill", "preempted", "cpu_gap", "unknown"];

/// Both read the clock on a machine that does other things.
const TOLERANCE_S: f64 = 0.03;

/// A model whose folder says how large it is: 2 layers × 2 × 4 heads × 16 numbers × 2 bytes.
fn model() -> TempDir {
    let folder = TempDir::new().unwrap();
    let config =
        json!({"num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16, "dtype": "float16"});
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

const TOKEN_BYTES: f64 = 512.0;

fn loads(folder: &TempDir, stream: StreamMode) -> (ServerOptions, ClientOptions) {
    let model = folder.path().to_str().unwrap().to_owned();
    // Long enough for several looks at what is under way, and for one at the model.
    let server = ServerOptions { model: model.clone(), kernel_ns: 200_000, ..options() };
    (server, ClientOptions { model, stream, ..client(6, 120) })
}

fn observe_model(folder: &TempDir, stream: StreamMode, arguments: &[&str]) -> (Observed, Metrics) {
    let (server, client) = loads(folder, stream);
    let observed = observe(server, client, arguments);
    nothing_lost(&observed.report.summary);
    let metrics = Metrics::last(&observed.report.otlp).unwrap();
    (observed, metrics)
}

#[test]
fn sums_are_those_of_requests_and_steps() {
    or_skip!();
    let folder = model();
    let (observed, metrics) = observe_model(&folder, StreamMode::True, &[]);
    let model = folder.path().to_str().unwrap();
    let summary = &observed.report.summary;
    let requests = observed.records.len() as u64;

    let seconds = |ns: u64| ns as f64 / 1e9;
    let latencies: Vec<f64> =
        observed.records.iter().map(|record| seconds(record.end_ns - record.sent_ns)).collect();
    metrics.has_values("gen_ai.server.request.duration", &latencies, TOLERANCE_S).unwrap();
    metrics.has_values("http.server.request.duration", &latencies, TOLERANCE_S).unwrap();
    let first = |record: &workload::ClientRecord| seconds(record.first_delta_ns.unwrap() - record.sent_ns);
    let ttfts: Vec<f64> = observed.records.iter().map(first).collect();
    metrics.has_values("gen_ai.server.time_to_first_token", &ttfts, TOLERANCE_S).unwrap();
    let tokens = |kind| metrics.sum("gen_ai.client.token.usage", &[("gen_ai.token.type", kind)]);
    assert_eq!(tokens("input") as u64, summary.requests.input_tokens);
    assert_eq!(tokens("output") as u64, summary.requests.output_tokens);

    let part = |part: &str| {
        let of = [("gpuspan.part", part), ("gen_ai.request.model", model)];
        assert_eq!(metrics.count("gpuspan.request.part.duration", &of), requests, "{part}");
        metrics.sum("gpuspan.request.part.duration", &of)
    };
    let parts: f64 = PARTS.iter().map(|name| part(name)).sum();
    let all = metrics.sum("gen_ai.server.request.duration", &[]);
    assert!((parts - all).abs() < 1e-6 * all, "{parts} s of parts in {all} s");

    // GPU time is told three times: by requests, by what it was for, and by kernel.
    let busy = |part| metrics.sum("gpuspan.gpu.busy.time", &[("gpuspan.part", part)]);
    let steps = seconds(summary.steps.gpu_ns.estimated);
    let whole = busy("prefill") + busy("decode") + busy("unattributed");
    assert!(steps > 0.0 && (whole - steps).abs() < 1e-6 * steps, "{whole} s of {steps} s");
    assert!((busy("unattributed") - seconds(summary.steps.unattributed_ns)).abs() < 1e-6);
    let of_requests = metrics.sum("gpuspan.request.gpu.time", &[("gen_ai.request.model", model)]);
    let attributed = busy("prefill") + busy("decode");
    assert!((of_requests - attributed).abs() < 1e-6 * whole, "{of_requests} s of {attributed} s");
    let kernels = metrics.sum("gpuspan.kernel.gpu.time", &[]);
    assert!((kernels - whole).abs() < 1e-6 * whole, "{kernels} s by kernel");
    let idle: BTreeMap<_, _> = ["no_request", "cpu_late", "launch_bound"]
        .map(|reason| (reason, metrics.sum("gpuspan.gpu.idle.time", &[("gpuspan.idle.reason", reason)])))
        .into();
    let window: f64 = idle.values().sum::<f64>() + whole;
    assert!(window > 0.1 && idle["launch_bound"] > 0.0, "{idle:?}");

    let iterations = metrics.count("gpuspan.engine.step.duration", &[]);
    assert!(iterations > 0 && iterations == metrics.count("gpuspan.engine.step.members", &[]));
    let fill = [("gpuspan.capacity", "largest_seen")];
    assert_eq!(metrics.count("gpuspan.engine.batch.fill", &fill), iterations);
    let fullest = metrics.of("gpuspan.engine.batch.fill", &fill).next().unwrap();
    assert_eq!(fullest.buckets.last(), Some(&0), "no batch is more than full");
    // Each token but the first of an answer was made of the one before; the riders are inferred.
    let made = (summary.requests.output_tokens - requests) as f64;
    let processed = metrics.sum("gpuspan.engine.tokens.processed", &[("gpuspan.part", "decode")]);
    assert!((processed / made - 1.0).abs() < 0.05, "{processed} tokens of {made}");
    let prompts = metrics.sum("gpuspan.engine.tokens.processed", &[("gpuspan.part", "prefill")]);
    assert!((prompts / tokens("input") - 1.0).abs() < 0.1, "{prompts} tokens of {}", tokens("input"));

    // At the end nothing is under way.
    for name in ["gpuspan.engine.requests.running", "gpuspan.engine.requests.waiting"] {
        let points: Vec<_> = metrics.of(name, &[("gpuspan.evidence", "E2")]).collect();
        assert_eq!(points.iter().map(|point| point.value).collect::<Vec<_>>(), [0.0], "{name}");
    }
    let used = metrics.of("gpuspan.engine.kv_cache.memory", &[("gpuspan.kv_cache.state", "used")]);
    assert_eq!(used.map(|point| point.value).collect::<Vec<_>>(), [0.0]);
    assert_eq!(metrics.of("ttft_milliseconds", &[]).count(), 0, "nobody asked for it");
}

#[test]
fn processes_and_gpuspan_itself() {
    or_skip!();
    let observed = observe(options(), client(4, 16), &[]);
    let metrics = Metrics::last(&observed.report.otlp).unwrap();
    let pid = observed.stage.server.pid().to_string();
    for name in [
        "process.memory.usage",
        "process.thread.count",
        "process.uptime",
        "process.unix.file_descriptor.count",
    ] {
        let point = metrics.of(name, &[]).next().unwrap_or_else(|| panic!("{name}"));
        assert!(point.value > 0.0 && point.resource.get("process.pid") == Some(&pid), "{point:?}");
    }
    assert!(metrics.sum("process.cpu.time", &[]) > 0.0);
    let received = metrics.sum("gpuspan.self.records.received", &[]);
    assert_eq!(received as u64, observed.report.summary.loss.receive.received);
    assert!(metrics.sum("gpuspan.self.cpu.time", &[]) > 0.0);
    assert!(metrics.sum("gpuspan.self.memory.usage", &[]) > 1e6);
    let tables = metrics.of("gpuspan.self.beyond", &[]).count();
    assert!(tables > 10 && metrics.sum("gpuspan.self.beyond", &[]) == 0.0, "{tables} tables");
    let memory = metrics.sum("gpuspan.memory.live", &[]);
    assert_eq!(
        metrics.sum("gpu.cuda.memory.allocations", &[]) - metrics.sum("gpu.cuda.memory.free.bytes", &[]),
        memory
    );
}

/// Bounds and units are the catalogue's; the values are the client's.
#[test]
fn under_the_names_of_transformers() {
    or_skip!();
    let folder = model();
    let arguments = ["--compat", "transformers"];
    let (observed, metrics) = observe_model_meanwhile(&folder, StreamMode::True, &arguments);
    let requests = observed.records.len() as u64;
    let ms = |ns: u64| ns as f64 / 1e6;
    let ttfts: Vec<f64> =
        observed.records.iter().map(|record| ms(record.first_delta_ns.unwrap() - record.sent_ns)).collect();
    let latencies: Vec<f64> =
        observed.records.iter().map(|record| ms(record.end_ns - record.sent_ns)).collect();
    let last = metrics.last().unwrap();
    // Once a request, and not once a token as the original.
    last.has_values("ttft_milliseconds", &ttfts, 1e3 * TOLERANCE_S).unwrap();
    last.has_values("request_latency_milliseconds", &latencies, 1e3 * TOLERANCE_S).unwrap();
    assert_eq!(last.count("ttft_milliseconds", &[]), requests);
    for (theirs, part) in [("prefill_tokens_processed", "prefill"), ("decode_tokens_processed", "decode")] {
        let ours = last.sum("gpuspan.engine.tokens.processed", &[("gpuspan.part", part)]);
        assert!(ours > 0.0 && last.sum(theirs, &[]) == ours, "{theirs}");
    }
    let fill = last.of("batch_fill_percentage", &[]).next().unwrap();
    assert_eq!((fill.count, fill.unit.as_str()), (last.count("gpuspan.engine.batch.fill", &[]), "percent"));
    assert!(last.sum("decode_prefill_ratio", &[]) >= 0.0);
    // While they ran some were active, and held what their tokens take.
    let most = |name: &str| metrics.iter().map(|at| at.sum(name, &[])).fold(0.0, f64::max);
    let active = most("active_requests_count");
    assert!((1.0..=6.0).contains(&active), "{active} active requests");
    assert!(most("waiting_requests_count") <= 6.0);
    let used = most("kv_cache_memory_bytes");
    assert!(used > 0.0 && used % TOKEN_BYTES == 0.0 && used <= 6.0 * 4096.0 * TOKEN_BYTES, "{used} bytes");
}

/// The same with all snapshots that were told meanwhile.
fn observe_model_meanwhile(
    folder: &TempDir,
    stream: StreamMode,
    arguments: &[&str],
) -> (Observed, Vec<Metrics>) {
    let (server, client) = loads(folder, stream);
    let stage = Stage::start(&server).unwrap();
    let client = ClientOptions { url: stage.server.url(), ..client };
    let often = [("OTEL_METRIC_EXPORT_INTERVAL", "100")];
    let observation = Observation::start_with(stage.server.pid(), arguments, &often).unwrap();
    let before = stage.device().unwrap();
    let records = load(&client).unwrap();
    let device = since(&before, &stage.device().unwrap());
    let report = observation.stop().unwrap();
    nothing_lost(&report.summary);
    let observed = Observed { options: server, client, records, report, device, stage };
    let all = Metrics::all(&observed.report.otlp).unwrap();
    assert!(all.len() > 2, "{} snapshots", all.len());
    (observed, all)
}
