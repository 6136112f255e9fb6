//! Whole exchanges through [`Connection`]: a script of chunks in, lines of signals out.
//!
//! The numbers in test names (`edge_NN_`) are those of the project's list of capture edge cases. Which file covers
//! which part of it, byte by byte (the kernel's parts are tests on sockets):
//!
//! | edge case | tests |
//! |---|---|
//! | 1 head at every byte, pipelining | `framing` |
//! | 2 keep-alive, ends at a read's edge | `framing` |
//! | 3 chunks over writes, extensions, trailers | `framing`; sizes and ends in `body` |
//! | 4 bytes that come twice | `framing` |
//! | 7 attach inside an exchange | `loss` |
//! | 9 client or server leaves, half-close | `framing` |
//! | 10 interim responses, no body, early answers, upgrades | `framing` |
//! | 11 large bodies and heads, sizes around powers of two | `framing`, `capture`; members behind a hole in `document` |
//! | 12 codings, close-delimited, no content type | `framing`, `coding` |
//! | 13 records lost, calls cut | `loss`, `capture` |
//! | 18 roles and pings | `dialects` |
//! | 19 forms and splits of events | `dialects` |
//! | 20 events that are not one token | `dialects` |
//! | 21 choices, prompts, parameters | `dialects` |
//! | 22 errors after 200, no end mark, ids that collide | `dialects` |
//! | 23 documents, other dialects | `dialects` |
//! | 24 replayed streams | `dialects` |
//!
//! `properties` is what holds for every input, `speed` what reading costs. Reference parsers are asked in
//! `profiler/tests/http_oracle`.

mod capture;
mod coding;
mod dialects;
mod framing;
mod loss;
mod properties;
mod speed;

use std::fmt::Write;

use super::*;

/// One thing that happens on a connection.
#[derive(Clone, Debug)]
enum Do {
    Req(Vec<u8>),
    Resp(Vec<u8>),
    /// As `Req` and `Resp`, with bytes behind the chunk that are not copied.
    ReqLost(Vec<u8>, u32),
    RespLost(Vec<u8>, u32),
    /// Records that never arrive.
    ReqGone(u64),
    RespGone(u64),
    /// One system call of which the first and the last so many bytes are copied.
    Cut(Direction, Vec<u8>, usize, usize),
    End(End),
}

fn req(bytes: impl AsRef<[u8]>) -> Do {
    Do::Req(bytes.as_ref().to_vec())
}

fn resp(bytes: impl AsRef<[u8]>) -> Do {
    Do::Resp(bytes.as_ref().to_vec())
}

/// A POST with a JSON body.
fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A response with a length.
fn json(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// A chat event with a delta of choice 0.
fn chat(content: &str) -> String {
    format!(
        r#"data: {{"id":"c-1","model":"m","choices":[{{"index":0,"delta":{{"content":"{content}"}},"finish_reason":null}}]}}"#
    ) + "\n\n"
}

/// Drives a connection; times are the steps' numbers from 1.
struct Driver {
    connection: Connection,
    position: [u64; 2],
    step: u64,
    out: Vec<Signal>,
}

impl Driver {
    fn new(mid_stream: bool) -> Self {
        let position = if mid_stream { [1000, 5000] } else { [0, 0] };
        Self { connection: Connection::new(mid_stream), position, step: 0, out: Vec::new() }
    }

    fn bytes(&mut self, direction: Direction, bytes: &[u8], lost: u32) {
        let position = &mut self.position[usize::from(direction == Direction::Response)];
        self.connection.on_bytes(direction, *position, self.step, bytes, lost, &mut self.out);
        *position += bytes.len() as u64 + u64::from(lost);
    }

    fn cut(&mut self, direction: Direction, bytes: &[u8], head: usize, tail: usize) {
        if bytes.len() <= head + tail {
            return self.bytes(direction, bytes, 0);
        }
        let (first, rest) = bytes.split_at(head);
        let (lost, last) = rest.split_at(rest.len() - tail);
        self.bytes(direction, first, lost.len() as u32);
        if tail > 0 {
            self.bytes(direction, last, 0);
        }
    }

    fn step(&mut self, step: &Do) {
        self.step += 1;
        match step {
            Do::Req(bytes) => self.bytes(Direction::Request, bytes, 0),
            Do::Resp(bytes) => self.bytes(Direction::Response, bytes, 0),
            Do::ReqLost(bytes, lost) => self.bytes(Direction::Request, bytes, *lost),
            Do::RespLost(bytes, lost) => self.bytes(Direction::Response, bytes, *lost),
            Do::ReqGone(len) => self.position[0] += len,
            Do::RespGone(len) => self.position[1] += len,
            Do::Cut(direction, bytes, head, tail) => self.cut(*direction, bytes, *head, *tail),
            Do::End(end) => self.connection.on_end(*end, self.step, &mut self.out),
        }
    }
}

fn run(mid_stream: bool, script: &[Do]) -> Vec<Signal> {
    let mut driver = Driver::new(mid_stream);
    for step in script {
        driver.step(step);
    }
    driver.out
}

/// A signal as a line, `exchange@time what`.
fn line(signal: &Signal) -> String {
    let mut line = format!("{}@{} ", signal.exchange, signal.time_ns);
    match &signal.kind {
        SignalKind::RequestStart => line += "start",
        SignalKind::RequestHead(head) => {
            write!(line, "{} {}", head.method.as_str(), head.path).unwrap();
        }
        SignalKind::RequestEnd(end) => {
            write!(line, "asked {}", end.body_bytes).unwrap();
            line += if end.complete { "" } else { " cut" };
            if end.lost_bytes > 0 {
                write!(line, " lost={}", end.lost_bytes).unwrap();
            }
            if let Some(model) = &end.facts.model {
                write!(line, " model={model}").unwrap();
            }
        }
        SignalKind::ResponseStart => line += "answer",
        SignalKind::ResponseHead(head) => write!(line, "{} {:?}", head.status, head.streaming).unwrap(),
        SignalKind::Token { choice, event, .. } => write!(line, "token {choice} in {event}").unwrap(),
        SignalKind::Fact(fact) => write!(line, "{fact:?}").unwrap(),
        SignalKind::ResponseEnd(end) => {
            write!(line, "{:?} {}", end.outcome, end.body_bytes).unwrap();
            for (name, value) in [("lost", end.lost_bytes), ("events", u64::from(end.events))] {
                if value > 0 {
                    write!(line, " {name}={value}").unwrap();
                }
            }
            line += if end.saw_done { " done" } else { "" };
        }
        other => write!(line, "{other:?}").unwrap(),
    }
    line
}

/// Runs a script on a connection seen from its first byte, and compares lines. Lines that start with `id` facts
/// are told only by the tests that are about them.
fn check(script: &[Do], expected: &[&str]) {
    check_on(false, script, expected);
}

fn check_on(mid_stream: bool, script: &[Do], expected: &[&str]) {
    let lines: Vec<String> = run(mid_stream, script).iter().map(line).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).filter(|line| !is_identity(line)).collect();
    assert_eq!(lines, expected, "\n{}", lines.join("\n"));
}

fn is_identity(line: &str) -> bool {
    line.contains(" Id(") || line.contains(" Model(")
}

/// Without their times.
fn kinds(signals: &[Signal]) -> Vec<(u32, SignalKind)> {
    signals.iter().map(|signal| (signal.exchange, signal.kind.clone())).collect()
}

fn tokens(signals: &[Signal]) -> Vec<(u32, u32)> {
    let token = |signal: &Signal| match signal.kind {
        SignalKind::Token { choice, event, .. } => Some((choice, event)),
        _ => None,
    };
    signals.iter().filter_map(token).collect()
}

fn facts(signals: &[Signal]) -> Vec<Fact> {
    let fact = |signal: &Signal| match &signal.kind {
        SignalKind::Fact(fact) => Some(fact.clone()),
        _ => None,
    };
    signals.iter().filter_map(fact).collect()
}

fn last_end(signals: &[Signal]) -> ResponseEnd {
    let end = |signal: &Signal| match &signal.kind {
        SignalKind::ResponseEnd(end) => Some(*end),
        _ => None,
    };
    signals.iter().rev().find_map(end).unwrap()
}

fn request_end(signals: &[Signal]) -> RequestEnd {
    let end = |signal: &Signal| match &signal.kind {
        SignalKind::RequestEnd(end) => Some((**end).clone()),
        _ => None,
    };
    signals.iter().find_map(end).unwrap()
}

fn request_facts(body: &str) -> RequestFacts {
    request_end(&run(false, &[req(post("/", body))])).facts
}
