//! When a request did what: its phases, and the parts of its duration. In: a finished request with its ride. Out:
//! phases for spans, and nanoseconds that add up to the duration, what nothing explains being `unknown`.

use crate::correlate::{Evidence, Phase as Rode, Request, Ride};
use crate::metric::catalog::attribute as name;

/// Name of the span in which it waited.
pub const QUEUE: &str = "queue";
/// Name of the span up to its first token.
pub const PREFILL: &str = "prefill";
/// Name of the span after it.
pub const DECODE: &str = "decode";

/// A phase of a request.
#[derive(Clone, Copy, Debug)]
pub struct Phase<'a> {
    /// Name of its span.
    pub name: &'static str,
    /// From and to, `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: (u64, u64),
    /// What it had of the GPU; a queue has nothing.
    pub rode: Option<&'a Rode>,
}

/// The moments that divide a request's life, as far as they are known, in order.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    opened_ns: u64,
    /// From here on it waited: its arrival, or the engine's own word.
    queued_ns: Option<u64>,
    first_step_ns: Option<u64>,
    first_token_ns: Option<u64>,
    last_token_ns: Option<u64>,
    /// When its first and last token were made, of an answer that came whole.
    made_ns: Option<(u64, u64)>,
    /// Of its decoding, how long it had lost its place.
    preempted_ns: u64,
    ended_ns: u64,
    ride: &'a Ride,
    /// How sure the phases' bounds are, where the engine said them.
    pub told: Option<Evidence>,
}

impl<'a> Parts<'a> {
    /// Those of a request.
    #[must_use]
    pub fn of(request: &'a Request) -> Self {
        Self::told(request).unwrap_or_else(|| Self::seen(request)).ordered()
    }

    /// As bytes and work on the GPU show it.
    fn seen(request: &'a Request) -> Self {
        let first_token_ns = request.first_token_ns;
        // A step that began after the first token says nothing about the queue.
        let before_token = |step: &u64| first_token_ns.is_none_or(|token| *step <= token);
        Self {
            opened_ns: request.opened_ns,
            queued_ns: request.arrived_ns.filter(|_| request.is_inference()),
            first_step_ns: request.ride.first_step_ns.filter(before_token),
            first_token_ns,
            last_token_ns: request.last_token_ns,
            made_ns: request.ride.made_ns().filter(|_| first_token_ns.is_none()),
            preempted_ns: 0,
            told: None,
            ended_ns: request.ended_ns,
            ride: &request.ride,
        }
    }

    /// As the engine said it, where that is known to be this request's.
    fn told(request: &'a Request) -> Option<Self> {
        let served = request.served.as_ref().filter(|served| served.evidence <= Evidence::E2)?;
        let arrived_ns = request.arrived_ns?;
        let within = |time_ns: Option<u64>| time_ns.map(|time_ns| time_ns.max(arrived_ns));
        let queued_ns = within(served.enqueued_ns().or(served.met_ns()));
        Some(Self {
            opened_ns: request.opened_ns,
            queued_ns,
            first_step_ns: within(served.scheduled_ns()).or(queued_ns),
            // An engine that does not tell its tokens leaves them to the answer, which shows them a little later.
            first_token_ns: within(served.first_token_ns().or(request.first_token_ns)),
            last_token_ns: within(served.last_token_ns().or(request.last_token_ns)),
            made_ns: None,
            preempted_ns: served.preempted_ns(),
            ended_ns: request.ended_ns,
            ride: &request.ride,
            told: Some(served.evidence),
        })
    }

    /// No moment lies before the one that it follows, nor after the end: an engine may go on when the client has left,
    /// and clocks of two processes may differ by a little.
    fn ordered(mut self) -> Self {
        let mut floor_ns = self.opened_ns;
        self.ended_ns = self.ended_ns.max(floor_ns);
        let moments =
            [&mut self.queued_ns, &mut self.first_step_ns, &mut self.first_token_ns, &mut self.last_token_ns];
        for moment in moments.into_iter().flatten() {
            *moment = (*moment).clamp(floor_ns, self.ended_ns);
            floor_ns = *moment;
        }
        let within = |moment: u64| moment.clamp(floor_ns, self.ended_ns);
        self.made_ns = self.made_ns.map(|(first, last)| (within(first), within(last).max(within(first))));
        self
    }

    /// Its phases in order, as far as their bounds are known.
    #[must_use]
    pub fn phases(&self) -> Vec<Phase<'a>> {
        let mut phases = Vec::new();
        let Some(queued_ns) = self.queued_ns else { return phases };
        let mut add = |name, from, to, rode| phases.push(Phase { name, time_ns: (from, to), rode });
        if let Some(first_step_ns) = self.first_step_ns {
            add(QUEUE, queued_ns, first_step_ns, None);
        }
        if let Some(first_token_ns) = self.first_token_ns {
            let began_ns = self.first_step_ns.unwrap_or(queued_ns);
            add(PREFILL, began_ns, first_token_ns, Some(&self.ride.prefill));
            let last_ns = self.last_token_ns.unwrap_or(first_token_ns);
            add(DECODE, first_token_ns, last_ns, Some(&self.ride.decode));
        }
        phases
    }

    /// While it was queued, how long iterations computed prompts of others; none without a queue.
    #[must_use]
    pub fn queued_behind_ns(&self) -> Option<u64> {
        let queue = between(self.queued_ns, self.first_step_ns);
        Some(self.ride.queued_behind_ns.min(queue)).filter(|_| self.first_step_ns.is_some())
    }

    /// Nanoseconds that add up to the duration. No time is in two parts: what a phase was kept waiting is taken out of
    /// it, and is never more than it.
    #[must_use]
    pub fn breakdown(&self) -> [(&'static str, u64); 8] {
        let (first_ns, last_ns) = self.made_ns.unzip();
        let (first_ns, last_ns) = (self.first_token_ns.or(first_ns), self.last_token_ns.or(last_ns));
        // Until the engine has it, and after its last token, a request is in the front end.
        let front_end = between(Some(self.opened_ns), self.queued_ns) + between(last_ns, Some(self.ended_ns));
        let mut queue = between(self.queued_ns, self.first_step_ns);
        let mut prefill = between(self.first_step_ns, first_ns);
        let mut decode = between(first_ns, last_ns);
        let preempted = take(&mut decode, self.preempted_ns);
        let blocked =
            take(&mut queue, self.ride.queued_behind_ns) + take(&mut decode, self.ride.stretched_ns);
        let gap = take(&mut prefill, self.ride.gap_ns.0) + take(&mut decode, self.ride.gap_ns.1);
        let known = front_end + queue + prefill + decode + preempted + blocked + gap;
        let total = self.ended_ns - self.opened_ns;
        [
            (name::GPUSPAN_BREAKDOWN_FRONT_END_NS, front_end),
            (name::GPUSPAN_BREAKDOWN_QUEUE_NS, queue),
            (name::GPUSPAN_BREAKDOWN_PREFILL_NS, prefill),
            (name::GPUSPAN_BREAKDOWN_DECODE_NS, decode),
            (name::GPUSPAN_BREAKDOWN_BLOCKED_BY_PREFILL_NS, blocked),
            (name::GPUSPAN_BREAKDOWN_PREEMPTED_NS, preempted),
            (name::GPUSPAN_BREAKDOWN_CPU_GAP_NS, gap),
            (name::GPUSPAN_BREAKDOWN_UNKNOWN_NS, total.saturating_sub(known)),
        ]
    }
}

fn between(from: Option<u64>, to: Option<u64>) -> u64 {
    from.zip(to).map_or(0, |(from, to)| to.saturating_sub(from))
}

/// Takes as much out of a part as there is.
fn take(part: &mut u64, wanted: u64) -> u64 {
    let taken = wanted.min(*part);
    *part -= taken;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts<'a>(ride: &'a Ride, at: [Option<u64>; 4], ends: (u64, u64), preempted_ns: u64) -> Parts<'a> {
        let [queued_ns, first_step_ns, first_token_ns, last_token_ns] = at;
        Parts {
            opened_ns: ends.0,
            queued_ns,
            first_step_ns,
            first_token_ns,
            last_token_ns,
            made_ns: ride.made_ns().filter(|_| first_token_ns.is_none() && last_token_ns.is_none()),
            preempted_ns,
            ended_ns: ends.1,
            ride,
            told: None,
        }
        .ordered()
    }

    #[test]
    fn waiting_is_taken_out_of_the_phase_it_lies_in() {
        let ride = Ride { queued_behind_ns: 30, stretched_ns: 7, gap_ns: (5, 6), ..Ride::default() };
        let parts = parts(&ride, [Some(110), Some(150), Some(200), Some(300)], (100, 310), 9);
        let values = parts.breakdown().map(|(_, value)| value);
        assert_eq!(values, [20, 10, 45, 78, 37, 9, 11, 0]);
        assert_eq!(parts.queued_behind_ns(), Some(30));
    }

    #[test]
    fn answers_that_come_whole_are_made_in_their_iterations() {
        let mut ride =
            Ride { first_made_ns: Some(200), last_step_ns: Some(300), gap_ns: (0, 6), ..Ride::default() };
        let whole = |ride: &Ride| {
            let parts = parts(ride, [Some(110), Some(150), None, None], (100, 310), 0);
            assert_eq!(parts.phases().len(), 1, "its tokens were not seen");
            parts.breakdown().map(|(_, value)| value)
        };
        assert_eq!(whole(&ride)[7], 160, "it had made tokens before");
        ride.prefill.share.steps = 1;
        assert_eq!(whole(&ride), [20, 40, 50, 94, 0, 0, 6, 0]);
        ride.first_made_ns = None;
        assert_eq!(whole(&ride), [20, 40, 150, 0, 0, 0, 0, 0], "one token");
    }

    proptest! {
        #[test]
        fn parts_add_up_whatever_is_known(
            at in prop::array::uniform4(prop::option::of(0u64..1000)),
            ends in (0u64..1000, 0u64..1000),
            waits in prop::array::uniform5(0u64..2000),
            made in (prop::option::of(0u64..1000), prop::option::of(0u64..1000)),
        ) {
            let [behind, stretched, before, after, preempted] = waits;
            let mut ride = Ride {
                queued_behind_ns: behind, stretched_ns: stretched, gap_ns: (before, after),
                first_made_ns: made.0, last_step_ns: made.1, ..Ride::default()
            };
            ride.prefill.share.steps = 1;
            let parts = parts(&ride, at, ends, preempted);
            let sum: u64 = parts.breakdown().iter().map(|(_, value)| value).sum();
            prop_assert_eq!(sum, ends.1.saturating_sub(ends.0));
            for pair in parts.phases().windows(2) {
                prop_assert!(pair[0].time_ns.1 <= pair[1].time_ns.0);
            }
            prop_assert!(parts.phases().iter().all(|phase| phase.time_ns.0 <= phase.time_ns.1));
        }
    }
}
