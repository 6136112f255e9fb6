//! A gRPC call on a stream (gRPC, `doc/PROTOCOL-HTTP2.md`).
//!
//! In: the call's head, payload and gaps of both directions, trailers. Out: what its first request says, tokens and
//! facts of its responses, its status. Deliberately absent: text, tensors, status messages (they may quote a request),
//! and compressed messages, which are counted and not read.

mod message;
mod protobuf;
mod said;
mod schema;

use super::header::{Fields, Header, Seen};
use crate::http::{Fact, RequestFacts, Rpc, RpcEnd, ShardStep, Signal, SignalKind};
use message::{Deframer, Piece};
use protobuf::{Rule, Walker};
use said::Said;
use schema::{Field, Method};

/// Whether a request is a gRPC call: by its content type, or, where that is not known, by a path that only gRPC has.
pub(super) fn is_call(fields: &Fields) -> bool {
    match fields.get(Header::ContentType) {
        Seen::Value(kind) => {
            let rest = kind.strip_prefix(b"application/grpc");
            rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
        }
        Seen::Unknown => path(fields).is_some_and(|path| schema::find(path).is_some()),
        Seen::Absent => false,
    }
}

fn path(fields: &Fields) -> Option<&str> {
    fields.get(Header::Path).value().and_then(|path| std::str::from_utf8(path).ok())
}

/// `grpc-timeout`: up to eight digits and a unit.
fn timeout(value: &[u8]) -> Option<u64> {
    let (unit, digits) = value.split_last()?;
    let unit: u64 = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    let number = digits.len() <= 8 && digits.iter().all(u8::is_ascii_digit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| number)?;
    digits.parse::<u32>().ok().map(|number| u64::from(number).saturating_mul(unit))
}

/// Messages of one direction.
#[derive(Debug)]
struct Side {
    deframer: Deframer,
    rules: Option<&'static [Rule<Field>]>,
    walker: Option<Walker<Field>>,
    said: Said,
}

impl Side {
    fn new(rules: Option<&'static [Rule<Field>]>) -> Self {
        Self { deframer: Deframer::new(), rules, walker: None, said: Said::default() }
    }

    /// Reads on; what a message says, at its end, if it could be read.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Option<Said>> {
        loop {
            match self.deframer.next(bytes) {
                Piece::More => return None,
                Piece::Begin { len, compressed } => {
                    self.said = Said::default();
                    self.walker = self.rules.filter(|_| !compressed).map(|rules| Walker::new(rules, len));
                }
                Piece::Bytes(part) => {
                    if let Some(walker) = &mut self.walker {
                        walker.feed(part, &mut self.said);
                    }
                }
                Piece::End { whole } => {
                    let read = whole && self.walker.take().is_some_and(|walker| walker.is_done());
                    return Some(read.then(|| std::mem::take(&mut self.said)));
                }
            }
        }
    }

    fn gap(&mut self, len: u64) {
        self.walker = None;
        self.deframer.gap(len);
    }
}

/// A call under way.
#[derive(Debug)]
pub(super) struct Call {
    method: Option<&'static Method>,
    request: Side,
    response: Side,
    asked: bool,
    facts: RequestFacts,
    status: Status,
    first_response_ns: Option<u64>,
    last_responses: u32,
    model: Option<String>,
    id: Option<String>,
}

/// What is known of `grpc-status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// No trailers came yet, or none with it.
    None,
    Unknown,
    Code(u32),
}

impl Call {
    /// The call that a head begins.
    pub(super) fn new(fields: &Fields) -> (Self, Rpc) {
        let path = path(fields);
        let method = path.and_then(schema::find);
        let rpc = Rpc {
            method: path.and_then(|path| path.strip_prefix('/')).map(clip).unwrap_or_default(),
            timeout_ns: fields.get(Header::GrpcTimeout).value().and_then(timeout),
        };
        let call = Self {
            method,
            request: Side::new(method.map(|method| method.request)),
            response: Side::new(method.map(|method| method.response)),
            asked: false,
            facts: RequestFacts::default(),
            status: Status::None,
            first_response_ns: None,
            last_responses: 0,
            model: None,
            id: None,
        };
        (call, rpc)
    }

    /// What its first request said.
    pub(super) fn facts(&self) -> RequestFacts {
        self.facts.clone()
    }

    pub(super) fn request(&mut self, mut bytes: &[u8], say: &mut impl FnMut(SignalKind)) {
        while let Some(said) = self.request.next(&mut bytes) {
            let batches = said.as_ref().map(|said| said.batches.clone()).unwrap_or_default();
            if !std::mem::replace(&mut self.asked, true) {
                if let Some(said) = said {
                    self.facts = RequestFacts {
                        whole: true,
                        model: said.model,
                        model_version: said.model_version,
                        request_id: said.id,
                        ..RequestFacts::default()
                    };
                }
                say(SignalKind::RpcRequest(Box::new(self.facts.clone())));
            }
            if self.method.is_some_and(|method| method.shard) && !batches.is_empty() {
                say(SignalKind::Fact(Fact::ShardBatches(batches)));
            }
        }
    }

    pub(super) fn response(&mut self, mut bytes: &[u8], time_ns: u64, say: &mut impl FnMut(SignalKind)) {
        while let Some(said) = self.response.next(&mut bytes) {
            self.first_response_ns.get_or_insert(time_ns);
            match (said, self.method) {
                (Some(said), Some(method)) if method.shard => shard(said, say),
                (Some(said), Some(method)) => self.inferred(said, method.streams, say),
                _ => {}
            }
        }
    }

    /// A response of KServe's protocol. One without outputs, as Triton sends to mark the end, is no token.
    fn inferred(&mut self, said: Said, streams: bool, say: &mut impl FnMut(SignalKind)) {
        for (known, new, fact) in [
            (&mut self.id, said.id, Fact::Id as fn(String) -> Fact),
            (&mut self.model, said.model, Fact::Model),
        ] {
            if let Some(new) = new.filter(|new| known.as_ref() != Some(new)) {
                *known = Some(new.clone());
                say(SignalKind::Fact(fact(new)));
            }
        }
        self.last_responses = self.last_responses.saturating_add(u32::from(said.last));
        if said.error {
            say(SignalKind::Fact(Fact::Error { kind: None, code: None }));
        } else if streams && said.outputs > 0 {
            let event = u32::try_from(self.response.deframer.counts().count).unwrap_or(u32::MAX);
            say(SignalKind::Token { choice: 0, event, token_ids: None });
        }
    }

    pub(super) fn request_gap(&mut self, len: u64, say: &mut impl FnMut(SignalKind)) {
        self.request.gap(len);
        self.request(&[], say);
    }

    pub(super) fn response_gap(&mut self, len: u64, time_ns: u64, say: &mut impl FnMut(SignalKind)) {
        self.response.gap(len);
        self.response(&[], time_ns, say);
    }

    /// Frames of its request were missed.
    pub(super) fn lose_request(&mut self) {
        self.request.deframer.lose();
    }

    /// The last header block of the response. False if the status cannot be known.
    pub(super) fn trailers(&mut self, fields: &Fields) -> bool {
        self.status = match fields.get(Header::GrpcStatus) {
            Seen::Value(_) => {
                match fields.number(Header::GrpcStatus).and_then(|code| u32::try_from(code).ok()) {
                    Some(code) => Status::Code(code),
                    None => Status::None,
                }
            }
            Seen::Unknown => Status::Unknown,
            Seen::Absent => Status::None,
        };
        self.status != Status::Unknown
    }

    pub(super) fn end(&self) -> RpcEnd {
        RpcEnd {
            status: match self.status {
                Status::Code(code) => Some(code),
                Status::None | Status::Unknown => None,
            },
            request: self.request.deframer.counts(),
            response: self.response.deframer.counts(),
            first_response_ns: self.first_response_ns,
            last_responses: self.last_responses,
        }
    }
}

/// What a shard answers: a step, or the batch that is left after a filter.
fn shard(mut said: Said, say: &mut impl FnMut(SignalKind)) {
    let batch = said.batches.pop();
    if said.step == ShardStep::default() {
        say(SignalKind::Fact(Fact::ShardBatches(batch.into_iter().collect())));
    } else {
        let step = ShardStep { batch, ..said.step };
        say(SignalKind::Fact(Fact::ShardStep(Box::new(step))));
    }
}

/// Names of methods are short; what is not is cut, as paths are.
fn clip(name: &str) -> String {
    name.get(..name.floor_char_boundary(MAX_METHOD)).unwrap_or_default().to_owned()
}

/// Longest name of a method that is kept.
const MAX_METHOD: usize = 256;

/// What a signal carries, with when and whose.
pub(super) fn teller(id: u32, time_ns: u64, out: &mut Vec<Signal>) -> impl FnMut(SignalKind) {
    move |kind| out.push(Signal { time_ns, exchange: id, kind })
}

#[cfg(test)]
mod tests;
