//! Calls in the order in which Triton's core, its HTTP frontend and backends make them.

use super::*;
use crate::server::adapter::Returned;
use crate::server::said::{EngineStep, Moment};

const FRONT: u32 = 3;
const WORKER: u32 = 5;
const INSTANCE: u64 = 0x900;

#[derive(Default)]
struct Rig {
    triton: Triton,
    now: u64,
    said: Vec<Said>,
}

impl Rig {
    fn hear(&mut self, tid: u32, call: Call<'_>) {
        self.now += 10;
        let heard = Heard { pid: 1, tid, time_ns: self.now, what: What::Call(call) };
        self.triton.hear(&heard, &mut self.said);
    }

    fn call(&mut self, tid: u32, symbol: &'static str, args: &[u64]) {
        self.hear(tid, Call { symbol, args, returned: None, text: None, array: &[] });
    }

    fn back(&mut self, tid: u32, symbol: &'static str, args: &[u64], result: i64, out: u64) {
        let returned = Some(Returned { entered_ns: self.now, result, out });
        self.hear(tid, Call { symbol, args, returned, text: None, array: &[] });
    }

    fn request(&mut self, pointer: u64, model: &str, id: &str) {
        let returned = Some(Returned { entered_ns: self.now, result: 0, out: pointer });
        let symbol = "TRITONSERVER_InferenceRequestNew";
        self.hear(FRONT, Call { symbol, args: &[], returned, text: Some(model), array: &[] });
        let symbol = "TRITONSERVER_InferenceRequestSetId";
        self.hear(FRONT, Call { symbol, args: &[pointer], returned: None, text: Some(id), array: &[] });
        self.call(FRONT, "TRITONSERVER_ServerInferAsync", &[1, pointer, 0]);
    }

    fn execute(&mut self, pointers: &[u64], count: u64) {
        let symbol = "TRITONBACKEND_ModelInstanceExecute";
        let args = [INSTANCE, 0x7000, count | 0xabcd << 32];
        self.hear(WORKER, Call { symbol, args: &args, returned: None, text: None, array: pointers });
    }

    fn executed(&mut self, result: i64) {
        self.back(WORKER, "TRITONBACKEND_ModelInstanceExecute", &[INSTANCE], result, 0);
    }

    fn respond(&mut self, request: u64, flags: u64, error: u64) {
        self.back(WORKER, "TRITONBACKEND_ResponseNew", &[0x10, request], 0, 0x5000 + request);
        self.call(WORKER, "TRITONBACKEND_ResponseSend", &[0x5000 + request, flags, error]);
    }

    fn release(&mut self, request: u64) {
        self.call(WORKER, "TRITONBACKEND_RequestRelease", &[request, 1]);
    }

    fn delete(&mut self, request: u64) {
        self.call(FRONT, "TRITONSERVER_InferenceRequestDelete", &[request]);
    }

    fn all<T>(&self, pick: impl Fn(&Said) -> Option<T>) -> Vec<T> {
        self.said.iter().filter_map(pick).collect()
    }

    fn met(&self) -> Vec<(u64, Option<String>, bool)> {
        self.all(|said| match &said.saying {
            Saying::Met { inner, tie, generates } => {
                assert!(tie.thread.is_none_or(|thread| thread == (1, FRONT)));
                Some((inner.0, tie.outer_id.as_deref().map(str::to_owned), *generates))
            }
            _ => None,
        })
    }

    fn ended(&self) -> Vec<(u64, Reason)> {
        self.all(|said| match said.saying {
            Saying::Ended { inner, reason, .. } => Some((inner.0, reason)),
            _ => None,
        })
    }

    fn steps(&self) -> Vec<EngineStep> {
        self.all(|said| match &said.saying {
            Saying::Step(step) => Some(EngineStep::clone(step)),
            _ => None,
        })
    }

    fn tokens(&self, inner: u64) -> Vec<u64> {
        self.all(|said| match said.saying {
            Saying::Tokens { inner: Inner(of), at_ns, .. } if of == inner => Some(at_ns),
            _ => None,
        })
    }
}

fn members(step: &EngineStep) -> Vec<u64> {
    step.members.iter().map(|member| member.inner.0).collect()
}

#[test]
fn edge_35_a_batch_has_its_members_and_pointers_are_used_again() {
    let mut rig = Rig::default();
    rig.request(0xa, "m", "first");
    rig.request(0xb, "m", "");
    rig.execute(&[0xa, 0xb], 2);
    for request in [0xa, 0xb] {
        rig.respond(request, FINAL, 0);
        rig.release(request);
    }
    rig.executed(0);
    rig.delete(0xa);
    rig.request(0xa, "m", "second");
    rig.execute(&[0xa], 1);
    rig.respond(0xa, FINAL, 0);
    rig.release(0xa);
    rig.executed(0);
    let id = |id: &str| Some(id.to_owned());
    // That the model sends one response is known once it did.
    assert_eq!(rig.met(), [(1, id("first"), true), (2, None, true), (3, id("second"), false)]);
    assert_eq!(rig.steps().iter().map(members).collect::<Vec<_>>(), [vec![1, 2], vec![3]]);
    assert!(rig.steps().iter().all(|step| step.is_complete && !step.failed && step.engine == INSTANCE));
    assert_eq!(rig.ended(), [(1, Reason::Unsaid), (2, Reason::Unsaid), (3, Reason::Unsaid)]);
    assert!(rig.tokens(1).is_empty());
    assert_eq!(rig.triton.health(), Health { seen: 2, failed: 0, why: None });
}

#[test]
fn waiting_begins_at_arrival_and_ends_at_execution() {
    let mut rig = Rig::default();
    rig.request(0xa, "m", "");
    let arrived = rig.now;
    rig.now += 500;
    rig.execute(&[0xa], 1);
    let (scheduled, compute) = (rig.now, rig.now + 2);
    rig.now += 100;
    let stamps = [INSTANCE, 0xa, 1, scheduled, compute, compute + 50, compute + 51];
    rig.call(WORKER, "TRITONBACKEND_ModelInstanceReportStatistics", &stamps);
    let reached = rig.all(|said| match said.saying {
        Saying::Reached { moment, at_ns, .. } => Some((moment, at_ns)),
        _ => None,
    });
    let expected =
        [(Moment::Enqueued, arrived), (Moment::Scheduled, scheduled), (Moment::Prefilling, compute)];
    assert_eq!(reached, expected);
    let gauges = rig.all(|said| match said.saying {
        Saying::Gauges(gauges) => Some((gauges.running, gauges.waiting)),
        _ => None,
    });
    assert_eq!(gauges, [(Some(1), Some(0))]);
}

#[test]
fn stamps_of_another_clock_are_refused() {
    for stamps in [[9, 8, 10, 11], [5, 6, 7, 1_700_000_000_000_000_000]] {
        let mut rig = Rig::default();
        rig.request(0xa, "m", "");
        rig.execute(&[0xa], 1);
        let args = [&[INSTANCE, 0xa, 1][..], &stamps].concat();
        rig.call(WORKER, "TRITONBACKEND_ModelInstanceReportStatistics", &args);
        assert_eq!(rig.triton.health().failed, 1);
    }
}

#[test]
fn edge_35_a_warm_up_request_is_tied_to_nothing() {
    let mut rig = Rig::default();
    rig.execute(&[0xe], 1);
    rig.respond(0xe, FINAL, 0);
    rig.release(0xe);
    rig.executed(0);
    let threads = rig.all(|said| match &said.saying {
        Saying::Met { tie, .. } => Some(tie.clone()),
        _ => None,
    });
    assert_eq!(threads, [super::super::said::Tie::default()]);
    assert_eq!(rig.ended(), [(1, Reason::Unsaid)]);
    // Its pointer is the next request's.
    rig.request(0xe, "m", "r");
    assert_eq!(rig.met().len(), 2);
}

#[test]
fn edge_35_an_ensemble_ends_with_its_request_and_its_steps_are_requests_of_their_own() {
    let mut rig = Rig::default();
    rig.request(0xa, "ensemble", "r");
    for child in [0xc, 0xd] {
        rig.execute(&[child], 1);
        rig.respond(child, FINAL, 0);
        rig.release(child);
        rig.executed(0);
    }
    rig.delete(0xa);
    assert_eq!(rig.met().len(), 3);
    assert_eq!(rig.steps().len(), 2);
    assert_eq!(rig.ended().last(), Some(&(1, Reason::Unsaid)));
}

#[test]
fn edge_35_a_decoupled_model_ends_with_an_empty_last_response() {
    let mut rig = Rig::default();
    rig.request(0xa, "llm", "r");
    rig.execute(&[0xa], 1);
    rig.back(WORKER, "TRITONBACKEND_ResponseFactoryNew", &[0x10, 0xa], 0, 0x60);
    rig.release(0xa);
    rig.executed(0);
    let mut sent = Vec::new();
    for response in [0x61, 0x62, 0x63] {
        rig.back(9, "TRITONBACKEND_ResponseNewFromFactory", &[0x10, 0x60], 0, response);
        rig.call(9, "TRITONBACKEND_ResponseOutput", &[response]);
        rig.call(9, "TRITONBACKEND_ResponseSend", &[response, 0, 0]);
        sent.push(rig.now);
    }
    // The pointer of a request that still sends is another's already.
    rig.request(0xa, "llm", "s");
    rig.call(9, "TRITONBACKEND_ResponseFactorySendFlags", &[0x60, FINAL]);
    rig.call(9, "TRITONBACKEND_ResponseFactoryDelete", &[0x60]);
    assert_eq!(rig.tokens(1), sent);
    assert_eq!(rig.ended(), [(1, Reason::Unsaid)]);
    let counts = rig.all(|said| match said.saying {
        Saying::Counts { inner, counts } => Some((inner.0, counts.generated)),
        _ => None,
    });
    assert_eq!(counts, [(1, Some(3))]);
}

#[test]
fn edge_35_an_empty_response_that_is_the_last_is_no_token() {
    let mut rig = Rig::default();
    rig.request(0xa, "llm", "r");
    rig.execute(&[0xa], 1);
    rig.back(WORKER, "TRITONBACKEND_ResponseFactoryNew", &[0x10, 0xa], 0, 0x60);
    for (response, filled, flags) in [(0x61, true, 0), (0x62, false, FINAL)] {
        rig.back(WORKER, "TRITONBACKEND_ResponseNewFromFactory", &[0x10, 0x60], 0, response);
        if filled {
            rig.call(WORKER, "TRITONBACKEND_ResponseOutput", &[response]);
        }
        rig.call(WORKER, "TRITONBACKEND_ResponseSend", &[response, flags, 0]);
    }
    assert_eq!((rig.tokens(1).len(), rig.ended().len()), (1, 1));
}

#[test]
fn edge_35_an_execution_that_fails_leaves_its_requests_to_the_server() {
    let mut rig = Rig::default();
    rig.request(0xa, "m", "");
    rig.execute(&[0xa], 1);
    rig.executed(0x1234);
    assert_eq!(rig.ended(), [(1, Reason::Error)]);
    assert!(rig.steps()[0].failed);
    rig.request(0xa, "m", "");
    assert_eq!(rig.met().len(), 2);
}

#[test]
fn a_request_that_is_not_taken_or_answered_with_an_error_fails() {
    let mut rig = Rig::default();
    rig.request(0xa, "m", "");
    rig.back(FRONT, "TRITONSERVER_ServerInferAsync", &[], 77, 0);
    rig.request(0xa, "m", "");
    rig.execute(&[0xa], 1);
    rig.respond(0xa, FINAL, 0x99);
    rig.release(0xa);
    rig.executed(0);
    assert_eq!(rig.ended(), [(1, Reason::Error), (2, Reason::Error)]);
}

#[test]
fn a_request_that_goes_back_to_the_queue_is_executed_again() {
    let mut rig = Rig::default();
    rig.request(0xa, "m", "");
    for again in [true, false] {
        rig.execute(&[0xa], 1);
        if again {
            rig.call(WORKER, "TRITONBACKEND_RequestRelease", &[0xa, RESCHEDULE]);
        } else {
            rig.respond(0xa, FINAL, 0);
            rig.release(0xa);
        }
        rig.executed(0);
    }
    assert_eq!((rig.met().len(), rig.ended().len()), (1, 1));
    assert_eq!(rig.steps().len(), 2, "both executions computed it");
}

#[test]
fn edge_35_a_backend_that_works_on_after_its_execute_has_no_steps() {
    let mut rig = Rig::default();
    rig.request(0xa, "vllm_model", "");
    rig.execute(&[0xa], 1);
    rig.executed(0);
    rig.respond(0xa, FINAL, 0);
    rig.release(0xa);
    assert_eq!((rig.steps().len(), rig.ended().len()), (0, 1));
}

#[test]
fn a_batch_that_was_cut_is_incomplete_and_what_is_none_is_refused() {
    let mut rig = Rig::default();
    rig.execute(&[0xa, 0xb], 300);
    rig.release(0xa);
    rig.release(0xb);
    rig.executed(0);
    assert!(!rig.steps()[0].is_complete);
    for (pointers, count) in [(vec![], 0), (vec![0xa, 0xa], 2), (vec![0], 1), (vec![0xa], 1 << 20)] {
        let mut rig = Rig::default();
        rig.execute(&pointers, count);
        assert_eq!((rig.said.len(), rig.triton.health().failed), (0, 1), "{pointers:?}");
    }
}
