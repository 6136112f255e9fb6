//! Spans as an OTLP trace request. In: spans of any targets. Out: one message, grouped by resource.
//! Absent: samplers; a span that reaches an exporter is sampled.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span as ProtoSpan, SpanFlags, Status as ProtoStatus,
    span::{Event as ProtoEvent, Link as ProtoLink, SpanKind},
    status::StatusCode,
};
use prost::Message;

use super::{MOST_BYTES, attributes, resource, scope};
use crate::span::model::{Event, Kind, Link, Span, Status};

/// W3C trace flag: the span is recorded.
const SAMPLED: u32 = 0x01;

/// Requests with all of `spans`, and how many each has. Mostly one; a single span is never split.
pub fn requests(spans: &[&Span]) -> Vec<(ExportTraceServiceRequest, u64)> {
    let whole = request(spans.iter().copied());
    if spans.len() < 2 || whole.encoded_len() <= MOST_BYTES {
        return vec![(whole, spans.len() as u64)];
    }
    let (left, right) = spans.split_at(spans.len() / 2);
    let mut parts = requests(left);
    parts.append(&mut requests(right));
    parts
}

/// One request with all of `spans`.
pub fn request<'a>(spans: impl IntoIterator<Item = &'a Span>) -> ExportTraceServiceRequest {
    // Few targets share a request, so a linear search beats hashing whole resources.
    let mut groups: Vec<(&'a Span, Vec<ProtoSpan>)> = Vec::new();
    for item in spans {
        let same = |(first, _): &&mut (&Span, _)| {
            Arc::ptr_eq(&first.resource, &item.resource) || first.resource == item.resource
        };
        match groups.iter_mut().find(same) {
            Some((_, group)) => group.push(span(item)),
            None => groups.push((item, vec![span(item)])),
        }
    }
    let groups = groups.into_iter().map(|(first, spans)| ResourceSpans {
        resource: Some(resource(&first.resource)),
        scope_spans: vec![ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    });
    ExportTraceServiceRequest { resource_spans: groups.collect() }
}

fn span(span: &Span) -> ProtoSpan {
    ProtoSpan {
        trace_id: span.trace_id.to_vec(),
        span_id: span.span_id.to_vec(),
        trace_state: span.trace_state.clone(),
        parent_span_id: span.parent.map(|id| id.to_vec()).unwrap_or_default(),
        flags: flags(span),
        name: span.name.to_string(),
        kind: kind(span.kind) as i32,
        start_time_unix_nano: span.start_ns,
        end_time_unix_nano: span.end_ns,
        attributes: attributes(&span.attributes),
        dropped_attributes_count: span.dropped_attributes,
        events: span.events.iter().map(event).collect(),
        dropped_events_count: span.dropped_events,
        links: span.links.iter().map(link).collect(),
        dropped_links_count: span.dropped_links,
        status: Some(status(&span.status)),
    }
}

fn flags(span: &Span) -> u32 {
    let remote = if span.parent_is_remote { SpanFlags::ContextIsRemoteMask as u32 } else { 0 };
    u32::from(span.flags) | SAMPLED | SpanFlags::ContextHasIsRemoteMask as u32 | remote
}

fn kind(kind: Kind) -> SpanKind {
    match kind {
        Kind::Server => SpanKind::Server,
        Kind::Internal => SpanKind::Internal,
    }
}

fn event(event: &Event) -> ProtoEvent {
    ProtoEvent {
        time_unix_nano: event.time_ns,
        name: event.name.to_string(),
        attributes: attributes(&event.attributes),
        dropped_attributes_count: 0,
    }
}

fn link(link: &Link) -> ProtoLink {
    ProtoLink {
        trace_id: link.trace_id.to_vec(),
        span_id: link.span_id.to_vec(),
        attributes: attributes(&link.attributes),
        flags: SAMPLED | SpanFlags::ContextHasIsRemoteMask as u32,
        ..ProtoLink::default()
    }
}

fn status(status: &Status) -> ProtoStatus {
    match status {
        Status::Unset => ProtoStatus::default(),
        Status::Error(message) => {
            ProtoStatus { code: StatusCode::Error as i32, message: message.clone().into_owned() }
        }
    }
}
