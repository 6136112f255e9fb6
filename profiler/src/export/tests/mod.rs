//! The exporters against small servers of the tests' own. What a real collector makes of it is checked in `tests/e2e`.

mod file;
mod grpc;
mod http;
mod loss;
mod server;
mod settings;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::metric::catalog::{
    CUDA_KERNEL_LAUNCHES, GEN_AI_TIME_TO_FIRST_TOKEN, attribute::GEN_AI_REQUEST_MODEL,
};
use crate::metric::{Context, Registry, Snapshot};
use crate::span::model::{Event, Kind, Link, Resource, Span, Status, Value};

fn resource(name: &'static str) -> Arc<Resource> {
    Arc::new(Resource { attributes: vec![("service.name".into(), Value::Str(name.into()))] })
}

fn span(n: u8) -> Span {
    Span {
        resource: resource("vllm"),
        trace_id: [n; 16],
        span_id: [n; 8],
        parent: Some([9; 8]),
        parent_is_remote: true,
        flags: 1,
        trace_state: "a=b".to_owned(),
        name: "POST /v1/completions".into(),
        kind: Kind::Server,
        start_ns: 1_700_000_000_000_000_001,
        end_ns: 1_700_000_001_000_000_002,
        attributes: vec![
            ("url.path", Value::Str("/v1/completions".into())),
            ("server.port", Value::Int(8000)),
            ("gpuspan.time_to_first_token", Value::Double(0.25)),
            ("gen_ai.request.stream", Value::Bool(true)),
            ("gen_ai.response.finish_reasons", Value::Strs(vec!["stop".to_owned()])),
        ],
        dropped_attributes: 1,
        events: vec![Event {
            name: "first token".into(),
            time_ns: 1_700_000_000_250_000_000,
            attributes: vec![],
        }],
        dropped_events: 2,
        links: vec![Link { trace_id: [7; 16], span_id: [8; 8], attributes: vec![] }],
        dropped_links: 3,
        status: Status::Error("500".into()),
    }
}

fn snapshot() -> Snapshot {
    let registry = Registry::default();
    let target = registry.target(&resource("vllm"), 1_700_000_000_000_000_000);
    target.add(&CUDA_KERNEL_LAUNCHES, &[], 42);
    let model = [(GEN_AI_REQUEST_MODEL, Value::Str("m".into()))];
    let context = Context { trace_id: [1; 16], span_id: [2; 8], time_ns: 1_700_000_000_500_000_000 };
    target.record(&GEN_AI_TIME_TO_FIRST_TOKEN, &model, 0.25, Some(context));
    registry.snapshot(1_700_000_060_000_000_000)
}

fn endpoint(url: &str, protocol: Protocol) -> Endpoint {
    Endpoint {
        url: url.parse().unwrap(),
        protocol,
        headers: Headers::default(),
        timeout: Duration::from_secs(5),
        gzip: false,
        tls: Tls::default(),
    }
}

/// Impatient, so that failures take no time.
fn settings() -> Settings {
    let mut settings = Settings::resolve(&Flags::default(), |_| None).unwrap();
    settings.retry = Policy {
        initial: Duration::from_millis(20),
        longest: Duration::from_millis(50),
        patience: Duration::from_millis(300),
    };
    settings
}

fn traces_to(endpoint: Endpoint) -> Settings {
    Settings { traces: Some(endpoint), ..settings() }
}

/// Exports `batches` until done or given up, and returns the accounts.
async fn export(settings: Settings, batches: Vec<Batch>) -> Ledger {
    let ledger = Ledger::default();
    let (sender, receiver) = queue(&settings, &ledger);
    let exporter = Exporter::open(settings).await.unwrap();
    batches.into_iter().for_each(|batch| sender.offer(batch));
    drop(sender);
    exporter.run(receiver, std::future::pending()).await;
    assert_balanced(&ledger);
    ledger
}

/// The loss equation, with nothing left in a queue.
fn assert_balanced(ledger: &Ledger) {
    for (destination, signal, account) in ledger.accounts() {
        let tally = account.tally();
        assert_eq!(tally.produced, tally.exported + tally.lost(), "{destination} {signal:?}: {tally:?}");
        assert_eq!(tally.queued, 0, "{destination} {signal:?}: {tally:?}");
    }
}

fn temporary(name: &str, content: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("gpuspan-export-{}-{name}", std::process::id()));
    std::fs::write(&path, content).unwrap();
    path
}
