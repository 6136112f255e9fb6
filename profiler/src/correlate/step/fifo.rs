//! When the pieces of a step were sent, and how long each took if all took the same.
//!
//! A stream runs its pieces one after the other, each as soon as it is there and the one before it is done. So when the
//! last piece is done at a known time, the pieces from any one on had at least the time since it was sent: with all
//! pieces alike, the tightest of these says how long one took, and how long all of them kept the GPU busy. A piece that
//! takes longer than others counts as several of them that are sent at once.

use super::spans::covered;

/// Moments that are kept of a step; beyond, every second one goes, which loosens the answer a little.
const MOST: usize = 256;

/// When pieces were sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fifo {
    /// When, and how many pieces had been sent before.
    moments: Vec<(u64, u64)>,
}

impl Fifo {
    /// A piece was sent at a time, after `before` others.
    pub fn push(&mut self, time_ns: u64, before: u64) {
        if self.moments.len() == MOST {
            let mut index = 0;
            self.moments.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
        self.moments.push((time_ns, before));
    }

    /// What was sent later, after `before` pieces of this.
    pub fn append(&mut self, later: &Self, before: u64) {
        later.moments.iter().for_each(|(time_ns, index)| self.push(*time_ns, before + index));
    }

    /// Pieces from `first` on, so many.
    pub fn part(&self, first: u64, pieces: u64) -> Self {
        let is_in = |(_, before): &&(u64, u64)| (first..first + pieces.max(1)).contains(before);
        let moments = self.moments.iter().filter(is_in);
        Self { moments: moments.map(|(time_ns, before)| (*time_ns, before - first)).collect() }
    }

    /// When the first of it was sent.
    pub fn first_ns(&self) -> Option<u64> {
        self.moments.first().map(|(time_ns, _)| *time_ns)
    }

    /// Nothing was sent.
    pub fn is_empty(&self) -> bool {
        self.moments.is_empty()
    }

    /// How long `pieces` pieces that are done at `end_ns` kept the GPU busy, nanoseconds, if each took the same. Until
    /// `floor_ns` it was busy with what was sent before.
    pub fn busy_ns(&self, pieces: u64, end_ns: u64, floor_ns: u64) -> u64 {
        self.tightest(pieces, end_ns, floor_ns).0
    }

    /// The same, and how many pieces had been sent before the one that the GPU waited for last.
    pub fn tightest(&self, pieces: u64, end_ns: u64, floor_ns: u64) -> (u64, u64) {
        let busy = |(sent_ns, before): &(u64, u64)| {
            let rest = pieces.saturating_sub(*before).max(1);
            let busy = u128::from(end_ns.saturating_sub((*sent_ns).max(floor_ns)))
                * u128::from(pieces.max(1))
                / u128::from(rest);
            (u64::try_from(busy).unwrap_or(u64::MAX), *before)
        };
        self.moments.iter().map(busy).min().unwrap_or_default()
    }
}

/// How long the GPU is busy with streams that run beside each other, where each has this many pieces and a piece takes
/// `busy_ns` for `of` of them.
pub fn union_ns<'a>(
    streams: impl Iterator<Item = (&'a Fifo, u64)>,
    (busy_ns, of): (u64, u64),
    floor_ns: u64,
) -> u64 {
    let mut spans = Vec::new();
    for (fifo, pieces) in streams {
        let mut free_ns = floor_ns;
        let ends = fifo.moments.iter().skip(1).map(|(_, before)| *before).chain([pieces]);
        for ((sent_ns, before), end) in fifo.moments.iter().zip(ends) {
            let took = u128::from(end.saturating_sub(*before)) * u128::from(busy_ns) / u128::from(of.max(1));
            let start_ns = free_ns.max(*sent_ns);
            free_ns = start_ns.saturating_add(u64::try_from(took).unwrap_or(u64::MAX));
            spans.push((start_ns, free_ns));
        }
    }
    covered(&mut spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The end of the last of pieces that take `each_ns`, sent at these times.
    fn end(sent: &[u64], each_ns: u64) -> u64 {
        sent.iter().fold(0, |free, at| free.max(*at) + each_ns)
    }

    proptest! {
        #[test]
        fn pieces_that_take_the_same_are_told_exactly(
            gaps in prop::collection::vec(0u64..50, 1..200), each_ns in 1u64..200
        ) {
            let mut fifo = Fifo::default();
            let sent: Vec<u64> = gaps.iter().scan(1000, |at, gap| { *at += gap; Some(*at) }).collect();
            for (before, at) in (0..).zip(&sent) {
                fifo.push(*at, before);
            }
            let pieces = sent.len() as u64;
            prop_assert_eq!(fifo.busy_ns(pieces, end(&sent, each_ns), 0), pieces * each_ns);
        }

        #[test]
        fn what_was_sent_behind_other_work_began_after_it(
            count in 1u64..50, each_ns in 1u64..200, floor_ns in 1000u64..2000
        ) {
            let mut fifo = Fifo::default();
            (0..count).for_each(|before| fifo.push(900, before));
            prop_assert_eq!(fifo.busy_ns(count, floor_ns + count * each_ns, floor_ns), count * each_ns);
        }

        #[test]
        fn a_stream_beside_another_is_busy_once(gap in 1u64..90, each_ns in 50u64..60, count in 1u64..50) {
            let fifo = |from: u64| {
                let mut fifo = Fifo::default();
                (0..count).for_each(|before| fifo.push(from + before * gap, before));
                fifo
            };
            let (one, other) = (fifo(1000), fifo(1000 + gap / 2));
            let alone = union_ns([(&one, count)].into_iter(), (each_ns * count, count), 0);
            prop_assert_eq!(alone, each_ns * count);
            let both = union_ns([(&one, count), (&other, count)].into_iter(), (each_ns * count, count), 0);
            prop_assert!(both >= alone && both <= 2 * alone, "{} {}", both, alone);
            // One always runs where each begins before the other ends.
            let all = (gap / 2 < each_ns && gap - gap / 2 < each_ns).then(|| {
                end(&(0..count).map(|at| 1000 + gap / 2 + at * gap).collect::<Vec<_>>(), each_ns) - 1000
            });
            prop_assert!(all.is_none_or(|all| all == both), "{:?} {}", all, both);
        }

        #[test]
        fn thinned_out_it_says_no_less(count in 300u64..3000, gap in 0u64..9, each_ns in 1u64..20) {
            let mut fifo = Fifo::default();
            let sent: Vec<u64> = (0..count).map(|index| index * gap).collect();
            for (before, at) in (0..).zip(&sent) {
                fifo.push(*at, before);
            }
            let busy = fifo.busy_ns(count, end(&sent, each_ns), 0);
            prop_assert!(fifo.moments.len() <= MOST && busy >= count * each_ns, "{}", busy);
        }
    }
}
