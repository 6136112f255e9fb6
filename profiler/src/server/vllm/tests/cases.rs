//! What no recording has: made by hand, with the messages of `versions`.

use super::versions::{LAYOUTS, Layout, ms, newest, play_one};
use super::write::{Bool, Int, Nil, Write, list, map, text};
use super::*;

const A: &str = "chatcmpl-a-00000001";
const B: &str = "chatcmpl-b-00000002";
const C: &str = "chatcmpl-c-00000003";

/// Requests of five prompt tokens that may generate 100.
fn asked(play: &mut Play, time_ns: u64, ids: &[&str]) {
    for id in ids {
        play.add(time_ns, &newest().request(id, 5, 100).bytes());
    }
}

/// A step with one token of each; those that are `first` have their events.
fn step(play: &mut Play, time: u64, members: &[&str], first: &[&str], stats: Option<(i64, i64, f64)>) {
    let output = |id: &&str| newest().output(id, 1, None, first.contains(id), ms(time) - 5_000_000);
    let outputs = members.iter().map(output).collect();
    play.outputs(ms(time) + 500_000, &newest().outputs(outputs, stats, ms(time)).bytes());
}

fn numbers(step: &EngineStep) -> Vec<(u64, Evidence)> {
    step.members.iter().map(|member| (member.inner.0, member.evidence)).collect()
}

#[test]
fn edge_31_without_statistics_the_queue_begins_at_the_message() {
    let mut play = Play::default();
    let layout = newest();
    play.add(ms(0), &layout.request(A, 5, 3).bytes());
    for (time, finish) in [(20, None), (30, None), (40, Some(1))] {
        let output = layout.output_of(A, 1, finish, &[], None);
        play.outputs(ms(time) + 1000, &layout.outputs(vec![output], None, ms(time)).bytes());
    }
    let story = play.only();
    assert_eq!(story.moments, [(Moment::Enqueued, ms(0), Evidence::E1)], "nothing of scheduling is known");
    assert_eq!(story.counts, Counts { prompt: Some(5), cached: None, generated: Some(3) });
    assert_eq!(play.gauges(), []);
    assert!(play.steps().iter().all(|step| !step.is_complete && step.tokens.is_none()));
    assert_eq!(play.steps().len(), 3);
}

#[test]
fn edge_29_given_up_while_waiting_and_while_running() {
    let mut play = Play::default();
    asked(&mut play, ms(0), &[A, B]);
    step(&mut play, 20, &[A], &[A], Some((1, 1, 0.1)));
    play.abort(ms(25), &[B, "unknown-00000000"]);
    step(&mut play, 30, &[A], &[], Some((1, 0, 0.1)));
    play.abort(ms(35), &[A]);
    // Its last output was under way.
    step(&mut play, 36, &[A], &[], Some((1, 0, 0.1)));
    let stories: Vec<_> = play.stories().into_values().collect();
    assert_eq!(stories[0].end, Some((Reason::FrontEnd, ms(35))));
    assert_eq!(stories[0].counts.generated, Some(2));
    assert_eq!(stories[1].end, Some((Reason::FrontEnd, ms(25))));
    assert_eq!(stories[1].moments, [(Moment::Enqueued, ms(0), Evidence::E1)]);
    assert_eq!(play.adapter.health().failed, 0);
    let complete: Vec<_> = play.steps().iter().map(|step| step.is_complete).collect();
    assert_eq!(complete[..2], [true, false], "one that was given up may have been in the step");
}

#[test]
fn edge_29_a_request_that_ends_in_its_first_step() {
    let mut play = Play::default();
    play.add(ms(0), &newest().request(A, 5, 1).bytes());
    let output = newest().output(A, 1, Some(1), true, ms(10));
    play.outputs(ms(21), &newest().outputs(vec![output], Some((0, 0, 0.0)), ms(20)).bytes());
    let story = play.only();
    assert_eq!((story.tokens.len(), story.counts.generated), (1, Some(1)));
    assert_eq!(story.end, Some((Reason::Length, ms(20))));
    assert_eq!(numbers(play.steps()[0]), [(1, Evidence::E0)]);
}

#[test]
fn edge_29_a_whole_prompt_in_the_cache() {
    let mut play = Play::default();
    play.add(ms(0), &newest().request(A, 128, 2).bytes());
    let output = newest().output_of(A, 1, None, &[(1, ms(4)), (2, ms(5))], Some((128, 127)));
    play.outputs(ms(21), &newest().outputs(vec![output], Some((1, 0, 0.5)), ms(20)).bytes());
    assert_eq!(play.only().counts, Counts { prompt: Some(128), cached: Some(127), generated: None });
    let step = play.steps()[0];
    assert_eq!((step.members[0].part, step.members[0].computed, step.tokens), (Part::Prefill, 1, Some(1)));
}

#[test]
fn edge_29_an_embedding_has_no_tokens() {
    let layout = newest();
    let mut play = Play::default();
    let request = layout.request_of("embd-x-0-00000001", Some("embd-x-0"), 7, None, 0);
    play.add(ms(0), &request.bytes());
    let mut output =
        layout.output_of("embd-x-0-00000001", 0, Some(0), &[(1, ms(4)), (2, ms(5))], Some((7, 0)));
    *output.at(4) = list(vec![text("float32"), list(vec![Int(4)]), Int(1)]);
    play.outputs(ms(21), &layout.outputs(vec![output], Some((0, 0, 0.0)), ms(20)).bytes());
    let story = play.only();
    assert!(!story.generates);
    assert_eq!((story.tie.outer_id.as_deref(), story.tie.part), (Some("embd-x"), Some(0)));
    assert_eq!((story.tokens.len(), story.counts.generated), (0, None));
    assert_eq!(story.end, Some((Reason::Stop, ms(20))));
    let member = play.steps()[0].members[0];
    assert_eq!((member.part, member.generated, member.computed), (Part::Prefill, 0, 7));
}

#[test]
fn edge_31_several_tokens_of_one_step() {
    let mut play = Play::default();
    asked(&mut play, ms(0), &[A]);
    step(&mut play, 20, &[A], &[A], Some((1, 0, 0.1)));
    let output = newest().output(A, 4, None, false, 0);
    play.outputs(ms(31), &newest().outputs(vec![output], Some((1, 0, 0.1)), ms(30)).bytes());
    assert_eq!(play.only().tokens, [(ms(20), 1), (ms(30), 4)]);
    let step = play.steps()[1];
    // How many were proposed, and computed in vain, is not said.
    assert_eq!((step.members[0].generated, step.members[0].computed, step.tokens), (4, 0, None));
}

#[test]
fn edge_31_a_new_engine_may_use_the_same_ids() {
    let mut play = Play::default();
    let layout = newest();
    play_one(&layout, &mut play, A, None);
    asked(&mut play, ms(50), &[B]);
    play.adapter.process_gone(ENGINE, ms(60), &mut play.said);
    play.pid = Some(ENGINE + 1);
    play_one(&layout, &mut play, A, None);
    let stories: Vec<_> = play.stories().into_values().collect();
    assert_eq!(stories.len(), 3);
    assert_eq!(stories[1].end, Some((Reason::Unsaid, ms(60))));
    for story in [&stories[0], &stories[2]] {
        assert_eq!(story.counts.generated, Some(3));
        assert_eq!(story.tie.outer_id.as_deref(), Some("chatcmpl-a"));
    }
}

#[test]
fn edge_28_two_data_parallel_engines_are_two() {
    let mut play = Play::default();
    for (pid, id) in [(1, A), (2, B)] {
        play.pid = Some(pid);
        asked(&mut play, ms(0), &[id]);
    }
    for (pid, id) in [(1, A), (2, B)] {
        play.pid = Some(pid);
        let mut outputs =
            newest().outputs(vec![newest().output(id, 1, None, true, ms(5))], Some((1, 0, 0.1)), ms(20));
        *outputs.at(0) = Int(i64::from(pid) - 1);
        play.outputs(ms(21), &outputs.bytes());
        // What the coordinator is told is no step, and its counts are not the engine's statistics.
        play.frame(ms(22), true, 99, false, &newest().outputs(vec![], Some((7, 7, 0.0)), ms(22)).bytes());
        let mut wave = newest().outputs(vec![], None, ms(23));
        *wave.at(6) = Int(1);
        play.frame(ms(23), true, 99, false, &wave.bytes());
    }
    let steps: Vec<_> = play
        .said
        .iter()
        .filter_map(|said| match &said.saying {
            Saying::Step(step) => Some((said.pid, step.engine, step.members.len())),
            _ => None,
        })
        .collect();
    assert_eq!(steps, [(1, 0, 1), (2, 1, 1)]);
    assert!(play.gauges().iter().all(|gauges| gauges.running == Some(1)));
    assert_eq!(play.stories().len(), 2);
}

/// Bytes of a ring's chunk as vLLM lays them out, around a call that Python's pickler would write.
pub fn chunk(members: &[(&str, u32)]) -> Vec<u8> {
    let mut pickle =
        b"\x80\x05(\x8c\rexecute_model\x8c\x19vllm.v1.core.sched.output\x8c\x0fSchedulerOutput\x93)\x81}("
            .to_vec();
    pickle.extend(b"\x8c\x14num_scheduled_tokens}(");
    for (id, tokens) in members {
        pickle.extend([0x8c, id.len() as u8]);
        pickle.extend(id.bytes());
        pickle.push(b'J');
        pickle.extend(tokens.to_le_bytes());
    }
    let total: u32 = members.iter().map(|(_, tokens)| tokens).sum();
    pickle.extend(b"u\x8c\x1atotal_num_scheduled_tokensJ");
    pickle.extend(total.to_le_bytes());
    pickle.extend(b"\x8c\x11preempted_req_ids\x8fub\x85}K\x00t.");
    let mut chunk = vec![0, 0, 1];
    chunk.extend((pickle.len() as u32).to_be_bytes());
    chunk.extend(pickle);
    chunk
}

#[test]
fn edge_32_the_ring_tells_every_member_and_its_tokens() {
    let mut play = Play::default();
    asked(&mut play, ms(0), &[A]);
    play.add(ms(0), &newest().request(B, 99, 100).bytes());
    // A's prompt is whole, B's is not: it is in no output.
    play.ring(ms(10), 9, &chunk(&[(A, 5), (B, 59)]));
    step(&mut play, 20, &[A], &[A], Some((2, 0, 0.1)));
    play.ring(ms(22), 0, &chunk(&[(A, 1), (B, 40)]));
    let last = newest().output_of(B, 1, None, &[(1, ms(9)), (2, ms(9) + 1)], Some((99, 0)));
    let outputs = vec![newest().output(A, 1, None, false, 0), last];
    play.outputs(ms(30) + 500_000, &newest().outputs(outputs, Some((2, 0, 0.1)), ms(30)).bytes());
    let steps: Vec<_> = play
        .steps()
        .into_iter()
        .map(|step| {
            let members: Vec<_> = step
                .members
                .iter()
                .map(|member| (member.inner.0, member.part, member.computed, member.generated))
                .collect();
            (step.start_ns, step.tokens, step.is_complete, members)
        })
        .collect();
    assert_eq!(
        steps,
        [
            (Some(ms(10)), Some(64), true, vec![(1, Part::Prefill, 5, 1), (2, Part::Prefill, 59, 0)]),
            (Some(ms(22)), Some(41), true, vec![(1, Part::Decode, 1, 1), (2, Part::Prefill, 40, 1)]),
        ]
    );
    let begun: Vec<_> = play
        .stories()
        .values()
        .map(|story| {
            story
                .moments
                .iter()
                .filter(|(moment, ..)| *moment == Moment::Prefilling)
                .map(|(_, at_ns, _)| *at_ns)
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(begun, [[ms(10)], [ms(10)]]);
}

#[test]
fn edge_30_the_next_step_is_made_before_this_one_is_out() {
    let mut play = Play::default();
    asked(&mut play, ms(0), &[A]);
    play.ring(ms(10), 0, &chunk(&[(A, 5)]));
    asked(&mut play, ms(11), &[B]);
    play.ring(ms(12), 1, &chunk(&[(A, 1), (B, 5)]));
    step(&mut play, 20, &[A], &[A], Some((2, 0, 0.1)));
    play.ring(ms(22), 2, &chunk(&[(A, 1), (B, 1)]));
    step(&mut play, 30, &[A, B], &[B], Some((2, 0, 0.1)));
    step(&mut play, 40, &[A, B], &[], Some((2, 0, 0.1)));
    let steps: Vec<_> = play.steps().iter().map(|step| (step.start_ns, step.end_ns, step.tokens)).collect();
    assert_eq!(
        steps,
        [(Some(ms(10)), ms(20), Some(5)), (Some(ms(12)), ms(30), Some(6)), (Some(ms(22)), ms(40), Some(2)),]
    );
}

#[test]
fn edge_30_a_request_of_the_next_step_is_not_put_into_this_one() {
    let mut play = Play::default();
    asked(&mut play, ms(0), &[A]);
    step(&mut play, 20, &[A], &[A], Some((1, 0, 0.1)));
    asked(&mut play, ms(21), &[B]);
    // B runs by the engine's count, and whether in this step or the next nobody says.
    step(&mut play, 30, &[A], &[], Some((2, 0, 0.1)));
    step(&mut play, 40, &[A], &[], Some((2, 0, 0.1)));
    let steps: Vec<_> = play.steps().into_iter().map(|step| (step.members.len(), step.is_complete)).collect();
    assert_eq!(steps, [(1, true), (1, false), (2, true)]);
    assert_eq!(numbers(play.steps()[2]), [(1, Evidence::E0), (2, Evidence::E2)]);
}

#[test]
fn edge_29_of_several_that_may_have_run_none_is_named() {
    let mut play = Play::default();
    asked(&mut play, ms(0), &[A, B, C]);
    step(&mut play, 20, &[A], &[A], Some((2, 1, 0.1)));
    step(&mut play, 30, &[A], &[], Some((2, 1, 0.1)));
    for step in play.steps() {
        assert_eq!((numbers(step), step.is_complete, step.tokens), (vec![(1, Evidence::E0)], false, None));
    }
}

#[test]
fn edge_32_without_statistics_the_ring_says_when_a_request_was_scheduled() {
    let mut play = Play::default();
    asked(&mut play, ms(0), &[A]);
    play.ring(ms(10), 0, &chunk(&[(A, 5)]));
    for time in [20, 30] {
        let output = newest().output_of(A, 1, (time == 30).then_some(0), &[], None);
        play.outputs(ms(time) + 1000, &newest().outputs(vec![output], None, ms(time)).bytes());
        play.ring(ms(time) + 2000, 1, &chunk(&[(A, 1)]));
    }
    let mut moments = play.only().moments;
    moments.sort_by_key(|(_, at_ns, _)| *at_ns);
    assert_eq!(
        moments,
        [
            (Moment::Enqueued, ms(0), Evidence::E1),
            (Moment::Scheduled, ms(10), Evidence::E1),
            (Moment::Prefilling, ms(10), Evidence::E1),
        ]
    );
}

#[test]
fn edge_32_other_chunks_make_no_steps() {
    let mut play = Play::default();
    asked(&mut play, ms(0), &[A]);
    let whole = chunk(&[(A, 5)]);
    let mut overflow = whole.clone();
    overflow[0] = 1;
    let others = [&overflow[..], b"", b"\x00", &[0; 4096], b"\x00\x00\x01\x00\x00\x00\x05\x80\x05K\x01."];
    for (slot, bytes) in others.into_iter().enumerate() {
        play.ring(ms(5), slot as u32, bytes);
    }
    play.ring(ms(10), 5, &whole);
    step(&mut play, 20, &[A], &[A], Some((1, 0, 0.1)));
    assert_eq!(play.adapter.health().failed, 0);
    assert_eq!(play.steps()[0].start_ns, Some(ms(10)));
    // Half of it: what is there is used, and the step is not said to be complete.
    for to in 0..whole.len() {
        play.ring(ms(30) + to as u64, 0, &whole[..to]);
    }
    assert_eq!(play.adapter.health().failed, 0);
}

/// The ring of a real engine, read at its notices.
#[test]
fn edge_32_a_recorded_ring_is_read() {
    let (mut steps, mut tokens, mut cut, mut preempted) = (0, 0, 0, 0);
    let mut slots = Vec::new();
    for line in fixture("ring.chunks") {
        let fields: Vec<_> = line.split(' ').collect();
        slots.push(fields[1].parse::<u32>().unwrap());
        let bytes = unhex(fields[2]);
        let Some(schedule) = ring::schedule(&bytes) else { continue };
        let schedule = schedule.unwrap();
        steps += 1;
        cut += usize::from(!schedule.is_whole);
        preempted += schedule.preempted.len();
        tokens += schedule.members.iter().map(|(_, count)| u64::from(*count)).sum::<u64>();
        assert!(schedule.members.iter().all(|(id, _)| id.contains("cmpl-")));
    }
    assert!(slots.windows(2).any(|pair| pair == [9, 0]) || slots.windows(2).any(|pair| pair[1] < pair[0]));
    assert_eq!((steps, slots.len()), (102, 202));
    println!("{steps} steps, {tokens} tokens, {cut} cut, {preempted} preempted");
    assert!(cut <= 5 && tokens > 102);
}

#[test]
fn edge_28_equal_ids_of_clients_are_two_requests() {
    let mut play = Play::default();
    let ids = ["chatcmpl-dup-00000001", "chatcmpl-dup-00000002"];
    for id in ids {
        play.add(ms(0), &newest().request_of(id, Some("chatcmpl-dup"), 5, Some(100), 0).bytes());
    }
    step(&mut play, 20, &ids, &ids, Some((2, 0, 0.1)));
    let ties: Vec<_> = play.stories().into_values().map(|story| story.tie.outer_id.unwrap()).collect();
    assert_eq!(ties, ["chatcmpl-dup".into(), "chatcmpl-dup".into()] as [Box<str>; 2]);
}

#[test]
fn edge_31_calls_and_waves_say_nothing_of_requests() {
    let mut play = Play::default();
    play.frame(ms(0), false, INPUT, true, &[3]);
    play.frame(
        ms(0),
        false,
        INPUT,
        false,
        &list(vec![Int(0), Int(7), text("reset_mm_cache"), list(vec![])]).bytes(),
    );
    let mut answer = newest().outputs(vec![], None, ms(1));
    *answer.at(4) = list(vec![Int(7), Nil, list(vec![Nil, Nil])]);
    play.outputs(ms(1), &answer.bytes());
    play.frame(ms(2), false, INPUT, true, &[2]);
    play.frame(ms(2), false, INPUT, false, &list(vec![Int(0), Int(0)]).bytes());
    play_one(&newest(), &mut play, A, None);
    assert_eq!((play.stories().len(), play.steps().len()), (1, 3));
    assert_eq!(play.adapter.health().failed, 0);
}

#[test]
fn edge_25_tensors_travel_in_frames_of_their_own() {
    let layout = newest();
    let mut play = Play::default();
    play.frame(ms(0) - 10, false, INPUT, true, &[0]);
    play.frame(ms(0), false, INPUT, true, &layout.request(A, 5, 3).bytes());
    for more in [true, false] {
        play.frame(ms(0), false, INPUT, more, &[0x99; 4096]);
    }
    let mut output = layout.output(A, 1, None, true, ms(5));
    *output.at(3) = list(vec![list(vec![text("int64"), list(vec![Int(5), Int(2)]), Int(1)]), Nil, Nil]);
    play.frame(ms(21), true, OUTPUT, true, &layout.outputs(vec![output], Some((1, 0, 0.5)), ms(20)).bytes());
    play.frame(ms(21), true, OUTPUT, false, &[0x99; 65_536]);
    let next = layout.output(A, 1, None, false, 0);
    play.outputs(ms(31), &layout.outputs(vec![next], Some((1, 0, 0.5)), ms(30)).bytes());
    assert_eq!(play.only().tokens.len(), 2);
    assert_eq!((play.adapter.health().seen, play.adapter.health().failed), (3, 0));
}

#[test]
fn edge_25_large_outputs_are_read_as_far_as_they_were_copied() {
    let layout = newest();
    let ids: Vec<_> = (0..600).map(|number| format!("chatcmpl-{number:016}-{number:08x}")).collect();
    let mut play = Play::default();
    for id in &ids {
        play.add(ms(0), &layout.request(id, 5, 100).bytes());
    }
    let outputs = |first: bool| ids.iter().map(|id| layout.output(id, 1, None, first, ms(5))).collect();
    let whole = layout.outputs(outputs(true), Some((600, 0, 0.5)), ms(20)).bytes();
    assert!(whole.len() > 65_536);
    play.outputs(ms(21), &whole);
    let second = layout.outputs(outputs(false), Some((600, 0, 0.5)), ms(30)).bytes();
    play.cut(ms(31), true, OUTPUT, false, &second, 16_384);
    let steps = play.steps();
    assert_eq!((steps[0].members.len(), steps[0].is_complete), (600, true));
    assert!(!steps[1].is_complete && (100..600).contains(&steps[1].members.len()));
    assert_eq!(steps[1].end_ns, ms(31), "its stamp stands behind the cut");
    let whole = play.stories().values().filter(|story| story.tokens.len() == 2).count();
    assert_eq!(whole, steps[1].members.len());
    play.abort(ms(40), &[&ids[0], &ids[599]]);
    let stories: Vec<_> = play.stories().into_values().collect();
    assert_eq!(stories[0].counts.generated, Some(2));
    assert_eq!(stories[599].counts.generated, None, "what was cut may have been its token");
}

#[test]
fn a_message_that_fails_costs_the_totals() {
    let mut play = Play::default();
    asked(&mut play, ms(0), &[A]);
    step(&mut play, 20, &[A], &[A], Some((1, 0, 0.1)));
    play.outputs(ms(31), &[0x99; 64]);
    step(&mut play, 40, &[A], &[], Some((1, 0, 0.1)));
    play.abort(ms(50), &[A]);
    let story = play.only();
    assert_eq!((story.tokens.len(), story.counts.generated), (2, None));
    assert_eq!(play.adapter.health().failed, 1);
}

#[test]
fn a_queue_of_any_length_has_bounds() {
    let mut play = Play::default();
    let layout = &LAYOUTS[0];
    play_one(layout, &mut play, "first", None);
    play.said.clear();
    let mut living = 0_i64;
    for number in 0..150_000_u64 {
        play.add(ms(50) + number, &layout.request(&format!("r{number}"), 1, 10).bytes());
        for said in play.said.drain(..) {
            living += match said.saying {
                Saying::Met { .. } => 1,
                Saying::Ended { reason: Reason::Unsaid, .. } => -1,
                _ => 0,
            };
        }
    }
    let (requests, ended, met) = play.adapter.engines.engines[&ENGINE].sizes();
    assert!(requests <= 65_536 && ended <= 65_536 && met <= 131_072, "{requests} {ended} {met}");
    assert!(living <= 65_536, "what is forgotten is told to have ended: {living}");
}

#[test]
fn a_request_that_was_met_late_is_tied_by_its_id() {
    let mut play = Play::default();
    play_one(&newest(), &mut play, A, None);
    step(&mut play, 60, &["1_chatcmpl-late-0123abcd"], &[], Some((1, 0, 0.1)));
    let late = play.stories().into_values().last().unwrap();
    assert_eq!(late.tie, Tie { outer_id: Some("chatcmpl-late".into()), part: Some(1), ..Tie::default() });
}

#[test]
fn a_version_is_named_in_a_map() {
    let ready = |version: &str| {
        map(vec![("a", list(vec![Bool(true), Int(-5)])), ("vllm_version", text(version))]).bytes()
    };
    assert_eq!(ask::ready(&ready("0.32.0"), false), Some("0.32.0"));
    assert_eq!(ask::ready(&map(vec![("a", Nil)]).bytes(), false), None);
    assert_eq!(ask::ready(&Write::bytes(&Int(1)), false), None);
    let _: &Layout = &newest();
}
