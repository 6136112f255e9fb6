//! What a server said of a request becomes a part of the request: moments, counts, reasons.

use super::guest::{Guest, Sequence};
use crate::correlate::life::{Hook, Life, State, Transition};
use crate::correlate::request::Request;
use crate::correlate::ride::Ride;
use crate::evidence::Evidence;
use crate::server::said::{Moment, Reason};

/// A request as its engine knew it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Who said so.
    pub adapter: &'static str,
    /// The version of the server's formats.
    pub schema: Option<&'static str>,
    /// How the request was tied to it.
    pub evidence: Evidence,
    /// Its sequences: one, or as many as answers were asked for.
    pub sequences: Vec<Sequence>,
}

impl Served {
    /// The earliest of a moment of all sequences.
    fn first(&self, moment: impl Fn(&Sequence) -> Option<u64>) -> Option<u64> {
        self.sequences.iter().filter_map(moment).min()
    }

    /// When the engine was handed the first of them.
    #[must_use]
    pub fn met_ns(&self) -> Option<u64> {
        self.first(|sequence| Some(sequence.met_ns))
    }

    /// When the engine's queue had it.
    #[must_use]
    pub fn enqueued_ns(&self) -> Option<u64> {
        self.first(|sequence| sequence.enqueued_ns)
    }

    /// When it was chosen for a step.
    #[must_use]
    pub fn scheduled_ns(&self) -> Option<u64> {
        self.first(|sequence| sequence.scheduled_ns.or(sequence.prefilling_ns))
    }

    /// When its first token was there.
    #[must_use]
    pub fn first_token_ns(&self) -> Option<u64> {
        self.first(|sequence| sequence.first_token_ns)
    }

    /// When its last token was there.
    #[must_use]
    pub fn last_token_ns(&self) -> Option<u64> {
        self.sequences.iter().filter_map(|sequence| sequence.last_token_ns).max()
    }

    /// How long it had lost its place: of one sequence, since those of several overlap.
    #[must_use]
    pub fn preempted_ns(&self) -> u64 {
        self.sequences.iter().map(|sequence| sequence.preempted_ns).max().unwrap_or(0)
    }

    /// How often it lost its place, all sequences together.
    #[must_use]
    pub fn preemptions(&self) -> u64 {
        self.sequences.iter().map(|sequence| sequence.preemptions).sum()
    }

    /// Steps of its engine that it was in, all sequences together.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.sequences.iter().map(|sequence| sequence.steps).sum()
    }

    fn generated(&self) -> u64 {
        self.sequences.iter().map(|sequence| sequence.generated_tokens).sum()
    }
}

/// Whether the response counts what the engine counted; none where either does not say, or where the front end ended
/// it, which may count less.
pub fn agreement(request: &Request, guests: &[Guest]) -> Option<bool> {
    let output = request.usage.output?;
    let mut generated = 0;
    for Guest { sequence, .. } in guests {
        let whole = matches!(sequence.reason?, Reason::Stop | Reason::Length | Reason::Repetition);
        if !whole {
            return None;
        }
        generated += sequence.generated_tokens;
    }
    // Several sequences share a prompt, or have one each: only that of one alone compares.
    let prompts = match guests {
        [only] => request.usage.input.zip(only.sequence.prompt_tokens),
        _ => None,
    };
    Some(output == generated && prompts.is_none_or(|(outside, inside)| outside == inside))
}

/// Gives the request what was said of it.
pub fn merge(request: &mut Request, guests: &[Guest], told: (&'static str, Option<&'static str>, Evidence)) {
    let (adapter, schema, evidence) = told;
    let sequences = guests.iter().map(|guest| guest.sequence.clone()).collect();
    let served = Served { adapter, schema, evidence, sequences };
    if evidence <= Evidence::E2 {
        request.life = life(&request.life, guests, evidence);
    }
    if evidence <= Evidence::E1 {
        let generates = guests.iter().any(|guest| guest.generates);
        fill(request, &served, generates);
    }
    // Before its engine told its iterations it may have ridden in some that were found from outside.
    let rides = std::iter::once(&*request.ride).chain(guests.iter().map(|guest| &guest.ride));
    *request.ride = Ride::of_all(rides);
    if let Some(known) = &mut request.ride.evidence {
        *known = (*known).max(evidence);
    }
    request.served = Some(Box::new(served));
}

/// Counts and reasons that the response does not tell.
fn fill(request: &mut Request, served: &Served, generates: bool) {
    let first = served.sequences.first();
    let usage = &mut request.usage;
    if generates {
        usage.output.get_or_insert_with(|| served.generated());
    }
    if usage.input.is_none() {
        usage.input = first.and_then(|sequence| sequence.prompt_tokens);
    }
    if usage.cached.is_none() {
        usage.cached = first.and_then(|sequence| sequence.cached_tokens);
    }
    let said = |reason: &Reason| {
        matches!(reason, Reason::Stop | Reason::Length | Reason::Repetition | Reason::Abort)
    };
    if request.finish_reasons.is_empty() {
        let reasons = served.sequences.iter().filter_map(|sequence| sequence.reason);
        request.finish_reasons = reasons.filter(said).map(|reason| reason.name().to_owned()).collect();
    }
}

/// The states of a request with those of the first of its sequences that reached each. Tokens are the engine's: a
/// response shows them later, and some of them never.
fn life(outside: &Life, guests: &[Guest], tie: Evidence) -> Life {
    let Some(guest) = guests.first() else { return outside.clone() };
    let has_tokens = guests.iter().any(|guest| guest.sequence.first_token_ns.is_some());
    let is_token = |state: State| matches!(state, State::FirstToken | State::Decoding);
    // Work on the GPU that may have been its own tells nothing beside the engine's word.
    let replaced = |state: State| state == State::Prefilling || has_tokens && is_token(state);
    let mut moments: Vec<Transition> =
        outside.transitions().iter().filter(|transition| !replaced(transition.state)).copied().collect();
    // Where tokens are known from the response alone, they may leave when the engine is done.
    let shown = moments
        .iter()
        .filter(|transition| is_token(transition.state))
        .map(|transition| transition.time_ns)
        .max();
    let mut add = |state, time_ns: Option<u64>, evidence: Evidence| {
        let inside = |time_ns| Transition { state, time_ns, hook: Hook::Engine, evidence: evidence.max(tie) };
        moments.extend(time_ns.map(inside));
    };
    for (moment, at_ns, evidence) in &guest.moments {
        add(state(*moment), Some(*at_ns), *evidence);
    }
    let first = guests.iter().filter_map(|guest| guest.sequence.first_token_ns).min();
    let last = guests.iter().filter_map(|guest| guest.sequence.last_token_ns).max();
    let ended = guests.iter().filter_map(|guest| guest.sequence.ended_ns).max();
    let ended = ended.filter(|ended| shown.is_none_or(|shown| shown <= *ended));
    // A slot is let go while the step that brought its last token settles: microseconds apart, in either order.
    let ended = ended.map(|ended| last.map_or(ended, |last| ended.max(last)));
    add(State::FirstToken, first, Evidence::E1);
    add(State::Decoding, last.filter(|last| Some(*last) != first), Evidence::E1);
    add(State::EngineDone, ended, Evidence::E1);
    moments.sort_by_key(|transition| (transition.time_ns, transition.state));
    let mut life = Life::default();
    let end = moments.iter().position(|transition| transition.state.is_final());
    // What the engine said after the end belongs to the end: the order to give up comes when the client has left.
    for transition in moments.into_iter().take(end.map_or(usize::MAX, |end| end + 1)) {
        life.reach(transition);
    }
    life.violations += outside.violations;
    life.left_out += outside.left_out;
    life
}

fn state(moment: Moment) -> State {
    match moment {
        Moment::Enqueued => State::Enqueued,
        Moment::Scheduled => State::Scheduled,
        Moment::Prefilling => State::Prefilling,
        Moment::Preempted => State::Preempted,
    }
}
