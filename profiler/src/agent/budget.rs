//! What a target may be slowed down by, and what is given up when it is more. In: shares of a core, measured again and
//! again. Out: the level to observe at. Pure: time is an argument.
//!
//! A level that turned out too dear is tried again after a while, which doubles each time: loads change.

use crate::attach::Price;
use std::fmt;
use std::time::{Duration, Instant};

/// How much of a target is observed, the dearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A record for each GPU call.
    Events,
    /// Launches and copies are counted in the kernel.
    Aggregate,
    /// Requests alone: no GPU library is probed.
    Requests,
    /// Nothing is probed.
    Off,
}

impl Level {
    fn less(self) -> Self {
        match self {
            Self::Events => Self::Aggregate,
            Self::Aggregate => Self::Requests,
            Self::Requests | Self::Off => Self::Off,
        }
    }

    fn more(self) -> Self {
        match self {
            Self::Events | Self::Aggregate => Self::Events,
            Self::Requests => Self::Aggregate,
            Self::Off => Self::Requests,
        }
    }

    /// Its name in logs, metrics and `/targets`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Aggregate => "aggregate",
            Self::Requests => "requests",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.name())
    }
}

/// What the programs add to an empty probe, nanoseconds (docs/overhead.md).
const PROGRAM_NS: f64 = 200.0;
/// Measurements above the limit in a row that are believed: a burst is no load.
const BELIEVED: u32 = 2;
/// Until a level is tried again that was too dear once; it doubles with each time.
const AFTER: Duration = Duration::from_secs(60);
const AFTER_MOST: Duration = Duration::from_secs(3600);
/// How little of the limit the cost must be for the next level to be tried.
const ROOM: f64 = 0.5;

/// Watches one target.
#[derive(Clone, Debug)]
pub struct Budget {
    limit: f64,
    level: Level,
    best: Level,
    above: u32,
    canary_until: Instant,
    retry_at: Option<Instant>,
    after: Duration,
    changed: Instant,
}

/// What probes slow a target down by, as a share of one core.
pub fn share(price: Price, before: [u64; 2], now: [u64; 2], elapsed_s: f64) -> f64 {
    let [cheap, dear] = [0, 1].map(|kind: usize| {
        let at = |runs: [u64; 2]| runs.get(kind).copied().unwrap_or(0);
        at(now).saturating_sub(at(before)) as f64
    });
    let dear_ns = price.single_stepped_ns.unwrap_or(price.emulated_ns);
    (cheap * (price.emulated_ns + PROGRAM_NS) + dear * (dear_ns + PROGRAM_NS)) / 1e9 / elapsed_s.max(1e-3)
}

impl Budget {
    /// `limit` is a share of one core. For the time of the `canary` a single measurement above it is enough.
    #[must_use]
    pub fn new(limit: f64, best: Level, canary: Duration, now: Instant) -> Self {
        Self {
            limit,
            level: best,
            best,
            above: 0,
            canary_until: now + canary,
            retry_at: None,
            after: AFTER,
            changed: now,
        }
    }

    /// The level to observe at.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// Another limit from now on.
    pub fn set_limit(&mut self, limit: f64) {
        self.limit = limit;
    }

    /// Takes what the target was slowed down by since the last measurement, as a share of one core. Returns the level to go
    /// to, if that is another.
    pub fn measured(&mut self, share: f64, now: Instant) -> Option<Level> {
        if share > self.limit && self.level != Level::Off {
            self.above += 1;
            let enough = if now < self.canary_until { 1 } else { BELIEVED };
            return (self.above >= enough).then(|| self.give_up(now));
        }
        self.above = 0;
        let due = self.retry_at.is_some_and(|retry_at| now >= retry_at);
        if !due || self.level == self.best {
            return None;
        }
        // What is counted costs nearly what is told: with less than half of the limit there may be room.
        let has_room = self.level >= Level::Requests || share < self.limit * ROOM;
        has_room.then(|| self.go(self.level.more(), now))
    }

    /// Gives a level up, for the sake of the node. Returns the new one.
    pub fn give_up(&mut self, now: Instant) -> Level {
        // One that was gone back to and failed again within the time it had to wait is waited for twice as long.
        if self.retry_at.is_some() && now.duration_since(self.changed) < self.after {
            self.after = (self.after * 2).min(AFTER_MOST);
        }
        self.go(self.level.less(), now)
    }

    fn go(&mut self, level: Level, now: Instant) -> Level {
        self.level = level;
        self.above = 0;
        self.changed = now;
        self.retry_at = Some(now + self.after);
        level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(500);

    fn budget(now: Instant) -> Budget {
        Budget::new(0.03, Level::Events, Duration::ZERO, now)
    }

    #[test]
    fn what_is_too_dear_is_given_up_step_by_step_within_two_seconds() {
        let start = Instant::now();
        let mut budget = budget(start);
        let levels: Vec<_> = (1..=6).filter_map(|step| budget.measured(0.3, start + STEP * step)).collect();
        assert_eq!(levels, [Level::Aggregate, Level::Requests, Level::Off]);
        assert_eq!(budget.measured(0.0, start + STEP * 7), None, "nothing is tried at once");
    }

    #[test]
    fn one_burst_is_no_load() {
        let start = Instant::now();
        let mut budget = budget(start);
        for step in 1..100 {
            let share = if step % 2 == 0 { 0.3 } else { 0.01 };
            assert_eq!(budget.measured(share, start + STEP * step), None);
        }
    }

    #[test]
    fn a_canary_is_not_given_a_second_chance() {
        let start = Instant::now();
        let mut budget = Budget::new(0.03, Level::Events, Duration::from_secs(10), start);
        assert_eq!(budget.measured(0.04, start + STEP), Some(Level::Aggregate));
        assert_eq!(budget.measured(0.04, start + Duration::from_secs(11)), None);
    }

    #[test]
    fn a_level_that_failed_is_tried_again_ever_more_rarely() {
        let start = Instant::now();
        let mut budget = budget(start);
        let mut tried = Vec::new();
        // Calls cost 10 % of a core while they are probed, and nothing else.
        for step in 1..40_000 {
            let share = if budget.level() <= Level::Aggregate { 0.1 } else { 0.0 };
            if budget.measured(share, start + STEP * step) == Some(Level::Aggregate) {
                tried.push(step / 2);
            }
        }
        let waits: Vec<_> = tried.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(waits.windows(2).all(|pair| pair[1] >= pair[0]), "{waits:?}");
        assert!(waits[0] >= 60 && *waits.last().unwrap() >= 3600, "{waits:?}");
    }

    #[test]
    fn a_load_that_is_over_brings_everything_back() {
        let start = Instant::now();
        let mut budget = budget(start);
        let mut levels = Vec::new();
        for step in 1..1000 {
            let share = if step < 4 { 0.2 } else { 0.005 };
            levels.extend(budget.measured(share, start + STEP * step));
        }
        assert_eq!(levels, [Level::Aggregate, Level::Events]);
    }

    #[test]
    fn counting_that_is_near_the_limit_stays_counting() {
        let start = Instant::now();
        let mut budget = budget(start);
        let levels: Vec<_> = (1..1000)
            .filter_map(|step| budget.measured(if step < 3 { 0.2 } else { 0.02 }, start + STEP * step))
            .collect();
        assert_eq!(levels, [Level::Aggregate]);
    }

    #[test]
    fn a_share_is_reckoned_from_runs_and_the_price_of_probes() {
        let price = Price { emulated_ns: 800.0, single_stepped_ns: Some(9800.0) };
        let near = |one: f64, other: f64| (one - other).abs() < 1e-9;
        assert!(near(share(price, [5, 5], [300_005, 5], 1.0), 0.3));
        assert!(near(share(price, [0, 0], [0, 1_000], 0.5), 0.02));
        assert_eq!(share(price, [9, 9], [0, 0], 1.0), 0.0, "another target has the number now");
    }
}
