//! What found no room, or is known in part only: every table has a size, and what it had to forget is counted.
//!
//! The tables, their sizes and what goes first are in `docs/limits.md`.

use super::Engine;

/// What tables had to forget, by table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Forgotten {
    /// Events of streams: waits for them close no step.
    pub events: u64,
    /// Graphs, executable ones and nodes: what they run is not known.
    pub graphs: u64,
    /// Captures whose end was not seen, and events and streams in captures.
    pub captures: u64,
    /// Contexts and streams: the device of threads that use them is not known.
    pub contexts: u64,
    /// Pieces of memory that were held: they are not live any more, and their side is not known.
    pub allocations: u64,
    /// Open steps that were closed before anybody waited for them.
    pub open_steps: u64,
    /// Mixes of kernels that were known.
    pub mixes: u64,
    /// Engines whose iterations were compared with each other, and threads that worked for engines or together.
    pub engines: u64,
    /// Pieces of GPU work of processes whose times are in no account of their own.
    pub times: u64,
    /// Requests that were let go before their last iterations were settled.
    pub settling: u64,
    /// Requests that were let go before their server had said its last word.
    pub waiting: u64,
    /// Requests inside servers.
    pub guests: u64,
    /// Gauges of engines.
    pub gauges: u64,
    /// Listening sockets: where later connections on them come to is not known.
    pub listeners: u64,
    /// Failed calls whose error found no row of its own.
    pub failures: u64,
    /// Threads of which it was known what they work for.
    pub threads: u64,
}

impl Forgotten {
    /// Adds what other tables forgot.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.graphs += other.graphs;
        self.captures += other.captures;
        self.contexts += other.contexts;
        self.allocations += other.allocations;
        self.open_steps += other.open_steps;
        self.mixes += other.mixes;
        self.engines += other.engines;
        self.times += other.times;
        self.settling += other.settling;
        self.waiting += other.waiting;
        self.guests += other.guests;
        self.gauges += other.gauges;
        self.listeners += other.listeners;
        self.failures += other.failures;
        self.threads += other.threads;
    }
}

impl Engine {
    /// What tables had to forget.
    #[must_use]
    pub fn forgotten(&self) -> Forgotten {
        let mut sum = self.totals.forgotten;
        let (mixes, engines, times) = self.board.forgotten();
        let (waiting, guests, gauges) = self.inside.forgotten();
        let other = Forgotten {
            allocations: self.memory.forgotten(),
            listeners: self.connections.forgotten_listeners(),
            failures: self.totals.failures.unlisted,
            threads: self.contexts.forgotten,
            mixes,
            engines,
            times,
            waiting,
            guests,
            gauges,
            ..Forgotten::default()
        };
        sum.add(&other);
        self.processes.values().for_each(|process| sum.add(&process.forgotten()));
        sum
    }

    /// Batches of copies of which only a part of the bytes is known.
    #[must_use]
    pub fn cut_batches(&self) -> u64 {
        self.totals.cut_batches
            + self.processes.values().map(|process| process.reader.cut_batches()).sum::<u64>()
    }
}

impl super::Process {
    /// What its tables had to forget.
    pub(super) fn forgotten(&self) -> Forgotten {
        Forgotten { open_steps: self.steps.cut(), ..self.reader.forgotten() }
    }
}

/// The oldest of a table of known size, as far as it can be told.
pub(super) fn oldest<K: Copy, V>(
    table: &std::collections::HashMap<K, V>,
    age: impl Fn(&K, &V) -> u64,
) -> Option<K> {
    table.iter().min_by_key(|(key, value)| age(key, value)).map(|(key, _)| *key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::settle::MOST_SETTLING;
    use crate::correlate::{Iteration, Outcomes, Request, Step};
    use crate::server::route;
    use crate::server::said::EngineStep;

    #[test]
    fn requests_that_find_no_room_are_let_go_each_once() {
        let (mut engine, mut out) = (Engine::default(), Outcomes::default());
        engine.totals.steps = 1;
        for exchange in 0..MOST_SETTLING as u32 + 10 {
            let mut request = Request::for_test();
            (request.exchange, request.route) = (exchange, route::find("/v1/chat/completions"));
            out.requests.push(request);
        }
        engine.depart(0, &mut out);
        assert_eq!(out.requests.iter().map(|request| request.exchange).max(), Some(9), "the oldest");
        assert_eq!((out.requests.len(), engine.settling.len()), (10, MOST_SETTLING));
        assert_eq!(engine.forgotten(), Forgotten { settling: 10, ..Forgotten::default() });
    }

    #[test]
    fn engines_without_end_are_forgotten() {
        let mut engine = Engine::default();
        for number in 0..2000 {
            let step = EngineStep { engine: number, end_ns: number + 1, ..EngineStep::default() };
            engine.board.told(&mut Iteration::for_test(0, step), &mut engine.inside, &mut Vec::new());
        }
        assert_eq!(engine.forgotten(), Forgotten { engines: 2000 - 1024, ..Forgotten::default() });
    }

    #[test]
    fn processes_without_end_have_no_times_of_their_own() {
        let mut engine = Engine::default();
        for pid in 0..2000 {
            let mut step = Step::default();
            (step.pid, step.end_ns) = (pid, 5);
            engine.board.done(&step, &mut Vec::new());
        }
        assert_eq!(engine.gpu_times().count() as u64 + engine.forgotten().times, 2000);
        assert_eq!(engine.gpu_times().count(), 1024);
    }

    #[test]
    fn what_a_process_forgot_is_known_when_it_is_gone() {
        let mut engine = Engine::default();
        engine.process(7).reader.forget_for_test();
        let before = engine.forgotten();
        engine.process_gone(7, 1, &mut Outcomes::default());
        assert_eq!((before.contexts, engine.forgotten()), (1, before));
    }
}
