//! When to try again. In: how often it failed and what the destination asked for. Out: how long to wait, or to give
//! up. Absent: sleeping and randomness, which are arguments.

use std::time::Duration;

/// How long and how often a failed request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Before the second attempt, at most.
    pub initial: Duration,
    /// Between two attempts, at most, unless the destination asks for more.
    pub longest: Duration,
    /// From the first attempt to the last. Backends restart within a minute, and whoever was away for one finds
    /// everything: the last attempt before giving up may come `longest` before it is back. Spans older than 30 s no
    /// longer count in Tempo's own metrics, and what waits longer keeps newer spans from their place in the queue.
    pub patience: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(500),
            longest: Duration::from_secs(10),
            patience: Duration::from_secs(90),
        }
    }
}

impl Policy {
    /// The wait after the failure number `failures` (from 1), `elapsed` after the first attempt began, or `None` to
    /// give up. The wait doubles each time; `random` in 0..1 takes up to half of it away, so that many exporters do
    /// not come back at once. `asked` is what the destination wants at least.
    pub fn wait(
        &self,
        failures: u32,
        elapsed: Duration,
        asked: Option<Duration>,
        random: f64,
    ) -> Option<Duration> {
        let doubled = self.initial.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let wait = doubled.min(self.longest).mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0);
        let wait = wait.max(asked.unwrap_or_default());
        (elapsed + wait < self.patience).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        initial: Duration::from_millis(100),
        longest: Duration::from_secs(1),
        patience: Duration::from_secs(10),
    };

    #[test]
    fn waits() {
        let ms = Duration::from_millis;
        for (failures, elapsed, asked, random, expected) in [
            (1, ms(0), None, 0.0, Some(ms(100))),
            (1, ms(0), None, 1.0, Some(ms(50))),
            (2, ms(0), None, 0.0, Some(ms(200))),
            (4, ms(0), None, 0.5, Some(ms(600))),
            (40, ms(0), None, 0.0, Some(ms(1000))),
            (1, ms(0), Some(ms(3000)), 0.0, Some(ms(3000))),
            (5, ms(0), Some(ms(10)), 0.0, Some(ms(1000))),
            (1, ms(9950), None, 0.0, None),
            (1, ms(0), Some(ms(20_000)), 0.0, None),
        ] {
            assert_eq!(
                POLICY.wait(failures, elapsed, asked, random),
                expected,
                "failure {failures} at {elapsed:?}"
            );
        }
    }
}
