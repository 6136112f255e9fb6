//! Spans of an OTLP/JSON lines file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// A span.
#[derive(Clone, Debug)]
pub struct Span {
    /// Hexadecimal.
    pub trace_id: String,
    /// Hexadecimal.
    pub span_id: String,
    /// Hexadecimal; empty at a root.
    pub parent: String,
    /// Name.
    pub name: String,
    /// 2 is SERVER, 1 is INTERNAL.
    pub kind: u64,
    /// Unix time.
    pub start_ns: u64,
    /// Unix time.
    pub end_ns: u64,
    /// By name, in OTLP's wrapping.
    pub attributes: BTreeMap<String, Value>,
    /// Events, with those that were dropped.
    pub events: u64,
    /// The first of those that were kept, Unix time.
    pub first_event_ns: Option<u64>,
    /// W3C flags, and OTLP's own above them.
    pub flags: u64,
    /// To spans of other traces.
    pub links: Vec<Link>,
    /// Links that were left out.
    pub dropped_links: u64,
    /// Of the process, by name.
    pub resource: BTreeMap<String, Value>,
    /// Bytes that it takes in the file, which are more than in protobuf.
    pub json_bytes: usize,
}

/// A link.
#[derive(Clone, Debug)]
pub struct Link {
    /// Hexadecimal.
    pub trace_id: String,
    /// Hexadecimal.
    pub span_id: String,
    /// By name, in OTLP's wrapping.
    pub attributes: BTreeMap<String, Value>,
}

impl Span {
    /// Whether it is a request.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.kind == 2
    }

    /// A text attribute.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.attributes.get(name)?.get("stringValue")?.as_str()
    }

    /// A whole number; OTLP/JSON writes 64 bits as text.
    #[must_use]
    pub fn int(&self, name: &str) -> Option<u64> {
        self.attributes.get(name)?.get("intValue")?.as_str()?.parse().ok()
    }

    /// A number with a fraction.
    #[must_use]
    pub fn double(&self, name: &str) -> Option<f64> {
        self.attributes.get(name)?.get("doubleValue")?.as_f64()
    }

    /// Yes or no.
    #[must_use]
    pub fn bool(&self, name: &str) -> Option<bool> {
        self.attributes.get(name)?.get("boolValue")?.as_bool()
    }

    /// Nanoseconds.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}

/// Reads every span of the file, in its order.
///
/// # Errors
/// When the file cannot be read or holds anything else than OTLP/JSON.
pub fn read(path: &Path) -> Result<Vec<Span>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    let mut spans = Vec::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).context("a line is no JSON")?;
        spans.extend(of_request(&line)?);
    }
    Ok(spans)
}

/// Every span of one OTLP/JSON request, in its order.
///
/// # Errors
/// When a span lacks what every span has.
pub fn of_request(request: &Value) -> Result<Vec<Span>> {
    let mut spans = Vec::new();
    for resource in list(request, "resourceSpans") {
        let about = resource.get("resource").map(attributes).unwrap_or_default();
        for span in list(resource, "scopeSpans").flat_map(|scope| list(scope, "spans")) {
            let parsed = parse(span).with_context(|| format!("not a span: {span}"))?;
            spans.push(Span { resource: about.clone(), ..parsed });
        }
    }
    Ok(spans)
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn parse(span: &Value) -> Option<Span> {
    let text = |name: &str| Some(span.get(name)?.as_str()?.to_owned());
    let link = |link: &Value| {
        let id = |name: &str| Some(link.get(name)?.as_str()?.to_owned());
        Some(Link { trace_id: id("traceId")?, span_id: id("spanId")?, attributes: attributes(link) })
    };
    let number = |name: &str| span.get(name).and_then(Value::as_u64).unwrap_or(0);
    Some(Span {
        trace_id: text("traceId")?,
        span_id: text("spanId")?,
        parent: text("parentSpanId").unwrap_or_default(),
        name: text("name")?,
        kind: span.get("kind")?.as_u64()?,
        start_ns: text("startTimeUnixNano")?.parse().ok()?,
        end_ns: text("endTimeUnixNano")?.parse().ok()?,
        attributes: attributes(span),
        events: list(span, "events").count() as u64 + number("droppedEventsCount"),
        first_event_ns: list(span, "events")
            .next()
            .and_then(|event| event.get("timeUnixNano")?.as_str()?.parse().ok()),
        flags: number("flags"),
        links: list(span, "links").map(link).collect::<Option<_>>()?,
        dropped_links: number("droppedLinksCount"),
        resource: BTreeMap::new(),
        json_bytes: span.to_string().len(),
    })
}

fn attributes(of: &Value) -> BTreeMap<String, Value> {
    let attribute =
        |value: &Value| Some((value.get("key")?.as_str()?.to_owned(), value.get("value")?.clone()));
    list(of, "attributes").filter_map(attribute).collect()
}
