//! llama.cpp, and whatever serves with its library: `llama-server`, Ollama through its child, programs of one's own.
//!
//! In: batches at the entry of `llama_decode`, `llama_encode` and `llama_process`, their returns, the return of
//! `llama_synchronize`, removals and copies in a context's memory. Out: one step a call with exact members, requests as
//! sequences begin and go on. Written from llama.cpp c392e50 and 0c1e570 (`tools/server/server-context.cpp`,
//! `common/speculative.cpp`, `include/llama.h`).
//!
//! A sequence is a slot of the server, and a request is what is in it from one start of a prompt to the next. The
//! library knows no request's id and never says that one is over: the response does. Where the server's own functions are
//! probed ([`task`]), a request carries the thread that serves it. Deliberately absent: tokens, text, logits.

mod context;
mod process;
mod request;
mod sequence;
mod task;
#[cfg(test)]
mod tests;
mod voice;

use super::adapter::{Adapter, Health, Heard, What};
use super::said::{Said, Saying};
use process::Process;
use std::collections::BTreeMap;
use voice::{Numbers, Voice};

/// Server processes that are told apart: Ollama has one for each model.
const MAX_PROCESSES: usize = 64;
/// The adapter.
#[derive(Debug, Default)]
pub struct Llama {
    processes: BTreeMap<u32, Process>,
    numbers: Numbers,
    health: Health,
}

impl Adapter for Llama {
    fn name(&self) -> &'static str {
        "llama.cpp"
    }

    fn hear(&mut self, heard: &Heard<'_>, out: &mut Vec<Said>) {
        if !self.processes.contains_key(&heard.pid) && self.processes.len() >= MAX_PROCESSES {
            self.processes.pop_first();
        }
        let process = self.processes.entry(heard.pid).or_default();
        let mut voice = Voice { pid: heard.pid, time_ns: heard.time_ns, numbers: &mut self.numbers, out };
        match &heard.what {
            What::Batch(batch) => process.batch(batch, heard.tid, &mut voice, &mut self.health),
            What::Call(call) => process.call(call, heard.tid, &mut voice),
            _ => {}
        }
    }

    fn health(&self) -> Health {
        self.health
    }

    fn process_gone(&mut self, pid: u32, time_ns: u64, out: &mut Vec<Said>) {
        if self.processes.remove(&pid).is_some_and(|process| !process.contexts.is_empty()) {
            out.push(Said { pid, time_ns, saying: Saying::EngineDead });
        }
    }
}
