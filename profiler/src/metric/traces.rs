//! The account of traces → gpuspan's own metrics.

use super::Target;
use super::catalog::{self, attribute as name};
use crate::span::TraceCounts;
use crate::span::model::{Attribute, text};

/// Writes the account under gpuspan's own resource.
pub fn traces(own: &Target, counts: &TraceCounts) {
    for (decision, count) in &counts.requests {
        own.handle(&catalog::SELF_TRACES, &[(name::GPUSPAN_SAMPLING, text(decision))]).observe(*count);
    }
    let reason = |reason: &str| -> [Attribute; 1] { [(name::GPUSPAN_LOSS_REASON, text(reason))] };
    let cut = &counts.cut;
    if cut.spans > 0 {
        own.handle(&catalog::SELF_SPANS_DROPPED, &reason("budget")).observe(cut.spans);
    }
    let parts = [
        ("links", cut.links),
        ("events", cut.events),
        ("attributes", cut.attributes),
        ("values", cut.values),
    ];
    for (part, count) in parts.into_iter().filter(|(_, count)| *count > 0) {
        own.handle(&catalog::SELF_SPAN_PARTS_DROPPED, &reason(part)).observe(count);
    }
    own.handle(&catalog::SELF_STEPS_SHOWN, &[]).observe(counts.steps.shown);
    own.handle(&catalog::SELF_STEPS_LET_GO, &[]).observe(counts.steps.let_go);
}
