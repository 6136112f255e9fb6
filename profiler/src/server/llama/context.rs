//! One `llama_context`: the batch that is computed in it, and its sequences.
//!
//! In: batches and their returns. Out: steps. A call that fails is said as a failed step and changes nothing: the
//! server tries its tokens again with a smaller batch (`server_context_impl::decode`, llama.cpp 0c1e570).

use super::sequence::{Phase, Request, Sequence};
use crate::evidence::Evidence;
use crate::server::adapter::{Batch, Run};
use crate::server::said::{EngineStep, Inner, Member, Part};
use std::collections::BTreeMap;

/// What a context is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Role {
    /// Requests are computed in it.
    #[default]
    Main,
    /// It drafts tokens for the requests of this other context.
    Draft(u64),
}

/// A batch that was given and is not said yet.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) returned: bool,
    /// The GPU was waited for, or nobody waits for it.
    pub(super) waited: bool,
    pub(super) outputs: bool,
    embeddings: bool,
    tokens: u32,
    complete: bool,
    pub(super) runs: Vec<Run>,
    members: Vec<Computed>,
}

/// A member of a step.
#[derive(Clone, Copy, Debug)]
struct Computed {
    sequence: i32,
    inner: Inner,
    part: Part,
    computed: u32,
    generated: Option<u32>,
}

/// A context.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// `llama_context*`, which names its engine.
    pub(super) id: u64,
    pub(super) role: Role,
    /// `llama_memory_t` that belongs to it, once known.
    pub(super) memory: Option<u64>,
    pub(super) sequences: BTreeMap<i32, Sequence>,
    pub(super) step: Option<Step>,
    /// The runs of the last step that was computed, and by whom.
    pub(super) last: Vec<Run>,
    pub(super) last_tid: u32,
    /// When it was done.
    pub(super) last_ns: u64,
    /// Batches of a draft's context, one after the other, that do not follow its main context.
    pub(super) strange: u8,
    /// Whether the server waits for the GPU after a batch with outputs, as far as seen.
    pub(super) waits: Option<bool>,
}

/// The runs of a batch; those of one sequence that follow each other are one.
pub(super) fn joined(batch: &Batch<'_>) -> Vec<Run> {
    let mut joined: Vec<Run> = Vec::with_capacity(batch.runs.len());
    for run in batch.runs {
        // Without an id a token belongs to sequence 0 (`include/llama.h`, `llama_batch`).
        let run = Run { sequence: run.sequence.max(0), ..*run };
        match joined.iter_mut().find(|other| other.sequence == run.sequence) {
            Some(other) => {
                other.tokens = other.tokens.saturating_add(run.tokens);
                other.outputs = other.outputs.saturating_add(run.outputs);
                other.sequences = other.sequences.max(run.sequences);
            }
            None => joined.push(run),
        }
    }
    // Which tokens want an output is not said: all where they are embeddings, else the last (`include/llama.h`).
    if batch.last_only {
        for run in joined.iter_mut().filter(|_| batch.embeddings) {
            run.outputs = run.tokens;
        }
        if let Some(last) = joined.last_mut().filter(|_| batch.unseen == 0) {
            last.outputs = last.outputs.max(1);
        }
    }
    joined
}

/// Why a batch cannot be one, if it cannot.
pub(super) fn fault(batch: &Batch<'_>) -> Option<&'static str> {
    /// `LLAMA_MAX_SEQ`, `src/llama-cparams.h`.
    const MAX_SEQUENCES: i32 = 256;
    let tokens: u64 = batch.runs.iter().map(|run| u64::from(run.tokens)).sum();
    match () {
        () if batch.tokens == 0 => Some("a batch has no tokens"),
        () if tokens.saturating_add(u64::from(batch.unseen)) != u64::from(batch.tokens) => {
            Some("the runs of a batch do not add up to its tokens")
        }
        () if batch.runs.iter().any(|run| !(-1..MAX_SEQUENCES).contains(&run.sequence)) => {
            Some("a sequence is outside of what llama.cpp allows")
        }
        () if batch.runs.iter().any(|run| run.outputs > run.tokens || run.tokens == 0) => {
            Some("a run has more outputs than tokens")
        }
        () if batch.runs.iter().any(|run| run.position < -1 || run.position > 1 << 30) => {
            Some("a position is out of range")
        }
        () => None,
    }
}

impl Context {
    /// Whether these runs follow what this context has computed: a draft's context gets the same tokens after it, and
    /// goes on from there. Older servers have a context for each slot's draft, with one sequence in it.
    pub(super) fn is_followed_by(&self, runs: &[Run]) -> bool {
        /// Tokens that a draft goes ahead at most: `--draft-max` is 16 by default.
        const AHEAD: i32 = 128;
        let near = |run: &Run, id: i32, sequence: &Sequence| {
            let last = self.last.iter().find(|last| last.sequence == id).map_or(1, |last| last.tokens);
            let Some(expected) = sequence.expected else { return false };
            let end = run.position.saturating_add(i32::from(run.tokens));
            let behind = expected.saturating_sub(i32::from(last)).saturating_sub(1);
            sequence.request.is_some() && run.position >= behind && end <= expected.saturating_add(AHEAD)
        };
        let catches_up = |run: &Run| {
            let end = run.position.saturating_add(i32::from(run.tokens));
            self.sequences.values().any(|s| s.expected.is_some_and(|e| e.abs_diff(end) <= 1))
        };
        let same = |run: &Run| self.sequences.get(&run.sequence).is_some_and(|s| near(run, run.sequence, s));
        match runs {
            [] => false,
            [only] => same(only) || (only.sequence == 0 && only.tokens > 1 && catches_up(only)),
            runs => runs.iter().all(same),
        }
    }

    /// A batch was given.
    pub(super) fn open(&mut self, batch: &Batch<'_>, runs: Vec<Run>, start_ns: u64) {
        let alone = runs.iter().all(|run| run.sequences <= 1);
        self.step = Some(Step {
            start_ns,
            end_ns: start_ns,
            returned: false,
            waited: false,
            outputs: runs.iter().any(|run| run.outputs > 0),
            embeddings: batch.embeddings,
            tokens: batch.tokens,
            complete: batch.unseen == 0 && alone,
            runs,
            members: Vec::new(),
        });
    }

    /// The batch was computed.
    pub(super) fn computed(&mut self, end_ns: u64, tid: u32, generates: bool) {
        let Some(step) = &mut self.step else { return };
        (step.returned, step.end_ns) = (true, end_ns);
        let embeddings = step.embeddings;
        for run in &step.runs {
            let sequence = self.sequences.entry(run.sequence).or_default();
            let (part, generated) = sequence.computed(run, embeddings, generates);
            let Some(request) = &mut sequence.request else { continue };
            request.last_ns = end_ns;
            step.members.push(Computed {
                sequence: run.sequence,
                inner: request.inner,
                part,
                computed: u32::from(run.tokens),
                generated,
            });
        }
        self.last.clone_from(&step.runs);
        (self.last_tid, self.last_ns) = (tid, end_ns);
    }

    /// What a draft's context computed for requests of `main`; nothing comes out of it.
    pub(super) fn drafted(&mut self, main: &BTreeMap<i32, Sequence>, end_ns: u64) {
        let Some(step) = &mut self.step else { return };
        (step.returned, step.end_ns) = (true, end_ns);
        for run in &step.runs {
            let Some(request) = main.get(&run.sequence).and_then(|s| s.request.as_ref()) else { continue };
            let part = if request.phase == Phase::Prompt { Part::Prefill } else { Part::Decode };
            step.members.push(Computed {
                sequence: run.sequence,
                inner: request.inner,
                part,
                computed: u32::from(run.tokens),
                generated: Some(0),
            });
        }
    }

    /// The batch was not computed: its step. Sequences are as before.
    pub(super) fn failed(&mut self, end_ns: u64) -> Option<EngineStep> {
        let step = self.step.take()?;
        let members = step.runs.iter().filter_map(|run| {
            let request = self.sequences.get_mut(&run.sequence)?.request.as_mut()?;
            (request.failed, request.last_ns) = (true, end_ns);
            let prompt = request.phase == Phase::Prompt;
            Some(Member {
                inner: request.inner,
                part: if prompt { Part::Prefill } else { Part::Decode },
                computed: 0,
                generated: 0,
                evidence: Evidence::E1,
            })
        });
        Some(EngineStep {
            engine: self.id,
            start_ns: Some(step.start_ns),
            end_ns,
            members: members.collect(),
            is_complete: step.complete,
            tokens: Some(0),
            failed: true,
            thread: None,
        })
    }

    /// A removal or the next batch told how many tokens came out for a sequence.
    pub(super) fn told(&mut self, sequence: i32, generated: u32) {
        let Some(step) = &mut self.step else { return };
        for member in step.members.iter_mut().filter(|member| member.sequence == sequence) {
            member.generated = member.generated.or(Some(generated));
        }
    }

    /// What the last step left open is settled by the next batch.
    pub(super) fn settle(&mut self, next: &[Run]) {
        let open: Vec<i32> =
            self.sequences.iter().filter(|(_, s)| s.open.is_some()).map(|(id, _)| *id).collect();
        for id in open {
            let run = next.iter().find(|run| run.sequence == id);
            if let Some(generated) = self.sequences.get_mut(&id).and_then(|sequence| sequence.settle(run)) {
                self.told(id, generated);
            }
        }
    }

    /// The step, if everything of it is known.
    pub(super) fn finish(&mut self) -> Option<EngineStep> {
        let ready = self.step.as_ref().is_some_and(|step| {
            let waits = step.outputs && self.role == Role::Main && self.waits != Some(false);
            step.returned
                && (step.waited || !waits)
                && step.members.iter().all(|member| member.generated.is_some())
        });
        let step = if ready { self.step.take()? } else { return None };
        for member in &step.members {
            let generated = member.generated.unwrap_or(0);
            if let Some(request) = self.sequences.get_mut(&member.sequence).and_then(|s| s.request.as_mut())
                && request.inner == member.inner
                && generated > 0
            {
                request.generated = request.generated.saturating_add(u64::from(generated));
                request.first_ns = request.first_ns.or(Some(step.end_ns));
            }
        }
        Some(EngineStep {
            engine: self.id,
            start_ns: Some(step.start_ns),
            end_ns: step.end_ns,
            members: step.members.iter().map(member).collect(),
            is_complete: step.complete,
            tokens: Some(u64::from(step.tokens)),
            failed: false,
            thread: Some(self.last_tid).filter(|tid| *tid != 0),
        })
    }

    /// The request in a sequence, taken out.
    pub(super) fn take(&mut self, sequence: i32) -> Option<Request> {
        self.sequences.get_mut(&sequence)?.request.take()
    }

    /// A sequence that was just computed to the end of its prompt, which ends at this position.
    pub(super) fn with_prompt(&self, end: i32, other_than: i32) -> Option<i32> {
        let mut fitting = self.sequences.iter().filter(|(id, sequence)| {
            **id != other_than
                && sequence.request.as_ref().is_some_and(|r| r.prompt == Some(end) && r.generated <= 1)
        });
        let found = fitting.next().map(|(id, _)| *id);
        found.filter(|_| fitting.next().is_none())
    }

    /// The next batch is there, so whatever is open of the last one is as known as it gets.
    pub(super) fn overtaken(
        &mut self,
        next: &[Run],
        tid: u32,
        now_ns: u64,
        drafts: bool,
    ) -> Option<EngineStep> {
        let step = self.step.as_ref()?;
        if !step.returned {
            // Its return was not heard. A batch that failed is tried again from the same position.
            let again = step
                .runs
                .iter()
                .any(|run| next.iter().any(|n| n.sequence == run.sequence && n.position == run.position));
            if again || self.role != Role::Main {
                return self.failed(now_ns);
            }
            self.computed(now_ns, tid, drafts);
        }
        self.settle(next);
        let step = self.step.as_mut()?;
        if step.outputs && !step.waited {
            self.waits = Some(false);
        }
        step.waited = true;
        self.finish()
    }
}

fn member(computed: &Computed) -> Member {
    Member {
        inner: computed.inner,
        part: computed.part,
        computed: computed.computed,
        generated: computed.generated.unwrap_or(0),
        evidence: Evidence::E1,
    }
}
