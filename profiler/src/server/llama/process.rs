//! A server process: its contexts, and which memory and which draft belongs to which.
//!
//! In: batches, returns, what is done to memories. Out: what the contexts say of it.

use super::context::{self, Context, Role};
use super::request::{Launched, copy, enter, leave};
use super::sequence::Removed;
use super::task::{self, Tasks};
use super::voice::{Voice, say_step};
use crate::server::adapter::{Batch, Call, Health, Run};
use crate::server::said::Reason;
use std::collections::BTreeMap;

/// Contexts of a process: its model's, its draft's, and older servers' one for each slot.
const MAX_CONTEXTS: usize = 64;
/// What is heard of a memory before the context is known that it belongs to.
const MAX_LOOSE: usize = 256;
/// So many batches that do not follow a main context make a draft's context one of its own.
const STRANGE: u8 = 3;

/// What is done to a memory.
#[derive(Clone, Copy, Debug)]
enum Done {
    Removed { sequence: i32, from: i32, to: i32 },
    Copied { from: i32, to: i32 },
}

/// A server process.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) contexts: BTreeMap<u64, Context>,
    /// Contexts by their memory.
    memories: BTreeMap<u64, u64>,
    loose: Vec<(u64, Done)>,
    tasks: Tasks,
    /// Slots that a task was put into and that have computed nothing of it yet.
    launched: Launched,
}

impl Process {
    pub(super) fn batch(&mut self, batch: &Batch<'_>, tid: u32, voice: &mut Voice<'_>, health: &mut Health) {
        if let Some(why) = context::fault(batch) {
            return health.fail(why);
        }
        let runs = context::joined(batch);
        let role = self.role(batch.context, &runs, tid);
        self.bind(batch.context, &runs, voice);
        let drafts = self.contexts.len() > 1;
        let Some(context) = self.contexts.get_mut(&batch.context) else { return };
        context.role = role;
        if let Some(step) = context.overtaken(&runs, tid, voice.time_ns, drafts) {
            say_step(context, step, voice);
        }
        let mut missed = false;
        if role == Role::Main {
            for run in &runs {
                missed |= enter(context, run, batch.embeddings, drafts, &mut self.launched, voice);
            }
            leave(context, &runs, voice);
        }
        context.open(batch, runs, voice.time_ns);
        if missed { health.fail("a batch before this one was not heard") } else { health.pass() }
    }

    /// What the context of a batch is for.
    fn role(&mut self, id: u64, runs: &[Run], tid: u32) -> Role {
        if !self.contexts.contains_key(&id) && self.contexts.len() >= MAX_CONTEXTS {
            self.contexts.pop_first();
        }
        let follows = |context: &Context| context.last_tid == tid && context.is_followed_by(runs);
        let other = |(other, context): &(&u64, &Context)| **other != id && context.role == Role::Main;
        let mut mains = self.contexts.iter().filter(other);
        let Some(known) = self.contexts.get(&id) else {
            let role =
                mains.find(|(_, context)| follows(context)).map_or(Role::Main, |(id, _)| Role::Draft(*id));
            self.contexts.insert(id, Context { id, role, ..Context::default() });
            return role;
        };
        let (role, strange) = match known.role {
            // The one that computes a prompt first is the main one: whoever came in the middle may have been wrong.
            Role::Main => {
                let prompt = runs.iter().any(|run| run.tokens > 1);
                let copy = |context: &Context| context.last_tid == tid && same(&context.last, runs);
                let main =
                    mains.find(|(_, context)| prompt && context.last_ns > known.last_ns && copy(context));
                (main.map_or(Role::Main, |(id, _)| Role::Draft(*id)), 0)
            }
            Role::Draft(main) => {
                let near = self.contexts.get(&main).is_some_and(follows);
                let strange = if near { 0 } else { known.strange.saturating_add(1) };
                (if strange >= STRANGE { Role::Main } else { known.role }, strange)
            }
        };
        if let Some(known) = self.contexts.get_mut(&id) {
            known.strange = strange;
        }
        role
    }

    /// Finds out which memory belongs to a context: the one that was cut where a sequence now goes on, the first of
    /// them, since a server speaks to its main context first; or the only one there is.
    fn bind(&mut self, id: u64, runs: &[Run], voice: &mut Voice<'_>) {
        if self.loose.is_empty() || self.contexts.get(&id).is_none_or(|context| context.memory.is_some()) {
            return;
        }
        let fits = |done: &Done| match *done {
            Done::Removed { sequence, from, to } => {
                to < 0 && runs.iter().any(|run| run.sequence == sequence && run.position == from.max(0))
            }
            Done::Copied { .. } => false,
        };
        let fitting =
            self.loose.iter().find(|(memory, done)| *memory == id || fits(done)).map(|(memory, _)| *memory);
        let only =
            self.loose.first().map(|(memory, _)| *memory).filter(|memory| {
                self.contexts.len() == 1 && self.loose.iter().all(|(other, _)| other == memory)
            });
        let Some(memory) = fitting.or(only) else { return };
        self.memories.insert(memory, id);
        if let Some(context) = self.contexts.get_mut(&id) {
            context.memory = Some(memory);
        }
        let (of_it, others) = std::mem::take(&mut self.loose).into_iter().partition(|(m, _)| *m == memory);
        self.loose = others;
        let of_it: Vec<(u64, Done)> = of_it;
        for (_, done) in of_it {
            self.done(id, done, voice);
        }
    }

    pub(super) fn call(&mut self, call: &Call<'_>, tid: u32, voice: &mut Voice<'_>) {
        let arg = |index: usize| call.args.get(index).copied().unwrap_or(0);
        match (call.symbol, call.returned) {
            ("llama_decode" | "llama_encode" | "llama_process", Some(returned)) => {
                self.returned(arg(0), returned.result, tid, voice);
            }
            ("llama_synchronize", Some(_)) => self.synchronized(arg(0), voice),
            ("llama_memory_seq_rm" | "llama_kv_self_seq_rm" | "llama_kv_cache_seq_rm", None) => {
                let done = Done::Removed { sequence: int(arg(1)), from: int(arg(2)), to: int(arg(3)) };
                self.memory(call.symbol, arg(0), done, voice);
            }
            ("llama_memory_seq_cp" | "llama_kv_self_seq_cp" | "llama_kv_cache_seq_cp", None) => {
                let done = Done::Copied { from: int(arg(1)), to: int(arg(2)) };
                self.memory(call.symbol, arg(0), done, voice);
            }
            (task::NEW_ID, Some(returned)) => {
                self.tasks.given(tid, int(returned.result.cast_unsigned()), voice.time_ns);
            }
            (task::LAUNCH, Some(returned)) if returned.result & 1 == 1 => {
                if let [slot, task, ..] = call.array {
                    self.launch(int(*slot), int(*task), voice);
                }
            }
            _ => {}
        }
    }

    /// A call on a batch returned.
    fn returned(&mut self, id: u64, result: i64, tid: u32, voice: &mut Voice<'_>) {
        let drafts = self.contexts.len() > 1;
        let Some(mut context) = self.contexts.remove(&id) else { return };
        if context.step.as_ref().is_some_and(|step| !step.returned) {
            let step = if result != 0 {
                context.failed(voice.time_ns)
            } else {
                match context.role {
                    Role::Main => context.computed(voice.time_ns, tid, drafts),
                    Role::Draft(main) => {
                        let none = BTreeMap::new();
                        let main = self.contexts.get(&main).map_or(&none, |main| &main.sequences);
                        context.drafted(main, voice.time_ns);
                    }
                }
                context.finish()
            };
            if let Some(step) = step {
                say_step(&mut context, step, voice);
            }
        }
        self.contexts.insert(id, context);
    }

    /// The GPU was waited for.
    fn synchronized(&mut self, id: u64, voice: &mut Voice<'_>) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let Some(step) = context.step.as_mut().filter(|step| step.returned && step.outputs && !step.waited)
        else {
            return;
        };
        (step.waited, step.end_ns) = (true, voice.time_ns);
        (context.waits, context.last_ns) = (Some(true), voice.time_ns);
        if let Some(step) = context.finish() {
            say_step(context, step, voice);
        }
    }

    fn memory(&mut self, symbol: &str, object: u64, done: Done, voice: &mut Voice<'_>) {
        // Older functions take the context itself.
        let direct = symbol.starts_with("llama_kv_") && self.contexts.contains_key(&object);
        let context = if direct { Some(object) } else { self.memories.get(&object).copied() };
        match context {
            Some(id) => self.done(id, done, voice),
            None if self.loose.len() < MAX_LOOSE => self.loose.push((object, done)),
            None => {
                self.loose.remove(0);
                self.loose.push((object, done));
            }
        }
    }

    fn done(&mut self, id: u64, done: Done, voice: &mut Voice<'_>) {
        let Some(context) = self.contexts.get_mut(&id).filter(|context| context.role == Role::Main) else {
            return;
        };
        match done {
            Done::Removed { sequence, .. } if sequence < 0 => {}
            Done::Removed { sequence, from, to } => {
                let state = context.sequences.entry(sequence).or_default();
                match state.remove(from, to) {
                    Removed::Accepted(tokens) => {
                        state.came(tokens);
                        context.told(sequence, tokens);
                        if let Some(step) = context.finish() {
                            say_step(context, step, voice);
                        }
                    }
                    Removed::Cleared => {
                        if let Some(request) = context.take(sequence) {
                            voice.end(&request, if request.failed { Reason::Error } else { Reason::Unsaid });
                        }
                    }
                    Removed::Noted => {}
                }
            }
            Done::Copied { from, to } => copy(context, from, to, &mut self.launched, voice),
        }
    }

    /// A task was put into a slot.
    fn launch(&mut self, slot: i32, task: i32, voice: &mut Voice<'_>) {
        let asked = self.tasks.launched(voice.pid, task);
        for context in self.contexts.values_mut().filter(|context| context.role == Role::Main) {
            if let Some(request) = context.take(slot) {
                voice.end(&request, if request.failed { Reason::Error } else { Reason::Unsaid });
            }
        }
        self.launched.insert(slot, asked);
    }
}

/// Whether two batches have the same tokens.
fn same(left: &[Run], right: &[Run]) -> bool {
    let span = |run: &Run| (run.sequence, run.position, run.tokens);
    !left.is_empty() && left.iter().map(span).eq(right.iter().map(span))
}

/// An `int` in a register.
fn int(word: u64) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "an int is the low half of its register")]
    let low = word as u32;
    low.cast_signed()
}
