//! The engine from events to requests, without a kernel: what it joins, what it keeps apart, what it counts.

use super::*;
use crate::decode::{CallData, Direction, End, Launch, Socket};
use crate::probe;

const PID: u32 = 10;

fn event(tid: u32, time_ns: u64, body: Body) -> Event {
    Event { pid: PID, tid, time_ns, body }
}

fn index(symbol: &str) -> u16 {
    probe::CATALOG.iter().position(|api| api.symbol == symbol).unwrap() as u16
}

fn launch(time_ns: u64) -> Event {
    let launch = Launch { function: 7, stream: 1, caller: 0, grid: [1; 3], block: [1; 3], shared_bytes: 0 };
    event(20, time_ns, Body::Gpu(GpuCall { api: index("cudaLaunchKernel"), data: CallData::Launch(launch) }))
}

fn wait(entered_ns: u64, time_ns: u64) -> Event {
    let data = CallData::Returned { entered_ns, caller: 0, args: [1, 0, 0, 0, 0, 0], result: 0, out: [0; 2] };
    event(20, time_ns, Body::Gpu(GpuCall { api: index("cudaStreamSynchronize"), data }))
}

fn opened(connection: u64) -> Event {
    event(30, 1, Body::Socket(Socket::Opened { connection, fd: 5, listener_fd: 3 }))
}

fn data(connection: u64, time_ns: u64, direction: Direction, position: u64, text: &str) -> Event {
    let bytes = text.as_bytes().to_vec();
    event(30, time_ns, Body::Socket(Socket::Data { connection, direction, position, bytes, lost_after: 0 }))
}

const BODY: &str = r#"{"model":"m","stream":true,"messages":[]}"#;

fn request() -> String {
    format!("POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len())
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

fn delta(text: &str) -> String {
    chunk(&format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"))
}

fn run(engine: &mut Engine, events: Vec<Event>) -> Outcomes {
    let mut out = Outcomes::default();
    for event in events {
        engine.event(event, &mut out);
    }
    out
}

/// A whole streamed exchange on `connection`: arrives at 1000, two tokens at 5000 and 6000, ends at 7000.
fn exchange(connection: u64) -> (Vec<Event>, Vec<Event>) {
    let (head, first, second) = (HEAD.to_owned(), delta("a"), delta("b"));
    let last = chunk("data: [DONE]\n\n") + "0\r\n\r\n";
    let positions = [head.len(), head.len() + first.len(), head.len() + first.len() + second.len()];
    let before = vec![opened(connection), data(connection, 1000, Direction::Received, 0, &request())];
    let after = vec![
        data(connection, 4500, Direction::Sent, 0, &head),
        data(connection, 5000, Direction::Sent, positions[0] as u64, &first),
        data(connection, 6000, Direction::Sent, positions[1] as u64, &second),
        data(connection, 7000, Direction::Sent, positions[2] as u64, &last),
    ];
    (before, after)
}

#[test]
fn a_lone_request_owns_the_steps_it_rode_in() {
    let mut engine = Engine::default();
    let (before, after) = exchange(1);
    let out = run(&mut engine, [before, vec![launch(2000), launch(2100), wait(2200, 4000)], after].concat());
    let [request] = out.requests.as_slice() else { panic!("one request: {:?}", out.requests) };
    assert_eq!((request.outcome, request.status, request.deltas), (Outcome::Completed, Some(200), 2));
    assert_eq!((request.evidence, request.prefill.launches, request.decode.launches), (Evidence::E2, 2, 0));
    assert_eq!(request.time_to_first_token_ns(), Some(4000));
    assert_eq!(request.facts.model.as_deref(), Some("m"));
    assert_eq!(engine.totals().unattributed_ns, 0);
    assert_eq!(engine.active_requests(), 0);
}

#[test]
fn requests_in_flight_together_share_and_the_shares_add_up() {
    let mut engine = Engine::default();
    let ((before_1, after_1), (before_2, after_2)) = (exchange(1), exchange(2));
    let work = vec![launch(2000), launch(2100), launch(2200), wait(2200, 4000)];
    let out = run(&mut engine, [before_1, before_2, work, after_1, after_2].concat());
    assert_eq!(out.requests.len(), 2);
    assert!(out.requests.iter().all(|request| request.evidence == Evidence::E3));
    assert_eq!(out.requests.iter().map(|request| request.share().launches).sum::<u64>(), 3);
    assert_eq!(out.requests.iter().map(|request| request.share().gpu_hi_ns).sum::<u64>(), 2000);
}

#[test]
fn work_before_a_request_arrived_is_not_its_own() {
    let mut engine = Engine::default();
    let (before, after) = exchange(1);
    let out = run(&mut engine, [vec![launch(500)], before, vec![wait(600, 4000)], after].concat());
    assert_eq!((out.requests[0].evidence, out.requests[0].share()), (Evidence::E4, Share::default()));
    assert_eq!(engine.totals().unattributed_ns, 3500);
}

#[test]
fn a_process_that_ends_loses_its_requests_and_says_so() {
    let mut engine = Engine::default();
    let (before, _) = exchange(1);
    let mut out = run(&mut engine, before);
    engine.process_gone(PID, 3000, &mut out);
    assert_eq!((out.requests[0].outcome, out.requests[0].ended_ns), (Outcome::Lost, 3000));
}

#[test]
fn a_client_that_leaves_aborts() {
    let mut engine = Engine::default();
    let (before, mut after) = exchange(1);
    after.truncate(2);
    let end = |end, time| {
        event(30, time, Body::Socket(Socket::Ended { connection: 1, fd: 5, end, received: 0, sent: 0 }))
    };
    after.extend([end(End::EndOfInput, 5500), end(End::Closed, 5600)]);
    let out = run(&mut engine, [before, after].concat());
    assert_eq!((out.requests[0].outcome, out.requests[0].deltas), (Outcome::Aborted, 1));
}

#[test]
fn what_is_no_http_is_told_once_and_left_alone() {
    let mut engine = Engine::default();
    let garbage = "\u{1}\u{2}garbage that goes on for a while";
    let out = run(
        &mut engine,
        vec![
            opened(1),
            data(1, 10, Direction::Received, 0, garbage),
            data(1, 11, Direction::Received, garbage.len() as u64, garbage),
        ],
    );
    assert_eq!((out.uninteresting, out.requests.len()), (vec![1], 0));
    assert_eq!(engine.connections().counts().other, 1);
}

#[test]
fn every_event_is_joined_or_ignored_for_a_reason() {
    let mut engine = Engine::default();
    let (before, after) = exchange(1);
    let record = GpuCall {
        api: index("cudaEventRecord"),
        data: CallData::Entered { caller: 0, args: [9, 1, 0, 0, 0, 0] },
    };
    let events =
        [before, vec![launch(2000), event(20, 2001, Body::Gpu(record)), wait(2200, 4000)], after].concat();
    let count = events.len() as u64;
    run(&mut engine, events);
    let ignored: u64 = engine.totals().ignored_by_reason().map(|(_, count)| count).sum();
    assert_eq!((engine.totals().joined + ignored, ignored), (count, 1));
}
