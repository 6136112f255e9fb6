//! What a span is, before any exporter has seen it: ids and times already chosen, nothing left to ask.

use crate::metric::catalog::attribute as name;
use std::borrow::Cow;
use std::sync::Arc;

/// An attribute's value.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Value {
    /// Text.
    Str(Cow<'static, str>),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Double(f64),
    /// Yes or no.
    Bool(bool),
    /// Several texts.
    Strs(Vec<String>),
}

/// An attribute: its name stands in the catalogue (`metric::catalog`), its value here.
pub type Attribute = (&'static str, Value);

/// Who a span or metric speaks about: one per observed process, shared by everything it did.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Resource {
    /// `service.name` and the rest, sorted by name.
    pub attributes: Vec<(Cow<'static, str>, Value)>,
}

impl Resource {
    /// The name of the service.
    #[must_use]
    pub fn service_name(&self) -> Option<&str> {
        self.attributes.iter().find_map(|(key, value)| match value {
            Value::Str(name) if key == name::SERVICE_NAME => Some(name.as_ref()),
            _ => None,
        })
    }

    /// How many GPUs its process had open, as far as that is known.
    #[must_use]
    pub fn gpus(&self) -> usize {
        let uuids = self.attributes.iter().find(|(key, _)| key == name::GPUSPAN_GPU_UUIDS);
        match uuids {
            Some((_, Value::Strs(uuids))) => uuids.len(),
            _ => 0,
        }
    }
}

/// 16 random bytes, or the caller's.
pub type TraceId = [u8; 16];
/// 8 random bytes.
pub type SpanId = [u8; 8];

/// Span kinds that an observer can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// The server's side of a request.
    Server,
    /// Anything inside.
    #[default]
    Internal,
}

/// Span status by OpenTelemetry's rules: unset unless the server failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Nothing to say.
    #[default]
    Unset,
    /// The server failed; what it said, without any of the request's text.
    Error(Cow<'static, str>),
}

/// Something that happened at one moment of a span.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What.
    pub name: Cow<'static, str>,
    /// Unix time, nanoseconds.
    pub time_ns: u64,
    /// Details.
    pub attributes: Vec<Attribute>,
}

/// A relation to a span of another trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Its trace.
    pub trace_id: TraceId,
    /// The span in it.
    pub span_id: SpanId,
    /// What the relation is.
    pub attributes: Vec<Attribute>,
}

/// A finished span.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Span {
    /// Whose it is.
    pub resource: Arc<Resource>,
    /// Its trace, the caller's when it sent a `traceparent`.
    pub trace_id: TraceId,
    /// Its own id.
    pub span_id: SpanId,
    /// Its parent, if it has one.
    pub parent: Option<SpanId>,
    /// The parent came over the wire.
    pub parent_is_remote: bool,
    /// The W3C flags of its trace, as the caller or we chose them.
    pub flags: u8,
    /// The caller's `tracestate`, unchanged.
    pub trace_state: String,
    /// Low cardinality name.
    pub name: Cow<'static, str>,
    /// Server or internal.
    pub kind: Kind,
    /// Unix time, nanoseconds.
    pub start_ns: u64,
    /// Unix time, nanoseconds.
    pub end_ns: u64,
    /// Attributes in the order they were learnt.
    pub attributes: Vec<Attribute>,
    /// Attributes that a budget left out.
    pub dropped_attributes: u32,
    /// Moments, in order of time.
    pub events: Vec<Event>,
    /// Events that a budget left out.
    pub dropped_events: u32,
    /// Relations.
    pub links: Vec<Link>,
    /// Links that a budget left out.
    pub dropped_links: u32,
    /// Whether the server failed.
    pub status: Status,
}

/// The W3C flag "sampled".
pub const SAMPLED: u8 = 1;
/// The W3C flag "random": the low 7 bytes of the trace id are random.
pub const RANDOM: u8 = 2;

impl Span {
    /// A span inside another, over some Unix time.
    #[must_use]
    pub fn child(&self, span_id: SpanId, name: impl Into<Cow<'static, str>>, time_ns: (u64, u64)) -> Self {
        Self {
            resource: Arc::clone(&self.resource),
            trace_id: self.trace_id,
            span_id,
            parent: Some(self.span_id),
            flags: self.flags,
            trace_state: self.trace_state.clone(),
            name: name.into(),
            start_ns: time_ns.0,
            end_ns: time_ns.1,
            ..Self::default()
        }
    }
}

/// A text as a value.
#[must_use]
pub fn text(value: &str) -> Value {
    Value::Str(value.to_owned().into())
}

/// A count as a value.
#[must_use]
pub fn int(value: u64) -> Value {
    Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
}
