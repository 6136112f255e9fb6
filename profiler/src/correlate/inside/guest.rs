//! Requests as they are known inside, from the moment they are met until some time after their end.

use crate::correlate::request::Owner;
use crate::correlate::ride::{Ride, Seat};
use crate::evidence::Evidence;
use crate::server::said::{Counts, Inner, Member, Moment, Part, Reason, Tie};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Guests that are kept; the oldest go first.
const MOST_GUESTS: usize = 65_536;

/// How long a guest stays after its end, and after its last sign of life, when nobody asks for it.
const STAY_NS: u64 = 30_000_000_000;
const LONGEST_NS: u64 = 6 * 3_600_000_000_000;

/// Moments that are kept of a guest.
const MOST_MOMENTS: usize = 48;

/// Names a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Who speaks of it.
    pub speaker: usize,
    /// Its number there.
    pub inner: Inner,
}

/// A request inside.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Process that spoke of it first.
    pub pid: u32,
    /// When it was met.
    pub met_ns: u64,
    /// What ties it to the outside.
    pub tie: Tie,
    /// What it is known to have gone through.
    pub moments: Vec<(Moment, u64, Evidence)>,
    /// Sums.
    pub sequence: Sequence,
    /// It is this one.
    pub owner: Option<Owner>,
    /// It has something to generate.
    pub generates: bool,
    /// What riding in steps did for it.
    pub ride: Ride,
    /// The end of the step that brought its first token.
    began_ns: Option<u64>,
    last_sign_ns: u64,
}

/// What an engine did for one sequence of a request: a request for several answers has several. Times are
/// `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// Its number inside, as steps name it.
    pub inner: u64,
    /// Its place among the request's, if there are several.
    pub part: Option<u32>,
    /// The engine was handed it.
    pub met_ns: u64,
    /// The engine's queue had it.
    pub enqueued_ns: Option<u64>,
    /// It was chosen for a step for the first time.
    pub scheduled_ns: Option<u64>,
    /// A step with its prompt began.
    pub prefilling_ns: Option<u64>,
    /// The engine had its first token.
    pub first_token_ns: Option<u64>,
    /// The engine had its last token.
    pub last_token_ns: Option<u64>,
    /// The engine was done with it.
    pub ended_ns: Option<u64>,
    /// Why.
    pub reason: Option<Reason>,
    /// Tokens of its prompt.
    pub prompt_tokens: Option<u64>,
    /// Of these, found in the prefix cache.
    pub cached_tokens: Option<u64>,
    /// Tokens that came out.
    pub generated_tokens: u64,
    /// Steps it was in.
    pub steps: u64,
    /// Of these, those that computed its prompt.
    pub prefill_steps: u64,
    /// How often it lost its place.
    pub preemptions: u64,
    /// How long it was out of place.
    pub preempted_ns: u64,
    /// Since when it is.
    preempted_at: Option<u64>,
}

impl Guest {
    /// Just met.
    pub fn new(pid: u32, met_ns: u64, tie: Tie, generates: bool) -> Self {
        let sequence =
            Sequence { part: tie.part, met_ns, prompt_tokens: tie.prompt_tokens, ..Sequence::default() };
        Self {
            pid,
            met_ns,
            tie,
            moments: Vec::new(),
            sequence,
            owner: None,
            generates,
            ride: Ride::default(),
            began_ns: None,
            last_sign_ns: met_ns,
        }
    }

    /// Nothing more is to be heard of it.
    pub fn is_done(&self) -> bool {
        self.sequence.ended_ns.is_some()
    }

    pub fn reach(&mut self, moment: Moment, at_ns: u64, evidence: Evidence) {
        self.sign(at_ns);
        if self.moments.len() < MOST_MOMENTS {
            self.moments.push((moment, at_ns, evidence));
        }
        let sequence = &mut self.sequence;
        match moment {
            Moment::Enqueued => drop(sequence.enqueued_ns.get_or_insert(at_ns)),
            Moment::Scheduled => {
                sequence.scheduled_ns.get_or_insert(at_ns);
                if let Some(since) = sequence.preempted_at.take() {
                    sequence.preempted_ns += at_ns.saturating_sub(since);
                }
            }
            Moment::Prefilling => drop(sequence.prefilling_ns.get_or_insert(at_ns)),
            Moment::Preempted => {
                sequence.preemptions += 1;
                sequence.preempted_at = Some(at_ns);
            }
        }
    }

    pub fn token(&mut self, count: u32, at_ns: u64) {
        self.sign(at_ns);
        let sequence = &mut self.sequence;
        sequence.generated_tokens += u64::from(count);
        if count > 0 {
            sequence.first_token_ns.get_or_insert(at_ns);
            sequence.last_token_ns = Some(at_ns);
        }
    }

    pub fn count(&mut self, counts: Counts) {
        let sequence = &mut self.sequence;
        sequence.prompt_tokens = counts.prompt.or(sequence.prompt_tokens);
        sequence.cached_tokens = counts.cached.or(sequence.cached_tokens);
        if let Some(generated) = counts.generated {
            sequence.generated_tokens = generated;
        }
    }

    pub fn end(&mut self, reason: Reason, at_ns: u64) {
        self.sign(at_ns);
        let sequence = &mut self.sequence;
        // The engine's own word stands against what others say later.
        if sequence.ended_ns.is_none() {
            sequence.ended_ns = Some(at_ns);
            sequence.reason = Some(reason);
        }
    }

    pub fn ride(&mut self, member: &Member, end_ns: u64) {
        if member.generated > 0 {
            self.began_ns.get_or_insert(end_ns);
        }
        self.sequence.steps += 1;
        self.sequence.prefill_steps += u64::from(member.part == Part::Prefill);
    }

    /// How it rides in a step that ends then.
    pub fn seat(&self, end_ns: u64) -> Seat {
        let queued_ns = Some(self.sequence.enqueued_ns.unwrap_or(self.sequence.met_ns));
        Seat { queued_ns, decodes: self.began_ns.is_some_and(|began| began < end_ns) }
    }

    /// The time of its first token, or of its end where it generates none.
    pub fn answered_ns(&self) -> Option<u64> {
        self.sequence.first_token_ns.or(self.sequence.ended_ns.filter(|_| !self.generates))
    }

    /// When something was last heard of it.
    pub fn last_sign_ns(&self) -> u64 {
        self.last_sign_ns
    }

    fn sign(&mut self, at_ns: u64) {
        self.last_sign_ns = self.last_sign_ns.max(at_ns);
    }
}

/// All guests.
#[derive(Debug, Default)]
pub struct Guests {
    all: BTreeMap<Key, Guest>,
    by_id: HashMap<Box<str>, BTreeSet<Key>>,
    /// In the order in which they were met.
    order: BTreeSet<(u64, Key)>,
    /// Those that found no room.
    pub forgotten: u64,
}

impl Guests {
    pub fn add(&mut self, key: Key, mut guest: Guest) {
        if self.all.len() >= MOST_GUESTS
            && let Some((_, oldest)) = self.order.first().copied()
        {
            self.forgotten += 1;
            self.remove(oldest);
        }
        guest.sequence.inner = key.inner.0;
        if let Some(id) = &guest.tie.outer_id {
            self.by_id.entry(id.clone()).or_default().insert(key);
        }
        self.order.insert((guest.met_ns, key));
        self.all.insert(key, guest);
    }

    pub fn with(&mut self, key: Key, change: impl FnOnce(&mut Guest)) {
        if let Some(guest) = self.all.get_mut(&key) {
            change(guest);
        }
    }

    pub fn get(&self, key: Key) -> Option<&Guest> {
        self.all.get(&key)
    }

    /// Those with this id outside, in the order of their numbers.
    pub fn of_id(&self, id: &str) -> impl Iterator<Item = (Key, &Guest)> {
        let keys = self.by_id.get(id).into_iter().flatten();
        keys.filter_map(|key| Some((*key, self.all.get(key)?)))
    }

    /// Those that were met in a time, in order.
    pub fn met(&self, from_ns: u64, to_ns: u64) -> impl Iterator<Item = (Key, &Guest)> {
        let first = Key { speaker: 0, inner: Inner(0) };
        let range = (from_ns, first)..(to_ns.saturating_add(1).max(from_ns), first);
        self.order.range(range).filter_map(|(_, key)| Some((*key, self.all.get(key)?)))
    }

    /// Whose a guest is, from now on.
    pub fn own(&mut self, key: Key, owner: Owner) -> Option<Guest> {
        let guest = self.all.get_mut(&key)?;
        guest.owner = Some(owner);
        Some(guest.clone())
    }

    /// Nothing that a speaker said counts any more.
    pub fn forget(&mut self, speaker: usize) {
        let keys: Vec<_> = self.all.keys().filter(|key| key.speaker == speaker).copied().collect();
        keys.into_iter().for_each(|key| self.remove(key));
    }

    pub fn engine_died(&mut self, speaker: usize, pid: u32, at_ns: u64) {
        let of_engine = self.all.iter_mut().filter(|(key, guest)| key.speaker == speaker && guest.pid == pid);
        of_engine.for_each(|(_, guest)| guest.end(Reason::Error, at_ns));
    }

    /// Lets those go that nobody will ask for.
    pub fn expire(&mut self, now_ns: u64) {
        let is_over = |guest: &Guest| {
            let stay = if guest.is_done() || guest.owner.is_some() { STAY_NS } else { LONGEST_NS };
            now_ns != u64::MAX && guest.last_sign_ns.saturating_add(stay) < now_ns
        };
        // The oldest stand first; a few that live long do not keep those behind them for more than their stay.
        const LOOKED_AT: usize = 64;
        let over: Vec<_> = self.order.iter().take(LOOKED_AT).map(|(_, key)| *key).collect();
        for key in over {
            if self.all.get(&key).is_none_or(is_over) {
                self.remove(key);
            }
        }
    }

    fn remove(&mut self, key: Key) {
        let Some(guest) = self.all.remove(&key) else { return };
        self.order.remove(&(guest.met_ns, key));
        if let Some(id) = &guest.tie.outer_id
            && let Some(keys) = self.by_id.get_mut(id)
        {
            keys.remove(&key);
            if keys.is_empty() {
                self.by_id.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_that_find_no_room_go_with_their_ids() {
        let mut guests = Guests::default();
        for inner in 0..MOST_GUESTS as u64 + 10 {
            let tie = Tie { outer_id: Some(format!("{inner}").into()), ..Tie::default() };
            guests.add(Key { speaker: 0, inner: Inner(inner) }, Guest::new(1, inner, tie, true));
        }
        let kept = [guests.all.len(), guests.order.len(), guests.by_id.len()];
        assert_eq!((kept, guests.forgotten), ([MOST_GUESTS; 3], 10));
        assert!(
            guests.of_id("9").next().is_none() && guests.of_id("10").next().is_some(),
            "the oldest go first"
        );
    }
}
