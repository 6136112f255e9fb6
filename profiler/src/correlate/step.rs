//! Operations → steps: bursts of GPU work between synchronisations, per device, thread and stream.
//!
//! A step opens with the first operation that a thread sends to a stream and closes when a wait for that stream
//! (or an event in it, or its device) returns. A stream does things in order: a wait for an event closes what was sent
//! before the event was recorded, and what that had to wait for in other streams, and leaves open what came later: an
//! engine that schedules ahead has the next iteration under way while it waits for the last. Work that nobody waits
//! for closes after a pause. This is the engine-agnostic reading of an iteration; what adapters hear of the engine
//! itself is laid over it where they exist.

mod fifo;
mod pace;
mod spans;
mod timed;
mod told;
mod work;

pub use work::Work;

use super::context::{Contexts, Origin};
use super::device::Devices;
use super::operation::{Operation, Waited};
use super::ride::TimeClass;
use crate::decode::{Burst, SpanContext};
use fifo::Fifo;
use pace::Pace;
use std::collections::BTreeMap;
use timed::{Asked, Clock, Parts, Timing};
use told::{Lane, Told};

/// A burst of GPU work and the wait that ended it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// Process.
    pub pid: u32,
    /// Thread that sent the work.
    pub tid: u32,
    /// Device that it ran on, where that is known: its ordinal in the process.
    pub device: Option<u32>,
    /// Stream it went to.
    pub stream: u64,
    /// First operation, `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
    /// Return of the wait, or the last operation.
    pub end_ns: u64,
    /// How long the wait blocked; `None` when nobody waited.
    pub blocked_ns: Option<u64>,
    /// For how much of that the GPU worked for this step and no other, waking up included, nanoseconds.
    pub told_ns: u64,
    /// Of its time, what closed steps of the same thread have had, too, nanoseconds.
    pub overlap_ns: u64,
    /// Of that, how much may have been its own all the same: the wait before may have returned late.
    pub early_ns: u64,
    /// When the steps of the same thread before it had ended: until then the GPU had other work of it.
    pub floor_ns: u64,
    /// Of its time, in how much other threads of its process had work under way, nanoseconds.
    pub contested_ns: u64,
    /// GPU time: the best that is known, and how.
    pub gpu_ns: u64,
    /// How that is known.
    pub class: TimeClass,
    /// When its work was sent.
    sent: Fifo,
    /// Its work between marks.
    parts: Parts,
    /// What the program's own events say of it.
    timed: Option<Timing>,
    /// What it consisted of.
    pub work: Work,
    /// What those who sent it worked for.
    pub origin: Origin,
}

/// Stream of a step whose operations were counted in the kernel: which streams they went to is not known.
pub const ANY_STREAM: u64 = u64::MAX;

/// The open steps of one process.
#[derive(Debug, Default)]
pub struct Steps {
    /// In the order in which they were opened.
    open: Vec<Open>,
    told: Told,
    clock: Clock,
    /// By device: they may be of different kinds.
    paces: Paces,
    /// Steps that found no room.
    cut: u64,
    /// What threads work for.
    contexts: Contexts,
}

type Paces = BTreeMap<Option<u32>, Pace>;

/// A step that is open.
#[derive(Debug, Default)]
struct Open {
    step: Step,
    /// The last mark in its stream before it.
    began: Option<u64>,
    /// Its last operation was followed by this mark, and nothing more belongs to it.
    sealed: Option<u64>,
    /// Marks in other streams that it began after.
    after: Vec<(u64, u64)>,
}

/// Work that nobody has waited for closes after this pause: longer than the gap between an engine's iterations,
/// short enough that a request's last step is closed before its trace is due.
pub const PAUSE_NS: u64 = 500_000_000;

/// Sealed steps of a thread and stream that are told apart. Allocators record events by the dozen, and nobody waits for
/// most of them; engines are a few iterations ahead.
const MOST_SEALED: usize = 8;

/// Open steps of a process; the oldest is taken for one that nobody waits for.
const MOST_OPEN: usize = 2048;

/// Marks in other streams that are remembered of an open step.
const MOST_AFTER: usize = 16;

impl Steps {
    /// Takes an operation of thread `tid`; steps that it closes go to `closed`.
    pub fn operation(
        &mut self,
        at: (u32, u32, u64),
        operation: &Operation,
        devices: &Devices,
        closed: &mut Vec<Step>,
    ) {
        let (pid, tid, time_ns) = at;
        self.clock.let_go(time_ns, closed);
        self.make_room(closed);
        match *operation {
            Operation::Launch { stream, .. }
            | Operation::GraphLaunch { stream, .. }
            | Operation::HostFunction { stream }
            | Operation::Set { stream, .. } => {
                self.sent(at, stream, devices).step.take(operation, time_ns);
            }
            Operation::Launches(ref launches) => {
                for (kernel, stream) in launches {
                    let launch = Operation::Launch { kernel: *kernel, stream: *stream };
                    self.sent(at, *stream, devices).step.take(&launch, time_ns);
                }
            }
            Operation::Burst(Burst { first_ns, last_ns, .. }) => {
                self.sent((pid, tid, first_ns), ANY_STREAM, devices).step.take(operation, last_ns);
            }
            Operation::Copy { stream, blocks, .. } => {
                self.sent(at, stream, devices).step.take(operation, time_ns);
                if blocks {
                    self.close((time_ns, time_ns), closed, |open| {
                        open.step.tid == tid && (open.step.stream == stream || open.step.stream == ANY_STREAM)
                    });
                }
            }
            Operation::Marked { stream, mark } => {
                self.clock.mark(mark, stream, (tid, time_ns));
                self.mark(stream, mark);
            }
            Operation::Timed { stream, marks, took_ns } => {
                self.timed(Asked { stream, marks, took_ns, time_ns });
                self.clock.let_go(time_ns, closed);
            }
            Operation::Follows { stream, of } => {
                let after = &mut self.opened(at, stream, devices).after;
                if after.len() < MOST_AFTER {
                    after.push(of);
                }
            }
            Operation::Synchronized { what: Waited::Device, entered_ns } => {
                self.device_synchronized(tid, devices, (entered_ns, time_ns), closed);
            }
            Operation::Synchronized { what, entered_ns } => {
                self.synchronized(tid, what, (entered_ns, time_ns), closed);
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
        let paused = |open: &Open| now_ns == u64::MAX || open.step.end_ns.saturating_add(PAUSE_NS) < now_ns;
        for open in self.open.extract_if(.., |open| paused(open)) {
            if let Some(step) = unwaited(open, &mut self.told, &mut self.paces) {
                self.clock.give(step, closed);
            }
        }
        self.clock.let_go(now_ns, closed);
    }

    /// Nothing is held any longer that the program may ask about.
    pub fn let_go(&mut self, closed: &mut Vec<Step>) {
        self.clock.let_go(u64::MAX, closed);
    }

    /// A thread works for another span than before, or for none.
    pub fn works_for(&mut self, tid: u32, context: Option<SpanContext>) {
        self.contexts.set((0, tid), context);
    }

    /// A thread ended, or all did.
    pub fn threads_gone(&mut self, thread: Option<u32>) {
        self.contexts.gone(0, thread);
    }

    /// Steps that found no room.
    #[must_use]
    pub fn cut(&self) -> u64 {
        self.cut
    }

    fn make_room(&mut self, closed: &mut Vec<Step>) {
        while self.open.len() >= MOST_OPEN {
            self.cut += 1;
            if let Some(step) = unwaited(self.open.remove(0), &mut self.told, &mut self.paces) {
                self.clock.give(step, closed);
            }
        }
    }

    /// Work that somebody may still wait for.
    pub fn under_way(&self) -> impl Iterator<Item = &Step> {
        self.open.iter().map(|open| &open.step).filter(|step| !step.is_empty())
    }

    /// Work that has not closed yet, or is held.
    #[cfg(test)]
    pub fn open(&self) -> impl Iterator<Item = &Step> {
        self.open.iter().map(|open| &open.step).chain(self.clock.held())
    }

    /// The step that something goes to now.
    fn sent(&mut self, at: (u32, u32, u64), stream: u64, devices: &Devices) -> &mut Open {
        let origin = Origin::of(self.contexts.of((0, at.1)));
        let open = self.opened(at, stream, devices);
        open.step.origin = open.step.origin.and(origin);
        open
    }

    fn opened(&mut self, (pid, tid, time_ns): (u32, u32, u64), stream: u64, devices: &Devices) -> &mut Open {
        let is_it = |open: &Open| open.step.tid == tid && open.step.stream == stream && open.sealed.is_none();
        let index = self.open.iter().rposition(is_it).unwrap_or_else(|| {
            let step = Step { pid, tid, stream, start_ns: time_ns, end_ns: time_ns, ..Step::default() };
            self.open.push(Open { step, began: self.clock.newest(stream), ..Open::default() });
            self.open.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "the index was found or made in the line above")]
        let open = &mut self.open[index];
        open.step.device = match stream {
            ANY_STREAM => devices.only(tid),
            stream => open.step.device.or_else(|| devices.of_stream(tid, stream)),
        };
        open
    }

    /// An event was recorded in a stream.
    fn mark(&mut self, stream: u64, mark: u64) {
        let mut tids = Vec::new();
        for open in self.open.iter_mut().filter(|open| open.step.stream == stream && open.sealed.is_none()) {
            open.seal(Some(mark));
            tids.push(open.step.tid);
        }
        for tid in tids {
            self.bound(tid, stream);
        }
    }

    /// Joins the two oldest sealed steps of a thread and stream when there are too many.
    fn bound(&mut self, tid: u32, stream: u64) {
        let sealed =
            |open: &Open| open.step.tid == tid && open.step.stream == stream && open.sealed.is_some();
        if self.open.iter().filter(|open| sealed(open)).count() <= MOST_SEALED {
            return;
        }
        let Some(first) = self.open.iter().position(sealed) else { return };
        let older = self.open.remove(first);
        if let Some(next) = self.open.iter_mut().find(|open| sealed(open)) {
            next.prepend(older);
        }
    }

    /// A wait ends the work of its device. Where the device is not known, that is the thread's own work, and that of
    /// others as long as nothing shows that there is more than one device.
    fn device_synchronized(&mut self, tid: u32, devices: &Devices, wait: (u64, u64), closed: &mut Vec<Step>) {
        let (device, several) = (devices.current(tid), devices.are_several());
        self.close(wait, closed, |Open { step, .. }| {
            let own = step.tid == tid;
            let is_there = step.device == device && (own || device.is_some() || !several);
            is_there || (own && step.stream == ANY_STREAM)
        });
    }

    fn synchronized(&mut self, tid: u32, what: Waited, wait: (u64, u64), closed: &mut Vec<Step>) {
        match what {
            Waited::Stream(stream) => {
                // Usually the thread that launched waits; some engines leave the wait to another.
                let own = self.open.iter().any(|open| open.step.tid == tid && open.step.stream == stream);
                self.close(wait, closed, |open| {
                    (open.step.stream == stream && (open.step.tid == tid || !own))
                        || (open.step.stream == ANY_STREAM && open.step.tid == tid)
                });
            }
            Waited::Event(Some((stream, mark))) => self.close(wait, closed, |open| {
                (open.step.stream == stream && open.sealed.is_some_and(|sealed| sealed <= mark))
                    || (open.step.stream == ANY_STREAM && open.step.tid == tid)
            }),
            Waited::Event(None) | Waited::Device => {}
        }
    }

    /// Closes what a wait from one time to another was for, and what that had waited for itself.
    fn close(&mut self, wait: (u64, u64), closed: &mut Vec<Step>, which: impl Fn(&Open) -> bool) {
        // Records of two threads may overtake each other: nobody waited for what was sent afterwards.
        let came = |open: &Open| open.step.start_ns <= wait.1;
        let mut done: Vec<Open> = self.open.extract_if(.., |open| which(open) && came(open)).collect();
        let mut after: Vec<_> = done.iter().flat_map(|open| open.after.iter().copied()).collect();
        while let Some((stream, mark)) = after.pop() {
            let earlier = |open: &mut Open| {
                open.step.stream == stream && open.sealed.is_some_and(|sealed| sealed <= mark) && came(open)
            };
            for open in self.open.extract_if(.., earlier) {
                after.extend(&open.after);
                done.push(open);
            }
        }
        let mut done = joined(done);
        let others: Vec<_> = self.open.iter().filter(|open| !open.step.is_empty()).collect();
        let others: Vec<_> = others.iter().map(|open| (open.step.lane(), open.step.start_ns)).collect();
        self.told.waited(&mut done, &others, wait.0, wait.1);
        let several = done.iter().filter(|_| done.len() > 1);
        let mut streams: Vec<(Lane, Fifo, u64)> =
            several.map(|step| (step.lane(), step.sent.clone(), step.work.weight())).collect();
        for mut step in done {
            step.blocked_ns = Some(wait.1.saturating_sub(wait.0));
            // The first of a thread on a device has the time of all of them.
            let beside = streams.extract_if(.., |(lane, ..)| *lane == step.lane()).skip(1);
            let beside: Vec<_> = beside.map(|(_, sent, weight)| (sent, weight)).collect();
            self.paces.entry(step.device).or_default().learn(&mut step, &beside);
            self.clock.give(step, closed);
        }
    }
}

/// A step that nobody waited for; none when it is empty.
fn unwaited(mut open: Open, told: &mut Told, paces: &mut Paces) -> Option<Step> {
    open.close();
    let mut step = open.step;
    told.paused(&mut step);
    paces.entry(step.device).or_default().guess(&mut step);
    Some(step).filter(|step| !step.is_empty())
}

/// Pieces of one thread's work in one stream as one step each; empty ones go.
fn joined(mut done: Vec<Open>) -> Vec<Step> {
    done.sort_by_key(|open| open.step.start_ns);
    let mut steps: Vec<Step> = Vec::new();
    for mut open in done.into_iter().filter(|open| !open.step.is_empty()) {
        open.close();
        let step = open.step;
        match steps.iter_mut().find(|known| known.tid == step.tid && known.stream == step.stream) {
            Some(known) => known.append(step),
            None => steps.push(step),
        }
    }
    steps
}

impl Open {
    /// Puts older work of the same thread and stream before this.
    fn prepend(&mut self, older: Self) {
        let newer = std::mem::replace(&mut self.step, older.step);
        self.step.append(newer);
        self.began = older.began;
        self.after.extend(older.after);
        self.after.truncate(MOST_AFTER);
    }
}

impl Step {
    fn take(&mut self, operation: &Operation, time_ns: u64) {
        let first_ns = if let Operation::Burst(burst) = operation { burst.first_ns } else { time_ns };
        if self.is_empty() {
            self.start_ns = first_ns;
        }
        let before = self.work.weight();
        self.end_ns = time_ns;
        self.work.add_operation(operation);
        self.sent.push(time_ns, before);
    }

    /// Who sent it, and where to.
    fn lane(&self) -> Lane {
        Lane { tid: self.tid, device: self.device }
    }

    /// Nothing was sent.
    fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Adds later work of the same thread and stream.
    fn append(&mut self, later: Self) {
        self.sent.append(&later.sent, self.work.weight());
        self.parts.append(&later.parts, self.work.weight());
        self.end_ns = self.end_ns.max(later.end_ns);
        self.work.merge(later.work);
        self.origin = self.origin.and(later.origin);
    }

    /// GPU time of the step, nanoseconds: at least and at most.
    ///
    /// The GPU was busy while the CPU was blocked on it, as far as no other thread's work was under way and less the
    /// time to wake up; and it was not busy for the step before its first operation nor after the wait returned.
    /// Without a wait nothing bounds it from below, but the program's own events may, and they bound it closer. Time in
    /// which a thread has work on several streams is in the lower bound of one step only, and in the upper ones of two
    /// only where the first's wait may have returned late.
    ///
    /// A thread whose wait is over but that is given no CPU waits on: where all CPUs are taken, the lower bound may be
    /// too high by what the scheduler lets it wait (docs/gpu.md).
    #[must_use]
    pub fn gpu_bounds_ns(&self) -> (u64, u64) {
        let (least, most) = self.own_bounds_ns();
        let (lo, hi) = self.timed.map_or((0, u64::MAX), |timed| timed.bounds_ns);
        let most = (most + self.early_ns).min(hi);
        // A wait that returned late, as the events show, says nothing of how long the GPU worked.
        let least = if least > hi { 0 } else { least };
        (least.max(lo).min(most), most)
    }

    /// The same, as if waits returned at once: these can be added up.
    fn own_bounds_ns(&self) -> (u64, u64) {
        let most = self.end_ns.saturating_sub(self.start_ns).saturating_sub(self.overlap_ns);
        let gaps = self.work.pieces().saturating_mul(GAP_NS);
        let least = self.told_ns.saturating_sub(WAKE_UP_NS).saturating_sub(gaps).min(most);
        (least, most)
    }
}

/// A wait begins before the GPU does and returns after it is done: 5 to 50 µs for blocking synchronisation. An H100's
/// waits, which spin, had 4 to 6 µs of that, at most 24 where they were long, but 75 at a graph's first replay
/// (driver 580.159, CPUs free; docs/gpu.md).
const WAKE_UP_NS: u64 = 50_000;
/// Between two pieces of queued work the GPU is idle: 1.6 µs each on an H100 (10 products of cuBLAS with their sets in
/// each of 100 waits, by CUPTI, which may lengthen them).
const GAP_NS: u64 = 2_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::KernelKey;
    use crate::probe::Direction;

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
            steps.operation((1, *tid, *time_ns), operation, &Devices::default(), &mut closed);
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
                (1, 30, launch(5)),
                (1, 40, launch(6)),
                (1, 200_100, wait(Waited::Stream(5))),
                (2, 200_200, launch(5)),
                (1, 200_300, launch(5)),
                (1, 400_000, wait(Waited::Stream(5))),
            ],
            &[(1, 5, 10, 200_100, 2), (1, 5, 200_300, 400_000, 1)],
        );
        assert_eq!(closed[0].gpu_bounds_ns(), (146_000, 200_090), "less two gaps");
        assert_eq!(closed[1].gpu_bounds_ns(), (0, 199_700), "the second thread's work is under way, too");
    }

    #[test]
    fn a_wait_by_another_thread_closes_too() {
        let marked = Operation::Marked { stream: 5, mark: 1 };
        check(
            &[(1, 10, launch(5)), (1, 20, marked), (2, 100, wait(Waited::Event(Some((5, 1)))))],
            &[(1, 5, 10, 100, 1)],
        );
    }

    #[test]
    fn an_event_closes_what_came_before_it_and_leaves_what_was_scheduled_ahead() {
        let marked = |mark| Operation::Marked { stream: 5, mark };
        check(
            &[
                (1, 10, launch(5)),
                (1, 20, marked(1)),
                (1, 30, launch(5)),
                (1, 40, launch(5)),
                (1, 50, marked(2)),
                (1, 60, launch(5)),
                (1, 100, wait(Waited::Event(Some((5, 1))))),
                (1, 200, wait(Waited::Event(Some((5, 2))))),
                (1, 300, wait(Waited::Stream(5))),
            ],
            &[(1, 5, 10, 100, 1), (1, 5, 30, 200, 2), (1, 5, 60, 300, 1)],
        );
    }

    #[test]
    fn a_wait_for_a_stream_that_waited_for_another_closes_both() {
        let copy =
            Operation::Copy { direction: Direction::DtoH, count: 1, bytes: 4, stream: 6, blocks: false };
        check(
            &[
                (1, 10, launch(5)),
                (1, 20, Operation::Marked { stream: 5, mark: 1 }),
                (1, 21, Operation::Follows { stream: 6, of: (5, 1) }),
                (1, 22, copy),
                (1, 23, Operation::Marked { stream: 6, mark: 2 }),
                (1, 30, launch(5)),
                (1, 100, wait(Waited::Event(Some((6, 2))))),
                (1, 200, wait(Waited::Device)),
            ],
            &[(1, 6, 22, 100, 0), (1, 5, 10, 100, 1), (1, 5, 30, 200, 1)],
        );
    }

    #[test]
    fn marks_that_nobody_waits_for_are_joined_and_lose_nothing() {
        let mut feed = Vec::new();
        for mark in 1..100 {
            feed.push((1, mark * 10, launch(5)));
            feed.push((1, mark * 10 + 1, Operation::Marked { stream: 5, mark }));
        }
        feed.push((1, 2000, wait(Waited::Event(Some((5, 50))))));
        feed.push((1, 3000, wait(Waited::Stream(5))));
        let (mut steps, mut closed) = (Steps::default(), Vec::new());
        for (tid, time_ns, operation) in &feed {
            steps.operation((1, *tid, *time_ns), operation, &Devices::default(), &mut closed);
        }
        assert_eq!(closed.iter().map(|step| step.work.launches).sum::<u64>(), 99);
        assert_eq!(closed.len(), 1, "the fiftieth mark had been joined with later ones");
    }

    #[test]
    fn streams_without_end_find_no_room_and_lose_nothing() {
        let (mut steps, mut closed) = (Steps::default(), Vec::new());
        for stream in 0..3 * MOST_OPEN as u64 {
            steps.operation((1, 1, stream), &launch(stream), &Devices::default(), &mut closed);
            assert!(steps.open.len() <= MOST_OPEN);
        }
        let (cut, last) = (closed.len() as u64, closed[0].stream);
        assert_eq!((steps.cut(), cut, last), (2 * MOST_OPEN as u64, steps.cut(), 0), "the oldest goes first");
        steps.close_paused(u64::MAX, &mut closed);
        assert_eq!(closed.iter().map(|step| step.work.launches).sum::<u64>(), 3 * MOST_OPEN as u64);
    }

    #[test]
    fn the_time_of_work_sent_faster_than_it_is_done_is_known() {
        let mut feed: Vec<_> = (0..50).map(|index| (1, 1000 + index * 3000, launch(5))).collect();
        feed.push((1, 1_006_000, Operation::Synchronized { what: Waited::Stream(5), entered_ns: 160_000 }));
        let closed = check(&feed, &[(1, 5, 1000, 1_006_000, 50)]);
        assert_eq!((closed[0].gpu_ns, closed[0].class), (1_000_000, TimeClass::Bounded));
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
            &[(2, 6, 20, 100, 1), (1, 5, 10, 100, 1)],
        );
        check(&[(1, 10, launch(5)), (1, 20, wait(Waited::Event(None)))], &[]);
    }

    /// Threads 1 and 2 are on devices 0 and 1, of 3 nothing is known; each launches on its default stream, then one of
    /// them waits for its device. Returns the devices and threads of what closed.
    fn closed_by(tid: u32) -> Vec<(Option<u32>, u32)> {
        let (mut devices, mut steps, mut closed) = (Devices::default(), Steps::default(), Vec::new());
        devices.set(1, 0);
        devices.set(2, 1);
        for tid in [1, 2, 3] {
            let stream = devices.stream(tid, 0, false);
            steps.operation((1, tid, 10), &launch(stream), &devices, &mut closed);
        }
        steps.operation((1, tid, 200_000), &wait(Waited::Device), &devices, &mut closed);
        closed.iter().map(|step| (step.device, step.tid)).collect()
    }

    #[test]
    fn a_device_wait_closes_what_its_device_has_and_no_other() {
        assert_eq!(closed_by(1), [(Some(0), 1)]);
        assert_eq!(closed_by(2), [(Some(1), 2)]);
        assert_eq!(closed_by(3), [(None, 3)]);
        assert_eq!(closed_by(4), [], "its device may be another than that of the third");
    }

    #[test]
    fn devices_work_at_the_same_time() {
        let (mut devices, mut steps, mut closed) = (Devices::default(), Steps::default(), Vec::new());
        devices.set(1, 0);
        devices.set(2, 1);
        for (tid, stream) in [(1, 5), (2, 6)] {
            steps.operation((1, tid, 10), &launch(stream), &devices, &mut closed);
        }
        for (tid, stream) in [(1, 5), (2, 6)] {
            steps.operation((1, tid, 200_100), &wait(Waited::Stream(stream)), &devices, &mut closed);
        }
        let bounds: Vec<_> = closed.iter().map(Step::gpu_bounds_ns).collect();
        assert_eq!(bounds, [(148_000, 200_090); 2], "each has all of its device's time");
        assert!(closed.iter().all(|step| step.gpu_ns > 190_000), "{closed:?}");
    }

    #[test]
    fn work_that_nobody_waits_for_closes_after_a_pause_and_has_no_lower_bound() {
        let (mut steps, mut closed) = (Steps::default(), Vec::new());
        steps.operation((1, 1, 10), &launch(5), &Devices::default(), &mut closed);
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
