//! The engine's thread: schedule, run on the device, log the truth, hand out tokens; again.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;

use anyhow::Result;

use super::queue::{Event, Finish, Queue};
use super::schedule::{Limits, Sequence, schedule};
use crate::clock::monotonic_ns;
use crate::gpu::{Device, StepWork};
use crate::options::ServerOptions;
use crate::truth::{Copies, DeviceTotals, Member, StepLine, TruthLog};

/// A step that the device works on.
struct Pending {
    line: StepLine,
    news: Vec<(Sender<Event>, Event)>,
}

/// Runs steps until the queue is closed. Where the engine schedules ahead, the device has a step to go on with while
/// the tokens of the one before are handed out: what a step is made of does not depend on them, as in vLLM.
pub(crate) fn run(
    queue: &Queue,
    engine: usize,
    device: &mut dyn Device,
    options: &ServerOptions,
    truth: &TruthLog,
) -> Result<()> {
    let limits = Limits { max_batch: options.max_batch, max_tokens: options.max_batch_tokens };
    let mut batch: Vec<Sequence> = Vec::new();
    let mut pending: VecDeque<Pending> = VecDeque::new();
    let mut index = 0;
    let idle = |batch: &[Sequence], pending: &VecDeque<Pending>| batch.is_empty() && pending.is_empty();
    while queue
        .with_waiting(idle(&batch, &pending), |waiting| schedule(&mut batch, waiting, limits))
        .is_some()
    {
        // Every request may have been aborted while it waited.
        let ahead = usize::from(options.asynchronous && !batch.is_empty());
        if !batch.is_empty() {
            pending.push_back(submit((engine, index), &mut batch, device, options)?);
            index += 1;
        }
        while pending.len() > ahead
            && let Some(oldest) = pending.pop_front()
        {
            publish(oldest, device, truth)?;
        }
    }
    pending.into_iter().try_for_each(|step| publish(step, device, truth))
}

/// Puts one step of the batch on the device, and the batch into the state after it.
fn submit(
    (engine, index): (usize, u64),
    batch: &mut Vec<Sequence>,
    device: &mut dyn Device,
    options: &ServerOptions,
) -> Result<Pending> {
    let riding = || batch.iter().filter(|sequence| sequence.scheduled > 0);
    let work = StepWork {
        sequences: riding().count(),
        tokens: riding().map(|sequence| sequence.scheduled).sum(),
        outputs: riding().filter(|sequence| sequence.samples()).count(),
        decode_only: riding().all(Sequence::decodes),
    };
    let members = riding().map(member).collect();
    let before = Snapshot::of(device.totals());
    let start_ns = monotonic_ns();
    device.submit(work)?;
    let line = StepLine { engine, index, start_ns, members, ..StepLine::default() };
    let line = before.difference(device.totals(), line);
    let mut news = Vec::new();
    batch.retain_mut(|sequence| advance(sequence, index, options.eos_probability, &mut news));
    Ok(Pending { line, news })
}

/// Waits for a step's end, logs it and hands out its tokens.
fn publish(step: Pending, device: &mut dyn Device, truth: &TruthLog) -> Result<()> {
    device.wait()?;
    truth.step(StepLine { end_ns: monotonic_ns(), ..step.line })?;
    for (receiver, event) in step.news {
        // A receiver that is gone belongs to an aborted request, which the next schedule removes.
        let _ = receiver.send(event);
    }
    Ok(())
}

fn member(sequence: &Sequence) -> Member {
    Member {
        id: sequence.submission.id.clone(),
        prefill_tokens: sequence.prefills() as u64,
        decode: sequence.decodes(),
        output: sequence.samples(),
    }
}

/// The step's part of one sequence is on its way; false when the sequence ends with it.
fn advance(
    sequence: &mut Sequence,
    step: u64,
    eos_probability: f64,
    news: &mut Vec<(Sender<Event>, Event)>,
) -> bool {
    let mut tell = |event| news.push((sequence.submission.events.clone(), event));
    if sequence.admitted && sequence.scheduled > 0 {
        tell(Event::Admitted { step });
    }
    let samples = sequence.samples();
    sequence.prefilled += sequence.prefills();
    if !samples {
        return true;
    }
    sequence.generated += 1;
    let finish = finish(sequence, eos_probability);
    tell(Event::Token { finish });
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
