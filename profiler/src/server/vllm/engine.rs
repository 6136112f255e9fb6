//! What is known of one engine: its requests and its steps.
//!
//! In: messages that were read, in the order in which they were heard. Out: what they say. A message is first checked
//! against what is known, as a whole; one that disagrees says nothing. All tables are bounded.

use std::collections::{HashMap, HashSet, VecDeque};

use super::ask::Add;
use super::ids;
use super::message::{Event, EventKind, Output, Outputs, Why};
use super::request::{Agreement, Request, check, check_stamp};
use super::ring::Schedule;
use super::schema::Version;
use super::step::{Came, Steps};
use crate::evidence::Evidence;
use crate::server::said::{Counts, Inner, Moment, Reason, Said, Saying, Tie};

/// Requests that are followed at a time. More are forgotten, oldest first.
const MOST_REQUESTS: usize = 65_536;

/// How long a request that has ended is remembered: outputs that were under way when it was given up may still come.
const REMEMBERED_NS: u64 = 10_000_000_000;

/// A request is in the engine's own count at most so long after the engine received it.
const IN_THE_POST_NS: u64 = 1_000_000_000;

/// `FinishReason` (vLLM, `vllm/v1/engine/__init__.py`): the order never changed, the last two came by 0.18.
const REASONS: [Reason; 5] = [Reason::Stop, Reason::Length, Reason::Abort, Reason::Error, Reason::Repetition];

/// Where and when a message was heard, and what follows from it is put.
#[derive(Debug)]
pub struct Hearing<'a> {
    /// Process that speaks.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// When.
    pub time_ns: u64,
    /// The process is the front end, and its thread the one that asks.
    pub asks: bool,
    /// Counts requests.
    pub next: &'a mut u64,
    /// What is said.
    pub out: &'a mut Vec<Said>,
}

impl Hearing<'_> {
    /// Says something.
    pub fn say(&mut self, saying: Saying) {
        self.out.push(Said { pid: self.pid, time_ns: self.time_ns, saying });
    }

    fn reached(&mut self, inner: Inner, moment: Moment, at_ns: u64, evidence: Evidence) {
        self.say(Saying::Reached { inner, moment, at_ns, evidence });
    }

    fn number(&mut self) -> Inner {
        *self.next += 1;
        Inner(*self.next)
    }
}

/// An engine.
#[derive(Debug, Default)]
pub struct Engine {
    requests: HashMap<Box<str>, Request>,
    /// Those that have ended, oldest first.
    ended: VecDeque<(u64, Box<str>)>,
    /// In the order in which they were met, to forget the oldest.
    met: VecDeque<Box<str>>,
    steps: Steps,
    /// It stamps events: log statistics are on.
    has_events: bool,
    is_dead: bool,
}

impl Engine {
    /// A front end gives a request to the engine.
    pub fn add(&mut self, add: &Add<'_>, version: Option<&Version>, came: Came, hearing: &mut Hearing<'_>) {
        self.steps.asked(came, add.client);
        if let Some(request) = self.requests.get_mut(add.id).filter(|request| request.ended_ns.is_none()) {
            if request.added_ns.is_none() {
                // Its first output was heard before it: records of two processors may change places.
                request.added_ns = Some(hearing.time_ns);
                return;
            }
            self.end(add.id, Reason::Unsaid, hearing.time_ns, hearing);
        }
        let random_ids = version.is_none_or(|version| version.random_ids());
        let inner = self.meet(add.id, add.external, random_ids, hearing, Some(add));
        if let Some(prompt) = add.prompt {
            hearing
                .say(Saying::Counts { inner, counts: Counts { prompt: Some(prompt), ..Counts::default() } });
        }
    }

    fn meet(
        &mut self,
        id: &str,
        external: Option<&str>,
        random_ids: bool,
        hearing: &mut Hearing<'_>,
        add: Option<&Add<'_>>,
    ) -> Inner {
        self.forget(hearing);
        let inner = hearing.number();
        let outer = ids::outer(id, external, random_ids);
        let generates = add.is_none_or(|add| add.generates);
        let tie = Tie {
            outer_id: Some(outer.id.into()),
            part: outer.part,
            thread: hearing.asks.then_some((hearing.pid, hearing.tid)),
            prompt_tokens: add.and_then(|add| add.prompt),
        };
        let request = Request {
            inner,
            added_ns: add.map(|_| hearing.time_ns),
            prompt: tie.prompt_tokens,
            max_tokens: add.and_then(|add| add.max_tokens),
            generates,
            tokens: 0,
            is_whole: add.is_some(),
            is_talking: false,
            is_enqueued: false,
            is_begun: false,
            ended_ns: None,
            is_finished: false,
        };
        self.steps.met(inner, add.is_some());
        self.met.push_back(id.into());
        self.requests.insert(id.into(), request);
        hearing.say(Saying::Met { inner, tie, generates });
        inner
    }

    /// Keeps the tables bounded.
    fn forget(&mut self, hearing: &mut Hearing<'_>) {
        let now_ns = hearing.time_ns;
        while let Some((ended_ns, _)) = self.ended.front()
            && (now_ns.saturating_sub(*ended_ns) > REMEMBERED_NS || self.ended.len() > MOST_REQUESTS / 2)
        {
            let Some((ended_ns, id)) = self.ended.pop_front() else { break };
            // The id may belong to a new request by now.
            if self.requests.get(&id).is_some_and(|request| request.ended_ns == Some(ended_ns)) {
                self.requests.remove(&id);
            }
        }
        while self.met.len() >= 2 * MOST_REQUESTS || self.requests.len() >= MOST_REQUESTS {
            let Some(id) = self.met.pop_front() else { break };
            self.end(&id, Reason::Unsaid, now_ns, hearing);
            self.requests.remove(&id);
        }
    }

    /// A front end gives requests up.
    pub fn abort(&mut self, ids: &[&str], hearing: &mut Hearing<'_>) {
        for id in ids {
            // One that was not heard of yet may run, too.
            if self.requests.get(*id).is_none_or(|request| request.ended_ns.is_none()) {
                self.steps.gave_up(hearing.time_ns);
                self.end(id, Reason::FrontEnd, hearing.time_ns, hearing);
            }
        }
    }

    fn end(&mut self, id: &str, reason: Reason, at_ns: u64, hearing: &mut Hearing<'_>) {
        let Some(request) = self.requests.get_mut(id).filter(|request| request.ended_ns.is_none()) else {
            return;
        };
        request.ended_ns = Some(at_ns);
        self.ended.push_back((at_ns, id.into()));
        self.steps.ended(request.inner);
        if let Some(added_ns) = request.added_ns.filter(|_| !request.is_enqueued) {
            hearing.reached(request.inner, Moment::Enqueued, added_ns, Evidence::E1);
        }
        if request.is_whole && request.generates {
            let counts = Counts { generated: Some(request.tokens), ..Counts::default() };
            hearing.say(Saying::Counts { inner: request.inner, counts });
        }
        hearing.say(Saying::Ended { inner: request.inner, reason, at_ns });
    }

    /// What a step brought. Nothing is said unless all of it agrees with what is known.
    ///
    /// # Errors
    /// What does not agree.
    pub fn outputs(
        &mut self,
        outputs: &Outputs<'_>,
        version: Option<&Version>,
        came: Came,
        hearing: &mut Hearing<'_>,
    ) -> Result<Agreement, Why> {
        let mut agreement = Agreement::default();
        check_stamp(outputs, hearing.time_ns)?;
        let mut seen = HashSet::with_capacity(outputs.outputs.len());
        for output in &outputs.outputs {
            if !seen.insert(output.id) {
                return Err("two outputs for one request");
            }
            let request = self.requests.get(output.id);
            check(request, output, outputs.stamp_ns, hearing.time_ns, version, &mut agreement)?;
        }
        if outputs.is_wave || outputs.is_utility {
            self.steps.client(came);
        }
        if outputs.is_cut {
            self.lose_outputs(&seen);
        }
        self.apply(outputs, version, came, hearing);
        if outputs.stats.is_some_and(|stats| stats.is_idle()) && self.steps.is_client(came) {
            self.end_lost(outputs.stamp_ns.unwrap_or(hearing.time_ns), hearing);
        }
        Ok(agreement)
    }

    fn apply(
        &mut self,
        outputs: &Outputs<'_>,
        version: Option<&Version>,
        came: Came,
        hearing: &mut Hearing<'_>,
    ) {
        let at_ns = outputs.stamp_ns.unwrap_or(hearing.time_ns);
        let known = outputs.outputs.iter().filter_map(|output| self.requests.get(output.id));
        self.steps.open(outputs, known.map(|request| request.inner), came, at_ns, hearing);
        for output in &outputs.outputs {
            if !self.requests.contains_key(output.id) {
                let random_ids = version.is_none_or(|version| version.random_ids());
                self.meet(output.id, None, random_ids, hearing, None);
            }
            self.apply_one(output, at_ns, hearing);
        }
        self.steps.close(came, hearing);
    }

    fn apply_one(&mut self, output: &Output<'_>, at_ns: u64, hearing: &mut Hearing<'_>) {
        self.has_events |= !output.events.is_empty();
        let is_first = output.events.iter().any(|event| event.kind == EventKind::Queued);
        let Some(request) = self.requests.get_mut(output.id).filter(|request| request.ended_ns.is_none())
        else {
            return;
        };
        let was_talking = request.is_talking;
        let scheduled_ns = say_events(request, &output.events, hearing);
        if output.events.is_empty() && !request.is_enqueued && !was_talking {
            request.is_enqueued = true;
            if let Some(added_ns) = request.added_ns {
                hearing.reached(request.inner, Moment::Enqueued, added_ns, Evidence::E1);
            }
        }
        if let Some(prefill) = output.prefill.filter(|_| !was_talking) {
            let counts = Counts { prompt: prefill.prompt, cached: prefill.cached, generated: None };
            hearing.say(Saying::Counts { inner: request.inner, counts });
        }
        // Whatever was lost before: this is its first output.
        request.is_whole |= is_first && request.added_ns.is_some() && request.tokens == 0;
        request.tokens += u64::from(output.tokens);
        if output.tokens > 0 {
            hearing.say(Saying::Tokens { inner: request.inner, count: output.tokens, at_ns });
        }
        if output.tokens > 0 || !request.generates {
            request.is_talking = true;
            let is_resumed = was_talking && scheduled_ns.is_some();
            let prompt = request.prompt;
            self.steps.member(request.inner, output, was_talking, is_resumed, scheduled_ns, prompt);
        }
        if let Some(reason) = output.finish {
            request.is_finished = true;
            let reason = usize::try_from(reason).ok().and_then(|reason| REASONS.get(reason).copied());
            self.end(output.id, reason.unwrap_or(Reason::Unsaid), at_ns, hearing);
        }
    }

    /// The outputs of a message that were not copied are lost.
    fn lose_outputs(&mut self, seen: &HashSet<&str>) {
        for (id, request) in &mut self.requests {
            request.is_whole &= seen.contains(&**id);
        }
    }

    /// A message was not understood: whatever it said of requests is lost.
    pub fn lose(&mut self) {
        for request in self.requests.values_mut() {
            request.is_whole = false;
        }
        self.steps.lose();
    }

    /// A chunk of its ring was heard.
    pub fn chunk(&mut self, slot: u32, time_ns: u64) {
        self.steps.chunk(slot, time_ns);
    }

    /// The engine gave its workers a step.
    pub fn scheduled(
        &mut self,
        schedule: &Schedule<'_>,
        version: Option<&Version>,
        hearing: &mut Hearing<'_>,
    ) {
        let random_ids = version.is_none_or(|version| version.random_ids());
        let mut known = Vec::with_capacity(schedule.members.len());
        for (id, tokens) in &schedule.members {
            if !self.requests.contains_key(*id) {
                self.meet(id, None, random_ids, hearing, None);
            }
            let has_events = self.has_events;
            let Some(request) = self.requests.get_mut(*id) else { continue };
            // Also one that was given up: its engine did not know yet.
            known.push((request.inner, *tokens));
            let is_known = request.added_ns.is_some() && request.ended_ns.is_none();
            if !self.steps.is_new(request.inner)
                || std::mem::replace(&mut request.is_begun, true)
                || !is_known
            {
                continue;
            }
            let inner = request.inner;
            if !has_events {
                hearing.reached(inner, Moment::Scheduled, hearing.time_ns, Evidence::E1);
            }
            hearing.reached(inner, Moment::Prefilling, hearing.time_ns, Evidence::E1);
        }
        // Where events are stamped, they tell of this with their own time.
        for id in schedule.preempted.iter().filter(|_| !self.has_events) {
            if let Some(request) = self.requests.get(*id) {
                hearing.reached(request.inner, Moment::Preempted, hearing.time_ns, Evidence::E1);
            }
        }
        self.steps.scheduled(known, schedule.is_whole, hearing);
    }

    /// The engine died: its requests fail.
    pub fn dead(&mut self, hearing: &mut Hearing<'_>) {
        if !std::mem::replace(&mut self.is_dead, true) {
            self.end_all(Reason::Error, hearing);
            hearing.say(Saying::EngineDead);
        }
    }

    /// Ends all that still lives.
    pub fn end_all(&mut self, reason: Reason, hearing: &mut Hearing<'_>) {
        self.steps.flush(hearing);
        let mut living: Vec<_> = (self.requests.iter())
            .filter(|(_, request)| request.ended_ns.is_none())
            .map(|(id, request)| (request.inner, id.clone()))
            .collect();
        living.sort_unstable();
        for (_, id) in living {
            self.end(&id, reason, hearing.time_ns, hearing);
        }
    }

    /// The engine has no requests: those that are still followed have ended in messages that were not heard.
    fn end_lost(&mut self, at_ns: u64, hearing: &mut Hearing<'_>) {
        let until_ns = at_ns.saturating_sub(IN_THE_POST_NS);
        let mut lost: Vec<_> = (self.requests.iter_mut())
            .filter(|(_, request)| request.ended_ns.is_none())
            .filter(|(_, request)| request.added_ns.is_none_or(|added_ns| added_ns < until_ns))
            .map(|(id, request)| {
                request.is_whole = false;
                (request.inner, id.clone())
            })
            .collect();
        lost.sort_unstable();
        for (_, id) in lost {
            self.end(&id, Reason::Unsaid, at_ns, hearing);
        }
    }

    /// Time goes on: a step that waited for the messages of other front ends is complete.
    pub fn tick(&mut self, hearing: &mut Hearing<'_>) {
        self.steps.tick(hearing);
    }

    #[cfg(test)]
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.requests.len(), self.ended.len(), self.met.len())
    }
}

/// Says what was stamped; the last `SCHEDULED` is returned.
fn say_events(request: &mut Request, events: &[Event], hearing: &mut Hearing<'_>) -> Option<u64> {
    let mut scheduled_ns = None;
    for event in events {
        let moment = match event.kind {
            EventKind::Queued => {
                request.is_enqueued = true;
                Moment::Enqueued
            }
            EventKind::Scheduled => {
                scheduled_ns = Some(event.at_ns);
                Moment::Scheduled
            }
            EventKind::Preempted => Moment::Preempted,
        };
        hearing.reached(request.inner, moment, event.at_ns, Evidence::E0);
        // `schedule()` is followed by the execution of what it made; where the workers' ring is heard, it says when.
        if event.kind == EventKind::Scheduled && !std::mem::replace(&mut request.is_begun, true) {
            hearing.reached(request.inner, Moment::Prefilling, event.at_ns, Evidence::E1);
        }
    }
    scheduled_ns
}
