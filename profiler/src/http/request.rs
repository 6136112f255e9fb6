//! The request direction of a connection.
//!
//! In: bytes and gaps that the server read. Out: the start, head and end of each request, with its facts.

use super::body::{Framing, Gap, Piece};
use super::connection::{Connection, Read, Verdict};
use super::content::{ContentKind, RequestContent};
use super::head::{HeadBuffer, Progress, begins_request, parse_request};
use super::response::ResponseState;
use super::signal::{MalformedReason, Outcome, Signal, SignalKind};

/// Longest request line that is waited for while looking for one.
const MAX_TENTATIVE_LINE: usize = 8 * 1024;

/// Where the request direction stands.
#[derive(Debug)]
pub(super) enum RequestState {
    /// In a head, or before its first byte.
    Head(HeadBuffer),
    Body(Box<RequestBody>),
    /// Behind an unknown place: waits for a request line at a read's start.
    Resync,
    Opaque,
}

/// A request's body.
#[derive(Debug)]
pub(super) struct RequestBody {
    exchange: u32,
    framing: Framing,
    content: RequestContent,
    /// Its chunks were lost and found: what breaks their rules now was none.
    found: bool,
    /// Its client sends no other request.
    last: bool,
}

impl RequestBody {
    fn end(self, complete: bool, time_ns: u64, out: &mut Vec<Signal>) {
        let end = self.content.end(complete);
        out.push(Signal { time_ns, exchange: self.exchange, kind: SignalKind::RequestEnd(Box::new(end)) });
    }
}

impl Connection {
    /// Gives back how many bytes were left, of what is no request.
    pub(super) fn on_request(&mut self, time_ns: u64, read: Read<'_>, out: &mut Vec<Signal>) -> usize {
        let mut bytes = read.bytes;
        if read.begins {
            self.look_for_request(time_ns, bytes, out);
        }
        let first = self.pending.len();
        while !bytes.is_empty() {
            bytes = match &self.request {
                RequestState::Head(_) => self.request_head(time_ns, bytes, out),
                RequestState::Body(_) => self.request_body(time_ns, bytes, out),
                RequestState::Resync | RequestState::Opaque => break,
            };
        }
        self.pipelined |= self.pending.len() > first + 1;
        if read.ends
            && let RequestState::Body(body) = &mut self.request
            && let Some(framing) = body.framing.ended()
        {
            body.content.retract(framing);
            self.end_request_body(true, RequestState::Resync, time_ns, out);
        }
        bytes.len()
    }

    /// At a read's start, where the bytes before it do not tell what stands there.
    fn look_for_request(&mut self, time_ns: u64, bytes: &[u8], out: &mut Vec<Signal>) {
        let begins = begins_request(bytes);
        // A request line never stands inside a head, so it voids one that was only supposed.
        let tentative = match &mut self.request {
            RequestState::Resync => begins != Some(false),
            RequestState::Head(head) => head.tentative && begins == Some(true),
            RequestState::Body(body) if body.framing.is_adrift() => {
                if begins != Some(true) && body.framing.find(bytes) {
                    body.found = true;
                    body.content.gap(0);
                }
                begins == Some(true)
            }
            _ => false,
        };
        if tentative {
            self.end_request_body(false, RequestState::Resync, time_ns, out);
            self.request = RequestState::Head(HeadBuffer::new(true));
        }
    }

    fn request_head<'a>(&mut self, time_ns: u64, bytes: &'a [u8], out: &mut Vec<Signal>) -> &'a [u8] {
        let RequestState::Head(head) = &mut self.request else { return &[] };
        let (rest, progress) = head.push(time_ns, bytes);
        if head.tentative {
            let begins = begins_request(head.bytes());
            let endless = begins.is_none() && head.bytes().len() > MAX_TENTATIVE_LINE;
            if begins == Some(false) || endless {
                self.request = RequestState::Resync;
                return &[];
            }
        }
        match progress {
            Progress::More => {}
            Progress::Complete => self.request_head_complete(time_ns, out),
            Progress::TooLarge => self.bad_request(MalformedReason::HeadTooLarge, time_ns, out),
        }
        rest
    }

    fn request_head_complete(&mut self, time_ns: u64, out: &mut Vec<Signal>) {
        let RequestState::Head(head) = &self.request else { return };
        let (start_ns, tentative, claimed) = (head.start_ns, head.tentative, head.exchange);
        let parsed = match parse_request(head.bytes()) {
            Ok(parsed) => parsed,
            Err(reason) => return self.bad_request(reason, time_ns, out),
        };
        if tentative {
            self.settle(start_ns, out);
        }
        self.verdict = Verdict::Http;
        let method = Some(parsed.head.method);
        let exchange = claimed.unwrap_or_else(|| self.start_exchange(start_ns, method, out));
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.number == exchange) {
            pending.method = method;
        }
        if self.is_opaque() {
            return;
        }
        let head = SignalKind::RequestHead(Box::new(parsed.head));
        out.push(Signal { time_ns, exchange, kind: head });
        self.request = RequestState::Body(Box::new(RequestBody {
            exchange,
            framing: parsed.framing,
            content: RequestContent::new(parsed.content),
            found: false,
            last: !parsed.persistent,
        }));
        // A request without a body ends here.
        self.request_body(time_ns, &[], out);
    }

    /// A request line behind an unknown place: whatever was asked before is answered or given up, since clients
    /// that wait for their response do not ask again.
    fn settle(&mut self, time_ns: u64, out: &mut Vec<Signal>) {
        if !self.pending.is_empty() {
            self.drop_response(Outcome::Partial, time_ns, out);
            self.end_pending(Outcome::Partial, 0, time_ns, out);
            self.response = ResponseState::Await { counted: true };
        }
    }

    /// The request direction is given up. The server's answer is still read: it is mostly a 400.
    fn bad_request(&mut self, reason: MalformedReason, time_ns: u64, out: &mut Vec<Signal>) {
        let RequestState::Head(head) = &self.request else { return };
        if head.tentative {
            self.request = RequestState::Resync;
            return;
        }
        let exchange = self.claim_request(out);
        let kind = SignalKind::Malformed(reason);
        out.extend(exchange.map(|exchange| Signal { time_ns, exchange, kind }));
        self.end_request(time_ns, out);
        self.request = RequestState::Opaque;
    }

    /// Gives an incomplete head its exchange: something needs it before the head is complete.
    pub(super) fn claim_request(&mut self, out: &mut Vec<Signal>) -> Option<u32> {
        let RequestState::Head(head) = &self.request else { return None };
        if head.exchange.is_some() || head.tentative || head.is_empty() {
            return head.exchange;
        }
        let exchange = self.start_exchange(head.start_ns, None, out);
        if let RequestState::Head(head) = &mut self.request {
            head.exchange = Some(exchange);
        }
        Some(exchange)
    }

    fn request_body<'a>(&mut self, time_ns: u64, mut bytes: &'a [u8], out: &mut Vec<Signal>) -> &'a [u8] {
        loop {
            let RequestState::Body(body) = &mut self.request else { return bytes };
            match body.framing.next(&mut bytes) {
                Piece::More => return bytes,
                Piece::Data { bytes, .. } => body.content.feed(bytes),
                Piece::Unframed(bytes) => body.content.unframed(bytes),
                Piece::End => {
                    let head = RequestState::Head(HeadBuffer::new(false));
                    let next = if body.last { RequestState::Opaque } else { head };
                    self.end_request_body(true, next, time_ns, out);
                    return bytes;
                }
                Piece::Bad(_) if body.found => {
                    self.end_request_body(false, RequestState::Resync, time_ns, out);
                    return &[];
                }
                Piece::Bad(reason) => {
                    let exchange = body.exchange;
                    out.push(Signal { time_ns, exchange, kind: SignalKind::Malformed(reason) });
                    self.end_request_body(false, RequestState::Opaque, time_ns, out);
                    return &[];
                }
            }
        }
    }

    fn end_request_body(&mut self, complete: bool, next: RequestState, time_ns: u64, out: &mut Vec<Signal>) {
        if !matches!(self.request, RequestState::Body(_)) {
            return;
        }
        if let RequestState::Body(body) = std::mem::replace(&mut self.request, next) {
            body.end(complete, time_ns, out);
        }
    }

    /// The exchange was answered to the end. If the end of its request is in what was lost, it is over now.
    pub(super) fn end_adrift_request(&mut self, exchange: u32, time_ns: u64, out: &mut Vec<Signal>) {
        if let RequestState::Body(body) = &self.request
            && body.exchange == exchange
            && body.framing.is_adrift()
        {
            self.end_request_body(false, RequestState::Resync, time_ns, out);
        }
    }

    /// Bytes of the request direction are missing.
    pub(super) fn request_gap(&mut self, time_ns: u64, len: u64, inside: bool, out: &mut Vec<Signal>) {
        let RequestState::Body(body) = &mut self.request else {
            self.request_gap = true;
            self.end_request(time_ns, out);
            if !matches!(self.request, RequestState::Opaque) {
                self.request = RequestState::Resync;
            }
            return;
        };
        match body.framing.gap(len) {
            Gap::Inside(payload) => {
                body.content.gap(payload);
                self.request_body(time_ns, &[], out);
            }
            Gap::Ended { payload, .. } => {
                body.content.gap(payload);
                self.request_gap = true;
                self.end_request_body(true, RequestState::Resync, time_ns, out);
            }
            // Inside one read the client has not begun another request, unless it does not wait for answers.
            Gap::Adrift(lost) if inside && !self.pipelined => {
                self.request_gap = true;
                body.content.gap(lost);
            }
            Gap::Adrift(_) | Gap::Lost => {
                self.request_gap = true;
                self.end_request_body(false, RequestState::Resync, time_ns, out);
            }
        }
    }

    /// Nothing more of the current request will be seen.
    pub(super) fn end_request(&mut self, time_ns: u64, out: &mut Vec<Signal>) {
        if let Some(exchange) = self.claim_request(out) {
            let end = RequestContent::new(ContentKind::NONE).end(false);
            out.push(Signal { time_ns, exchange, kind: SignalKind::RequestEnd(Box::new(end)) });
            self.request = RequestState::Resync;
        }
        self.end_request_body(false, RequestState::Resync, time_ns, out);
    }
}
