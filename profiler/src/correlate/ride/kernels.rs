//! A phase's GPU work by kernel, in a bounded table.

use crate::correlate::kernel::KernelKey;

/// Kernels that are kept by themselves; what comes beyond is added up.
const MOST: usize = 96;

/// What a phase had of one kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelShare {
    /// How often it ran in the iterations of the phase, whoever it ran for: graph nodes count.
    pub launches: u64,
    /// Iterations that it ran in.
    pub steps: u64,
    /// The phase's share of its GPU time, nanoseconds, estimated; 0 where nothing tells kernels' times apart.
    pub gpu_ns: u64,
    /// GPU time of all those launches, whoever they were for, nanoseconds; 0 likewise.
    pub whole_ns: u64,
    /// The shortest and the longest that one launch of it took on average in an iteration, nanoseconds, estimated.
    pub range_ns: (u64, u64),
}

/// What a phase had of each kernel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KernelShares {
    kernels: Vec<(KernelKey, KernelShare)>,
    /// Of kernels that found no room.
    pub other: KernelShare,
}

impl KernelShares {
    /// Adds what an iteration had of a kernel.
    pub fn add(&mut self, kernel: KernelKey, more: &KernelShare) {
        let known = self.kernels.iter().position(|(known, _)| *known == kernel);
        if known.is_none() && self.kernels.len() < MOST {
            return self.kernels.push((kernel, *more));
        }
        let sums =
            known.and_then(|index| Some(&mut self.kernels.get_mut(index)?.1)).unwrap_or(&mut self.other);
        sums.merge(more);
    }

    /// Adds all of another phase's.
    pub fn add_all(&mut self, others: &Self) {
        others.kernels.iter().for_each(|(kernel, share)| self.add(*kernel, share));
        self.other.merge(&others.other);
    }

    /// Each kernel's, the most GPU time first, then the most launches.
    #[must_use]
    pub fn ranked(&self) -> Vec<(KernelKey, KernelShare)> {
        let mut ranked = self.kernels.clone();
        ranked.sort_by_key(|(kernel, share)| {
            (std::cmp::Reverse((share.gpu_ns, share.launches)), kernel.pid, kernel.function)
        });
        ranked
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kernels.is_empty()
    }
}

impl KernelShare {
    /// Adds more of the same kernel.
    pub fn merge(&mut self, more: &Self) {
        let range = match (self.launches, more.launches) {
            (0, _) => more.range_ns,
            (_, 0) => self.range_ns,
            _ => (self.range_ns.0.min(more.range_ns.0), self.range_ns.1.max(more.range_ns.1)),
        };
        self.launches += more.launches;
        self.steps += more.steps;
        self.gpu_ns += more.gpu_ns;
        self.whole_ns += more.whole_ns;
        self.range_ns = range;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(launches: u64, gpu_ns: u64, each_ns: u64) -> KernelShare {
        KernelShare { launches, steps: 1, gpu_ns, whole_ns: 2 * gpu_ns, range_ns: (each_ns, each_ns) }
    }

    #[test]
    fn the_table_is_bounded_and_loses_nothing() {
        let mut shares = KernelShares::default();
        for function in 0..200 {
            for each in [5, 3, 9] {
                shares.add(KernelKey { pid: 1, function }, &share(2, function, each));
            }
        }
        let ranked = shares.ranked();
        assert_eq!(ranked.len(), MOST);
        assert_eq!(ranked[0].0.function, MOST as u64 - 1);
        assert_eq!(
            ranked[0].1,
            KernelShare { launches: 6, steps: 3, gpu_ns: 285, whole_ns: 570, range_ns: (3, 9) }
        );
        let launches: u64 = ranked.iter().map(|(_, share)| share.launches).sum();
        assert_eq!(launches + shares.other.launches, 1200);
    }
}
