//! A base-2 exponential histogram, as OpenTelemetry's data model has it. In: values. Out: counts of buckets whose bounds
//! are powers of 2^(2^-scale), so that any range of values is told within the same relative error. Absent: a threshold
//! around zero (only zero itself is in the zero bucket), and sums, which the explicit buckets keep.

use std::collections::VecDeque;

/// Buckets on either side of zero: the specification's default, with which values from 1 ms to 1 min are told within 5 %.
pub const MOST_BUCKETS: usize = 160;
/// The scale to begin with, the specification's default. Merging buckets lowers it; no double needs less than -4.
const FINEST_SCALE: i32 = 20;
/// Takes the smallest doubles to where their exponent tells their size.
const TO_NORMAL: f64 = (1_u64 << 54) as f64;

/// Counts by exponential buckets.
#[derive(Clone, Debug, PartialEq)]
pub struct Exponential {
    /// Buckets per power of two, as a power of two.
    pub scale: i32,
    /// How many values were zero.
    pub zeros: u64,
    /// Of values above zero.
    pub positive: Side,
    /// Of values below zero, by their magnitude.
    pub negative: Side,
}

/// Adjacent buckets: number `i` holds what is above `base^(offset + i)` and at most `base^(offset + i + 1)`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Side {
    /// Index of the first bucket.
    pub offset: i32,
    /// Values per bucket.
    pub counts: VecDeque<u64>,
}

impl Default for Exponential {
    fn default() -> Self {
        Self { scale: FINEST_SCALE, zeros: 0, positive: Side::default(), negative: Side::default() }
    }
}

impl Exponential {
    /// Counts a finite value. Where it lies too far from the others, adjacent buckets become one until all have room.
    pub fn record(&mut self, value: f64) {
        if value == 0.0 {
            self.zeros += 1;
            return;
        }
        let index = index(value.abs(), self.scale);
        let merges = if value > 0.0 { &self.positive } else { &self.negative }.merges_for(index);
        if merges > 0 {
            self.scale -= merges;
            self.positive.merge(merges);
            self.negative.merge(merges);
        }
        let side = if value > 0.0 { &mut self.positive } else { &mut self.negative };
        side.add(index >> merges, 1);
    }
}

impl Side {
    /// How often pairs of buckets must become one before `index` has room.
    fn merges_for(&self, index: i32) -> i32 {
        if self.counts.is_empty() {
            return 0;
        }
        let last = self.offset + self.counts.len() as i32 - 1;
        let (mut low, mut high) = (i64::from(self.offset.min(index)), i64::from(last.max(index)));
        let mut merges = 0;
        while high - low >= MOST_BUCKETS as i64 {
            (low, high) = (low >> 1, high >> 1);
            merges += 1;
        }
        merges
    }

    fn merge(&mut self, merges: i32) {
        let finer = std::mem::take(self);
        for (index, count) in (finer.offset..).zip(finer.counts) {
            self.add(index >> merges, count);
        }
    }

    /// Counts into a bucket, which is made if it is not there yet, with those between.
    fn add(&mut self, index: i32, count: u64) {
        if self.counts.is_empty() {
            self.offset = index;
        }
        while index < self.offset {
            self.counts.push_front(0);
            self.offset -= 1;
        }
        let place = (index - self.offset) as usize;
        if place >= self.counts.len() {
            self.counts.resize(place + 1, 0);
        }
        if let Some(bucket) = self.counts.get_mut(place) {
            *bucket += count;
        }
    }
}

/// The bucket of a magnitude above zero.
fn index(magnitude: f64, scale: i32) -> i32 {
    let (exponent, fraction) = parts(magnitude);
    if scale > 0 {
        let within = (fraction.log2() * f64::from(1 << scale)).ceil() as i32;
        return (exponent << scale) + within - 1;
    }
    // A power of two is the upper bound of its bucket.
    let exponent = if fraction == 1.0 { exponent - 1 } else { exponent };
    exponent >> -scale
}

/// `magnitude` as `fraction * 2^exponent` with a fraction from 1 to below 2.
fn parts(magnitude: f64) -> (i32, f64) {
    if magnitude < f64::MIN_POSITIVE {
        let (exponent, fraction) = parts(magnitude * TO_NORMAL);
        return (exponent - 54, fraction);
    }
    let bits = magnitude.to_bits();
    let (exponent, fraction) = (bits >> 52, bits & ((1 << 52) - 1));
    (exponent as i32 - 1023, f64::from_bits(fraction | 1.0_f64.to_bits()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> Exponential {
        let mut histogram = Exponential::default();
        values.iter().for_each(|value| histogram.record(*value));
        histogram
    }

    /// Lower and upper bound of a bucket as logarithms, which no double is too small for.
    fn log_bounds(scale: i32, index: i32) -> (f64, f64) {
        let width = f64::from(scale).exp2().recip();
        (f64::from(index) * width, f64::from(index + 1) * width)
    }

    /// How many magnitudes lie in each bucket, found by comparing each with the bounds.
    fn check(side: &Side, scale: i32, magnitudes: &[f64]) {
        assert!(side.counts.len() <= MOST_BUCKETS, "{} buckets", side.counts.len());
        assert_eq!(side.counts.iter().sum::<u64>(), magnitudes.len() as u64);
        for (index, count) in (side.offset..).zip(&side.counts) {
            let (low, high) = log_bounds(scale, index);
            // Logarithms of doubles are exact to 1e-13; a value that close to a bound may lie on either side.
            let (mut sure, mut possible) = (0, 0);
            for log in magnitudes.iter().map(|magnitude| magnitude.log2()) {
                sure += u64::from(log > low + 1e-12 && log < high - 1e-12);
                possible += u64::from(log > low - 1e-12 && log < high + 1e-12);
            }
            assert!((sure..=possible).contains(count), "bucket {index} of scale {scale}: {count}");
        }
    }

    fn check_all(values: &[f64]) -> Exponential {
        let histogram = of(values);
        let side = |sign: f64| -> Vec<f64> {
            values.iter().map(|value| value * sign).filter(|value| *value > 0.0).collect()
        };
        check(&histogram.positive, histogram.scale, &side(1.0));
        check(&histogram.negative, histogram.scale, &side(-1.0));
        assert_eq!(histogram.zeros, values.iter().filter(|value| **value == 0.0).count() as u64);
        assert!((-4..=20).contains(&histogram.scale), "scale {}", histogram.scale);
        histogram
    }

    #[test]
    fn one_value_has_a_fine_bucket_and_zero_its_own() {
        let histogram = of(&[0.0, 1.0, -0.0]);
        assert_eq!((histogram.scale, histogram.zeros), (20, 2));
        // 1 is an upper bound, so its bucket is the one that ends at it.
        assert_eq!(histogram.positive, Side { offset: -1, counts: [1].into() });
    }

    #[test]
    fn powers_of_two_are_upper_bounds_at_every_scale() {
        for scale in -4..=20 {
            for exponent in [-1022_i32, -64, -1, 0, 1, 2, 64, 1023] {
                let index = index(f64::from(exponent).exp2(), scale);
                let (low, high) = log_bounds(scale, index);
                assert!(low < f64::from(exponent) && f64::from(exponent) <= high, "2^{exponent} at {scale}");
            }
        }
    }

    #[test]
    fn the_widest_range_of_doubles_fits() {
        let histogram = check_all(&[f64::MAX, f64::from_bits(1), 1.0, -f64::MAX, -f64::from_bits(1)]);
        assert_eq!(histogram.scale, -4);
    }

    #[test]
    fn latencies_keep_a_useful_scale() {
        let values: Vec<f64> = (0..1000).map(|n| 0.001 * 1.011_f64.powi(n)).collect();
        assert_eq!(check_all(&values).scale, 3);
    }

    #[test]
    fn merging_tells_what_recording_at_the_lower_scale_would_have() {
        let near: Vec<f64> = (1..100).map(|n| 1.0 + f64::from(n) * 1e-5).collect();
        let (mut early, mut late) = (near.clone(), near);
        early.insert(0, 1e6);
        late.push(1e6);
        assert_eq!(of(&early), of(&late));
    }

    proptest! {
        #[test]
        fn any_doubles(values in proptest::collection::vec(proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO, 0..50)) {
            check_all(&values);
        }

        #[test]
        fn usual_values(values in proptest::collection::vec((0.0..1e4_f64, -9..3_i32).prop_map(|(value, power)| value * 10_f64.powi(power)), 0..300)) {
            check_all(&values);
        }
    }
}
