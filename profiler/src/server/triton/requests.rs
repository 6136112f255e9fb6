//! Requests of a Triton process by their pointers, and the responses that belong to them.
//!
//! In: calls. Out: requests that are met, their tokens and ends. A pointer is used again after its request was released,
//! so what was known under it is dropped when it is made, given or deleted anew.

use super::Voice;
use super::executions::Execution;
use crate::evidence::Evidence;
use crate::server::said::{Counts, Gauges, Inner, Moment, Reason, Saying, Tie};
use std::collections::BTreeMap;

/// Objects of a kind that are followed in a process; the one with the lowest address is forgotten beyond.
const MAX_OBJECTS: usize = 16_384;
/// Models of which is known whether they send one response or many.
const MAX_MODELS: usize = 1024;

/// A request as the frontend made it.
#[derive(Debug, Default)]
struct Made {
    model: Option<Box<str>>,
    id: Option<Box<str>>,
}

/// A request in the server.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) stage: Stage,
    /// The backend gave it back.
    pub(super) released: bool,
    model: Option<Box<str>>,
    /// Responses that are made and not sent, and factories that can make more.
    open: u32,
    /// It may have several responses: a factory was made for it, or one was sent that was not the last.
    decoupled: bool,
    tokens: u64,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Waiting,
    Executing,
    /// Its last response was sent, or it failed.
    Ended,
}

/// A response that is not sent yet.
#[derive(Clone, Copy, Debug)]
struct Response {
    inner: Inner,
    filled: bool,
}

/// A server process.
#[derive(Debug, Default)]
pub(super) struct Process {
    made: BTreeMap<u64, Made>,
    /// The request that a pointer stands for now.
    pub(super) pointers: BTreeMap<u64, Inner>,
    pub(super) live: BTreeMap<Inner, Live>,
    responses: BTreeMap<u64, Response>,
    factories: BTreeMap<u64, Inner>,
    /// Whether a model sends several responses.
    several: BTreeMap<Box<str>, bool>,
    /// Calls of `ResponseOutput` are heard: a response without one is empty.
    hears_outputs: bool,
    /// What a thread gave to the server last: a call that fails is told without its arguments.
    given: BTreeMap<u32, u64>,
    /// By thread.
    pub(super) executions: BTreeMap<u32, Execution>,
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V) {
    if map.len() >= MAX_OBJECTS {
        map.pop_first();
    }
    map.insert(key, value);
}

impl Process {
    pub(super) fn made(&mut self, pointer: u64, model: Option<&str>, voice: &mut Voice<'_>) {
        self.leave(pointer, voice);
        put(&mut self.made, pointer, Made { model: model.map(Into::into), id: None });
    }

    pub(super) fn named(&mut self, pointer: u64, id: Option<&str>) {
        let made = self.made.entry(pointer).or_default();
        made.id = id.filter(|id| !id.is_empty()).map(Into::into);
    }

    /// A request is given to the server.
    pub(super) fn arrives(&mut self, pointer: u64, voice: &mut Voice<'_>) {
        self.leave(pointer, voice);
        put(&mut self.given, voice.tid, pointer);
        let made = self.made.get(&pointer);
        let tie = Tie {
            outer_id: made.and_then(|made| made.id.clone()),
            thread: Some((voice.pid, voice.tid)),
            ..Tie::default()
        };
        let model = made.and_then(|made| made.model.clone());
        let inner = self.meet(pointer, tie, model, voice);
        voice.say(Saying::Reached {
            inner,
            moment: Moment::Enqueued,
            at_ns: voice.time_ns,
            evidence: Evidence::E1,
        });
    }

    pub(super) fn meet(
        &mut self,
        pointer: u64,
        tie: Tie,
        model: Option<Box<str>>,
        voice: &mut Voice<'_>,
    ) -> Inner {
        let inner = voice.number();
        // What is not known yet may generate.
        let generates = model.as_ref().and_then(|model| self.several.get(model)).copied().unwrap_or(true);
        voice.say(Saying::Met { inner, tie, generates });
        let live =
            Live { stage: Stage::Waiting, released: false, model, open: 0, decoupled: false, tokens: 0 };
        put(&mut self.pointers, pointer, inner);
        put(&mut self.live, inner, live);
        inner
    }

    /// The server did not take it: it stays with the frontend.
    pub(super) fn refused(&mut self, voice: &mut Voice<'_>) {
        let pointer = self.given.remove(&voice.tid);
        if let Some(inner) = pointer.and_then(|pointer| self.pointers.remove(&pointer)) {
            self.end(inner, Reason::Error, voice);
            self.live.remove(&inner);
        }
    }

    pub(super) fn response(&mut self, response: u64, request: u64) {
        if let Some(inner) = self.pointers.get(&request).copied() {
            self.opened(inner, false);
            put(&mut self.responses, response, Response { inner, filled: false });
        }
    }

    pub(super) fn factory(&mut self, factory: u64, request: u64) {
        if let Some(inner) = self.pointers.get(&request).copied() {
            self.opened(inner, true);
            put(&mut self.factories, factory, inner);
        }
    }

    pub(super) fn response_of_factory(&mut self, response: u64, factory: u64) {
        if let Some(inner) = self.factories.get(&factory).copied() {
            self.opened(inner, true);
            put(&mut self.responses, response, Response { inner, filled: false });
        }
    }

    fn opened(&mut self, inner: Inner, decoupled: bool) {
        if let Some(live) = self.live.get_mut(&inner) {
            live.open = live.open.saturating_add(1);
            live.decoupled |= decoupled;
        }
    }

    pub(super) fn filled(&mut self, response: u64) {
        self.hears_outputs = true;
        if let Some(response) = self.responses.get_mut(&response) {
            response.filled = true;
        }
    }

    /// A response is sent: of a model with several, each that has outputs is a token.
    pub(super) fn sent(&mut self, response: u64, last: bool, failed: bool, voice: &mut Voice<'_>) {
        let Some(Response { inner, filled }) = self.responses.remove(&response) else { return };
        let filled = filled || !self.hears_outputs;
        let Some(live) = self.live.get_mut(&inner) else { return };
        live.open = live.open.saturating_sub(1);
        live.decoupled |= !last;
        if live.decoupled && filled && !failed && live.stage != Stage::Ended {
            live.tokens = live.tokens.saturating_add(1);
            voice.say(Saying::Tokens { inner, count: 1, at_ns: voice.time_ns });
        }
        if last || failed {
            self.end(inner, if failed { Reason::Error } else { Reason::Unsaid }, voice);
        }
        self.forget(inner, voice);
    }

    /// Flags are sent without a response.
    pub(super) fn flagged(&mut self, factory: u64, last: bool, voice: &mut Voice<'_>) {
        if let Some(inner) = self.factories.get(&factory).copied().filter(|_| last) {
            self.end(inner, Reason::Unsaid, voice);
        }
    }

    pub(super) fn factory_gone(&mut self, factory: u64, voice: &mut Voice<'_>) {
        if let Some(inner) = self.factories.remove(&factory) {
            if let Some(live) = self.live.get_mut(&inner) {
                live.open = live.open.saturating_sub(1);
            }
            self.forget(inner, voice);
        }
    }

    /// The backend gives a request back. Its responses may still follow; the pointer may stand for another from now on.
    pub(super) fn released(&mut self, pointer: u64, again: bool, voice: &mut Voice<'_>) {
        let Some(inner) = self.pointers.get(&pointer).copied() else { return };
        for execution in self.executions.values_mut() {
            execution.released(inner);
        }
        if let Some(live) = self.live.get_mut(&inner) {
            live.released = !again;
            if again && live.stage == Stage::Executing {
                live.stage = Stage::Waiting;
            }
        }
        if again {
            return;
        }
        self.pointers.remove(&pointer);
        self.forget(inner, voice);
    }

    pub(super) fn deleted(&mut self, pointer: u64, voice: &mut Voice<'_>) {
        self.made.remove(&pointer);
        self.leave(pointer, voice);
    }

    /// A pointer stands for nothing any more.
    fn leave(&mut self, pointer: u64, voice: &mut Voice<'_>) {
        if let Some(inner) = self.pointers.remove(&pointer) {
            self.end(inner, Reason::Unsaid, voice);
            self.live.remove(&inner);
        }
    }

    pub(super) fn end(&mut self, inner: Inner, reason: Reason, voice: &mut Voice<'_>) {
        let Some(live) = self.live.get_mut(&inner).filter(|live| live.stage != Stage::Ended) else { return };
        live.stage = Stage::Ended;
        if live.decoupled {
            let counts = Counts { generated: Some(live.tokens), ..Counts::default() };
            voice.say(Saying::Counts { inner, counts });
        }
        if let Some(model) = live.model.clone()
            && self.several.len() < MAX_MODELS
        {
            self.several.insert(model, live.decoupled);
        }
        voice.end(inner, reason);
        self.gauge(voice);
    }

    /// Forgets a request when nothing more can come of it.
    fn forget(&mut self, inner: Inner, voice: &mut Voice<'_>) {
        if self.live.get(&inner).is_some_and(|live| live.released && live.open == 0) {
            self.end(inner, Reason::Unsaid, voice);
            self.live.remove(&inner);
        }
    }

    /// Says how many wait and how many are executed.
    pub(super) fn gauge(&self, voice: &mut Voice<'_>) {
        let count = |stage: Stage| self.live.values().filter(|live| live.stage == stage).count() as u64;
        voice.say(Saying::Gauges(Gauges {
            running: Some(count(Stage::Executing)),
            waiting: Some(count(Stage::Waiting)),
            ..Gauges::default()
        }));
    }
}
