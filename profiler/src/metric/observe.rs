//! Finished requests, closed steps and running totals → metrics.
//!
//! In: what `correlate` put out. Out: points in a [`Registry`]. Hot counters are handles that were looked up once.

use super::catalog::{self, Counter, Histogram, attribute as name};
use super::{Context, Handle, KernelLaunches, Metric, Registry, Target};
use crate::correlate::{Engine, KernelKey, Request, Step};
use crate::probe::Direction;
use crate::span::model::{Attribute, Resource, Span, Value};
use crate::target::Address;
use std::sync::Arc;

/// Metrics of one target group.
#[derive(Debug)]
pub struct Observer {
    target: Target,
    launches: Handle<Counter>,
    graph_launches: Handle<Counter>,
    copies: [(Handle<Histogram>, Handle<Counter>); 5],
    allocated: Handle<Counter>,
    freed: Handle<Counter>,
    steps: Handle<Histogram>,
    kernels: KernelLaunches,
}

impl Observer {
    /// For the group whose GPU work is told under `resource`, from `now_ns` (Unix time) on.
    #[must_use]
    pub fn new(registry: &Registry, resource: &Arc<Resource>, now_ns: u64) -> Self {
        let target = registry.target(resource, now_ns);
        let copies = Direction::ALL.map(|direction| {
            let kind = [(name::CUDA_MEMCPY_KIND, Value::Str(direction.name().into()))];
            (target.handle(&catalog::CUDA_COPY_SIZES, &kind), target.handle(&catalog::COPIED_BYTES, &kind))
        });
        Self {
            launches: target.handle(&catalog::CUDA_KERNEL_LAUNCHES, &[]),
            graph_launches: target.handle(&catalog::CUDA_GRAPH_LAUNCHES, &[]),
            copies,
            allocated: target.handle(&catalog::CUDA_ALLOCATED, &[]),
            freed: target.handle(&catalog::CUDA_FREED, &[]),
            steps: target.handle(&catalog::STEP_DURATIONS, &[]),
            kernels: KernelLaunches::new(target.clone()),
            target,
        }
    }

    /// Takes a copy's size.
    pub fn copy(&self, direction: Direction, bytes: u64) {
        if let Some((sizes, sum)) = self.copies.get(direction as usize) {
            sizes.record(bytes as f64, None);
            sum.add(bytes);
        }
    }

    /// Takes bytes of copies that were counted together: their sizes are not known one by one.
    pub fn counted_copies(&self, direction: Direction, bytes: u64) {
        if let Some((_, sum)) = self.copies.get(direction as usize) {
            sum.add(bytes);
        }
    }

    /// Takes a closed step.
    pub fn step(&self, step: &Step) {
        self.steps.record(seconds(step.end_ns.saturating_sub(step.start_ns)), None);
    }

    /// A kernel's short name is known, or that it has none.
    pub fn named(&mut self, kernel: KernelKey, name: Option<Arc<str>>) {
        self.kernels.named(kernel, name);
    }

    /// Takes the engine's running totals over, for the `last` time or not.
    pub fn totals(&mut self, engine: &Engine, last: bool) {
        let totals = engine.totals();
        self.kernels.totals(totals, last);
        self.launches.observe(totals.work.launches);
        self.graph_launches.observe(totals.work.graph_launches);
        let memory = engine.device_memory();
        self.allocated.observe(memory.allocated_bytes);
        self.freed.observe(memory.freed_bytes);
        let mut waits = [0; WAITS.len()];
        for (symbol, count) in totals.calls() {
            let kind = WAITS.iter().position(|(function, _)| *function == symbol.trim_end_matches("_ptsz"));
            if let Some(sum) = kind.and_then(|kind| waits.get_mut(kind)) {
                *sum += count;
            }
        }
        for ((_, metric), sum) in WAITS.iter().zip(waits) {
            self.target.handle(metric, &[]).observe(sum);
        }
        let active = i64::try_from(engine.active_requests()).unwrap_or(i64::MAX);
        self.target.handle(&catalog::HTTP_ACTIVE_REQUESTS, &[]).set(active);
    }
}

/// Functions that wait, and where they are counted.
static WAITS: [(&str, &Metric<Counter>); 3] = [
    ("cudaStreamSynchronize", &catalog::CUDA_STREAM_SYNCHRONIZES),
    ("cudaDeviceSynchronize", &catalog::CUDA_DEVICE_SYNCHRONIZES),
    ("cudaEventSynchronize", &catalog::CUDA_EVENT_SYNCHRONIZES),
];

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
    let duration = seconds(request.ended_ns.saturating_sub(request.opened_ns));
    target.record(&catalog::HTTP_REQUEST_DURATION, &http_attributes(request), duration, context);
    let Some(operation) = request.route.and_then(|route| route.operation) else { return };
    let gen_ai = gen_ai_attributes(request, operation);
    let mut with_error = gen_ai.clone();
    with_error.extend(error(request));
    target.record(&catalog::GEN_AI_REQUEST_DURATION, &with_error, duration, context);
    if let Some(ttft) = request.time_to_first_token_ns() {
        target.record(&catalog::GEN_AI_TIME_TO_FIRST_TOKEN, &gen_ai, seconds(ttft), context);
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
    Some(seconds(request.ended_ns.saturating_sub(first)) / further as f64)
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
    attributes.extend(request.facts.model.as_ref().map(|model| (name::GEN_AI_REQUEST_MODEL, text(model))));
    if let Some(Address::Tcp(port)) = &request.server {
        attributes.push((name::SERVER_PORT, Value::Int(i64::from(*port))));
    }
    attributes
}

fn error(request: &Request) -> Option<Attribute> {
    crate::span::error_type(request).map(|error| (name::ERROR_TYPE, Value::Str(error.into())))
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
