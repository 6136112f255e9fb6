//! Requests come into the sequences of a context and leave them.
//!
//! In: a run that is about to be computed, a copy of a sequence. Out: requests that are met, and ends of those before.

use super::context::Context;
use super::sequence::{Going, Phase, Request};
use super::task::Asked;
use super::voice::{Voice, say_prompt, say_step};
use crate::server::adapter::Run;
use crate::server::said::{Inner, Moment, Reason, Saying};
use std::collections::BTreeMap;

/// A sequence that is silent for so long, and absent from so many batches, is over. A slot can be left out of batches
/// for a while: those with other LoRA adapters take turns.
pub(super) const SILENT_NS: u64 = 10_000_000_000;
const ABSENT: u32 = 64;

/// By slot, who asked for the task in it, if that is known.
pub(super) type Launched = BTreeMap<i32, Option<Asked>>;

/// A run of a sequence is about to be computed. Returns whether something before it was missed.
pub(super) fn enter(
    context: &mut Context,
    run: &Run,
    embeddings: bool,
    drafts: bool,
    launched: &mut Launched,
    voice: &mut Voice<'_>,
) -> bool {
    let sequence = context.sequences.entry(run.sequence).or_default();
    let one = run.tokens == 1 && run.outputs == 1;
    let asked = launched.remove(&run.sequence);
    let going = match asked {
        Some(_) => Going::Begins(run.position.max(0)),
        None => sequence.going(run),
    };
    match going {
        Going::On => false,
        Going::Missed => {
            if let Some(request) = &mut sequence.request {
                request.plain = false;
            }
            true
        }
        Going::Joined => {
            let inner = voice.meet(None, true);
            let phase = if one { Phase::Generating } else { Phase::Prompt };
            sequence.begin(Request { phase, plain: false, ..Request::new(inner, voice.time_ns) });
            false
        }
        Going::Begins(cached) => {
            // A slot that was emptied and goes on behind another's prompt is a copy of it (`n` > 1).
            let copied = sequence.is_cleared() && one && run.position > 0;
            if let Some(source) = copied.then(|| context.with_prompt(run.position, run.sequence)).flatten() {
                launched.extend(asked.map(|asked| (run.sequence, asked)));
                copy(context, source, run.sequence, launched, voice);
                return false;
            }
            if let Some(old) = context.take(run.sequence) {
                voice.end(&old, if old.failed { Reason::Error } else { Reason::Unsaid });
            }
            let embeds = run.outputs == run.tokens && run.tokens > 1 && !drafts && !embeddings;
            let inner = voice.meet(asked.flatten(), !embeds);
            begin(context, run, cached, inner, voice)
        }
    }
}

/// A request begins with a run.
pub(super) fn begin(
    context: &mut Context,
    run: &Run,
    cached: i32,
    inner: Inner,
    voice: &mut Voice<'_>,
) -> bool {
    voice.reached(inner, Moment::Scheduled, voice.time_ns);
    voice.reached(inner, Moment::Prefilling, voice.time_ns);
    let request = Request { cached: Some(cached), ..Request::new(inner, voice.time_ns) };
    context.sequences.entry(run.sequence).or_default().begin(request);
    false
}

/// A sequence's state was copied to another, whose request begins behind the same prompt and with a token of its own
/// from the same outputs.
pub(super) fn copy(
    context: &mut Context,
    from: i32,
    to: i32,
    launched: &mut Launched,
    voice: &mut Voice<'_>,
) {
    // A prompt that is copied is complete, whatever was open of it.
    if let Some(tokens) = context.sequences.get_mut(&from).and_then(|sequence| sequence.settle(None)) {
        context.told(from, tokens);
        if let Some(step) = context.finish() {
            say_step(context, step, voice);
        }
    }
    let Some(source) = context.sequences.get(&from).cloned() else { return };
    let Some(parent) = source.request.as_ref().filter(|request| request.phase == Phase::Generating) else {
        return;
    };
    let at_ns = parent.first_ns.unwrap_or(context.last_ns);
    if let Some(old) = context.take(to) {
        voice.end(&old, Reason::Unsaid);
    }
    let inner = voice.meet(launched.remove(&to).flatten(), true);
    voice.reached(inner, Moment::Scheduled, at_ns);
    let request = Request { generated: 1, first_ns: Some(at_ns), ..Request::new(inner, voice.time_ns) };
    let sequence = context.sequences.entry(to).or_default();
    sequence.copied(&source, request);
    say_prompt(sequence, voice);
    voice.say(Saying::Tokens { inner, count: 1, at_ns });
}

/// Sequences that have been silent for long are over.
pub(super) fn leave(context: &mut Context, runs: &[Run], voice: &mut Voice<'_>) {
    for (id, sequence) in &mut context.sequences {
        let Some(request) = &mut sequence.request else { continue };
        let present = runs.iter().any(|run| run.sequence == *id);
        request.absent = if present { 0 } else { request.absent.saturating_add(1) };
        let silent = voice.time_ns.saturating_sub(request.last_ns) > SILENT_NS;
        if silent
            && request.absent > ABSENT
            && let Some(request) = sequence.request.take()
        {
            voice.end(&request, Reason::Unsaid);
        }
    }
}
