//! Requests and guests meet: by id, by thread, by what fits; and what is not to be believed is not used.

use super::*;
use crate::correlate::life::{Hook, State};
use crate::correlate::request::Outcome;
use crate::http::{HttpVersion, Method, RequestHead, Signal, SignalKind, Usage};
use crate::server::adapter::{Adapter, Health};
use crate::server::said::{Counts, Inner, Member, Moment, Part, Reason, Tie};
use std::sync::{Arc, Mutex};

const MS: u64 = 1_000_000;

/// Says what it is told to say.
#[derive(Debug, Default)]
struct Parrot {
    script: Arc<Mutex<Vec<Said>>>,
    health: Arc<Mutex<Health>>,
}

impl Adapter for Parrot {
    fn name(&self) -> &'static str {
        "parrot"
    }

    fn hear(&mut self, _: &Heard<'_>, out: &mut Vec<Said>) {
        self.health.lock().unwrap().pass();
        out.append(&mut self.script.lock().unwrap());
    }

    fn health(&self) -> Health {
        *self.health.lock().unwrap()
    }
}

#[derive(Default)]
struct Stage {
    inside: Inside,
    script: Arc<Mutex<Vec<Said>>>,
    health: Arc<Mutex<Health>>,
    iterations: Vec<Iteration>,
    out: Vec<Request>,
}

impl Stage {
    fn new() -> Self {
        let mut stage = Self::default();
        let parrot = Parrot { script: Arc::clone(&stage.script), health: Arc::clone(&stage.health) };
        stage.inside.speakers.push(Speaker::new(Source::Frames, Box::new(parrot)));
        stage
    }

    fn say(&mut self, time_ns: u64, sayings: Vec<Saying>) {
        let said = sayings.into_iter().map(|saying| Said { pid: 7, time_ns, saying });
        self.script.lock().unwrap().extend(said);
        self.inside.snapshot(7, time_ns, &[], &mut self.iterations);
    }

    /// A guest that is met at a time, is scheduled, generates, and ends.
    fn lives(&mut self, inner: u64, met_ns: u64, tie: Tie, tokens: u32, reason: Reason) {
        let inner = Inner(inner);
        let at = |moment, after| Saying::Reached {
            inner,
            moment,
            at_ns: met_ns + after * MS,
            evidence: Evidence::E0,
        };
        let token = |nth: u32| Saying::Tokens { inner, count: 1, at_ns: met_ns + u64::from(20 + nth) * MS };
        let mut sayings = vec![Saying::Met { inner, tie, generates: true }];
        sayings.extend([at(Moment::Enqueued, 1), at(Moment::Scheduled, 10), at(Moment::Prefilling, 10)]);
        sayings.extend((0..tokens).map(token));
        sayings.push(Saying::Ended { inner, reason, at_ns: met_ns + u64::from(20 + tokens) * MS });
        self.say(met_ns, sayings);
    }

    fn finish(&mut self, request: Request) {
        self.out.push(request);
        let from = self.out.len() - 1;
        let now_ns = self.out.iter().skip(from).map(|request| request.ended_ns + 21_000_000).max();
        self.inside.screen(&mut self.out, from, now_ns.unwrap_or(0));
    }

    fn tick(&mut self, now_ns: u64) {
        self.inside.tick(now_ns, &mut self.out, &mut self.iterations);
    }

    fn only(&self) -> &Request {
        assert_eq!(self.out.len(), 1, "{:#?}", self.out);
        &self.out[0]
    }
}

fn named(id: &str, part: Option<u32>) -> Tie {
    Tie { outer_id: Some(id.into()), part, ..Tie::default() }
}

/// A request that arrived, was answered and ended, in milliseconds.
fn request(connection: u64, times: [u64; 3], id: Option<&str>, output: Option<u64>) -> Request {
    let [arrived, token, ended] = times.map(|ms| ms * MS);
    let mut request = Request::new(7, connection, 0, arrived - MS, Hook::Socket);
    let signal = |time_ns, kind| Signal { exchange: 0, time_ns, kind };
    let head = RequestHead {
        method: Method::Post,
        version: HttpVersion::Http11,
        path: "/v1/completions".to_owned(),
        host: None,
        user_agent: None,
        traceparent: None,
        tracestate: None,
        request_id: None,
        content_length: None,
    };
    request.take(signal(arrived - MS, SignalKind::RequestStart));
    request.take(signal(arrived - MS, SignalKind::RequestHead(Box::new(head))));
    request.take(signal(arrived, SignalKind::RpcRequest(Box::default())));
    request.take(signal(token, SignalKind::Token { choice: 0, event: 1, token_ids: None }));
    request.id = id.map(str::to_owned);
    request.usage = Usage { output, ..Usage::default() };
    request.end_for_test(ended, Outcome::Completed);
    request
}

fn evidence(request: &Request) -> Option<Evidence> {
    request.served.as_ref().map(|served| served.evidence)
}

#[test]
fn the_same_id_on_both_sides_is_a_fact() {
    let mut stage = Stage::new();
    stage.lives(1, 100 * MS, named("cmpl-a", Some(0)), 3, Reason::Length);
    stage.lives(2, 101 * MS, named("cmpl-a", Some(1)), 3, Reason::Stop);
    stage.lives(3, 101 * MS, named("cmpl-b", None), 3, Reason::Stop);
    stage.finish(request(1, [99, 130, 200], Some("cmpl-a"), Some(6)));
    let request = stage.only();
    let served = request.served.as_ref().unwrap();
    assert_eq!((served.evidence, served.adapter, served.sequences.len()), (Evidence::E0, "parrot", 2));
    assert_eq!((served.enqueued_ns(), served.scheduled_ns()), (Some(101 * MS), Some(110 * MS)));
    assert_eq!((served.first_token_ns(), served.last_token_ns()), (Some(120 * MS), Some(123 * MS)));
    assert_eq!(request.finish_reasons, ["length", "stop"], "the response told none");
    assert_eq!((stage.inside.counts.agreed, stage.inside.counts.disagreed), (1, 0));
    let states: Vec<_> = request.life.transitions().iter().map(|t| (t.state, t.hook)).collect();
    let engine = |state| (state, Hook::Engine);
    let socket = |state| (state, Hook::Socket);
    assert_eq!(
        states,
        [
            socket(State::Open),
            socket(State::Head),
            socket(State::Body),
            engine(State::Enqueued),
            engine(State::Scheduled),
            engine(State::Prefilling),
            engine(State::FirstToken),
            engine(State::Decoding),
            engine(State::EngineDone),
            socket(State::ResponseDone),
        ]
    );
    assert_eq!(request.life.violations, 0);
}

#[test]
fn edge_22_an_id_that_clients_use_twice_is_told_apart_by_time() {
    let mut stage = Stage::new();
    stage.lives(1, 100 * MS, named("same", None), 3, Reason::Length);
    stage.lives(2, 150 * MS, named("same", None), 3, Reason::Length);
    stage.finish(request(1, [99, 121, 300], Some("same"), Some(3)));
    stage.finish(request(2, [99, 171, 300], Some("same"), Some(3)));
    stage.tick(1000 * MS);
    let inner = |request: &Request| request.served.as_ref().unwrap().sequences[0].inner;
    assert_eq!(stage.out.iter().map(inner).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(stage.out.iter().map(evidence).collect::<Vec<_>>(), [Some(Evidence::E2), Some(Evidence::E0)]);
}

#[test]
fn edge_21_a_list_of_prompts_has_as_many_sequences_as_answers() {
    let mut stage = Stage::new();
    for (inner, part) in [(1, Some(0)), (2, Some(1)), (3, None), (4, None)] {
        stage.lives(inner, 100 * MS + inner, named("list", part), 3, Reason::Length);
    }
    let mut asked = request(1, [99, 121, 300], Some("list"), Some(12));
    asked.finish_reasons = vec!["length".to_owned(); 4];
    stage.finish(asked);
    let served = stage.only().served.as_ref().unwrap();
    assert_eq!((served.evidence, served.sequences.len()), (Evidence::E0, 4));
    assert_eq!((stage.inside.counts.agreed, stage.inside.counts.disagreed), (1, 0));
}

#[test]
fn the_thread_that_read_a_request_hands_it_over() {
    let mut stage = Stage::new();
    let of_thread = |tid| Tie { thread: Some((7, tid)), ..Tie::default() };
    stage.lives(1, 100 * MS, of_thread(70), 3, Reason::Unsaid);
    stage.lives(2, 100 * MS, of_thread(71), 3, Reason::Unsaid);
    let mut asked = request(1, [100, 130, 200], None, Some(3));
    asked.thread = Some(71);
    stage.finish(asked);
    let served = stage.only().served.as_ref().unwrap();
    assert_eq!((served.evidence, served.sequences[0].inner), (Evidence::E1, 2));
}

#[test]
fn what_alone_fits_is_a_candidate_and_one_of_several_a_guess() {
    let mut stage = Stage::new();
    stage.lives(1, 100 * MS, Tie { prompt_tokens: Some(5), ..Tie::default() }, 3, Reason::Unsaid);
    stage.lives(2, 100 * MS, Tie { prompt_tokens: Some(6), ..Tie::default() }, 4, Reason::Unsaid);
    let mut asked = request(1, [99, 130, 200], None, Some(4));
    asked.usage.input = Some(6);
    stage.finish(asked);
    assert!(stage.out.is_empty(), "something better may come");
    stage.tick(600 * MS);
    let served = stage.only().served.as_ref().unwrap();
    assert_eq!((served.evidence, served.sequences[0].inner), (Evidence::E2, 2));

    let mut stage = Stage::new();
    stage.lives(1, 100 * MS, Tie::default(), 3, Reason::Unsaid);
    stage.lives(2, 110 * MS, Tie::default(), 3, Reason::Unsaid);
    stage.finish(request(1, [99, 131, 200], None, Some(3)));
    stage.tick(600 * MS);
    let served = stage.only().served.as_ref().unwrap();
    assert_eq!((served.evidence, served.sequences[0].inner), (Evidence::E3, 2), "its token is nearer");
    let inferred = stage.only().life.transitions().iter().any(|t| t.hook == Hook::Engine);
    assert!(!inferred, "a guess is no moment of a life");
}

#[test]
fn a_client_that_left_early_takes_no_guest_of_others() {
    let mut stage = Stage::new();
    let running = Inner(1);
    let of_thread = Tie { thread: Some((7, 70)), ..named("running", None) };
    stage.say(100 * MS, vec![Saying::Met { inner: running, tie: of_thread, generates: true }]);
    stage.say(150 * MS, vec![Saying::Tokens { inner: running, count: 1, at_ns: 150 * MS }]);
    stage.lives(2, 101 * MS, named("given up", None), 2, Reason::FrontEnd);
    let mut left = request(1, [99, 121, 130], None, None);
    left.outcome = Outcome::Aborted;
    left.thread = Some(70);
    stage.finish(left);
    stage.tick(600 * MS);
    let served = stage.only().served.as_ref().unwrap();
    assert_eq!((served.evidence, served.sequences[0].inner), (Evidence::E2, 2));
    stage.out.clear();
    stage.say(700 * MS, vec![Saying::Ended { inner: running, reason: Reason::Length, at_ns: 700 * MS }]);
    stage.finish(request(2, [99, 150, 701], Some("running"), Some(1)));
    assert_eq!(evidence(stage.only()), Some(Evidence::E0));
}

#[test]
fn a_request_waits_for_the_last_word_of_its_engine_but_not_for_ever() {
    let mut stage = Stage::new();
    let inner = Inner(1);
    stage.say(100 * MS, vec![Saying::Met { inner, tie: named("a", None), generates: true }]);
    stage.say(120 * MS, vec![Saying::Tokens { inner, count: 1, at_ns: 120 * MS }]);
    let mut left = request(1, [99, 121, 130], Some("a"), None);
    left.outcome = Outcome::Aborted;
    stage.finish(left.clone());
    stage.tick(200 * MS);
    assert!(stage.out.is_empty());
    stage.say(132 * MS, vec![Saying::Ended { inner, reason: Reason::FrontEnd, at_ns: 132 * MS }]);
    stage.tick(201 * MS);
    let served = stage.only().served.as_ref().unwrap();
    assert_eq!(served.sequences[0].reason, Some(Reason::FrontEnd));
    assert_eq!(stage.only().life.violations, 0, "what comes after the end is no state");

    let mut stage = Stage::new();
    stage.say(100 * MS, vec![Saying::Met { inner, tie: named("a", None), generates: true }]);
    stage.finish(left);
    stage.tick(429 * MS);
    assert!(stage.out.is_empty());
    stage.tick(431 * MS);
    assert_eq!(evidence(stage.only()), Some(Evidence::E0));
}

#[test]
fn what_no_server_speaks_of_is_not_held_up() {
    let mut inside = Inside::default();
    let mut out = vec![request(1, [99, 130, 200], Some("a"), None)];
    inside.screen(&mut out, 0, 0);
    assert_eq!(out.len(), 1);
    let mut stage = Stage::new();
    stage.lives(1, 100 * MS, named("a", None), 3, Reason::Length);
    let mut health = request(2, [99, 130, 200], None, None);
    health.route = crate::server::route::find("/health");
    stage.finish(health);
    assert_eq!(evidence(stage.only()), None);
}

#[test]
fn an_adapter_whose_checks_fail_is_not_used_any_more() {
    let mut stage = Stage::new();
    stage.lives(1, 100 * MS, named("a", None), 3, Reason::Length);
    for _ in 0..30 {
        stage.health.lock().unwrap().fail("the third field is no list");
    }
    stage.lives(2, 100 * MS, named("b", None), 3, Reason::Length);
    for id in ["a", "b"] {
        stage.finish(request(1, [99, 130, 200], Some(id), Some(3)));
    }
    stage.tick(600 * MS);
    assert_eq!(stage.out.iter().map(evidence).collect::<Vec<_>>(), [None, None]);
    let state = stage.inside.speakers().next().unwrap();
    assert_eq!((state.state, state.why), ("demoted", Some("the third field is no list")));
    assert_eq!(stage.inside.counts.unjoined, 2);
}

#[test]
fn an_adapter_whose_counts_contradict_responses_is_not_used_any_more() {
    let mut stage = Stage::new();
    for nth in 0..4 {
        stage.lives(nth, 100 * MS, named(&format!("id-{nth}"), None), 3, Reason::Length);
        stage.finish(request(nth, [99, 130, 200], Some(&format!("id-{nth}")), Some(9)));
    }
    stage.tick(600 * MS);
    let served = stage.out.iter().filter(|request| request.served.is_some()).count();
    assert_eq!((served, stage.inside.counts.disagreed), (2, 3), "the third one convinces");
    assert_eq!(stage.inside.speakers().next().unwrap().state, "demoted");
}

#[test]
fn prompts_are_compared_too_where_an_id_ties() {
    for (told, agrees) in [(5, 1), (6, 0)] {
        let mut stage = Stage::new();
        stage.lives(1, 100 * MS, Tie { prompt_tokens: Some(5), ..named("a", None) }, 3, Reason::Length);
        let mut asked = request(1, [99, 121, 300], Some("a"), Some(3));
        asked.usage.input = Some(told);
        stage.finish(asked);
        assert_eq!((stage.inside.counts.agreed, stage.inside.counts.disagreed), (agrees, 1 - agrees));
    }
}

#[test]
fn steps_tell_who_was_in_them() {
    let mut stage = Stage::new();
    stage.say(100 * MS, vec![Saying::Met { inner: Inner(1), tie: named("a", None), generates: true }]);
    let member = |part| Member { inner: Inner(1), part, computed: 5, generated: 1, evidence: Evidence::E0 };
    let step = |part, failed| {
        let members = vec![member(part)];
        Saying::Step(Box::new(EngineStep { end_ns: 110 * MS, members, failed, ..EngineStep::default() }))
    };
    stage.say(
        110 * MS,
        vec![step(Part::Prefill, true), step(Part::Prefill, false), step(Part::Decode, false)],
    );
    stage.say(111 * MS, vec![Saying::Ended { inner: Inner(1), reason: Reason::Length, at_ns: 111 * MS }]);
    stage.finish(request(1, [99, 130, 200], Some("a"), None));
    let served = stage.only().served.as_ref().unwrap();
    assert_eq!((served.steps(), served.sequences[0].prefill_steps), (2, 1), "a failed attempt is none");
    assert_eq!(
        (stage.iterations.len(), stage.inside.counts.steps, stage.inside.counts.failed_steps),
        (3, 3, 1)
    );
}

#[test]
fn edge_29_time_out_of_place_is_counted_from_the_engines_stamps() {
    let mut stage = Stage::new();
    let inner = Inner(1);
    let at =
        |moment, at_ms: u64| Saying::Reached { inner, moment, at_ns: at_ms * MS, evidence: Evidence::E0 };
    stage.say(100 * MS, vec![Saying::Met { inner, tie: named("a", None), generates: true }]);
    stage.say(
        400 * MS,
        vec![at(Moment::Scheduled, 101), at(Moment::Preempted, 150), at(Moment::Scheduled, 250)],
    );
    stage.say(
        401 * MS,
        vec![Saying::Counts { inner, counts: Counts { prompt: Some(9), cached: Some(4), generated: None } }],
    );
    stage.say(402 * MS, vec![Saying::EngineDead]);
    stage.finish(request(1, [99, 410, 500], Some("a"), None));
    let request = stage.only();
    let sequence = &request.served.as_ref().unwrap().sequences[0];
    assert_eq!((sequence.preemptions, sequence.preempted_ns), (1, 100 * MS));
    assert_eq!((sequence.reason, sequence.ended_ns), (Some(Reason::Error), Some(402 * MS)));
    assert_eq!((request.usage.input, request.usage.cached), (Some(9), Some(4)), "the response told none");
    assert_eq!(request.life.violations, 0);
}

#[test]
fn guests_are_bounded_and_leave() {
    let mut guests = Guests::default();
    for inner in 0..70_000 {
        let key = Key { speaker: 0, inner: Inner(inner) };
        guests.add(key, Guest::new(7, inner, named(&format!("id-{inner}"), None), true));
    }
    assert_eq!(guests.met(0, u64::MAX).count(), 65_536);
    assert_eq!(guests.of_id("id-1").count(), 0, "the oldest went");
    let key = Key { speaker: 0, inner: Inner(69_999) };
    guests.with(key, |guest| guest.end(Reason::Length, 70_000));
    for _ in 0..2000 {
        guests.expire(31_000_000_000 + 70_000);
    }
    assert_eq!(guests.met(0, u64::MAX).count(), 65_536, "those that have not ended stay for hours");
    guests.forget(0);
    assert_eq!((guests.met(0, u64::MAX).count(), guests.of_id("id-69999").count()), (0, 0));
}

#[test]
fn gauges_of_engines_without_end_find_no_room() {
    let mut stage = Stage::new();
    let gauges = |engine| Saying::Gauges(Gauges { engine, running: Some(1), ..Gauges::default() });
    stage.say(MS, (0..2 * MOST_GAUGES as u64).map(gauges).collect());
    stage.say(MS, vec![Saying::Gauges(Gauges { engine: 5, running: Some(2), ..Gauges::default() })]);
    let inside = &stage.inside;
    assert_eq!((inside.gauges().count(), inside.forgotten().2), (MOST_GAUGES, MOST_GAUGES as u64));
    assert_eq!(inside.gauges().nth(5).map(|(_, gauges)| gauges.running), Some(Some(2)), "known ones go on");
}
