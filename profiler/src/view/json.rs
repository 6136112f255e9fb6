//! One JSON object a finished request, for scripts.

use super::View;
use crate::account::Summary;
use crate::control::Control;
use crate::correlate::{Request, Transition};
use crate::session::{Finished, Session};
use serde_json::json;
use std::io::Write as _;
use std::time::Duration;

/// Prints requests once each.
#[derive(Default)]
pub struct Json {
    printed: u64,
}

impl View for Json {
    fn show(&mut self, _: &Control, session: &Session, _: Duration) {
        self.print(session);
    }

    fn finish(&mut self, _: &Summary, session: &Session) {
        self.print(session);
    }
}

impl Json {
    fn print(&mut self, session: &Session) {
        let new = usize::try_from(session.requests.total - self.printed).unwrap_or(usize::MAX);
        self.printed = session.requests.total;
        let skip = session.recent.len().saturating_sub(new);
        if let Some(missed @ 1..) = new.checked_sub(session.recent.len()) {
            tracing::warn!(missed, "requests end faster than they are printed; --otlp-file has them all");
        }
        let mut out = std::io::stdout().lock();
        for finished in session.recent.iter().skip(skip) {
            // A reader that went away ends the output, not the observation.
            let _ = writeln!(out, "{}", object(finished));
        }
    }
}

/// Times are seconds; what is not known is null.
fn object(finished: &Finished) -> serde_json::Value {
    let request: &Request = &finished.request;
    let seconds = |ns: Option<u64>| ns.map(|ns| ns as f64 / 1e9);
    let trace = finished
        .spans
        .first()
        .map(|span| span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let share = request.share();
    json!({
        "trace_id": trace,
        "pid": request.pid,
        "method": request.head.as_ref().map(|head| head.method.as_str()),
        "route": request.route.map(|route| route.template),
        "model": request.facts.model,
        "status": request.status,
        "outcome": request.outcome.name(),
        "streaming": request.streaming != crate::http::Streaming::None,
        "duration_s": seconds(Some(request.ended_ns.saturating_sub(request.opened_ns))),
        "time_to_first_token_s": seconds(request.time_to_first_token_ns()),
        "time_per_output_token_s": crate::metric::time_per_output_token_s(request),
        "input_tokens": request.usage.input,
        "output_tokens": request.usage.output,
        "steps": share.steps,
        "launches": share.launches,
        "copies": share.copies,
        "copy_bytes": share.copy_bytes,
        "evidence": request.evidence.name(),
        "states": request.life.transitions().iter().map(state(request.opened_ns)).collect::<Vec<_>>(),
    })
}

/// A state that a request reached, in seconds from its first byte.
fn state(opened_ns: u64) -> impl Fn(&Transition) -> serde_json::Value {
    move |transition| {
        json!({
            "state": transition.state.name(),
            "at_s": transition.time_ns.saturating_sub(opened_ns) as f64 / 1e9,
            "hook": transition.hook.name(),
            "evidence": transition.evidence.name(),
        })
    }
}
