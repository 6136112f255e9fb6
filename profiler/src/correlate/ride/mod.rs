//! What riding in steps did for a request: its shares of GPU work by phase, and why its time passed as it did.
//!
//! In: settled [`Iteration`]s, one after the other. Out: one [`Ride`] a request. Sums are preserved: what all riders of
//! an iteration have, and what nobody has, is the iteration.

mod align;
mod board;
mod course;
mod guess;
mod habits;
mod idle;
mod kernels;
mod line;
mod mix;
mod share;
mod split;
mod stated;
#[cfg(test)]
mod tests;
mod whose;

pub use board::{Board, BoardCounts, Guestbook, LAG_NS, LEARNING_NS};
pub use course::Seat;
pub use guess::{Passenger, Sizes};
pub use idle::GpuTimes;
pub use kernels::{KernelShare, KernelShares};
pub use share::{Share, TimeClass};

use super::context::Origin;
use super::request::Owner;
use super::step::{Step, Work};
use crate::evidence::Evidence;
use crate::probe::Direction;
use crate::server::said::{EngineStep, Inner, Part};
use mix::Mix;
use std::sync::Arc;

/// One iteration of an engine, with what it did on the GPU. Times are `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Iteration {
    /// Its number in this observation, from 1; names it in spans.
    pub id: u64,
    /// Who told of it: an adapter, or `generic` where GPU work and answers alone show it.
    pub adapter: &'static str,
    /// The same among those who speak.
    pub(super) speaker: usize,
    /// Process.
    pub pid: u32,
    /// What was told.
    pub step: EngineStep,
    /// What it did on the GPU; none where no GPU work belongs to it.
    pub gpu: Option<Box<GpuWork>>,
    /// Who rode in it, with their shares.
    pub riders: Vec<Rider>,
    /// What of its GPU work is nobody's.
    pub unattributed: Share,
}

#[cfg(test)]
impl Iteration {
    /// An iteration that an adapter told, without any GPU work.
    pub(crate) fn for_test(id: u64, step: EngineStep) -> Self {
        let (riders, unattributed) = (Vec::new(), Share::default());
        Self { id, adapter: "vllm", speaker: 0, pid: 1, step, gpu: None, riders, unattributed }
    }
}

/// GPU work of an iteration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuWork {
    /// First operation.
    pub start_ns: u64,
    /// Return of the last wait for it.
    pub end_ns: u64,
    /// All of it.
    pub whole: Share,
    /// What it consisted of.
    pub work: Work,
    /// The same by process, thread and device: more than one where several worked for the iteration.
    pub pieces: Vec<Piece>,
    /// What those who sent it worked for.
    pub origin: Origin,
}

/// What one thread had on one device in an iteration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Process.
    pub pid: u32,
    /// Thread that sent it.
    pub tid: u32,
    /// Device, where it is known: its ordinal in the process.
    pub device: Option<u32>,
    /// First operation, or the end of what the thread had sent there before.
    pub from_ns: u64,
    /// Return of the last wait for it.
    pub end_ns: u64,
    /// All of it.
    pub whole: Share,
    /// Bytes that went to the GPU.
    inputs: u64,
    /// It is other work than what the thread had there before.
    is_news: bool,
}

/// Who rode in an iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rider {
    /// Which request.
    pub who: Who,
    /// What the iteration did for it.
    pub part: Part,
    /// Its tokens that the iteration processed: its weight.
    pub tokens: u32,
    /// Its share.
    pub share: Share,
    /// How sure it is that it rode.
    pub evidence: Evidence,
}

/// A request, from outside or inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// A request of a connection.
    Request(Owner),
    /// A request inside the server of [`Iteration::adapter`]; a request from outside has it among its
    /// [`Sequence`](super::Sequence)s once both are joined.
    Inner(Inner),
}

/// What riding did for a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ride {
    /// Up to its first token.
    pub prefill: Phase,
    /// After it.
    pub decode: Phase,
    /// Start of the first iteration that it rode in.
    pub first_step_ns: Option<u64>,
    /// End of the last.
    pub last_step_ns: Option<u64>,
    /// End of the one that made its first token, where that was seen to be followed by more.
    pub first_made_ns: Option<u64>,
    /// While it was queued, how long iterations computed prompts of others, nanoseconds.
    pub queued_behind_ns: u64,
    /// While it decoded, how much longer iterations took because of prompts of others, nanoseconds.
    pub stretched_ns: u64,
    /// Between iterations that it rode in, how long the GPU waited for the CPU, nanoseconds: before its first token,
    /// and after it.
    pub gap_ns: (u64, u64),
    /// Weakest evidence of its edges to iterations; none without any.
    pub evidence: Option<Evidence>,
}

/// GPU work of a phase of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Phase {
    /// Its share.
    pub share: Share,
    /// Copies of its iterations by direction, whoever they were for: count and bytes, in the order of
    /// [`Direction::ALL`](crate::probe::Direction::ALL).
    pub copies: [(u64, u64); 5],
    /// By kernel, once it is over.
    pub kernels: KernelShares,
    /// By mix of kernels, while it goes on.
    rides: mix::Rides,
}

impl GpuWork {
    /// The work of a step.
    fn of(step: &Step) -> Self {
        let whole = Share::whole(step);
        let inputs = step.work.copies.get(Direction::HtoD as usize).map_or(0, |(_, bytes)| *bytes);
        let from_ns = step.start_ns.max(step.floor_ns.min(step.end_ns));
        let Step { pid, tid, device, start_ns, end_ns, .. } = *step;
        let pieces = vec![Piece { pid, tid, device, from_ns, end_ns, whole, inputs, is_news: false }];
        Self { start_ns, end_ns, whole, work: step.work.clone(), pieces, origin: step.origin }
    }

    /// More work of the same iteration.
    fn add(&mut self, other: Self) {
        self.start_ns = self.start_ns.min(other.start_ns);
        self.end_ns = self.end_ns.max(other.end_ns);
        self.whole.add_to_step(&other.whole);
        self.work.merge(other.work);
        self.origin = self.origin.and(other.origin);
        for piece in other.pieces {
            match self.pieces.iter_mut().find(|known| known.lane() == piece.lane()) {
                Some(known) => known.add(&piece),
                None => self.pieces.push(piece),
            }
        }
    }

    /// When the first of its lanes was free for it.
    fn begin_ns(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.from_ns).min().unwrap_or(self.start_ns)
    }

    /// Its process: of several that of the lowest id.
    fn pid(&self) -> u32 {
        self.pieces.iter().map(|piece| piece.pid).min().unwrap_or(0)
    }

    /// The same by process and device, in their order.
    #[must_use]
    pub fn devices(&self) -> Vec<Piece> {
        let mut devices: Vec<Piece> = Vec::new();
        for piece in &self.pieces {
            let is_there = |known: &&mut Piece| known.pid == piece.pid && known.device == piece.device;
            match devices.iter_mut().find(is_there) {
                Some(known) => known.add(piece),
                None => devices.push(*piece),
            }
        }
        devices.sort_unstable_by_key(|piece| (piece.pid, piece.device));
        devices
    }

    /// How much later the last of its devices was done than the first, as their waits say, nanoseconds.
    #[must_use]
    pub fn skew_ns(&self) -> u64 {
        let devices = self.devices();
        let ends = || devices.iter().map(|device| device.end_ns);
        ends().max().unwrap_or(0) - ends().min().unwrap_or(0)
    }
}

impl Piece {
    fn lane(&self) -> align::Lane {
        (self.pid, self.tid, self.device)
    }

    fn add(&mut self, other: &Self) {
        self.from_ns = self.from_ns.min(other.from_ns);
        self.end_ns = self.end_ns.max(other.end_ns);
        self.whole.add_to_step(&other.whole);
        self.inputs += other.inputs;
        self.is_news |= other.is_news;
    }
}

impl Phase {
    fn add(&mut self, share: &Share, whole: Option<(&GpuWork, &Arc<Mix>)>) {
        self.share.add(share);
        if let Some((gpu, mix)) = whole {
            self.rides.add(mix, share.gpu_ns, gpu.whole.gpu_ns);
            self.add_copies(&gpu.work.copies);
        }
    }

    fn add_copies(&mut self, more: &[(u64, u64); 5]) {
        for (sums, (count, bytes)) in self.copies.iter_mut().zip(more) {
            sums.0 += count;
            sums.1 += bytes;
        }
    }

    fn join(&mut self, other: &Self) {
        self.share.add(&other.share);
        self.add_copies(&other.copies);
        self.kernels.add_all(&other.rides.kernels());
    }
}

impl Ride {
    /// The rides of a request's sequences as one. They overlap, so that times are those of the longest.
    #[must_use]
    pub fn of_all<'a>(rides: impl Iterator<Item = &'a Self>) -> Self {
        let mut all = Self::default();
        for ride in rides {
            all.prefill.join(&ride.prefill);
            all.decode.join(&ride.decode);
            all.first_step_ns = all.first_step_ns.into_iter().chain(ride.first_step_ns).min();
            all.last_step_ns = all.last_step_ns.max(ride.last_step_ns);
            all.first_made_ns = all.first_made_ns.into_iter().chain(ride.first_made_ns).min();
            all.queued_behind_ns = all.queued_behind_ns.max(ride.queued_behind_ns);
            all.stretched_ns = all.stretched_ns.max(ride.stretched_ns);
            all.gap_ns = (all.gap_ns.0.max(ride.gap_ns.0), all.gap_ns.1.max(ride.gap_ns.1));
            all.evidence = all.evidence.max(ride.evidence);
        }
        all
    }

    /// It is over: its kernels are added up.
    pub(super) fn end(&mut self) {
        for phase in [&mut self.prefill, &mut self.decode] {
            phase.kernels.add_all(&std::mem::take(&mut phase.rides).kernels());
        }
    }

    /// When its first and its last token were made, as iterations show it; none of those that made one before the first
    /// that is known.
    #[must_use]
    pub fn made_ns(&self) -> Option<(u64, u64)> {
        let last_ns = self.last_step_ns.filter(|_| self.prefill.share.steps > 0)?;
        Some((self.first_made_ns.unwrap_or(last_ns), last_ns))
    }

    /// GPU work of both phases.
    #[must_use]
    pub fn share(&self) -> Share {
        let mut sum = self.prefill.share;
        sum.add(&self.decode.share);
        sum
    }
}
