//! The response direction of a connection.
//!
//! In: bytes and gaps that the server wrote. Out: the start, head, tokens, facts and end of each response, matched
//! to requests in their order.

use super::body::{Framing, Gap, Piece};
use super::connection::{Connection, End, Exchange, Missed, Read, Verdict};
use super::content::{ContentKind, ResponseContent};
use super::facts::Emit;
use super::head::{HeadBuffer, ParsedResponse, Progress, begins_response, parse_response};
use super::signal::{MalformedReason, Method, Outcome, Protocol, Signal, SignalKind, Streaming};

/// Where the response direction stands.
#[derive(Debug)]
pub(super) enum ResponseState {
    /// In a head, or before its first byte.
    Head(HeadBuffer),
    Body(Box<ResponseBody>),
    /// Behind an unknown place: waits for a status line at a read's start. `counted`: the bytes until then belong
    /// to an exchange that was already told.
    Await {
        counted: bool,
    },
    Opaque,
}

/// A response's body.
#[derive(Debug)]
pub(super) struct ResponseBody {
    exchange: Exchange,
    framing: Framing,
    content: ResponseContent,
    streaming: Streaming,
    /// The next byte is the first of its write.
    boundary: bool,
    /// Its chunks were lost and found: what breaks their rules now was none.
    found: bool,
}

impl ResponseBody {
    pub(super) fn is_adrift(&self) -> bool {
        self.framing.is_adrift()
    }

    fn feed(&mut self, bytes: &[u8], fresh: bool, time_ns: u64, out: &mut Vec<Signal>) {
        let read = std::mem::take(&mut self.boundary);
        let boundary = if matches!(self.framing, Framing::Chunked(_)) { fresh } else { read };
        self.content.feed(bytes, boundary, time_ns, out);
    }

    fn end(self, outcome: Outcome, time_ns: u64, out: &mut Vec<Signal>) {
        let outcome = if self.exchange.partial { Outcome::Partial } else { outcome };
        self.content.end(outcome, time_ns, out);
    }
}

impl Connection {
    /// Gives back how many bytes were left, of what is no response.
    pub(super) fn on_response(&mut self, time_ns: u64, read: Read<'_>, out: &mut Vec<Signal>) -> usize {
        let mut bytes = read.bytes;
        if read.begins {
            self.look_for_response(time_ns, bytes, out);
        }
        if let ResponseState::Await { counted } = self.response {
            self.stray_response(counted, time_ns, bytes, out);
            return bytes.len();
        }
        while !bytes.is_empty() {
            bytes = match &self.response {
                ResponseState::Head(_) => self.response_head(time_ns, bytes, out),
                ResponseState::Body(_) => self.response_body(time_ns, bytes, out),
                ResponseState::Await { .. } | ResponseState::Opaque => break,
            };
        }
        if read.ends
            && let ResponseState::Body(body) = &mut self.response
            && let Some(framing) = body.framing.ended()
        {
            body.content.retract(framing);
            self.finish_response(Outcome::Complete, ResponseState::Await { counted: true }, time_ns, out);
        }
        bytes.len()
    }

    /// At a write's start, where the bytes before it do not tell what stands there.
    fn look_for_response(&mut self, time_ns: u64, bytes: &[u8], out: &mut Vec<Signal>) {
        match &mut self.response {
            ResponseState::Await { .. } if begins_response(bytes) != Some(false) => {
                self.response = ResponseState::Head(HeadBuffer::new(true));
            }
            ResponseState::Body(body) if body.is_adrift() && begins_response(bytes) == Some(true) => {
                self.lose_response(time_ns, out);
                self.response = ResponseState::Head(HeadBuffer::new(true));
            }
            ResponseState::Body(body) => {
                body.boundary = true;
                if body.framing.find(bytes) {
                    body.found = true;
                    body.content.rejoin(time_ns, out);
                }
            }
            _ => {}
        }
    }

    /// Bytes from inside a response. They show an exchange, which is told once.
    fn stray_response(&mut self, counted: bool, time_ns: u64, bytes: &[u8], out: &mut Vec<Signal>) {
        if !counted && self.verdict == Verdict::Undecided {
            if !begins_payload(bytes) {
                self.stray_ns.get_or_insert(time_ns);
                return;
            }
            self.verdict = Verdict::Http;
        }
        let time_ns = self.stray_ns.take().unwrap_or(time_ns);
        self.response = ResponseState::Await { counted: true };
        if !self.pending.is_empty() && !counted {
            // The answer to what was asked began in the unknown place.
            self.end_pending(Outcome::Partial, 0, time_ns, out);
        } else if !counted {
            self.start_unseen(time_ns, out);
        }
    }

    /// An exchange whose request was not seen.
    pub(super) fn start_unseen(&mut self, time_ns: u64, out: &mut Vec<Signal>) -> Exchange {
        let exchange =
            Exchange { number: self.claim_number(), method: None, partial: true, after_gap: false };
        self.pending.push_front(exchange);
        out.push(Signal { time_ns, exchange: exchange.number, kind: SignalKind::RequestUnseen });
        exchange
    }

    fn response_head<'a>(&mut self, time_ns: u64, bytes: &'a [u8], out: &mut Vec<Signal>) -> &'a [u8] {
        let ResponseState::Head(head) = &mut self.response else { return &[] };
        let (rest, progress) = head.push(time_ns, bytes);
        if begins_response(head.bytes()) == Some(false) {
            if head.tentative {
                self.response = ResponseState::Await { counted: true };
            } else {
                self.bad_response(MalformedReason::ResponseHead, time_ns, out);
            }
            return &[];
        }
        match progress {
            Progress::More => {}
            Progress::Complete => self.response_head_complete(time_ns, out),
            Progress::TooLarge => self.bad_response(MalformedReason::HeadTooLarge, time_ns, out),
        }
        rest
    }

    fn response_head_complete(&mut self, time_ns: u64, out: &mut Vec<Signal>) {
        let ResponseState::Head(head) = &self.response else { return };
        let start_ns = head.start_ns;
        let parsed = match parse_response(head.bytes()) {
            Ok(parsed) => parsed,
            Err(_) if head.tentative => {
                self.response = ResponseState::Await { counted: true };
                return;
            }
            Err(reason) => return self.bad_response(reason, time_ns, out),
        };
        self.verdict = Verdict::Http;
        self.settle_missed(start_ns, out);
        let exchange = self.answered(start_ns, out);
        let mut emit = Emit { time_ns, exchange: exchange.number, out };
        let status = parsed.head.status;
        if (100..200).contains(&status) && status != 101 {
            emit.push(SignalKind::Informational { status });
            self.response = ResponseState::Head(HeadBuffer::new(false));
            return;
        }
        Emit { time_ns: start_ns, exchange: exchange.number, out: emit.out }.push(SignalKind::ResponseStart);
        emit.push(SignalKind::ResponseHead(Box::new(parsed.head.clone())));
        let tunnel = exchange.method == Some(Method::Connect) && (200..300).contains(&status);
        let upgrade = if tunnel { Protocol::Tunnel } else { parsed.upgrade };
        self.response = ResponseState::Body(Box::new(response_body(exchange, parsed)));
        if status == 101 || tunnel {
            emit.push(SignalKind::Upgraded(upgrade));
            self.set_upgrade(upgrade, exchange.number);
            return self.end_upgraded(time_ns, out);
        }
        // A response without a body ends here.
        self.response_body(time_ns, &[], out);
    }

    /// A response came behind missing bytes. It is not the only waiting exchange's if those were, and not surely the
    /// last one's if it is not known whose they were.
    fn settle_missed(&mut self, start_ns: u64, out: &mut Vec<Signal>) {
        match self.missed.take() {
            None => {}
            Some(Missed::TheOnly) => self.end_pending(Outcome::Partial, 0, start_ns, out),
            Some(Missed::Somebodys) => self.pending.iter_mut().for_each(|exchange| exchange.partial = true),
        }
    }

    /// The exchange that the response belongs to.
    fn answered(&mut self, start_ns: u64, out: &mut Vec<Signal>) -> Exchange {
        if let Some(time_ns) = self.stray_ns.take() {
            self.start_unseen(time_ns, out);
            self.end_pending(Outcome::Partial, self.pending.len().saturating_sub(1), start_ns, out);
        }
        if self.pending.is_empty() {
            // Answers may come before the head is complete (431, 408).
            self.claim_request(out);
        }
        match self.pending.front() {
            Some(exchange) => *exchange,
            None => self.start_unseen(start_ns, out),
        }
    }

    fn end_upgraded(&mut self, time_ns: u64, out: &mut Vec<Signal>) {
        self.end_request(time_ns, out);
        self.finish_response(Outcome::Complete, ResponseState::Opaque, time_ns, out);
        self.end_pending(Outcome::Partial, 0, time_ns, out);
        self.go_opaque();
    }

    fn bad_response(&mut self, reason: MalformedReason, time_ns: u64, out: &mut Vec<Signal>) {
        let exchange = self.answered(time_ns, out).number;
        self.end_request(time_ns, out);
        self.malformed(reason, time_ns, exchange, out);
    }

    fn response_body<'a>(&mut self, time_ns: u64, mut bytes: &'a [u8], out: &mut Vec<Signal>) -> &'a [u8] {
        loop {
            let ResponseState::Body(body) = &mut self.response else { return bytes };
            match body.framing.next(&mut bytes) {
                Piece::More => return bytes,
                Piece::Data { bytes, fresh } => body.feed(bytes, fresh, time_ns, out),
                Piece::Unframed(bytes) => body.content.unframed(bytes),
                Piece::End => {
                    let next = ResponseState::Head(HeadBuffer::new(false));
                    self.finish_response(Outcome::Complete, next, time_ns, out);
                    return bytes;
                }
                Piece::Bad(_) if body.found => {
                    self.lose_response(time_ns, out);
                    return &[];
                }
                Piece::Bad(reason) => {
                    self.bad_response(reason, time_ns, out);
                    return &[];
                }
            }
        }
    }

    fn finish_response(
        &mut self,
        outcome: Outcome,
        next: ResponseState,
        time_ns: u64,
        out: &mut Vec<Signal>,
    ) {
        if let ResponseState::Body(body) = std::mem::replace(&mut self.response, next) {
            self.end_adrift_request(body.exchange.number, time_ns, out);
            self.pending.retain(|pending| pending.number != body.exchange.number);
            body.end(outcome, time_ns, out);
        }
    }

    /// Ends the response that is under way, if one is, without a word on what follows.
    pub(super) fn drop_response(&mut self, outcome: Outcome, time_ns: u64, out: &mut Vec<Signal>) {
        if let ResponseState::Head(head) = &self.response
            && !head.is_empty()
            && !head.tentative
        {
            let time_ns = head.start_ns;
            let exchange = self.answered(time_ns, out).number;
            out.push(Signal { time_ns, exchange, kind: SignalKind::ResponseStart });
        }
        self.finish_response(outcome, ResponseState::Await { counted: true }, time_ns, out);
    }

    /// Bytes of the response direction are missing.
    pub(super) fn response_gap(&mut self, time_ns: u64, len: u64, inside: bool, out: &mut Vec<Signal>) {
        let gap = match &mut self.response {
            ResponseState::Opaque => return,
            ResponseState::Await { .. } => {
                // Was it an earlier answer's end, or this one's beginning?
                if !self.pending.is_empty() {
                    self.missed.get_or_insert(Missed::Somebodys);
                }
                return;
            }
            ResponseState::Head(head) if head.is_empty() => {
                self.miss();
                return self.await_response(time_ns, out);
            }
            ResponseState::Head(_) => Gap::Lost,
            ResponseState::Body(body) => body.framing.gap(len),
        };
        // Inside one write no other response begins, unless another request waits.
        let gap = match gap {
            Gap::Adrift(_) if !inside || self.pending.len() > 1 => Gap::Lost,
            other => other,
        };
        if let (
            ResponseState::Body(body),
            Gap::Inside(payload) | Gap::Ended { payload, .. } | Gap::Adrift(payload),
        ) = (&mut self.response, gap)
        {
            body.content.gap(payload, time_ns, out);
        }
        match gap {
            Gap::Inside(_) => {
                self.response_body(time_ns, &[], out);
            }
            Gap::Adrift(_) => {}
            Gap::Ended { beyond, .. } => {
                self.finish_response(Outcome::Complete, ResponseState::Opaque, time_ns, out);
                if beyond > 0 {
                    self.miss();
                }
                self.await_response(time_ns, out);
            }
            Gap::Lost => self.lose_response(time_ns, out),
        }
    }

    /// The rest of the response under way is missing. A request behind the one that it answers shows that it had
    /// ended; the answer to that request may have begun.
    fn lose_response(&mut self, time_ns: u64, out: &mut Vec<Signal>) {
        let another = self.pending.len() > 1 && !self.pipelined;
        self.drop_response(Outcome::Partial, time_ns, out);
        self.end_pending(Outcome::Partial, usize::from(another), time_ns, out);
        if another {
            self.missed = Some(Missed::Somebodys);
        }
        self.response = ResponseState::Await { counted: !another };
    }

    /// Bytes are missing between two responses.
    fn miss(&mut self) {
        let mut waiting = self.pending.iter();
        let only = matches!((waiting.next(), waiting.next()), (Some(first), None) if !first.after_gap);
        self.missed = Some(if only { Missed::TheOnly } else { Missed::Somebodys });
    }

    /// Waits for a status line. Without pipelining only the last request can still be unanswered.
    fn await_response(&mut self, time_ns: u64, out: &mut Vec<Signal>) {
        self.end_pending(Outcome::Partial, usize::from(!self.pipelined), time_ns, out);
        self.response = ResponseState::Await { counted: false };
    }

    /// The connection ended. `orderly`: the server closed it, which ends a body without a length.
    pub(super) fn end_response(&mut self, end: End, orderly: bool, time_ns: u64, out: &mut Vec<Signal>) {
        let outcome = match &self.response {
            ResponseState::Body(body) if orderly && body.ends_at(end) => Outcome::Complete,
            ResponseState::Body(body) if body.is_adrift() => Outcome::Partial,
            _ if end == End::Detached => Outcome::Partial,
            _ => Outcome::Truncated(end),
        };
        self.drop_response(outcome, time_ns, out);
    }
}

impl ResponseBody {
    /// Whether a close is the body's regular end. A stream's client that left first cut it.
    fn ends_at(&self, end: End) -> bool {
        let cut = self.streaming != Streaming::None && end == End::EndOfInput && !self.content.saw_done();
        self.framing == Framing::UntilClose && !cut
    }
}

/// Whether bytes at a read's start can only be from a stream over HTTP: a chunk's size line, or an event's field.
fn begins_payload(bytes: &[u8]) -> bool {
    let digits = bytes.iter().take(8).take_while(|byte| byte.is_ascii_hexdigit()).count();
    let chunk = digits > 0 && bytes.get(digits..).is_some_and(|rest| rest.starts_with(b"\r\n"));
    chunk || bytes.starts_with(b"data:") || bytes.starts_with(b"event:")
}

/// The body that a head announces (RFC 9112, section 6.3).
fn response_body(exchange: Exchange, parsed: ParsedResponse) -> ResponseBody {
    let none = exchange.method == Some(Method::Head) || matches!(parsed.head.status, 101 | 204 | 304);
    // Generations are asked for by POST. llama.cpp replays a stream's bytes on GET.
    let generation = matches!(exchange.method, None | Some(Method::Post));
    let content = if none { ContentKind::NONE } else { parsed.content };
    ResponseBody {
        exchange,
        framing: if none { Framing::Length(0) } else { parsed.framing },
        content: ResponseContent::new(exchange.number, content, generation),
        streaming: parsed.head.streaming,
        boundary: false,
        found: false,
    }
}
