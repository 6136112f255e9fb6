//! One exchange of a connection as a request's life: when it arrived, was answered, spoke its first token, ended.
//!
//! In: [`Signal`]s of the HTTP observer and the shares of steps it rode in. Out: a [`Request`], finished exactly
//! once. A state that was skipped stays `None`: unknown, not zero.

use super::context::Heard;
use super::inside::Served;
use super::life::{Hook, Life, State, Transition};
use super::ride::{Ride, Share};
use crate::decode::SpanContext;
use crate::evidence::Evidence;
use crate::h2::RpcStatus;
use crate::http::{
    self, Fact, RequestFacts, RequestHead, Rpc, RpcEnd, ServerCount, Signal, SignalKind, Streaming, Usage,
};
use crate::server::route::{self, Route};
use crate::target::Address;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Answered to the end.
    Completed,
    /// The client left first.
    Aborted,
    /// Refused: a 4xx, a gRPC status that blames the client, or a stream that the server did not process.
    Rejected,
    /// The server failed: 5xx, an error in the stream, or it closed before the end.
    Error,
    /// A part of it was not seen.
    Partial,
    /// The process ended under it.
    Lost,
}

impl Outcome {
    /// All of them, in the order of the summary.
    pub const ALL: [Self; 6] =
        [Self::Completed, Self::Aborted, Self::Rejected, Self::Error, Self::Partial, Self::Lost];

    /// The state that a request is in then.
    #[must_use]
    pub fn state(self) -> State {
        match self {
            Self::Completed => State::ResponseDone,
            Self::Aborted => State::Aborted,
            Self::Rejected => State::Rejected,
            Self::Error => State::Error,
            Self::Partial => State::Partial,
            Self::Lost => State::Lost,
        }
    }

    /// The value of `gpuspan.outcome`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Aborted => "aborted",
            Self::Rejected => "rejected",
            Self::Error => "error",
            Self::Partial => "partial",
            Self::Lost => "lost",
        }
    }
}

/// Reasons that are kept of a response: as many as it may have answers that are read.
const MOST_REASONS: usize = 256;

/// Which request of those from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// Its connection.
    pub connection: u64,
    /// Its exchange.
    pub exchange: u32,
}

/// A request and what is known of it. Times are `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Debug)]
pub struct Request {
    /// Process that served it.
    pub pid: u32,
    /// Connection id.
    pub connection: u64,
    /// Number of the exchange on the connection.
    pub exchange: u32,
    /// What the server listens on, if known.
    pub server: Option<Address>,
    /// It came through TLS.
    pub is_encrypted: bool,
    /// What it went through.
    pub life: Life,
    /// What shows its bytes.
    hook: Hook,
    /// First byte seen of it.
    pub opened_ns: u64,
    /// The request itself was seen from its first byte.
    pub seen_from_start: bool,
    /// Its head.
    pub head: Option<Box<RequestHead>>,
    /// Where it went, if the path is one that model servers have.
    pub route: Option<&'static Route>,
    /// It is a gRPC call.
    pub rpc: Option<Box<Rpc>>,
    /// How the call ended.
    pub rpc_end: Option<Box<RpcEnd>>,
    /// Its last byte, or that of a gRPC call's first message: the moment from which it can be queued.
    pub arrived_ns: Option<u64>,
    /// The thread that read it.
    pub thread: Option<u32>,
    /// What threads worked for that moved its bytes.
    heard: Heard,
    /// What its body says.
    pub facts: RequestFacts,
    /// Bytes of its body, without framing; none when its end was not seen.
    pub request_bytes: Option<u64>,
    /// Response status.
    pub status: Option<u16>,
    /// How the response is streamed.
    pub streaming: Streaming,
    /// What the response's content is was not seen, or is not read: how it is streamed does not follow from it.
    pub opaque: bool,
    /// First byte of the response.
    pub answered_ns: Option<u64>,
    /// Bytes of the response's body, without framing; none when its beginning or end was not seen.
    pub response_bytes: Option<u64>,
    /// Events with data, or lines, of a streamed response; none when a part of it was not read.
    pub events: Option<u64>,
    /// First non-empty delta.
    pub first_token_ns: Option<u64>,
    /// Last non-empty delta.
    pub last_token_ns: Option<u64>,
    /// Non-empty deltas seen.
    pub deltas: u64,
    /// Times of deltas, thinned.
    pub delta_times: Thinned,
    /// Response id.
    pub id: Option<String>,
    /// Model as the response names it.
    pub response_model: Option<String>,
    /// Token counts as the server reports them.
    pub usage: Usage,
    /// Why each choice ended.
    pub finish_reasons: Vec<String>,
    /// The response has an error: its type or code.
    pub error: Option<String>,
    /// What its server said of it inside.
    pub served: Option<Box<Served>>,
    /// What the steps that it rode in did for it.
    pub ride: Box<Ride>,
    /// Its end.
    pub ended_ns: u64,
    /// How.
    pub outcome: Outcome,
}

impl Request {
    pub(super) fn new(pid: u32, connection: u64, exchange: u32, opened_ns: u64, hook: Hook) -> Self {
        Self {
            pid,
            connection,
            exchange,
            server: None,
            is_encrypted: hook == Hook::Tls,
            life: Life::default(),
            hook,
            opened_ns,
            seen_from_start: true,
            head: None,
            route: None,
            rpc: None,
            rpc_end: None,
            arrived_ns: None,
            thread: None,
            heard: Heard::default(),
            facts: RequestFacts::default(),
            request_bytes: None,
            status: None,
            streaming: Streaming::None,
            opaque: false,
            answered_ns: None,
            response_bytes: None,
            events: None,
            first_token_ns: None,
            last_token_ns: None,
            deltas: 0,
            delta_times: Thinned::default(),
            id: None,
            response_model: None,
            usage: Usage::default(),
            finish_reasons: Vec::new(),
            error: None,
            served: None,
            ride: Box::default(),
            ended_ns: opened_ns,
            outcome: Outcome::Lost,
        }
    }

    /// Takes one signal; true when it was the last.
    pub(super) fn take(&mut self, signal: Signal) -> bool {
        let time_ns = signal.time_ns;
        match signal.kind {
            SignalKind::RequestStart => {
                self.opened_ns = time_ns;
                self.reach(State::Open, time_ns);
            }
            SignalKind::RequestUnseen => self.seen_from_start = false,
            SignalKind::RequestHead(head) => {
                self.reach(State::Head, time_ns);
                self.route = route::find(&head.path);
                self.head = Some(head);
            }
            SignalKind::RpcStart(rpc) => self.rpc = Some(rpc),
            SignalKind::RpcRequest(facts) => {
                self.arrive(time_ns);
                self.facts = *facts;
            }
            SignalKind::RpcEnd(end) => self.rpc_end = Some(end),
            SignalKind::RequestEnd(end) => {
                // A call's client may send more while the server works on what it has.
                if end.complete && self.arrived_ns.is_none() {
                    self.arrive(time_ns);
                }
                self.request_bytes = end.complete.then_some(end.body_bytes);
                self.facts = end.facts;
            }
            SignalKind::ResponseStart => self.answered_ns = Some(time_ns),
            SignalKind::ResponseHead(head) => {
                self.status = Some(head.status);
                self.streaming = head.streaming;
                self.opaque = head.opaque;
            }
            SignalKind::Token { .. } => self.token(time_ns),
            SignalKind::Fact(fact) => self.learn(fact),
            SignalKind::ResponseEnd(end) => {
                self.measure(end);
                self.finish(time_ns, self.outcome_of(end.outcome));
                return true;
            }
            SignalKind::Informational { .. }
            | SignalKind::InputEnded
            | SignalKind::Upgraded(_)
            | SignalKind::Malformed(_) => {}
        }
        false
    }

    /// A thread that moved bytes of it, of its answer or not, worked for a span.
    pub(super) fn hear(&mut self, context: SpanContext, answers: bool) {
        self.heard.hear(context, answers, self.caller());
    }

    /// The server's own span for it, where the threads that moved its bytes said it.
    #[must_use]
    pub fn context(&self) -> Option<SpanContext> {
        self.heard.span(self.caller())
    }

    /// The traces that it belongs to: its caller's, or the server's own.
    pub fn traces(&self) -> impl Iterator<Item = [u8; 16]> {
        let own = self.context().map(|context| context.trace_id);
        self.caller().or(own).into_iter()
    }

    /// The trace that it came with.
    fn caller(&self) -> Option<[u8; 16]> {
        Some(self.head.as_ref()?.traceparent?.trace_id)
    }

    /// A request of which nothing is known.
    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        Self::new(1, 2, 3, 1000, Hook::Socket)
    }

    /// Ends it as if its last signal had come.
    #[cfg(test)]
    pub(super) fn end_for_test(&mut self, time_ns: u64, outcome: Outcome) {
        self.finish(time_ns, outcome);
    }

    /// The process ended under it.
    pub(super) fn lose(&mut self, time_ns: u64) {
        self.hook = Hook::Process;
        self.finish(time_ns, Outcome::Lost);
    }

    fn arrive(&mut self, time_ns: u64) {
        self.arrived_ns = Some(time_ns);
        self.reach(State::Body, time_ns);
    }

    fn reach(&mut self, state: State, time_ns: u64) {
        self.life.reach(Transition { state, time_ns, hook: self.hook, evidence: Evidence::E1 });
    }

    /// Its rides are over: when the first began is a state of its life, where nobody told it better.
    pub(super) fn rode(&mut self) {
        self.ride.end();
        let first = self.ride.first_step_ns.zip(self.ride.evidence).filter(|_| self.served.is_none());
        if let Some((time_ns, evidence)) = first {
            self.life.insert(Transition { state: State::Prefilling, time_ns, hook: Hook::Gpu, evidence });
        }
    }

    /// Ends the request.
    fn finish(&mut self, time_ns: u64, outcome: Outcome) {
        // Of two threads' records the later may be stamped earlier: no request ends before what it went through.
        let time_ns = self.life.last().map_or(time_ns, |last| last.time_ns.max(time_ns));
        self.reach(outcome.state(), time_ns);
        self.ended_ns = time_ns;
        self.outcome = outcome;
    }

    /// A response that was cut, by whomever, has no size of its own.
    fn measure(&mut self, end: http::ResponseEnd) {
        let whole = self.seen_from_start && end.outcome == http::Outcome::Complete;
        self.response_bytes = whole.then_some(end.body_bytes);
        let streamed = self.streaming != Streaming::None;
        let read = end.lost_bytes == 0 && end.unread.is_none();
        self.events = (whole && streamed && read).then_some(u64::from(end.events));
    }

    fn token(&mut self, time_ns: u64) {
        let first = self.first_token_ns.is_none();
        self.reach(if first { State::FirstToken } else { State::Decoding }, time_ns);
        self.first_token_ns.get_or_insert(time_ns);
        self.last_token_ns = Some(time_ns);
        self.deltas += 1;
        self.delta_times.push(time_ns);
    }

    fn learn(&mut self, fact: Fact) {
        match fact {
            Fact::Id(id) => self.id = Some(id),
            Fact::Model(model) => self.response_model = Some(model),
            Fact::Usage(usage) => self.usage = usage,
            // A server may say it again with every event.
            Fact::FinishReason { .. } if self.finish_reasons.len() >= MOST_REASONS => {}
            Fact::FinishReason { reason, .. } => self.finish_reasons.push(reason),
            Fact::Count(count, value) => self.count(count, value),
            // A shard's steps are of batches, not of one request, and are taken before they come here.
            Fact::Time(..) | Fact::ShardBatches(_) | Fact::ShardStep(_) => {}
            Fact::Error { kind, code } => self.error = kind.or(code).or_else(|| Some("error".to_owned())),
        }
    }

    /// Counts of one server family fill in what `usage` does not say.
    fn count(&mut self, count: ServerCount, value: u64) {
        let slot = match count {
            ServerCount::EvalCount
            | ServerCount::PredictedN
            | ServerCount::TokensPredicted
            | ServerCount::GeneratedTokens => &mut self.usage.output,
            ServerCount::PromptEvalCount | ServerCount::TokensEvaluated => &mut self.usage.input,
            ServerCount::CacheN => &mut self.usage.cached,
            ServerCount::PromptN | ServerCount::DraftN | ServerCount::TokensCached | ServerCount::IdSlot => {
                return;
            }
        };
        slot.get_or_insert(value);
    }

    fn outcome_of(&self, end: http::Outcome) -> Outcome {
        let status = self.status.unwrap_or(0);
        match end {
            http::Outcome::Partial => Outcome::Partial,
            _ if !self.seen_from_start => Outcome::Partial,
            http::Outcome::Refused => Outcome::Rejected,
            http::Outcome::Truncated(http::End::Closed | http::End::SentAll) => Outcome::Error,
            http::Outcome::Truncated(http::End::ProcessExited) => Outcome::Lost,
            http::Outcome::Truncated(_) => Outcome::Aborted,
            http::Outcome::Complete if status >= 500 || self.error.is_some() && status < 400 => {
                Outcome::Error
            }
            http::Outcome::Complete if status >= 400 => Outcome::Rejected,
            http::Outcome::Complete if self.rpc.is_some() => self.rpc_outcome(),
            http::Outcome::Complete => Outcome::Completed,
        }
    }

    /// Of a call that was answered, by its status.
    fn rpc_outcome(&self) -> Outcome {
        match RpcStatus::of(self.rpc_end.as_ref().and_then(|end| end.status)) {
            RpcStatus::Ok => Outcome::Completed,
            RpcStatus::Cancelled => Outcome::Aborted,
            RpcStatus::ServerError => Outcome::Error,
            RpcStatus::ClientError => Outcome::Rejected,
        }
    }

    /// Which it is.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner { connection: self.connection, exchange: self.exchange }
    }

    /// It asks a model to generate or embed: only such requests have a queue, a prefill and a share of the GPU.
    #[must_use]
    pub fn is_inference(&self) -> bool {
        self.route.is_some_and(|route| route.operation.is_some())
    }

    /// From the last byte of the request to the first non-empty delta, nanoseconds.
    #[must_use]
    pub fn time_to_first_token_ns(&self) -> Option<u64> {
        self.first_token_ns?.checked_sub(self.arrived_ns?)
    }

    /// Tokens generated, as the server reports them.
    #[must_use]
    pub fn output_tokens(&self) -> Option<u64> {
        self.usage.output
    }

    /// Tokens of its prompt that had to be computed, as the server reports them: those that a cache held are left out.
    #[must_use]
    pub fn computed_input_tokens(&self) -> Option<u64> {
        let cached =
            self.usage.cached.filter(|_| self.route.is_some_and(|route| !route.counts_cached_apart()));
        Some(self.usage.input?.saturating_sub(cached.unwrap_or(0)))
    }

    /// GPU work of both phases.
    #[must_use]
    pub fn share(&self) -> Share {
        self.ride.share()
    }

    /// Weakest evidence of its edges to steps.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        self.ride.evidence.unwrap_or(Evidence::E4)
    }
}

/// Times of a growing series, at most [`Thinned::MOST`] of them: when full, every second one goes and from then on
/// only every second one comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thinned {
    times: Vec<u64>,
    seen: u64,
    stride_log2: u32,
}

impl Thinned {
    /// Events on a decode span: enough to see a stall, small beside the 256 KB of a trace (63 bytes each).
    pub const MOST: usize = 64;

    fn push(&mut self, time_ns: u64) {
        let wanted = self.seen.trailing_zeros() >= self.stride_log2;
        self.seen += 1;
        if !wanted {
            return;
        }
        if self.times.len() == Self::MOST {
            let mut index = 0;
            self.times.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride_log2 += 1;
            // The one that overflowed stands on an even place of the thinner series, so it stays.
        }
        self.times.push(time_ns);
    }

    /// What was kept, oldest first, with its ordinal counted from 0.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        (0u64..).map(|n| n << self.stride_log2).zip(self.times.iter().copied())
    }

    /// How many were left out.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.seen - self.times.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_the_first_and_an_even_spread() {
        let mut series = Thinned::default();
        for time in 0..1000 {
            series.push(time);
        }
        assert!(series.iter().all(|(ordinal, time)| ordinal == time), "{series:?}");
        let kept = series.iter().count();
        assert!((32..=64).contains(&kept), "{kept}");
        assert_eq!(series.left_out(), 1000 - kept as u64);
    }

    #[test]
    fn a_reason_that_is_said_with_every_event_is_kept_so_often() {
        let mut request = Request::for_test();
        for _ in 0..1000 {
            let reason = Fact::FinishReason { choice: 0, reason: "stop".to_owned() };
            request.take(signal(1, SignalKind::Fact(reason)));
        }
        assert_eq!(request.finish_reasons.len(), MOST_REASONS);
    }

    #[test]
    fn no_request_ends_before_what_it_went_through() {
        let mut request = Request::for_test();
        request.take(signal(5000, SignalKind::RequestStart));
        request.take(signal(6000, SignalKind::Token { choice: 0, event: 1, token_ids: None }));
        request.lose(5500);
        assert_eq!((request.ended_ns, request.life.violations), (6000, 0));
    }

    fn signal(time_ns: u64, kind: SignalKind) -> Signal {
        Signal { time_ns, exchange: 0, kind }
    }

    fn end(outcome: http::Outcome) -> SignalKind {
        SignalKind::ResponseEnd(http::ResponseEnd {
            outcome,
            body_bytes: 0,
            lost_bytes: 0,
            unread: None,
            events: 0,
            saw_done: false,
        })
    }

    fn status(status: u16) -> SignalKind {
        SignalKind::ResponseHead(Box::new(http::ResponseHead {
            status,
            streaming: Streaming::None,
            opaque: false,
            request_id: None,
            content_length: None,
        }))
    }

    #[test]
    fn outcomes() {
        let error = || SignalKind::Fact(Fact::Error { kind: None, code: None });
        for (signals, outcome) in [
            (vec![status(200), end(http::Outcome::Complete)], Outcome::Completed),
            (vec![status(200), error(), end(http::Outcome::Complete)], Outcome::Error),
            (vec![status(429), error(), end(http::Outcome::Complete)], Outcome::Rejected),
            (vec![status(503), end(http::Outcome::Complete)], Outcome::Error),
            (vec![status(200), end(http::Outcome::Truncated(http::End::EndOfInput))], Outcome::Aborted),
            (vec![status(200), end(http::Outcome::Truncated(http::End::Failed))], Outcome::Aborted),
            (vec![end(http::Outcome::Truncated(http::End::Closed))], Outcome::Error),
            (vec![end(http::Outcome::Refused)], Outcome::Rejected),
            (vec![status(200), end(http::Outcome::Partial)], Outcome::Partial),
            (vec![SignalKind::RequestUnseen, end(http::Outcome::Complete)], Outcome::Partial),
        ] {
            let mut request = Request::new(1, 2, 3, 4, Hook::Socket);
            let mut last = false;
            for kind in signals {
                assert!(!last, "the end comes last");
                last = request.take(signal(9, kind));
            }
            assert!(last);
            assert_eq!((request.outcome, request.ended_ns), (outcome, 9));
        }
    }

    #[test]
    fn outcomes_of_calls() {
        let call = || SignalKind::RpcStart(Box::new(Rpc { method: "s/m".to_owned(), timeout_ns: None }));
        let ended = |status| {
            let (request, response) = (http::Messages::default(), http::Messages::default());
            let end = RpcEnd { status, request, response, first_response_ns: None, last_responses: 0 };
            SignalKind::RpcEnd(Box::new(end))
        };
        for (code, outcome) in [
            (Some(0), Outcome::Completed),
            (Some(1), Outcome::Aborted),
            (Some(2), Outcome::Error),
            (Some(4), Outcome::Error),
            (Some(5), Outcome::Rejected),
            (Some(8), Outcome::Rejected),
            (Some(12), Outcome::Error),
            (Some(99), Outcome::Error),
            (None, Outcome::Error),
        ] {
            let mut request = Request::new(1, 2, 3, 4, Hook::Socket);
            for kind in [call(), status(200), ended(code), end(http::Outcome::Complete)] {
                request.take(signal(9, kind));
            }
            assert_eq!(request.outcome, outcome, "{code:?}");
        }
    }

    #[test]
    fn a_call_can_be_queued_from_its_first_message_on() {
        let mut request = Request::new(1, 2, 3, 4, Hook::Socket);
        request.take(signal(100, SignalKind::RpcRequest(Box::default())));
        let ended = http::RequestEnd {
            complete: true,
            body_bytes: 0,
            lost_bytes: 0,
            unread: None,
            facts: RequestFacts::default(),
        };
        request.take(signal(200, SignalKind::RequestEnd(Box::new(ended))));
        assert_eq!(request.arrived_ns, Some(100));
    }

    #[test]
    fn the_first_token_counts_from_the_last_byte_of_the_request() {
        let mut request = Request::new(1, 2, 3, 4, Hook::Socket);
        let arrived = http::RequestEnd {
            complete: true,
            body_bytes: 0,
            lost_bytes: 0,
            unread: None,
            facts: RequestFacts::default(),
        };
        request.take(signal(100, SignalKind::RequestEnd(Box::new(arrived))));
        for time in [150, 160] {
            request.take(signal(time, SignalKind::Token { choice: 0, event: 1, token_ids: None }));
        }
        assert_eq!(request.time_to_first_token_ns(), Some(50));
        assert_eq!((request.deltas, request.last_token_ns), (2, Some(160)));
    }
}
