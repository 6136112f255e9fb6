//! One connection: both directions in step, exchanges in order, gaps and the end.
//!
//! In: chunks with their position. Out: [`Signal`]s. The two directions live in `request.rs` and `response.rs`;
//! what they share, the queue of unanswered exchanges, lives here.

use std::collections::VecDeque;

use super::facts::Emit;
use super::head::{HeadBuffer, begins_response, starts_with, starts_with_token};
use super::request::RequestState;
use super::response::ResponseState;
use super::signal::{MalformedReason, Method, Outcome, Protocol, ResponseEnd, Signal, SignalKind};

/// Unanswered pipelined requests that are kept. Clients of model servers do not pipeline at all.
const MAX_PENDING: usize = 64;
/// Bytes that decide whether a connection is HTTP/1.
const MAX_OPENING: usize = 16;

/// Who sent the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The client; the server read them.
    Request,
    /// The server; it wrote them.
    Response,
}

/// How a connection, or our view of it, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum End {
    /// The server closed it.
    Closed,
    /// The client sends nothing more (a read returned 0). The response may still come: another end follows.
    EndOfInput,
    /// The server sends nothing more (it shut its sending side down). It may still read: another end follows.
    SentAll,
    /// A read or write failed for good.
    Failed,
    /// The server's process ended.
    ProcessExited,
    /// We stopped looking.
    Detached,
}

/// Whether a connection carries HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Too few bytes yet, or none that start a message on a connection older than the attach.
    Undecided,
    /// A request or status line was seen.
    Http,
    /// Its bytes need not be sent any more.
    NotHttp(NotHttp),
}

/// What a connection carries instead of HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotHttp {
    /// The HTTP/2 preface.
    Http2,
    /// A TLS record.
    Tls,
    /// Something else.
    Unknown,
}

/// An exchange whose response is not complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange {
    pub(super) number: u32,
    /// Not known before the head.
    pub(super) method: Option<Method>,
    /// A part of it is hidden.
    pub(super) partial: bool,
    /// Request bytes are missing before it: requests may have gone unseen.
    pub(super) after_gap: bool,
}

/// Whose answer the response bytes are that were missed between two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missed {
    /// That of the only exchange that waited, at least from its first byte.
    TheOnly,
    /// Not known.
    Somebodys,
}

/// Where another protocol begins on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Which.
    pub protocol: Protocol,
    /// The exchange that asked for it. HTTP/2 answers it on its stream 1.
    pub exchange: u32,
    /// Position of its first byte from the client.
    pub request_position: u64,
    /// Position of its first byte from the server.
    pub response_position: u64,
}

/// What is known of one direction's bytes.
#[derive(Clone, Copy, Debug)]
struct Positions {
    /// That of the next byte.
    next: Option<u64>,
    /// When the last chunk came.
    last_ns: Option<u64>,
}

/// Bytes of one system call, or of a part of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read<'a> {
    pub(super) bytes: &'a [u8],
    /// They begin the call.
    pub(super) begins: bool,
    /// They end it.
    pub(super) ends: bool,
}

/// The observer of one connection.
#[derive(Debug)]
pub struct Connection {
    pub(super) verdict: Verdict,
    opening: Vec<u8>,
    received: Positions,
    sent: Positions,
    pub(super) request: RequestState,
    pub(super) response: ResponseState,
    pub(super) pending: VecDeque<Exchange>,
    next_exchange: u32,
    /// Two requests were seen in one read: position in the queue alone tells whose response comes.
    pub(super) pipelined: bool,
    /// Response bytes are missing before the response that comes next.
    pub(super) missed: Option<Missed>,
    /// Request bytes are missing before the request that comes next.
    pub(super) request_gap: bool,
    /// When response bytes came that show an exchange, once the connection shows to be HTTP.
    pub(super) stray_ns: Option<u64>,
    /// The client was the first to go.
    input_ended: bool,
    ended: bool,
    upgrade: Option<Upgrade>,
}

impl Connection {
    /// `mid_stream`: the connection is older than the attach, so its first bytes may be from inside a message.
    pub fn new(mid_stream: bool) -> Self {
        let positions = Positions { next: (!mid_stream).then_some(0), last_ns: None };
        let head = HeadBuffer::new(false);
        Self {
            verdict: Verdict::Undecided,
            opening: Vec::new(),
            received: positions,
            sent: positions,
            request: if mid_stream { RequestState::Resync } else { RequestState::Head(head) },
            response: if mid_stream {
                ResponseState::Await { counted: false }
            } else {
                ResponseState::Head(HeadBuffer::new(false))
            },
            pending: VecDeque::new(),
            next_exchange: 0,
            pipelined: false,
            missed: None,
            request_gap: false,
            stray_ns: None,
            input_ended: false,
            ended: false,
            upgrade: None,
        }
    }

    /// Where another protocol begins, once one does. This observer says nothing more then.
    pub fn upgrade(&self) -> Option<Upgrade> {
        self.upgrade
    }

    /// Whether the connection carries HTTP/1, as far as its bytes have shown.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Nothing more will be said: it is not HTTP/1, was upgraded, broke the rules, or ended.
    pub fn is_opaque(&self) -> bool {
        let closed =
            matches!(self.request, RequestState::Opaque) && matches!(self.response, ResponseState::Opaque);
        self.ended || closed || matches!(self.verdict, Verdict::NotHttp(_))
    }

    /// Takes bytes of one direction. `position`: bytes of that direction before them, as counted in the kernel;
    /// `lost_after`: bytes behind them, of the same system call, that no chunk carries. The chunks of one call have one
    /// time, so that only the first is taken for the start of a read or write.
    pub fn on_bytes(
        &mut self,
        direction: Direction,
        position: u64,
        time_ns: u64,
        bytes: &[u8],
        lost_after: u32,
        out: &mut Vec<Signal>,
    ) {
        if self.is_opaque() {
            return;
        }
        let positions = match direction {
            Direction::Request => &mut self.received,
            Direction::Response => &mut self.sent,
        };
        let expected = positions.next.unwrap_or(position);
        let end = position.saturating_add(bytes.len() as u64);
        let after = end.saturating_add(u64::from(lost_after));
        positions.next = Some(expected.max(after));
        let begins = positions.last_ns.replace(time_ns) != Some(time_ns) || position > expected;
        let seen = usize::try_from(expected.saturating_sub(position)).unwrap_or(usize::MAX);
        let bytes = bytes.get(seen..).unwrap_or_default();
        self.on_gap(direction, time_ns, position.saturating_sub(expected), false, out);
        if !bytes.is_empty() && self.opening_is_http(direction, time_ns, bytes, out) {
            let read = Read { bytes, begins, ends: lost_after == 0 };
            let left = match direction {
                Direction::Request => self.on_request(time_ns, read, out),
                Direction::Response => self.on_response(time_ns, read, out),
            };
            if let Some(upgrade) = &mut self.upgrade {
                upgrade.response_position = end.saturating_sub(left as u64);
            }
        }
        self.on_gap(direction, time_ns, after.saturating_sub(expected.max(end)), true, out);
    }

    /// `inside`: the bytes are of a call whose beginning was seen, and not records that never came.
    fn on_gap(&mut self, direction: Direction, time_ns: u64, len: u64, inside: bool, out: &mut Vec<Signal>) {
        if len == 0 || self.is_opaque() {
            return;
        }
        match direction {
            Direction::Request => self.request_gap(time_ns, len, inside, out),
            Direction::Response => self.response_gap(time_ns, len, inside, out),
        }
    }

    /// The connection ended, or with `EndOfInput` or `SentAll` one direction of it.
    pub fn on_end(&mut self, end: End, time_ns: u64, out: &mut Vec<Signal>) {
        let whole = !matches!(end, End::EndOfInput | End::SentAll);
        if self.is_opaque() {
            self.ended |= whole;
            return;
        }
        if end != End::SentAll {
            self.end_request(time_ns, out);
        }
        if end == End::EndOfInput {
            return self.end_input(time_ns, out);
        }
        let orderly = matches!(end, End::Closed | End::SentAll);
        let first = if self.input_ended && orderly { End::EndOfInput } else { end };
        self.end_response(first, orderly, time_ns, out);
        let hidden = end == End::Detached || self.missed.is_some();
        let outcome = if hidden { Outcome::Partial } else { Outcome::Truncated(first) };
        self.end_pending(outcome, 0, time_ns, out);
        self.response = ResponseState::Opaque;
        self.ended |= whole;
    }

    fn end_input(&mut self, time_ns: u64, out: &mut Vec<Signal>) {
        if !std::mem::replace(&mut self.input_ended, true)
            && let Some(exchange) = self.pending.front()
        {
            out.push(Signal { time_ns, exchange: exchange.number, kind: SignalKind::InputEnded });
        }
    }

    /// Decides by the first bytes of the request direction, or of the response if the server speaks first.
    fn opening_is_http(
        &mut self,
        direction: Direction,
        time_ns: u64,
        bytes: &[u8],
        out: &mut Vec<Signal>,
    ) -> bool {
        if self.verdict != Verdict::Undecided {
            return true;
        }
        let fresh = match direction {
            Direction::Request => matches!(&self.request, RequestState::Head(head) if !head.tentative),
            Direction::Response => matches!(&self.response, ResponseState::Head(head) if !head.tentative),
        };
        self.verdict = match (direction, fresh) {
            // On an older connection only what cannot be inside an HTTP message at a read's start decides.
            (_, false) => foreign_record(bytes).map_or(Verdict::Undecided, Verdict::NotHttp),
            (Direction::Request, true) => {
                let room = MAX_OPENING.saturating_sub(self.opening.len());
                self.opening.extend(bytes.iter().take(room));
                classify(&self.opening)
            }
            (Direction::Response, true) if begins_response(bytes) == Some(false) => {
                Verdict::NotHttp(foreign_record(bytes).unwrap_or(NotHttp::Unknown))
            }
            _ => Verdict::Undecided,
        };
        if matches!(self.verdict, Verdict::NotHttp(_)) {
            self.end_pending(Outcome::Partial, 0, time_ns, out);
            self.go_opaque();
            return false;
        }
        true
    }

    /// Another protocol begins behind the head of the response that is being read.
    pub(super) fn set_upgrade(&mut self, protocol: Protocol, exchange: u32) {
        let waiting = match &self.request {
            RequestState::Head(head) => head.bytes().len(),
            _ => 0,
        };
        let request_position = self.received.next.unwrap_or(0).saturating_sub(waiting as u64);
        // The caller of `on_response` knows how many bytes it left.
        self.upgrade = Some(Upgrade { protocol, exchange, request_position, response_position: 0 });
    }

    pub(super) fn go_opaque(&mut self) {
        self.request = RequestState::Opaque;
        self.response = ResponseState::Opaque;
        self.opening = Vec::new();
    }

    pub(super) fn claim_number(&mut self) -> u32 {
        let number = self.next_exchange;
        self.next_exchange = number.wrapping_add(1);
        number
    }

    /// A request began: its exchange waits for its response.
    pub(super) fn start_exchange(
        &mut self,
        start_ns: u64,
        method: Option<Method>,
        out: &mut Vec<Signal>,
    ) -> u32 {
        if let Some(time_ns) = self.stray_ns.take() {
            self.start_unseen(time_ns, out);
        }
        if matches!(&self.response, ResponseState::Body(body) if body.is_adrift()) {
            // The end of the response before it is in what was lost.
            self.drop_response(Outcome::Partial, start_ns, out);
        }
        if matches!(self.response, ResponseState::Await { .. }) {
            // Its client would not ask again before the responses that were missed.
            self.end_pending(Outcome::Partial, 0, start_ns, out);
            self.missed = None;
        }
        let number = self.claim_number();
        out.push(Signal { time_ns: start_ns, exchange: number, kind: SignalKind::RequestStart });
        let after_gap = std::mem::take(&mut self.request_gap);
        self.pending.push_back(Exchange { number, method, partial: false, after_gap });
        if self.pending.len() > MAX_PENDING {
            self.malformed(MalformedReason::Pipeline, start_ns, number, out);
        }
        number
    }

    /// Ends unanswered exchanges, all but the last `keep`.
    pub(super) fn end_pending(&mut self, outcome: Outcome, keep: usize, time_ns: u64, out: &mut Vec<Signal>) {
        while self.pending.len() > keep {
            let Some(exchange) = self.pending.pop_front() else { return };
            let outcome = if exchange.partial { Outcome::Partial } else { outcome };
            let end = ResponseEnd {
                outcome,
                body_bytes: 0,
                lost_bytes: 0,
                unread: None,
                events: 0,
                saw_done: false,
            };
            out.push(Signal { time_ns, exchange: exchange.number, kind: SignalKind::ResponseEnd(end) });
        }
    }

    /// The rules are broken: nothing behind this place can be trusted.
    pub(super) fn malformed(
        &mut self,
        reason: MalformedReason,
        time_ns: u64,
        exchange: u32,
        out: &mut Vec<Signal>,
    ) {
        Emit { time_ns, exchange, out }.push(SignalKind::Malformed(reason));
        self.drop_response(Outcome::Partial, time_ns, out);
        self.end_pending(Outcome::Partial, 0, time_ns, out);
        self.go_opaque();
    }
}

fn classify(opening: &[u8]) -> Verdict {
    let line = opening.trim_ascii_start();
    if let Some(foreign) = foreign_record(line) {
        return Verdict::NotHttp(foreign);
    }
    let tokens = Method::NAMED.iter().map(|(name, _)| starts_with_token(line, name));
    if tokens.clone().any(|fits| fits == Some(true)) {
        return Verdict::Http;
    }
    let others = [starts_with(line, PREFACE), starts_with(line, HANDSHAKE)];
    let open = tokens.chain(others).any(|fits| fits.is_none());
    if open && opening.len() < MAX_OPENING { Verdict::Undecided } else { Verdict::NotHttp(NotHttp::Unknown) }
}

/// RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2";

/// A TLS record with a handshake.
const HANDSHAKE: &[u8] = &[0x16, 0x03];

/// What a read that starts like this carries (TLS: RFC 8446, section 5.1).
fn foreign_record(bytes: &[u8]) -> Option<NotHttp> {
    match bytes {
        [0x16, 0x03, ..] | [0x14 | 0x15 | 0x17, 0x03, 0x00..=0x04, ..] => Some(NotHttp::Tls),
        _ if bytes.starts_with(PREFACE) => Some(NotHttp::Http2),
        _ => None,
    }
}
