//! Text Generation Inference: what its router asks its shards over gRPC, and what they answer.
//!
//! In: batches and steps of `generate.v3.TextGenerationService` as the HTTP/2 reader finds them. Out: requests from their
//! first prefill to their last token, and one step for each call, however many shards it went to. Written from
//! huggingface/text-generation-inference db931fc (`proto/v3/generate.proto`, `backends/v3/src/backend.rs`,
//! `backends/v3/src/client/sharded_client.rs`, `server/text_generation_server/server.py`).
//!
//! Ids are the router's own counter, which no client sees, and arrival in its queue is on no wire: requests here are tied
//! to those outside by order and counts alone. Deliberately absent: prompts, tokens, logits.

mod calls;
mod requests;
#[cfg(test)]
mod tests;

use super::adapter::{Adapter, Health, Heard, What};
use super::said::{Inner, Reason, Said, Saying};
use calls::Calls;
use requests::Requests;

/// The adapter.
#[derive(Debug, Default)]
pub struct Tgi {
    calls: Calls,
    requests: Requests,
    numbers: u64,
    health: Health,
    /// Who was heard last.
    pid: u32,
}

/// Where and when something is said.
struct Voice<'a> {
    pid: u32,
    time_ns: u64,
    numbers: &'a mut u64,
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

    fn end(&mut self, inner: Inner, reason: Reason, at_ns: u64) {
        self.say(Saying::Ended { inner, reason, at_ns });
    }
}

impl Adapter for Tgi {
    fn name(&self) -> &'static str {
        "tgi"
    }

    fn hear(&mut self, heard: &Heard<'_>, out: &mut Vec<Said>) {
        self.pid = heard.pid;
        let mut voice = Voice { pid: heard.pid, time_ns: heard.time_ns, numbers: &mut self.numbers, out };
        let closed = match heard.what {
            // On a call under way it is the answer to a filter.
            What::ShardBatches { call, .. } if self.calls.is_open(call) => self.calls.filtered(call),
            What::ShardBatches { call, batches } => {
                let closed = self.calls.asked(heard.pid, call, batches, heard.time_ns);
                self.requests.close(closed, &mut voice);
                return self.requests.asked(batches, &mut voice);
            }
            What::ShardStep { call, step } => match self.calls.answered(call, step, heard.time_ns) {
                Ok(closed) => {
                    self.health.pass();
                    closed
                }
                Err(why) => return self.health.fail(why),
            },
            _ => None,
        };
        self.requests.close(closed, &mut voice);
    }

    fn health(&self) -> Health {
        self.health
    }

    fn tick(&mut self, now_ns: u64, out: &mut Vec<Said>) {
        let closed = self.calls.tick(now_ns);
        let mut voice = Voice { pid: self.pid, time_ns: now_ns, numbers: &mut self.numbers, out };
        self.requests.close(closed, &mut voice);
    }

    fn process_gone(&mut self, pid: u32, time_ns: u64, out: &mut Vec<Said>) {
        if self.calls.gone(pid) {
            (self.calls, self.requests) = (Calls::default(), Requests::default());
            out.push(Said { pid, time_ns, saying: Saying::EngineDead });
        }
    }
}
