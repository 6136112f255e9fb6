//! A trace within what backends take: Tempo refuses traces over 5 MB and cuts attributes over 2,048 bytes; engines'
//! launches would make hundreds of megabytes. In: the spans of one trace. Out: the same, small enough, with what was
//! cut counted on each span and in sums.

use super::model::{Attribute, Span, Value, int};
use crate::metric::catalog::attribute as name;

/// Spans of a trace at most.
pub const MOST_SPANS: usize = 256;
/// Bytes of a trace at most, as OTLP has it.
pub const MOST_BYTES: usize = 256 << 10;
/// Bytes of an attribute's value at most: Tempo 3.0's `max_attribute_bytes`.
const MOST_VALUE: usize = 2048;
/// Bytes of a span's name at most.
const MOST_NAME: usize = 256;
/// Attributes and events of a span at most, as OpenTelemetry's SDKs have it.
const MOST_PARTS: usize = 128;

/// Bytes around a text in a list: tags and lengths of the value and of the text.
const TEXT_OVERHEAD: usize = 8;
/// Bytes around a value: tags and lengths of the pair, its key and its value.
const PAIR_OVERHEAD: usize = 14;
/// Bytes of a number, with its tag.
const NUMBER: usize = 11;
/// Bytes of a span without its texts and lists: ids, times, kind, flags, counts, status, with tags and lengths.
const SPAN: usize = 120;
/// Likewise of a link and of an event.
const LINK: usize = 44;
const EVENT: usize = 24;

/// What was cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Cut {
    /// Spans.
    pub spans: u64,
    /// Links.
    pub links: u64,
    /// Events.
    pub events: u64,
    /// Attributes.
    pub attributes: u64,
    /// Values and names that were too long and have lost their end.
    pub values: u64,
}

impl Cut {
    /// Adds what was cut elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.spans += other.spans;
        self.links += other.links;
        self.events += other.events;
        self.attributes += other.attributes;
        self.values += other.values;
    }
}

/// Cuts a trace to size: summaries go first, the least last, then events, then links.
pub fn fit(spans: &mut Vec<Span>) -> Cut {
    let mut cut = Cut::default();
    spans.iter_mut().for_each(|span| trim(span, &mut cut));
    let mut sizes: Vec<usize> = spans.iter().map(size).collect();
    let mut bytes: usize = sizes.iter().sum();
    let mut at = spans.len();
    while (bytes > MOST_BYTES || spans.len() > MOST_SPANS) && at > 0 {
        at -= 1;
        if spans.get(at).is_some_and(|span| is_summary(span) || spans.len() > MOST_SPANS && at > 0) {
            spans.remove(at);
            bytes -= sizes.remove(at);
            cut.spans += 1;
        }
    }
    for shrink in [drop_events, drop_links] {
        if bytes > MOST_BYTES {
            spans.iter_mut().for_each(shrink);
            bytes = spans.iter().map(size).sum();
        }
    }
    if cut.spans > 0
        && let Some(first) = spans.first_mut()
    {
        first.attributes.push((name::GPUSPAN_DROPPED_SPANS, int(cut.spans)));
    }
    // What was left out before it came here counts, too.
    cut.events = spans.iter().map(|span| u64::from(span.dropped_events)).sum();
    cut.links = spans.iter().map(|span| u64::from(span.dropped_links)).sum();
    cut
}

fn is_summary(span: &Span) -> bool {
    span.attributes.iter().any(|(attribute, _)| *attribute == name::AGGREGATION_IS_SUMMARY)
}

/// One span's own limits.
fn trim(span: &mut Span, cut: &mut Cut) {
    if span.name.len() > MOST_NAME {
        shorten(span.name.to_mut(), MOST_NAME);
        cut.values += 1;
    }
    let beyond = drop_beyond(&mut span.attributes);
    span.dropped_attributes = span.dropped_attributes.saturating_add(beyond);
    cut.attributes += u64::from(beyond);
    span.dropped_events = span.dropped_events.saturating_add(drop_beyond(&mut span.events));
    span.dropped_links = span.dropped_links.saturating_add(drop_beyond(&mut span.links));
    let links = span.links.iter_mut().flat_map(|link| &mut link.attributes);
    let events = span.events.iter_mut().flat_map(|event| &mut event.attributes);
    for (_, value) in span.attributes.iter_mut().chain(links).chain(events) {
        cut.values += u64::from(shorten_value(value));
    }
}

fn drop_beyond<T>(list: &mut Vec<T>) -> u32 {
    let beyond = list.len().saturating_sub(MOST_PARTS);
    list.truncate(MOST_PARTS);
    u32::try_from(beyond).unwrap_or(u32::MAX)
}

/// Whether a value had to be cut.
fn shorten_value(value: &mut Value) -> bool {
    match value {
        Value::Str(text) if text.len() > MOST_VALUE => {
            shorten(text.to_mut(), MOST_VALUE);
            true
        }
        Value::Strs(texts) => {
            let mut bytes = 0;
            let all = texts.len();
            texts.retain(|text| {
                bytes += text.len() + TEXT_OVERHEAD;
                bytes <= MOST_VALUE
            });
            texts.len() < all
        }
        _ => false,
    }
}

fn shorten(text: &mut String, most: usize) {
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
}

fn drop_events(span: &mut Span) {
    let all = u32::try_from(span.events.len()).unwrap_or(u32::MAX);
    span.dropped_events = span.dropped_events.saturating_add(all);
    span.events.clear();
}

fn drop_links(span: &mut Span) {
    let all = u32::try_from(span.links.len()).unwrap_or(u32::MAX);
    span.dropped_links = span.dropped_links.saturating_add(all);
    span.links.clear();
}

/// Bytes of a span in OTLP, or a little more.
#[must_use]
pub fn size(span: &Span) -> usize {
    let links: usize = span.links.iter().map(|link| LINK + pairs(&link.attributes)).sum();
    let event = |event: &super::model::Event| EVENT + event.name.len() + pairs(&event.attributes);
    let events: usize = span.events.iter().map(event).sum();
    let status = match &span.status {
        super::model::Status::Error(message) => message.len(),
        super::model::Status::Unset => 0,
    };
    SPAN + span.name.len() + span.trace_state.len() + status + pairs(&span.attributes) + links + events
}

fn pairs(attributes: &[Attribute]) -> usize {
    attributes.iter().map(|(key, value)| PAIR_OVERHEAD + key.len() + value_size(value)).sum()
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::Str(text) => text.len(),
        Value::Int(_) | Value::Double(_) | Value::Bool(_) => NUMBER,
        Value::Strs(texts) => texts.iter().map(|text| text.len() + TEXT_OVERHEAD).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::model::{Event, Link, Status, text};
    use proptest::prelude::*;

    fn pair(n: usize) -> Attribute {
        let value = match n % 5 {
            0 => Value::Int(-1),
            1 => Value::Double(0.5),
            2 => Value::Bool(true),
            3 => Value::Strs(vec!["a".repeat(n % 300); n % 7]),
            _ => Value::Str("ü".repeat(n).into()),
        };
        (name::GPUSPAN_BREAKDOWN_BLOCKED_BY_PREFILL_NS, value)
    }

    fn span((attributes, links, events): (usize, usize, usize)) -> Span {
        let event = Event { name: "token".into(), time_ns: u64::MAX, attributes: vec![pair(0)] };
        let link = Link { trace_id: [9; 16], span_id: [9; 8], attributes: (0..4).map(|_| pair(4)).collect() };
        Span {
            trace_id: [9; 16],
            span_id: [8; 8],
            parent: Some([7; 8]),
            parent_is_remote: true,
            trace_state: "a=b".repeat(100),
            name: "kernel".into(),
            start_ns: u64::MAX,
            end_ns: u64::MAX,
            attributes: (0..attributes).map(pair).collect(),
            links: vec![link; links],
            events: vec![event; events],
            dropped_links: u32::MAX,
            status: Status::Error("500".into()),
            ..Span::default()
        }
    }

    proptest! {
        #[test]
        fn sizes_are_those_of_otlp_or_a_little_more(parts in (0usize..150, 0usize..150, 0usize..80)) {
            let span = span(parts);
            let exact = crate::export::encoded_size(std::slice::from_ref(&span));
            let resource = crate::export::encoded_size(&[]);
            let estimate = size(&span);
            prop_assert!(estimate + 60 + resource >= exact, "{estimate} < {exact}");
            prop_assert!(estimate <= exact * 3 / 2 + 200, "{estimate} of {exact}");
        }
    }

    proptest! {
        // Hundreds of spans with hundreds of parts each take a while to encode.
        #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_comes_fits(
            all in prop::collection::vec((0usize..400, 0usize..400, 0usize..200), 1..400),
        ) {
            let mut spans: Vec<_> = all.iter().map(|parts| span(*parts)).collect();
            for summary in spans.iter_mut().skip(3) {
                summary.attributes.insert(0, (name::AGGREGATION_IS_SUMMARY, Value::Bool(true)));
            }
            let before = spans.len();
            let cut = fit(&mut spans);
            prop_assert!(spans.len() <= MOST_SPANS);
            prop_assert_eq!(spans.len() as u64 + cut.spans, before as u64);
            let bytes = crate::export::encoded_size(&spans);
            prop_assert!(bytes <= MOST_BYTES || spans.len() <= 3, "{} bytes in {} spans", bytes, spans.len());
        }
    }

    #[test]
    fn long_texts_lose_their_end_and_are_counted() {
        let mut spans = vec![Span {
            attributes: vec![
                (name::URL_PATH, text(&"ü".repeat(3000))),
                (name::GEN_AI_RESPONSE_FINISH_REASONS, Value::Strs(vec!["stop".to_owned(); 1000])),
            ],
            ..Span::default()
        }];
        let cut = fit(&mut spans);
        assert_eq!(cut, Cut { values: 2, ..Cut::default() });
        assert_eq!(spans[0].attributes[0].1, text(&"ü".repeat(1024)));
        let Value::Strs(reasons) = &spans[0].attributes[1].1 else { panic!("{spans:?}") };
        assert_eq!(reasons.len(), 2048 / 12);
    }
}
