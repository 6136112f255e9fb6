//! Answers scrapes over HTTP/1. In: connections, the registry, and pages of others. Out: `GET` and `HEAD` of `/metrics` and
//! of those pages; 404 and 405 for all else. Absent: waiting: who is slow is cut off, and who comes when all places are taken waits in the kernel.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue,
    VARY,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{accept, text};
use crate::clock;
use crate::metric::Registry;

/// Scrapes at a time: each holds a document of up to some megabytes. Further ones wait in the listener's backlog.
const MOST_SCRAPES: usize = 16;
/// Bytes of a request's head. Prometheus sends 600.
const MOST_HEAD_BYTES: usize = 16 << 10;
/// For a request's head.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// For a whole scrape: Prometheus gives up after 10 s by default, and at most after its interval.
const SCRAPE_TIME: Duration = Duration::from_secs(30);
/// Until the next try when no connection can be taken, for want of descriptors for example.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// What else is told where metrics are.
pub trait Pages: std::fmt::Debug + Send + Sync {
    /// The page of a path, if there is one. Made while the client waits, so it must not wait for anything itself.
    fn page(&self, path: &str) -> Option<Page>;
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// 200, or 503 where what the page is about is not well.
    pub status: u16,
    /// Media type.
    pub media: &'static str,
    /// Text.
    pub body: String,
}

/// What is told.
#[derive(Clone, Debug)]
struct Told {
    registry: Arc<Registry>,
    pages: Option<Arc<dyn Pages>>,
}

/// An open port and what is told there.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    told: Told,
    scrape_time: Duration,
}

impl Server {
    /// Listens; connections wait until `serve`.
    pub async fn bind(
        address: SocketAddr,
        registry: Arc<Registry>,
        pages: Option<Arc<dyn Pages>>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, told: Told { registry, pages }, scrape_time: SCRAPE_TIME })
    }

    /// With the port that was found.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Less patient with clients.
    #[cfg(test)]
    pub fn with_scrape_time(self, scrape_time: Duration) -> Self {
        Self { scrape_time, ..self }
    }

    /// Answers until it is dropped, and then breaks off.
    pub async fn serve(self) -> Infallible {
        let mut scrapes = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if scrapes.len() < MOST_SCRAPES => match accepted {
                    Ok((stream, _)) => {
                        let scrape = scrape(stream, self.told.clone());
                        scrapes.spawn(tokio::time::timeout(self.scrape_time, scrape));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a connection for a scrape could not be taken");
                        tokio::time::sleep(AFTER_FAILURE).await;
                    }
                },
                Some(_) = scrapes.join_next() => {}
            }
        }
    }
}

/// One request: keeping connections open would save a client that comes every 15 s nothing, and take a place.
async fn scrape(stream: TcpStream, told: Told) {
    let service = service_fn(|request| {
        let answer = answer(&request, &told);
        async { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MOST_HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a scrape broke off");
    }
}

fn answer<B>(request: &Request<B>, told: &Told) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let page = if path == "/metrics" { None } else { told.pages.as_ref().and_then(|pages| pages.page(path)) };
    if path != "/metrics" && page.is_none() {
        return refusal(StatusCode::NOT_FOUND, "the metrics are at /metrics\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = refusal(StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    if let Some(Page { status, media, body }) = page {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
        return response;
    }
    let format = accept::format(&header(request, ACCEPT));
    let document = text::document(&told.registry.peek(clock::unix_ns()), format).into_bytes();
    let zipped = if accept::gzip(&header(request, ACCEPT_ENCODING)) { zip(&document) } else { None };
    let is_zipped = zipped.is_some();
    let body = Bytes::from(zipped.unwrap_or(document));
    let length = body.len();
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    if is_zipped {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn refusal(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A header that may stand several times, as one list. What is no text names nothing.
fn header<B>(request: &Request<B>, name: HeaderName) -> String {
    let values = request.headers().get_all(name);
    values.iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",")
}

/// Fast rather than small: the bytes mostly go to the same machine. Nothing where the library fails.
fn zip(document: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(document).ok()?;
    encoder.finish().ok()
}
