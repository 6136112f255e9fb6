//! An engine as it should be: everybody who has asked is in each iteration, which makes a token for each that leaves at
//! once. Nothing is lost, so that members and GPU time are the truth, whether the engine says them or not.

use super::act::{Act, What};
use super::act::{ENGINE, THREADS};
use super::check::{Ran, length};
use super::history::{Input, Stage};
use super::observe;
use crate::correlate::Evidence;
use crate::correlate::ride::Who;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// An iteration: who asks before it, its kernels and what each takes, and who has had enough after it.
type Turn = (Option<usize>, u64, u64, Option<usize>);

/// What an iteration truly was.
#[derive(Debug)]
struct True {
    /// Connections and exchanges of its members, and their numbers inside.
    members: BTreeSet<(u64, u32)>,
    inner: BTreeSet<u64>,
    /// When the GPU worked.
    busy: Vec<(u64, u64)>,
}

/// One iteration after the other.
fn run(stage: &mut Stage, turns: &[Turn]) -> Vec<True> {
    const THREAD: usize = 0;
    let mut all = Vec::new();
    for (asks, kernels, took_us, leaves) in turns {
        stage.play(
            &asks.map(|connection| Act::Ask { connection, streams: true }).into_iter().collect::<Vec<_>>(),
        );
        let (members, inner): (BTreeSet<_>, BTreeSet<_>) = stage.there().into_iter().unzip();
        if members.is_empty() {
            continue;
        }
        let count = members.len() as u64;
        let before = stage.truth.busy.get(&THREADS[THREAD]).map_or(0, Vec::len);
        let copy = |kind, bytes| Act::Copy { thread: THREAD, stream: 1, kind, bytes, took_us: *took_us };
        let launch = Act::Launch { thread: THREAD, stream: 1, kernel: 5, took_us: *took_us, nested: true };
        let mut acts = vec![copy(1, 16 * count)];
        acts.extend((0..*kernels).map(|_| launch.clone()));
        acts.extend([copy(2, 4 * count), Act::Wait { thread: THREAD, what: What::Stream(1) }]);
        stage.play(&acts);
        stage.turn(THREAD);
        stage.play(&[Act::Tell { computed: 9, complete: true, failed: false }]);
        stage.play(&(0..4).map(|connection| Act::Speak { connection, tokens: 1 }).collect::<Vec<_>>());
        stage.play(&leaves.map(|connection| Act::Finish { connection }).into_iter().collect::<Vec<_>>());
        let busy = stage.truth.busy[&THREADS[THREAD]][before..].to_vec();
        all.push(True { members, inner, busy });
    }
    // Nobody leaves without an end.
    stage.play(&(0..4).map(|connection| Act::Finish { connection }).collect::<Vec<_>>());
    all
}

/// Iterations, in order, have the members and the time that they truly had.
fn check(ran: &Ran, all: &[True], has_adapter: bool) {
    let mut seen: Vec<_> = ran.out.iterations.iter().filter(|iteration| iteration.gpu.is_some()).collect();
    seen.sort_by_key(|iteration| iteration.step.end_ns);
    assert_eq!(seen.len(), all.len());
    for (iteration, truth) in seen.into_iter().zip(all) {
        assert_eq!((iteration.adapter == "vllm", iteration.pid), (has_adapter, ENGINE));
        let (mut members, mut inner) = (BTreeSet::new(), BTreeSet::new());
        for rider in &iteration.riders {
            match rider.who {
                Who::Request(owner) => members.insert((owner.connection, owner.exchange)),
                Who::Inner(number) => inner.insert(number.0),
            };
            assert!(rider.evidence <= Evidence::E2, "{rider:?}");
        }
        let (found, expected) =
            if has_adapter { (inner.len(), truth.inner.len()) } else { (members.len(), truth.members.len()) };
        assert_eq!(found, iteration.riders.len(), "nobody rides twice");
        assert_eq!(found, expected, "{iteration:#?} {truth:?}");
        assert!(
            inner.is_subset(&truth.inner) && members.is_subset(&truth.members),
            "{iteration:#?} {truth:?}"
        );
        let whole = iteration.gpu.as_ref().map_or_else(Default::default, |gpu| gpu.whole);
        let busy = length(truth.busy.clone());
        assert!(whole.gpu_lo_ns <= busy && busy <= whole.gpu_hi_ns, "{busy} of {whole:?}");
        assert!(whole.gpu_ns.abs_diff(busy) <= busy / 20 + 10_000, "{busy} is not near {whole:?}");
    }
}

proptest! {
    #![proptest_config(super::config())]

    #[test]
    fn members_and_gpu_time_of_an_engine_are_the_truth(
        turns in prop::collection::vec(
            (prop::option::of(0usize..4), 1u64..9, 100u64..2000, prop::option::weighted(0.2, 0usize..4)), 1..60
        ),
        has_adapter in any::<bool>(),
    ) {
        let mut stage = Stage::new(has_adapter);
        let all = run(&mut stage, &turns);
        let inputs: Vec<Input> = std::mem::take(&mut stage.inputs);
        let mut ran = observe(inputs);
        ran.end();
        ran.check();
        ran.check_requests(&stage.truth);
        check(&ran, &all, has_adapter);
    }
}
