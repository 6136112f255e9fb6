//! Who rode, where the threads that sent the work say what they work for: the request of that trace.
//!
//! In: a piece of work, and the requests that may have ridden. Out: the one whose trace it was all sent for, if there is
//! one only. Whose span it was tells several of a trace apart. Work for a trace of no such request is guessed at as ever:
//! the trace of a request that came without one shows when it is answered.

use super::GpuWork;
use super::align::EngineKey;
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
    key: EngineKey,
    (work, later): (&GpuWork, &[GpuWork]),
    (index, passengers): (usize, &[Passenger<'_>]),
) -> Vec<Found> {
    let only = passengers.get(index..=index).unwrap_or_default();
    let guessed = guesses.riders(key, work, later, only).into_iter().next();
    let has_token = |passenger: &Passenger<'_>| {
        passenger.request.first_token_ns.is_some_and(|token_ns| token_ns <= work.start_ns)
    };
    let part = if only.iter().any(has_token) { Part::Decode } else { Part::Prefill };
    let (part, tokens) = guessed.map_or((part, 1), |found| (found.part, found.tokens.max(1)));
    vec![Found { index, part, tokens, evidence: Evidence::E0 }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::context::Origin;
    use crate::correlate::request::Request;
    use crate::decode::SpanContext;
    use crate::server::route;

    fn context(trace: u8, span: u8) -> SpanContext {
        SpanContext { trace_id: [trace; 16], span_id: [span; 8], flags: Some(1) }
    }

    /// A request from 1000 on, answered under a span.
    fn request(answered: Option<SpanContext>) -> Request {
        let mut request = Request::for_test();
        request.route = route::find("/v1/completions");
        answered.into_iter().for_each(|context| request.hear(context, true));
        request
    }

    #[test]
    fn work_is_that_of_the_only_request_of_its_trace_or_span() {
        let one = |trace, span| Origin::One(context(trace, span));
        for (answered, origin, found) in [
            (vec![Some((1, 1)), Some((2, 2)), None], one(2, 9), Some(1)),
            (vec![Some((1, 1)), Some((1, 2))], one(1, 2), Some(1)),
            (vec![Some((1, 1)), Some((1, 2))], one(1, 3), None),
            (vec![Some((1, 1)), Some((1, 1))], one(1, 1), None),
            (vec![Some((1, 1)), None], one(3, 3), None),
            (vec![Some((1, 1))], Origin::Several, None),
            (vec![Some((1, 1))], Origin::Unsaid, None),
        ] {
            let mut requests: Vec<_> = answered
                .iter()
                .map(|known| request(known.map(|(trace, span)| context(trace, span))))
                .collect();
            let passengers: Vec<_> = requests
                .iter_mut()
                .map(|request| Passenger { request, is_over: false, engine: None })
                .collect();
            let at = |start_ns, end_ns| GpuWork { start_ns, end_ns, origin, ..GpuWork::default() };
            assert_eq!(passenger(&at(1500, 1600), &passengers), found, "{answered:?} {origin:?}");
            assert_eq!(passenger(&at(10, 20), &passengers), None, "before any of them came");
        }
    }

    #[test]
    fn it_rides_alone_and_surely() {
        let mut requests = [request(Some(context(1, 1))), request(Some(context(2, 2)))];
        requests[1].first_token_ns = Some(1200);
        let passengers: Vec<_> =
            requests.iter_mut().map(|request| Passenger { request, is_over: false, engine: None }).collect();
        let work = GpuWork { start_ns: 1500, end_ns: 1600, ..GpuWork::default() };
        let found = |index| alone(&mut Guesses::default(), (1, 0), (&work, &[]), (index, &passengers));
        let is = |found: &[Found], index, part| matches!(found, [only] if (only.index, only.part, only.evidence) == (index, part, Evidence::E0));
        assert!(is(&found(0), 0, Part::Prefill), "{:?}", found(0));
        assert!(is(&found(1), 1, Part::Decode), "{:?}", found(1));
    }
}
