//! A device's own counter → a total that never goes back.
//!
//! In: raw values, which wrap and begin anew with a driver's start. Out: totals. Pure.

use super::model::What;
use std::collections::HashMap;

/// One counter.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    /// The counter's last value; none once the total is also known from elsewhere.
    raw: Option<u64>,
    sum: u64,
}

/// The counters of one device.
#[derive(Debug, Default)]
pub struct Totals(HashMap<What, Total>);

/// What a total begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// With nothing: what counts is what happens from here on.
    Zero,
    /// With what the device has counted already: errors of last week are still worth knowing.
    Raw,
}

impl Totals {
    /// The total of a counter of so many `bits`, each of which stands for so many units, after another raw value.
    pub fn take(&mut self, what: What, raw: u64, bits: u32, each: u64, from: From) -> u64 {
        let first = Total { raw: None, sum: if from == From::Raw { raw.saturating_mul(each) } else { 0 } };
        let total = self.0.entry(what).or_insert(first);
        let grown = total.raw.map_or(0, |before| grown(before, raw, bits));
        total.sum = total.sum.saturating_add(grown.saturating_mul(each));
        total.raw = Some(raw);
        total.sum
    }

    /// The total, after so much more. What a counter says of the same time must not count again.
    pub fn add(&mut self, what: What, more: u64) -> u64 {
        let total = self.0.entry(what).or_default();
        total.raw = None;
        total.sum = total.sum.saturating_add(more);
        total.sum
    }
}

/// How much a counter has grown. One that is smaller than before wrapped if it was about to, and else began anew, and all
/// that it has counted is new.
fn grown(before: u64, now: u64, bits: u32) -> u64 {
    if now >= before {
        return now - before;
    }
    let most = u64::MAX >> 64u32.saturating_sub(bits).min(63);
    let quarter = most / 4;
    let has_wrapped = before <= most && before > most - quarter && now < quarter;
    if has_wrapped { most - before + now + 1 } else { now }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Link, Way};
    use proptest::prelude::*;

    const WHAT: What = What::Io(Link::Pcie, Way::Receive);

    fn totals(bits: u32, from: From, raws: &[u64]) -> Vec<u64> {
        let mut totals = Totals::default();
        raws.iter().map(|raw| totals.take(WHAT, *raw, bits, 1, from)).collect()
    }

    #[test]
    fn a_counter_that_wraps_goes_on() {
        let near = u64::from(u32::MAX) - 9;
        assert_eq!(totals(32, From::Zero, &[near, near + 4, 6, 7]), [0, 4, 20 - 4, 21 - 4]);
        assert_eq!(totals(64, From::Zero, &[u64::MAX, 1]), [0, 2]);
    }

    #[test]
    fn a_counter_that_begins_anew_counts_from_nothing() {
        assert_eq!(totals(64, From::Zero, &[1000, 1500, 30, 40]), [0, 500, 530, 540]);
        assert_eq!(totals(32, From::Zero, &[1000, 30]), [0, 30], "it was not about to wrap");
        let near = u64::from(u32::MAX) - 9;
        assert_eq!(totals(64, From::Zero, &[near, 5]), [0, 5], "64 bits do not wrap there");
    }

    #[test]
    fn two_ways_to_know_a_total_do_not_count_twice() {
        let mut totals = Totals::default();
        let mut take = |raw| totals.take(WHAT, raw, 32, 1024, From::Zero);
        assert_eq!((take(5), take(7)), (0, 2048));
        assert_eq!(totals.add(WHAT, 100), 2148);
        let mut take = |raw| totals.take(WHAT, raw, 32, 1024, From::Zero);
        assert_eq!((take(50), take(51)), (2148, 3172));
    }

    #[test]
    fn errors_of_before_count() {
        assert_eq!(totals(64, From::Raw, &[7, 9, 1]), [7, 9, 10]);
    }

    proptest! {
        #[test]
        fn totals_never_go_back(raws in prop::collection::vec(any::<u64>(), 1..50), bits in 1u32..=64) {
            let all = totals(bits, From::Zero, &raws);
            prop_assert!(all.is_sorted());
        }
    }
}
