//! What a finished request is known by → the attributes of its span: HTTP, RPC and GenAI conventions, then its account.

use super::model::{Attribute, Status, Value, int, text};
use super::parts::Parts;
use crate::correlate::{Outcome, Request, Share};
use crate::h2::{RpcStatus, status_name};
use crate::http::{HttpVersion, Streaming};
use crate::metric::catalog::attribute as name;
use crate::target::Address;
use std::borrow::Cow;

/// `{method} {route}`, or the method alone: a raw path is no name (HTTP conventions). Of a gRPC call, its method (RPC
/// conventions).
pub fn span_name(request: &Request) -> Cow<'static, str> {
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

/// Whether the server failed.
pub fn status(request: &Request) -> Status {
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

/// All of them, in the order in which they are learnt.
pub fn attributes(request: &Request, parts: &Parts) -> Vec<Attribute> {
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
        list.push(name::GPUSPAN_EVIDENCE, text(request.evidence().name()));
        let ttft = request.time_to_first_token_ns().map(|ns| Value::Double(ns as f64 / 1e9));
        list.push_some(name::GPUSPAN_TIME_TO_FIRST_TOKEN, ttft);
        served_attributes(request, &mut list);
        list.0.extend(share_attributes(&request.share()));
        list.0.extend(parts.breakdown().map(|(name, value)| (name, int(value))));
    }
    list.0
}

fn served_attributes(request: &Request, list: &mut List) {
    let Some(served) = &request.served else { return };
    list.push(name::GPUSPAN_ADAPTER, text(served.adapter));
    list.push(name::GPUSPAN_ENGINE_EVIDENCE, text(served.evidence.name()));
    list.push(name::GPUSPAN_ENGINE_STEPS, int(served.steps()));
    list.push(name::GPUSPAN_ENGINE_PREEMPTIONS, int(served.preemptions()));
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

/// What a part of some steps' GPU work came to; nothing where no step is known, and no GPU time where none worked.
pub fn share_attributes(share: &Share) -> Vec<Attribute> {
    if share.steps == 0 {
        return Vec::new();
    }
    let steps = (name::GPUSPAN_STEPS, int(share.steps));
    if !share.has_gpu() {
        return vec![steps];
    }
    let energy = share.energy_j().map(|joules| (name::GPUSPAN_GPU_ENERGY_J, Value::Double(joules)));
    let known = vec![
        steps,
        (name::GPUSPAN_LAUNCHES, int(share.launches)),
        (name::GPUSPAN_COPIES, int(share.copies)),
        (name::GPUSPAN_COPY_BYTES, int(share.copy_bytes)),
        (name::GPUSPAN_GPU_TIME_NS, int(share.gpu_ns)),
        (name::GPUSPAN_GPU_LO_NS, int(share.gpu_lo_ns)),
        (name::GPUSPAN_GPU_HI_NS, int(share.gpu_hi_ns)),
        (name::GPUSPAN_GPU_TIME_CLASS, text(share.class.name())),
    ];
    known.into_iter().chain(energy).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_gpu_worked_no_gpu_time_is_told() {
        assert_eq!(share_attributes(&Share::default()), []);
        let on_the_cpu = Share { steps: 3, ..Share::default() };
        assert_eq!(share_attributes(&on_the_cpu), [(name::GPUSPAN_STEPS, int(3))]);
        let worked = Share { gpu_hi_ns: 5, ..on_the_cpu };
        assert_eq!(share_attributes(&worked).len(), 8);
        let powered = Share { energy_uj: 2_500_000, ..worked };
        assert!(share_attributes(&powered).contains(&(name::GPUSPAN_GPU_ENERGY_J, Value::Double(2.5))));
        let in_part = Share { unpowered: true, ..powered };
        assert_eq!(share_attributes(&in_part).len(), 8, "half of an energy is none");
    }
}
