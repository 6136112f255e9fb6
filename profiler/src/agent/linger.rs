//! For how long the hooks that everybody on the machine pays for stay behind the last target. Pure: time is an argument.
//!
//! In: whether there are targets. Out: when the hooks may go. A server that crashes and comes back finds them in place.

use std::time::{Duration, Instant};

/// Waits behind the last target.
#[derive(Clone, Copy, Debug)]
pub struct Linger {
    time: Duration,
    /// Since when there has been no target.
    alone: Option<Instant>,
}

impl Linger {
    /// So long.
    #[must_use]
    pub fn new(time: Duration) -> Self {
        Self { time, alone: None }
    }

    /// Another time from now on.
    pub fn set(&mut self, time: Duration) {
        self.time = time;
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&mut self, has_targets: bool, now: Instant) -> bool {
        if has_targets {
            self.alone = None;
            return false;
        }
        now.duration_since(*self.alone.get_or_insert(now)) >= self.time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_outlast_the_last_target_by_their_time_and_a_crash_loop_keeps_them() {
        const S: Duration = Duration::from_secs(1);
        let (mut linger, start) = (Linger::new(30 * S), Instant::now());
        let mut over = |at: u32, has_targets| linger.is_over(has_targets, start + S * at);
        assert!(
            !over(0, true) && !over(100, false) && !over(129, false) && over(130, false) && over(200, false)
        );
        // One that comes for a moment each 20 s.
        assert!((201..400).all(|at| !over(at, at % 20 == 1)));
        assert!(over(440, false));
    }
}
