//! Which schedule a step's outputs belong to.
//!
//! In: the schedules that the engine gives its workers, in order, and what each step brought. Out: the schedule of a
//! step, where that is certain. An engine ends its steps in the order in which it made them, and each leaves a message
//! where statistics are on; so once a single step is tied to its schedule, all behind it are, until something is missing.
//!
//! ```text
//! first output of a request ─► the schedule with which its prompt is whole: tied
//! next step ─► next schedule ─► …        what disagrees, or a chunk that was not heard: no longer tied
//! ```
//! Deliberately absent: guesses. Where no schedule is tied, the step is told by its outputs alone.

use std::collections::{HashMap, VecDeque};

use crate::server::said::{Inner, Member};

/// Schedules that wait for their outputs: two with asynchronous scheduling, some more with pipeline stages. While they
/// are not tied nobody takes them, and as many of the last are kept.
const MOST_WAITING: usize = 64;
const MOST_UNTIED: usize = 8;

/// A step as the workers got it.
#[derive(Debug)]
pub struct Schedule {
    /// When.
    pub time_ns: u64,
    /// In the order of their numbers.
    pub members: Vec<Planned>,
    /// All members were copied.
    pub is_whole: bool,
}

/// A member of it.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// Which.
    pub inner: Inner,
    /// Its tokens in this step.
    pub tokens: u32,
    /// Its tokens up to and with this step, if its beginning was heard.
    total: Option<Total>,
}

impl Schedule {
    fn find(&self, inner: Inner) -> Option<&Planned> {
        let place = self.members.binary_search_by_key(&inner, |planned| planned.inner).ok()?;
        self.members.get(place)
    }

    /// It has these members and no others.
    fn is_of(&self, members: &[Member]) -> bool {
        let theirs = members.iter().map(|member| member.inner);
        self.members.len() == members.len() && theirs.eq(self.members.iter().map(|planned| planned.inner))
    }
}

/// What the outputs of a step say of its schedule.
pub struct Clues<'a, F> {
    /// When the step ended.
    pub end_ns: u64,
    /// Who had outputs, in the order of their numbers.
    pub members: &'a [Member],
    /// The engine makes a step only behind the end of the one before.
    pub is_synchronous: bool,
    /// First outputs.
    pub firsts: &'a [First],
    /// Whether a member with so many tokens brings an output, unless it has ended.
    pub speaks: F,
}

/// The first output of a request.
#[derive(Clone, Copy, Debug)]
pub struct First {
    /// Whose.
    pub inner: Inner,
    /// Tokens of its prompt that were computed.
    pub computed: u64,
    /// When it was scheduled first, if that is stamped.
    pub scheduled_ns: Option<u64>,
}

/// Tokens of a request in the schedules that were heard.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    tokens: u64,
    /// Those are all, since it began when they were heard.
    is_whole: bool,
}

/// The schedules of an engine.
#[derive(Debug, Default)]
pub struct Schedules {
    waiting: VecDeque<Schedule>,
    /// The chunk that was heard last, and the last chunk of the ring as far as that is known.
    slot: Option<(u32, u32)>,
    /// Tokens of requests.
    totals: HashMap<Inner, Total>,
    /// From when on none is missing.
    since_ns: u64,
    /// Steps ended before the ring was found.
    is_late: bool,
    /// The first that waits belongs to the next step.
    is_tied: bool,
    /// How many were made behind one before its step ended, at most.
    behind: usize,
}

impl Schedules {
    /// A chunk of the ring was heard. One that is missing may have had a schedule in it.
    pub fn heard(&mut self, slot: u32, time_ns: u64) {
        let (before, last) = self.slot.unwrap_or((slot.wrapping_sub(1), slot));
        let follows = slot == before.wrapping_add(1) || (slot == 0 && before == last);
        if !follows {
            self.waiting.clear();
        }
        if self.slot.is_none() || !follows {
            self.miss(time_ns);
        }
        self.slot = Some((slot, last.max(slot)));
    }

    /// Schedules up to now were not heard, or not all of them.
    fn miss(&mut self, time_ns: u64) {
        self.lose();
        self.since_ns = time_ns;
        self.totals.values_mut().for_each(|total| total.is_whole &= total.tokens == 0 && !self.is_late);
        self.is_late = true;
    }

    /// Something is missing.
    pub fn lose(&mut self) {
        self.is_tied = false;
    }

    /// A request begins, and was in no schedule yet. While steps end whose schedules are not heard, it may be in one.
    pub fn begin(&mut self, inner: Inner) {
        let is_whole = self.slot.is_some() || !self.is_late;
        self.totals.insert(inner, Total { tokens: 0, is_whole });
    }

    /// Whether a request was in no schedule before.
    pub fn is_new(&self, inner: Inner) -> bool {
        self.totals.get(&inner).is_some_and(|total| total.is_whole && total.tokens == 0)
    }

    /// A request is followed no more.
    pub fn end(&mut self, inner: Inner) {
        self.totals.remove(&inner);
    }

    /// The engine made a step.
    pub fn push(&mut self, time_ns: u64, members: Vec<(Inner, u32)>, is_whole: bool) {
        if !is_whole {
            let was_tied = self.is_tied;
            self.miss(time_ns);
            self.is_tied = was_tied;
        }
        let count = |(inner, tokens): (Inner, u32)| {
            let total = self.totals.get_mut(&inner).map(|total| {
                total.tokens += u64::from(tokens);
                *total
            });
            Planned { inner, tokens, total }
        };
        let mut members: Vec<_> = members.into_iter().map(count).collect();
        members.sort_unstable_by_key(|planned| planned.inner);
        if self.waiting.len() >= MOST_WAITING {
            self.waiting.pop_front();
            self.lose();
        }
        self.waiting.push_back(Schedule { time_ns, members, is_whole });
    }

    /// The schedule of a step that ended, where it is certain, and how many were made behind it by then.
    pub fn take<F: Fn(&Planned) -> bool>(&mut self, clues: &Clues<'_, F>) -> Option<(Schedule, usize)> {
        if self.slot.is_none() {
            self.is_late = true;
            self.totals.values_mut().for_each(|total| total.is_whole = false);
            return None;
        }
        let made = self.waiting.iter().take_while(|schedule| schedule.time_ns <= clues.end_ns).count();
        let place = match self.place_of_firsts(made, clues.firsts) {
            Err(Contradiction) => None,
            Ok(Some(place)) => {
                self.behind = self.behind.max(made - place - 1);
                self.is_tied = true;
                Some(place)
            }
            // Those ahead of it brought no message.
            Ok(None) if clues.is_synchronous => made.checked_sub(1),
            // More of them than ever: a step before brought no message, and its schedule still waits.
            Ok(None) => (self.is_tied && (1..=self.behind + 1).contains(&made)).then_some(0),
        };
        let place =
            place.filter(|place| self.waiting.get(*place).is_some_and(|schedule| fits(schedule, clues)));
        let Some(place) = place else {
            self.lose();
            self.waiting.drain(..made.saturating_sub(MOST_UNTIED));
            return None;
        };
        self.waiting.drain(..place);
        Some((self.waiting.pop_front()?, made - place - 1))
    }

    /// The schedule with which the prompts of these are whole: it alone can have brought their first outputs.
    fn place_of_firsts(&self, made: usize, firsts: &[First]) -> Result<Option<usize>, Contradiction> {
        let mut found = None;
        for first in firsts {
            let is_heard = first.scheduled_ns.is_some_and(|at_ns| at_ns >= self.since_ns);
            let total = |schedule: &Schedule| {
                let total = schedule.find(first.inner)?.total?;
                (total.is_whole || is_heard).then_some(total.tokens)
            };
            let mut totals = self.waiting.iter().take(made).map(total).enumerate();
            if totals.clone().all(|(_, total)| total.is_none()) {
                continue;
            }
            let place = totals.find(|(_, total)| *total == Some(first.computed)).map(|(place, _)| place);
            match (place, found) {
                (Some(_), None) => found = place,
                (Some(_), Some(_)) if place == found => {}
                _ => return Err(Contradiction),
            }
        }
        Ok(found)
    }

    /// Whether there is a ring.
    pub fn are_heard(&self) -> bool {
        self.slot.is_some()
    }

    /// Whether the schedules that were made before a step's end speak against these being all its members.
    pub fn contradict<F: Fn(&Planned) -> bool>(&self, clues: &Clues<'_, F>, members: &[Member]) -> bool {
        let made = || self.waiting.iter().take_while(|schedule| schedule.time_ns <= clues.end_ns);
        let possible = || made().filter(|schedule| fits(schedule, clues));
        made().next().is_some() && possible().next().is_none()
            || possible().any(|schedule| schedule.is_whole && !schedule.is_of(members))
    }
}

/// What outputs say does not agree with any schedule.
struct Contradiction;

/// All who had outputs are in it, and all who are in it and must have outputs had them.
fn fits<F: Fn(&Planned) -> bool>(schedule: &Schedule, clues: &Clues<'_, F>) -> bool {
    let had = |inner: Inner| clues.members.binary_search_by_key(&inner, |member| member.inner).is_ok();
    !schedule.is_whole
        || clues.members.iter().all(|member| schedule.find(member.inner).is_some())
            && schedule.members.iter().all(|planned| had(planned.inner) || !(clues.speaks)(planned))
}
