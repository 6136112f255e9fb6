//! Operations → steps: bursts of GPU work between synchronisations, per thread and stream.
//!
//! A step opens with the first operation that a thread sends to a stream and closes when a wait for that stream
//! (or an event in it, or the device) returns. Work that nobody waits for closes after a pause. This is the
//! engine-agnostic reading of an iteration; adapters that hear the engine itself replace it where they exist.

use super::graph::Nodes;
use super::kernel::KernelKey;
use super::operation::{Operation, Waited};
use crate::decode::Burst;
use crate::probe::Direction;
use std::collections::HashMap;

/// A burst of GPU work and the wait that ended it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// Process.
    pub pid: u32,
    /// Thread that sent the work.
    pub tid: u32,
    /// Stream it went to.
    pub stream: u64,
    /// First operation, `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
    /// Return of the wait, or the last operation.
    pub end_ns: u64,
    /// How long the wait blocked; `None` when nobody waited.
    pub blocked_ns: Option<u64>,
    /// What it consisted of.
    pub work: Work,
}

/// Counts of GPU work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Kernel launches, graphs' nodes not included.
    pub launches: u64,
    /// Graph launches.
    pub graph_launches: u64,
    /// Kernel nodes of those graphs, as far as known.
    pub graph_nodes: u64,
    /// Graph launches whose nodes are not known.
    pub unknown_graphs: u64,
    /// Copies: count and bytes by direction, in the order of [`Direction::ALL`].
    pub copies: [(u64, u64); 5],
    /// Memory sets: count and bytes.
    pub sets: (u64, u64),
    /// Host functions that streams called.
    pub host_functions: u64,
    /// Of these launches, those that were counted in the kernel and are known by kernel only as sums.
    pub counted_launches: u64,
    /// Copies that were counted in the kernel, in any direction: count and bytes. Not in `copies`.
    pub counted_copies: (u64, u64),
    /// Kernel launches by kernel: launched directly, and as graph nodes.
    pub kernels: HashMap<KernelKey, (u64, u64)>,
}

impl Work {
    /// Copies in any direction.
    #[must_use]
    pub fn copy_count(&self) -> u64 {
        self.copies.iter().map(|(count, _)| count).sum::<u64>() + self.counted_copies.0
    }

    /// Bytes copied in any direction.
    #[must_use]
    pub fn copy_bytes(&self) -> u64 {
        self.copies.iter().map(|(_, bytes)| bytes).sum::<u64>() + self.counted_copies.1
    }

    /// Adds the counts of other work to this; its kernels are the caller's business.
    pub fn add_counts(&mut self, other: &Self) {
        self.launches += other.launches;
        self.graph_launches += other.graph_launches;
        self.graph_nodes += other.graph_nodes;
        self.unknown_graphs += other.unknown_graphs;
        self.sets.0 += other.sets.0;
        self.sets.1 += other.sets.1;
        self.host_functions += other.host_functions;
        for (mine, theirs) in self.copies.iter_mut().zip(&other.copies) {
            mine.0 += theirs.0;
            mine.1 += theirs.1;
        }
    }

    fn add_operation(&mut self, operation: &Operation) {
        match operation {
            Operation::Launch { kernel, .. } => self.add_launch(*kernel),
            Operation::GraphLaunch { nodes, .. } => {
                self.graph_launches += 1;
                match nodes {
                    Some(nodes) => self.add_nodes(nodes),
                    None => self.unknown_graphs += 1,
                }
            }
            Operation::Copy { direction, count, bytes, .. } => self.add_copy(*direction, *count, *bytes),
            Operation::Set { bytes, .. } => {
                self.sets.0 += 1;
                self.sets.1 += bytes;
            }
            Operation::HostFunction { .. } => self.host_functions += 1,
            Operation::Burst(burst) => {
                self.launches += burst.launches;
                self.counted_launches += burst.launches;
                self.counted_copies.0 += burst.copies;
                self.counted_copies.1 += burst.copy_bytes;
            }
            _ => {}
        }
    }

    fn add_launch(&mut self, kernel: KernelKey) {
        self.launches += 1;
        self.kernels.entry(kernel).or_default().0 += 1;
    }

    fn add_nodes(&mut self, nodes: &Nodes) {
        self.graph_nodes += nodes.launches();
        for (kernel, count) in &nodes.kernels {
            self.kernels.entry(*kernel).or_default().1 += count;
        }
        for (direction, (count, bytes)) in &nodes.copies {
            self.add_copy(*direction, *count, *bytes);
        }
        self.sets.0 += nodes.sets.0;
        self.sets.1 += nodes.sets.1;
        self.host_functions += nodes.host_functions;
    }

    fn add_copy(&mut self, direction: Direction, count: u64, bytes: u64) {
        if let Some(sums) = self.copies.get_mut(direction as usize) {
            sums.0 += count;
            sums.1 += bytes;
        }
    }
}

/// Stream of a step whose operations were counted in the kernel: which streams they went to is not known.
pub const ANY_STREAM: u64 = u64::MAX;

/// The open steps of one process.
#[derive(Debug, Default)]
pub struct Steps {
    open: Vec<Step>,
}

/// Work that nobody has waited for closes after this pause: longer than the gap between an engine's iterations,
/// short enough that a request's last step is closed before its trace is due.
pub const PAUSE_NS: u64 = 500_000_000;

impl Steps {
    /// Takes an operation of thread `tid`; steps that it closes go to `closed`.
    pub fn operation(&mut self, at: (u32, u32, u64), operation: &Operation, closed: &mut Vec<Step>) {
        let (pid, tid, time_ns) = at;
        match *operation {
            Operation::Launch { stream, .. }
            | Operation::GraphLaunch { stream, .. }
            | Operation::HostFunction { stream }
            | Operation::Set { stream, .. } => {
                self.step(pid, tid, stream, time_ns).take(operation, time_ns);
            }
            Operation::Launches(ref launches) => {
                for (kernel, stream) in launches {
                    let step = self.step(pid, tid, *stream, time_ns);
                    step.end_ns = time_ns;
                    step.work.add_launch(*kernel);
                }
            }
            Operation::Burst(Burst { first_ns, last_ns, .. }) => {
                self.step(pid, tid, ANY_STREAM, first_ns).take(operation, last_ns);
            }
            Operation::Copy { stream, blocks, .. } => {
                self.step(pid, tid, stream, time_ns).take(operation, time_ns);
                if blocks {
                    self.close(time_ns, Some(0), closed, |step| {
                        step.tid == tid && (step.stream == stream || step.stream == ANY_STREAM)
                    });
                }
            }
            Operation::Synchronized { what, entered_ns } => {
                self.synchronized(tid, what, entered_ns, time_ns, closed);
            }
            Operation::Collective { .. }
            | Operation::Allocated { .. }
            | Operation::Freed { .. }
            | Operation::AllocationFailed { .. }
            | Operation::Named(_) => {}
        }
    }

    /// Closes what nobody waited for since [`PAUSE_NS`] before `now_ns`; with `now_ns` at its maximum, everything.
    pub fn close_paused(&mut self, now_ns: u64, closed: &mut Vec<Step>) {
        let paused = |step: &Step| now_ns == u64::MAX || step.end_ns.saturating_add(PAUSE_NS) < now_ns;
        for mut step in self.open.extract_if(.., |step| paused(step)) {
            step.blocked_ns = None;
            closed.push(step);
        }
    }

    fn step(&mut self, pid: u32, tid: u32, stream: u64, time_ns: u64) -> &mut Step {
        let found = self.open.iter().position(|step| step.tid == tid && step.stream == stream);
        let index = found.unwrap_or_else(|| {
            self.open.push(Step { pid, tid, stream, start_ns: time_ns, ..Step::default() });
            self.open.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "the index was found or made in the line above")]
        &mut self.open[index]
    }

    fn synchronized(
        &mut self,
        tid: u32,
        what: Waited,
        entered_ns: u64,
        time_ns: u64,
        closed: &mut Vec<Step>,
    ) {
        let blocked = Some(time_ns.saturating_sub(entered_ns));
        match what {
            Waited::Device => self.close(time_ns, blocked, closed, |_| true),
            Waited::Stream(stream) | Waited::Event(Some(stream)) => {
                // Usually the thread that launched waits; some engines leave the wait to another.
                let own = self.open.iter().any(|step| step.tid == tid && step.stream == stream);
                self.close(time_ns, blocked, closed, |step| {
                    (step.stream == stream && (step.tid == tid || !own))
                        || (step.stream == ANY_STREAM && step.tid == tid)
                });
            }
            Waited::Event(None) => {}
        }
    }

    fn close(
        &mut self,
        time_ns: u64,
        blocked_ns: Option<u64>,
        closed: &mut Vec<Step>,
        which: impl Fn(&Step) -> bool,
    ) {
        for mut step in self.open.extract_if(.., |step| which(step)) {
            step.end_ns = time_ns;
            step.blocked_ns = blocked_ns;
            closed.push(step);
        }
    }
}

impl Step {
    fn take(&mut self, operation: &Operation, time_ns: u64) {
        self.end_ns = time_ns;
        self.work.add_operation(operation);
    }

    /// GPU time of the step, nanoseconds: at least and at most.
    ///
    /// The GPU was busy while the CPU was blocked on it, less the time to wake up; and it was not busy for the step
    /// before its first operation nor after the wait returned. Without a wait nothing bounds it from below.
    #[must_use]
    pub fn gpu_bounds_ns(&self) -> (u64, u64) {
        let most = self.end_ns.saturating_sub(self.start_ns);
        let least = self.blocked_ns.unwrap_or(0).saturating_sub(WAKE_UP_NS).min(most);
        (least, most)
    }
}

/// A blocked wait returns this much after the GPU is done, at most: 5 to 50 µs for blocking synchronisation.
const WAKE_UP_NS: u64 = 50_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(stream: u64) -> Operation {
        Operation::Launch { kernel: KernelKey { pid: 1, function: 7 }, stream }
    }

    fn wait(what: Waited) -> Operation {
        Operation::Synchronized { what, entered_ns: 100 }
    }

    /// Feeds `(tid, time, operation)` and returns what closed, as `(tid, stream, start, end, launches)`.
    fn check(feed: &[(u32, u64, Operation)], expected: &[(u32, u64, u64, u64, u64)]) -> Vec<Step> {
        let (mut steps, mut closed) = (Steps::default(), Vec::new());
        for (tid, time_ns, operation) in feed {
            steps.operation((1, *tid, *time_ns), operation, &mut closed);
        }
        let seen: Vec<_> =
            closed.iter().map(|s| (s.tid, s.stream, s.start_ns, s.end_ns, s.work.launches)).collect();
        assert_eq!(seen, expected);
        closed
    }

    #[test]
    fn a_wait_closes_what_its_thread_sent_to_the_stream() {
        let closed = check(
            &[
                (1, 10, launch(5)),
                (2, 20, launch(5)),
                (1, 30, launch(5)),
                (1, 40, launch(6)),
                (1, 200_100, wait(Waited::Stream(5))),
            ],
            &[(1, 5, 10, 200_100, 2)],
        );
        assert_eq!(closed[0].gpu_bounds_ns(), (150_000, 200_090));
    }

    #[test]
    fn a_wait_by_another_thread_closes_too() {
        check(&[(1, 10, launch(5)), (2, 100, wait(Waited::Event(Some(5))))], &[(1, 5, 10, 100, 1)]);
    }

    #[test]
    fn a_device_wait_closes_everything_and_a_wait_for_nothing_closes_nothing() {
        check(
            &[
                (1, 10, launch(5)),
                (2, 20, launch(6)),
                (3, 100, wait(Waited::Device)),
                (3, 110, wait(Waited::Device)),
            ],
            &[(1, 5, 10, 100, 1), (2, 6, 20, 100, 1)],
        );
        check(&[(1, 10, launch(5)), (1, 20, wait(Waited::Event(None)))], &[]);
    }

    #[test]
    fn work_that_nobody_waits_for_closes_after_a_pause_and_has_no_lower_bound() {
        let (mut steps, mut closed) = (Steps::default(), Vec::new());
        steps.operation((1, 1, 10), &launch(5), &mut closed);
        steps.close_paused(10 + PAUSE_NS, &mut closed);
        assert!(closed.is_empty());
        steps.close_paused(11 + PAUSE_NS, &mut closed);
        assert_eq!((closed[0].blocked_ns, closed[0].gpu_bounds_ns().0), (None, 0));
    }

    #[test]
    fn a_blocking_copy_is_a_boundary() {
        let copy =
            Operation::Copy { direction: Direction::DtoH, count: 1, bytes: 4, stream: 0, blocks: true };
        let closed = check(&[(1, 10, launch(0)), (1, 20, copy)], &[(1, 0, 10, 20, 1)]);
        assert_eq!((closed[0].work.copy_count(), closed[0].work.copy_bytes()), (1, 4));
    }
}
