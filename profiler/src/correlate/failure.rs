//! Calls that failed: by function and error, and what was asked for when memory ran out.

use super::Engine;
use crate::decode::{CallData, GpuCall};
use crate::probe::error;
use std::collections::{BTreeMap, VecDeque};

/// Failed calls since the attach.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    by_error: BTreeMap<(u16, i64), u64>,
    /// Failed calls whose error found no row of its own.
    pub unlisted: u64,
    /// The last times memory ran out, oldest first.
    pub out_of_memory: VecDeque<OutOfMemory>,
    /// How often it ran out.
    pub times_out_of_memory: u64,
}

/// An allocation that found no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Process.
    pub pid: u32,
    /// Index into the probe catalogue.
    pub api: u16,
    /// What was asked for, bytes.
    pub bytes: u64,
    /// On which device, if known.
    pub device: Option<u32>,
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
}

/// Functions and errors: a function has a few, unless its result is no error code.
const MOST_ERRORS: usize = 4096;

/// Of a program that retries for ever the newest are kept.
const KEPT: usize = 64;

impl Failures {
    /// A call failed.
    pub fn add(&mut self, api: u16, result: i64) {
        if self.by_error.len() >= MOST_ERRORS && !self.by_error.contains_key(&(api, result)) {
            self.unlisted += 1;
            return;
        }
        *self.by_error.entry((api, result)).or_default() += 1;
    }

    /// An allocation failed; kept when it was for want of memory.
    pub fn allocation(&mut self, result: i64, failed: OutOfMemory) {
        if result != error::OUT_OF_MEMORY {
            return;
        }
        self.times_out_of_memory += 1;
        if self.out_of_memory.len() == KEPT {
            self.out_of_memory.pop_front();
        }
        self.out_of_memory.push_back(failed);
    }

    /// How often each function failed with each result.
    pub fn counts(&self) -> impl Iterator<Item = (u16, i64, u64)> {
        self.by_error.iter().map(|((api, result), count)| (*api, *result, *count))
    }
}

impl Engine {
    /// A call that failed, if it did.
    pub(super) fn failure(&mut self, call: &GpuCall) {
        if let CallData::Failed { result } | CallData::Returned { result, .. } = call.data
            && result != 0
        {
            self.totals.failures.add(call.api, result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_that_are_no_error_codes_find_an_end() {
        let mut failures = Failures::default();
        (0..10_000).for_each(|result| failures.add(1, result));
        failures.add(1, 5);
        let counts: u64 = failures.counts().map(|(_, _, count)| count).sum();
        assert_eq!((failures.counts().count(), counts + failures.unlisted), (MOST_ERRORS, 10_001));
    }
}
