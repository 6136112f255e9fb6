//! One attempt to send a request. In: bytes. Out: what the destination took, or why not and whether to try again.
//! Absent: retries, accounts and the log.

mod grpc;
mod http;
mod tls;

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use prost::bytes::Bytes;
use serde::Serialize;
use serde_json::Value as Json;

use super::settings::{Endpoint, Protocol, Signal};

pub use tls::TlsError;

/// OpenTelemetry's limit on an answer's size.
const MOST_ANSWER_BYTES: usize = 4 << 20;
const USER_AGENT: &str = concat!("gpuspan/", env!("CARGO_PKG_VERSION"));

/// A way to one endpoint.
#[derive(Debug)]
pub struct Transport {
    carrier: Carrier,
    protocol: Protocol,
    signal: Signal,
}

#[derive(Debug)]
enum Carrier {
    Http(http::Http),
    Grpc(grpc::Grpc),
}

/// The destination took the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Except for so many items.
    pub refused: u64,
    /// What it said about them.
    pub message: String,
}

/// The destination did not take the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Another attempt may succeed.
    Temporary {
        /// The destination asks to wait so long.
        after: Option<Duration>,
        /// Why.
        cause: String,
    },
    /// The same request will fail again.
    Final {
        /// Why.
        cause: String,
    },
}

/// An endpoint that cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Its TLS files.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its gRPC channel.
    #[error("cannot set up OTLP/gRPC to {host}")]
    Grpc {
        /// Where to.
        host: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// Its HTTP client.
    #[error("cannot set up OTLP/HTTP")]
    Http(#[from] reqwest::Error),
}

impl Transport {
    /// Prepares a way to `endpoint`; connects with the first request. Needs a tokio runtime around it.
    pub fn open(endpoint: &Endpoint, signal: Signal) -> Result<Self, TransportError> {
        let carrier = match endpoint.protocol {
            Protocol::Grpc => Carrier::Grpc(grpc::Grpc::open(endpoint, signal)?),
            Protocol::HttpProtobuf | Protocol::HttpJson => Carrier::Http(http::Http::open(endpoint)?),
        };
        Ok(Self { carrier, protocol: endpoint.protocol, signal })
    }

    /// A request's bytes, once for all attempts.
    pub fn encode<M: Message + Serialize>(&self, message: &M) -> Result<Bytes, serde_json::Error> {
        let body = match self.protocol {
            Protocol::HttpJson => serde_json::to_vec(message)?,
            Protocol::HttpProtobuf | Protocol::Grpc => message.encode_to_vec(),
        };
        Ok(match &self.carrier {
            Carrier::Http(http) => http.compress(body),
            // gRPC compresses per message, inside its own frame.
            Carrier::Grpc(_) => body,
        }
        .into())
    }

    /// One attempt.
    pub async fn send(&self, body: Bytes) -> Result<Answer, Failure> {
        let answer = match &self.carrier {
            Carrier::Http(http) => http.send(body).await?,
            Carrier::Grpc(grpc) => grpc.send(body).await?,
        };
        Ok(self.read(&answer).unwrap_or_default())
    }

    /// An answer that nobody can read is a success with nothing to say: the request was taken.
    fn read(&self, body: &[u8]) -> Option<Answer> {
        if self.protocol == Protocol::HttpJson {
            return read_json(body, self.signal);
        }
        match self.signal {
            Signal::Traces => {
                let partial = ExportTraceServiceResponse::decode(body).ok()?.partial_success?;
                Some(answer(partial.rejected_spans, partial.error_message))
            }
            Signal::Metrics => {
                let partial = ExportMetricsServiceResponse::decode(body).ok()?.partial_success?;
                Some(answer(partial.rejected_data_points, partial.error_message))
            }
        }
    }
}

/// By hand, since protobuf's JSON writes 64-bit numbers as strings and the generated types of opentelemetry-proto 0.33
/// read only numbers there.
fn read_json(body: &[u8], signal: Signal) -> Option<Answer> {
    let body: Json = serde_json::from_slice(body).ok()?;
    let partial = body.get("partialSuccess")?;
    let refused = partial.get(match signal {
        Signal::Traces => "rejectedSpans",
        Signal::Metrics => "rejectedDataPoints",
    });
    let refused = refused.and_then(|n| n.as_i64().or_else(|| n.as_str()?.parse().ok()));
    let message = partial.get("errorMessage").and_then(Json::as_str).unwrap_or_default();
    Some(answer(refused.unwrap_or(0), message.to_owned()))
}

fn answer(refused: i64, message: String) -> Answer {
    Answer { refused: u64::try_from(refused).unwrap_or(0), message }
}

/// An error with its causes, which is where the useful part stands.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
