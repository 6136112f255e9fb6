//! The course of one engine: what its iterations took, and which of them computed prompts.

use super::Ride;
use std::collections::VecDeque;

/// Iterations with prompts that are remembered: a queue is rarely longer.
const MOST_PREFILLS: usize = 4096;

/// The newest iteration counts for this part of what one without prompts usually takes.
const NEWEST: u64 = 8;

/// Iterations of an engine so far.
#[derive(Debug, Default)]
pub struct Course {
    /// The one before: its beginning and end.
    last: Option<(u64, u64)>,
    /// When the one that is under way, or was the last, began and ended.
    now: (u64, u64),
    /// What an iteration that only generates usually takes, nanoseconds.
    plain_ns: Option<u64>,
    /// When iterations computed prompts.
    prefills: VecDeque<(u64, u64)>,
    /// The one under way does.
    prefill: bool,
}

/// How a request rides in an iteration.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// Since when it waited; of the first ride.
    pub queued_ns: Option<u64>,
    /// It had its first token before.
    pub decodes: bool,
}

impl Course {
    /// The end of the newest iteration.
    pub fn end_ns(&self) -> Option<u64> {
        (self.now.1 > 0).then_some(self.now.1)
    }

    /// Another iteration: from when to when, and whether it computed prompts or generated.
    pub fn go_on(&mut self, start_ns: u64, end_ns: u64, (prefill, decode): (bool, bool)) {
        self.last = self.end_ns().map(|_| self.now);
        self.now = (start_ns, end_ns);
        self.prefill = prefill;
        let took = end_ns.saturating_sub(start_ns);
        if prefill {
            if self.prefills.len() == MOST_PREFILLS {
                self.prefills.pop_front();
            }
            self.prefills.push_back(self.now);
        } else if decode {
            self.plain_ns = Some(self.plain_ns.map_or(took, |known| known - known / NEWEST + took / NEWEST));
        }
    }

    /// A request rides in the newest iteration.
    pub fn take(&self, ride: &mut Ride, seat: Seat) {
        let (start_ns, end_ns) = self.now;
        if let (None, Some(queued_ns)) = (ride.first_step_ns, seat.queued_ns) {
            ride.queued_behind_ns = self.prefilling_ns(queued_ns, start_ns);
        }
        if seat.decodes && self.prefill {
            let took = end_ns.saturating_sub(start_ns);
            ride.stretched_ns += self.plain_ns.map_or(0, |plain| took.saturating_sub(plain));
        }
        if let Some((_, before_ns)) = self.last.filter(|last| ride.last_step_ns == Some(last.1)) {
            let gap = start_ns.saturating_sub(before_ns);
            match seat.decodes {
                true => ride.gap_ns.1 += gap,
                false => ride.gap_ns.0 += gap,
            }
        }
        if seat.decodes && ride.first_made_ns.is_none() {
            ride.first_made_ns = ride.last_step_ns;
        }
        ride.first_step_ns.get_or_insert(start_ns);
        ride.last_step_ns = Some(end_ns);
    }

    /// How long iterations computed prompts within a time.
    fn prefilling_ns(&self, from_ns: u64, to_ns: u64) -> u64 {
        let mut covered = 0;
        let mut upto = to_ns;
        for (start, end) in self.prefills.iter().rev() {
            if *end <= from_ns {
                break;
            }
            let (start, end) = ((*start).max(from_ns), (*end).min(upto));
            covered += end.saturating_sub(start);
            upto = upto.min(start.max(from_ns));
        }
        covered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITING: Seat = Seat { queued_ns: Some(100), decodes: false };
    const DECODING: Seat = Seat { queued_ns: None, decodes: true };

    #[test]
    fn a_queue_is_behind_the_prompts_of_others_as_far_as_they_were_computed_in_it() {
        let mut course = Course::default();
        course.go_on(50, 150, (true, false));
        course.go_on(150, 300, (true, true));
        course.go_on(310, 400, (false, true));
        course.go_on(400, 500, (true, false));
        let mut ride = Ride::default();
        course.take(&mut ride, WAITING);
        assert_eq!((ride.queued_behind_ns, ride.first_step_ns), (200, Some(400)), "100 to 300");
        assert_eq!(ride.gap_ns, (0, 0));
    }

    #[test]
    fn decoding_beside_prompts_takes_longer_and_between_iterations_is_a_gap() {
        let (mut course, mut ride) = (Course::default(), Ride::default());
        for start in [0, 100, 200] {
            course.go_on(start, start + 90, (false, true));
            course.take(&mut ride, DECODING);
        }
        course.go_on(300, 700, (true, true));
        course.take(&mut ride, DECODING);
        assert_eq!((ride.stretched_ns, ride.gap_ns), (310, (0, 30)));
        assert_eq!(ride.first_made_ns, Some(90), "before the second that it decodes in");
        course.go_on(700, 790, (false, true));
        course.go_on(800, 890, (false, true));
        course.take(&mut ride, DECODING);
        assert_eq!(ride.gap_ns, (0, 30), "what it did not ride in before is no gap of its own");
    }
}
