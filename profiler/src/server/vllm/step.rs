//! The steps of an engine, from the messages that they leave behind.
//!
//! In: outputs, one message for each front end that has a member in the step; the schedules that the engine gives its
//! workers, where a ring carries them. Out: one [`EngineStep`] for a step, with all members that are known.
//!
//! ```text
//! ring:     k ────────► k+1 ──────► …       exact: every member, tokens of each
//! outputs:        k ─┬─►     k+1 ─┬─►       members with tokens; prompts of which a part was computed are missing
//!                    └ same step, other front end: stamps microseconds apart
//! ```
//! Without a ring, or where it is not certain which schedule is a step's (`schedule`), one missing member is inferred where
//! the engine's own number of running requests leaves no choice.

mod infer;

use std::collections::{HashSet, VecDeque};

use super::engine::Hearing;
use super::message::{EventKind, Output, Outputs, Stats};
use super::schedule::{Clues, First, Planned, Schedule, Schedules};
use crate::evidence::Evidence;
use crate::server::said::{EngineStep, Gauges, Inner, Member, Part, Saying};

/// The messages of one step are stamped in one loop, one after the other: about 2 µs apart on vLLM 0.32, more if the
/// interpreter pauses. No step of a model is shorter than this.
const SAME_STEP_NS: u64 = 100_000;

/// After this time, the messages of a step have all been sent.
const SETTLED_NS: u64 = 5_000_000;

/// Requests that ended and may still be in a step: with asynchronous scheduling those of one step or two, and a step has
/// 1,024 members at most unless `--max-num-seqs` says otherwise.
const MOST_LEFT: usize = 2048;

/// So many steps must have been scheduled behind their forerunner's end before the engine counts as one that does so.
const PROOFS: u32 = 3;

/// `FinishReason.LENGTH`: the scheduler knows of it beforehand (`vllm/v1/engine/__init__.py`).
const LENGTH: u64 = 1;

/// Steps under way at a time with pipeline stages; how many stages there are is on no wire.
const MOST_UNDER_WAY: u32 = 4;

/// Sockets that are remembered.
const MOST_SOCKETS: usize = 1024;

/// By which socket a message came, and whether all messages of the engine are heard there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Came {
    /// Process and socket.
    pub socket: (u32, u64),
    /// The engine sent it: all its steps are heard. Else it is one front end's share of them.
    pub is_engine: bool,
}

/// The steps of an engine.
#[derive(Debug, Default)]
pub struct Steps {
    pending: Option<Pending>,
    schedules: Schedules,
    /// Sockets that lead to front ends.
    clients: HashSet<(u32, u64)>,
    /// By which socket a request came last, and whether there are several such.
    asks: Option<(u32, u64)>,
    has_several: bool,
    /// Requests that live and have no output yet.
    silent: HashSet<Inner>,
    /// Requests that live and had an output.
    talking: HashSet<Inner>,
    /// Those that talked and ended last: a step that was made before may still have them.
    left: VecDeque<Inner>,
    /// Its messages have statistics: one message of each step.
    has_stats: bool,
    last: Last,
    /// Steps that were seen to be scheduled only after their forerunner's end: scheduling is not asynchronous.
    proofs: u32,
    speculates: bool,
    /// From when on so many steps may have members that nobody names.
    doubt: (u64, u32),
    is_lost: bool,
    /// Requests ran before anybody listened.
    is_late: bool,
}

/// The step before.
#[derive(Debug, Default)]
struct Last {
    end_ns: Option<u64>,
    /// The one request that ran without being in its outputs.
    missing: Option<Inner>,
    has_members: bool,
    /// Share of the KV cache in use, one where that is not said.
    kv_usage: f64,
}

/// A step of which messages may still come.
#[derive(Debug)]
struct Pending {
    engine: u64,
    end_ns: u64,
    heard_ns: u64,
    stats: Option<Stats>,
    members: Vec<Member>,
    /// A request had its whole prompt computed in it, and was scheduled after the step before.
    has_fresh: bool,
    /// Who ended with it, and whether one of them did so before the limit of its tokens.
    ended: HashSet<Inner>,
    has_stopped: bool,
    firsts: Vec<First>,
    is_cut: bool,
    is_all: bool,
}

impl Steps {
    /// A request lives; whether it comes only now.
    pub fn met(&mut self, inner: Inner, is_new: bool) {
        self.silent.insert(inner);
        if is_new {
            self.schedules.begin(inner);
        }
    }

    /// A request lives no more.
    pub fn ended(&mut self, inner: Inner) {
        self.silent.remove(&inner);
        self.schedules.end(inner);
        if self.talking.remove(&inner) {
            if self.left.len() >= MOST_LEFT {
                self.left.pop_front();
            }
            self.left.push_back(inner);
        }
    }

    /// A front end gave a request up: if it ran, the steps under way lose a member that nobody names, and the engine may
    /// make one more with it.
    pub fn gave_up(&mut self, at_ns: u64) {
        self.doubt(at_ns, self.under_way() + 1);
    }

    /// So many steps that end from then on may have a member that nobody names.
    fn doubt(&mut self, from_ns: u64, steps: u32) {
        self.doubt = match self.doubt {
            (_, 0) => (from_ns, steps),
            (before_ns, left) => (before_ns.min(from_ns), left.max(steps) + 1),
        };
    }

    /// How many steps are under way at a time, at most: with pipeline stages, which take workers and a ring, some more.
    fn under_way(&self) -> u32 {
        match self.proofs >= PROOFS {
            true => 1,
            false if !self.schedules.are_heard() => 2,
            false => MOST_UNDER_WAY,
        }
    }

    /// A message was lost.
    pub fn lose(&mut self) {
        self.is_lost = true;
        self.schedules.lose();
    }

    /// This socket leads to a front end: also messages without members are about steps there. Those to the coordinator
    /// of data-parallel engines are not.
    pub fn client(&mut self, came: Came) {
        if self.clients.len() < MOST_SOCKETS {
            self.clients.insert(came.socket);
        }
    }

    /// Whether it is one.
    #[must_use]
    pub fn is_client(&self, came: Came) -> bool {
        self.clients.contains(&came.socket)
    }

    /// A front end asks: each has a socket of its own.
    pub fn asked(&mut self, came: Came, client: Option<u64>) {
        self.has_several |=
            client.is_some_and(|client| client > 0) || self.asks.is_some_and(|socket| socket != came.socket);
        self.asks = Some(came.socket);
    }

    /// A message begins.
    pub fn open(
        &mut self,
        outputs: &Outputs<'_>,
        members: impl Iterator<Item = Inner>,
        came: Came,
        end_ns: u64,
        hearing: &mut Hearing<'_>,
    ) {
        let is_same = |pending: &Pending| {
            pending.engine == outputs.engine
                && pending.end_ns.abs_diff(end_ns) <= SAME_STEP_NS
                && !(pending.stats.is_some() && outputs.stats.is_some())
                && members.into_iter().all(|inner| pending.members.iter().all(|member| member.inner != inner))
        };
        if !self.pending.as_ref().is_some_and(is_same) {
            self.flush(hearing);
        }
        let has_members = outputs.outputs.iter().any(|output| output.tokens > 0 || output.finish.is_some());
        if has_members {
            self.client(came);
        }
        if outputs.is_utility || outputs.is_wave {
            return;
        }
        if !self.clients.contains(&came.socket) {
            // It may end a step, of which it does not say who was in it.
            self.last.end_ns = outputs.stats.map(|_| end_ns).or(self.last.end_ns);
            return;
        }
        if outputs.outputs.is_empty() && outputs.stats.is_none() && !outputs.is_cut {
            return;
        }
        if let Some(stats) = outputs.stats {
            hearing.say(Saying::Gauges(Gauges {
                engine: outputs.engine,
                running: stats.running,
                waiting: stats.waiting,
                kv_usage: stats.kv_usage,
            }));
        }
        let pending = self.pending.get_or_insert_with(|| Pending {
            engine: outputs.engine,
            end_ns,
            heard_ns: hearing.time_ns,
            stats: None,
            members: Vec::new(),
            has_fresh: false,
            ended: HashSet::new(),
            has_stopped: false,
            firsts: Vec::new(),
            is_cut: false,
            is_all: came.is_engine,
        });
        pending.stats = pending.stats.or(outputs.stats);
        self.has_stats |= pending.stats.is_some();
        pending.is_cut |= outputs.is_cut;
    }

    /// A request of the message.
    pub fn member(
        &mut self,
        inner: Inner,
        output: &Output<'_>,
        was_talking: bool,
        is_resumed: bool,
        scheduled_ns: Option<u64>,
        prompt: Option<u64>,
    ) {
        self.silent.remove(&inner);
        self.talking.insert(inner);
        self.speculates |= output.tokens > 1;
        // It ran before it was listened to, and others may have ended then that are still under way.
        if prompt.is_none() && !std::mem::replace(&mut self.is_late, true) {
            let from_ns = self.pending.as_ref().map_or(0, |pending| pending.end_ns);
            self.doubt(from_ns, MOST_UNDER_WAY - 1);
        }
        let lost_place = output.events.iter().any(|event| event.kind == EventKind::Preempted);
        let Some(pending) = &mut self.pending else { return };
        if let Some(reason) = output.finish {
            pending.ended.insert(inner);
            pending.has_stopped |= reason != LENGTH;
        }
        let prefill = output.prefill.unwrap_or_default();
        let rest = prompt.zip(prefill.cached).map(|(prompt, cached)| prompt.saturating_sub(cached));
        let whole = prefill.computed.or(rest).filter(|_| !(was_talking || lost_place));
        if let Some(computed) = whole {
            pending.firsts.push(First { inner, computed, scheduled_ns });
        }
        // Scheduled after the last step, if one was heard of since it came: this one alone computed what was not cached.
        let is_alone = scheduled_ns
            .is_some_and(|at_ns| self.last.end_ns.map_or(prompt.is_some(), |end_ns| at_ns >= end_ns));
        pending.has_fresh |= is_alone;
        let (part, computed) = match (was_talking, is_resumed) {
            (true, false) => (Part::Decode, u64::from(!self.speculates)),
            (false, _) if is_alone => (Part::Prefill, whole.unwrap_or(0)),
            _ => (Part::Prefill, 0),
        };
        let computed = u32::try_from(computed).unwrap_or(0);
        let generated = output.tokens;
        pending.members.push(Member { inner, part, computed, generated, evidence: Evidence::E0 });
    }

    /// A message ends. A step with one front end is complete with it.
    pub fn close(&mut self, came: Came, hearing: &mut Hearing<'_>) {
        if came.is_engine && self.clients.len() <= 1 && !self.has_several {
            self.flush(hearing);
        }
    }

    /// Time goes on.
    pub fn tick(&mut self, hearing: &mut Hearing<'_>) {
        if let Some(pending) = &self.pending
            && hearing.time_ns.saturating_sub(pending.heard_ns) > SETTLED_NS
        {
            self.flush(hearing);
        }
    }

    /// A chunk of the engine's ring was heard.
    pub fn chunk(&mut self, slot: u32, time_ns: u64) {
        self.schedules.heard(slot, time_ns);
    }

    /// Whether a request was in no step that the workers were given.
    pub fn is_new(&self, inner: Inner) -> bool {
        self.schedules.is_new(inner)
    }

    /// The engine gave its workers a step.
    pub fn scheduled(&mut self, members: Vec<(Inner, u32)>, is_whole: bool, hearing: &mut Hearing<'_>) {
        self.tick(hearing);
        self.schedules.push(hearing.time_ns, members, is_whole);
    }

    /// Says the step of which all messages were heard.
    pub fn flush(&mut self, hearing: &mut Hearing<'_>) {
        let Some(mut pending) = self.pending.take() else { return };
        pending.members.sort_unstable_by_key(|member| member.inner);
        let is_busy =
            self.last.has_members && pending.members.iter().any(|member| member.part == Part::Decode);
        self.proofs = self.proofs.saturating_add(u32::from(pending.has_fresh && is_busy));
        // What has no statistics though the others have is no step's own message: an error, or a straggler.
        let is_own = pending.stats.is_some() || pending.is_cut || !self.has_stats;
        let schedule = if is_own {
            self.schedules.take(&clues(&pending, &self.talking, self.speculates, self.proofs))
        } else {
            None
        };
        let step = match schedule {
            Some((schedule, behind)) => {
                // Asynchronous scheduling makes the next step before this one ends, if anybody goes on.
                let goes_on = pending.members.iter().any(|member| !pending.ended.contains(&member.inner));
                self.proofs = self.proofs.saturating_add(u32::from(behind == 0 && goes_on));
                self.exact(&pending, &schedule)
            }
            None => self.inferred(&pending, is_own),
        };
        if self.is_doubtful(&pending) {
            self.doubt.1 -= 1;
        }
        // One that stopped by itself is in the steps that were made before the engine knew.
        if pending.has_stopped {
            self.doubt(pending.end_ns + 1, self.under_way() - 1);
        }
        self.is_lost = false;
        self.last.end_ns = Some(pending.end_ns);
        self.last.kv_usage = pending.stats.and_then(|stats| stats.kv_usage).unwrap_or(1.0);
        self.last.has_members = !pending.members.is_empty();
        if let Some(step) = step {
            hearing.say(Saying::Step(Box::new(step)));
        }
    }

    /// A step whose schedule is known.
    fn exact(&self, pending: &Pending, schedule: &Schedule) -> Option<EngineStep> {
        let mut members = pending.members.clone();
        for Planned { inner, tokens, .. } in &schedule.members {
            let place = pending.members.binary_search_by_key(inner, |member| member.inner);
            match place.ok().and_then(|place| members.get_mut(place)) {
                Some(member) => member.computed = *tokens,
                None => members.push(Member {
                    inner: *inner,
                    // One that lives and talked before computes anew what it lost with its place.
                    part: if self.left.contains(inner) { Part::Decode } else { Part::Prefill },
                    computed: *tokens,
                    generated: 0,
                    evidence: Evidence::E0,
                }),
            }
        }
        let is_complete = schedule.is_whole && pending.is_all && !pending.is_cut;
        let tokens = schedule.members.iter().map(|planned| u64::from(planned.tokens)).sum();
        (!members.is_empty()).then_some(EngineStep {
            engine: pending.engine,
            start_ns: Some(schedule.time_ns),
            end_ns: pending.end_ns,
            members,
            is_complete,
            tokens: Some(tokens).filter(|_| is_complete),
            failed: false,
            thread: None,
        })
    }

    fn is_doubtful(&self, pending: &Pending) -> bool {
        self.doubt.1 > 0 && pending.end_ns >= self.doubt.0
    }
}

/// What the outputs of a step say of its schedule. Who talks has an output in each step that computes one token of it;
/// several are a prompt's, or drafts.
fn clues<'a>(
    pending: &'a Pending,
    talking: &'a HashSet<Inner>,
    speculates: bool,
    proofs: u32,
) -> Clues<'a, impl Fn(&Planned) -> bool + use<'a>> {
    let is_cut = pending.is_cut;
    let speaks = move |planned: &Planned| {
        !is_cut && talking.contains(&planned.inner) && (planned.tokens == 1 || speculates)
    };
    let is_synchronous = proofs >= PROOFS;
    let Pending { end_ns, members, firsts, .. } = pending;
    Clues { end_ns: *end_ns, members, is_synchronous, firsts, speaks }
}
