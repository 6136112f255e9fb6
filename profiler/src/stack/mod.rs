//! CPU stacks of a sample of the launches: who launches what.
//!
//! In: return addresses from the kernel. Out: distinct stacks with their counts, and their names, looked up while the
//! process lives. Frames without frame pointers are missing from a stack; nothing is made up for them.

mod symbolize;

pub use symbolize::Symbolizer;

use crate::correlate::KernelKey;
use crate::decode;
use std::collections::HashMap;
use std::sync::Arc;

/// A distinct stack of a process, and what was launched from it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sample {
    /// What was launched.
    pub kernel: KernelKey,
    /// Return addresses, innermost first; the first is the probed function.
    pub frames: Arc<[u64]>,
}

/// Stacks since the attach.
#[derive(Debug, Default)]
pub struct Stacks {
    samples: HashMap<Sample, u64>,
    /// Met since the last look.
    fresh: Vec<Sample>,
    /// Samples of further stacks, counted together.
    pub beyond: u64,
}

/// Distinct stacks that are kept: at 64 frames each 4 MiB.
const MOST: usize = 8192;

impl Stacks {
    /// Takes a stack of process `pid`.
    pub fn add(&mut self, pid: u32, stack: decode::Stack) {
        let kernel = KernelKey { pid, function: stack.function };
        let sample = Sample { kernel, frames: stack.frames.into() };
        if let Some(count) = self.samples.get_mut(&sample) {
            *count += 1;
        } else if self.samples.len() < MOST {
            self.fresh.push(sample.clone());
            self.samples.insert(sample, 1);
        } else {
            self.beyond += 1;
        }
    }

    /// The stacks met since the last call, to be named while their process lives.
    pub fn take_fresh(&mut self) -> Vec<Sample> {
        std::mem::take(&mut self.fresh)
    }

    /// All stacks with their counts, the most frequent first.
    #[must_use]
    pub fn counts(&self) -> Vec<(&Sample, u64)> {
        let mut all: Vec<_> = self.samples.iter().map(|(sample, count)| (sample, *count)).collect();
        all.sort_unstable_by(|(a, more), (b, less)| less.cmp(more).then_with(|| a.cmp(b)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(function: u64, frames: &[u64]) -> decode::Stack {
        decode::Stack { api: 0, function, caller: 0, frames: frames.to_vec() }
    }

    #[test]
    fn equal_stacks_are_one() {
        let mut stacks = Stacks::default();
        for frames in [&[1, 2][..], &[1, 2], &[1, 3]] {
            stacks.add(7, stack(9, frames));
        }
        let counts: Vec<_> =
            stacks.counts().into_iter().map(|(s, count)| (s.frames.to_vec(), count)).collect();
        assert_eq!(counts, [(vec![1, 2], 2), (vec![1, 3], 1)]);
        assert_eq!(stacks.take_fresh().len(), 2);
        assert!(stacks.take_fresh().is_empty());
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut stacks = Stacks::default();
        for frame in 0..MOST as u64 + 5 {
            stacks.add(7, stack(9, &[frame]));
        }
        assert_eq!((stacks.counts().len(), stacks.beyond), (MOST, 5));
    }
}
