//! Trace and span ids: random to the world, reproducible from the seed of a recording.

use super::model::{SpanId, TraceId};

/// Makes ids from one seed and what a span is about.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    seed: u64,
}

impl Ids {
    /// With a seed that is random for each run.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The trace of a request that came without one. Never all zero.
    #[must_use]
    pub fn trace(&self, connection: u64, exchange: u32, time_ns: u64) -> TraceId {
        let high = self.word([connection, u64::from(exchange), time_ns, 1]);
        let low = self.word([connection, u64::from(exchange), time_ns, 2]);
        (u128::from(high) << 64 | u128::from(low).max(1)).to_be_bytes()
    }

    /// Span number `index` of a request. Never all zero.
    #[must_use]
    pub fn span(&self, connection: u64, exchange: u32, time_ns: u64, index: u64) -> SpanId {
        self.word([connection, u64::from(exchange), time_ns, 16 + index]).max(1).to_be_bytes()
    }

    /// The trace of an engine's iteration.
    #[must_use]
    pub fn step_trace(&self, iteration: u64) -> TraceId {
        let (high, low) = (self.word([iteration, 0, 0, 3]), self.word([iteration, 0, 0, 4]));
        (u128::from(high) << 64 | u128::from(low).max(1)).to_be_bytes()
    }

    /// The span of an engine's iteration.
    #[must_use]
    pub fn step_span(&self, iteration: u64) -> SpanId {
        self.word([iteration, 0, 0, 5]).max(1).to_be_bytes()
    }

    /// Whether an iteration is the one of `every` that is shown: the first one is, later ones by chance, so that no
    /// rhythm of the engine's is hit or missed.
    #[must_use]
    pub fn shows_step(&self, iteration: u64, every: u64) -> bool {
        every > 0 && (iteration == 1 || self.word([iteration, 0, 0, 6]).is_multiple_of(every))
    }

    fn word(&self, parts: [u64; 4]) -> u64 {
        parts.into_iter().fold(mix(self.seed), |hash, part| mix(hash ^ mix(part)))
    }
}

/// One round of SplitMix64 (Steele, Lea and Flood 2014): every input bit reaches every output bit.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_differ_wherever_anything_differs_and_repeat_with_the_seed() {
        let ids = Ids::new(7);
        let mut seen = HashSet::new();
        for connection in 0..20 {
            for exchange in 0..20 {
                assert!(seen.insert(ids.trace(connection, exchange, 5)[..8].to_vec()));
                for index in 0..4 {
                    assert!(seen.insert(ids.span(connection, exchange, 5, index).to_vec()));
                }
            }
        }
        for iteration in 0..400 {
            assert!(seen.insert(ids.step_trace(iteration)[..8].to_vec()));
            assert!(seen.insert(ids.step_span(iteration).to_vec()));
        }
        assert_eq!(ids.trace(1, 2, 3), Ids::new(7).trace(1, 2, 3));
        assert_ne!(ids.trace(1, 2, 3), Ids::new(8).trace(1, 2, 3));
    }

    #[test]
    fn one_iteration_of_so_many_is_shown() {
        let ids = Ids::new(7);
        let shown = (1..=100_000).filter(|iteration| ids.shows_step(*iteration, 100)).count();
        assert!((900..1100).contains(&shown), "{shown}");
        assert!(ids.shows_step(1, 1_000_000) && !ids.shows_step(1, 0));
        assert!((1..100).all(|iteration| ids.shows_step(iteration, 1)));
    }
}
