//! Calls as the router makes them (`backends/v3/src/backend.rs`).

use super::*;
use crate::http::{ShardBatch, ShardFinish, ShardGeneration, ShardStep};
use crate::server::said::{EngineStep, Moment, Part};

fn batch(id: u64, requests: &[u64]) -> ShardBatch {
    ShardBatch { id, size: requests.len() as u64, requests: requests.to_vec(), current_tokens: 0 }
}

fn token(request: u64) -> ShardGeneration {
    ShardGeneration { request, tokens: 1, finish: None }
}

fn last(request: u64, generated_tokens: u64, reason: u64) -> ShardGeneration {
    ShardGeneration { request, tokens: 1, finish: Some(ShardFinish { generated_tokens, reason }) }
}

#[derive(Default)]
struct Rig {
    tgi: Tgi,
    /// Calls go to them in turn.
    shards: u64,
    now: u64,
    said: Vec<Said>,
}

impl Rig {
    fn two() -> Self {
        Self { shards: 2, ..Self::default() }
    }

    fn hear(&mut self, what: What<'_>) {
        self.now += 1;
        let (What::ShardBatches { call, .. } | What::ShardStep { call, .. }) = what else { unreachable!() };
        let pid = 1 + u32::try_from(call % self.shards.max(1)).unwrap();
        self.tgi.hear(&Heard { pid, tid: 2, time_ns: self.now, what }, &mut self.said);
    }

    fn ask(&mut self, call: u64, batches: &[ShardBatch]) {
        self.hear(What::ShardBatches { call, batches });
    }

    fn answer(&mut self, call: u64, generations: &[ShardGeneration], left: Option<ShardBatch>) {
        let step = ShardStep {
            generations: generations.to_vec(),
            batch: left,
            forward_ns: 5,
            total_ns: 9,
            ..ShardStep::default()
        };
        self.hear(What::ShardStep { call, step: &step });
    }

    fn tick(&mut self, now_ns: u64) {
        self.tgi.tick(now_ns, &mut self.said);
    }

    fn steps(&self) -> Vec<EngineStep> {
        let step = |said: &Said| match &said.saying {
            Saying::Step(step) => Some(EngineStep::clone(step)),
            _ => None,
        };
        self.said.iter().filter_map(step).collect()
    }

    fn ended(&self) -> Vec<(u64, Reason)> {
        let ended = |said: &Said| match said.saying {
            Saying::Ended { inner, reason, .. } => Some((inner.0, reason)),
            _ => None,
        };
        self.said.iter().filter_map(ended).collect()
    }

    fn tokens(&self, inner: u64) -> u32 {
        let tokens = |said: &Said| match said.saying {
            Saying::Tokens { inner: Inner(of), count, .. } if of == inner => count,
            _ => 0,
        };
        self.said.iter().map(tokens).sum()
    }
}

/// inner, part, generated.
fn members(step: &EngineStep) -> Vec<(u64, Part, u32)> {
    step.members.iter().map(|member| (member.inner.0, member.part, member.generated)).collect()
}

#[test]
fn edge_36_two_shards_make_one_step_of_both_answers() {
    let mut rig = Rig::two();
    let (new, going) = ([batch(7, &[40, 41])], [batch(7, &[40, 41])]);
    for shard in [1, 2] {
        rig.ask(shard, &new);
    }
    let asked = rig.now - 1;
    rig.answer(1, &[token(40)], Some(going[0].clone()));
    assert!(rig.steps().is_empty());
    rig.answer(2, &[token(41)], Some(going[0].clone()));
    for call in [3, 4] {
        rig.ask(call, &going);
    }
    rig.answer(4, &[last(41, 2, 0)], None);
    rig.answer(3, &[last(40, 2, 1)], None);
    let steps = rig.steps();
    assert_eq!(members(&steps[0]), [(1, Part::Prefill, 1), (2, Part::Prefill, 1)]);
    assert_eq!(members(&steps[1]), [(1, Part::Decode, 1), (2, Part::Decode, 1)]);
    assert_eq!((steps[0].start_ns, steps[0].end_ns, steps[1].end_ns), (Some(asked), 4, rig.now));
    assert!(steps.iter().all(|step| step.is_complete));
    assert_eq!(rig.ended(), [(1, Reason::Stop), (2, Reason::Length)]);
    assert_eq!((rig.tokens(1), rig.tokens(2)), (2, 2));
    assert_eq!(rig.tgi.health(), Health { seen: 4, failed: 0, why: None });
}

#[test]
fn edge_36_a_prefill_can_go_on_with_a_batch_that_runs() {
    let mut rig = Rig::default();
    rig.ask(1, &[batch(1, &[10])]);
    rig.answer(1, &[token(10)], Some(batch(1, &[10])));
    rig.ask(2, &[batch(2, &[11]), batch(1, &[10])]);
    rig.answer(2, &[token(10), token(11)], Some(batch(1, &[10, 11])));
    assert_eq!(members(&rig.steps()[1]), [(1, Part::Decode, 1), (2, Part::Prefill, 1)]);
    assert_eq!(rig.steps()[1].tokens, None, "how long the prompt was is not said");
    rig.ask(3, &[batch(1, &[10, 11])]);
    rig.answer(3, &[token(10), token(11)], Some(batch(1, &[10, 11])));
    assert_eq!(rig.steps()[2].tokens, Some(2));
}

#[test]
fn edge_36_who_is_filtered_out_was_given_up() {
    let mut rig = Rig::default();
    let all = batch(1, &[10, 11, 12]);
    rig.ask(1, std::slice::from_ref(&all));
    rig.answer(1, &[token(10), last(11, 1, 2), token(12)], Some(all));
    let kept = ShardBatch { id: 1, requests: vec![12], ..ShardBatch::default() };
    rig.ask(2, std::slice::from_ref(&kept));
    rig.hear(What::ShardBatches { call: 2, batches: &[batch(1, &[12])] });
    rig.ask(3, &[batch(1, &[12])]);
    rig.answer(3, &[token(12)], Some(batch(1, &[12])));
    assert_eq!(rig.ended(), [(2, Reason::Stop), (1, Reason::Abort)]);
    assert_eq!(rig.steps().len(), 2, "a filter is no step");
    assert_eq!(rig.tokens(3), 2);
}

#[test]
fn a_batch_that_was_cleared_is_given_up() {
    let mut rig = Rig::default();
    rig.ask(1, &[batch(1, &[10])]);
    rig.answer(1, &[token(10)], Some(batch(1, &[10])));
    for call in [2, 3] {
        rig.ask(call, &[batch(2, &[11])]);
        rig.answer(call, &[token(11)], Some(batch(2, &[11])));
    }
    assert_eq!(rig.ended(), [(1, Reason::Abort)]);
}

#[test]
fn a_prompt_in_parts_is_prefilled_until_its_first_token() {
    let mut rig = Rig::default();
    rig.ask(1, &[batch(1, &[10])]);
    rig.answer(1, &[], Some(batch(1, &[10])));
    rig.ask(2, &[batch(1, &[10])]);
    rig.answer(2, &[token(10)], Some(batch(1, &[10])));
    let parts: Vec<_> = rig.steps().iter().flat_map(members).collect();
    assert_eq!(parts, [(1, Part::Prefill, 0), (1, Part::Prefill, 1)]);
}

#[test]
fn a_shard_that_is_asked_late_makes_no_step_of_its_own() {
    let mut rig = Rig::two();
    let one = [batch(1, &[10])];
    for call in [1, 2] {
        rig.ask(call, &one);
    }
    rig.answer(1, &[token(10)], None);
    rig.answer(2, &[], None);
    rig.ask(3, &one);
    rig.answer(3, &[token(10)], None);
    rig.ask(4, &one);
    rig.answer(4, &[], None);
    rig.ask(5, &one);
    rig.ask(6, &one);
    rig.answer(5, &[token(10)], None);
    rig.answer(6, &[], None);
    assert_eq!((rig.steps().len(), rig.tokens(1)), (3, 3));
}

#[test]
fn edge_36_the_first_call_is_one_step_though_its_shards_are_not_known() {
    let both = [batch(1, &[10, 11])];
    for is_last in [false, true] {
        let mut rig = Rig::two();
        rig.ask(1, &both);
        rig.answer(1, &[token(10)], None);
        rig.ask(2, &both);
        rig.answer(2, &[token(11)], None);
        let end_ns = rig.now;
        assert!(rig.steps().is_empty(), "there may be more shards");
        if is_last {
            rig.tick(end_ns + 1);
            assert!(rig.steps().is_empty());
            rig.tick(end_ns + 200_000_000);
        } else {
            rig.ask(3, &both);
        }
        let steps = rig.steps();
        assert_eq!(steps.len(), 1);
        assert_eq!(members(&steps[0]), [(1, Part::Prefill, 1), (2, Part::Prefill, 1)]);
        assert_eq!((steps[0].start_ns, steps[0].end_ns), (Some(1), end_ns));
        // From now on both are waited for, and for nothing else.
        rig.ask(5, &both);
        rig.ask(6, &both);
        rig.answer(6, &[token(11)], None);
        let before = rig.steps().len();
        rig.answer(5, &[token(10)], None);
        assert_eq!(rig.steps().len(), before + 1);
    }
}

#[test]
fn a_shard_that_nobody_knew_of_adds_its_share() {
    let mut rig = Rig::two();
    let both = [batch(1, &[10, 11])];
    rig.ask(1, &both);
    rig.answer(1, &[token(10)], None);
    rig.ask(3, &both);
    rig.answer(3, &[token(10)], None);
    rig.ask(4, &both);
    rig.answer(4, &[token(11)], None);
    assert_eq!(rig.steps().len(), 3, "the rest of the second call came by itself");
    rig.ask(5, &both);
    rig.answer(5, &[token(10)], None);
    assert_eq!(rig.steps().len(), 3, "the other shard is waited for from now on");
    rig.ask(6, &both);
    rig.answer(6, &[token(11)], None);
    assert_eq!(members(&rig.steps()[3]), [(1, Part::Decode, 1), (2, Part::Decode, 1)]);
    assert_eq!((rig.tokens(1), rig.tokens(2), rig.ended().len()), (3, 2, 0));
}

#[test]
fn what_nobody_answers_fails() {
    let mut rig = Rig::default();
    rig.ask(1, &[batch(1, &[10])]);
    rig.ask(2, &[batch(2, &[11])]);
    rig.answer(2, &[token(11)], Some(batch(2, &[11])));
    rig.ask(3, &[batch(2, &[11])]);
    rig.answer(3, &[token(11)], Some(batch(2, &[11])));
    assert!(rig.steps()[0].failed);
    assert_eq!(rig.ended(), [(1, Reason::Error)]);
}

#[test]
fn several_tokens_a_step_and_checks_for_life() {
    let mut rig = Rig::default();
    rig.ask(9, &[batch(u64::MAX, &[u64::MAX])]);
    rig.answer(9, &[last(u64::MAX, 1, 0)], None);
    assert!(rig.said.is_empty(), "{:?}", rig.said);
    rig.ask(1, &[batch(1, &[0])]);
    rig.answer(1, &[ShardGeneration { tokens: 3, ..token(0) }], Some(batch(1, &[0])));
    assert_eq!(rig.tokens(1), 3);
    let reached = |said: &Said| match said.saying {
        Saying::Reached { moment, at_ns, .. } => Some((moment, at_ns)),
        _ => None,
    };
    let reached: Vec<_> = rig.said.iter().filter_map(reached).collect();
    assert_eq!(reached, [(Moment::Scheduled, 3), (Moment::Prefilling, 3)]);
}

#[test]
fn an_answer_for_somebody_else_is_refused() {
    let mut rig = Rig::default();
    rig.ask(1, &[batch(1, &[10])]);
    rig.answer(1, &[token(99)], None);
    assert_eq!((rig.tgi.health().failed, rig.steps().len()), (1, 0));
    // What was asked before we listened is neither right nor wrong.
    rig.answer(77, &[token(5)], None);
    assert_eq!(rig.tgi.health().failed, 1);
}
