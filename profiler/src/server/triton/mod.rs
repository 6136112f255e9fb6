//! Triton Inference Server, heard at its C interface.
//!
//! In: calls of the functions that `libtritonserver.so` exports to frontends and backends, and of each backend's
//! `TRITONBACKEND_ModelInstanceExecute`. Out: requests from their arrival to their last response, and a step for each
//! execution with its exact members. Written from `include/triton/core/tritonserver.h` and `tritonbackend.h`,
//! triton-inference-server/core (API 1.x; the functions are stable across its releases).
//!
//! A `TRITONBACKEND_Request*` is the `TRITONSERVER_InferenceRequest*` that the frontend made, so a request is a pointer
//! and how often it was used again. Deliberately absent: tensors; what an engine inside a backend does (vLLM,
//! TensorRT-LLM: their `Execute` returns at once, and their own adapters tell); which ensemble a step of it belongs to,
//! as the library links the two without a call.

mod executions;
mod requests;
#[cfg(test)]
mod tests;

use super::adapter::{Adapter, Call, Health, Heard, What};
use super::said::{Inner, Reason, Said, Saying};
use executions::Statistics;
use requests::Process;
use std::collections::BTreeMap;

/// Server processes that are told apart.
const MAX_PROCESSES: usize = 16;
/// `TRITONSERVER_RESPONSE_COMPLETE_FINAL`.
const FINAL: u64 = 1;
/// `TRITONSERVER_REQUEST_RELEASE_RESCHEDULE`: it goes back to the queue.
const RESCHEDULE: u64 = 2;

/// The adapter.
#[derive(Debug, Default)]
pub struct Triton {
    processes: BTreeMap<u32, Process>,
    numbers: u64,
    health: Health,
}

/// Where and when something is said.
struct Voice<'a> {
    pid: u32,
    tid: u32,
    time_ns: u64,
    numbers: &'a mut u64,
    health: &'a mut Health,
    out: &'a mut Vec<Said>,
}

impl Voice<'_> {
    fn say(&mut self, saying: Saying) {
        self.out.push(Said { pid: self.pid, time_ns: self.time_ns, saying });
    }

    fn number(&mut self) -> Inner {
        *self.numbers += 1;
        Inner(*self.numbers)
    }

    fn end(&mut self, inner: Inner, reason: Reason) {
        self.say(Saying::Ended { inner, reason, at_ns: self.time_ns });
    }
}

impl Adapter for Triton {
    fn name(&self) -> &'static str {
        "triton"
    }

    fn hear(&mut self, heard: &Heard<'_>, out: &mut Vec<Said>) {
        let What::Call(call) = &heard.what else { return };
        if !self.processes.contains_key(&heard.pid) && self.processes.len() >= MAX_PROCESSES {
            self.processes.pop_first();
        }
        let process = self.processes.entry(heard.pid).or_default();
        let mut voice = Voice {
            pid: heard.pid,
            tid: heard.tid,
            time_ns: heard.time_ns,
            numbers: &mut self.numbers,
            health: &mut self.health,
            out,
        };
        hear(process, call, &mut voice);
    }

    fn health(&self) -> Health {
        self.health
    }

    fn process_gone(&mut self, pid: u32, time_ns: u64, out: &mut Vec<Said>) {
        if self.processes.remove(&pid).is_some() {
            out.push(Said { pid, time_ns, saying: Saying::EngineDead });
        }
    }
}

fn hear(process: &mut Process, call: &Call<'_>, voice: &mut Voice<'_>) {
    let arg = |index: usize| call.args.get(index).copied().unwrap_or(0);
    let out = call.returned.filter(|returned| returned.result == 0 && returned.out != 0).map(|r| r.out);
    match (call.symbol, out) {
        // (TRITONSERVER_InferenceRequest **out, server, const char *model_name, int64_t version)
        ("TRITONSERVER_InferenceRequestNew", Some(out)) => process.made(out, call.text, voice),
        // (TRITONBACKEND_Response **out, TRITONBACKEND_Request*)
        ("TRITONBACKEND_ResponseNew", Some(out)) => process.response(out, arg(1)),
        // (TRITONBACKEND_ResponseFactory **out, TRITONBACKEND_Request*)
        ("TRITONBACKEND_ResponseFactoryNew", Some(out)) => process.factory(out, arg(1)),
        // (TRITONBACKEND_Response **out, TRITONBACKEND_ResponseFactory*)
        ("TRITONBACKEND_ResponseNewFromFactory", Some(out)) => process.response_of_factory(out, arg(1)),
        // (TRITONSERVER_InferenceRequest*, const char *id)
        ("TRITONSERVER_InferenceRequestSetId", _) => process.named(arg(0), call.text),
        // (TRITONBACKEND_Response*, TRITONBACKEND_Output **, const char *name, ...)
        ("TRITONBACKEND_ResponseOutput", _) => process.filled(arg(0)),
        // (server, TRITONSERVER_InferenceRequest*, TRITONSERVER_InferenceTrace*)
        ("TRITONSERVER_ServerInferAsync", _) => match call.returned {
            None => process.arrives(arg(1), voice),
            Some(returned) if returned.result != 0 => process.refused(voice),
            Some(_) => {}
        },
        // (TRITONBACKEND_ModelInstance*, TRITONBACKEND_Request **requests, uint32_t request_count)
        ("TRITONBACKEND_ModelInstanceExecute", _) => match call.returned {
            None => process.executes(arg(0), call.array, arg(2), voice),
            Some(returned) => process.executed(returned.result == 0, voice),
        },
        ("TRITONBACKEND_ModelInstanceReportStatistics", _) => {
            process.reported(arg(1), &Statistics::read(call.args), voice);
        }
        // (TRITONBACKEND_Response*, uint32_t send_flags, TRITONSERVER_Error*)
        ("TRITONBACKEND_ResponseSend", _) => {
            process.sent(arg(0), arg(1) & FINAL != 0, arg(2) != 0, voice);
        }
        // (TRITONBACKEND_ResponseFactory*, uint32_t send_flags)
        ("TRITONBACKEND_ResponseFactorySendFlags", _) => {
            process.flagged(arg(0), arg(1) & FINAL != 0, voice);
        }
        ("TRITONBACKEND_ResponseFactoryDelete", _) => process.factory_gone(arg(0), voice),
        // (TRITONBACKEND_Request*, uint32_t release_flags)
        ("TRITONBACKEND_RequestRelease", _) => {
            process.released(arg(0), arg(1) & RESCHEDULE != 0, voice);
        }
        ("TRITONSERVER_InferenceRequestDelete", _) => process.deleted(arg(0), voice),
        _ => {}
    }
}
