//! Kernels of an iteration as one thing: engines run the same few mixes again and again, so a request's ride is told by
//! how often it rode in each.

use super::kernels::{KernelShare, KernelShares};
use crate::correlate::kernel::KernelKey;
use crate::correlate::step::Work;
use std::collections::HashSet;
use std::sync::Arc;

/// Mixes that are known at once; then all are forgotten, and found again. An engine has one for each batch size.
const MOST_MIXES: usize = 4096;

/// Mixes that a phase keeps apart; then they are added up by kernel.
const MOST_APART: usize = 32;

/// Kernels and how often each ran.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Mix {
    kernels: Vec<(KernelKey, u64)>,
    /// It is one kernel and nothing else: its time is the step's.
    alone: bool,
}

/// The mixes that are known.
#[derive(Debug, Default)]
pub struct Mixes {
    known: HashSet<Arc<Mix>>,
    /// Those that were known and had to go.
    pub forgotten: u64,
}

impl Mixes {
    /// The mix of a piece of work.
    pub fn of(&mut self, work: &Work) -> Arc<Mix> {
        let sums = work.kernels.iter().map(|(kernel, (direct, nodes))| (*kernel, direct + nodes));
        let mut kernels: Vec<_> = sums.collect();
        kernels.sort_unstable_by_key(|(kernel, _)| (kernel.pid, kernel.function));
        let mix = Mix { kernels, alone: work.only_kernel().is_some() };
        if let Some(known) = self.known.get(&mix) {
            return Arc::clone(known);
        }
        if self.known.len() >= MOST_MIXES {
            self.forgotten += self.known.len() as u64;
            self.known.clear();
        }
        let mix = Arc::new(mix);
        self.known.insert(Arc::clone(&mix));
        mix
    }
}

/// How often a phase rode in each mix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rides {
    apart: Vec<(Arc<Mix>, Sums)>,
    added: KernelShares,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    steps: u64,
    gpu_ns: u64,
    whole_ns: u64,
    /// The whole step's, at least and at most.
    range_ns: (u64, u64),
}

impl Rides {
    /// Another ride, with its share of the GPU time and that of the whole iteration.
    pub fn add(&mut self, mix: &Arc<Mix>, gpu_ns: u64, whole_ns: u64) {
        if let Some((_, sums)) = self.apart.iter_mut().rev().find(|(known, _)| Arc::ptr_eq(known, mix)) {
            sums.steps += 1;
            sums.gpu_ns += gpu_ns;
            sums.whole_ns += whole_ns;
            sums.range_ns = (sums.range_ns.0.min(whole_ns), sums.range_ns.1.max(whole_ns));
            return;
        }
        if self.apart.len() >= MOST_APART {
            let (mix, sums) = self.apart.remove(0);
            add_up(&mut self.added, &mix, &sums);
        }
        self.apart
            .push((Arc::clone(mix), Sums { steps: 1, gpu_ns, whole_ns, range_ns: (whole_ns, whole_ns) }));
    }

    /// By kernel.
    #[must_use]
    pub fn kernels(&self) -> KernelShares {
        let mut shares = self.added.clone();
        self.apart.iter().for_each(|(mix, sums)| add_up(&mut shares, mix, sums));
        shares
    }
}

fn add_up(shares: &mut KernelShares, mix: &Mix, sums: &Sums) {
    for (kernel, launches) in &mix.kernels {
        let each = |whole: u64| if mix.alone { whole / launches.max(&1) } else { 0 };
        let share = KernelShare {
            launches: launches * sums.steps,
            steps: sums.steps,
            gpu_ns: if mix.alone { sums.gpu_ns } else { 0 },
            whole_ns: if mix.alone { sums.whole_ns } else { 0 },
            range_ns: (each(sums.range_ns.0), each(sums.range_ns.1)),
        };
        shares.add(*kernel, &share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(kernels: &[(u64, u64)]) -> Work {
        let key = |function| KernelKey { pid: 1, function };
        Work {
            launches: kernels.iter().map(|(_, launches)| launches).sum(),
            kernels: kernels.iter().map(|(function, launches)| (key(*function), (*launches, 0))).collect(),
            ..Work::default()
        }
    }

    #[test]
    fn rides_add_up_by_kernel_whatever_the_mixes() {
        let (mut mixes, mut rides) = (Mixes::default(), Rides::default());
        for round in 0..200 {
            let mix = mixes.of(&work(&[(1, 2), (2 + round % 50, 1)]));
            rides.add(&mix, 10, 30);
        }
        let ranked = rides.kernels().ranked();
        let launches = |function| ranked.iter().find(|(kernel, _)| kernel.function == function).unwrap().1;
        assert_eq!((launches(1).launches, launches(1).steps, launches(1).gpu_ns), (400, 200, 0));
        assert_eq!((launches(7).launches, launches(7).steps), (4, 4));
    }

    #[test]
    fn mixes_without_end_are_forgotten_and_nothing_is_lost() {
        let (mut mixes, mut rides) = (Mixes::default(), Rides::default());
        for round in 0..10_000 {
            rides.add(&mixes.of(&work(&[(1, 1 + round)])), 1, 1);
        }
        assert!(mixes.known.len() <= MOST_MIXES && rides.apart.len() <= MOST_APART);
        assert_eq!(mixes.forgotten + mixes.known.len() as u64, 10_000);
        let share = rides.kernels().ranked()[0].1;
        assert_eq!((share.steps, share.launches, share.gpu_ns), (10_000, 50_005_000, 10_000));
    }

    #[test]
    fn the_time_of_a_kernel_alone_is_its_steps() {
        let (mut mixes, mut rides) = (Mixes::default(), Rides::default());
        let mix = mixes.of(&work(&[(1, 4)]));
        rides.add(&mix, 10, 40);
        rides.add(&mix, 30, 80);
        let share = rides.kernels().ranked()[0].1;
        assert_eq!((share.gpu_ns, share.range_ns, share.launches), (40, (10, 20), 8));
    }
}
