//! A finished request → its trace: the SERVER span and, for inference, `queue`, `prefill` and `decode` under it.
//!
//! The parts of the breakdown add up to the span's duration to the nanosecond; what nothing explains is `unknown`.

use super::ids::Ids;
use super::model::{Attribute, Event, Kind, Resource, Span, SpanId, Status, Value};
use crate::correlate::{Outcome, Request, Share};
use crate::h2::{RpcStatus, status_name};
use crate::http::{HttpVersion, Streaming};
use crate::metric::catalog::attribute as name;
use crate::target::Address;
use std::borrow::Cow;
use std::sync::Arc;

/// The W3C flag "sampled".
const SAMPLED: u8 = 1;

/// The spans of a request, SERVER span first; none when its caller chose not to sample the trace.
///
/// `unix_offset_ns` is what Unix time is ahead of `CLOCK_MONOTONIC`.
#[must_use]
pub fn trace(request: &Request, resource: &Arc<Resource>, ids: Ids, unix_offset_ns: i64) -> Vec<Span> {
    let caller = request.head.as_ref().and_then(|head| head.traceparent);
    if caller.is_some_and(|caller| caller.flags & SAMPLED == 0) {
        return Vec::new();
    }
    let id = |index| ids.span(request.connection, request.exchange, request.opened_ns, index);
    let unix = |time_ns: u64| time_ns.saturating_add_signed(unix_offset_ns);
    let parts = Parts::of(request);
    let server = Span {
        resource: Arc::clone(resource),
        trace_id: caller.map_or_else(
            || ids.trace(request.connection, request.exchange, request.opened_ns),
            |caller| caller.trace_id,
        ),
        span_id: id(0),
        parent: caller.map(|caller| caller.parent),
        parent_is_remote: caller.is_some(),
        trace_state: request.head.as_ref().and_then(|head| head.tracestate.clone()).unwrap_or_default(),
        name: span_name(request),
        kind: Kind::Server,
        start_ns: unix(request.opened_ns),
        end_ns: unix(request.ended_ns),
        attributes: attributes(request, &parts),
        dropped_attributes: 0,
        events: Vec::new(),
        dropped_events: 0,
        links: Vec::new(),
        dropped_links: 0,
        status: status(request),
    };
    let mut spans = vec![server];
    for (index, phase) in (1u64..).zip(parts.phases()) {
        spans.push(child(&spans, request, &phase, id(index), unix));
    }
    spans
}

/// A child span before it has ids.
struct Phase {
    name: &'static str,
    start_ns: u64,
    end_ns: u64,
    share: Option<Share>,
}

fn child(
    spans: &[Span],
    request: &Request,
    phase: &Phase,
    span_id: SpanId,
    unix: impl Fn(u64) -> u64,
) -> Span {
    let server = spans.first();
    let mut attributes = vec![(name::GPUSPAN_EVIDENCE, text(request.evidence.name()))];
    attributes.extend(phase.share.iter().flat_map(share_attributes));
    let decode = phase.name == DECODE;
    let events = request.delta_times.iter().filter(|_| decode).map(|(ordinal, time_ns)| Event {
        name: Cow::Borrowed("token"),
        time_ns: unix(time_ns),
        attributes: vec![(name::GPUSPAN_DELTA_INDEX, int(ordinal))],
    });
    Span {
        resource: server.map(|span| Arc::clone(&span.resource)).unwrap_or_default(),
        trace_id: server.map(|span| span.trace_id).unwrap_or_default(),
        span_id,
        parent: server.map(|span| span.span_id),
        parent_is_remote: false,
        trace_state: server.map(|span| span.trace_state.clone()).unwrap_or_default(),
        name: phase.name.into(),
        kind: Kind::Internal,
        start_ns: unix(phase.start_ns),
        end_ns: unix(phase.end_ns),
        attributes,
        dropped_attributes: 0,
        events: events.collect(),
        dropped_events: if decode {
            u32::try_from(request.delta_times.left_out()).unwrap_or(u32::MAX)
        } else {
            0
        },
        links: Vec::new(),
        dropped_links: 0,
        status: Status::Unset,
    }
}

const QUEUE: &str = "queue";
const PREFILL: &str = "prefill";
const DECODE: &str = "decode";

/// The moments that divide a request's life, as far as they are known, in order.
struct Parts {
    opened_ns: u64,
    arrived_ns: Option<u64>,
    first_step_ns: Option<u64>,
    first_token_ns: Option<u64>,
    last_token_ns: Option<u64>,
    ended_ns: u64,
    prefill: Share,
    decode: Share,
}

impl Parts {
    fn of(request: &Request) -> Self {
        let first_token_ns = request.first_token_ns;
        // A step that began after the first token says nothing about the queue.
        let first_step_ns =
            request.first_step_ns.filter(|step| first_token_ns.is_none_or(|token| *step <= token));
        Self {
            opened_ns: request.opened_ns,
            arrived_ns: request.arrived_ns.filter(|_| request.is_inference()),
            first_step_ns,
            first_token_ns,
            last_token_ns: request.last_token_ns,
            ended_ns: request.ended_ns,
            prefill: request.prefill,
            decode: request.decode,
        }
    }

    fn phases(&self) -> Vec<Phase> {
        let mut phases = Vec::new();
        let Some(arrived_ns) = self.arrived_ns else { return phases };
        let mut add = |name, start_ns, end_ns, share| phases.push(Phase { name, start_ns, end_ns, share });
        if let Some(first_step_ns) = self.first_step_ns {
            add(QUEUE, arrived_ns, first_step_ns, None);
        }
        if let Some(first_token_ns) = self.first_token_ns {
            add(PREFILL, self.first_step_ns.unwrap_or(arrived_ns), first_token_ns, Some(self.prefill));
            add(DECODE, first_token_ns, self.last_token_ns.unwrap_or(first_token_ns), Some(self.decode));
        }
        phases
    }

    /// Front end, queue, prefill, decode, unknown: nanoseconds that add up to the duration.
    fn breakdown(&self) -> [(&'static str, u64); 5] {
        let total = self.ended_ns.saturating_sub(self.opened_ns);
        let between = |from: Option<u64>, to: Option<u64>| match (from, to) {
            (Some(from), Some(to)) => to.saturating_sub(from),
            _ => 0,
        };
        let receiving = between(Some(self.opened_ns), self.arrived_ns);
        let queue = between(self.arrived_ns, self.first_step_ns);
        let prefill = between(self.first_step_ns, self.first_token_ns);
        let decode = between(self.first_token_ns, self.last_token_ns);
        let finishing = between(self.last_token_ns, Some(self.ended_ns));
        let front_end = receiving + finishing;
        let known = front_end + queue + prefill + decode;
        [
            (name::GPUSPAN_BREAKDOWN_FRONT_END_NS, front_end),
            (name::GPUSPAN_BREAKDOWN_QUEUE_NS, queue),
            (name::GPUSPAN_BREAKDOWN_PREFILL_NS, prefill),
            (name::GPUSPAN_BREAKDOWN_DECODE_NS, decode),
            (name::GPUSPAN_BREAKDOWN_UNKNOWN_NS, total.saturating_sub(known)),
        ]
    }
}

/// `{method} {route}`, or the method alone: a raw path is no name (HTTP conventions). Of a gRPC call, its method (RPC
/// conventions).
fn span_name(request: &Request) -> Cow<'static, str> {
    if let Some(method) = rpc_method(request) {
        return method.to_owned().into();
    }
    let method = request.head.as_ref().map_or("HTTP", |head| head.method.as_str());
    match request.route {
        Some(route) => format!("{method} {}", route.template).into(),
        None => method.into(),
    }
}

/// The value of `rpc.method`. What the server has no method for may be any text that a client made up, which the RPC
/// conventions (1.44) want left out.
fn rpc_method(request: &Request) -> Option<&str> {
    let rpc = request.rpc.as_ref().filter(|rpc| !rpc.method.is_empty())?;
    let answered = request.rpc_end.as_ref().and_then(|end| end.status);
    let known = request.route.is_some() || answered.is_some_and(|status| status != UNIMPLEMENTED);
    Some(if known { &rpc.method } else { "_OTHER" })
}

/// The gRPC status of a method that the server does not have.
const UNIMPLEMENTED: u32 = 12;

fn rpc_attributes(request: &Request, list: &mut List) {
    if request.rpc.is_none() {
        return;
    }
    list.push(name::RPC_SYSTEM_NAME, text("grpc"));
    list.push_some(name::RPC_METHOD, rpc_method(request).map(text));
    let status = request.rpc_end.as_ref().and_then(|end| end.status);
    list.push_some(name::RPC_RESPONSE_STATUS_CODE, status.map(|status| text(&status_name(status))));
}

fn status(request: &Request) -> Status {
    match request.outcome {
        Outcome::Error => Status::Error(error_type(request).unwrap_or_default().into()),
        Outcome::Lost => Status::Error("the process ended".into()),
        _ => Status::Unset,
    }
}

/// The value of `error.type`: the status of HTTP, else of gRPC, else the error in the body, else how it ended.
#[must_use]
pub fn error_type(request: &Request) -> Option<String> {
    let status = request.status.filter(|status| *status >= 400).map(|status| status.to_string());
    let ended = match request.outcome {
        Outcome::Aborted | Outcome::Lost | Outcome::Error => Some(request.outcome.name().to_owned()),
        _ => None,
    };
    let rpc = request.rpc_end.as_ref().and_then(|end| end.status);
    let rpc = rpc.filter(|status| RpcStatus::of(Some(*status)) != RpcStatus::Ok).map(status_name);
    status.or(rpc).or_else(|| request.error.clone()).or(ended)
}

fn attributes(request: &Request, parts: &Parts) -> Vec<Attribute> {
    let mut list = List::default();
    if let Some(head) = &request.head {
        list.push(name::HTTP_REQUEST_METHOD, text(head.method.as_str()));
        list.push_some(name::URL_PATH, Some(text(&head.path)).filter(|_| !head.path.is_empty()));
        list.push(name::NETWORK_PROTOCOL_NAME, text("http"));
        list.push(
            name::NETWORK_PROTOCOL_VERSION,
            text(match head.version {
                HttpVersion::Http10 => "1.0",
                HttpVersion::Http11 => "1.1",
                HttpVersion::Http2 => "2",
            }),
        );
        list.push_some(name::USER_AGENT_ORIGINAL, head.user_agent.as_deref().map(text));
    }
    rpc_attributes(request, &mut list);
    list.push(name::URL_SCHEME, text(if request.is_encrypted { "https" } else { "http" }));
    list.push_some(name::HTTP_ROUTE, request.route.map(|route| text(route.template)));
    list.push_some(
        name::HTTP_RESPONSE_STATUS_CODE,
        request.status.map(|status| Value::Int(i64::from(status))),
    );
    match &request.server {
        Some(Address::Tcp(port)) => list.push(name::SERVER_PORT, Value::Int(i64::from(*port))),
        Some(Address::Unix(path)) => {
            list.push(name::SERVER_ADDRESS, text(path));
            list.push(name::NETWORK_TRANSPORT, text("unix"));
        }
        None => {}
    }
    list.push_some(name::HTTP_REQUEST_BODY_SIZE, request.request_bytes.map(int));
    list.push_some(name::HTTP_RESPONSE_BODY_SIZE, request.response_bytes.map(int));
    list.push_some(name::GPUSPAN_RESPONSE_EVENTS, request.events.map(int));
    list.push_some(name::ERROR_TYPE, error_type(request).map(|error| text(&error)));
    list.push(name::GPUSPAN_OUTCOME, text(request.outcome.name()));
    if request.is_inference() {
        gen_ai(request, &mut list);
        list.push(name::GPUSPAN_EVIDENCE, text(request.evidence.name()));
        let ttft = request.time_to_first_token_ns().map(|ns| Value::Double(ns as f64 / 1e9));
        list.push_some(name::GPUSPAN_TIME_TO_FIRST_TOKEN, ttft);
        list.0.extend(share_attributes(&request.share()));
        list.0.extend(parts.breakdown().map(|(name, value)| (name, int(value))));
    }
    list.0
}

fn gen_ai(request: &Request, list: &mut List) {
    let (facts, usage) = (&request.facts, &request.usage);
    let operation = request.route.and_then(|route| route.operation);
    list.push_some(name::GEN_AI_OPERATION_NAME, operation.map(text));
    // What KServe and TGI speak among themselves is no provider's.
    list.push_some(name::GEN_AI_PROVIDER_NAME, request.rpc.is_none().then(|| text("openai")));
    list.push_some(name::GEN_AI_REQUEST_MODEL, facts.model.as_deref().map(text));
    list.push_some(name::GEN_AI_REQUEST_STREAM, is_streamed(request).map(Value::Bool));
    list.push_some(name::GEN_AI_REQUEST_MAX_TOKENS, facts.max_tokens.map(int));
    list.push_some(name::GEN_AI_REQUEST_TEMPERATURE, facts.temperature.map(Value::Double));
    list.push_some(name::GEN_AI_REQUEST_TOP_P, facts.top_p.map(Value::Double));
    list.push_some(name::GEN_AI_REQUEST_CHOICE_COUNT, facts.n.filter(|n| *n > 1).map(int));
    list.push_some(name::GEN_AI_RESPONSE_ID, request.id.as_deref().map(text));
    list.push_some(name::GEN_AI_RESPONSE_MODEL, request.response_model.as_deref().map(text));
    if !request.finish_reasons.is_empty() {
        list.push(name::GEN_AI_RESPONSE_FINISH_REASONS, Value::Strs(request.finish_reasons.clone()));
    }
    list.push_some(name::GEN_AI_USAGE_INPUT_TOKENS, usage.input.map(int));
    list.push_some(name::GEN_AI_USAGE_OUTPUT_TOKENS, usage.output.map(int));
    list.push_some(name::GEN_AI_USAGE_CACHED_TOKENS, usage.cached.map(int));
}

/// Whether a stream was asked for: said, or seen by the answer.
fn is_streamed(request: &Request) -> Option<bool> {
    let seen = match request.streaming {
        Streaming::None => (!request.opaque && request.rpc.is_none()).then_some(false),
        Streaming::Sse | Streaming::NdJson => Some(true),
    };
    request.facts.stream.or(seen)
}

fn share_attributes(share: &Share) -> Vec<Attribute> {
    if share.steps == 0 {
        return Vec::new();
    }
    vec![
        (name::GPUSPAN_STEPS, int(share.steps)),
        (name::GPUSPAN_LAUNCHES, int(share.launches)),
        (name::GPUSPAN_COPIES, int(share.copies)),
        (name::GPUSPAN_COPY_BYTES, int(share.copy_bytes)),
        (name::GPUSPAN_GPU_TIME_NS, int(share.gpu_lo_ns.midpoint(share.gpu_hi_ns))),
        (name::GPUSPAN_GPU_LO_NS, int(share.gpu_lo_ns)),
        (name::GPUSPAN_GPU_HI_NS, int(share.gpu_hi_ns)),
        (name::GPUSPAN_GPU_TIME_CLASS, text("bounded")),
    ]
}

#[derive(Default)]
struct List(Vec<Attribute>);

impl List {
    fn push(&mut self, name: &'static str, value: Value) {
        self.0.push((name, value));
    }

    fn push_some(&mut self, name: &'static str, value: Option<Value>) {
        self.0.extend(value.map(|value| (name, value)));
    }
}

fn text(value: &str) -> Value {
    Value::Str(value.to_owned().into())
}

fn int(value: u64) -> Value {
    Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
}
