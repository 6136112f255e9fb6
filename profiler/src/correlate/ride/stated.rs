//! Who rode, where the threads that sent the work say what they work for: the request of that trace.
//!
//! In: a piece of work, and the requests that may have ridden. Out: the one whose trace it was all sent for, if there is
//! one only. Whose span it was tells several of a trace apart. Work for a trace of no such request is guessed at as ever:
//! the trace of a request that came without one shows when it is answered.

use super::GpuWork;
use super::guess::{Found, Guesses, Passenger};
use crate::evidence::Evidence;
use crate::server::said::Part;

/// The place of the one that the work was for.
pub fn passenger(work: &GpuWork, passengers: &[Passenger<'_>]) -> Option<usize> {
    let context = work.origin.one()?;
    let is_there = |passenger: &Passenger<'_>| {
        let request = &*passenger.request;
        request.is_inference()
            && request.opened_ns <= work.end_ns
            && (!passenger.is_over || request.ended_ns >= work.start_ns)
    };
    let of_trace: Vec<_> = passengers
        .iter()
        .enumerate()
        .filter(|(_, passenger)| is_there(passenger))
        .filter(|(_, passenger)| passenger.request.traces().any(|trace| trace == context.trace_id))
        .collect();
    let of_span = |passenger: &Passenger<'_>| {
        passenger.request.context().is_some_and(|known| known.span_id == context.span_id)
    };
    match of_trace.as_slice() {
        [(index, _)] => Some(*index),
        several => {
            let mut own = several.iter().filter(|(_, passenger)| of_span(passenger));
            let (index, _) = own.next()?;
            own.next().is_none().then_some(*index)
        }
    }
}

/// How it rode, alone. What is known of its tokens tells its part of the work.
pub fn alone(
    guesses: &mut Guesses,
    pid: u32,
    (work, later): (&GpuWork, &[GpuWork]),
    (index, passengers): (usize, &[Passenger<'_>]),
) -> Vec<Found> {
    let only = passengers.get(index..=index).unwrap_or_default();
    let guessed = guesses.riders(pid, work, later, only).into_iter().next();
    let has_token = |passenger: &Passenger<'_>| {
        passenger.request.first_token_ns.is_some_and(|token_ns| token_ns <= work.start_ns)
    };
    let part = if only.iter().any(has_token) { Part::Decode } else { Part::Prefill };
    let (part, tokens) = guessed.map_or((part, 1), |found| (found.part, found.tokens.max(1)));
    vec![Found { index, part, tokens, evidence: Evidence::E0 }]
}
