//! GPU time by the program's own clock: it records events around its work, and asks how much time lies between them.
//!
//! In: marks in streams, steps that closed, and what the program was told. Out: the same steps, a moment later; those
//! that were timed with tighter bounds, and `measured` where the events are around a whole step. The GPU stamps an event
//! when its stream gets there, so what lies between two events is how long the stream took for the work between them.
//! That is the GPU's work and no more where the stream waited neither for others nor for the CPU. Absent: events in
//! different streams, around several steps, and around work that nobody has waited for when the program asks.

use super::{GAP_NS, Open, Step, Steps};
use crate::correlate::ride::TimeClass;
use std::collections::VecDeque;

/// Programs ask when they have waited, or an iteration later. Who rode in a step is looked for later still.
const HOLD_NS: u64 = 100_000_000;

/// A program that has asked may ask again for so long.
const ASKS_NS: u64 = 1_000_000_000;

/// Closed steps that are held; the oldest goes first.
const MOST_HELD: usize = 256;

/// Marks of a process that are remembered: allocators make dozens for each that is asked about.
const MOST_MARKS: usize = 1024;

/// Parts of a step that are told apart.
const MOST_PARTS: usize = 16;

/// What an event's time may be off by: "a resolution of around 0.5 microseconds" (CUDA runtime API,
/// `cudaEventElapsedTime`).
const RESOLUTION_NS: u64 = 500;

/// The GPU waits for launches in less than this part of the time, and only for the first pieces, no more than this part
/// of them: that is taken off, and the rest is what it worked, whatever each piece took.
const IDLE: u64 = 16;

/// An event in a stream that has nothing to do gets its time after it was asked for and before the next thing is: that is
/// known to this part of the time in question, or the GPU's waiting is not.
const SURE: u64 = 64;

/// What the program was told.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Stream of both events.
    pub stream: u64,
    /// Their marks.
    pub marks: (u64, u64),
    /// The time between them, nanoseconds.
    pub took_ns: u64,
    /// When the program was told, `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
}

/// An event that was recorded.
#[derive(Clone, Copy, Debug)]
struct Mark {
    mark: u64,
    stream: u64,
    tid: u32,
    time_ns: u64,
}

/// What may still be timed, and what is needed to do so.
#[derive(Debug, Default)]
pub struct Clock {
    /// In the order in which they were made.
    marks: VecDeque<Mark>,
    /// Closed steps in their order, while the program may ask about one of them.
    held: VecDeque<Step>,
    /// Until when that may be.
    until_ns: u64,
}

/// The work of a step between marks of its stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts(Vec<Part>);

/// Work between two marks.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Part {
    /// The last mark before it, if there was one.
    after: Option<u64>,
    /// The mark behind it, if there was one when it closed.
    until: Option<u64>,
    /// Weight of what the step has before it, and its own.
    weight: (u64, u64),
    /// When the last of it was sent.
    last_ns: u64,
    /// It had to wait for other streams.
    follows: bool,
}

/// What events say of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// GPU time of the step at least and at most, nanoseconds.
    pub bounds_ns: (u64, u64),
    /// Weight of the work between the events.
    weight: u64,
    /// That is all of it.
    whole: bool,
}

impl Clock {
    /// A thread recorded an event in a stream.
    pub fn mark(&mut self, mark: u64, stream: u64, (tid, time_ns): (u32, u64)) {
        if self.marks.len() == MOST_MARKS {
            self.marks.pop_front();
        }
        self.marks.push_back(Mark { mark, stream, tid, time_ns });
    }

    /// The newest mark of a stream.
    pub fn newest(&self, stream: u64) -> Option<u64> {
        self.marks.iter().rev().find(|known| known.stream == stream).map(|known| known.mark)
    }

    /// A step has closed: it goes to `closed`, at once or in its turn.
    pub fn give(&mut self, step: Step, closed: &mut Vec<Step>) {
        if self.held.is_empty() && !self.is_awaited(&step, step.end_ns) {
            return closed.push(step);
        }
        if self.held.len() == MOST_HELD {
            closed.extend(self.held.pop_front());
        }
        self.held.push_back(step);
    }

    /// Steps that are no longer held go to `closed`.
    pub fn let_go(&mut self, now_ns: u64, closed: &mut Vec<Step>) {
        while self.held.front().is_some_and(|step| !self.is_awaited(step, now_ns)) {
            closed.extend(self.held.pop_front());
        }
    }

    /// Steps that are held.
    #[cfg(test)]
    pub fn held(&self) -> impl Iterator<Item = &Step> {
        self.held.iter()
    }

    /// The program may ask about the step yet.
    fn is_awaited(&self, step: &Step, now_ns: u64) -> bool {
        let is_between = |part: &Part| part.after.is_some() && part.until.is_some();
        step.timed.is_none_or(|timed| !timed.whole)
            && step.end_ns < self.until_ns
            && step.end_ns.saturating_add(HOLD_NS) > now_ns
            && step.parts.0.iter().any(is_between)
    }

    fn find(&self, mark: u64, stream: u64) -> Option<Mark> {
        let place = self.marks.binary_search_by_key(&mark, |known| known.mark).ok()?;
        self.marks.get(place).copied().filter(|known| known.stream == stream)
    }
}

impl Parts {
    /// Another part, behind the others.
    fn push(&mut self, part: Part) {
        let is_full = self.0.len() >= MOST_PARTS;
        match self.0.last_mut() {
            Some(last) if is_full => {
                last.until = part.until;
                last.weight.1 += part.weight.1;
                last.last_ns = part.last_ns;
                last.follows |= part.follows;
            }
            _ => self.0.push(part),
        }
    }

    /// Those of later work, behind `weight`.
    pub fn append(&mut self, later: &Self, weight: u64) {
        for part in &later.0 {
            self.push(Part { weight: (weight + part.weight.0, part.weight.1), ..*part });
        }
    }
}

impl Part {
    fn is_between(&self, (from, to): (u64, u64)) -> bool {
        self.after.is_some_and(|after| after >= from) && self.until.is_some_and(|until| until <= to)
    }

    fn is_beside(&self, (from, to): (u64, u64)) -> bool {
        self.until.is_some_and(|until| until <= from) || self.after.is_some_and(|after| after >= to)
    }
}

impl Open {
    /// What it has by now is a part by itself, before a mark if there is one.
    pub(super) fn seal(&mut self, mark: Option<u64>) {
        self.sealed = mark;
        if !self.step.is_empty() {
            let (weight, last_ns) = (self.step.work.weight(), self.step.end_ns);
            let follows = !self.after.is_empty();
            self.step.parts.push(Part {
                after: self.began,
                until: mark,
                weight: (0, weight),
                last_ns,
                follows,
            });
        }
    }

    /// Nothing more comes to it.
    pub(super) fn close(&mut self) {
        if self.sealed.is_none() {
            self.seal(None);
        }
    }

    fn is_beside(&self, (from, to): (u64, u64)) -> bool {
        self.sealed.is_some_and(|sealed| sealed <= from) || self.began.is_some_and(|began| began >= to)
    }
}

impl Steps {
    /// The program was told how much time lies between two marks.
    pub(super) fn timed(&mut self, asked: Asked) {
        let (from, to) = asked.marks;
        let (Some(first), Some(last)) =
            (self.clock.find(from, asked.stream), self.clock.find(to, asked.stream))
        else {
            return;
        };
        self.clock.until_ns = asked.time_ns.saturating_add(ASKS_NS);
        let most_ns = asked.time_ns.saturating_sub(first.time_ns) + RESOLUTION_NS;
        // Where less time has passed since the first was recorded, it was recorded again, and that was lost.
        if from >= to || first.tid != last.tid || asked.took_ns > most_ns {
            return;
        }
        let Some((index, parts)) = self.between(first, asked.marks) else { return };
        if let Some(step) = self.clock.held.get_mut(index)
            && step.take_time(asked.took_ns, first.time_ns, &parts)
        {
            let weight = step.work.weight();
            self.paces.entry(step.device).or_default().teach(step.stream, step.gpu_ns, weight);
        }
    }

    /// The step that alone has the work between two marks, and its parts there.
    fn between(&self, first: Mark, marks: (u64, u64)) -> Option<(usize, Vec<Part>)> {
        let is_there = |open: &&Open| open.step.stream == first.stream && !open.step.is_empty();
        if !self.open.iter().filter(is_there).all(|open| open.is_beside(marks)) {
            return None;
        }
        let is_there = |step: &Step| {
            step.stream == first.stream && !step.parts.0.iter().all(|part| part.is_beside(marks))
        };
        let mut there = self.clock.held.iter().enumerate().filter(|(_, step)| is_there(step));
        let (Some((index, step)), None) = (there.next(), there.next()) else { return None };
        let parts: Vec<Part> = step.parts.0.iter().filter(|part| !part.is_beside(marks)).copied().collect();
        // What was sent between the first mark and the step would be in it, or have a mark behind it.
        let is_next = parts.first().is_some_and(|part| part.after == Some(marks.0));
        let is_alone = self.is_alone(step, first.time_ns) && step.work.host_functions == 0;
        let are_timed = parts.iter().all(|part| part.is_between(marks) && !part.follows);
        (step.tid == first.tid && is_next && is_alone && are_timed).then_some((index, parts))
    }

    /// Nothing but what its thread sent to its stream was under way from a time to the step's end.
    fn is_alone(&self, step: &Step, from_ns: u64) -> bool {
        let lane = step.lane();
        let is_other = |other: &Step| {
            !other.is_empty()
                && lane.meets(other.lane())
                && (other.tid, other.stream) != (step.tid, step.stream)
                && other.start_ns < step.end_ns
        };
        !self.open.iter().any(|open| is_other(&open.step))
            && self.told.is_alone((lane, step.stream), (from_ns, step.end_ns))
    }
}

impl Step {
    /// The program's own events say something of it.
    #[cfg(test)]
    pub fn is_timed(&self) -> bool {
        self.timed.is_some()
    }

    /// The stream took `took_ns` for some parts, from an event on that was recorded at `first_ns`; whether the GPU worked
    /// for the step, and for nothing else, all that time.
    fn take_time(&mut self, took_ns: u64, first_ns: u64, parts: &[Part]) -> bool {
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return false };
        let whole = parts.len() == self.parts.0.len();
        let weight = last.weight.0 + last.weight.1 - first.weight.0;
        // The same again, or less, says nothing new.
        if self.timed.is_some_and(|known| known.weight >= weight) {
            return false;
        }
        // The last event came at the earliest so long after the first was recorded, and from when the last piece was
        // sent until then there was work.
        let gaps_ns = self.work.pieces().saturating_mul(GAP_NS);
        let least = (first_ns + took_ns).saturating_sub(last.last_ns + gaps_ns + RESOLUTION_NS);
        if least > self.gpu_bounds_ns().1 {
            return false;
        }
        let most = if whole { took_ns + RESOLUTION_NS } else { u64::MAX };
        self.timed = Some(Timing { bounds_ns: (least, most), weight, whole });
        let sent = self.sent.part(first.weight.0, weight);
        let sent_ns = sent.first_ns().unwrap_or(first_ns).max(first_ns);
        // The stream got to the first event when that was there and what had been sent before was done.
        let start_ns = first_ns.midpoint(sent_ns).max(self.floor_ns);
        let (busy_ns, before) = sent.tightest(weight, start_ns + took_ns, start_ns);
        let busy_ns = busy_ns.min(took_ns);
        let is_sure = sent_ns.saturating_sub(first_ns.max(self.floor_ns)) <= took_ns / SURE;
        let is_busy = is_sure && busy_ns >= took_ns - took_ns / IDLE && before <= weight / IDLE;
        self.settle_timed(busy_ns, (weight, whole), is_busy);
        whole && is_busy
    }

    fn settle_timed(&mut self, busy_ns: u64, (weight, whole): (u64, bool), is_busy: bool) {
        let (lo, hi) = self.gpu_bounds_ns();
        let all = u128::from(busy_ns) * u128::from(self.work.weight()) / u128::from(weight.max(1));
        self.gpu_ns = match (whole, self.work.unknown_graphs) {
            (true, _) => busy_ns,
            // If what lies outside takes as long as what lies between.
            (false, 0) => u64::try_from(all).unwrap_or(u64::MAX),
            (false, _) => self.gpu_ns,
        }
        .clamp(lo, hi);
        if whole {
            self.class = if is_busy { TimeClass::Measured } else { TimeClass::Bounded };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::KernelKey;
    use crate::correlate::device::Devices;
    use crate::correlate::operation::{Operation, Waited};
    use crate::probe::Direction;

    const STREAM: u64 = 5;
    const US: u64 = 1000;
    /// How long a kernel takes.
    const KERNEL_NS: u64 = 50 * US;

    /// How long kernels take behind an event that was asked for two microseconds before the first of them.
    fn took_ns(kernels: u64) -> u64 {
        kernels * KERNEL_NS + US
    }

    /// A thread that times its work, and what became of it.
    #[derive(Default)]
    struct Rig {
        steps: Steps,
        closed: Vec<Step>,
        now_ns: u64,
        marks: u64,
    }

    impl Rig {
        /// A program that has asked before, and whose first step was not waited for.
        fn new() -> Self {
            let mut rig = Self { now_ns: 1_000_000, ..Self::default() };
            let asked = rig.bracket(&[STREAM; 2]);
            rig.wait(asked, took_ns(2));
            rig.asks(asked, took_ns(2));
            assert_eq!(rig.closed.len(), 1, "nobody knew that it would ask");
            rig.closed.clear();
            rig
        }

        fn take(&mut self, tid: u32, operation: &Operation) {
            self.now_ns += 2 * US;
            self.steps.operation((1, tid, self.now_ns), operation, &Devices::default(), &mut self.closed);
        }

        fn launch(&mut self, stream: u64) {
            self.take(1, &Operation::Launch { kernel: KernelKey { pid: 1, function: 7 }, stream });
        }

        fn copy(&mut self) {
            let copy = Operation::Copy {
                direction: Direction::DtoH,
                count: 1,
                bytes: 4,
                stream: STREAM,
                blocks: false,
            };
            self.take(1, &copy);
        }

        fn mark(&mut self) -> u64 {
            self.marks += 1;
            self.take(1, &Operation::Marked { stream: STREAM, mark: self.marks });
            self.marks
        }

        /// Kernels in these streams between two events.
        fn bracket(&mut self, streams: &[u64]) -> (u64, u64) {
            let first = self.mark();
            streams.iter().for_each(|stream| self.launch(*stream));
            (first, self.mark())
        }

        /// Waits for a mark; the work took so long.
        fn wait(&mut self, (_, mark): (u64, u64), took_ns: u64) {
            let entered_ns = self.now_ns;
            self.now_ns += took_ns;
            let what = Waited::Event(Some((STREAM, mark)));
            self.take(1, &Operation::Synchronized { what, entered_ns });
        }

        fn asks(&mut self, marks: (u64, u64), took_ns: u64) {
            self.take(1, &Operation::Timed { stream: STREAM, marks, took_ns });
        }

        /// Everything that was held, a while later.
        fn let_go(mut self) -> Vec<(TimeClass, u64)> {
            let held = self.steps.clock.held.len();
            self.steps.close_paused(self.now_ns + HOLD_NS, &mut self.closed);
            assert!(self.steps.clock.held.is_empty() && self.closed.len() >= held);
            self.closed.iter().map(|step| (step.class, step.gpu_ns)).collect()
        }
    }

    #[test]
    fn events_around_a_step_measure_it() {
        let mut rig = Rig::new();
        let asked = rig.bracket(&[STREAM; 4]);
        // The wait comes back late, which says nothing of the GPU.
        rig.wait(asked, 9 * KERNEL_NS);
        assert!(rig.closed.is_empty(), "the program may ask");
        rig.asks(asked, took_ns(4));
        let [step] = rig.closed.as_slice() else { panic!("{:?}", rig.closed) };
        assert_eq!((step.class, step.gpu_ns), (TimeClass::Measured, 4 * KERNEL_NS));
        let (lo, hi) = step.gpu_bounds_ns();
        assert!(lo >= 3 * KERNEL_NS && hi == took_ns(4) + RESOLUTION_NS, "{lo} {hi}");
    }

    #[test]
    fn a_program_that_asks_an_iteration_later_is_told_of_the_right_one() {
        let mut rig = Rig::new();
        let first = rig.bracket(&[STREAM; 4]);
        let second = rig.bracket(&[STREAM; 6]);
        rig.wait(first, 4 * KERNEL_NS);
        rig.wait(second, 6 * KERNEL_NS);
        rig.asks(second, 6 * KERNEL_NS);
        assert!(rig.closed.is_empty(), "steps keep their order");
        rig.asks(first, took_ns(4));
        let measured = |kernels| (TimeClass::Measured, kernels * KERNEL_NS);
        assert_eq!(rig.let_go(), [measured(4), measured(6)]);
    }

    #[test]
    fn a_program_that_does_not_ask_again_holds_nothing_up_for_long() {
        let mut rig = Rig::new();
        let asked = rig.bracket(&[STREAM; 4]);
        rig.wait(asked, 4 * KERNEL_NS);
        rig.now_ns += HOLD_NS;
        rig.launch(STREAM);
        assert_eq!((rig.closed.len(), rig.closed[0].class), (1, TimeClass::Bounded));
    }

    #[test]
    fn events_around_a_part_tell_of_the_rest() {
        let mut rig = Rig::new();
        let asked = rig.bracket(&[STREAM; 4]);
        rig.copy();
        let end = rig.mark();
        rig.wait((0, end), 4 * KERNEL_NS);
        rig.asks(asked, took_ns(4));
        // A copy of this size is taken for an eighth of a kernel.
        assert_eq!(rig.let_go(), [(TimeClass::Bounded, 4 * KERNEL_NS + KERNEL_NS / 8)]);
    }

    #[test]
    fn a_gpu_that_waits_for_launches_is_not_measured() {
        let mut rig = Rig::new();
        let first = rig.mark();
        for _ in 0..4 {
            rig.launch(STREAM);
            rig.now_ns += 2 * KERNEL_NS;
        }
        let asked = (first, rig.mark());
        rig.wait(asked, US);
        rig.asks(asked, 7 * KERNEL_NS);
        let [(class, gpu_ns)] = rig.let_go()[..] else { panic!("one step") };
        assert!(class == TimeClass::Bounded && gpu_ns < 7 * KERNEL_NS, "{gpu_ns}");
    }

    /// One bracket, spoilt by `spoil` before the program waits and asks.
    fn spoilt(spoil: impl Fn(&mut Rig), marks: impl Fn((u64, u64)) -> (u64, u64)) -> bool {
        let mut rig = Rig::new();
        let first = rig.mark();
        (0..2).for_each(|_| rig.launch(STREAM));
        spoil(&mut rig);
        (0..2).for_each(|_| rig.launch(STREAM));
        let asked = (first, rig.mark());
        rig.wait(asked, 9 * KERNEL_NS);
        rig.asks(marks(asked), took_ns(4));
        rig.let_go().iter().all(|(class, _)| *class != TimeClass::Measured)
    }

    #[test]
    fn what_else_takes_the_streams_time_leaves_nothing_measured() {
        let same = |marks| marks;
        assert!(!spoilt(|_| {}, same), "without it there is");
        assert!(spoilt(|rig| rig.launch(6), same), "another stream works");
        assert!(spoilt(|rig| rig.take(2, &Operation::HostFunction { stream: 7 }), same), "another thread");
        assert!(spoilt(|rig| rig.take(1, &Operation::HostFunction { stream: STREAM }), same), "the CPU");
        let follows = Operation::Follows { stream: STREAM, of: (6, 1) };
        let waits = |rig: &mut Rig| {
            rig.mark();
            rig.take(1, &follows);
        };
        assert!(spoilt(waits, same), "another stream is waited for");
    }

    #[test]
    fn a_mark_that_was_lost_leaves_nothing_measured() {
        let none = |_: &mut Rig| {};
        assert!(spoilt(none, |(first, last)| (first - 2, last)), "the first: that of the step before");
        assert!(spoilt(none, |(first, last)| (first, last - 2)), "the last");
        assert!(spoilt(none, |(first, last)| (first - 2, last - 2)), "both");
        assert!(spoilt(none, |(first, last)| (first, last + 1)), "nobody knows of it");
        let mut rig = Rig::new();
        let first = rig.bracket(&[STREAM; 4]);
        rig.wait(first, 4 * KERNEL_NS);
        let second = rig.bracket(&[STREAM; 4]);
        rig.wait(second, 4 * KERNEL_NS);
        rig.asks((first.0, second.1), 4 * KERNEL_NS);
        rig.asks((second.0, second.1), 400 * KERNEL_NS);
        assert!(rig.let_go().iter().all(|(class, _)| *class == TimeClass::Bounded), "longer than there was");
    }

    #[test]
    fn marks_and_steps_without_end_find_no_room() {
        let mut rig = Rig::new();
        for _ in 0..2 * MOST_MARKS {
            let asked = rig.bracket(&[STREAM]);
            rig.wait(asked, US);
            assert!(rig.steps.clock.held.len() <= MOST_HELD && rig.steps.clock.marks.len() <= MOST_MARKS);
        }
        let asked = rig.mark();
        for _ in 0..3 * MOST_PARTS {
            rig.launch(STREAM);
            rig.mark();
        }
        rig.wait((0, rig.marks), 99 * KERNEL_NS);
        let step = rig.steps.clock.held.back().unwrap();
        assert!(step.parts.0.len() <= MOST_PARTS && step.work.launches == 3 * MOST_PARTS as u64);
        let kernels = step.work.launches;
        rig.asks((asked, rig.marks), took_ns(kernels));
        assert_eq!(rig.let_go().last(), Some(&(TimeClass::Measured, kernels * KERNEL_NS)));
    }
}
