//! The correlator held against a simple model: random histories of a small GPU and a small server, with records lost,
//! twice, late and cut, and what must hold of the result whatever happened.
//!
//! `act` draws what happens, `history` plays it and knows the truth, `fault` spoils it, `reference` counts what is left of it by the
//! definitions, `check` compares. Absent: bytes of records (`decode` has properties of its own), and how well riders are
//! found (`ride/tests.rs`).

mod act;
mod check;
mod engine;
mod fault;
mod history;
mod reference;

use super::inside::Inside;
use super::tap::Tap;
use super::{Engine, Outcomes, Request};
use crate::decode::{Body, End, Event, Socket};
use crate::target::Address;
use act::{Act, What, any_act};
use act::{ENGINE, OTHER, THREADS};
use check::Ran;
use fault::{Faults, any_faults, suffer};
use history::{Input, LISTENER, RUNTIME, Stage};
use proptest::prelude::*;
use reference::Reference;
use std::collections::{BTreeSet, VecDeque};

/// Time passes in pieces of this.
const TICK_NS: u64 = 20_000_000;
/// Longer than anything waits for anything.
const AGES_NS: u64 = 40_000_000_000;

/// Lets the correlator see a history, and the reference with it.
fn observe(inputs: Vec<Input>) -> Ran {
    let (mut engine, mut out) = (Engine::default(), Outcomes::default());
    let mut reference = Reference::default();
    for pid in [ENGINE, OTHER] {
        engine.set_runtime(pid, vec![RUNTIME]);
    }
    engine.set_listener(ENGINE, LISTENER, Address::Tcp(80));
    let (mut now_ns, mut ticked_ns) = (0, 0);
    let (mut begun, mut lost) = (BTreeSet::new(), 0);
    for input in inputs {
        while ticked_ns + TICK_NS <= input.time_ns() {
            ticked_ns += TICK_NS;
            engine.tick(ticked_ns, &mut out);
        }
        now_ns = now_ns.max(input.time_ns());
        reference.take(&input);
        match input {
            Input::Event(event) => engine.event(event, &mut out),
            Input::Spoke(time_ns, spoke) => speak(&mut engine, time_ns, VecDeque::from([*spoke]), &mut out),
            Input::Gone(pid, time_ns) => {
                lost += if pid == ENGINE { engine.active_requests() } else { 0 };
                // Its runtime is learnt anew if it is met again.
                engine.process_gone(pid, time_ns, &mut out);
                engine.set_runtime(pid, vec![RUNTIME]);
            }
        }
        begun.extend(engine.connections.under_way().map(Request::owner));
    }
    Ran { engine, out, reference, now_ns, begun, lost }
}

/// An adapter says something.
fn speak(engine: &mut Engine, time_ns: u64, words: VecDeque<super::tap::Spoke>, out: &mut Outcomes) {
    let inside: &mut Inside = &mut engine.inside;
    inside.tap = Tap::Replay(words);
    engine.snapshot(ENGINE, time_ns, &[], out);
}

impl Ran {
    /// All connections are closed, all processes end, and ages pass.
    fn end(&mut self) {
        let Self { engine, out, reference, now_ns, .. } = self;
        for connection in 1..1000 {
            let ended = Socket::Ended { connection, fd: 5, end: End::Closed, received: 0, sent: 0 };
            reference.events += 1;
            let body = Body::Socket(ended);
            engine.event(Event { pid: ENGINE, tid: 30, time_ns: *now_ns, body }, out);
        }
        for pid in [ENGINE, OTHER] {
            reference.take(&Input::Gone(pid, *now_ns));
            engine.process_gone(pid, *now_ns, out);
        }
        for _ in 0..AGES_NS / 1_000_000_000 {
            *now_ns += 1_000_000_000;
            engine.tick(*now_ns, out);
        }
        engine.finish(out);
    }
}

/// One thread, with a stream of its own and without run-ahead: a whole of acts that belong to a stream.
fn own_streams(acts: &[Act], by_events: bool) -> Vec<Act> {
    let mut own = Vec::new();
    for act in acts.iter().cloned() {
        own.extend(own_stream(act, by_events));
    }
    // Everybody waits for everything in the end.
    for thread in 0..THREADS.len() {
        own.extend(
            (0..3).map(|stream| Act::Wait { thread, what: What::Stream(of(thread, stream, by_events)) }),
        );
    }
    own
}

/// Each thread has a stream, or three.
fn of(thread: usize, stream: u64, several: bool) -> u64 {
    10 * (1 + thread as u64) + if several { stream } else { 0 }
}

/// An act on a thread's own streams; none for what shows no end of its own.
fn own_stream(mut act: Act, by_events: bool) -> Option<Act> {
    match &mut act {
        Act::Launch { thread, stream, .. }
        | Act::Copy { thread, stream, .. }
        | Act::Set { thread, stream, .. }
        | Act::Wait { thread, what: What::Stream(stream) } => {
            *stream = of(*thread, *stream, by_events);
        }
        Act::Record { thread, stream, event } | Act::Follow { thread, stream, event } if by_events => {
            (*stream, *event) = (of(*thread, *stream, true), *event + 10 * *thread as u64);
        }
        Act::Wait { thread, what: What::Event(event) } if by_events => *event += 10 * *thread as u64,
        Act::Timed { thread, stream, .. } => *stream = of(*thread, *stream, by_events),
        Act::Elapsed { thread, events } if by_events => {
            *events = (events.0 + 10 * *thread as u64, events.1 + 10 * *thread as u64);
        }
        // A pause that closes steps would tell nothing of their ends.
        Act::Pause { us } => *us = (*us).min(5000),
        _ => return None,
    }
    Some(act)
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec(any_act(), 0..250)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_is_lost_everything_that_arrives_adds_up(
        acts in acts(), faults in any_faults(), has_adapter in any::<bool>(), babbles in any::<prop::sample::Index>()
    ) {
        let mut acts = acts;
        if has_adapter && babbles.index(3) == 0 {
            acts.insert(babbles.index(acts.len() + 1), Act::Babble);
        }
        let mut stage = Stage::new(has_adapter);
        stage.play(&acts);
        let mut ran = observe(suffer(stage.inputs, &faults));
        ran.check();
        ran.end();
        ran.check();
        ran.check_empty();
    }

    #[test]
    fn where_nothing_is_lost_requests_end_as_they_did(acts in acts(), has_adapter in any::<bool>()) {
        let mut stage = Stage::new(has_adapter);
        stage.play(&acts);
        let mut ran = observe(suffer(stage.inputs, &Faults::default()));
        ran.check_violations();
        ran.check_steps_in_time();
        ran.end();
        ran.check();
        ran.check_requests(&stage.truth);
    }

    #[test]
    fn the_truth_lies_within_the_bounds(acts in acts(), by_events in any::<bool>()) {
        let mut stage = Stage::new(false);
        stage.play(&own_streams(&acts, by_events));
        let mut ran = observe(stage.inputs);
        ran.end();
        ran.check();
        ran.check_truth(&stage.truth, !by_events);
    }
}

/// A quarter of the cases that others run, of which `PROPTEST_CASES` says how many: a history is many times as long as
/// what a parser is given.
fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases.div_ceil(4), failure_persistence: None, ..usual }
}
