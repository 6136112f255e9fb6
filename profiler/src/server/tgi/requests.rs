//! Requests of a router by its ids.
//!
//! In: what is asked, whole steps, filters. Out: what is said of requests.

use super::Voice;
use super::calls::{Closed, Done};
use crate::evidence::Evidence;
use crate::http::{ShardBatch, ShardFinish};
use crate::server::said::{Counts, EngineStep, Inner, Member, Moment, Part, Reason, Saying, Tie};
use std::collections::{BTreeMap, BTreeSet};

/// The id in the router's checks whether the shards are alive (`router/src/infer`, `LIVENESS_ID`).
const LIVENESS: u64 = u64::MAX;
/// Requests that are followed; the oldest is forgotten beyond. `--max-concurrent-requests` is 128 by default.
const MAX_REQUESTS: usize = 8192;

/// A request.
#[derive(Debug)]
struct Request {
    inner: Inner,
    generated: u64,
    /// A step with it in got no answer.
    failed: bool,
}

/// The requests that are in batches.
#[derive(Debug, Default)]
pub(super) struct Requests(BTreeMap<u64, Request>);

fn ids(batches: &[ShardBatch]) -> impl Iterator<Item = u64> {
    batches.iter().flat_map(|batch| &batch.requests).copied().filter(|id| *id != LIVENESS)
}

impl Requests {
    /// What became of a call.
    pub(super) fn close(&mut self, closed: Option<Closed>, voice: &mut Voice<'_>) {
        match closed {
            Some(Closed::Step(done)) => self.done(&done, voice),
            // The others were given up, as those that finished were told before.
            Some(Closed::Filter(kept)) => self.keep(&ids(&kept).collect(), voice),
            Some(Closed::Unanswered { start_ns, batches }) => self.failed(start_ns, &batches, voice),
            None => {}
        }
    }

    /// A shard is asked: who is new waits no longer. Its prompt is computed in this step.
    pub(super) fn asked(&mut self, batches: &[ShardBatch], voice: &mut Voice<'_>) {
        for id in ids(batches) {
            if self.0.contains_key(&id) {
                continue;
            }
            if self.0.len() >= MAX_REQUESTS {
                self.0.pop_first();
            }
            let inner = voice.number();
            voice.say(Saying::Met { inner, tie: Tie::default(), generates: true });
            for moment in [Moment::Scheduled, Moment::Prefilling] {
                let at_ns = voice.time_ns;
                voice.say(Saying::Reached { inner, moment, at_ns, evidence: Evidence::E1 });
            }
            self.0.insert(id, Request { inner, generated: 0, failed: false });
        }
    }

    fn keep(&mut self, kept: &BTreeSet<u64>, voice: &mut Voice<'_>) {
        let gone: Vec<u64> = self.0.keys().filter(|id| !kept.contains(id)).copied().collect();
        for id in gone {
            if let Some(request) = self.0.remove(&id) {
                let reason = if request.failed { Reason::Error } else { Reason::Abort };
                voice.end(request.inner, reason, voice.time_ns);
            }
        }
    }

    /// Nobody answered: the router tells its clients of an error.
    fn failed(&mut self, start_ns: u64, batches: &[ShardBatch], voice: &mut Voice<'_>) {
        let mut members = Vec::new();
        for id in ids(batches) {
            if let Some(request) = self.0.get_mut(&id) {
                request.failed = true;
                members.push(member(request, 0));
            }
        }
        voice.say(Saying::Step(Box::new(EngineStep {
            start_ns: Some(start_ns),
            end_ns: voice.time_ns,
            members,
            is_complete: true,
            failed: true,
            ..EngineStep::default()
        })));
    }

    /// A step is done.
    fn done(&mut self, done: &Done, voice: &mut Voice<'_>) {
        let asked: BTreeSet<u64> = ids(&done.batches).collect();
        if asked.is_empty() {
            return;
        }
        let mut members = Vec::with_capacity(asked.len());
        for id in &asked {
            let Some(request) = self.0.get_mut(id) else { continue };
            let generation = done.generations.iter().find(|generation| generation.request == *id);
            let tokens = generation.map_or(0, |generation| generation.tokens);
            request.failed = false;
            members.push(member(request, tokens));
            request.generated = request.generated.saturating_add(u64::from(tokens));
            let inner = request.inner;
            if tokens > 0 {
                voice.say(Saying::Tokens { inner, count: tokens, at_ns: done.end_ns });
            }
            if let Some(finish) = generation.and_then(|generation| generation.finish) {
                self.0.remove(id);
                finished(inner, finish, done.end_ns, voice);
            }
        }
        let decodes = members.iter().all(|member| member.part == Part::Decode);
        let held: usize = done.batches.iter().map(|batch| batch.requests.len()).sum();
        let size: u64 = done.batches.iter().map(|batch| batch.size).sum();
        voice.say(Saying::Step(Box::new(EngineStep {
            engine: 0,
            start_ns: Some(done.start_ns),
            end_ns: done.end_ns,
            tokens: decodes.then_some(members.len() as u64),
            members,
            // Only the first 1,024 ids of a batch are kept.
            is_complete: held as u64 == size,
            failed: false,
            thread: None,
        })));
        self.gone(done, &asked, decodes, voice);
    }

    /// A step that only generates has all that goes on: who is not in it was given up when nothing was left of its batch
    /// (`ClearCache`, which is not read).
    fn gone(&mut self, done: &Done, asked: &BTreeSet<u64>, decodes: bool, voice: &mut Voice<'_>) {
        let whole = done.batches.iter().all(|batch| batch.requests.len() as u64 == batch.size);
        if decodes && whole && !done.is_rest {
            self.keep(asked, voice);
        }
    }
}

fn member(request: &Request, generated: u32) -> Member {
    // With prompts in parts a request without a token is still at its prompt, whatever the call.
    let part = if request.generated == 0 { Part::Prefill } else { Part::Decode };
    let computed = u32::from(part == Part::Decode);
    Member { inner: request.inner, part, computed, generated, evidence: Evidence::E1 }
}

fn finished(inner: Inner, finish: ShardFinish, at_ns: u64, voice: &mut Voice<'_>) {
    let generated = Some(finish.generated_tokens);
    voice.say(Saying::Counts { inner, counts: Counts { generated, ..Counts::default() } });
    // `FinishReason` of `generate.proto`.
    let reason = match finish.reason {
        0 => Reason::Length,
        1 | 2 => Reason::Stop,
        _ => Reason::Unsaid,
    };
    voice.end(inner, reason, at_ns);
}
