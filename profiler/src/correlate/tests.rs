//! The engine from events to requests, without a kernel: what it joins, what it keeps apart, what it counts.

use super::*;
use crate::decode::{CallData, Direction, End, Launch, Socket};
use crate::probe;
use profiler_common::event::{Count, CountKey};

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
    engine.set_listener(PID, 3, Address::Tcp(80));
    for event in events {
        engine.event(event, &mut out);
    }
    engine.finish(&mut out);
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
    assert_eq!(
        (request.evidence(), request.ride.prefill.share.launches, request.ride.decode.share.launches),
        (Evidence::E2, 2, 0)
    );
    assert_eq!(request.time_to_first_token_ns(), Some(4000));
    assert_eq!(request.facts.model.as_deref(), Some("m"));
    assert_eq!(engine.rides().unattributed_ns, 0);
    assert_eq!(engine.active_requests(), 0);
}

#[test]
fn requests_in_flight_together_share_and_the_shares_add_up() {
    let mut engine = Engine::default();
    let ((before_1, after_1), (before_2, after_2)) = (exchange(1), exchange(2));
    let work = vec![launch(2000), launch(2100), launch(2200), wait(2200, 4000)];
    let out = run(&mut engine, [before_1, before_2, work, after_1, after_2].concat());
    assert_eq!(out.requests.len(), 2);
    // Each has a token that left after the only piece of work.
    assert!(out.requests.iter().all(|request| request.evidence() == Evidence::E2));
    assert_eq!(out.requests.iter().map(|request| request.share().launches).sum::<u64>(), 3);
    assert_eq!(out.requests.iter().map(|request| request.share().gpu_hi_ns).sum::<u64>(), 2000);
}

#[test]
fn work_before_a_request_arrived_is_not_its_own() {
    let mut engine = Engine::default();
    let (before, after) = exchange(1);
    let out = run(&mut engine, [vec![launch(500)], before, vec![wait(600, 4000)], after].concat());
    assert_eq!((out.requests[0].evidence(), out.requests[0].share()), (Evidence::E4, Share::default()));
    assert_eq!(engine.rides().unattributed_ns, 1750, "nothing is known but that it lies between 0 and 3500");
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
    assert_eq!((out.payload, out.requests.len()), (vec![(1, Payload::Nothing)], 0));
    assert_eq!(engine.connections().counts().other, 1);
}

#[test]
fn every_event_is_joined_or_ignored_for_a_reason() {
    let mut engine = Engine::default();
    let (before, after) = exchange(1);
    let record = GpuCall {
        api: index("cudaEventDestroy"),
        data: CallData::Entered { caller: 0, args: [9, 0, 0, 0, 0, 0] },
    };
    let events =
        [before, vec![launch(2000), event(20, 2001, Body::Gpu(record)), wait(2200, 4000)], after].concat();
    let count = events.len() as u64;
    run(&mut engine, events);
    let ignored: u64 = engine.totals().ignored_by_reason().map(|(_, count)| count).sum();
    assert_eq!((engine.totals().joined + ignored, ignored), (count, 1));
}

#[test]
fn what_is_counted_in_the_kernel_adds_up_like_what_is_sent() {
    let mut engine = Engine::default();
    engine.set_counting();
    let mut out = Outcomes::default();
    let key = |symbol, function| CountKey { function, tgid: PID, api: index(symbol), detail: 0 };
    let sum = |count, bytes| Count { count, bytes };
    let launches = key("cudaLaunchKernel", 7);
    let copies = key("cudaMemcpyAsync", 1);
    let nested = CountKey { detail: 1, ..key("cuLaunchKernel", 0) };
    engine.counted(&[(launches, sum(5, 0)), (copies, sum(2, 200)), (nested, sum(5, 0))], &mut out);
    engine.counted(&[(launches, sum(8, 0)), (copies, sum(2, 200)), (nested, sum(8, 0))], &mut out);
    assert_eq!(out.kernels, [KernelKey { pid: PID, function: 7 }], "told once");
    let totals = engine.totals();
    assert_eq!((totals.work.launches, totals.work.copies[0]), (8, (2, 200)));
    assert_eq!((totals.counted.own, totals.counted.nested), (10, 8));
    let calls: HashMap<_, _> = totals.calls().collect();
    assert_eq!((calls["cudaLaunchKernel"], calls["cuLaunchKernel"]), (8, 8));
    // The same work by thread makes the step, and is not added to the totals again.
    let burst =
        |first_ns, launches| Burst { first_ns, last_ns: first_ns + 50, launches, copies: 2, copy_bytes: 200 };
    let told = |time_ns, burst| event(20, time_ns, Body::Burst(burst));
    let out = run(
        &mut engine,
        vec![told(160, burst(100, 5)), wait(160, 200), told(360, burst(300, 8)), wait(360, 400)],
    );
    let steps: Vec<_> =
        out.steps.iter().map(|step| (step.start_ns, step.end_ns, step.work.launches)).collect();
    assert_eq!(steps, [(100, 200, 5), (300, 400, 3)]);
    assert_eq!(out.steps[0].work.copy_bytes(), 200);
    // A look at the table that comes late says less than is known.
    let late = burst(300, 6);
    engine.burst(PID, 20, late, &mut Outcomes::default());
    let out = run(&mut engine, vec![told(560, burst(500, 9)), wait(560, 600)]);
    assert_eq!(out.steps[0].work.launches, 1);
    assert_eq!(engine.totals().work.launches, 8);
}

#[test]
fn memory_that_ran_out_says_what_was_asked_for() {
    let mut engine = Engine::default();
    let args = [0, 96 << 30, 0, 0, 0, 0];
    let data = CallData::Returned { entered_ns: 1, caller: 0, args, result: 2, out: [0; 2] };
    run(&mut engine, vec![event(20, 5, Body::Gpu(GpuCall { api: index("cudaMalloc"), data }))]);
    let failures = &engine.totals().failures;
    assert_eq!(failures.counts().collect::<Vec<_>>(), [(index("cudaMalloc"), 2, 1)]);
    let asked = failures.out_of_memory.iter().map(|failed| failed.bytes).collect::<Vec<_>>();
    assert_eq!((failures.times_out_of_memory, asked), (1, vec![96 << 30]));
    assert_eq!(engine.memory().count(), 0);
}

#[test]
fn the_stack_of_an_inner_launch_is_left_to_the_outer_one() {
    let mut engine = Engine::default();
    engine.set_runtime(PID, vec![(0x4000, 0x6000)]);
    let stack = |symbol, caller| {
        let stack = Stack { api: index(symbol), function: 7, caller, frames: vec![1, caller] };
        event(20, 5, Body::Stack(Box::new(stack)))
    };
    let events = vec![
        stack("cudaLaunchKernel", 0x9000),
        stack("cuLaunchKernel", 0x5000),
        stack("cuLaunchKernel", 0x9000),
    ];
    assert_eq!(run(&mut engine, events).stacks.len(), 2);
}
