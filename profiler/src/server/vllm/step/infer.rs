//! A step of which only the outputs are known: who else was in it, by the engine's own count of running requests.
//!
//! In: a step's messages. Out: what can be said of it. The count is of the moment when the step ended. Without
//! asynchronous scheduling that is who was in it; with it the next step is made by then, and the count is that one's.

use super::{PROOFS, Pending, Steps, clues};
use crate::evidence::Evidence;
use crate::server::said::{EngineStep, Inner, Member, Part};

/// Share of the KV cache in use from which on requests may lose their places: they do when a step finds no block for one
/// that runs (`Scheduler.schedule`), and the parts of prompts in a step take many.
const FULL: f64 = 0.8;

impl Steps {
    /// A step of which only the outputs are known.
    pub(super) fn inferred(&mut self, pending: &Pending, is_own: bool) -> Option<EngineStep> {
        let mut members = pending.members.clone();
        let unfinished = members.iter().filter(|member| !pending.ended.contains(&member.inner)).count();
        let others = pending
            .stats
            .and_then(|stats| stats.running)
            .and_then(|running| usize::try_from(running).ok())
            .and_then(|running| running.checked_sub(unfinished));
        let missing = (others == Some(1)).then(|| self.only_candidate(pending)).flatten();
        let was_missing = std::mem::replace(&mut self.last.missing, missing);
        // With asynchronous scheduling, one that runs may have been put into the next step only, and with pipeline stages
        // into one behind that.
        let is_sure = self.proofs >= PROOFS || self.under_way() == 2 && was_missing == missing;
        let inferred = missing.filter(|_| is_sure);
        members.extend(inferred.map(|inner| Member {
            inner,
            part: if self.talking.contains(&inner) { Part::Unknown } else { Part::Prefill },
            computed: 0,
            generated: 0,
            evidence: Evidence::E2,
        }));
        let is_complete = others == Some(usize::from(inferred.is_some()))
            && pending.is_all
            && is_own
            && !(pending.is_cut || self.is_lost)
            && !self.may_differ(pending, &members);
        let is_known = is_complete && members.iter().all(|member| member.computed > 0);
        let tokens = is_known.then(|| members.iter().map(|member| u64::from(member.computed)).sum());
        let has_run = !members.is_empty() || others.is_some_and(|others| others > 0);
        has_run.then_some(EngineStep {
            engine: pending.engine,
            start_ns: None,
            end_ns: pending.end_ns,
            members,
            is_complete,
            tokens,
            failed: false,
            thread: None,
        })
    }

    /// Whether others may have been in the step, though as many run as are known of.
    fn may_differ(&self, pending: &Pending, members: &[Member]) -> bool {
        let clues = clues(pending, &self.talking, self.speculates, self.proofs);
        self.is_doubtful(pending)
            || !clues.is_synchronous && self.may_have_changed(pending, members)
            || self.schedules.contradict(&clues, members)
    }

    /// With asynchronous scheduling the next step is made by now: one that ran may have lost its place in it, or have
    /// ended in a message that was not heard, and be missing in the count.
    fn may_have_changed(&self, pending: &Pending, members: &[Member]) -> bool {
        let is_in = |inner: &Inner| members.binary_search_by_key(inner, |member| member.inner).is_ok();
        let usage = pending.stats.and_then(|stats| stats.kv_usage).unwrap_or(1.0).max(self.last.kv_usage);
        let is_full = usage >= FULL;
        is_full && self.silent.iter().any(|inner| !is_in(inner))
            || self.talking.iter().any(|inner| !is_in(inner))
    }

    /// The only request that can have run without being in the outputs.
    fn only_candidate(&self, pending: &Pending) -> Option<Inner> {
        let in_it =
            |inner: &Inner| pending.members.binary_search_by_key(inner, |member| member.inner).is_ok();
        let absent = self.talking.len() - self.talking.iter().filter(|inner| in_it(inner)).count();
        match (self.silent.len(), absent) {
            (1, 0) => self.silent.iter().next().copied(),
            (0, 1) => self.talking.iter().find(|inner| !in_it(inner)).copied(),
            _ => None,
        }
    }
}
