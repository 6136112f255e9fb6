//! What goes over gRPC, and what the answers do.

use std::sync::Mutex;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::server::{Pki, pki};
use super::*;

type Result<T> = std::result::Result<T, Status>;

/// Records requests and answers from a script, whose last line repeats.
struct Script {
    answers: Vec<Result<ExportTraceServiceResponse>>,
    received: Mutex<Vec<Request<ExportTraceServiceRequest>>>,
}

struct Service(Arc<Script>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>> {
        let mut received = self.0.received.lock().unwrap();
        received.push(request);
        let answers = &self.0.answers;
        answers[(received.len() - 1).min(answers.len() - 1)].clone().map(Response::new)
    }
}

async fn start(answers: Vec<Result<ExportTraceServiceResponse>>, tls: Option<&Pki>) -> (Arc<Script>, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = Arc::new(Script { answers, received: Mutex::default() });
    let service = TraceServiceServer::new(Service(Arc::clone(&script)));
    let service = service.accept_compressed(CompressionEncoding::Gzip);
    let mut server = tonic::transport::Server::builder();
    if let Some(pki) = tls {
        let config = ServerTlsConfig::new().identity(Identity::from_pem(&pki.server.0, &pki.server.1));
        server = server.tls_config(config.client_ca_root(Certificate::from_pem(&pki.authority))).unwrap();
    }
    tokio::spawn(server.add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    (script, format!("localhost:{port}"))
}

fn accepted() -> Result<ExportTraceServiceResponse> {
    Ok(ExportTraceServiceResponse::default())
}

fn spans(n: u8) -> Vec<Batch> {
    vec![Batch::Spans((1..=n).map(span).collect())]
}

fn grpc(address: &str) -> Endpoint {
    endpoint(&format!("http://{address}"), Protocol::Grpc)
}

#[tokio::test]
async fn spans_arrive_with_metadata_plain_and_compressed() {
    for gzip in [false, true] {
        let (script, address) = start(vec![accepted()], None).await;
        let header = ("x-tenant".parse().unwrap(), "a".parse().unwrap());
        let to = Endpoint { gzip, headers: Headers(vec![header]), ..grpc(&address) };
        let tally = export(traces_to(to), spans(3)).await.otlp.traces.tally();
        assert_eq!(tally.exported, 3);
        let received = script.received.lock().unwrap();
        assert_eq!(received[0].metadata().get("x-tenant").unwrap(), "a");
        assert_eq!(received[0].metadata().get("grpc-encoding").is_some(), gzip);
        assert!(received[0].metadata().get("user-agent").unwrap().to_str().unwrap().starts_with("gpuspan/"));
        assert_eq!(received[0].get_ref().resource_spans[0].scope_spans[0].spans[2].span_id, [3; 8]);
    }
}

#[tokio::test]
async fn unavailable_is_tried_again_and_a_wrong_argument_is_not() {
    for (code, exported, attempts) in [(Code::Unavailable, 2, 2), (Code::InvalidArgument, 0, 1)] {
        let (script, address) = start(vec![Err(Status::new(code, "x")), accepted()], None).await;
        let tally = export(traces_to(grpc(&address)), spans(2)).await.otlp.traces.tally();
        assert_eq!((tally.exported, tally.lost()), (exported, 2 - exported), "{code:?}");
        assert_eq!(script.received.lock().unwrap().len(), attempts, "{code:?}");
    }
}

#[tokio::test]
async fn exhausted_is_tried_again_only_when_a_delay_is_named() {
    let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(100)));
    let delay = Status::with_error_details(Code::ResourceExhausted, "rate limited", details);
    for (status, exported) in [(Status::resource_exhausted("too large"), 0), (delay, 2)] {
        let (_, address) = start(vec![Err(status), accepted()], None).await;
        let tally = export(traces_to(grpc(&address)), spans(2)).await.otlp.traces.tally();
        assert_eq!((tally.exported, tally.lost()), (exported, 2 - exported));
    }
}

#[tokio::test]
async fn a_partial_success_is_counted() {
    let partial = ExportTracePartialSuccess { rejected_spans: 1, error_message: "no".to_owned() };
    let answer = Ok(ExportTraceServiceResponse { partial_success: Some(partial) });
    let (script, address) = start(vec![answer], None).await;
    let tally = export(traces_to(grpc(&address)), spans(4)).await.otlp.traces.tally();
    assert_eq!((tally.exported, tally.dropped), (3, vec![("refused", 1)]));
    assert_eq!(script.received.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn tls_with_certificates_on_both_sides() {
    let pki = pki();
    let (_, address) = start(vec![accepted()], Some(&pki)).await;
    let tls = Tls {
        certificate: Some(temporary("grpc-ca.pem", &pki.authority)),
        client_key: Some(temporary("grpc-key.pem", &pki.client.1)),
        client_certificate: Some(temporary("grpc-cert.pem", &pki.client.0)),
    };
    let without = Tls { client_key: None, client_certificate: None, ..tls.clone() };
    for (tls, exported) in [(tls, 1), (without, 0), (Tls::default(), 0)] {
        let to = Endpoint { tls, ..endpoint(&format!("https://{address}"), Protocol::Grpc) };
        let tally = export(traces_to(to), spans(1)).await.otlp.traces.tally();
        assert_eq!((tally.exported, tally.lost()), (exported, 1 - exported), "{tally:?}");
    }
}
