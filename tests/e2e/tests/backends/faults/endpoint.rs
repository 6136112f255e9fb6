//! An OTLP endpoint over HTTP and JSON that fails as it is told to. Out: which spans it took, and how it was treated.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::free_port;

/// How an endpoint fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not at all.
    None,
    /// Nobody listens for so long.
    Away(Duration),
    /// Each answer takes a second.
    Slow,
    /// Every second request is answered with 429 and asked to come back after a second.
    Busy,
    /// One span of each request is not taken.
    Partial,
    /// It is asked for TLS and knows none.
    NoTls,
}

/// What it saw of spans.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Spans that it took.
    pub taken: u64,
    /// Spans that it took before.
    pub repeated: u64,
    /// Spans that it did not take, and said so.
    pub refused: u64,
    /// Requests that it told to come back.
    pub turned_away: u64,
    /// Requests that came back sooner than told.
    pub hurried: u64,
    requests: u64,
    told: Option<Instant>,
    ids: HashSet<String>,
}

/// One endpoint.
#[derive(Debug)]
pub struct Endpoint {
    pub url: String,
    fault: Fault,
    port: u16,
    seen: Arc<Mutex<Seen>>,
}

impl Endpoint {
    /// Its address, where nobody listens yet.
    pub fn new(fault: Fault) -> Self {
        let port = free_port();
        let scheme = if fault == Fault::NoTls { "https" } else { "http" };
        Self { fault, port, url: format!("{scheme}://127.0.0.1:{port}"), seen: Arc::default() }
    }

    /// Begins to listen, or to be away.
    pub fn open(&self) {
        let (fault, port, log) = (self.fault, self.port, Arc::clone(&self.seen));
        let listen = move || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        // Whoever is not away is there before anybody asks.
        let there = (!matches!(fault, Fault::Away(_))).then(listen);
        std::thread::spawn(move || {
            if let Fault::Away(time) = fault {
                std::thread::sleep(time);
            }
            for stream in there.unwrap_or_else(listen).incoming().flatten() {
                let log = Arc::clone(&log);
                std::thread::spawn(move || serve(BufReader::new(stream), fault, &log));
            }
        });
    }

    pub fn seen(&self) -> Seen {
        Seen { ids: HashSet::new(), ..self.seen.lock().unwrap().clone() }
    }
}

/// Answers the requests of one connection until it ends or says something else than HTTP.
fn serve(mut stream: BufReader<TcpStream>, fault: Fault, seen: &Mutex<Seen>) -> Option<()> {
    loop {
        let (path, body) = read(&mut stream)?;
        if fault == Fault::Slow {
            std::thread::sleep(Duration::from_secs(1));
        }
        let (status, answer) = match path.as_str() {
            "/v1/traces" => take(&body, fault, &mut seen.lock().unwrap()),
            _ => ("200 OK", "{}".to_owned()),
        };
        let length = answer.len();
        let more = if status.starts_with("429") { "retry-after: 1\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status}\r\n{more}content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.get_mut().write_all((head + &answer).as_bytes()).ok()?;
    }
}

fn read(stream: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != "\r\n") {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        lines.push(line);
    }
    let length = lines
        .iter()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.trim().parse().ok());
    let mut body = vec![0; length?];
    stream.read_exact(&mut body).ok()?;
    let path = lines[0].split(' ').nth(1)?.to_owned();
    Some((path, serde_json::from_slice(&body).ok()?))
}

/// What is answered to a request with spans.
fn take(body: &Value, fault: Fault, seen: &mut Seen) -> (&'static str, String) {
    seen.requests += 1;
    if seen.told.take().is_some_and(|told| told.elapsed() < Duration::from_millis(990)) {
        seen.hurried += 1;
    }
    if fault == Fault::Busy && seen.requests % 2 == 1 {
        seen.turned_away += 1;
        seen.told = Some(Instant::now());
        return ("429 Too Many Requests", "{}".to_owned());
    }
    let refused = u64::from(fault == Fault::Partial);
    for (n, id) in ids(body).into_iter().enumerate() {
        if (n as u64) < refused {
            seen.refused += 1;
        } else if seen.ids.insert(id) {
            seen.taken += 1;
        } else {
            seen.repeated += 1;
        }
    }
    let answer = format!(r#"{{"partialSuccess":{{"rejectedSpans":"{refused}","errorMessage":"test"}}}}"#);
    ("200 OK", if refused > 0 { answer } else { "{}".to_owned() })
}

fn ids(body: &Value) -> Vec<String> {
    let of = |value: &Value, list: &str| value[list].as_array().cloned().unwrap_or_default();
    let scopes = of(body, "resourceSpans").into_iter().flat_map(|resource| of(&resource, "scopeSpans"));
    let spans = scopes.flat_map(|scope| of(&scope, "spans"));
    spans.map(|span| span["spanId"].as_str().unwrap_or_default().to_owned()).collect()
}
