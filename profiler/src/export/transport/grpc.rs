//! OTLP over gRPC. In: an encoded message. Out: the encoded answer, or why there is none. Absent: generated clients:
//! they would encode again for each attempt.

use std::time::Duration;

use prost::bytes::{Buf, BufMut, Bytes};
use tonic::client::Grpc as Client;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint as Destination};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::{Failure, TransportError, USER_AGENT, chain, tls};
use crate::export::settings::{Endpoint, Signal};

/// A connection whose other end vanished would else swallow requests until TCP gives up, which takes 15 minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Grpc {
    channel: Channel,
    path: PathAndQuery,
    metadata: MetadataMap,
    timeout: Duration,
    gzip: bool,
}

impl Grpc {
    pub fn open(endpoint: &Endpoint, signal: Signal) -> Result<Self, TransportError> {
        let host = endpoint.url.host_str().unwrap_or_default().to_owned();
        let error = |source| TransportError::Grpc { host: host.clone(), source };
        let mut destination = Destination::from_shared(endpoint.url.to_string())
            .and_then(|destination| destination.user_agent(USER_AGENT))
            .map_err(error)?
            .connect_timeout(endpoint.timeout)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(endpoint.timeout);
        if endpoint.url.scheme() == "https" {
            destination = destination.tls_config(tls::tonic_config(&endpoint.tls)?).map_err(error)?;
        }
        Ok(Self {
            channel: destination.connect_lazy(),
            path: PathAndQuery::from_static(match signal {
                Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            }),
            metadata: MetadataMap::from_headers(endpoint.headers.0.iter().cloned().collect()),
            timeout: endpoint.timeout,
            gzip: endpoint.gzip,
        })
    }

    pub async fn send(&self, body: Bytes) -> Result<Bytes, Failure> {
        let late =
            |_| Failure::Temporary { after: None, cause: format!("no answer within {:?}", self.timeout) };
        tokio::time::timeout(self.timeout, self.call(body)).await.map_err(late)?
    }

    async fn call(&self, body: Bytes) -> Result<Bytes, Failure> {
        let mut client = Client::new(self.channel.clone()).accept_compressed(CompressionEncoding::Gzip);
        if self.gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        let unreachable = |error| Failure::Temporary { after: None, cause: chain(&error) };
        client.ready().await.map_err(unreachable)?;
        let mut request = Request::new(body);
        *request.metadata_mut() = self.metadata.clone();
        request.set_timeout(self.timeout);
        let answer = client.unary(request, self.path.clone(), Raw).await;
        answer.map(tonic::Response::into_inner).map_err(|status| failure(&status))
    }
}

fn failure(status: &Status) -> Failure {
    let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let broken = std::error::Error::source(status).is_some();
    let cause = if broken { chain(status) } else { format!("{:?}: {}", status.code(), status.message()) };
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Failure::Temporary { after: asked, cause },
        Code::ResourceExhausted if asked.is_some() => Failure::Temporary { after: asked, cause },
        // tonic's word for a connection that broke.
        Code::Unknown | Code::Internal if broken => Failure::Temporary { after: None, cause },
        _ => Failure::Final { cause },
    }
}

/// Bytes as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn only_some_codes_are_worth_another_attempt() {
        for (code, again) in [
            (Code::Unavailable, true),
            (Code::DeadlineExceeded, true),
            (Code::Aborted, true),
            (Code::ResourceExhausted, false),
            (Code::InvalidArgument, false),
            (Code::Unauthenticated, false),
            (Code::Unimplemented, false),
            (Code::Unknown, false),
        ] {
            let failure = failure(&Status::new(code, "x"));
            assert_eq!(matches!(failure, Failure::Temporary { after: None, .. }), again, "{code:?}");
        }
    }

    #[test]
    fn exhausted_with_a_delay_is_worth_another_attempt() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(5)));
        let status = Status::with_error_details(Code::ResourceExhausted, "rate limited", details);
        let expected = Failure::Temporary {
            after: Some(Duration::from_secs(5)),
            cause: "ResourceExhausted: rate limited".to_owned(),
        };
        assert_eq!(failure(&status), expected);
    }
}
