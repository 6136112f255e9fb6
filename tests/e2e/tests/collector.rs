//! What a real OpenTelemetry Collector understands of what the exporters send. The collector decodes it and passes it
//! on as OTLP/JSON, in its own words, which are compared field by field. Built by `cargo xtask collector`.
//!
//! Absent: failing endpoints, TLS and retries, which the exporters' own tests check.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends at its first surprise")]

#[path = "collector/run.rs"]
mod run;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use profiler::export::{Batch, Exporter, Flags, Ledger, Settings, queue};
use profiler::metric::catalog::{self, attribute as name};
use profiler::metric::{Context, Registry, Snapshot};
use profiler::span::model::{Event, Kind, Link, Resource, Span, Status, Value};
use serde_json::{Value as Json, json};

const START_NS: u64 = 1_700_000_000_000_000_000;
const NOW_NS: u64 = START_NS + 60_000_000_000;
const PROTOCOLS: [&str; 3] = ["grpc", "http/protobuf", "http/json"];

#[test]
fn a_collector_understands_everything() {
    let Some(binary) = binary() else {
        println!("skipped: no collector; build one with `cargo xtask collector`, or set GPUSPAN_OTELCOL");
        return;
    };
    let collector = Collector::start(&binary);
    for protocol in PROTOCOLS {
        for compression in ["none", "gzip"] {
            println!("{protocol}, {compression}");
            let exported = export(collector.environment(protocol, compression));
            assert_eq!(exported, (3, 9));
            check_traces(&collector.take("/v1/traces"));
            check_metrics(&collector.take("/v1/metrics"));
        }
    }
}

/// Exports as the pipeline does, and returns how many spans and points the collector took.
fn export(environment: Vec<(&'static str, String)>) -> (u64, u64) {
    let variable =
        |key: &str| environment.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone());
    let settings = Settings::resolve(&Flags::default(), variable).unwrap();
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    let ledger = Ledger::default();
    let (sender, receiver) = queue(&settings, &ledger);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let exporter = Exporter::open(settings).await.unwrap();
        sender.offer(Batch::Spans(spans()));
        sender.offer(Batch::Metrics(snapshot()));
        exporter.run(receiver, std::future::ready(())).await;
    });
    let tallies = [ledger.otlp.traces.tally(), ledger.otlp.metrics.tally()];
    assert!(tallies.iter().all(|tally| tally.lost() == 0 && tally.queued == 0), "{tallies:?}");
    (tallies[0].exported, tallies[1].exported)
}

fn target(service: &'static str, pid: i64) -> Arc<Resource> {
    let attributes = vec![
        (name::PROCESS_PID.into(), Value::Int(pid)),
        (name::SERVICE_NAME.into(), Value::Str(service.into())),
    ];
    Arc::new(Resource { attributes })
}

/// A caller's request with a child on one target, and a step of another that links to it.
fn spans() -> Vec<Span> {
    let (server, engine) = (target("vllm", 4121), target("engine", 4122));
    let trace_id = *b"\x4b\xf9\x2f\x35\x77\xb3\x4d\xa6\xa3\xce\x92\x9d\x0e\x0e\x47\x36";
    let request = Span {
        resource: Arc::clone(&server),
        trace_id,
        span_id: [2; 8],
        parent: Some(*b"\x00\xf0\x67\xaa\x0b\xa9\x02\xb7"),
        parent_is_remote: true,
        flags: 3,
        trace_state: "vendor=1".to_owned(),
        name: "POST /v1/chat/completions".into(),
        kind: Kind::Server,
        start_ns: START_NS + 1,
        end_ns: START_NS + 1_500_000_001,
        attributes: vec![
            (name::HTTP_ROUTE, Value::Str("/v1/chat/completions".into())),
            (name::HTTP_RESPONSE_STATUS_CODE, Value::Int(500)),
            (name::GPUSPAN_TIME_TO_FIRST_TOKEN, Value::Double(0.25)),
            (name::GEN_AI_REQUEST_STREAM, Value::Bool(true)),
            (name::GEN_AI_RESPONSE_FINISH_REASONS, Value::Strs(vec!["stop".into(), "length".into()])),
        ],
        dropped_attributes: 1,
        events: vec![Event {
            name: "first token".into(),
            time_ns: START_NS + 250_000_000,
            attributes: vec![(name::GPUSPAN_STEP_INDEX, Value::Int(-7))],
        }],
        dropped_events: 2,
        links: Vec::new(),
        dropped_links: 3,
        status: Status::Error("status 500".into()),
    };
    let child = Span {
        span_id: [3; 8],
        parent: Some([2; 8]),
        parent_is_remote: false,
        flags: 3,
        trace_state: String::new(),
        name: "prefill".into(),
        kind: Kind::Internal,
        status: Status::Unset,
        ..plain(&server, trace_id)
    };
    let link =
        Link { trace_id, span_id: [2; 8], attributes: vec![(name::GPUSPAN_STEP_TOKENS, Value::Int(16))] };
    let step =
        Span { name: "engine step".into(), span_id: [4; 8], links: vec![link], ..plain(&engine, [8; 16]) };
    vec![request, child, step]
}

fn plain(resource: &Arc<Resource>, trace_id: [u8; 16]) -> Span {
    Span {
        resource: Arc::clone(resource),
        trace_id,
        span_id: [0; 8],
        parent: None,
        parent_is_remote: false,
        flags: 0,
        trace_state: String::new(),
        name: "".into(),
        kind: Kind::Internal,
        start_ns: START_NS + 10,
        end_ns: START_NS + 20,
        attributes: Vec::new(),
        dropped_attributes: 0,
        events: Vec::new(),
        dropped_events: 0,
        links: Vec::new(),
        dropped_links: 0,
        status: Status::Unset,
    }
}

/// Every kind of metric, on two targets.
fn snapshot() -> Snapshot {
    let registry = Registry::default();
    let server = registry.target(&target("vllm", 4121), START_NS);
    let model = [(name::GEN_AI_REQUEST_MODEL, Value::Str("m".into()))];
    let context =
        |n: u8| Some(Context { trace_id: [n; 16], span_id: [n; 8], time_ns: START_NS + u64::from(n) });
    server.record(&catalog::GEN_AI_TIME_TO_FIRST_TOKEN, &model, 0.25, context(1));
    server.record(&catalog::GEN_AI_TIME_TO_FIRST_TOKEN, &model, 0.3, context(2));
    server.record(&catalog::GEN_AI_TIME_TO_FIRST_TOKEN, &model, 100.0, None);
    server.up_down(&catalog::HTTP_ACTIVE_REQUESTS, &[], -2);
    let engine = registry.target(&target("engine", 4122), START_NS + 5);
    engine.add(&catalog::CUDA_KERNEL_LAUNCHES, &[], u64::from(u32::MAX) + 1);
    for (kind, bytes) in [("HtoD", 1024), ("DtoH", 64)] {
        let kind = [(name::CUDA_MEMCPY_KIND, Value::Str(kind.into()))];
        engine.add(&catalog::COPIED_BYTES, &kind, bytes);
        engine.record(&catalog::CUDA_COPY_SIZES, &kind, bytes as f64, None);
    }
    let own = registry.target(&target("gpuspan", 1), START_NS);
    own.handle(&catalog::SELF_CPU_TIME, &[]).observe(0.5);
    own.handle(&catalog::SELF_PROBES, &[]).set(31);
    registry.snapshot(NOW_NS)
}

fn check_traces(bodies: &[Json]) {
    let services = by_service(bodies, "resourceSpans");
    let server = &services["vllm"];
    let pid = json!({"key": "process.pid", "value": {"intValue": "4121"}});
    assert_eq!(server["resource"]["attributes"][0], pid);
    assert_eq!(server["scopeSpans"][0]["scope"]["name"], "gpuspan");
    let request = json!({
        "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
        "spanId": "0202020202020202",
        "parentSpanId": "00f067aa0ba902b7",
        "traceState": "vendor=1",
        "flags": 0x303,
        "name": "POST /v1/chat/completions",
        "kind": 2,
        "startTimeUnixNano": "1700000000000000001",
        "endTimeUnixNano": "1700000001500000001",
        "attributes": [
            {"key": "http.route", "value": {"stringValue": "/v1/chat/completions"}},
            {"key": "http.response.status_code", "value": {"intValue": "500"}},
            {"key": "gpuspan.time_to_first_token", "value": {"doubleValue": 0.25}},
            {"key": "gen_ai.request.stream", "value": {"boolValue": true}},
            {"key": "gen_ai.response.finish_reasons",
             "value": {"arrayValue": {"values": [{"stringValue": "stop"}, {"stringValue": "length"}]}}},
        ],
        "droppedAttributesCount": 1,
        "events": [{
            "timeUnixNano": "1700000000250000000",
            "name": "first token",
            "attributes": [{"key": "gpuspan.step.index", "value": {"intValue": "-7"}}],
        }],
        "droppedEventsCount": 2,
        "droppedLinksCount": 3,
        "status": {"message": "status 500", "code": 2},
    });
    let spans = &server["scopeSpans"][0]["spans"];
    assert_eq!(spans[0], request);
    let child = json!({
        "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
        "spanId": "0303030303030303",
        "parentSpanId": "0202020202020202",
        "flags": 0x103,
        "name": "prefill",
        "kind": 1,
        "startTimeUnixNano": "1700000000000000010",
        "endTimeUnixNano": "1700000000000000020",
        "status": {},
    });
    assert_eq!(spans[1], child);
    let link = json!([{
        "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
        "spanId": "0202020202020202",
        "flags": 0x101,
        "attributes": [{"key": "gpuspan.step.tokens", "value": {"intValue": "16"}}],
    }]);
    let step = &services["engine"]["scopeSpans"][0]["spans"][0];
    assert_eq!(step["links"], link);
    assert_eq!(step.get("parentSpanId").and_then(Json::as_str).unwrap_or_default(), "");
}

fn check_metrics(bodies: &[Json]) {
    assert_eq!(bodies.len(), 1, "all resources travel in one request");
    let services = by_service(bodies, "resourceMetrics");
    let vllm = &services["vllm"]["scopeMetrics"][0]["metrics"];
    let first_token = &catalog::GEN_AI_TIME_TO_FIRST_TOKEN.info;
    let expected = json!({
        "name": "gen_ai.server.time_to_first_token",
        "description": first_token.help,
        "unit": "s",
        "histogram": {
            "aggregationTemporality": 2,
            "dataPoints": [{
                "attributes": [{"key": "gen_ai.request.model", "value": {"stringValue": "m"}}],
                "startTimeUnixNano": START_NS.to_string(),
                "timeUnixNano": NOW_NS.to_string(),
                "count": "3",
                "sum": 100.55,
                "min": 0.25,
                "max": 100,
                "bucketCounts": ["0", "0", "0", "0", "0", "0", "0", "0", "1", "1", "0", "0", "0", "0", "0", "0", "1"],
                "explicitBounds": first_token.bounds,
                "exemplars": [exemplar(1, 0.25), exemplar(2, 0.3)],
            }],
        },
    });
    assert_eq!(numbers(vllm[0].clone()), numbers(expected));
    assert_eq!(vllm[1]["unit"], "{request}");
    assert_eq!(vllm[1]["sum"]["dataPoints"][0]["asInt"], "-2");
    assert!(!vllm[1]["sum"].get("isMonotonic").and_then(Json::as_bool).unwrap_or_default());
    let engine = &services["engine"]["scopeMetrics"][0]["metrics"];
    let launches = json!({
        "aggregationTemporality": 2,
        "isMonotonic": true,
        "dataPoints": [{
            "startTimeUnixNano": (START_NS + 5).to_string(),
            "timeUnixNano": NOW_NS.to_string(),
            "asInt": "4294967296",
        }],
    });
    assert_eq!((&engine[0]["name"], &engine[0]["sum"]), (&json!("gpu.cuda.kernel.launch.calls"), &launches));
    assert_eq!(engine[1]["unit"], "By");
    assert_eq!(engine[1]["sum"]["dataPoints"].as_array().unwrap().len(), 2);
    assert_eq!(engine[2]["histogram"]["dataPoints"][1]["attributes"][0]["value"]["stringValue"], "DtoH");
    let own = &services["gpuspan"]["scopeMetrics"][0]["metrics"];
    assert_eq!(own[0]["sum"]["dataPoints"][0]["asDouble"], 0.5);
    assert_eq!(own[1]["sum"]["dataPoints"][0]["asInt"], "31");
}

fn exemplar(n: u8, value: f64) -> Json {
    json!({
        "timeUnixNano": (START_NS + u64::from(n)).to_string(),
        "asDouble": value,
        "traceId": format!("{n:02x}").repeat(16),
        "spanId": format!("{n:02x}").repeat(8),
    })
}

/// The same with every number as a double: JSON writes 100.0 as 100.
fn numbers(json: Json) -> Json {
    match json {
        Json::Number(number) => json!(number.as_f64()),
        Json::Array(items) => items.into_iter().map(numbers).collect(),
        Json::Object(fields) => fields.into_iter().map(|(key, value)| (key, numbers(value))).collect(),
        other => other,
    }
}

/// What each service sent, by its name.
fn by_service(bodies: &[Json], list: &str) -> serde_json::Map<String, Json> {
    let groups = bodies.iter().flat_map(|body| body[list].as_array().unwrap());
    let service = |group: &Json| {
        let attributes = group["resource"]["attributes"].as_array().unwrap();
        let service = attributes.iter().find(|attribute| attribute["key"] == name::SERVICE_NAME).unwrap();
        service["value"]["stringValue"].as_str().unwrap().to_owned()
    };
    groups.map(|group| (service(group), group.clone())).collect()
}

/// The collector that the environment names, or the newest one that `cargo xtask collector` built.
fn binary() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("GPUSPAN_OTELCOL") {
        return Some(path.into());
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let entries = std::fs::read_dir(cache.join("gpuspan/otelcol")).ok()?.flatten();
    let built = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("otelcol-"));
    built.max_by_key(|entry| entry.metadata().and_then(|meta| meta.modified()).ok()).map(|entry| entry.path())
}

type Bodies = Arc<Mutex<Vec<(String, Json)>>>;

/// A running collector that passes everything on to this process.
struct Collector {
    process: Child,
    folder: PathBuf,
    grpc: u16,
    http: u16,
    bodies: Bodies,
}

impl Collector {
    fn start(binary: &Path) -> Self {
        let (back, bodies) = receive();
        let (grpc, http) = (free_port(), free_port());
        let folder = std::env::temp_dir().join(format!("gpuspan-collector-{}-{grpc}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let config = folder.join("config.yaml");
        std::fs::write(&config, configuration(grpc, http, back)).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut command = Command::new(binary);
        command.arg("--config").arg(&config).stdin(Stdio::null());
        let process = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut collector = Self { process, folder, grpc, http, bodies };
        collector.wait();
        collector
    }

    fn wait(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        for port in [self.grpc, self.http] {
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                let ended = self.process.try_wait().unwrap();
                let log = || std::fs::read_to_string(self.folder.join("log")).unwrap();
                assert!(ended.is_none() && Instant::now() < deadline, "{ended:?}: {}", log());
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    fn environment(&self, protocol: &str, compression: &str) -> Vec<(&'static str, String)> {
        let port = if protocol == "grpc" { self.grpc } else { self.http };
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", compression.to_owned()),
        ]
    }

    /// What came back on `path` since the last time. The collector answers a sender only after it passed things on,
    /// so everything is there.
    fn take(&self, path: &str) -> Vec<Json> {
        let mut bodies = self.bodies.lock().unwrap();
        let (taken, kept) = std::mem::take(&mut *bodies).into_iter().partition(|(to, _)| to == path);
        *bodies = kept;
        Vec::into_iter(taken).map(|(_, body)| body).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

fn configuration(grpc: u16, http: u16, back: u16) -> String {
    format!(
        "receivers:
  otlp:
    protocols:
      grpc: {{endpoint: 127.0.0.1:{grpc}}}
      http: {{endpoint: 127.0.0.1:{http}}}
exporters:
  otlp_http:
    endpoint: http://127.0.0.1:{back}
    encoding: json
    compression: none
    sending_queue: {{enabled: false}}
    retry_on_failure: {{enabled: false}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_http]}}
    metrics: {{receivers: [otlp], exporters: [otlp_http]}}
"
    )
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Takes what the collector passes on: the port, and the bodies with their paths.
fn receive() -> (u16, Bodies) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let bodies = Bodies::default();
    let log = Arc::clone(&bodies);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let log = Arc::clone(&log);
            std::thread::spawn(move || serve(BufReader::new(stream), &log));
        }
    });
    (port, bodies)
}

fn serve(mut stream: BufReader<TcpStream>, log: &Mutex<Vec<(String, Json)>>) -> Option<()> {
    loop {
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line| line != "\r\n") {
            let mut line = String::new();
            stream.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
            lines.push(line);
        }
        let path = lines[0].split(' ').nth(1)?.to_owned();
        let length = lines
            .iter()
            .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.trim().parse().ok());
        let mut body = vec![0; length?];
        stream.read_exact(&mut body).ok()?;
        log.lock().unwrap().push((path, serde_json::from_slice(&body).unwrap()));
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
}
