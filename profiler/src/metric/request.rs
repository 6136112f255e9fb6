//! Finished requests → metrics. In: what `correlate` put out, and its SERVER span for exemplars. Out: points in a
//! [`Registry`].

use super::catalog::{self, attribute as name};
use super::{Context, Registry, Target};
use crate::correlate::Request;
use crate::span::Parts;
use crate::span::model::{Attribute, Resource, Span, Value};
use crate::target::Address;
use std::sync::Arc;

/// Takes a finished request under its own process's resource; `span` is its SERVER span, for exemplars.
pub fn request(
    registry: &Registry,
    resource: &Arc<Resource>,
    request: &Request,
    span: Option<&Span>,
    now_ns: u64,
) {
    let target = registry.target(resource, now_ns);
    let context =
        span.map(|span| Context { trace_id: span.trace_id, span_id: span.span_id, time_ns: span.end_ns });
    let duration = super::seconds(request.ended_ns.saturating_sub(request.opened_ns));
    target.record(&catalog::HTTP_REQUEST_DURATION, &http_attributes(request), duration, context);
    super::inside::served(&target, request);
    let Some(operation) = request.route.and_then(|route| route.operation) else { return };
    parts(&target, request, context);
    gpu(&target, request, context);
    let gen_ai = gen_ai_attributes(request, operation);
    let mut with_error = gen_ai.clone();
    with_error.extend(error(request));
    target.record(&catalog::GEN_AI_REQUEST_DURATION, &with_error, duration, context);
    if let Some(ttft) = request.time_to_first_token_ns() {
        target.record(&catalog::GEN_AI_TIME_TO_FIRST_TOKEN, &gen_ai, super::seconds(ttft), context);
    }
    if let Some(tpot) = time_per_output_token_s(request) {
        target.record(&catalog::GEN_AI_TIME_PER_OUTPUT_TOKEN, &gen_ai, tpot, context);
    }
    for (kind, tokens) in [("input", request.usage.input), ("output", request.usage.output)] {
        let Some(tokens) = tokens else { continue };
        let mut attributes = gen_ai.clone();
        attributes.push((name::GEN_AI_TOKEN_TYPE, Value::Str(kind.into())));
        target.record(&catalog::GEN_AI_TOKEN_USAGE, &attributes, tokens as f64, context);
    }
}

/// Seconds an output token after the first (GenAI conventions): for answers that succeeded and whose server told
/// how many tokens they have.
#[must_use]
pub fn time_per_output_token_s(request: &Request) -> Option<f64> {
    let first = request.first_token_ns.filter(|_| request.outcome == crate::correlate::Outcome::Completed)?;
    let further = request.output_tokens()?.checked_sub(1).filter(|further| *further > 0)?;
    Some(super::seconds(request.ended_ns.saturating_sub(first)) / further as f64)
}

/// Why it took its time.
fn parts(target: &Target, request: &Request, context: Option<Context>) {
    for (part, ns) in Parts::of(request).breakdown() {
        let part = part.trim_start_matches("gpuspan.breakdown.").trim_end_matches("_ns");
        let mut attributes = vec![(name::GPUSPAN_PART, Value::Str(part.into()))];
        attributes.extend(model(request));
        target.record(&catalog::REQUEST_PARTS, &attributes, super::seconds(ns), context);
    }
}

/// What it had of the GPU.
fn gpu(target: &Target, request: &Request, context: Option<Context>) {
    let share = request.share();
    if !share.has_gpu() {
        return;
    }
    let mut attributes = vec![(name::GPUSPAN_GPU_TIME_CLASS, Value::Str(share.class.name().into()))];
    attributes.extend(model(request));
    target.record(&catalog::REQUEST_GPU_TIME, &attributes, super::seconds(share.gpu_ns), context);
    if let Some(joules) = share.energy_j() {
        attributes.retain(|(key, _)| *key != name::GPUSPAN_GPU_TIME_CLASS);
        target.record(&catalog::REQUEST_ENERGY, &attributes, joules, context);
    }
}

fn model(request: &Request) -> Option<Attribute> {
    let model = request.facts.model.as_ref()?;
    Some((name::GEN_AI_REQUEST_MODEL, Value::Str(model.clone().into())))
}

fn http_attributes(request: &Request) -> Vec<Attribute> {
    let mut attributes = vec![(name::URL_SCHEME, Value::Str("http".into()))];
    let method = request.head.as_ref().map(|head| head.method.as_str());
    attributes.extend(method.map(|method| (name::HTTP_REQUEST_METHOD, Value::Str(method.into()))));
    attributes.extend(request.route.map(|route| (name::HTTP_ROUTE, Value::Str(route.template.into()))));
    let status = request.status.map(|status| Value::Int(i64::from(status)));
    attributes.extend(status.map(|status| (name::HTTP_RESPONSE_STATUS_CODE, status)));
    attributes.extend(error(request));
    attributes
}

fn gen_ai_attributes(request: &Request, operation: &'static str) -> Vec<Attribute> {
    let mut attributes = vec![
        (name::GEN_AI_OPERATION_NAME, Value::Str(operation.into())),
        (name::GEN_AI_PROVIDER_NAME, Value::Str("openai".into())),
    ];
    let text = |text: &String| Value::Str(text.clone().into());
    attributes.extend(model(request));
    attributes
        .extend(request.response_model.as_ref().map(|model| (name::GEN_AI_RESPONSE_MODEL, text(model))));
    if let Some(Address::Tcp(port)) = &request.server {
        attributes.push((name::SERVER_PORT, Value::Int(i64::from(*port))));
    }
    attributes
}

fn error(request: &Request) -> Option<Attribute> {
    crate::span::error_type(request).map(|error| (name::ERROR_TYPE, Value::Str(error.into())))
}
