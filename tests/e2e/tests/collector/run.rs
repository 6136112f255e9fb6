//! A run of the workload server, sent to a collector and written to a file at once: both have the same spans and metrics.

use std::collections::{BTreeMap, BTreeSet};

use e2e::metrics::Point;
use e2e::{Metrics, Observation, Span, Stage, or_skip, otlp};
use serde_json::Value;
use workload::{ClientOptions, ServerOptions, load};

use super::{Collector, binary};

#[test]
fn a_collector_takes_a_run() {
    or_skip!();
    let Some(binary) = binary() else {
        println!("skipped: no collector; build one with `cargo xtask collector`, or set GPUSPAN_OTELCOL");
        return;
    };
    let collector = Collector::start(&binary);
    for (protocol, histograms) in
        [("grpc", "explicit_bucket_histogram"), ("http/protobuf", "base2_exponential_bucket_histogram")]
    {
        println!("{protocol}, {histograms}");
        check(&collector, protocol, histograms);
    }
}

fn check(collector: &Collector, protocol: &'static str, histograms: &str) {
    let stage = Stage::start(&ServerOptions { kernel_ns: 2_000, ..ServerOptions::default() }).unwrap();
    let endpoint = collector.environment(protocol, "gzip").remove(0).1;
    let variables = [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", histograms),
    ];
    let arguments = ["--step-sample", "1", "--otlp-endpoint", &endpoint];
    let observation = Observation::start_with(stage.server.pid(), &arguments, &variables).unwrap();
    let client = ClientOptions { requests: 24, ..ClientOptions::new(stage.server.url()) };
    let records = load(&client).unwrap();
    let report = observation.stop().unwrap();
    metrics_arrive(collector, &report.otlp, histograms);
    let bodies = collector.take("/v1/traces");
    let taken = by_id(bodies.iter().flat_map(|body| otlp::of_request(body).unwrap()));
    let written = by_id(report.spans);
    assert_eq!(taken.keys().collect::<Vec<_>>(), written.keys().collect::<Vec<_>>());
    for (id, span) in &taken {
        assert_eq!(Fields::of(span), Fields::of(&written[id]));
    }
    assert_eq!(taken.values().filter(|span| span.is_server()).count(), records.len());
    assert!(taken.values().any(|span| span.bool("aggregation.is_summary") == Some(true)));
    assert!(taken.values().any(|span| span.name == "engine step" && !span.links.is_empty()));
}

/// Every point with its resource, value and exemplars, which lead to traces that arrive, too.
fn metrics_arrive(collector: &Collector, written: &str, histograms: &str) {
    let bodies = collector.take("/v1/metrics");
    let lines: Vec<String> = bodies.iter().map(Value::to_string).collect();
    let sorted = |text: &str| {
        let mut points = Metrics::last(text).unwrap().0;
        points.sort_by_key(|point| format!("{} {:?} {:?}", point.name, point.attributes, point.resource));
        points
    };
    let (taken, written_points) = (sorted(&lines.join("\n")), sorted(written));
    // gpuspan's account of its exports goes on while it exports.
    let is_still = |point: &&Point| !point.name.starts_with("gpuspan.self.export.");
    let still = |points: &[Point]| points.iter().filter(is_still).cloned().collect::<Vec<_>>();
    assert_eq!(still(&taken), still(&written_points));
    assert!(taken.len() > 100, "{} points", taken.len());
    let durations: Vec<_> = taken.iter().filter(|point| point.name.ends_with(".duration")).collect();
    let has_bounds = durations.iter().all(|point| !point.bounds.is_empty());
    assert_eq!(has_bounds, histograms == "explicit_bucket_histogram");
    let spans: BTreeSet<String> = written_traces(written);
    let led: Vec<&String> = taken.iter().flat_map(|point| &point.traces).collect();
    assert!(!led.is_empty() && led.iter().all(|trace| spans.contains(*trace)), "{led:?}");
}

fn written_traces(otlp: &str) -> BTreeSet<String> {
    let requests = otlp.lines().filter(|line| line.contains("resourceSpans"));
    let spans = requests.flat_map(|line| otlp::of_request(&serde_json::from_str(line).unwrap()).unwrap());
    spans.map(|span| span.trace_id).collect()
}

fn by_id(spans: impl IntoIterator<Item = Span>) -> BTreeMap<String, Span> {
    spans.into_iter().map(|span| (span.span_id.clone(), span)).collect()
}

/// What must be the same.
#[derive(Debug, PartialEq)]
struct Fields<'a> {
    place: (&'a str, &'a str, &'a str, u64, u64),
    time_ns: (u64, u64),
    attributes: &'a BTreeMap<String, Value>,
    resource: &'a BTreeMap<String, Value>,
    links: Vec<(&'a str, &'a str, &'a BTreeMap<String, Value>)>,
    dropped_links: u64,
    events: (u64, Option<u64>),
}

impl<'a> Fields<'a> {
    fn of(span: &'a Span) -> Self {
        let link = |link: &'a otlp::Link| (link.trace_id.as_str(), link.span_id.as_str(), &link.attributes);
        Self {
            place: (&span.trace_id, &span.parent, &span.name, span.kind, span.flags),
            time_ns: (span.start_ns, span.end_ns),
            attributes: &span.attributes,
            resource: &span.resource,
            links: span.links.iter().map(link).collect(),
            dropped_links: span.dropped_links,
            events: (span.events, span.first_event_ns),
        }
    }
}
