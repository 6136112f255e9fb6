//! Iterations of engines → spans in traces of their own, a sample of them. In: iterations, and where the spans of
//! finished requests stand. Out: `engine step` spans with a link to each member's request, and for each request links to
//! the steps that it rode in.
//!
//! A step waits until its members' requests have finished: only then is it known which of them have a trace. It goes
//! without the missing links when it has waited too long, since Tempo makes no metrics of spans that ended more than
//! 30 s ago, and when too many wait.

use super::attributes::share_attributes;
use super::ids::Ids;
use super::model::{Attribute, Link, RANDOM, Resource, SAMPLED, Span, SpanId, TraceId, Value, int, text};
use super::request::MOST_LINKS;
use crate::correlate::{Evidence, GpuWork, Iteration, Owner, Request, Rider, Share, Who};
use crate::metric::catalog::attribute as name;
use crate::server::said::{Inner, Part};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// How long a step waits for its members' requests.
const PATIENCE_NS: u64 = 25_000_000_000;
/// Steps that wait at most; with 128 links each that is 25 MB.
const MOST_WAITING: usize = 1024;
/// Rides in shown steps that wait for their request at most.
const MOST_EDGES: usize = 65_536;
/// How long they wait: requests that take longer have no links to their first steps.
const LONGEST_NS: u64 = 600_000_000_000;
/// Finished requests that are remembered for steps that are told late.
const MOST_FINISHED: usize = 8192;

/// What became of iterations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct StepCounts {
    /// Those in the sample: they have a span.
    pub shown: u64,
    /// Of these, those that went before all of their members' requests had finished.
    pub let_go: u64,
    /// Rides that found no room: the request has no link to the step.
    pub beyond: u64,
}

/// How a step names a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Request(Owner),
    Inner(&'static str, Inner),
}

/// The span of a request, where it has one.
type Place = Option<(TraceId, SpanId)>;

/// A step that is shown.
#[derive(Debug)]
struct Waiting {
    span: Span,
    ended_ns: u64,
    members: usize,
    /// Members whose request has not finished.
    open: usize,
    /// To the span that its threads worked for, which is no member's.
    context: Option<Link>,
}

/// A ride in a shown step of a request that has not finished.
#[derive(Clone, Debug)]
struct Edge {
    iteration: u64,
    ended_ns: u64,
    part: Part,
    attributes: Vec<Attribute>,
}

/// A step that a request rode in.
#[derive(Clone, Debug, PartialEq)]
pub struct Ridden {
    /// What it did for the request.
    pub part: Part,
    /// When it ended, `CLOCK_MONOTONIC` nanoseconds.
    pub ended_ns: u64,
    /// To its span.
    pub link: Link,
}

/// Steps between their end and their spans.
#[derive(Debug, Default)]
pub struct Steps {
    waiting: BTreeMap<u64, Waiting>,
    edges: HashMap<Key, Vec<Edge>>,
    edge_count: usize,
    finished: HashMap<Key, Place>,
    newest: VecDeque<Key>,
    ready: Vec<Span>,
    /// What became of them.
    pub counts: StepCounts,
}

impl Steps {
    /// Takes an iteration that is shown.
    pub fn add(&mut self, iteration: &Iteration, resource: &Arc<Resource>, ids: Ids, unix_offset_ns: i64) {
        self.counts.shown += 1;
        let ended_ns = iteration.step.end_ns;
        let riders = riders(iteration);
        let mut span = span(iteration, &riders, ids, unix_offset_ns);
        span.resource = Arc::clone(resource);
        let mut open = 0;
        for rider in &riders {
            let key = key(iteration.adapter, rider.who);
            let attributes = edge_attributes(rider, iteration.gpu.is_some());
            match self.finished.get(&key) {
                Some(Some(place)) => add_link(&mut span, *place, attributes),
                Some(None) => {}
                None => {
                    open += 1;
                    self.wait(key, Edge { iteration: iteration.id, ended_ns, part: rider.part, attributes });
                }
            }
        }
        let waiting = Waiting { span, ended_ns, members: riders.len(), open, context: context(iteration) };
        if open == 0 {
            return self.release(waiting);
        }
        self.waiting.insert(iteration.id, waiting);
        if self.waiting.len() > MOST_WAITING
            && let Some((_, oldest)) = self.waiting.pop_first()
        {
            self.release(oldest);
        }
    }

    fn wait(&mut self, key: Key, edge: Edge) {
        if self.edge_count == MOST_EDGES {
            self.counts.beyond += 1;
            return;
        }
        self.edge_count += 1;
        self.edges.entry(key).or_default().push(edge);
    }

    /// A request has finished, with a span at `place` or with none. Returns the shown steps that it rode in, in order.
    pub fn finished(&mut self, request: &Request, place: Place, ids: Ids) -> Vec<Ridden> {
        let mut ridden = BTreeMap::new();
        for (key, tie) in keys(request) {
            self.remember(key, place);
            let edges = self.edges.remove(&key).unwrap_or_default();
            self.edge_count -= edges.len();
            for edge in edges {
                self.resolve(&edge, place);
                let link = Link {
                    trace_id: ids.step_trace(edge.iteration),
                    span_id: ids.step_span(edge.iteration),
                    attributes: with_tie(edge.attributes, tie),
                };
                ridden.insert(edge.iteration, Ridden { part: edge.part, ended_ns: edge.ended_ns, link });
            }
        }
        ridden.into_values().collect()
    }

    /// One more member of a step is known.
    fn resolve(&mut self, edge: &Edge, place: Place) {
        let Some(waiting) = self.waiting.get_mut(&edge.iteration) else { return };
        if let Some(place) = place {
            add_link(&mut waiting.span, place, edge.attributes.clone());
        }
        waiting.open -= 1;
        if waiting.open == 0
            && let Some(waiting) = self.waiting.remove(&edge.iteration)
        {
            self.release(waiting);
        }
    }

    fn remember(&mut self, key: Key, place: Place) {
        if self.finished.insert(key, place).is_none() {
            self.newest.push_back(key);
        }
        if self.newest.len() > MOST_FINISHED
            && let Some(oldest) = self.newest.pop_front()
        {
            self.finished.remove(&oldest);
        }
    }

    /// Time passed: steps that have waited too long go, and rides whose request does not end are forgotten.
    pub fn tick(&mut self, now_ns: u64) {
        while let Some(oldest) = self.waiting.first_entry() {
            if oldest.get().ended_ns.saturating_add(PATIENCE_NS) >= now_ns {
                break;
            }
            let oldest = oldest.remove();
            self.release(oldest);
        }
        if self.edge_count > MOST_EDGES / 2 {
            let is_fresh = |edge: &Edge| edge.ended_ns.saturating_add(LONGEST_NS) >= now_ns;
            self.edges.retain(|_, edges| {
                edges.retain(is_fresh);
                !edges.is_empty()
            });
            self.edge_count = self.edges.values().map(Vec::len).sum();
        }
    }

    /// Spans of steps that have all their links, or as many as they will have.
    pub fn take_ready(&mut self) -> Vec<Span> {
        std::mem::take(&mut self.ready)
    }

    fn release(&mut self, waiting: Waiting) {
        let Waiting { mut span, members, open, context, .. } = waiting;
        self.counts.let_go += u64::from(open > 0);
        // Members without a trace, or with one that is not known yet, have no link either.
        span.dropped_links = u32::try_from(members - span.links.len()).unwrap_or(u32::MAX);
        span.links.truncate(MOST_LINKS - context.iter().len());
        span.links.extend(context);
        self.ready.push(span);
    }
}

/// To the span that the threads which sent its work said they worked for, unless a member's request is known by it: that
/// of a job, or of a request whose trace is not known.
fn context(iteration: &Iteration) -> Option<Link> {
    let context = iteration.gpu.as_ref()?.origin.one()?;
    let is_members = iteration.riders.iter().any(|rider| rider.evidence == Evidence::E0);
    let is_shown = !is_members && context.span_id != [0; 8] && context.is_sampled();
    is_shown.then(|| Link {
        trace_id: context.trace_id,
        span_id: context.span_id,
        attributes: vec![(name::GPUSPAN_EVIDENCE, text(Evidence::E1.name()))],
    })
}

/// Who rode: as correlation shared the GPU's work out, or else as the engine said.
fn riders(iteration: &Iteration) -> Vec<Rider> {
    if !iteration.riders.is_empty() {
        return iteration.riders.clone();
    }
    let member = |member: &crate::server::said::Member| Rider {
        who: Who::Inner(member.inner),
        part: member.part,
        tokens: member.computed.max(member.generated),
        share: Share::default(),
        evidence: member.evidence,
    };
    iteration.step.members.iter().map(member).collect()
}

fn key(adapter: &'static str, who: Who) -> Key {
    match who {
        Who::Request(owner) => Key::Request(owner),
        Who::Inner(inner) => Key::Inner(adapter, inner),
    }
}

/// By what names steps may know a request, and how sure that is.
fn keys(request: &Request) -> Vec<(Key, Evidence)> {
    let mut keys = vec![(Key::Request(request.owner()), Evidence::E0)];
    if let Some(served) = &request.served {
        let inner = |inner| (Key::Inner(served.adapter, Inner(inner)), served.evidence);
        keys.extend(served.sequences.iter().map(|sequence| inner(sequence.inner)));
    }
    keys
}

fn add_link(span: &mut Span, (trace_id, span_id): (TraceId, SpanId), attributes: Vec<Attribute>) {
    if span.links.len() < MOST_LINKS {
        span.links.push(Link { trace_id, span_id, attributes });
    }
}

fn edge_attributes(rider: &Rider, has_gpu: bool) -> Vec<Attribute> {
    let mut attributes = vec![
        (name::GPUSPAN_STEP_TOKENS, int(u64::from(rider.tokens))),
        (name::GPUSPAN_STEP_PHASE, Value::Str(rider.part.name().into())),
        (name::GPUSPAN_EVIDENCE, text(rider.evidence.name())),
    ];
    if has_gpu {
        attributes.push((name::GPUSPAN_GPU_TIME_NS, int(rider.share.gpu_ns)));
        attributes.push((name::GPUSPAN_GPU_TIME_CLASS, text(rider.share.class.name())));
    }
    attributes
}

/// An edge is no surer than that the member is this request.
fn with_tie(mut attributes: Vec<Attribute>, tie: Evidence) -> Vec<Attribute> {
    for (attribute, value) in &mut attributes {
        if *attribute == name::GPUSPAN_EVIDENCE
            && let Value::Str(evidence) = value
            && tie.name() > &**evidence
        {
            *value = text(tie.name());
        }
    }
    attributes
}

fn span(iteration: &Iteration, riders: &[Rider], ids: Ids, unix_offset_ns: i64) -> Span {
    let step = &iteration.step;
    let gpu_start_ns = iteration.gpu.as_ref().map(|gpu| gpu.start_ns);
    let start_ns = step.start_ns.or(gpu_start_ns).map_or(step.end_ns, |start| start.min(step.end_ns));
    let unix = |time_ns: u64| time_ns.saturating_add_signed(unix_offset_ns);
    Span {
        trace_id: ids.step_trace(iteration.id),
        span_id: ids.step_span(iteration.id),
        flags: SAMPLED | RANDOM,
        name: "engine step".into(),
        start_ns: unix(start_ns),
        end_ns: unix(step.end_ns),
        attributes: attributes(iteration, riders),
        ..Span::default()
    }
}

fn attributes(iteration: &Iteration, riders: &[Rider]) -> Vec<Attribute> {
    let step = &iteration.step;
    let mut attributes = vec![
        (name::GPUSPAN_STEP_INDEX, int(iteration.id)),
        (name::GPUSPAN_STEP_MEMBERS, int(riders.len() as u64)),
        (name::GPUSPAN_STEP_PHASE, Value::Str(phase(riders).into())),
        (name::GPUSPAN_STEP_COMPLETE, Value::Bool(step.is_complete)),
        (name::GPUSPAN_ADAPTER, text(iteration.adapter)),
        (name::GPUSPAN_ENGINE_INDEX, int(step.engine)),
    ];
    attributes.extend(step.tokens.map(|tokens| (name::GPUSPAN_STEP_TOKENS, int(tokens))));
    let evidence = riders.iter().map(|rider| rider.evidence).max();
    attributes.extend(evidence.map(|evidence| (name::GPUSPAN_EVIDENCE, text(evidence.name()))));
    if step.failed {
        attributes.push((name::GPUSPAN_STEP_FAILED, Value::Bool(true)));
    }
    if let Some(gpu) = &iteration.gpu {
        attributes.extend(share_attributes(&gpu.whole));
        attributes.push((name::GPUSPAN_STEP_UNATTRIBUTED_NS, int(iteration.unattributed.gpu_ns)));
        attributes.extend(device_attributes(gpu));
    }
    attributes
}

/// Which device worked for it, or how many did.
fn device_attributes(gpu: &GpuWork) -> Vec<Attribute> {
    match gpu.devices().as_slice() {
        [] => Vec::new(),
        [only] => {
            only.device.map(|device| (name::CUDA_DEVICE_INDEX, int(u64::from(device)))).into_iter().collect()
        }
        devices => vec![
            (name::GPUSPAN_STEP_DEVICES, int(devices.len() as u64)),
            (name::GPUSPAN_STEP_SKEW_NS, int(gpu.skew_ns())),
        ],
    }
}

fn phase(riders: &[Rider]) -> &'static str {
    let any = |part: Part| riders.iter().any(|rider| rider.part == part);
    match (any(Part::Prefill), any(Part::Decode)) {
        (true, true) => "mixed",
        (true, false) => "prefill",
        (false, true) => "decode",
        (false, false) => "unknown",
    }
}
