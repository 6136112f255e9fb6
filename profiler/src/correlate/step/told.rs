//! Of which part of a wait it can be said that the GPU worked for the step that the wait ended. In: waits and the
//! steps of a process. Out: nanoseconds, each told of one step only. Absent: how long waking up takes.
//!
//! While a thread waits for its work the GPU is busy, but perhaps with that of another thread: two threads with a
//! stream each had 1.7 times the GPU's time told of them, two streams waited for at once 1.4 times (H100, docs/gpu.md).
//! So time in which another thread has work under way is told of nobody, and what one thread has on several streams
//! is one piece of work: neither bound of it is told twice.

use super::pace::BLOCKED_NS;
use super::spans::uncovered;
use super::{PAUSE_NS, Step, WAKE_UP_NS};
use std::collections::VecDeque;

/// Who sends work, and where to. What is on different devices runs at the same time; where one of them is not known, it
/// may be the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Thread.
    pub tid: u32,
    /// Device, where it is known.
    pub device: Option<u32>,
}

impl Lane {
    /// One may be in the way of the other.
    pub fn meets(self, other: Self) -> bool {
        self.device == other.device || self.device.is_none() || other.device.is_none()
    }

    /// It is of the same thread, and takes turns with it.
    fn is_own(self, other: Self) -> bool {
        self.tid == other.tid && self.meets(other)
    }

    /// It is of another thread, and may be in its way.
    fn is_rival(self, other: Self) -> bool {
        self.tid != other.tid && self.meets(other)
    }
}

/// Closed steps that are remembered: a wait rarely outlasts more of other threads' steps.
const MOST_PAST: usize = 64;

/// What was told of the steps of one process.
#[derive(Debug, Default)]
pub struct Told {
    past: VecDeque<Past>,
    /// What came before is no longer known: nothing is told of it.
    floor_ns: u64,
}

/// A closed step.
#[derive(Debug)]
struct Past {
    lane: Lane,
    stream: u64,
    under_way: (u64, u64),
    told: (u64, u64),
    /// Until then it was not done.
    busy_ns: u64,
}

impl Told {
    /// A wait from `entered_ns` to `time_ns` ends these steps while others stay open; sets what is told of each.
    pub fn waited(&mut self, done: &mut [Step], open: &[(Lane, u64)], entered_ns: u64, time_ns: u64) {
        let own = done.iter().map(|step| (step.lane(), step.start_ns));
        let under_way: Vec<_> = own.chain(open.iter().copied()).collect();
        // Of several streams of a thread the one with the latest work was likely busy longest.
        done.sort_by_key(|step| std::cmp::Reverse(step.end_ns));
        for step in done {
            let from = entered_ns.max(step.start_ns).max(self.floor_ns);
            let lane = step.lane();
            step.told_ns = self.left(lane, (from, time_ns), &under_way);
            step.end_ns = time_ns;
            // What was sent behind other work began when that was done, which was before the wait for it returned.
            let (ended_ns, busy_ns) = self.end_of(lane);
            let behind = ended_ns.saturating_sub(step.start_ns);
            let ahead = if ended_ns < time_ns { WAKE_UP_NS.min(behind) } else { 0 };
            let overlap = self.overlap(lane, (step.start_ns, time_ns));
            step.overlap_ns = overlap.saturating_sub(ahead);
            // Where the CPU came late to that wait's end, it was long before: at the earliest when the wait began.
            let late = ended_ns.saturating_sub(busy_ns.max(step.start_ns)).saturating_sub(ahead);
            step.early_ns = if ended_ns < time_ns { late.min(step.overlap_ns) } else { 0 };
            step.floor_ns = ended_ns;
            step.contested_ns = self.contested(lane, (step.start_ns, time_ns), &under_way);
            let told = (entered_ns, time_ns);
            let blocked = time_ns.saturating_sub(entered_ns) >= BLOCKED_NS;
            let busy_ns = if blocked { entered_ns } else { step.start_ns };
            self.remember(Past {
                lane,
                stream: step.stream,
                under_way: (step.start_ns, time_ns),
                told,
                busy_ns,
            });
        }
    }

    /// Nobody waited for a step; when its work ended is not known.
    pub fn paused(&mut self, step: &mut Step) {
        let lane = step.lane();
        step.overlap_ns = self.overlap(lane, (step.start_ns, step.end_ns));
        let under_way = (step.start_ns, step.end_ns.saturating_add(PAUSE_NS));
        let (stream, busy_ns) = (step.stream, step.start_ns);
        self.remember(Past { lane, stream, under_way, told: (0, 0), busy_ns });
    }

    /// No closed step of another stream or thread is known to have been in the way during a span.
    pub fn is_alone(&self, (lane, stream): (Lane, u64), (from, to): (u64, u64)) -> bool {
        let is_other =
            |past: &Past| lane.meets(past.lane) && (past.lane.tid, past.stream) != (lane.tid, stream);
        let meets = |past: &Past| past.under_way.1 > from && past.under_way.0 < to;
        from >= self.floor_ns && !self.past.iter().any(|past| is_other(past) && meets(past))
    }

    /// How much of a span neither is told already nor has another thread's work in it.
    fn left(&self, lane: Lane, (from, to): (u64, u64), under_way: &[(Lane, u64)]) -> u64 {
        let others =
            under_way.iter().filter(|(other, _)| lane.is_rival(*other)).map(|(_, start)| (*start, to));
        let past = self.past.iter().filter(|past| lane.meets(past.lane));
        let past = past.map(|past| if past.lane.tid == lane.tid { past.told } else { past.under_way });
        let mut taken: Vec<_> = others.chain(past).filter(|span| span.1 > from && span.0 < to).collect();
        uncovered((from, to), &mut taken)
    }

    /// When the latest of a thread's closed steps ended, and until when it was not done.
    fn end_of(&self, lane: Lane) -> (u64, u64) {
        let own = self.past.iter().filter(|past| lane.is_own(past.lane));
        own.map(|past| (past.under_way.1, past.busy_ns)).max().unwrap_or_default()
    }

    /// In how much of a span another thread had work under way.
    fn contested(&self, lane: Lane, (from, to): (u64, u64), under_way: &[(Lane, u64)]) -> u64 {
        let open = under_way.iter().filter(|(other, _)| lane.is_rival(*other)).map(|(_, start)| (*start, to));
        let past = self.past.iter().filter(|past| lane.is_rival(past.lane)).map(|past| past.under_way);
        let mut taken: Vec<_> = open.chain(past).filter(|span| span.1 > from && span.0 < to).collect();
        to.saturating_sub(from) - uncovered((from, to), &mut taken)
    }

    /// How much of a span closed steps of the same thread have had, too.
    fn overlap(&self, lane: Lane, (from, to): (u64, u64)) -> u64 {
        let own = self.past.iter().filter(|past| lane.is_own(past.lane)).map(|past| past.under_way);
        let mut taken: Vec<_> = own.filter(|span| span.1 > from && span.0 < to).collect();
        to.saturating_sub(from) - uncovered((from, to), &mut taken)
    }

    fn remember(&mut self, past: Past) {
        self.past.push_back(past);
        if self.past.len() > MOST_PAST
            && let Some(oldest) = self.past.pop_front()
        {
            self.floor_ns = self.floor_ns.max(oldest.under_way.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(tid: u32, start_ns: u64, end_ns: u64) -> Step {
        Step { tid, start_ns, end_ns, ..Step::default() }
    }

    /// Ends steps `(tid, start, last work)` by a wait, while others are open; returns what is told of each by thread.
    fn told(
        told: &mut Told,
        done: &[(u32, u64, u64)],
        open: &[(u32, u64)],
        wait: (u64, u64),
    ) -> Vec<(u32, u64)> {
        let mut done: Vec<_> = done.iter().map(|&(tid, start, end)| step(tid, start, end)).collect();
        let open: Vec<_> = open.iter().map(|&(tid, start)| (Lane { tid, device: None }, start)).collect();
        told.waited(&mut done, &open, wait.0, wait.1);
        done.iter().map(|step| (step.tid, step.told_ns)).collect()
    }

    #[test]
    fn a_thread_alone_has_the_whole_wait() {
        let mut memory = Told::default();
        assert_eq!(told(&mut memory, &[(1, 10, 20)], &[], (30, 100)), [(1, 70)]);
        assert_eq!(
            told(&mut memory, &[(1, 110, 120)], &[(1, 5)], (130, 140)),
            [(1, 10)],
            "its own other stream"
        );
        assert_eq!(
            told(&mut memory, &[(1, 200, 210)], &[], (150, 300)),
            [(1, 100)],
            "nothing before its first work"
        );
    }

    #[test]
    fn streams_of_a_thread_that_are_waited_for_at_once_have_the_wait_once() {
        let mut memory = Told::default();
        assert_eq!(told(&mut memory, &[(1, 10, 20), (1, 15, 25)], &[], (30, 100)), [(1, 70), (1, 0)]);
    }

    #[test]
    fn upper_bounds_of_a_threads_streams_add_up_to_no_more_than_the_time_there_was() {
        let mut memory = Told::default();
        let mut done = [step(1, 10, 20), step(1, 15, 25), step(2, 15, 25)];
        memory.waited(&mut done, &[], 30, 100);
        let mut found: Vec<_> = done.iter().map(|step| (step.tid, step.gpu_bounds_ns().1)).collect();
        found.sort_unstable();
        assert_eq!(found, [(1, 5), (1, 85), (2, 85)], "10 to 15, and 15 to 100 once");
        let mut later = [step(1, 12, 110)];
        memory.waited(&mut later, &[], 105, 120);
        assert_eq!(
            later[0].gpu_bounds_ns().1,
            108,
            "from 100 on, and it may have begun before that wait returned"
        );
        let mut alone = step(1, 118, 130);
        memory.paused(&mut alone);
        assert_eq!(alone.gpu_bounds_ns(), (0, 10));
    }

    #[test]
    fn two_waits_for_the_streams_of_one_thread_share_their_time() {
        let mut memory = Told::default();
        assert_eq!(told(&mut memory, &[(1, 10, 20)], &[(1, 10)], (30, 100)), [(1, 70)]);
        assert_eq!(
            told(&mut memory, &[(1, 10, 20)], &[], (40, 120)),
            [(1, 20)],
            "up to 100 it was told already"
        );
    }

    #[test]
    fn time_in_which_another_thread_has_work_is_told_of_nobody() {
        let mut memory = Told::default();
        assert_eq!(
            told(&mut memory, &[(1, 10, 20)], &[(2, 60)], (30, 100)),
            [(1, 30)],
            "from 60 on there is more"
        );
        assert_eq!(told(&mut memory, &[(2, 60, 70)], &[], (80, 150)), [(2, 50)], "until 100 there was more");
        assert_eq!(told(&mut memory, &[(1, 160, 161), (2, 170, 171)], &[], (165, 180)), [(2, 0), (1, 5)]);
    }

    #[test]
    fn work_that_nobody_waited_for_may_have_gone_on() {
        let mut memory = Told::default();
        memory.paused(&mut step(2, 10, 20));
        let end = 20 + PAUSE_NS;
        assert_eq!(told(&mut memory, &[(1, 5, 30)], &[], (40, end + 7)), [(1, 7)]);
    }

    #[test]
    fn what_is_forgotten_is_told_of_nobody() {
        let mut memory = Told::default();
        for at in 0..=MOST_PAST as u64 {
            told(&mut memory, &[(2, at * 10, at * 10)], &[], (at * 10, at * 10 + 5));
        }
        let end = MOST_PAST as u64 * 10 + 100;
        let kept = MOST_PAST as u64 * 5;
        assert_eq!(told(&mut memory, &[(1, 0, 0)], &[], (0, end)), [(1, end - kept - 5)]);
    }
}
