//! What threads say that they work for: the newest span of each (OTEP 4947), and what that says of work and of requests.
//!
//! In: [`SpanContext`]s as they change. Out: that of a thread at a call of its own, and nothing else: a thread that serves
//! many requests in turn works for one at a time.

use super::Engine;
use crate::decode::{Change, SpanContext};
use std::collections::HashMap;

/// Threads of which it is remembered; then all are learnt anew as they change.
const MOST_THREADS: usize = 65_536;

/// The spans that threads have active.
#[derive(Debug, Default)]
pub struct Contexts {
    active: HashMap<(u32, u32), SpanContext>,
    /// Threads that found no room.
    pub forgotten: u64,
}

impl Contexts {
    /// A thread works for another span than before, or for none.
    pub fn set(&mut self, thread: (u32, u32), context: Option<SpanContext>) {
        let Some(context) = context else {
            self.active.remove(&thread);
            return;
        };
        if self.active.len() >= MOST_THREADS && !self.active.contains_key(&thread) {
            self.forgotten += self.active.len() as u64;
            self.active.clear();
        }
        self.active.insert(thread, context);
    }

    /// What a thread works for.
    pub fn of(&self, thread: (u32, u32)) -> Option<SpanContext> {
        self.active.get(&thread).copied()
    }

    /// A thread ended, or all of a process.
    pub fn gone(&mut self, pid: u32, thread: Option<u32>) {
        match thread {
            Some(tid) => drop(self.active.remove(&(pid, tid))),
            None => self.active.retain(|(of, _), _| *of != pid),
        }
    }

    /// How much is kept.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.active.len()
    }
}

impl Engine {
    /// A thread works for another span than before, or for none: what it moves through sockets is for that from now on.
    pub fn works_for(&mut self, thread: (u32, u32), context: Option<SpanContext>) {
        self.contexts.set(thread, context);
    }

    /// The same, and for its calls.
    pub(super) fn calls_for(&mut self, thread: (u32, u32), context: Option<SpanContext>) {
        self.totals.joined += 1;
        self.works_for(thread, context);
        self.process(thread.0).steps.works_for(thread.1, context);
    }

    /// What is known of a process's threads when it changes.
    pub(super) fn contexts_of(&mut self, pid: u32, tid: u32, change: Change) {
        let gone = match change {
            Change::Exited => Some(tid),
            Change::Executed => None,
            _ => return,
        };
        self.contexts.gone(pid, gone);
        if let Some(process) = self.processes.get_mut(&pid) {
            process.steps.threads_gone(gone);
        }
    }
}

/// What those who sent a piece of work worked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nothing was sent.
    #[default]
    Nothing,
    /// Nobody said it.
    Unsaid,
    /// All for this span; its id is 0 where they are several of one trace.
    One(SpanContext),
    /// For several traces, or some of it was said.
    Several,
}

impl Origin {
    /// What a thread works for that sends something.
    #[must_use]
    pub fn of(context: Option<SpanContext>) -> Self {
        context.map_or(Self::Unsaid, Self::One)
    }

    /// With other work.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, one) | (one, Self::Nothing) => one,
            (Self::Unsaid, Self::Unsaid) => Self::Unsaid,
            (Self::One(a), Self::One(b)) if a == b => Self::One(a),
            (Self::One(a), Self::One(b)) if a.trace_id == b.trace_id => {
                Self::One(SpanContext { span_id: [0; 8], ..a })
            }
            _ => Self::Several,
        }
    }

    /// The trace that all of it is for.
    #[must_use]
    pub fn one(self) -> Option<SpanContext> {
        if let Self::One(context) = self { Some(context) } else { None }
    }
}

/// What threads worked for when they moved the bytes of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    read: Option<SpanContext>,
    written: Option<SpanContext>,
}

impl Heard {
    /// A thread moved bytes of it. The first who answers stands, unless what it said was of another trace than the
    /// caller's.
    pub fn hear(&mut self, context: SpanContext, answers: bool, caller: Option<[u8; 16]>) {
        let slot = if answers { &mut self.written } else { &mut self.read };
        let is_callers = |context: SpanContext| caller.is_none_or(|caller| caller == context.trace_id);
        if slot.is_none_or(|known| !is_callers(known) && is_callers(context)) {
            *slot = Some(context);
        }
    }

    /// The server's own span for a request of the trace `caller`, where it came with one. Who answers knows it; who reads
    /// may not have begun it. A span of another trace is not taken for it.
    #[must_use]
    pub fn span(&self, caller: Option<[u8; 16]>) -> Option<SpanContext> {
        let is_callers = |context: &SpanContext| caller.is_none_or(|caller| caller == context.trace_id);
        self.written.filter(is_callers).or(self.read.filter(is_callers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(trace: u8, span: u8) -> SpanContext {
        SpanContext { trace_id: [trace; 16], span_id: [span; 8], flags: Some(1) }
    }

    #[test]
    fn work_is_for_one_trace_or_for_none_that_can_be_named() {
        let one = |trace, span| Origin::One(context(trace, span));
        for (a, b, both) in [
            (Origin::Nothing, one(1, 1), one(1, 1)),
            (one(1, 1), one(1, 1), one(1, 1)),
            (one(1, 1), one(1, 2), one(1, 0)),
            (one(1, 0), one(1, 2), one(1, 0)),
            (one(1, 1), one(2, 1), Origin::Several),
            (one(1, 1), Origin::Unsaid, Origin::Several),
            (Origin::Unsaid, Origin::Unsaid, Origin::Unsaid),
            (Origin::Several, one(1, 1), Origin::Several),
        ] {
            assert_eq!((a.and(b), b.and(a)), (both, both), "{a:?} {b:?}");
        }
        assert_eq!((one(1, 0).one(), Origin::Several.one()), (Some(context(1, 0)), None));
    }

    #[test]
    fn the_servers_span_is_of_the_callers_trace_and_of_who_answers() {
        let mut heard = Heard::default();
        heard.hear(context(1, 1), false, None);
        assert_eq!(heard.span(None), Some(context(1, 1)));
        heard.hear(context(9, 9), true, Some([1; 16]));
        assert_eq!(heard.span(Some([1; 16])), Some(context(1, 1)), "who answered spoke of another trace");
        heard.hear(context(1, 2), true, Some([1; 16]));
        heard.hear(context(1, 3), true, Some([1; 16]));
        assert_eq!(heard.span(Some([1; 16])), Some(context(1, 2)));
        assert_eq!(heard.span(Some([7; 16])), None);
    }

    #[test]
    fn threads_are_forgotten_with_their_process_and_beyond_the_bound() {
        let mut contexts = Contexts::default();
        contexts.set((1, 1), Some(context(1, 1)));
        contexts.set((1, 2), Some(context(2, 2)));
        contexts.set((2, 3), Some(context(3, 3)));
        contexts.set((2, 3), None);
        assert_eq!((contexts.of((1, 2)), contexts.of((2, 3))), (Some(context(2, 2)), None));
        contexts.gone(1, Some(2));
        assert_eq!(contexts.held(), 1);
        contexts.gone(1, None);
        assert_eq!(contexts.held(), 0);
        for tid in 0..=MOST_THREADS as u32 {
            contexts.set((3, tid), Some(context(1, 1)));
        }
        assert_eq!((contexts.held(), contexts.forgotten), (1, MOST_THREADS as u64));
    }
}
