//! The waiting queue between the connections' threads and the engine.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The model ended it.
    Stop,
    /// `max_tokens` were made.
    Length,
}

impl Finish {
    /// The name on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// What the engine tells a request's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// The request entered its first step.
    Admitted {
        /// That step's index.
        step: u64,
    },
    /// One token, and whether it is the last.
    Token {
        /// Set on the last token.
        finish: Option<Finish>,
    },
}

/// A request on its way into the engine.
pub(crate) struct Submission {
    /// The id on the wire.
    pub(crate) id: String,
    /// At least 1.
    pub(crate) prompt_tokens: usize,
    /// At least 1.
    pub(crate) max_tokens: usize,
    /// Seeds early ends, so that a request ends alike in every run.
    pub(crate) seed: u64,
    /// Where the tokens go.
    pub(crate) events: Sender<Event>,
    /// Set by the connection when its client has gone.
    pub(crate) aborted: Arc<AtomicBool>,
}

impl Submission {
    /// Whether the client has gone.
    pub(crate) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }
}

/// Why a submission was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// As many requests wait as may wait.
    Full,
    /// The server is ending.
    Closed,
}

/// A bounded first-in first-out queue that the engine can sleep on.
pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    capacity: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Submission>,
    closed: bool,
}

impl Queue {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), capacity }
    }

    /// Appends a request.
    pub(crate) fn submit(&self, submission: Submission) -> Result<(), Rejection> {
        let mut state = self.state();
        if state.closed {
            return Err(Rejection::Closed);
        }
        if state.waiting.len() >= self.capacity {
            return Err(Rejection::Full);
        }
        state.waiting.push_back(submission);
        self.arrived.notify_one();
        Ok(())
    }

    /// Ends the engine: nothing is taken any more, and what waits is dropped.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.waiting.clear();
        self.arrived.notify_all();
    }

    /// Lets the engine look at the queue; with `idle` it first sleeps until there is something in it. None once
    /// the queue is closed.
    pub(super) fn with_waiting<T>(
        &self,
        idle: bool,
        look: impl FnOnce(&mut VecDeque<Submission>) -> T,
    ) -> Option<T> {
        let mut state = self.state();
        while idle && state.waiting.is_empty() && !state.closed {
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (!state.closed).then(|| look(&mut state.waiting))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
