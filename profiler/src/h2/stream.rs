//! One stream: a request and its response (RFC 9113, section 8.1).
//!
//! In: header blocks, payload, gaps and ends of one stream. Out: [`Signal`]s, of which each stream that started has
//! exactly one `ResponseEnd`.

use super::grpc::{self, Call, teller};
use super::head;
use super::header::Fields;
use super::reader::Block;
use crate::http::content::{ContentKind, RequestContent, ResponseContent};
use crate::http::{Method, Outcome, Signal, SignalKind};

/// Looks at streams under way that one may let pass without a sign of life, once it may have ended unseen.
const MAX_DOUBT: u8 = 4;

/// A stream under way.
#[derive(Debug)]
pub(super) struct Stream {
    id: u32,
    /// Not known before, or without, the head.
    method: Option<Method>,
    /// A part of it is hidden.
    partial: bool,
    /// It may have ended unseen: only a complete response tells. How often others were looked at since its last sign
    /// of life.
    doubt: Option<u8>,
    /// Gone when the request is over.
    request: Option<RequestContent>,
    response: Response,
    /// It is a gRPC call.
    call: Option<Box<Call>>,
}

#[derive(Debug)]
enum Response {
    /// For its head.
    Wait,
    Body(Box<ResponseContent>),
}

impl Stream {
    /// A request began with its head.
    pub(super) fn open(block: &Block, fields: &Fields, time_ns: u64, out: &mut Vec<Signal>) -> Self {
        let asked = head::request(fields);
        let mut stream = Self {
            id: block.stream,
            method: asked.head.as_ref().map(|head| head.method),
            partial: asked.partial,
            doubt: None,
            request: Some(RequestContent::new(asked.content)),
            response: Response::Wait,
            call: None,
        };
        stream.say(SignalKind::RequestStart, block.start_ns, out);
        if let Some(head) = asked.head {
            stream.say(SignalKind::RequestHead(Box::new(head)), time_ns, out);
        }
        if grpc::is_call(fields) {
            let (call, rpc) = Call::new(fields);
            stream.call = Some(Box::new(call));
            stream.say(SignalKind::RpcStart(Box::new(rpc)), time_ns, out);
        }
        if block.end_stream {
            stream.end_request(true, time_ns, out);
        }
        stream
    }

    /// A stream whose beginning was not seen.
    pub(super) fn unseen(id: u32, time_ns: u64, out: &mut Vec<Signal>) -> Self {
        let stream = Self {
            id,
            method: None,
            partial: true,
            doubt: None,
            request: None,
            response: Response::Wait,
            call: None,
        };
        stream.say(SignalKind::RequestUnseen, time_ns, out);
        stream
    }

    fn say(&self, kind: SignalKind, time_ns: u64, out: &mut Vec<Signal>) {
        out.push(Signal { time_ns, exchange: self.id, kind });
    }

    pub(super) fn request_data(&mut self, bytes: &[u8], time_ns: u64, out: &mut Vec<Signal>) {
        if let Some(request) = &mut self.request {
            request.feed(bytes);
            if let Some(call) = &mut self.call {
                call.request(bytes, &mut teller(self.id, time_ns, out));
            }
        }
    }

    /// Bytes of the request's payload were not copied.
    pub(super) fn request_gap(&mut self, bytes: u64, time_ns: u64, out: &mut Vec<Signal>) {
        if let Some(request) = self.request.as_mut().filter(|_| bytes > 0) {
            request.gap(bytes);
            if let Some(call) = &mut self.call {
                call.request_gap(bytes, &mut teller(self.id, time_ns, out));
            }
        }
    }

    /// The request is over, or nothing more of it is known.
    pub(super) fn end_request(&mut self, complete: bool, time_ns: u64, out: &mut Vec<Signal>) {
        if let Some(request) = self.request.take() {
            let mut end = request.end(complete);
            if let Some(call) = &self.call {
                end.facts = call.facts();
            }
            self.say(SignalKind::RequestEnd(Box::new(end)), time_ns, out);
        }
    }

    /// Frames of the request direction are missing.
    pub(super) fn lose_request(&mut self, time_ns: u64, out: &mut Vec<Signal>) {
        self.partial |= self.request.is_some();
        if let Some(call) = self.call.as_mut().filter(|_| self.request.is_some()) {
            call.lose_request();
        }
        self.doubt.get_or_insert(0);
        self.end_request(false, time_ns, out);
    }

    /// Frames of the response direction are missing. False if it was being answered: then its end may be among them,
    /// and what comes of it is a part. A head that comes later shows that nothing of it was.
    pub(super) fn survives_lost_responses(&mut self) -> bool {
        self.doubt.get_or_insert(0);
        matches!(self.response, Response::Wait)
    }

    /// Others ended. True if it has shown no sign of life for so long that it is thought to have ended unseen.
    pub(super) fn seems_gone(&mut self) -> bool {
        let Some(doubt) = &mut self.doubt else { return false };
        *doubt += 1;
        *doubt > MAX_DOUBT
    }

    fn live(&mut self) {
        self.doubt = self.doubt.map(|_| 0);
    }

    /// The client sends nothing more on the connection.
    pub(super) fn input_ended(&mut self, time_ns: u64, out: &mut Vec<Signal>) {
        self.end_request(false, time_ns, out);
        self.say(SignalKind::InputEnded, time_ns, out);
    }

    /// A header block of the response: interim, final or trailers.
    pub(super) fn response_block(
        &mut self,
        block: &Block,
        fields: &Fields,
        time_ns: u64,
        out: &mut Vec<Signal>,
    ) {
        self.live();
        if let Some(call) = self.call.as_mut().filter(|_| block.end_stream) {
            self.partial |= !call.trailers(fields);
        }
        if matches!(self.response, Response::Body(_)) {
            return;
        }
        let head = head::response(fields);
        if let Some((head, _)) = &head
            && (100..200).contains(&head.status)
            && !block.end_stream
        {
            return self.say(SignalKind::Informational { status: head.status }, time_ns, out);
        }
        self.say(SignalKind::ResponseStart, block.start_ns, out);
        let mut content = ContentKind::NONE;
        if let Some((head, kind)) = head {
            let none = self.method == Some(Method::Head) || matches!(head.status, 204 | 304);
            content = if none { ContentKind::NONE } else { kind };
            self.say(SignalKind::ResponseHead(Box::new(head)), time_ns, out);
        } else {
            // Its status is in a part of the table that was not seen, or trailers came for a head.
            self.partial = true;
        }
        let generation = matches!(self.method, None | Some(Method::Post));
        self.response = Response::Body(Box::new(ResponseContent::new(self.id, content, generation)));
    }

    /// `fresh`: the first bytes of a frame.
    pub(super) fn response_data(&mut self, bytes: &[u8], fresh: bool, time_ns: u64, out: &mut Vec<Signal>) {
        self.miss_head(time_ns, out);
        if let Response::Body(content) = &mut self.response {
            content.feed(bytes, fresh, time_ns, out);
        }
        if let Some(call) = &mut self.call {
            call.response(bytes, time_ns, &mut teller(self.id, time_ns, out));
        }
    }

    /// Bytes of the response's payload were not copied.
    pub(super) fn response_gap(&mut self, bytes: u64, time_ns: u64, out: &mut Vec<Signal>) {
        self.miss_head(time_ns, out);
        if let Response::Body(content) = &mut self.response {
            content.gap(bytes, time_ns, out);
        }
        if let Some(call) = &mut self.call {
            call.response_gap(bytes, time_ns, &mut teller(self.id, time_ns, out));
        }
    }

    /// Payload came: if its head did not, it was missed.
    fn miss_head(&mut self, time_ns: u64, out: &mut Vec<Signal>) {
        self.live();
        if matches!(self.response, Response::Wait) {
            self.say(SignalKind::ResponseStart, time_ns, out);
            self.partial = true;
            self.response = Response::Body(Box::new(ResponseContent::new(self.id, ContentKind::NONE, false)));
        }
    }

    /// The stream is over.
    pub(super) fn end(mut self, outcome: Outcome, time_ns: u64, out: &mut Vec<Signal>) {
        self.end_request(false, time_ns, out);
        let headless = matches!(self.response, Response::Wait) && outcome == Outcome::Complete;
        let hidden = self.partial || headless || (self.doubt.is_some() && outcome != Outcome::Complete);
        let outcome = if hidden { Outcome::Partial } else { outcome };
        if let Some(call) = &self.call {
            self.say(SignalKind::RpcEnd(Box::new(call.end())), time_ns, out);
        }
        let content = match self.response {
            Response::Body(content) => *content,
            Response::Wait => ResponseContent::new(self.id, ContentKind::NONE, false),
        };
        content.end(outcome, time_ns, out);
    }
}
