//! Finished requests and iterations → traces. In: what correlation put out, names of kernels, the settings. Out: spans
//! that are sampled and within the budget, and an account of the others.

use super::budget::{self, Cut};
use super::ids::Ids;
use super::model::{Kind, Link, Resource, Span, Value};
use super::names::Names;
use super::request::{Setting, Standing, trace};
use super::sampling::{Choice, Decision};
use super::step::{Ridden, StepCounts, Steps};
use crate::correlate::{Iteration, KernelKey, Request};
use crate::metric::catalog::attribute as name;
use crate::server::said::Part;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One iteration of so many has a span: engines make hundreds a second.
pub const STEP_SAMPLE: u64 = 100;

/// Settings of traces.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Which requests have one.
    pub choice: Choice,
    /// One iteration of so many has a span; none with 0.
    pub step_every: u64,
    /// When the span of a request is the SERVER span.
    pub server_span: ServerSpan,
}

impl Default for Settings {
    fn default() -> Self {
        Self { choice: Choice::default(), step_every: STEP_SAMPLE, server_span: ServerSpan::default() }
    }
}

/// When the span of a request is a SERVER span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ServerSpan {
    /// Unless the server emits one of its own, as far as that can be seen.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never: the server emits its own.
    Never,
}

/// What became of traces.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct TraceCounts {
    /// Requests by whether and why they have a trace.
    pub requests: BTreeMap<&'static str, u64>,
    /// Iterations of engines.
    pub steps: StepCounts,
    /// What a budget left out.
    pub cut: Cut,
}

impl TraceCounts {
    /// Adds what became of other traces.
    pub fn add(&mut self, other: &Self) {
        for (decision, count) in &other.requests {
            *self.requests.entry(decision).or_default() += count;
        }
        self.steps.shown += other.steps.shown;
        self.steps.let_go += other.steps.let_go;
        self.steps.beyond += other.steps.beyond;
        self.cut.add(&other.cut);
    }
}

/// Makes traces.
#[derive(Debug)]
pub struct Tracer {
    settings: Settings,
    ids: Ids,
    names: Names,
    steps: Steps,
    counts: TraceCounts,
}

impl Tracer {
    /// With ids from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            settings: Settings::default(),
            ids: Ids::new(seed),
            names: Names::default(),
            steps: Steps::default(),
            counts: TraceCounts::default(),
        }
    }

    /// With other settings.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// What became of traces so far.
    #[must_use]
    pub fn counts(&self) -> TraceCounts {
        TraceCounts { steps: self.steps.counts, ..self.counts.clone() }
    }

    /// A kernel's short name is known.
    pub fn named(&mut self, kernel: KernelKey, name: Arc<str>) {
        self.names.named(kernel, name);
    }

    /// The spans of a finished request, its SERVER span first; none when it is not sampled.
    pub fn request(&mut self, request: &Request, resource: &Arc<Resource>, unix_offset_ns: i64) -> Vec<Span> {
        let standing = Standing::of(request, self.ids);
        let decision = self.settings.choice.decide(request, &standing);
        *self.counts.requests.entry(decision.name()).or_default() += 1;
        let place = decision.is_kept().then_some((standing.trace_id, standing.span_id));
        let ridden = self.steps.finished(request, place, self.ids);
        if place.is_none() {
            return Vec::new();
        }
        let setting = Setting {
            resource,
            ids: self.ids,
            unix_offset_ns,
            kind: self.kind(resource, standing.within),
            links: by_phase(request, ridden),
        };
        let mut spans = trace(request, &standing, setting, &mut self.names);
        if let (Decision::Slow | Decision::Failed, Some(first)) = (decision, spans.first_mut()) {
            first.attributes.push((name::GPUSPAN_SAMPLING, Value::Str(decision.name().into())));
        }
        self.counts.cut.add(&budget::fit(&mut spans));
        spans
    }

    /// A request within a span of the server has its SERVER span around it.
    fn kind(&self, resource: &Resource, within: bool) -> Kind {
        let emits = || resource.attributes.iter().any(|(key, _)| key == name::GPUSPAN_EMITS_SPANS);
        match self.settings.server_span {
            ServerSpan::Always => Kind::Server,
            ServerSpan::Never => Kind::Internal,
            ServerSpan::Auto if within || emits() => Kind::Internal,
            ServerSpan::Auto => Kind::Server,
        }
    }

    /// Takes an iteration of an engine.
    pub fn iteration(&mut self, iteration: &Iteration, resource: &Arc<Resource>, unix_offset_ns: i64) {
        if self.ids.shows_step(iteration.id, self.settings.step_every) {
            self.steps.add(iteration, resource, self.ids, unix_offset_ns);
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now_ns: u64) {
        self.steps.tick(now_ns);
    }

    /// Spans of iterations that wait for nothing more.
    pub fn steps(&mut self) -> Vec<Span> {
        let mut spans = self.steps.take_ready();
        for span in &mut spans {
            let mut alone = vec![std::mem::take(span)];
            let dropped = alone.first().map_or(0, |span| u64::from(span.dropped_links));
            let mut cut = budget::fit(&mut alone);
            // Members without a trace are no loss.
            cut.links -= dropped.min(cut.links);
            self.counts.cut.add(&cut);
            if let Some(fitted) = alone.pop() {
                *span = fitted;
            }
        }
        spans
    }
}

/// Links to steps, before the first token and after it.
fn by_phase(request: &Request, ridden: Vec<Ridden>) -> [Vec<Link>; 2] {
    let is_prefill = |ridden: &Ridden| match ridden.part {
        Part::Prefill => true,
        Part::Decode => false,
        Part::Unknown => request.first_token_ns.is_some_and(|token_ns| ridden.ended_ns <= token_ns),
    };
    let (prefill, decode): (Vec<_>, Vec<_>) = ridden.into_iter().partition(is_prefill);
    [prefill, decode].map(|steps| steps.into_iter().map(|ridden| ridden.link).collect())
}
