//! Calls become steps with members.

use super::*;

#[test]
fn edge_34_two_sequences_prefill_and_decode_in_one_batch() {
    let mut rig = Rig::default();
    rig.cut(MEMORY, 0, 0, -1);
    rig.step(&[run(0, 0, 5, 1)]);
    rig.cut(MEMORY, 1, 0, -1);
    rig.step(&[run(0, 5, 1, 1), run(1, 0, 9, 1)]);
    rig.step(&[run(0, 6, 1, 1), run(1, 9, 1, 1)]);
    let steps = rig.steps();
    assert_eq!(members(steps[0]), [(1, Part::Prefill, 5, 1)]);
    assert_eq!(members(steps[1]), [(1, Part::Decode, 1, 1), (2, Part::Prefill, 9, 1)]);
    assert_eq!(members(steps[2]), [(1, Part::Decode, 1, 1), (2, Part::Decode, 1, 1)]);
    assert!(steps.iter().all(|step| step.is_complete && !step.failed && step.engine == MAIN));
    assert_eq!((rig.tokens(1), rig.tokens(2)), (3, 2));
    assert_eq!((rig.prompt(1), rig.prompt(2)), (Some((5, 0)), Some((9, 0))));
    assert_eq!(rig.llama.health(), Health { seen: 3, failed: 0, why: None });
}

#[test]
fn edge_34_the_end_of_a_step_is_when_the_gpu_was_waited_for() {
    let mut rig = Rig::default();
    rig.give(MAIN, &[run(0, 0, 5, 1)]);
    rig.back(MAIN, 0);
    assert!(rig.steps().is_empty(), "the GPU is not done");
    rig.wait(MAIN);
    let at = rig.now;
    assert_eq!((rig.steps()[0].start_ns, rig.steps()[0].end_ns), (Some(1), at));
    // A part of a prompt without outputs is not waited for.
    rig.cut(MEMORY, 0, 0, -1);
    rig.give(MAIN, &[run(0, 0, 8, 0)]);
    rig.back(MAIN, 0);
    assert_eq!(rig.steps()[1].end_ns, rig.now);
}

#[test]
fn edge_34_a_server_that_never_waits_has_steps_that_end_at_the_return() {
    let mut rig = Rig::default();
    for (position, tokens) in [(0, 4), (4, 1), (5, 1)] {
        rig.give(MAIN, &[run(0, position, tokens, 1)]);
        rig.back(MAIN, 0);
    }
    let ends: Vec<_> = rig.steps().iter().map(|step| step.end_ns).collect();
    assert_eq!(ends, [2, 4, 6], "the first one is said when the second begins, the others at once");
    assert_eq!(rig.tokens(1), 3);
}

#[test]
fn edge_34_a_call_without_room_is_tried_again_with_half() {
    let mut rig = Rig::default();
    rig.step(&[run(0, 0, 4, 1)]);
    rig.cut(MEMORY, 1, 0, -1);
    let batch = [run(0, 4, 1, 1), run(1, 0, 7, 1)];
    rig.give(MAIN, &batch);
    rig.back(MAIN, 1);
    rig.give(MAIN, &[run(0, 4, 1, 1), run(1, 0, 3, 0)]);
    rig.back(MAIN, 0);
    rig.wait(MAIN);
    rig.give(MAIN, &[run(1, 3, 4, 1)]);
    rig.back(MAIN, 0);
    rig.wait(MAIN);
    let steps = rig.steps();
    assert_eq!(steps.iter().map(|step| step.failed).collect::<Vec<_>>(), [false, true, false, false]);
    assert_eq!(members(steps[1]), [(1, Part::Decode, 0, 0), (2, Part::Prefill, 0, 0)]);
    assert_eq!(members(steps[3]), [(2, Part::Prefill, 4, 1)]);
    assert_eq!((rig.tokens(1), rig.tokens(2)), (2, 1));
    assert_eq!(rig.met().len(), 2, "no request begins twice");
    assert_eq!(rig.prompt(2), Some((7, 0)));
}

#[test]
fn edge_34_a_fatal_error_ends_all_in_the_slots() {
    let mut rig = Rig::default();
    rig.cut(MEMORY, 0, 0, -1);
    rig.step(&[run(0, 0, 4, 1)]);
    rig.give(MAIN, &[run(0, 4, 1, 1)]);
    rig.back(MAIN, -3);
    rig.cut(MEMORY, 0, -1, -1);
    assert_eq!(rig.ended(), [(1, Reason::Error)]);
}

#[test]
fn edge_34_a_return_that_was_not_heard_is_told_by_the_next_batch() {
    let mut rig = Rig::default();
    rig.give(MAIN, &[run(0, 0, 4, 1)]);
    rig.give(MAIN, &[run(0, 4, 1, 1)]);
    rig.give(MAIN, &[run(0, 4, 1, 1)]);
    rig.back(MAIN, 0);
    rig.wait(MAIN);
    let failed: Vec<_> = rig.steps().iter().map(|step| step.failed).collect();
    assert_eq!(failed, [false, true, false]);
    assert_eq!(rig.tokens(1), 2);
}

#[test]
fn edge_34_a_slot_is_taken_by_the_next_request_in_the_next_step() {
    let mut rig = Rig::default();
    rig.cut(MEMORY, 0, 0, -1);
    rig.step(&[run(0, 0, 6, 1)]);
    rig.step(&[run(0, 6, 1, 1)]);
    // Three tokens of the old prompt are the new one's too.
    rig.cut(MEMORY, 0, 3, -1);
    rig.step(&[run(0, 3, 5, 1)]);
    // A conversation goes on exactly where it ended.
    rig.cut(MEMORY, 0, 8, -1);
    rig.step(&[run(0, 8, 1, 1)]);
    // The same prompt again: its last token is computed anew.
    rig.cut(MEMORY, 0, 8, -1);
    rig.step(&[run(0, 8, 1, 1)]);
    assert_eq!(rig.met().len(), 4);
    assert_eq!([1, 2, 3, 4].map(|inner| rig.tokens(inner)), [2, 1, 1, 1]);
    assert_eq!(
        [1, 2, 3, 4].map(|inner| rig.prompt(inner)),
        [Some((6, 0)), Some((8, 3)), Some((9, 8)), Some((9, 8))]
    );
    assert_eq!(rig.ended().len(), 3);
}
