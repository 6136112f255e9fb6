//! A finished request → its trace: the SERVER span and, for inference, `queue`, `prefill` and `decode` under it, with
//! summaries of what the GPU ran under the latter two.

use super::attributes::{attributes, share_attributes, span_name, status};
use super::ids::Ids;
use super::model::{Event, Kind, Link, RANDOM, Resource, SAMPLED, Span, SpanId, TraceId, int, text};
use super::names::Names;
use super::parts::{DECODE, PREFILL, Parts, Phase, QUEUE};
use super::summary;
use crate::correlate::Request;
use crate::decode::SpanContext;
use crate::http::TraceParent;
use crate::metric::catalog::attribute as name;
use std::borrow::Cow;
use std::sync::Arc;

/// Links of one span at most, as OpenTelemetry's SDKs have it.
pub const MOST_LINKS: usize = 128;

/// Where the span of a request stands among those of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its trace.
    pub trace_id: TraceId,
    /// Its own id.
    pub span_id: SpanId,
    /// Whose child it is, and whether that is sampled: its caller's span, or the server's own.
    pub caller: Option<TraceParent>,
    /// It is the server's own.
    pub within: bool,
}

impl Standing {
    /// Of a request: the span that the server's thread said it had active for it, its caller's trace, or a new one.
    #[must_use]
    pub fn of(request: &Request, ids: Ids) -> Self {
        let caller = request.head.as_ref().and_then(|head| head.traceparent);
        let own = request.context();
        let within = own.is_some();
        let parent = |own: SpanContext| TraceParent {
            trace_id: own.trace_id,
            parent: own.span_id,
            // A caller's word holds where the server's SDK leaves it out.
            flags: own.flags.or(caller.map(|caller| caller.flags)).unwrap_or(SAMPLED),
        };
        let caller = own.map(parent).or(caller);
        let own = || ids.trace(request.connection, request.exchange, request.opened_ns);
        Self {
            trace_id: caller.map_or_else(own, |caller| caller.trace_id),
            span_id: ids.span(request.connection, request.exchange, request.opened_ns, 0),
            caller,
            within,
        }
    }

    /// The W3C flags of its trace, which is sampled. Ids of our own making are random in every byte.
    fn flags(&self) -> u8 {
        SAMPLED | self.caller.map_or(RANDOM, |caller| caller.flags)
    }
}

/// What else a trace is made from.
#[derive(Debug)]
pub struct Setting<'a> {
    /// Whose request it was.
    pub resource: &'a Arc<Resource>,
    /// Makes the ids.
    pub ids: Ids,
    /// What Unix time is ahead of `CLOCK_MONOTONIC`, nanoseconds.
    pub unix_offset_ns: i64,
    /// The kind of its first span: `Internal` where the server has a SERVER span of its own.
    pub kind: Kind,
    /// Links to spans of steps that it rode in, before its first token and after it.
    pub links: [Vec<Link>; 2],
}

/// The spans of a request, its SERVER span first.
#[must_use]
pub fn trace(request: &Request, standing: &Standing, setting: Setting, names: &mut Names) -> Vec<Span> {
    let parts = Parts::of(request);
    let unix = |time_ns: u64| time_ns.saturating_add_signed(setting.unix_offset_ns);
    let server = Span {
        resource: Arc::clone(setting.resource),
        trace_id: standing.trace_id,
        span_id: standing.span_id,
        parent: standing.caller.map(|caller| caller.parent),
        parent_is_remote: standing.caller.is_some() && !standing.within,
        flags: standing.flags(),
        trace_state: request.head.as_ref().and_then(|head| head.tracestate.clone()).unwrap_or_default(),
        name: span_name(request),
        kind: setting.kind,
        start_ns: unix(request.opened_ns),
        end_ns: unix(request.ended_ns),
        attributes: attributes(request, &parts),
        status: status(request),
        ..Span::default()
    };
    let id = |index| setting.ids.span(request.connection, request.exchange, request.opened_ns, index);
    let evidence = parts.told.unwrap_or_else(|| request.evidence());
    let [mut prefill_links, mut decode_links] = setting.links;
    let mut spans = vec![server];
    for phase in parts.phases() {
        let Some(server) = spans.first() else { break };
        let time_ns = (unix(phase.time_ns.0), unix(phase.time_ns.1));
        let mut span = server.child(id(place(phase.name)), phase.name, time_ns);
        span.attributes.push((name::GPUSPAN_EVIDENCE, text(evidence.name())));
        match phase.name {
            PREFILL => link(&mut span, std::mem::take(&mut prefill_links)),
            DECODE => {
                link(&mut span, std::mem::take(&mut decode_links));
                add_tokens(&mut span, request, unix);
            }
            _ => {
                let behind = parts.queued_behind_ns().filter(|behind| *behind > 0);
                span.attributes.extend(behind.map(|behind| (name::GPUSPAN_QUEUED_BEHIND_NS, int(behind))));
            }
        }
        let summaries = summarise(&mut span, &phase, id, names);
        spans.push(span);
        spans.extend(summaries);
    }
    spans
}

/// The number of a phase's span in its trace; its summaries follow at a hundred times that.
fn place(phase: &str) -> u64 {
    match phase {
        QUEUE => 1,
        PREFILL => 2,
        _ => 3,
    }
}

fn link(span: &mut Span, mut links: Vec<Link>) {
    span.dropped_links = u32::try_from(links.len().saturating_sub(MOST_LINKS)).unwrap_or(u32::MAX);
    links.truncate(MOST_LINKS);
    span.links = links;
}

fn add_tokens(span: &mut Span, request: &Request, unix: impl Fn(u64) -> u64) {
    let event = |(ordinal, time_ns)| Event {
        name: Cow::Borrowed("token"),
        time_ns: unix(time_ns),
        attributes: vec![(name::GPUSPAN_DELTA_INDEX, int(ordinal))],
    };
    span.events = request.delta_times.iter().map(event).collect();
    span.dropped_events = u32::try_from(request.delta_times.left_out()).unwrap_or(u32::MAX);
}

/// What the phase had of the GPU, on its span and as spans of their own under it.
fn summarise(span: &mut Span, phase: &Phase, id: impl Fn(u64) -> SpanId, names: &mut Names) -> Vec<Span> {
    let Some(rode) = phase.rode else { return Vec::new() };
    span.attributes.extend(share_attributes(&rode.share));
    let first = place(phase.name) * 100;
    let under = |(index, summary): (u64, summary::Summary)| {
        let mut child = span.child(id(index), summary.name, (span.start_ns, span.end_ns));
        child.attributes = summary.attributes;
        child
    };
    (first..).zip(summary::of(rode, names)).map(under).collect()
}
