//! Sums since the attach: what the summary and the metrics are made of.

use super::beyond::Forgotten;
use super::count::direction;
use super::failure::Failures;
use super::kernel::KernelKey;
use super::operation::Ignored;
use super::ride::TimeClass;
use super::step::{Step, Work};
use crate::probe::{self, Meaning};
use profiler_common::event::{Count, CountKey, counted};
use std::collections::BTreeMap;

/// Kernels counted by themselves; launches of further ones are counted together.
pub const MOST_KERNELS: usize = 20_000;

/// Running totals.
#[derive(Clone, Debug)]
pub struct Totals {
    calls: Vec<u64>,
    ignored: BTreeMap<Ignored, u64>,
    /// Events that became part of an operation, a request or a process's life.
    pub joined: u64,
    /// Requests under way when the observation ended.
    pub pending: u64,
    /// GPU work of closed steps. Its `kernels` are bounded by [`MOST_KERNELS`].
    pub work: Work,
    /// Launches of kernels beyond the bound.
    pub uncounted_kernels: u64,
    /// Closed steps.
    pub steps: u64,
    /// GPU time of closed steps at least, nanoseconds.
    pub gpu_lo_ns: u64,
    /// GPU time of closed steps at most, nanoseconds.
    pub gpu_hi_ns: u64,
    /// GPU time of closed steps, the best that is known, nanoseconds.
    pub gpu_ns: u64,
    /// Of it, what was measured.
    pub gpu_measured_ns: u64,
    /// Launches recorded into graphs by processes that are gone.
    pub captured_launches: u64,
    /// What was counted in the kernel instead of sent.
    pub counted: Counted,
    /// Collectives and messages between devices, by function: count and bytes.
    pub collectives: BTreeMap<u16, (u64, u64)>,
    /// Calls that failed.
    pub failures: Failures,
    /// Batches of copies of which only a part of the bytes is known.
    pub cut_batches: u64,
    /// What tables of processes that are gone had to forget.
    pub forgotten: Forgotten,
}

/// Calls that were counted in the kernel instead of sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counted {
    /// Launches and copies.
    pub own: u64,
    /// The driver's halves of runtime calls.
    pub nested: u64,
    /// Queries that were answered "not ready".
    pub not_ready: u64,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            calls: vec![0; probe::CATALOG.len()],
            ignored: BTreeMap::new(),
            joined: 0,
            pending: 0,
            work: Work::default(),
            uncounted_kernels: 0,
            steps: 0,
            gpu_lo_ns: 0,
            gpu_hi_ns: 0,
            gpu_ns: 0,
            gpu_measured_ns: 0,
            captured_launches: 0,
            counted: Counted::default(),
            collectives: BTreeMap::new(),
            failures: Failures::default(),
            cut_batches: 0,
            forgotten: Forgotten::default(),
        }
    }
}

impl Totals {
    pub(super) fn calls_of(&mut self, api: u16, calls: u64) {
        if let Some(count) = self.calls.get_mut(usize::from(api)) {
            *count += calls;
        }
    }

    pub(super) fn collective(&mut self, api: u16, bytes: u64) {
        let (count, sum) = self.collectives.entry(api).or_default();
        *count += 1;
        *sum += bytes;
    }

    /// Takes what the kernel side has counted since the last time.
    pub(super) fn counted(&mut self, key: &CountKey, more: &Count) {
        self.calls_of(key.api, more.count);
        match key.detail {
            counted::OWN => self.counted.own += more.count,
            counted::NESTED => return self.counted.nested += more.count,
            _ => return self.counted.not_ready += more.count,
        }
        match probe::api(key.api).map(|api| api.meaning) {
            Some(Meaning::Launch) => {
                self.work.launches += more.count;
                let kernel = KernelKey { pid: key.tgid, function: key.function };
                self.add_kernel(kernel, more.count, 0);
            }
            Some(Meaning::Copy { way, .. }) => {
                if let Some(sums) = self.work.copies.get_mut(direction(way, key) as usize) {
                    sums.0 += more.count;
                    sums.1 += more.bytes;
                }
            }
            _ => {}
        }
    }

    pub(super) fn ignored(&mut self, reason: Ignored) {
        *self.ignored.entry(reason).or_default() += 1;
    }

    pub(super) fn step(&mut self, step: &Step) {
        let (lo, hi) = step.gpu_bounds_ns();
        self.steps += 1;
        self.gpu_lo_ns += lo;
        self.gpu_hi_ns += hi;
        self.gpu_ns += step.gpu_ns;
        self.gpu_measured_ns += if step.class == TimeClass::Measured { step.gpu_ns } else { 0 };
        self.add_work(&step.work);
    }

    fn add_work(&mut self, work: &Work) {
        self.work.add_counts(work);
        // What was counted in the kernel comes by kernel, not by step.
        self.work.launches -= work.counted_launches;
        for (kernel, (direct, nodes)) in &work.kernels {
            self.add_kernel(*kernel, *direct, *nodes);
        }
    }

    fn add_kernel(&mut self, kernel: KernelKey, direct: u64, nodes: u64) {
        let kernels = &mut self.work.kernels;
        if kernels.len() >= MOST_KERNELS && !kernels.contains_key(&kernel) {
            self.uncounted_kernels += direct + nodes;
            return;
        }
        let counts = kernels.entry(kernel).or_default();
        counts.0 += direct;
        counts.1 += nodes;
    }

    /// Calls as made, by function, those that were made. Of a function whose arguments differ between versions of its
    /// library, those of all versions.
    pub fn calls(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let mut calls: BTreeMap<&'static str, u64> = BTreeMap::new();
        for (api, count) in probe::CATALOG.iter().zip(&self.calls).filter(|(_, count)| **count > 0) {
            *calls.entry(api.symbol).or_default() += count;
        }
        calls.into_iter()
    }

    /// Calls that became nothing of their own, with the reason.
    pub fn ignored_by_reason(&self) -> impl Iterator<Item = (Ignored, u64)> {
        Ignored::ALL.into_iter().map(|reason| (reason, self.ignored.get(&reason).copied().unwrap_or(0)))
    }
}
