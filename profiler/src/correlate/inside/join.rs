//! Which guests a request is: by id, by thread, or as the only ones that fit.

use super::guest::{Guest, Guests, Key};
use crate::correlate::request::{Outcome, Request};
use crate::evidence::Evidence;
use crate::server::said::Reason;
use std::collections::BTreeMap;

/// How long a finished request waits for its engine's last word: the order to give it up comes milliseconds later.
const PATIENCE_NS: u64 = 300_000_000;

/// A step is told milliseconds after it was done, where messages of several front ends belong to it.
const TOLD_NS: u64 = 20_000_000;

/// How far a stamp may lie before what it should follow.
const SLACK_NS: u64 = 1_000_000;

/// A step that was under way when the client left may still bring a token.
const LAST_STEP_NS: u64 = 100_000_000;

/// The guests of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which, the first part first.
    pub keys: Vec<Key>,
    /// How that is known.
    pub evidence: Evidence,
}

/// Finished requests of which their server may still speak.
#[derive(Debug, Default)]
pub struct Waiting {
    requests: Vec<Request>,
    /// Those that were let go to make room.
    pub forgotten: u64,
}

/// Requests that wait, for a third of a second at most; the oldest go first.
pub const MOST_WAITING: usize = 16_384;

impl Waiting {
    pub fn add(&mut self, request: Request) {
        self.requests.push(request);
    }

    /// Those that wait.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// Those that wait, to be changed.
    pub fn requests_mut(&mut self) -> impl Iterator<Item = &mut Request> {
        self.requests.iter_mut()
    }

    /// Those that have waited long enough, or of whose guests nothing more is to be heard.
    pub fn due(&mut self, guests: &Guests, now_ns: u64) -> Vec<Request> {
        let is_due = |request: &Request| {
            let overdue = request.ended_ns.saturating_add(PATIENCE_NS) < now_ns;
            let told = request.ended_ns.saturating_add(TOLD_NS) < now_ns;
            overdue || told && find(guests, request, &[]).is_some_and(|found| is_settled(guests, &found))
        };
        let mut beyond = self.requests.len().saturating_sub(MOST_WAITING);
        self.forgotten += beyond as u64;
        let mut must_go = || {
            let must = beyond > 0;
            beyond = beyond.saturating_sub(1);
            must
        };
        self.requests.extract_if(.., |request| must_go() || is_due(request)).collect()
    }
}

/// Nothing more is to be heard of the guests, and they are the right ones.
fn is_settled(guests: &Guests, found: &Found) -> bool {
    let is_done = |key: &Key| guests.get(*key).is_some_and(Guest::is_done);
    found.evidence <= Evidence::E1 && found.keys.iter().all(is_done)
}

/// The guests of a request. `rivals` are others that may be meant.
pub fn find(guests: &Guests, request: &Request, rivals: &[Request]) -> Option<Found> {
    by_id(guests, request)
        .or_else(|| by_thread(guests, request))
        .or_else(|| by_constraints(guests, request, rivals))
}

/// The response has the id that the engine has, or the client sent it along.
fn by_id(guests: &Guests, request: &Request) -> Option<Found> {
    let sent = request.head.as_ref().and_then(|head| head.request_id.as_deref());
    let built =
        sent.into_iter().flat_map(|id| [id.to_owned(), format!("chatcmpl-{id}"), format!("cmpl-{id}")]);
    let ids = request.id.iter().cloned().chain(built);
    let found = ids.map(|id| of_id(guests, request, &id)).find(|keys| !keys.is_empty())?;
    choose_by_time(guests, request, found)
}

/// Guests with the id that may be this request's: clients may use an id twice.
fn of_id(guests: &Guests, request: &Request, id: &str) -> Vec<Key> {
    let may_be = |guest: &Guest| guest.owner.is_none() && is_in_time(request, guest);
    guests.of_id(id).filter(|(_, guest)| may_be(guest)).map(|(key, _)| key).collect()
}

/// Of guests with the same id and the same part, the one that fits best: then the id alone did not tell.
fn choose_by_time(guests: &Guests, request: &Request, keys: Vec<Key>) -> Option<Found> {
    // As many as the response has answers: a list of prompts, each of them several times.
    if keys.len() > 1 && keys.len() == request.finish_reasons.len() {
        return Some(Found { keys, evidence: Evidence::E0 });
    }
    let mut by_part: BTreeMap<Option<u32>, Vec<Key>> = BTreeMap::new();
    for key in keys {
        by_part.entry(guests.get(key)?.tie.part).or_default().push(key);
    }
    let is_clear = by_part.values().all(|keys| keys.len() == 1);
    let chosen = by_part.into_values().filter_map(|keys| best(guests, request, keys.into_iter()));
    Some(Found { keys: chosen.collect(), evidence: if is_clear { Evidence::E0 } else { Evidence::E2 } })
}

/// The thread that read the request handed it over.
fn by_thread(guests: &Guests, request: &Request) -> Option<Found> {
    let thread = (request.pid, request.thread?);
    let arrived_ns = request.arrived_ns?;
    let of_thread = guests.met(arrived_ns.saturating_sub(SLACK_NS), request.ended_ns);
    let of_thread = of_thread.filter(|(_, guest)| guest.owner.is_none() && guest.tie.thread == Some(thread));
    let (named, nameless): (Vec<_>, Vec<_>) = of_thread.partition(|(_, guest)| guest.tie.outer_id.is_some());
    let nameless: Vec<_> = nameless.into_iter().map(|(key, _)| key).collect();
    if !nameless.is_empty() {
        return Some(Found { keys: nameless, evidence: Evidence::E1 });
    }
    // One thread may read for many, and what has an id belongs to the response with that id. A response without one,
    // as of a failure, may still be meant by the only one that was over with it.
    let is_over =
        |guest: &Guest| guest.sequence.ended_ns.is_some_and(|end| end <= request.ended_ns + SLACK_NS);
    match *named.as_slice() {
        [(key, guest)] if request.id.is_none() && is_over(guest) => {
            Some(Found { keys: vec![key], evidence: Evidence::E1 })
        }
        _ => None,
    }
}

/// The only guest that fits what is known of the request.
fn by_constraints(guests: &Guests, request: &Request, rivals: &[Request]) -> Option<Found> {
    let arrived_ns = request.arrived_ns?;
    let fits = |request: &Request, guest: &Guest| {
        // One with an id of its own, or a thread, is found by that or is another's.
        let free = guest.owner.is_none() && guest.tie.thread.is_none();
        let nameless = guest.tie.outer_id.is_none() || request.id.is_none();
        free && nameless && is_in_time(request, guest) && agrees(request, guest)
    };
    let met = guests.met(arrived_ns.saturating_sub(SLACK_NS), request.ended_ns);
    let candidates: Vec<_> = met.filter(|(_, guest)| fits(request, guest)).collect();
    let only = candidates.len() == 1;
    let rival = |guest: &Guest| rivals.iter().any(|rival| fits(rival, guest));
    let contested = candidates.iter().any(|(_, guest)| rival(guest));
    let key = best(guests, request, candidates.into_iter().map(|(key, _)| key))?;
    let evidence = if only && !contested { Evidence::E2 } else { Evidence::E3 };
    Some(Found { keys: vec![key], evidence })
}

/// It was met while the request was there.
fn is_in_time(request: &Request, guest: &Guest) -> bool {
    let from = request.arrived_ns.unwrap_or(request.opened_ns).saturating_sub(SLACK_NS);
    (from..=request.ended_ns).contains(&guest.met_ns)
}

/// Nothing that both sides know contradicts.
fn agrees(request: &Request, guest: &Guest) -> bool {
    let sequence = &guest.sequence;
    let same = |one: Option<u64>, other: Option<u64>| one.zip(other).is_none_or(|(one, other)| one == other);
    let before = |inside: Option<u64>, outside: Option<u64>| {
        inside.zip(outside).is_none_or(|(inside, outside)| inside <= outside.saturating_add(SLACK_NS))
    };
    let generated = Some(sequence.generated_tokens).filter(|_| guest.is_done());
    let ending = match request.outcome {
        Outcome::Aborted => is_given_up(request, guest),
        // One with an id is found by it, unless its response never showed one.
        _ => guest.tie.outer_id.is_none() && same(request.usage.output, generated),
    };
    ending
        && same(request.usage.input, sequence.prompt_tokens)
        && before(sequence.first_token_ns, request.first_token_ns)
        && before(
            sequence.last_token_ns.filter(|_| request.outcome == Outcome::Completed),
            Some(request.ended_ns),
        )
}

/// The engine stopped working on it when the client left: because it was told to, or, where nobody says so, in that
/// nothing more came out.
fn is_given_up(request: &Request, guest: &Guest) -> bool {
    let near = |at_ns: u64| at_ns.abs_diff(request.ended_ns) <= PATIENCE_NS;
    match (guest.sequence.reason, guest.sequence.ended_ns) {
        (Some(Reason::Abort | Reason::FrontEnd | Reason::Unsaid), Some(ended_ns)) => near(ended_ns),
        (None, None) => {
            guest.tie.outer_id.is_none()
                && guest.last_sign_ns() <= request.ended_ns.saturating_add(LAST_STEP_NS)
        }
        _ => false,
    }
}

/// Of several that may be meant, the one whose first token, or whose coming, is nearest.
fn best(guests: &Guests, request: &Request, keys: impl Iterator<Item = Key>) -> Option<Key> {
    keys.min_by_key(|key| {
        let guest = guests.get(*key);
        let tokens = guest.and_then(Guest::answered_ns).zip(request.first_token_ns);
        let met = guest.map(|guest| guest.met_ns).zip(request.arrived_ns);
        let (from, to) = tokens.or(met).unwrap_or((0, u64::MAX));
        from.abs_diff(to)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_find_no_room_go_first_come_first_gone() {
        let mut waiting = Waiting::default();
        for exchange in 0..MOST_WAITING as u32 + 10 {
            let mut request = Request::for_test();
            request.exchange = exchange;
            waiting.add(request);
        }
        let gone = waiting.due(&Guests::default(), 0);
        assert_eq!(
            gone.iter().map(|request| request.exchange).collect::<Vec<_>>(),
            (0..10).collect::<Vec<_>>()
        );
        assert_eq!((waiting.requests.len(), waiting.forgotten), (MOST_WAITING, 10));
    }
}
