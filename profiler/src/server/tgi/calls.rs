//! Calls of the router: the same one goes to every shard, and each answers for some of the requests.
//!
//! In: what was asked and answered by call. Out: whole steps. A shard answers for the requests whose place in the batch is
//! its rank (`if i % self.world_size == self.rank`, `server/text_generation_server/models/flash_causal_lm.py`), and the
//! router puts the answers together, so a step has the generations of all of them and ends with the last. Where the
//! profiler hears both ends of a connection, both are calls of the same step too. How many shards there are shows in the
//! calls alone: the first one that is heard is not closed before the next is asked, or has had its time.

use crate::http::{ShardBatch, ShardGeneration, ShardStep};
use std::collections::{BTreeMap, BTreeSet};

/// The router asks all its shards before it waits for any (`join_all`, `sharded_client.rs`): who was not heard of so long
/// after the last answer is none.
const HELD_NS: u64 = 200_000_000;

/// What the shards were asked together.
#[derive(Debug, Default)]
struct Group {
    batches: Vec<ShardBatch>,
    asked_ns: u64,
    calls: Vec<u64>,
    /// The shards that were asked: each serves one call at a time.
    pids: Vec<u32>,
    answered: usize,
    is_filter: bool,
    generations: BTreeMap<u64, ShardGeneration>,
    end_ns: u64,
}

/// A step that all shards have answered.
#[derive(Debug, PartialEq)]
pub(super) struct Done {
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) batches: Vec<ShardBatch>,
    pub(super) generations: Vec<ShardGeneration>,
    /// The rest of a step that had seemed whole before its server's shards were all known.
    pub(super) is_rest: bool,
}

/// What became of a call.
#[derive(Debug)]
pub(super) enum Closed {
    Step(Done),
    /// Of a filter: what is kept.
    Filter(Vec<ShardBatch>),
    /// Nobody answered.
    Unanswered {
        start_ns: u64,
        batches: Vec<ShardBatch>,
    },
}

/// The calls.
#[derive(Debug, Default)]
pub(super) struct Calls {
    open: Option<Group>,
    /// The last call that was closed: what was asked, and whom.
    last: (Vec<ShardBatch>, Vec<u32>),
    /// The rest of it: a call of a shard that was not known before.
    rest: Option<Group>,
    /// Shards that were ever asked.
    pids: BTreeSet<u32>,
    /// A call was answered and another one asked: all shards are known.
    is_settled: bool,
}

impl Calls {
    /// Whether a call is under way.
    pub(super) fn is_open(&self, call: u64) -> bool {
        [&self.open, &self.rest].into_iter().flatten().any(|group| group.calls.contains(&call))
    }

    /// A shard is asked. Returns what became of the call before.
    pub(super) fn asked(
        &mut self,
        pid: u32,
        call: u64,
        batches: &[ShardBatch],
        now_ns: u64,
    ) -> Option<Closed> {
        let is_new = self.pids.insert(pid);
        if let Some(group) = &mut self.open
            && group.batches == batches
            && !group.pids.contains(&pid)
        {
            group.calls.push(call);
            group.pids.push(pid);
            return None;
        }
        let (calls, pids, batches) = (vec![call], vec![pid], batches.to_vec());
        let group = Group { batches, asked_ns: now_ns, calls, pids, ..Group::default() };
        if self.open.is_none() && is_new && self.last.0 == group.batches {
            self.rest = Some(group);
            return None;
        }
        self.rest = None;
        self.open.replace(group).map(|before| self.close(before))
    }

    /// An answer without a step: a filter's.
    pub(super) fn filtered(&mut self, call: u64) -> Option<Closed> {
        let group = self.open.as_mut().filter(|group| group.calls.contains(&call))?;
        group.answered += 1;
        group.is_filter = true;
        self.close_if_answered()
    }

    /// A shard answers.
    pub(super) fn answered(
        &mut self,
        call: u64,
        step: &ShardStep,
        now_ns: u64,
    ) -> Result<Option<Closed>, &'static str> {
        let groups = [&mut self.open, &mut self.rest].into_iter().flatten();
        let Some(group) = groups.into_iter().find(|group| group.calls.contains(&call)) else {
            // It was asked before we listened.
            return Ok(None);
        };
        let asked = |id: u64| group.batches.iter().any(|batch| batch.requests.contains(&id));
        if step.generations.iter().any(|generation| !asked(generation.request)) {
            return Err("a shard answers for a request that it was not asked for");
        }
        group.generations.extend(step.generations.iter().map(|g| (g.request, *g)));
        group.answered += 1;
        group.end_ns = now_ns;
        Ok(self.close_if_answered().or_else(|| self.rest()))
    }

    /// Time goes on: the first call is closed when nobody else can be asked.
    pub(super) fn tick(&mut self, now_ns: u64) -> Option<Closed> {
        let group = self.open.as_ref()?;
        if group.answered == 0 || now_ns.saturating_sub(group.end_ns) < HELD_NS {
            return None;
        }
        self.is_settled = true;
        self.close_if_answered()
    }

    /// Closes the call when all shards have answered.
    fn close_if_answered(&mut self) -> Option<Closed> {
        let (shards, is_settled) = (self.pids.len(), self.is_settled);
        let is_answered = |group: &mut Group| {
            let asked = group.calls.len();
            group.answered >= asked && asked >= shards && (is_settled || group.is_filter)
        };
        let group = self.open.take_if(is_answered)?;
        Some(self.close(group))
    }

    fn close(&mut self, group: Group) -> Closed {
        self.is_settled |= group.answered > 0 && !group.is_filter;
        let Group { batches, asked_ns: start_ns, end_ns, generations, .. } = group;
        self.last = (batches.clone(), group.pids);
        let generations = generations.into_values().collect();
        match group.answered {
            0 => Closed::Unanswered { start_ns, batches },
            _ if group.is_filter => Closed::Filter(batches),
            _ => Closed::Step(Done { start_ns, end_ns, batches, generations, is_rest: false }),
        }
    }

    /// What a shard that was not known answers after the others: its own share of the step.
    fn rest(&mut self) -> Option<Closed> {
        let group = self.rest.take_if(|group| group.answered > 0)?;
        let requests: Vec<u64> = group.generations.keys().copied().collect();
        let batch = ShardBatch { size: requests.len() as u64, requests, ..ShardBatch::default() };
        let generations = group.generations.into_values().collect();
        let (start_ns, end_ns, batches) = (group.asked_ns, group.end_ns, vec![batch]);
        Some(Closed::Step(Done { start_ns, end_ns, batches, generations, is_rest: true }))
    }

    /// A process is gone. Whether it was a shard.
    pub(super) fn gone(&mut self, pid: u32) -> bool {
        self.pids.remove(&pid)
    }
}
