//! What servers say inside → metrics.

use super::catalog::{self, attribute as name};
use super::{Target, level};
use crate::correlate::{Evidence, Inside, Request};
use crate::span::model::{Attribute, Value};

/// Takes what a finished request was told to have gone through inside.
pub fn served(target: &Target, request: &Request) {
    let Some(served) = &request.served else { return };
    let attributes =
        [adapter(served.adapter), (name::GPUSPAN_EVIDENCE, Value::Str(served.evidence.name().into()))];
    if let Some((from, to)) = served.enqueued_ns().or(served.met_ns()).zip(served.scheduled_ns()) {
        let seconds = to.saturating_sub(from) as f64 / 1e9;
        target.record(&catalog::ENGINE_QUEUE_DURATION, &attributes, seconds, None);
    }
    target.add(&catalog::ENGINE_JOINED, &attributes, 1);
}

/// Takes the running totals over.
pub fn totals(target: &Target, inside: &Inside) {
    let counts = inside.counts();
    for speaker in inside.speakers() {
        let of = |state: &'static str| {
            [adapter(speaker.adapter), (name::GPUSPAN_ADAPTER_STATE, Value::Str(state.into()))]
        };
        target
            .handle(&catalog::ADAPTER_OBSERVATIONS, &of("understood"))
            .observe(speaker.seen - speaker.failed);
        target.handle(&catalog::ADAPTER_OBSERVATIONS, &of("failed")).observe(speaker.failed);
        let demoted = i64::from(speaker.state == "demoted");
        target.handle(&catalog::ADAPTERS, &of("demoted")).set(demoted);
        target.handle(&catalog::ADAPTERS, &of("ok")).set(1 - demoted);
        target.handle(&catalog::ENGINE_TOKENS, &[]).observe(counts.tokens);
        target.handle(&catalog::ENGINE_PREEMPTIONS, &[]).observe(counts.preemptions);
    }
    for (pid, gauges) in inside.gauges() {
        let engine = [
            (name::PROCESS_PID, Value::Int(i64::from(pid))),
            (name::GPUSPAN_ENGINE_INDEX, Value::Int(level(gauges.engine))),
        ];
        // An engine's own word of itself.
        let told =
            [engine.as_slice(), &[(name::GPUSPAN_EVIDENCE, Value::Str(Evidence::E0.name().into()))]].concat();
        if let Some(running) = gauges.running {
            target.handle(&catalog::ENGINE_RUNNING, &told).set(level(running));
        }
        if let Some(waiting) = gauges.waiting {
            target.handle(&catalog::ENGINE_WAITING, &told).set(level(waiting));
        }
        if let Some(usage) = gauges.kv_usage {
            target.handle(&catalog::ENGINE_KV_USAGE, &engine).set(usage);
        }
    }
}

fn adapter(adapter: &'static str) -> Attribute {
    (name::GPUSPAN_ADAPTER, Value::Str(adapter.into()))
}
