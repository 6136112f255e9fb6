//! The client: it loads a server by HTTP/1 or HTTP/2, plain or in TLS, and keeps its own record of every request. What
//! it says is the truth that the profiler's account is compared with.
//!
//! Absent: any check of the server's certificate, and retries: a request that fails is a record with an error.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::events::Events;
use crate::tls;

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Inside TLS of this version.
    pub tls: Option<tls::Version>,
    /// HTTP/2, told by prior knowledge or ALPN; else HTTP/1.1.
    pub http2: bool,
}

impl Wire {
    pub const PLAIN: Self = Self { tls: None, http2: false };
    pub const H2C: Self = Self { tls: None, http2: true };
    pub const TLS12: Self = Self { tls: Some(tls::Version::Tls12), http2: false };
    pub const TLS13: Self = Self { tls: Some(tls::Version::Tls13), http2: false };
    pub const H2: Self = Self { tls: Some(tls::Version::Tls13), http2: true };
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Question {
    pub model: String,
    pub tokens: usize,
    pub stream: bool,
    pub prefill_ms: u64,
    pub pace_ms: u64,
    /// The prompt's words.
    pub words: Vec<String>,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// Path and query.
    pub target: String,
    /// Further fields of the body.
    pub extra: Value,
    /// Keep the answer's body in the record.
    pub keep_body: bool,
}

impl Question {
    /// A streamed chat with a prompt of three words.
    pub fn new(model: &str, tokens: usize) -> Self {
        Self {
            model: model.to_owned(),
            tokens,
            stream: true,
            prefill_ms: 0,
            pace_ms: 0,
            words: ["why", "数据", "über"].map(str::to_owned).to_vec(),
            headers: Vec::new(),
            target: "/v1/chat/completions".to_owned(),
            extra: Value::Null,
            keep_body: false,
        }
    }

    fn body(&self) -> Bytes {
        let mut body = json!({
            "model": self.model,
            "messages": [{"role": "user", "content": self.words.join(" ")}],
            "max_tokens": self.tokens,
            "stream": self.stream,
            "prefill_ms": self.prefill_ms,
            "pace_ms": self.pace_ms,
        });
        if self.stream {
            body["stream_options"] = json!({"include_usage": true});
        }
        for (name, value) in self.extra.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        Bytes::from(body.to_string())
    }
}

/// One request and its answer, as the client saw them; times are `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Of the `traceparent` that was sent.
    pub trace_id: String,
    pub stream: bool,
    pub request_bytes: u64,
    /// Before the request was written.
    pub sent_ns: u64,
    pub status: u16,
    /// After the head of the answer was read.
    pub head_ns: u64,
    /// Bytes of the answer's body, without any framing.
    pub body_bytes: u64,
    /// What the body said.
    pub events: Events,
    /// The body itself, where the question says so.
    pub body: Vec<u8>,
    /// After the end was read.
    pub end_ns: u64,
    pub error: Option<String>,
}

impl Record {
    pub fn time_to_first_token_ns(&self) -> Option<u64> {
        Some(self.events.deltas_ns.first()?.saturating_sub(self.sent_ns))
    }
}

/// A connection; it is closed when dropped.
pub struct Connection {
    sender: Sender,
    driver: JoinHandle<()>,
    authority: String,
}

#[derive(Clone)]
enum Sender {
    Http1(Arc<tokio::sync::Mutex<http1::SendRequest<Full<Bytes>>>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub async fn open(port: u16, wire: Wire) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.context("failed to connect")?;
        stream.set_nodelay(true)?;
        let authority = format!("localhost:{port}");
        match wire.tls {
            None => Self::over(stream, wire.http2, authority).await,
            Some(version) => {
                Self::over(tls::connect(stream, version, wire.http2).await?, wire.http2, authority).await
            }
        }
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        http2: bool,
        authority: String,
    ) -> Result<Self> {
        let stream = TokioIo::new(stream);
        let (sender, driver) = if http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            // How a connection ends is told by the requests on it.
            (Sender::Http2(sender), tokio::spawn(async move { drop(connection.await) }))
        } else {
            let (sender, connection) = http1::handshake(stream).await?;
            let sender = Arc::new(tokio::sync::Mutex::new(sender));
            (Sender::Http1(sender), tokio::spawn(async move { drop(connection.await) }))
        };
        Ok(Self { sender, driver, authority })
    }

    /// Asks, and waits for the end of the answer.
    pub async fn ask(&self, question: &Question) -> Record {
        self.ask_telling(question, |_| ()).await
    }

    /// The same; `seen` is told the number of tokens so far.
    pub async fn ask_telling(&self, question: &Question, mut seen: impl FnMut(usize)) -> Record {
        let mut record = Record {
            trace_id: format!("{:032x}", fastrand::u128(1..)),
            stream: question.stream,
            ..Record::default()
        };
        if let Err(error) = self.exchange(question, &mut record, &mut seen).await {
            record.error = Some(format!("{error:#}"));
        }
        record.end_ns = now_ns();
        record
    }

    async fn exchange(
        &self,
        question: &Question,
        record: &mut Record,
        seen: &mut impl FnMut(usize),
    ) -> Result<()> {
        let body = question.body();
        record.request_bytes = body.len() as u64;
        let uri = match &self.sender {
            Sender::Http1(_) => question.target.clone(),
            Sender::Http2(_) => format!("http://{}{}", self.authority, question.target),
        };
        let mut request = hyper::Request::post(uri).header("content-type", "application/json");
        if matches!(self.sender, Sender::Http1(_)) {
            request = request.header("host", &self.authority);
        }
        let traceparent = format!("00-{}-{:016x}-01", record.trace_id, fastrand::u64(1..));
        request = request.header("traceparent", traceparent);
        for (name, value) in &question.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body))?;
        let answer = self.send(request, record).await?;
        record.head_ns = now_ns();
        record.status = answer.status().as_u16();
        record.events = Events::of(answer.headers());
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            record.body_bytes += data.len() as u64;
            record.events.take(&data, now_ns());
            if question.keep_body {
                record.body.extend_from_slice(&data);
            }
            seen(record.events.deltas_ns.len());
        }
        record.events.end()?;
        ensure!(record.status != 200 || record.events.finish.is_some(), "the answer has no end");
        Ok(())
    }

    async fn send(
        &self,
        request: hyper::Request<Full<Bytes>>,
        record: &mut Record,
    ) -> Result<hyper::Response<hyper::body::Incoming>> {
        let answer = match &self.sender {
            Sender::Http1(sender) => {
                let mut sender = sender.lock().await;
                sender.ready().await?;
                record.sent_ns = now_ns();
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                let mut sender = sender.clone();
                sender.ready().await?;
                record.sent_ns = now_ns();
                sender.send_request(request).await
            }
        };
        answer.context("no answer came")
    }
}

/// Many requests at once.
#[derive(Clone, Debug)]
pub struct Load {
    pub streams: usize,
    pub tokens: usize,
    /// Of the stream that begins before the attach: it must outlast it.
    pub early_tokens: usize,
    pub pace_ms: u64,
    pub prefill_ms: u64,
    pub model: String,
    /// Streams of one HTTP/2 connection; HTTP/1 has one.
    pub streams_per_connection: usize,
    /// Further fields of questions.
    pub extra: Value,
    /// False for servers that end a connection after a stream: each request has one of its own.
    pub keep_alive: bool,
    /// Between two starts: who asks all at once measures the server's queue.
    pub stagger: Duration,
}

impl Load {
    /// 64 streams of 200 tokens.
    pub fn new(model: &str) -> Self {
        Self {
            streams: 64,
            tokens: 200,
            early_tokens: 200,
            pace_ms: 15,
            prefill_ms: 40,
            model: model.to_owned(),
            streams_per_connection: 16,
            extra: Value::Null,
            keep_alive: true,
            stagger: Duration::from_millis(12),
        }
    }

    /// Each stream is followed, on its connection, by an answer without a stream and by a refusal (of servers that look
    /// at the model's name).
    pub async fn run(&self, port: u16, wire: Wire) -> Result<Vec<Record>> {
        let per_connection = if wire.http2 { self.streams_per_connection } else { 1 };
        let mut tasks = Vec::new();
        let mut connection = None;
        for index in 0..self.streams {
            if index.is_multiple_of(per_connection) {
                connection = Some(Arc::new(Connection::open(port, wire).await?));
            }
            let (load, connection) = (self.clone(), connection.clone().context("there is a connection")?);
            tasks.push(tokio::spawn(async move { load.one(connection, port, wire).await }));
            tokio::time::sleep(self.stagger).await;
        }
        let mut records = Vec::new();
        for task in tasks {
            records.extend(task.await??);
        }
        Ok(records)
    }

    async fn one(&self, first: Arc<Connection>, port: u16, wire: Wire) -> Result<Vec<Record>> {
        let stream =
            Question { pace_ms: self.pace_ms, prefill_ms: self.prefill_ms, ..self.question(self.tokens) };
        let whole = Question { stream: false, ..self.question(5) };
        let refused = Question { model: "missing".to_owned(), ..whole.clone() };
        let mut records = Vec::new();
        let mut connection = Some(first);
        for question in [stream, whole, refused] {
            let current = match connection.take() {
                Some(connection) => connection,
                None => Arc::new(Connection::open(port, wire).await?),
            };
            records.push(current.ask(&question).await);
            connection = self.keep_alive.then_some(current);
        }
        Ok(records)
    }

    /// A question to the model that is loaded.
    pub fn question(&self, tokens: usize) -> Question {
        let mut question = Question { extra: self.extra.clone(), ..Question::new(&self.model, tokens) };
        if !self.keep_alive {
            question.headers.push(("connection", "close".to_owned()));
        }
        question
    }
}

/// `CLOCK_MONOTONIC`, as gpuspan counts.
pub fn now_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// What Unix time is ahead of `CLOCK_MONOTONIC`.
pub fn unix_offset_ns() -> u64 {
    clock_ns(libc::CLOCK_REALTIME) - now_ns()
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes to a value that lives through the call.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}
