//! How many bytes go to the GPU for so many sequences or tokens: a straight line through what was seen, or a ratio.

use std::collections::VecDeque;

/// What was seen long ago counts less: a thousand observations later by two thirds.
const FADE: f64 = 0.999;

/// Observations that a line takes.
const ENOUGH: f64 = 8.0;

/// A least-squares line that follows what is seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line {
    count: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Line {
    /// Another observation.
    pub fn see(&mut self, x: f64, y: f64) {
        for (sum, value) in [
            (&mut self.count, 1.0),
            (&mut self.x, x),
            (&mut self.y, y),
            (&mut self.xx, x * x),
            (&mut self.xy, x * y),
        ] {
            *sum = sum.mul_add(FADE, value);
        }
    }

    /// Its height and slope; none while too little was seen.
    pub fn fit(&self) -> Option<(f64, f64)> {
        if self.count < ENOUGH {
            return None;
        }
        let spread = self.xx * self.count - self.x * self.x;
        let (height, slope) = if spread > 1e-6 * self.xx * self.count {
            let slope = (self.xy * self.count - self.x * self.y) / spread;
            ((self.y - slope * self.x) / self.count, slope)
        } else {
            // One number of sequences all the time: as if nothing went there for none.
            (0.0, self.y / self.x.max(1.0))
        };
        (slope > 0.0).then_some((height, slope))
    }
}

/// How much there is of one thing for one of another, following what is seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ratio {
    of: f64,
    to: f64,
}

impl Ratio {
    /// So much `of` for so much `to`.
    pub fn see(&mut self, of: f64, to: f64) {
        self.of = self.of.mul_add(FADE, of);
        self.to = self.to.mul_add(FADE, to);
    }

    /// None while nothing was seen.
    pub fn value(&self) -> Option<f64> {
        (self.to > 0.0).then(|| self.of / self.to)
    }
}

/// The newest values, of which a few may be wrong.
#[derive(Clone, Debug, Default)]
pub struct Usual(VecDeque<f64>);

impl Usual {
    const MOST: usize = 63;

    /// Another value.
    pub fn see(&mut self, value: f64) {
        if self.0.len() == Self::MOST {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// Their median; none while there are fewer than three.
    pub fn value(&self) -> Option<f64> {
        let mut sorted: Vec<f64> = self.0.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().filter(|_| sorted.len() >= 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_height_and_slope() {
        let mut line = Line::default();
        assert_eq!(line.fit(), None);
        for x in 1..40 {
            line.see(f64::from(x), 4.0 + 16.0 * f64::from(x));
        }
        let (height, slope) = line.fit().unwrap();
        assert!((height - 4.0).abs() < 1e-6 && (slope - 16.0).abs() < 1e-6, "{height} {slope}");
    }

    #[test]
    fn a_ratio_is_that_of_sums() {
        let mut ratio = Ratio::default();
        assert_eq!(ratio.value(), None);
        (1..50).for_each(|x| ratio.see(12.0 * f64::from(x), f64::from(x)));
        assert!((ratio.value().unwrap() - 12.0).abs() < 1e-9);
    }

    #[test]
    fn the_usual_is_not_moved_by_a_few() {
        let mut usual = Usual::default();
        usual.see(1.0);
        assert_eq!(usual.value(), None);
        for value in [12.0, 1000.0, 12.5] {
            usual.see(value);
        }
        assert_eq!(usual.value(), Some(12.5));
        (0..100).for_each(|_| usual.see(3.0));
        assert_eq!((usual.value(), usual.0.len()), (Some(3.0), Usual::MOST));
    }

    #[test]
    fn one_place_is_a_line_through_the_origin() {
        let mut line = Line::default();
        (0..20).for_each(|_| line.see(8.0, 128.0));
        assert_eq!(line.fit(), Some((0.0, 16.0)));
    }
}
