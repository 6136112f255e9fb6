//! The engine's thread: schedule, run on the device, log the truth, hand out tokens; again.

use anyhow::Result;

use super::queue::{Event, Finish, Queue};
use super::schedule::{Limits, Sequence, schedule};
use crate::clock::monotonic_ns;
use crate::gpu::{Device, StepWork};
use crate::options::ServerOptions;
use crate::truth::{Copies, DeviceTotals, Member, StepLine, TruthLog};

/// Runs steps until the queue is closed.
pub(crate) fn run(
    queue: &Queue,
    device: &mut dyn Device,
    options: &ServerOptions,
    truth: &TruthLog,
) -> Result<()> {
    let limits = Limits { max_batch: options.max_batch, max_tokens: options.max_batch_tokens };
    let mut batch: Vec<Sequence> = Vec::new();
    let mut index = 0;
    while queue.with_waiting(batch.is_empty(), |waiting| schedule(&mut batch, waiting, limits)).is_some() {
        // Every request may have been aborted while it waited.
        if batch.is_empty() {
            continue;
        }
        truth.step(step(index, &batch, device)?)?;
        batch.retain_mut(|sequence| deliver(sequence, index, options.eos_probability));
        index += 1;
    }
    Ok(())
}

/// Runs one step of the batch.
fn step(index: u64, batch: &[Sequence], device: &mut dyn Device) -> Result<StepLine> {
    let riding = || batch.iter().filter(|sequence| sequence.scheduled > 0);
    let work = StepWork {
        sequences: riding().count(),
        tokens: riding().map(|sequence| sequence.scheduled).sum(),
        outputs: riding().filter(|sequence| sequence.samples()).count(),
        decode_only: riding().all(Sequence::decodes),
    };
    let before = Snapshot::of(device.totals());
    let start_ns = monotonic_ns();
    device.step(work)?;
    let end_ns = monotonic_ns();
    let line =
        StepLine { index, start_ns, end_ns, members: riding().map(member).collect(), ..StepLine::default() };
    Ok(before.difference(device.totals(), line))
}

fn member(sequence: &Sequence) -> Member {
    Member {
        id: sequence.submission.id.clone(),
        prefill_tokens: sequence.prefills() as u64,
        decode: sequence.decodes(),
        output: sequence.samples(),
    }
}

/// Ends the step for one sequence; false when the sequence has ended.
fn deliver(sequence: &mut Sequence, step: u64, eos_probability: f64) -> bool {
    let events = sequence.submission.events.clone();
    // A receiver that is gone belongs to an aborted request, which the next schedule removes.
    if sequence.admitted && sequence.scheduled > 0 {
        let _ = events.send(Event::Admitted { step });
    }
    let samples = sequence.samples();
    sequence.prefilled += sequence.prefills();
    if !samples {
        return true;
    }
    sequence.generated += 1;
    let finish = finish(sequence, eos_probability);
    let _ = events.send(Event::Token { finish });
    finish.is_none()
}

/// Whether the sequence's newest token is its last.
fn finish(sequence: &Sequence, eos_probability: f64) -> Option<Finish> {
    if sequence.generated >= sequence.submission.max_tokens {
        return Some(Finish::Length);
    }
    let seed = sequence.submission.seed ^ sequence.generated as u64;
    let ends = eos_probability > 0.0 && fastrand::Rng::with_seed(seed).f64() < eos_probability;
    ends.then_some(Finish::Stop)
}

/// The device's counters before a step.
struct Snapshot {
    launches: u64,
    captured: u64,
    graph_launches: u64,
    graph_nodes: u64,
    copies: Copies,
}

impl Snapshot {
    fn of(totals: &DeviceTotals) -> Self {
        Self {
            launches: totals.launches,
            captured: totals.captured,
            graph_launches: totals.graph_launches,
            graph_nodes: totals.graph_nodes,
            copies: all_copies(totals),
        }
    }

    fn difference(&self, totals: &DeviceTotals, line: StepLine) -> StepLine {
        let copies = all_copies(totals);
        StepLine {
            launches: totals.launches - self.launches,
            captured: totals.captured - self.captured,
            graph_launch: totals.graph_launches > self.graph_launches,
            graph_nodes: totals.graph_nodes - self.graph_nodes,
            copies: copies.count - self.copies.count,
            copy_bytes: copies.bytes - self.copies.bytes,
            ..line
        }
    }
}

fn all_copies(totals: &DeviceTotals) -> Copies {
    totals.copies.values().fold(Copies::default(), |sum, copies| Copies {
        count: sum.count + copies.count,
        bytes: sum.bytes + copies.bytes,
    })
}
