//! How long the GPU worked for a step: from the end of a wait that blocked, or from what pieces took in steps before.

use super::Step;
use super::fifo::{Fifo, union_ns};
use crate::correlate::ride::TimeClass;
use std::collections::HashMap;

/// A wait that took longer than this was for the GPU; a shorter one found the work done, and says only that it was.
pub(super) const BLOCKED_NS: u64 = 20_000;

/// From the end of the work to the return of the wait: 4 to 6 µs on an H100 with CPUs free (docs/gpu.md).
const RETURN_NS: u64 = 5_000;

/// Less by this part is still as much.
const IN_TIME: u64 = 16;

/// The newest step counts for this part of what is remembered.
const NEWEST: u64 = 8;

/// Streams that are told apart: what one does differs from what another does, as kernels from copies.
const MOST_STREAMS: usize = 256;

/// How long pieces took in steps whose end is known, by stream.
#[derive(Debug, Default)]
pub struct Pace {
    /// Nanoseconds for a unit of weight, times 256.
    pieces: HashMap<u64, u64>,
}

impl Pace {
    /// A wait ended the step, and `beside` it what the same thread had sent to other streams.
    pub fn learn(&mut self, step: &mut Step, beside: &[(Fifo, u64)]) {
        let pieces = step.work.weight().max(1);
        self.was_in_time(step, pieces);
        if step.blocked_ns.is_none_or(|blocked| blocked < BLOCKED_NS) {
            // The last piece was done at the latest when the wait returned, which bounds what one takes.
            let most = step.sent.busy_ns(pieces, step.end_ns, step.floor_ns);
            return self.guess_below(step, most);
        }
        let busy = step.sent.busy_ns(
            pieces,
            step.end_ns.saturating_sub(RETURN_NS),
            step.floor_ns.saturating_sub(RETURN_NS),
        );
        // What another stream of the thread was waited for with has had the time, and says nothing.
        if step.contested_ns == 0 && step.floor_ns < step.end_ns {
            self.teach(step.stream, busy, pieces);
        }
        // The streams took turns, or ran at the same time, as their pieces were sent. What one with little else than
        // copies took says nothing of the others.
        let is_main = !beside.is_empty() && beside.iter().all(|(_, other)| *other <= pieces);
        let streams = beside.iter().map(|(sent, pieces)| (sent, *pieces)).chain([(&step.sent, pieces)]);
        let all = union_ns(streams, (busy, pieces), step.floor_ns.saturating_sub(RETURN_NS));
        let most = step.end_ns.saturating_sub(step.start_ns);
        step.settle(if is_main { all.min(most) } else { busy }, TimeClass::Bounded);
    }

    /// Pieces of this weight kept a stream busy for so long.
    pub fn teach(&mut self, stream: u64, busy_ns: u64, weight: u64) {
        let now = busy_ns.saturating_mul(256) / weight.max(1);
        if self.pieces.len() == MOST_STREAMS && !self.pieces.contains_key(&stream) {
            self.pieces.clear();
        }
        let piece = self.pieces.entry(stream).or_insert(now);
        *piece = *piece - *piece / NEWEST + now / NEWEST;
    }

    /// A step that has as much time to itself as its pieces take began hardly before the wait for the one ahead of it
    /// returned.
    fn was_in_time(&self, step: &mut Step, pieces: u64) {
        let usual = self.pieces.get(&step.stream).map(|piece| piece.saturating_mul(pieces) / 256);
        if let Some(usual) = usual.filter(|usual| step.own_bounds_ns().1 >= usual - usual / IN_TIME) {
            step.early_ns = step.early_ns.min(2 * usual / IN_TIME);
        }
    }

    /// Nothing tells when the step's work ended.
    pub fn guess(&self, step: &mut Step) {
        self.guess_below(step, u64::MAX);
    }

    fn guess_below(&self, step: &mut Step, most: u64) {
        let (lo, hi) = step.own_bounds_ns();
        let busy = match self.pieces.get(&step.stream) {
            Some(piece) => piece.saturating_mul(step.work.weight()) / 256,
            None => lo.midpoint(hi),
        };
        step.settle(busy.min(most), TimeClass::Estimated);
    }
}

impl Step {
    /// Says how long the GPU worked for it, within its bounds. Where other threads had work under way, each step has
    /// half of the time in which the GPU worked for both: of theirs it worked as constantly as of this, as far as is known.
    fn settle(&mut self, busy_ns: u64, class: TimeClass) {
        let (lo, hi) = self.own_bounds_ns();
        let whole = self.end_ns.saturating_sub(self.start_ns).max(1);
        let constantly = (busy_ns as f64 / whole as f64).min(1.0);
        let both_ns = (self.contested_ns as f64 * constantly * constantly) as u64;
        self.gpu_ns = busy_ns.saturating_sub(both_ns / 2).clamp(lo, hi);
        self.class = if lo == hi { TimeClass::Bounded } else { class };
    }
}
