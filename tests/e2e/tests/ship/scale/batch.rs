//! What an agent sends, made of a recording by the real `gpuspan replay`. In: a recording and an identity. Out: OTLP requests
//! as bytes. Absent: any value that the recording has not.

use std::path::{Path, PathBuf};

use e2e::program;
use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use tempfile::TempDir;

/// A recording as OTLP.
#[derive(Clone, Debug)]
pub struct Recorded {
    traces: ExportTraceServiceRequest,
    metrics: ExportMetricsServiceRequest,
    pub spans: u64,
    pub requests: u64,
    pub points: u64,
}

/// Where a kept recording lies.
pub fn recording(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/recordings/{name}.gpuspan"))
}

impl Recorded {
    /// What a replay exports.
    pub fn replay(name: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("otlp.jsonl");
        let mut command = program::command().unwrap();
        command.args(["replay", "--output", "none", "--otlp-file"]).arg(&file).arg(recording(name));
        let ended = program::run_command(&mut command).unwrap();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        Self::read(&std::fs::read_to_string(&file).unwrap())
    }

    /// What an observation wrote to its file.
    pub fn read(file: &str) -> Self {
        let mut traces = ExportTraceServiceRequest::default();
        let mut metrics = ExportMetricsServiceRequest::default();
        for line in file.lines() {
            if line.starts_with("{\"resourceSpans\"") {
                let part: ExportTraceServiceRequest = serde_json::from_str(line).unwrap();
                traces.resource_spans.extend(part.resource_spans);
            } else {
                // Each has everything; the last is the newest.
                metrics = serde_json::from_str(line).unwrap();
            }
        }
        let (spans, requests) = spans(&mut traces).fold((0, 0), |(all, requests), span| {
            (all + 1, requests + u64::from(span.kind == SpanKind::Server as i32))
        });
        let points = points(&metrics);
        assert!(
            spans > 0 && requests > 0 && points > 0,
            "{spans} spans, {requests} requests, {points} points"
        );
        Self { traces, metrics, spans, requests, points }
    }

    /// A line for docs/scale.md.
    pub fn figures(&self) -> String {
        let (traces, metrics) = (self.traces.encode_to_vec(), self.metrics.encode_to_vec());
        format!(
            "{} requests, {:.1} spans a request, {:.0} bytes a request ({:.0} by gzip); {} points, {:.0} bytes a point ({:.0} by gzip)",
            self.requests,
            self.spans as f64 / self.requests as f64,
            traces.len() as f64 / self.requests as f64,
            gzip(&traces) as f64 / self.requests as f64,
            self.points,
            metrics.len() as f64 / self.points as f64,
            gzip(&metrics) as f64 / self.points as f64,
        )
    }

    /// Its traces as of another agent and time: `salt` is never the same twice.
    pub fn traces_of(&self, host: &str, salt: u64) -> Vec<u8> {
        let mut traces = self.traces.clone();
        for resource in &mut traces.resource_spans {
            identify(resource.resource.get_or_insert_default(), host);
        }
        for span in spans(&mut traces) {
            // The id's random end stays random; links and parents follow.
            let links = span.links.iter_mut().flat_map(|link| [&mut link.trace_id, &mut link.span_id]);
            for id in
                [&mut span.trace_id, &mut span.span_id, &mut span.parent_span_id].into_iter().chain(links)
            {
                id.iter_mut().zip(salt.to_be_bytes()).for_each(|(byte, salt)| *byte ^= salt);
            }
        }
        traces.encode_to_vec()
    }

    /// Its metrics as of another agent and time.
    pub fn metrics_of(&self, host: &str, later_ns: u64) -> Vec<u8> {
        let mut metrics = self.metrics.clone();
        for resource in &mut metrics.resource_metrics {
            identify(resource.resource.get_or_insert_default(), host);
            let all = resource.scope_metrics.iter_mut().flat_map(|scope| &mut scope.metrics);
            for data in all.filter_map(|metric| metric.data.as_mut()) {
                for time in times(data) {
                    *time += later_ns;
                }
            }
        }
        metrics.encode_to_vec()
    }
}

fn spans(traces: &mut ExportTraceServiceRequest) -> impl Iterator<Item = &mut Span> {
    let scopes = traces.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans);
    scopes.flat_map(|scope| &mut scope.spans)
}

fn points(metrics: &ExportMetricsServiceRequest) -> u64 {
    let scopes = metrics.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    let data = scopes.flat_map(|scope| &scope.metrics).filter_map(|metric| metric.data.clone());
    data.map(|mut data| times(&mut data).len() as u64).sum()
}

/// When each point was taken.
fn times(data: &mut Data) -> Vec<&mut u64> {
    match data {
        Data::Gauge(gauge) => gauge.data_points.iter_mut().map(|point| &mut point.time_unix_nano).collect(),
        Data::Sum(sum) => sum.data_points.iter_mut().map(|point| &mut point.time_unix_nano).collect(),
        Data::Histogram(all) => all.data_points.iter_mut().map(|point| &mut point.time_unix_nano).collect(),
        Data::ExponentialHistogram(all) => {
            all.data_points.iter_mut().map(|point| &mut point.time_unix_nano).collect()
        }
        Data::Summary(all) => all.data_points.iter_mut().map(|point| &mut point.time_unix_nano).collect(),
    }
}

fn identify(resource: &mut Resource, host: &str) {
    for (key, value) in [("host.name", host.to_owned()), ("service.instance.id", format!("{host}:8000"))] {
        let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value)) });
        match resource.attributes.iter_mut().find(|attribute| attribute.key == key) {
            Some(attribute) => attribute.value = value,
            None => resource.attributes.push(KeyValue { key: key.to_owned(), value, ..KeyValue::default() }),
        }
    }
}

fn gzip(bytes: &[u8]) -> usize {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap().len()
}
