//! OTLP over HTTP/1.1. In: a body. Out: the answer's body, or why there is none. Absent: redirects, which would send
//! headers with secrets elsewhere.

use std::io::Write;
use std::time::{Duration, SystemTime};

use flate2::{Compression, write::GzEncoder};
use prost::bytes::Bytes;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url, redirect};

use super::{Failure, MOST_ANSWER_BYTES, TransportError, USER_AGENT, chain, tls};
use crate::export::settings::{Endpoint, Protocol};

#[derive(Debug)]
pub struct Http {
    client: Client,
    url: Url,
    headers: HeaderMap,
    gzip: bool,
}

impl Http {
    pub fn open(endpoint: &Endpoint) -> Result<Self, TransportError> {
        let tls = tls::rustls_config(&endpoint.tls, endpoint.url.scheme() == "https")?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(redirect::Policy::none())
            .timeout(endpoint.timeout)
            .user_agent(USER_AGENT)
            .build()?;
        Ok(Self { client, url: endpoint.url.clone(), headers: headers(endpoint), gzip: endpoint.gzip })
    }

    pub fn compress(&self, body: Vec<u8>) -> Vec<u8> {
        if !self.gzip {
            return body;
        }
        let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
        // Writing to memory cannot fail.
        encoder.write_all(&body).and_then(|()| encoder.finish()).unwrap_or_default()
    }

    pub async fn send(&self, body: Bytes) -> Result<Bytes, Failure> {
        let request = self.client.post(self.url.clone()).headers(self.headers.clone()).body(body);
        let response = request.send().await.map_err(|error| Failure::Temporary {
            after: None,
            // The URL stands in the log line already.
            cause: chain(&error.without_url()),
        })?;
        if response.status().is_success() { Ok(read(response).await) } else { Err(failure(&response)) }
    }
}

fn headers(endpoint: &Endpoint) -> HeaderMap {
    let mut headers: HeaderMap = endpoint.headers.0.iter().cloned().collect();
    let kind = match endpoint.protocol {
        Protocol::HttpJson => "application/json",
        Protocol::HttpProtobuf | Protocol::Grpc => "application/x-protobuf",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if endpoint.gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers
}

/// The answer's body, or nothing if it breaks off or is larger than any honest one: the request was taken all the same.
async fn read(mut response: Response) -> Bytes {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        if body.len() + chunk.len() > MOST_ANSWER_BYTES {
            return Bytes::new();
        }
        body.extend_from_slice(&chunk);
    }
    body.into()
}

fn failure(response: &Response) -> Failure {
    let status = response.status();
    let cause = format!("the answer was {status}");
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let after = after.and_then(|value| retry_after(value, SystemTime::now()));
            Failure::Temporary { after, cause }
        }
        _ => Failure::Final { cause },
    }
}

/// `Retry-After` is a number of seconds or a date.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value.trim()).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (value, expected) in [
            ("3", seconds(3)),
            (" 120 ", seconds(120)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", seconds(10)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", seconds(0)),
            ("-1", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(value, now), expected, "{value}");
        }
    }
}
