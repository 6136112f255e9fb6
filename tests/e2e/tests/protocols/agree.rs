//! The comparison of what the client recorded with what gpuspan says: requests, statuses, outcomes, bytes, events, tokens,
//! first tokens, and the account of losses.

use std::collections::{BTreeMap, HashMap};

use e2e::Span;
use e2e::summary::Summary;

use crate::client::Record;
use crate::rig::Observed;

/// What is allowed between the client's first token and gpuspan's, at the median and at the 99th percentile: the client
/// adds the way through loopback and a wake-up, and TLS.
pub const MEDIAN_NS: u64 = 1_000_000;
pub const TAIL_NS: u64 = 5_000_000;

/// Distances of first tokens, sorted.
pub struct Distances(Vec<u64>);

impl Distances {
    pub fn of(mut distances: Vec<u64>) -> Self {
        assert!(!distances.is_empty(), "nothing was streamed");
        distances.sort_unstable();
        Self(distances)
    }

    /// Nearest rank.
    pub fn percentile(&self, percent: usize) -> u64 {
        self.0[(self.0.len() * percent).div_ceil(100) - 1]
    }

    pub fn are_close(&self) -> bool {
        self.percentile(50) <= MEDIAN_NS && self.percentile(99) <= TAIL_NS
    }
}

impl std::fmt::Display for Distances {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |percent| self.percentile(percent) as f64 / 1e6;
        write!(f, "{:.2} ms at the median, {:.2} ms at p99", ms(50), ms(99))
    }
}

/// Everything but times, which are returned: each request has one span that says the same as the client.
pub fn check(observed: &Observed) -> Distances {
    let spans: Vec<&Span> = observed.report.spans.iter().filter(|span| span.is_server()).collect();
    let mut by_trace: HashMap<&str, Vec<&Span>> = HashMap::new();
    for span in &spans {
        by_trace.entry(&span.trace_id).or_default().push(span);
    }
    let mut distances = Vec::new();
    for record in &observed.records {
        let span = one(by_trace.remove(record.trace_id.as_str()), record);
        request_agrees(record, span);
        distances.extend(first_token(observed, record, span));
    }
    let in_part = older_agree(observed, by_trace);
    summary_agrees(observed, &in_part);
    nothing_lost(&observed.report.summary);
    Distances::of(distances)
}

/// Requests on connections from before the attach; `spans` are those of no other request. Returns the spans of those that
/// are known in part only.
fn older_agree<'a>(observed: &Observed, mut spans: HashMap<&str, Vec<&'a Span>>) -> Vec<&'a Span> {
    assert!(observed.old().all(|record| record.error.is_none()), "{:?}", observed.mid_stream);
    let mut in_part = 1;
    for record in &observed.on_old {
        match spans.remove(record.trace_id.as_str()) {
            // In HTTP/2 what its headers say may stand in a table that is not known, and nothing is made up.
            None if observed.wire.http2 => in_part += 1,
            // Seen from its first byte to its last, on a connection whose beginning was not.
            found => request_agrees(record, one(found, record)),
        }
    }
    let rest: Vec<&Span> = spans.into_values().flatten().collect();
    let (requests, connections) = (&observed.report.summary.requests, &observed.report.summary.connections);
    assert_eq!(rest.len(), in_part, "{rest:#?}, {requests:?}, {connections:?}");
    let partial = rest.iter().filter(|span| span.text("gpuspan.outcome") == Some("partial")).count();
    assert!(partial >= 1 && (observed.wire.http2 || partial == in_part), "{rest:#?}");
    for span in &rest {
        let path = span.text("url.path").is_none_or(|path| path == "/v1/chat/completions");
        let model = span.text("gen_ai.request.model").is_none_or(|model| model == observed.model);
        let status = span.int("http.response.status_code").is_none_or(|status| status == 200);
        // They were, so whoever does not know says nothing.
        let streamed = span.bool("gen_ai.request.stream").unwrap_or(true);
        assert!(path && model && status && streamed, "{span:#?}");
    }
    assert_eq!((connections.tls_unread, connections.tls_doubts), (0, 0), "{connections:?}");
    rest
}

fn one<'a>(found: Option<Vec<&'a Span>>, record: &Record) -> &'a Span {
    let found = found.unwrap_or_else(|| panic!("no SERVER span for {record:?}"));
    assert_eq!(found.len(), 1, "several SERVER spans for {record:?}: {found:#?}");
    found[0]
}

fn request_agrees(record: &Record, span: &Span) {
    assert_eq!(record.error, None, "{record:?}");
    assert_eq!(span.name, "POST /v1/chat/completions", "{span:?}");
    assert_eq!(span.int("http.response.status_code"), Some(u64::from(record.status)), "{span:?}");
    let outcome = if record.status == 200 { "completed" } else { "rejected" };
    assert_eq!(span.text("gpuspan.outcome"), Some(outcome), "{record:?}\n{span:?}");
    for (name, value) in [
        ("http.request.body.size", Some(record.request_bytes)),
        ("http.response.body.size", Some(record.body_bytes)),
        ("gen_ai.usage.input_tokens", record.events.prompt_tokens),
        ("gen_ai.usage.output_tokens", record.events.completion_tokens),
    ] {
        assert_eq!(span.int(name), value, "{name}: {record:?}\n{span:?}");
    }
    let id = (record.status == 200).then_some(record.events.id.as_deref()).flatten();
    assert_eq!(span.text("gen_ai.response.id"), id, "{record:?}\n{span:?}");
    assert_eq!(span.bool("gen_ai.request.stream"), Some(record.stream), "{span:?}");
}

/// Between the client's first token and the moment at which gpuspan says that it left; none where nothing was streamed.
fn first_token(observed: &Observed, record: &Record, span: &Span) -> Option<u64> {
    let decode = observed.report.spans.iter().find(|child| {
        child.parent == span.span_id && child.trace_id == span.trace_id && child.name == "decode"
    });
    let Some(first_ns) = record.events.deltas_ns.first() else {
        // The answer shows no token by itself; that there was one, only its engine can say.
        let told = span.text("gpuspan.engine.evidence").is_some();
        assert!(decode.is_none_or(|decode| told && decode.events == 0), "{record:?}\n{decode:?}");
        return None;
    };
    let decode = decode.unwrap_or_else(|| panic!("no first token of {record:?} in {span:?}"));
    assert_eq!(decode.events, record.events.deltas_ns.len() as u64, "events with text: {record:?}");
    assert_eq!(span.int("gpuspan.response.events"), Some(record.events.count), "{span:?}");
    let first_ns = first_ns + observed.unix_offset_ns;
    let to_first = (span.double("gpuspan.time_to_first_token").unwrap() * 1e9) as u64;
    // The client's time begins before the server's read; on an idle server not by much.
    assert!(to_first <= record.time_to_first_token_ns().unwrap() + TAIL_NS, "{record:?}\n{span:?}");
    // Where the engine tells, decoding begins when it has the token; the event is the token's leaving either way.
    let left_ns = decode.first_event_ns.unwrap();
    assert!(decode.start_ns <= left_ns, "{decode:?}");
    Some(first_ns.abs_diff(left_ns))
}

/// `in_part` are the spans of requests of which only a part was seen.
fn summary_agrees(observed: &Observed, in_part: &[&Span]) {
    let requests = &observed.report.summary.requests;
    // Either all requests on the older connection are known, or none.
    let known = if in_part.len() == 1 { &observed.on_old[..] } else { &[] };
    let seen: Vec<&Record> = observed.records.iter().chain(known).collect();
    let mut by_status: BTreeMap<String, u64> = BTreeMap::new();
    let mut by_outcome: BTreeMap<String, u64> = BTreeMap::new();
    for record in &seen {
        *by_status.entry(record.status.to_string()).or_default() += 1;
        let outcome = if record.status == 200 { "completed" } else { "rejected" };
        *by_outcome.entry(outcome.to_owned()).or_default() += 1;
    }
    for span in in_part {
        let status = span.int("http.response.status_code").map_or("none".to_owned(), |code| code.to_string());
        *by_status.entry(status).or_default() += 1;
        *by_outcome.entry(span.text("gpuspan.outcome").unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(requests.total, (seen.len() + in_part.len()) as u64, "{requests:?}");
    assert_eq!((&requests.by_status, &requests.by_outcome), (&by_status, &by_outcome), "{requests:?}");
    let partial = by_outcome.get("partial").copied().unwrap_or(0);
    assert_eq!((requests.partial, requests.in_flight), (partial, 0), "{requests:?}");
    let sum = |of: fn(&Record) -> Option<u64>| seen.iter().filter_map(|record| of(record)).sum::<u64>();
    let (input, output) =
        (sum(|record| record.events.prompt_tokens), sum(|record| record.events.completion_tokens));
    // Usage that came after the attach may be known of a partial one too.
    let older = |of: fn(&Record) -> Option<u64>| observed.old().filter_map(of).sum::<u64>();
    let most = (older(|record| record.events.prompt_tokens), older(|record| record.events.completion_tokens));
    assert!((input..=input + most.0).contains(&requests.input_tokens), "{requests:?}, {input}");
    assert!((output..=output + most.1).contains(&requests.output_tokens), "{requests:?}, {output}");
}

/// The loss equations hold, and nothing is in them.
pub fn nothing_lost(summary: &Summary) {
    let loss = &summary.loss;
    assert!(loss.balanced, "{loss:#?}");
    assert_eq!(loss.lost, 0, "{loss:#?}");
    assert_eq!(summary.requests.violations, 0, "the order of a request's states: {:?}", summary.requests);
}
