//! When what is read again, so that reading stays within its share of a core.
//!
//! In: what each round cost. Out: which round is due, and how long to wait. Pure: time is an argument.

use super::settings::{DEAR_EVERY, PULSE, SHARE, Settings};

/// What a round reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Power, for the energy of requests.
    Pulse,
    /// What costs microseconds.
    Cheap,
    /// What costs milliseconds.
    Dear,
}

impl Tier {
    const ALL: [Self; 3] = [Self::Pulse, Self::Cheap, Self::Dear];
}

/// One tier.
#[derive(Clone, Copy, Debug)]
struct Beat {
    tier: Tier,
    /// How often it should be.
    wanted_ns: u64,
    /// How often it can be.
    period_ns: u64,
    /// The part of the share that it may take.
    share: f64,
    /// Mean cost of a round, nanoseconds.
    cost_ns: f64,
    next_ns: u64,
}

/// All tiers.
#[derive(Debug)]
pub struct Rhythm([Beat; 3]);

impl Rhythm {
    /// From `now_ns` on.
    #[must_use]
    pub fn new(settings: &Settings, now_ns: u64) -> Self {
        let ns = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let interval_ns = ns(settings.interval);
        Self(Tier::ALL.map(|tier| {
            let (wanted_ns, share) = match tier {
                // A quarter is left over for rounds that come together.
                Tier::Pulse => (ns(PULSE), 0.15),
                Tier::Cheap => (interval_ns, 0.3),
                Tier::Dear => (interval_ns.saturating_mul(DEAR_EVERY.into()), 0.3),
            };
            Beat {
                tier,
                wanted_ns,
                period_ns: wanted_ns,
                share: share * SHARE,
                cost_ns: 0.0,
                // What is a mean between two readings has its first value soon.
                next_ns: now_ns.saturating_add(wanted_ns.min(interval_ns.saturating_mul(2))),
            }
        }))
    }

    /// The next round that is due; the dearer first, which holds the cheaper.
    #[must_use]
    pub fn due(&self, now_ns: u64) -> Option<Tier> {
        self.0.iter().rev().find(|beat| beat.next_ns <= now_ns).map(|beat| beat.tier)
    }

    /// When the next round is due; pulses only while they are wanted.
    #[must_use]
    pub fn next_ns(&self, pulses: bool) -> u64 {
        let wanted = self.0.iter().filter(|beat| pulses || beat.tier != Tier::Pulse);
        wanted.map(|beat| beat.next_ns).min().unwrap_or(u64::MAX)
    }

    /// A round was done, and it took so much CPU time.
    pub fn done(&mut self, tier: Tier, now_ns: u64, cost_ns: u64) {
        for beat in self.0.iter_mut().filter(|beat| beat.tier <= tier) {
            if beat.tier == tier {
                beat.cost_ns = if beat.cost_ns == 0.0 {
                    cost_ns as f64
                } else {
                    beat.cost_ns * 0.8 + cost_ns as f64 * 0.2
                };
                beat.period_ns = beat.wanted_ns.max((beat.cost_ns / beat.share) as u64);
            }
            beat.next_ns = now_ns.saturating_add(beat.period_ns);
        }
    }

    /// How many times longer than wanted a tier's period is.
    #[must_use]
    pub fn stretched(&self, tier: Tier) -> f64 {
        let beat = self.0.iter().find(|beat| beat.tier == tier);
        beat.map_or(1.0, |beat| beat.period_ns as f64 / beat.wanted_ns.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Rounds by tier and the share of a core that they took over a time, when each costs so much.
    fn play(costs: [u64; 3], for_ns: u64) -> (BTreeMap<Tier, u64>, f64) {
        let (mut now_ns, mut spent, mut rounds) = (0, 0, BTreeMap::new());
        let mut rhythm = Rhythm::new(&Settings::default(), now_ns);
        while now_ns < for_ns {
            match rhythm.due(now_ns) {
                Some(tier) => {
                    let cost = costs[tier as usize];
                    *rounds.entry(tier).or_default() += 1;
                    spent += cost;
                    rhythm.done(tier, now_ns, cost);
                }
                None => now_ns = rhythm.next_ns(true),
            }
        }
        (rounds, spent as f64 / for_ns as f64)
    }

    const HOUR_NS: u64 = 3_600_000_000_000;

    #[test]
    fn what_is_cheap_comes_as_often_as_asked() {
        let (rounds, share) = play([10_000, 100_000, 5_000_000], HOUR_NS);
        assert!((350..=362).contains(&rounds[&Tier::Dear]), "{rounds:?}");
        assert!((3200..=3240).contains(&rounds[&Tier::Cheap]), "a dear round holds a cheap one: {rounds:?}");
        assert!(rounds[&Tier::Pulse] > 30_000, "{rounds:?}");
        assert!(share < SHARE, "{share}");
    }

    #[test]
    fn what_is_dear_comes_less_often() {
        for costs in [[500_000, 5_000_000, 80_000_000], [10_000, 100_000, 1_000_000_000]] {
            let (rounds, share) = play(costs, HOUR_NS);
            assert!(share <= SHARE * 1.01, "{share} of a core for {costs:?}: {rounds:?}");
            assert!(rounds[&Tier::Dear] >= 1 && rounds[&Tier::Cheap] > 50, "{rounds:?}");
        }
    }
}
