//! What goes over HTTP, and what the answers do.

use std::io::Read;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;

use super::server::{Reply, Server, mutual, pki, reply};
use super::*;

fn http(server: &Server) -> Endpoint {
    endpoint(&format!("http://{}/v1/traces", server.address), Protocol::HttpProtobuf)
}

fn spans(n: u8) -> Vec<Batch> {
    vec![Batch::Spans((1..=n).map(span).collect())]
}

#[tokio::test]
async fn spans_arrive_as_protobuf() {
    let server = Server::start(vec![reply(200)]).await;
    let other = Span { resource: resource("sglang"), ..span(3) };
    let batch = Batch::Spans(vec![span(1), other, span(2)]);
    let ledger = export(traces_to(http(&server)), vec![batch]).await;
    let request = &server.received()[0];
    assert_eq!(request.path, "/v1/traces");
    assert_eq!(request.headers["content-type"], "application/x-protobuf");
    assert!(request.headers["user-agent"].starts_with("gpuspan/"));
    let request = ExportTraceServiceRequest::decode(&*request.body).unwrap();
    let per_resource: Vec<_> = request.resource_spans.iter().map(|r| r.scope_spans[0].spans.len()).collect();
    assert_eq!(per_resource, [2, 1]);
    let first = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!(
        (&first.trace_id[..], &first.parent_span_id[..], first.flags),
        (&[1; 16][..], &[9; 8][..], 0x301)
    );
    assert_eq!((first.links[0].flags, first.dropped_links_count, first.kind), (0x101, 3, 2));
    assert_eq!(ledger.otlp.traces.tally().exported, 3);
}

#[tokio::test]
async fn metrics_arrive_with_exemplars_and_start_times() {
    let server = Server::start(vec![reply(200)]).await;
    let settings = Settings { metrics: Some(http(&server)), ..settings() };
    let ledger = export(settings, vec![Batch::Metrics(snapshot())]).await;
    let request = ExportMetricsServiceRequest::decode(&*server.received()[0].body).unwrap();
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    assert_eq!(
        metrics.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(),
        ["gpu.cuda.kernel.launch.calls", "gen_ai.server.time_to_first_token"]
    );
    let Some(opentelemetry_proto::tonic::metrics::v1::metric::Data::Histogram(data)) = &metrics[1].data
    else {
        panic!("{metrics:?}")
    };
    let point = &data.data_points[0];
    assert_eq!(point.start_time_unix_nano, 1_700_000_000_000_000_000);
    assert_eq!(point.exemplars[0].trace_id, [1; 16]);
    assert_eq!((point.bucket_counts.len(), point.bucket_counts[8]), (17, 1));
    assert_eq!(ledger.otlp.metrics.tally().exported, 2);
}

#[tokio::test]
async fn gzip_and_headers() {
    let server = Server::start(vec![reply(200)]).await;
    let header = ("x-tenant".parse().unwrap(), "a,b".parse().unwrap());
    let to = Endpoint { gzip: true, headers: Headers(vec![header]), ..http(&server) };
    export(traces_to(to), spans(1)).await;
    let request = &server.received()[0];
    assert_eq!((&*request.headers["x-tenant"], &*request.headers["content-encoding"]), ("a,b", "gzip"));
    let mut body = Vec::new();
    flate2::read::GzDecoder::new(&*request.body).read_to_end(&mut body).unwrap();
    assert_eq!(ExportTraceServiceRequest::decode(&*body).unwrap().resource_spans.len(), 1);
}

#[tokio::test]
async fn json() {
    let partial = br#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"no"}}"#.to_vec();
    let server = Server::start(vec![Reply { body: partial, ..reply(200) }]).await;
    let to = Endpoint { protocol: Protocol::HttpJson, ..http(&server) };
    let ledger = export(traces_to(to), spans(2)).await;
    let request = &server.received()[0];
    assert_eq!(request.headers["content-type"], "application/json");
    let json: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(json["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"], "01".repeat(16));
    assert_eq!(ledger.otlp.traces.tally().dropped, [("refused", 1)]);
}

#[tokio::test]
async fn some_answers_are_worth_another_attempt() {
    for status in [429, 502, 503, 504] {
        let server = Server::start(vec![reply(status), reply(status), reply(200)]).await;
        let tally = export(traces_to(http(&server)), spans(3)).await.otlp.traces.tally();
        assert_eq!((tally.exported, tally.failures, server.received().len()), (3, 2, 3), "{status}");
        let received = server.received();
        assert_eq!(received[0].body, received[2].body);
    }
}

#[tokio::test]
async fn other_answers_are_not() {
    for status in [301, 400, 401, 404, 413, 500, 501] {
        let server = Server::start(vec![reply(status), reply(200)]).await;
        let tally = export(traces_to(http(&server)), spans(3)).await.otlp.traces.tally();
        assert_eq!((tally.dropped, server.received().len()), (vec![("refused", 3)], 1), "{status}");
    }
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let server = Server::start(vec![Reply { headers: "retry-after: 1\r\n", ..reply(503) }, reply(200)]).await;
    let mut settings = traces_to(http(&server));
    settings.retry.patience = Duration::from_secs(5);
    assert_eq!(export(settings, spans(1)).await.otlp.traces.tally().exported, 1);
    let received = server.received();
    assert!(received[1].at - received[0].at >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_retry_after_beyond_our_patience_is_a_loss() {
    let server = Server::start(vec![Reply { headers: "retry-after: 3600\r\n", ..reply(503) }]).await;
    let tally = export(traces_to(http(&server)), spans(2)).await.otlp.traces.tally();
    assert_eq!((tally.dropped, server.received().len()), (vec![("unreachable", 2)], 1));
}

#[tokio::test]
async fn a_partial_success_is_counted_and_not_sent_again() {
    let partial = ExportTracePartialSuccess { rejected_spans: 2, error_message: "too old".to_owned() };
    let body = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    let server = Server::start(vec![Reply { body, ..reply(200) }]).await;
    let tally = export(traces_to(http(&server)), spans(5)).await.otlp.traces.tally();
    assert_eq!((tally.exported, tally.dropped, server.received().len()), (3, vec![("refused", 2)], 1));
}

#[tokio::test]
async fn tls_with_certificates_on_both_sides() {
    let pki = pki();
    let server = Server::start_with(vec![reply(200)], Some(mutual(&pki))).await;
    let ca = temporary("http-ca.pem", &pki.authority);
    let certificate = temporary("http-cert.pem", &pki.client.0);
    let key = temporary("http-key.pem", &pki.client.1);
    let to =
        |tls| Endpoint { tls, ..endpoint(&format!("https://{}", server.address), Protocol::HttpProtobuf) };
    let both =
        Tls { certificate: Some(ca.clone()), client_key: Some(key), client_certificate: Some(certificate) };
    assert_eq!(export(traces_to(to(both)), spans(1)).await.otlp.traces.tally().exported, 1);
    for tls in [Tls { certificate: Some(ca), ..Tls::default() }, Tls::default()] {
        let tally = export(traces_to(to(tls)), spans(1)).await.otlp.traces.tally();
        assert_eq!(tally.dropped, [("unreachable", 1)]);
    }
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn tls_files_are_checked_at_the_start() {
    let wrong = temporary("wrong.pem", "not PEM");
    for (protocol, path, expected) in [
        (Protocol::HttpProtobuf, wrong.clone(), "no usable PEM certificate"),
        (Protocol::Grpc, wrong, "no usable PEM certificate"),
        (Protocol::Grpc, "/nonexistent.pem".into(), "cannot read /nonexistent.pem"),
    ] {
        let tls = Tls { certificate: Some(path), ..Tls::default() };
        let to = Endpoint { tls, ..endpoint("https://localhost:1", protocol) };
        let error = Exporter::open(traces_to(to)).await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(expected), "{source}");
    }
}
