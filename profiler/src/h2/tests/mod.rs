//! Whole connections through [`Connection`]: frames in, lines of signals out.
//!
//! The numbers in test names are those of the project's list of capture edge cases.

mod grpc;
mod loss;
mod properties;
mod speed;
mod streams;

use std::fmt::Write;

use super::frame::{END_HEADERS, END_STREAM, PADDED, PREFACE, PRIORITY};
use super::*;
use crate::http::{Direction, End, Fact, Outcome, Signal, SignalKind};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW: u8 = 8;
const CONTINUATION: u8 = 9;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block of literals that are not inserted.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    literals(0, fields)
}

/// One whose fields are inserted, the last as the newest.
fn inserting(fields: &[(&str, &str)]) -> Vec<u8> {
    literals(0x40, fields)
}

fn literals(first: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(first);
        for text in [name, value] {
            if text.len() < 127 {
                bytes.push(text.len() as u8);
            } else {
                let rest = text.len() - 127;
                bytes.extend([
                    127,
                    (rest % 128) as u8 | 0x80,
                    (rest / 128 % 128) as u8 | 0x80,
                    (rest / 16384) as u8,
                ]);
            }
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &block(fields))
}

fn data(stream: u32, flags: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    frame(DATA, flags, stream, bytes.as_ref())
}

fn ask<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [(":method", method), (":scheme", "http"), (":path", path), (":authority", "h")]
}

/// A request with a JSON body.
fn post(stream: u32, path: &str, body: &str) -> Vec<u8> {
    [headers(stream, 0, &ask("POST", path)), data(stream, END_STREAM, body)].concat()
}

fn get(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, END_STREAM, &ask("GET", path))
}

fn answer(stream: u32, kind: &str) -> Vec<u8> {
    headers(stream, 0, &[(":status", "200"), ("content-type", kind)])
}

/// A whole JSON response.
fn json(stream: u32, body: &str) -> Vec<u8> {
    [answer(stream, "application/json"), data(stream, END_STREAM, body)].concat()
}

/// A chat event with a delta of choice 0.
fn chat(id: &str) -> String {
    format!(r#"data: {{"id":"{id}","model":"m","choices":[{{"index":0,"delta":{{"content":"x"}}}}]}}"#)
        + "\n\n"
}

fn opening() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])].concat()
}

fn greeting() -> Vec<u8> {
    [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, 1, 0, &[])].concat()
}

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
    End(End),
}

fn req(bytes: impl AsRef<[u8]>) -> Do {
    Do::Req(bytes.as_ref().to_vec())
}

fn resp(bytes: impl AsRef<[u8]>) -> Do {
    Do::Resp(bytes.as_ref().to_vec())
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

    fn step(&mut self, step: &Do) {
        self.step += 1;
        match step {
            Do::Req(bytes) => self.bytes(Direction::Request, bytes, 0),
            Do::Resp(bytes) => self.bytes(Direction::Response, bytes, 0),
            Do::ReqLost(bytes, lost) => self.bytes(Direction::Request, bytes, *lost),
            Do::RespLost(bytes, lost) => self.bytes(Direction::Response, bytes, *lost),
            Do::ReqGone(len) => self.position[0] += len,
            Do::RespGone(len) => self.position[1] += len,
            Do::End(end) => self.connection.on_end(*end, self.step, &mut self.out),
        }
    }

    fn run(mut self, script: &[Do]) -> Vec<Signal> {
        script.iter().for_each(|step| self.step(step));
        self.out
    }
}

/// A connection from its first byte.
fn run(script: &[Do]) -> Vec<Signal> {
    let start = [req(opening()), resp(greeting())];
    let mut driver = Driver::new(false);
    start.iter().for_each(|step| driver.step(step));
    assert!(driver.out.is_empty());
    driver.step = 0;
    driver.run(script)
}

/// One that is older than the attach.
fn join(script: &[Do]) -> Vec<Signal> {
    Driver::new(true).run(script)
}

/// A signal as a line, `stream@time what`.
fn line(signal: &Signal) -> String {
    let mut line = format!("{}@{} ", signal.exchange, signal.time_ns);
    match &signal.kind {
        SignalKind::RequestStart => line += "start",
        SignalKind::RequestHead(head) => write!(line, "{} {}", head.method.as_str(), head.path).unwrap(),
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
        SignalKind::RequestUnseen => line += "unseen",
        SignalKind::ResponseStart => line += "answering",
        SignalKind::ResponseHead(head) => write!(line, "{} {:?}", head.status, head.streaming).unwrap(),
        SignalKind::Token { .. } => line += "token",
        SignalKind::Fact(Fact::Id(id)) => write!(line, "id={id}").unwrap(),
        SignalKind::ResponseEnd(end) => {
            write!(line, "{:?} {}", end.outcome, end.body_bytes).unwrap();
            if end.lost_bytes > 0 {
                write!(line, " lost={}", end.lost_bytes).unwrap();
            }
        }
        other => write!(line, "{other:?}").unwrap(),
    }
    line
}

fn lines(signals: &[Signal]) -> Vec<String> {
    signals.iter().map(line).collect()
}

#[track_caller]
fn check(signals: &[Signal], expected: &[&str]) {
    assert_eq!(lines(signals), expected);
}

fn tokens(signals: &[Signal]) -> usize {
    signals.iter().filter(|signal| matches!(signal.kind, SignalKind::Token { .. })).count()
}

/// How each stream ended, in order.
fn outcomes(signals: &[Signal]) -> Vec<(u32, Outcome)> {
    let ends = signals.iter().filter_map(|signal| match &signal.kind {
        SignalKind::ResponseEnd(end) => Some((signal.exchange, end.outcome)),
        _ => None,
    });
    ends.collect()
}
