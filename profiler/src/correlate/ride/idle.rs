//! How a process's GPU time passed: worked, or stood idle and why. Every nanosecond between its first work and its last
//! is in one of the sums.

use std::collections::VecDeque;

/// Times without requests that are remembered: work is told within seconds.
const MOST_QUIET: usize = 1024;

/// When no request was under way.
#[derive(Debug, Default)]
pub struct Quiet {
    past: VecDeque<(u64, u64)>,
    since: Option<u64>,
}

impl Quiet {
    /// Whether requests are under way from now on.
    pub fn now(&mut self, time_ns: u64, busy: bool) {
        match (busy, self.since) {
            (true, Some(since)) => {
                if self.past.len() == MOST_QUIET {
                    self.past.pop_front();
                }
                self.past.push_back((since, time_ns.max(since)));
                self.since = None;
            }
            (false, None) => self.since = Some(time_ns),
            _ => {}
        }
    }

    /// How much of a time was without requests.
    fn within(&self, from_ns: u64, to_ns: u64) -> u64 {
        let now = self.since.map(|since| (since, u64::MAX));
        let spans = self.past.iter().rev().take_while(|span| span.1 > from_ns).copied().chain(now);
        spans.map(|(start, end)| end.min(to_ns).saturating_sub(start.max(from_ns))).sum()
    }
}

/// Sums over the time between a process's first GPU work and its last, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct GpuTimes {
    /// From the first work to the end of the last: the sum of the others.
    pub window_ns: u64,
    /// The GPU worked.
    pub busy_ns: u64,
    /// Between pieces of work, no request was under way.
    pub no_request_ns: u64,
    /// Between pieces of work, requests were under way: the CPU was late.
    pub cpu_late_ns: u64,
    /// Within a piece of work the GPU waited for launches, or the CPU for its turn after the work was done.
    pub launch_bound_ns: u64,
    /// Not in the window: GPU time of pieces of work that others had in the same time, on other streams or by other
    /// threads. With what the GPU worked it is the GPU time of all pieces.
    pub overlap_ns: u64,
}

/// The course of one process's GPU work.
#[derive(Debug, Default)]
pub struct Times {
    last_ns: Option<u64>,
    /// Of the piece of work before, how long the GPU waited in it.
    idle_ns: u64,
    /// The sums.
    pub sums: GpuTimes,
}

impl Times {
    /// Another piece of work, in the order of their ends, and how long the GPU worked for it.
    pub fn work(&mut self, (start_ns, end_ns): (u64, u64), gpu_ns: u64, quiet: &Quiet) {
        let last_ns = self.last_ns.unwrap_or(start_ns);
        let from_ns = start_ns.max(last_ns);
        let gap = from_ns - last_ns;
        let no_request = quiet.within(last_ns, from_ns).min(gap);
        let span = end_ns.saturating_sub(from_ns);
        let busy = gpu_ns.min(span);
        let sums = &mut self.sums;
        sums.window_ns += gap + span;
        sums.busy_ns += busy;
        sums.no_request_ns += no_request;
        sums.cpu_late_ns += gap - no_request;
        sums.launch_bound_ns += span - busy;
        // What was sent behind other work began before the wait for that returned: it was not idle to the end.
        let earlier = (gpu_ns - busy).min(self.idle_ns);
        sums.busy_ns += earlier;
        sums.launch_bound_ns -= earlier;
        sums.overlap_ns += gpu_ns - busy - earlier;
        self.idle_ns = span - busy;
        self.last_ns = Some(end_ns.max(last_ns));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn idle_time_has_its_reason() {
        let (mut times, mut quiet) = (Times::default(), Quiet::default());
        quiet.now(0, false);
        quiet.now(50, true);
        times.work((100, 200), 80, &quiet);
        times.work((230, 300), 70, &quiet);
        quiet.now(310, false);
        quiet.now(390, true);
        times.work((400, 500), 200, &quiet);
        let sums = GpuTimes {
            window_ns: 400,
            busy_ns: 250,
            no_request_ns: 80,
            cpu_late_ns: 50,
            launch_bound_ns: 20,
            overlap_ns: 100,
        };
        assert_eq!(times.sums, sums);
    }

    proptest! {
        #[test]
        fn the_sums_are_the_window(
            works in prop::collection::vec((0u64..100, 1u64..100, 0u64..150), 1..100),
            turns in prop::collection::vec(0u64..200, 0..50),
        ) {
            let (mut times, mut quiet) = (Times::default(), Quiet::default());
            let mut at = 0;
            for (index, turn) in turns.iter().enumerate() {
                at += turn;
                quiet.now(at, index % 2 == 0);
            }
            let (mut end, mut first) = (0, None);
            for (gap, took, gpu) in works {
                let start = end + gap;
                first.get_or_insert(start);
                end = start + took;
                times.work((start, end), gpu, &quiet);
            }
            let sums = times.sums;
            prop_assert_eq!(sums.window_ns, end - first.unwrap());
            prop_assert_eq!(
                sums.busy_ns + sums.no_request_ns + sums.cpu_late_ns + sums.launch_bound_ns,
                sums.window_ns
            );
        }
    }
}
