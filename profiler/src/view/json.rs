//! One JSON object a finished request and an iteration of an engine, for scripts.

use super::{View, Whom};
use crate::account::Summary;
use crate::correlate::{GpuWork, Iteration, Piece, Request, Rider, Sequence, Served, Share, Transition, Who};
use crate::server::said::Member;
use crate::session::{Finished, Session};
use serde_json::json;
use std::io::Write as _;
use std::time::Duration;

/// Prints requests and iterations once each.
#[derive(Default)]
pub struct Json {
    printed: u64,
    iterations: u64,
}

impl View for Json {
    fn show(&mut self, _: &Whom, session: &Session, _: Duration) {
        self.print(session);
    }

    fn finish(&mut self, _: &Summary, session: &Session) {
        self.print(session);
    }
}

impl Json {
    fn print(&mut self, session: &Session) {
        let mut out = std::io::stdout().lock();
        let skip = new(&mut self.iterations, session.iterated, session.iterations.len(), "iterations");
        for iteration in session.iterations.iter().skip(skip) {
            // A reader that went away ends the output, not the observation.
            let _ = writeln!(out, "{}", step(iteration));
        }
        let skip = new(&mut self.printed, session.requests.total, session.recent.len(), "requests");
        for finished in session.recent.iter().skip(skip) {
            let _ = writeln!(out, "{}", object(finished));
        }
    }
}

/// How many of the `kept` newest have been printed.
fn new(printed: &mut u64, total: u64, kept: usize, what: &str) -> usize {
    let new = usize::try_from(total - *printed).unwrap_or(usize::MAX);
    *printed = total;
    if let Some(missed @ 1..) = new.checked_sub(kept) {
        tracing::warn!(missed, "{what} come faster than they are printed");
    }
    kept.saturating_sub(new)
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
        "type": "request",
        "id": request.id,
        "connection": request.connection,
        "exchange": request.exchange,
        "opened_ns": request.opened_ns,
        "arrived_ns": request.arrived_ns,
        "ended_ns": request.ended_ns,
        "engine": request.served.as_deref().map(engine),
        "finish_reasons": request.finish_reasons,
        "cached_tokens": request.usage.cached,
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
        "gpu": time(&share),
        "queued_behind_ns": request.ride.queued_behind_ns,
        "stretched_ns": request.ride.stretched_ns,
        "gap_ns": request.ride.gap_ns.0 + request.ride.gap_ns.1,
        "evidence": request.evidence().name(),
        "states": request.life.transitions().iter().map(state(request.opened_ns)).collect::<Vec<_>>(),
    })
}

/// What the server said of a request inside. Times are `CLOCK_MONOTONIC` nanoseconds.
fn engine(served: &Served) -> serde_json::Value {
    json!({
        "adapter": served.adapter,
        "schema": served.schema,
        "evidence": served.evidence.name(),
        "parts": served.sequences.iter().map(sequence).collect::<Vec<_>>(),
    })
}

fn sequence(sequence: &Sequence) -> serde_json::Value {
    json!({
        "inner": sequence.inner,
        "part": sequence.part,
        "met_ns": sequence.met_ns,
        "enqueued_ns": sequence.enqueued_ns,
        "scheduled_ns": sequence.scheduled_ns,
        "prefilling_ns": sequence.prefilling_ns,
        "first_token_ns": sequence.first_token_ns,
        "last_token_ns": sequence.last_token_ns,
        "ended_ns": sequence.ended_ns,
        "reason": sequence.reason.map(|reason| reason.name()),
        "prompt_tokens": sequence.prompt_tokens,
        "cached_tokens": sequence.cached_tokens,
        "generated_tokens": sequence.generated_tokens,
        "steps": sequence.steps,
        "preemptions": sequence.preemptions,
        "preempted_ns": sequence.preempted_ns,
    })
}

/// An iteration of an engine.
fn step(iteration: &Iteration) -> serde_json::Value {
    let step = &iteration.step;
    json!({
        "type": "step",
        "id": iteration.id,
        "gpu": iteration.gpu.as_deref().map(gpu),
        "riders": iteration.riders.iter().map(rider).collect::<Vec<_>>(),
        "unattributed": time(&iteration.unattributed),
        "adapter": iteration.adapter,
        "pid": iteration.pid,
        "engine": step.engine,
        "start_ns": step.start_ns,
        "end_ns": step.end_ns,
        "complete": step.is_complete,
        "failed": step.failed,
        "tokens": step.tokens,
        "members": step.members.iter().map(member).collect::<Vec<_>>(),
    })
}

/// GPU work of an iteration. Times are `CLOCK_MONOTONIC` nanoseconds.
fn gpu(work: &GpuWork) -> serde_json::Value {
    json!({
        "start_ns": work.start_ns,
        "end_ns": work.end_ns,
        "launches": work.whole.launches,
        "copies": work.whole.copies,
        "copy_bytes": work.whole.copy_bytes,
        "time": time(&work.whole),
        "skew_ns": work.skew_ns(),
        "devices": work.devices().iter().map(device).collect::<Vec<_>>(),
    })
}

/// What one device did in an iteration; null where it is not known which.
fn device(piece: &Piece) -> serde_json::Value {
    json!({
        "pid": piece.pid,
        "thread": piece.tid,
        "device": piece.device,
        "end_ns": piece.end_ns,
        "launches": piece.whole.launches,
        "copies": piece.whole.copies,
        "copy_bytes": piece.whole.copy_bytes,
        "time": time(&piece.whole),
    })
}

fn rider(rider: &Rider) -> serde_json::Value {
    let (owner, inner) = match rider.who {
        Who::Request(owner) => (Some(owner), None),
        Who::Inner(inner) => (None, Some(inner.0)),
    };
    json!({
        "connection": owner.map(|owner| owner.connection),
        "exchange": owner.map(|owner| owner.exchange),
        "inner": inner,
        "phase": rider.part.name(),
        "tokens": rider.tokens,
        "launches": rider.share.launches,
        "time": time(&rider.share),
        "evidence": rider.evidence.name(),
    })
}

/// A share's GPU time, nanoseconds.
fn time(share: &Share) -> serde_json::Value {
    json!({
        "ns": share.gpu_ns,
        "lo_ns": share.gpu_lo_ns,
        "hi_ns": share.gpu_hi_ns,
        "class": share.has_gpu().then(|| share.class.name()),
    })
}

fn member(member: &Member) -> serde_json::Value {
    json!({
        "inner": member.inner.0,
        "phase": member.part.name(),
        "computed": member.computed,
        "generated": member.generated,
        "evidence": member.evidence.name(),
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
