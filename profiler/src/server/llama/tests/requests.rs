//! Sequences become requests with counts; what cannot be understood is not.

use super::super::request::SILENT_NS;
use super::*;

#[test]
fn slots_begin_anew_also_where_removals_are_not_probed() {
    let mut rig = Rig::default();
    rig.step(&[run(0, 0, 6, 1)]);
    rig.step(&[run(0, 6, 1, 1)]);
    rig.step(&[run(0, 7, 4, 1)]);
    rig.step(&[run(0, 2, 4, 1)]);
    assert_eq!(rig.met().len(), 3);
    assert_eq!((rig.prompt(2), rig.prompt(3)), (Some((11, 7)), Some((6, 2))));
}

#[test]
fn edge_34_a_prompt_in_parts_is_one_request() {
    let mut rig = Rig::default();
    for (position, outputs) in [(0, 0), (8, 0), (16, 1)] {
        rig.cut(MEMORY, 3, position, -1);
        rig.step(&[run(3, position, 8, outputs)]);
    }
    rig.step(&[run(3, 24, 1, 1)]);
    assert_eq!(rig.met().len(), 1);
    let parts: Vec<_> = rig.steps().iter().flat_map(|step| members(step)).collect();
    assert_eq!(
        parts,
        [
            (1, Part::Prefill, 8, 0),
            (1, Part::Prefill, 8, 0),
            (1, Part::Prefill, 8, 1),
            (1, Part::Decode, 1, 1)
        ]
    );
    assert_eq!(rig.prompt(1), Some((24, 0)));
}

#[test]
fn edge_34_a_draft_has_an_engine_of_its_own_and_no_tokens() {
    let mut rig = Rig::default();
    rig.cut(MEMORY, 0, 0, -1);
    rig.cut(DRAFT_MEMORY, 0, 0, -1);
    rig.step(&[run(0, 0, 6, 1)]);
    rig.give(DRAFT, &[run(0, 0, 6, 0)]);
    rig.back(DRAFT, 0);
    // Two tokens are drafted, and taken back before the main context checks them.
    for position in [6, 7] {
        rig.give(DRAFT, &[run(0, position, 1, 1)]);
        rig.back(DRAFT, 0);
    }
    rig.cut(DRAFT_MEMORY, 0, 6, -1);
    rig.step(&[run(0, 6, 3, 3)]);
    rig.give(DRAFT, &[run(0, 6, 3, 0)]);
    rig.back(DRAFT, 0);
    // One of the two stood: two tokens came out.
    rig.cut(MEMORY, 0, 8, -1);
    rig.cut(DRAFT_MEMORY, 0, 8, -1);
    rig.step(&[run(0, 8, 1, 1)]);
    assert_eq!(rig.met().len(), 1);
    let main: Vec<_> = rig.steps().into_iter().filter(|step| step.engine == MAIN).flat_map(members).collect();
    assert_eq!(main, [(1, Part::Prefill, 6, 1), (1, Part::Decode, 3, 2), (1, Part::Decode, 1, 1)]);
    let draft: Vec<_> = rig.steps().into_iter().filter(|step| step.engine == DRAFT).collect();
    assert_eq!(draft.len(), 4);
    assert!(draft.iter().all(|step| step.members.iter().all(|m| m.generated == 0 && m.inner.0 == 1)));
    assert_eq!(rig.tokens(1), 4);
}

#[test]
fn drafts_that_stand_are_counted_without_removals_too() {
    let mut rig = Rig::default();
    rig.step(&[run(0, 0, 6, 1)]);
    rig.step(&[run(0, 6, 4, 4)]);
    rig.step(&[run(0, 9, 1, 1)]);
    assert_eq!(rig.tokens(1), 1 + 3 + 1);
    assert_eq!(rig.met().len(), 1);
}

#[test]
fn a_prompt_with_outputs_everywhere_for_a_draft_is_no_embedding() {
    let mut rig = Rig::default();
    rig.step(&[run(0, 0, 2, 1)]);
    rig.give(DRAFT, &[run(0, 0, 2, 0)]);
    rig.back(DRAFT, 0);
    rig.cut(MEMORY, 0, 0, -1);
    rig.step(&[run(0, 0, 8, 8)]);
    rig.cut(MEMORY, 0, 8, -1);
    rig.step(&[run(0, 8, 4, 4)]);
    rig.step(&[run(0, 12, 1, 1)]);
    assert_eq!(rig.met(), [(1, true), (2, true)]);
    assert_eq!((rig.tokens(2), rig.prompt(2)), (2, Some((12, 0))));
}

#[test]
fn edge_34_embeddings_and_scores_generate_nothing() {
    let mut rig = Rig::default();
    rig.cut(MEMORY, 0, 0, -1);
    rig.step(&[run(0, 0, 8, 8)]);
    rig.cut(MEMORY, 0, 0, -1);
    rig.step(&[run(0, 0, 5, 5)]);
    assert_eq!(rig.met(), [(1, false), (2, false)]);
    assert_eq!(rig.ended(), [(1, Reason::Unsaid), (2, Reason::Unsaid)]);
    assert_eq!((rig.prompt(1), rig.prompt(2)), (Some((8, 0)), Some((5, 0))));
    assert_eq!(rig.tokens(1) + rig.tokens(2), 0);
}

#[test]
fn edge_34_an_image_in_a_prompt_leaves_its_length_unsaid() {
    let mut rig = Rig::default();
    rig.cut(MEMORY, 0, 0, -1);
    rig.step(&[run(0, 0, 4, 0)]);
    // 64 embeddings at one position of four dimensions each.
    let image: Vec<Run> = (0..64).map(|_| run(0, 4, 1, 0)).collect();
    rig.give_more(MAIN, &image, true, 0);
    rig.back(MAIN, 0);
    rig.cut(MEMORY, 0, 12, -1);
    rig.step(&[run(0, 12, 3, 1)]);
    rig.step(&[run(0, 15, 1, 1)]);
    assert_eq!((rig.met().len(), rig.prompt(1), rig.tokens(1)), (1, None, 2));
    assert_eq!(members(rig.steps()[1]), [(1, Part::Prefill, 64, 0)]);
}

#[test]
fn edge_34_without_sequence_ids_all_is_sequence_0() {
    let mut rig = Rig::default();
    rig.step(&[run(-1, -1, 4, 1)]);
    rig.step(&[run(-1, -1, 1, 1)]);
    rig.step(&[run(-1, -1, 1, 1)]);
    assert_eq!((rig.met().len(), rig.tokens(1), rig.prompt(1)), (1, 3, Some((4, 0))));
}

#[test]
fn edge_34_without_wishes_the_last_token_has_an_output() {
    let mut rig = Rig::default();
    for (position, tokens) in [(0, 4), (4, 1)] {
        let runs = [run(0, position, tokens, 0)];
        let (tokens, embeddings) = (u32::from(tokens), false);
        let batch =
            Batch { context: MAIN, api: 0, tokens, embeddings, last_only: true, runs: &runs, unseen: 0 };
        rig.hear(LOOP, What::Batch(batch));
        rig.back(MAIN, 0);
        rig.wait(MAIN);
    }
    assert_eq!((rig.tokens(1), rig.prompt(1)), (2, Some((4, 0))));
}

#[test]
fn edge_34_tokens_of_several_sequences_make_the_members_incomplete() {
    let mut rig = Rig::default();
    rig.step(&[Run { sequences: 3, ..run(0, 0, 4, 1) }]);
    assert!(!rig.steps()[0].is_complete);
    assert_eq!(members(rig.steps()[0]), [(1, Part::Prefill, 4, 1)]);
}

#[test]
fn edge_34_a_batch_that_was_cut_is_incomplete() {
    let mut rig = Rig::default();
    rig.give_more(MAIN, &[run(0, 0, 4, 1)], false, 500);
    rig.back(MAIN, 0);
    rig.wait(MAIN);
    assert_eq!((rig.steps()[0].is_complete, rig.steps()[0].tokens), (false, Some(504)));
}

#[test]
fn edge_34_old_and_new_calls_and_any_thread() {
    for symbol in ["llama_decode", "llama_encode", "llama_process"] {
        let mut rig = Rig::default();
        for (tid, position, tokens) in [(7, 0, 4), (9, 4, 1), (11, 5, 1)] {
            let runs = [run(2, position, tokens, 1)];
            let batch = Batch {
                context: MAIN,
                api: 0,
                tokens: u32::from(tokens),
                embeddings: false,
                last_only: false,
                runs: &runs,
                unseen: 0,
            };
            rig.hear(tid, What::Batch(batch));
            rig.call(tid, symbol, &[MAIN], Some(0), &[]);
            rig.call(tid, "llama_synchronize", &[MAIN], Some(0), &[]);
        }
        assert_eq!((rig.met().len(), rig.tokens(1), rig.steps().len()), (1, 3, 3), "{symbol}");
    }
}

#[test]
fn several_answers_to_one_prompt_share_its_first_step() {
    for probed in [true, false] {
        let mut rig = Rig::default();
        rig.cut(MEMORY, 0, 0, -1);
        rig.step(&[run(0, 0, 6, 1)]);
        rig.cut(MEMORY, 1, -1, -1);
        if probed {
            rig.copied(MEMORY, 0, 1);
        }
        rig.step(&[run(0, 6, 1, 1), run(1, 6, 1, 1)]);
        rig.step(&[run(0, 7, 1, 1), run(1, 7, 1, 1)]);
        assert_eq!((rig.met().len(), rig.tokens(1), rig.tokens(2)), (2, 3, 3), "{probed}");
        assert_eq!((rig.prompt(1), rig.prompt(2)), (Some((6, 0)), Some((6, 0))));
    }
}

#[test]
fn a_shift_of_the_context_begins_no_request() {
    let mut rig = Rig::default();
    rig.cut(MEMORY, 0, 0, -1);
    rig.step(&[run(0, 0, 30, 1)]);
    rig.step(&[run(0, 30, 1, 1)]);
    rig.cut(MEMORY, 0, 1, 16);
    rig.step(&[run(0, 16, 1, 1)]);
    assert_eq!((rig.met().len(), rig.tokens(1)), (1, 3));
}

#[test]
fn a_request_that_was_under_way_has_no_prompt() {
    let mut rig = Rig::default();
    rig.step(&[run(0, 77, 1, 1)]);
    rig.step(&[run(0, 78, 1, 1)]);
    assert_eq!((rig.met().len(), rig.prompt(1), rig.tokens(1)), (1, None, 2));
    let reached = rig.said.iter().any(|said| matches!(said.saying, Saying::Reached { .. }));
    assert!(!reached, "when it was scheduled is not known");
}

#[test]
fn a_lost_batch_is_a_failed_check() {
    let mut rig = Rig::default();
    rig.step(&[run(0, 0, 4, 1)]);
    rig.step(&[run(0, 9, 1, 1)]);
    assert_eq!((rig.met().len(), rig.llama.health().failed), (1, 1));
}

#[test]
fn what_is_no_batch_is_refused() {
    for (runs, tokens) in [
        (vec![run(0, 0, 4, 1)], 5),
        (vec![run(300, 0, 4, 1)], 4),
        (vec![run(0, -7, 4, 1)], 4),
        (vec![run(0, 0, 4, 9)], 4),
        (vec![], 0),
    ] {
        let mut rig = Rig::default();
        let batch = Batch {
            context: MAIN,
            api: 0,
            tokens,
            embeddings: false,
            last_only: false,
            runs: &runs,
            unseen: 0,
        };
        rig.hear(LOOP, What::Batch(batch));
        rig.back(MAIN, 0);
        assert_eq!((rig.said.len(), rig.llama.health().failed), (0, 1), "{runs:?}");
    }
}

#[test]
fn the_servers_own_functions_tell_the_thread() {
    let mut rig = Rig::default();
    let launch = |rig: &mut Rig, slot: u64, task: u64| {
        // The upper half is whatever follows the ids.
        let words = [slot | 0xdead << 32, task | 0xbeef << 32];
        rig.call(LOOP, task::LAUNCH, &[1, 2, 3], Some(1), &words);
    };
    rig.call(41, task::NEW_ID, &[1], Some(5), &[]);
    rig.call(42, task::NEW_ID, &[1], Some(6), &[]);
    rig.call(42, task::NEW_ID, &[1], Some(7), &[]);
    launch(&mut rig, 2, 7);
    launch(&mut rig, 0, 5);
    launch(&mut rig, 1, 6);
    rig.step(&[run(0, 0, 4, 0), run(1, 0, 4, 1)]);
    // Given up in the middle of its prompt, and asked for again: only the launch tells.
    rig.now += ONE_SECOND_NS;
    rig.call(41, task::NEW_ID, &[1], Some(8), &[]);
    launch(&mut rig, 0, 8);
    rig.cut(MEMORY, 0, 4, -1);
    rig.step(&[run(0, 4, 2, 1), run(1, 4, 1, 1), run(2, 0, 3, 1)]);
    let ties: Vec<_> = rig
        .said
        .iter()
        .filter_map(|said| match &said.saying {
            Saying::Met { tie, .. } => Some((tie.thread, tie.part)),
            _ => None,
        })
        .collect();
    assert_eq!(
        ties,
        [(Some((1, 41)), None), (Some((1, 42)), Some(0)), (Some((1, 41)), None), (Some((1, 42)), Some(1))]
    );
    assert_eq!(rig.prompt(3), Some((6, 4)));
}

const ONE_SECOND_NS: u64 = 1_000_000_000;

#[test]
fn silent_sequences_end_and_a_dead_process_says_so() {
    let mut rig = Rig::default();
    rig.step(&[run(0, 0, 4, 1), run(1, 0, 4, 1)]);
    rig.now += SILENT_NS + 1;
    for position in 4..4 + 64 {
        rig.step(&[run(0, position, 1, 1)]);
    }
    assert_eq!(rig.ended(), [], "a pause alone ends nothing");
    rig.step(&[run(0, 68, 1, 1)]);
    assert_eq!(rig.ended(), [(2, Reason::Unsaid)]);
    let mut out = Vec::new();
    rig.llama.process_gone(1, 9, &mut out);
    assert_eq!(out.len(), 1);
    assert!(matches!(out[0].saying, Saying::EngineDead));
}
