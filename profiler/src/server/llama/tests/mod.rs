//! Calls in the order in which the real server makes them (`tools/server/server-context.cpp`, llama.cpp 0c1e570).

use super::*;
use crate::server::adapter::{Batch, Call, Returned, Run};
use crate::server::said::{EngineStep, Inner, Part, Reason};

mod requests;
mod steps;

const MAIN: u64 = 0x10;
const MEMORY: u64 = 0x11;
const DRAFT: u64 = 0x20;
const DRAFT_MEMORY: u64 = 0x21;
const LOOP: u32 = 7;

/// A run: sequence, position, tokens, outputs.
fn run(sequence: i32, position: i32, tokens: u16, outputs: u16) -> Run {
    Run { sequence, sequences: 1, position, tokens, outputs }
}

#[derive(Default)]
struct Rig {
    llama: Llama,
    now: u64,
    said: Vec<Said>,
}

impl Rig {
    fn hear(&mut self, tid: u32, what: What<'_>) {
        self.now += 1;
        let heard = Heard { pid: 1, tid, time_ns: self.now, what };
        self.llama.hear(&heard, &mut self.said);
    }

    fn give(&mut self, context: u64, runs: &[Run]) {
        self.give_more(context, runs, false, 0);
    }

    fn give_more(&mut self, context: u64, runs: &[Run], embeddings: bool, unseen: u32) {
        let tokens = runs.iter().map(|run| u32::from(run.tokens)).sum::<u32>() + unseen;
        self.hear(
            LOOP,
            What::Batch(Batch { context, api: 0, tokens, embeddings, last_only: false, runs, unseen }),
        );
    }

    fn call(&mut self, tid: u32, symbol: &'static str, args: &[u64], returned: Option<i64>, array: &[u64]) {
        let out = array.first().copied().unwrap_or(0);
        let returned = returned.map(|result| Returned { entered_ns: self.now, result, out });
        self.hear(tid, What::Call(Call { symbol, args, returned, text: None, array }));
    }

    fn back(&mut self, context: u64, result: i64) {
        self.call(LOOP, "llama_process", &[context, 1], Some(result), &[]);
    }

    fn wait(&mut self, context: u64) {
        self.call(LOOP, "llama_synchronize", &[context], Some(0), &[]);
    }

    fn cut(&mut self, memory: u64, sequence: i32, from: i32, to: i32) {
        let word = |int: i32| u64::from(int.cast_unsigned());
        let args = [memory, word(sequence), word(from), word(to)];
        self.call(LOOP, "llama_memory_seq_rm", &args, None, &[]);
    }

    fn copied(&mut self, memory: u64, from: i32, to: i32) {
        let word = |int: i32| u64::from(int.cast_unsigned());
        self.call(
            LOOP,
            "llama_memory_seq_cp",
            &[memory, word(from), word(to), word(-1), word(-1)],
            None,
            &[],
        );
    }

    /// A step of the server: given, computed, waited for.
    fn step(&mut self, runs: &[Run]) {
        self.give(MAIN, runs);
        self.back(MAIN, 0);
        if runs.iter().any(|run| run.outputs > 0) {
            self.wait(MAIN);
        }
    }

    fn steps(&self) -> Vec<&EngineStep> {
        let step = |said: &'_ Said| matches!(said.saying, Saying::Step(_));
        let steps = self.said.iter().filter(|said| step(said));
        steps
            .map(|said| match &said.saying {
                Saying::Step(step) => &**step,
                _ => unreachable!(),
            })
            .collect()
    }

    /// Tokens of a request: by steps, and by themselves.
    fn tokens(&self, inner: u64) -> u32 {
        let tokens = |said: &Said| match said.saying {
            Saying::Tokens { inner: Inner(of), count, .. } if of == inner => count,
            _ => 0,
        };
        self.said.iter().map(tokens).sum()
    }

    fn met(&self) -> Vec<(u64, bool)> {
        let met = |said: &Said| match &said.saying {
            Saying::Met { inner, generates, .. } => Some((inner.0, *generates)),
            _ => None,
        };
        self.said.iter().filter_map(met).collect()
    }

    fn ended(&self) -> Vec<(u64, Reason)> {
        let ended = |said: &Said| match said.saying {
            Saying::Ended { inner, reason, .. } => Some((inner.0, reason)),
            _ => None,
        };
        self.said.iter().filter_map(ended).collect()
    }

    /// Prompt and cached counts of a request.
    fn prompt(&self, inner: u64) -> Option<(u64, u64)> {
        self.said.iter().find_map(|said| match said.saying {
            Saying::Counts { inner: Inner(of), counts } if of == inner => counts.prompt.zip(counts.cached),
            _ => None,
        })
    }
}

/// inner, part, computed, generated of the members of a step.
fn members(step: &EngineStep) -> Vec<(u64, Part, u32, u32)> {
    step.members.iter().map(|m| (m.inner.0, m.part, m.computed, m.generated)).collect()
}
