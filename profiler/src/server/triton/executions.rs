//! Executions: a batch of requests that a backend was given.
//!
//! In: entry and return of `TRITONBACKEND_ModelInstanceExecute`, statistics. Out: steps. A backend that gives its
//! requests back only after its `Execute` returned works on them in its own time: such an execution is no step, as what
//! ran together is known inside of the backend only.

use super::Voice;
use super::requests::{Process, Stage};
use crate::evidence::Evidence;
use crate::server::said::{EngineStep, Inner, Member, Moment, Part, Reason, Saying, Tie};
use std::collections::BTreeSet;

/// Requests that one execution can have; Triton's `max_batch_size` is mostly below 256.
const MAX_MEMBERS: u64 = 65_536;
/// Stamps of a backend are this close to the call that reports them.
const LATE_NS: u64 = 3_600_000_000_000;

/// An execution that is under way.
#[derive(Debug)]
pub(super) struct Execution {
    instance: u64,
    thread: u32,
    start_ns: u64,
    members: Vec<Inner>,
    /// Those that the backend gave back.
    returned: BTreeSet<Inner>,
    complete: bool,
}

impl Execution {
    pub(super) fn released(&mut self, inner: Inner) {
        if self.members.contains(&inner) {
            self.returned.insert(inner);
        }
    }

    fn step(&self, end_ns: u64, failed: bool) -> EngineStep {
        let member = |inner: &Inner| Member {
            inner: *inner,
            part: Part::Unknown,
            computed: 0,
            generated: 0,
            evidence: Evidence::E0,
        };
        EngineStep {
            engine: self.instance,
            start_ns: Some(self.start_ns),
            end_ns,
            members: self.members.iter().map(member).collect(),
            is_complete: self.complete,
            tokens: None,
            failed,
            thread: Some(self.thread),
        }
    }
}

/// Arguments of `TRITONBACKEND_ModelInstanceReportStatistics(instance, request, success, exec_start_ns,
/// compute_start_ns, compute_end_ns, exec_end_ns)`. The stamps are of `std::chrono::steady_clock`, which is
/// `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statistics {
    success: bool,
    exec_start_ns: u64,
    compute_start_ns: u64,
    compute_end_ns: u64,
    exec_end_ns: u64,
}

impl Statistics {
    pub(super) fn read(args: &[u64]) -> Self {
        let arg = |index: usize| args.get(index).copied().unwrap_or(0);
        Self {
            // A `bool` is the low byte of its register.
            success: arg(2) & 0xff != 0,
            exec_start_ns: arg(3),
            compute_start_ns: arg(4),
            compute_end_ns: arg(5),
            // The seventh lies on the stack; some records have only six.
            exec_end_ns: if args.len() > 6 { arg(6) } else { arg(5) },
        }
    }

    fn fault(&self, now_ns: u64) -> Option<&'static str> {
        let Self { exec_start_ns, compute_start_ns, compute_end_ns, exec_end_ns, .. } = *self;
        let ordered = [exec_start_ns, compute_start_ns, compute_end_ns, exec_end_ns].is_sorted();
        match () {
            () if !ordered => Some("the stamps of an execution are not in order"),
            () if exec_end_ns > now_ns || now_ns - exec_end_ns > LATE_NS => {
                Some("the stamps of an execution are not of the monotonic clock")
            }
            () => None,
        }
    }
}

impl Process {
    /// A backend is given a batch.
    pub(super) fn executes(&mut self, instance: u64, pointers: &[u64], count: u64, voice: &mut Voice<'_>) {
        // The count is an `uint32_t`: the upper half of its register is not defined.
        let count = count & 0xffff_ffff;
        let seen = pointers.len().min(usize::try_from(count).unwrap_or(0));
        let pointers = pointers.get(..seen).unwrap_or_default();
        let distinct: BTreeSet<_> = pointers.iter().collect();
        if count == 0 || count > MAX_MEMBERS || distinct.len() != pointers.len() || distinct.contains(&0) {
            return voice.health.fail("a batch of requests is not one");
        }
        voice.health.pass();
        let mut members = Vec::with_capacity(pointers.len());
        for pointer in pointers {
            members.push(self.executing(*pointer, voice));
        }
        let complete = pointers.len() as u64 == count;
        let (thread, start_ns, returned) = (voice.tid, voice.time_ns, BTreeSet::new());
        let execution = Execution { instance, thread, start_ns, members, returned, complete };
        self.executions.insert(thread, execution);
        self.gauge(voice);
    }

    fn executing(&mut self, pointer: u64, voice: &mut Voice<'_>) -> Inner {
        let inner = match self.pointers.get(&pointer) {
            Some(inner) => *inner,
            // A request to warm the model up, a step of an ensemble, or one that waited before we listened: none was
            // given to the server by a call that was heard.
            None => self.meet(pointer, Tie::default(), None, voice),
        };
        if let Some(live) = self.live.get_mut(&inner).filter(|live| live.stage == Stage::Waiting) {
            live.stage = Stage::Executing;
        }
        voice.say(Saying::Reached {
            inner,
            moment: Moment::Scheduled,
            at_ns: voice.time_ns,
            evidence: Evidence::E1,
        });
        inner
    }

    /// The backend's `Execute` returned.
    pub(super) fn executed(&mut self, success: bool, voice: &mut Voice<'_>) {
        let Some(execution) = self.executions.remove(&voice.tid) else { return };
        if !success {
            // The requests were not taken: the server itself answers them with the error and releases them.
            voice.say(Saying::Step(Box::new(execution.step(voice.time_ns, true))));
            for inner in &execution.members {
                self.end(*inner, Reason::Error, voice);
                self.live.remove(inner);
            }
            self.pointers.retain(|_, inner| !execution.members.contains(inner));
            return;
        }
        if execution.returned.len() == execution.members.len() {
            voice.say(Saying::Step(Box::new(execution.step(voice.time_ns, false))));
        }
    }

    /// A backend reports when it computed a request.
    pub(super) fn reported(&mut self, pointer: u64, statistics: &Statistics, voice: &mut Voice<'_>) {
        if let Some(why) = statistics.fault(voice.time_ns) {
            return voice.health.fail(why);
        }
        voice.health.pass();
        let Some(inner) = self.pointers.get(&pointer).copied() else { return };
        let (moment, at_ns) = (Moment::Prefilling, statistics.compute_start_ns);
        voice.say(Saying::Reached { inner, moment, at_ns, evidence: Evidence::E0 });
        if !statistics.success {
            self.end(inner, Reason::Error, voice);
        }
    }
}
