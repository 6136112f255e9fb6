//! Recorded frames of vLLM 0.32 against what Python's msgpack reads in them (`tests/fixtures/vllm/oracle.py`), and
//! against what the client saw.

use serde_json::Value;

use super::*;

/// A recorded frame.
struct Recorded {
    time_ns: u64,
    pid: u32,
    tid: u32,
    socket: u64,
    sent: bool,
    more: bool,
    bytes: Vec<u8>,
}

fn recorded(name: &str) -> Vec<Recorded> {
    fixture(&format!("{name}.frames"))
        .iter()
        .map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            Recorded {
                time_ns: fields[0].parse().unwrap(),
                pid: fields[1].parse().unwrap(),
                tid: fields[2].parse().unwrap(),
                socket: u64::from_str_radix(fields[3], 16).unwrap(),
                sent: fields[4] == "S",
                more: fields[5] == "1",
                bytes: unhex(fields[7]),
            }
        })
        .collect()
}

/// Plays the frames that are `kept`, each copied up to a number of bytes.
fn play(name: &str, to: usize, kept: impl Fn(&Recorded) -> bool) -> Play {
    let mut play = Play::default();
    for frame in recorded(name).iter().filter(|frame| kept(frame)) {
        let copied = &frame.bytes[..to.min(frame.bytes.len())];
        let (size, more) = (frame.bytes.len() as u64, frame.more);
        let what = What::Frame(Frame { sent: frame.sent, socket: frame.socket, more, bytes: copied, size });
        let heard = Heard { pid: frame.pid, tid: frame.tid, time_ns: frame.time_ns, what };
        play.adapter.hear(&heard, &mut play.said);
    }
    // Time goes on.
    let time_ns = play.said.last().unwrap().time_ns + 1_000_000_000;
    play.ring(time_ns, 0, &[]);
    play
}

/// What the oracle reads: requests, steps.
fn truth(name: &str) -> (Vec<Value>, Vec<Value>) {
    let lines = fixture(&format!("{name}.truth"));
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .partition(|line: &Value| line.get("wire").is_some())
}

/// Processes of the recordings that have a worker's or front end's comm are not engines.
fn engine_of(name: &str) -> u32 {
    recorded(name).iter().find(|frame| !frame.sent && frame.more && frame.bytes == [0]).unwrap().pid
}

fn is_near(a: u64, b: &Value) -> bool {
    // Both round the same number of seconds, each in its own way.
    a.abs_diff(b.as_u64().unwrap()) <= 1
}

/// Compares one request with the oracle's.
fn check_request(story: &Story, truth: &Value, met: bool) {
    let outer = story.tie.outer_id.as_deref().unwrap();
    assert_eq!(outer, truth["outer"].as_str().unwrap());
    assert_eq!(story.tie.part.map(u64::from), truth["part"].as_u64(), "{outer}");
    assert!(story.generates);
    assert_eq!(story.counts.prompt, truth["prompt"].as_u64(), "{outer}");
    assert_eq!(story.counts.cached, truth["cached"].as_u64(), "{outer}");
    let tokens = truth["tokens"].as_array().unwrap();
    assert_eq!(story.tokens.len(), tokens.len(), "{outer}");
    for ((at_ns, count), truth) in story.tokens.iter().zip(tokens) {
        assert!(is_near(*at_ns, &truth[0]) && u64::from(*count) == truth[1].as_u64().unwrap(), "{outer}");
    }
    let total: u64 = tokens.iter().map(|pair| pair[1].as_u64().unwrap()).sum();
    let is_lost = truth["end"][0] == "unsaid";
    assert_eq!(story.counts.generated, Some(total).filter(|_| !is_lost), "{outer}");
    let stamped: Vec<_> = story
        .moments
        .iter()
        .filter(|(moment, _, evidence)| *evidence == Evidence::E0 && *moment != Moment::Prefilling)
        .collect();
    let moments = truth["moments"].as_array().unwrap();
    assert_eq!(stamped.len(), moments.len(), "{outer}: {stamped:?}");
    for ((moment, at_ns, _), truth) in stamped.iter().zip(moments) {
        let number = match moment {
            Moment::Enqueued => 1,
            Moment::Scheduled => 2,
            _ => 3,
        };
        assert!(is_near(*at_ns, &truth[1]) && truth[0] == number, "{outer}");
    }
    let enqueued = story.moments.iter().filter(|(moment, ..)| *moment == Moment::Enqueued).count();
    assert_eq!(enqueued, 1, "{outer}");
    if met {
        assert_eq!(story.met_ns, truth["met"].as_u64().unwrap(), "{outer}");
        let (reason, at_ns) = story.end.unwrap();
        assert!(truth["end"][0] == reason.name() && is_near(at_ns, &truth["end"][1]), "{outer}: {reason:?}");
    }
}

/// Compares a whole recording: every request, every member of every step, every gauge.
fn check(play: &Play, name: &str, is_engine: bool) {
    let (requests, steps) = truth(name);
    let stories: Vec<_> = play.stories().into_iter().collect();
    assert_eq!(stories.len(), requests.len());
    for ((_, story), truth) in stories.iter().zip(&requests) {
        check_request(story, truth, is_engine);
    }
    let wires: BTreeMap<Inner, &str> = stories
        .iter()
        .zip(&requests)
        .map(|((inner, _), truth)| (*inner, truth["wire"].as_str().unwrap()))
        .collect();
    let stamped: Vec<_> =
        steps.iter().filter(|step| !step["members"].as_array().unwrap().is_empty()).collect();
    let said: Vec<_> = play
        .steps()
        .into_iter()
        .filter(|step| step.members.iter().any(|member| member.generated > 0))
        .collect();
    assert_eq!(said.len(), stamped.len());
    for (step, truth) in said.iter().zip(&stamped) {
        assert!(is_near(step.end_ns, &truth["end"]), "{step:?}");
        let mut members: Vec<_> = step
            .members
            .iter()
            .filter(|member| member.evidence == Evidence::E0)
            .map(|member| (wires[&member.inner], u64::from(member.generated)))
            .collect();
        let mut expected: Vec<_> = truth["members"]
            .as_array()
            .unwrap()
            .iter()
            .map(|member| (member[0].as_str().unwrap(), member[1].as_u64().unwrap()))
            .collect();
        members.sort_unstable();
        expected.sort_unstable();
        assert_eq!(members, expected);
        let running = truth["running"].as_u64().unwrap();
        let ended = requests
            .iter()
            .filter(|request| request["end"][1] == truth["end"] && request["end"][0] != "unsaid")
            .count() as u64;
        if step.is_complete && is_engine {
            assert_eq!(step.members.len() as u64, running + ended, "{step:?}");
        }
    }
    let health = play.adapter.health();
    assert_eq!((health.failed, health.why), (0, None));
    assert_eq!(play.adapter.schema(), Some("0.32"));
}

/// Every gauge.
fn check_gauges(play: &Play, name: &str) {
    let (_, steps) = truth(name);
    let gauges = play.gauges();
    assert_eq!(gauges.len(), steps.len());
    for (gauges, truth) in gauges.iter().zip(&steps) {
        assert_eq!(
            (gauges.running, gauges.waiting, gauges.kv_usage),
            (truth["running"].as_u64(), truth["waiting"].as_u64(), truth["kv"].as_f64())
        );
    }
}

#[test]
fn a_recorded_engine_is_told_as_it_was() {
    for name in ["basic", "chunked", "two-servers"] {
        let play = play(name, usize::MAX, |_| true);
        check(&play, name, true);
        check_gauges(&play, name);
    }
}

#[test]
fn an_engine_without_its_front_end_is_enough() {
    for name in ["basic", "chunked", "two-servers"] {
        let engine = engine_of(name);
        check(&play(name, usize::MAX, |frame| frame.pid == engine), name, true);
    }
}

#[test]
fn front_ends_are_heard_where_the_engine_is_not() {
    for name in ["basic", "chunked"] {
        let engine = engine_of(name);
        let play = play(name, usize::MAX, |frame| frame.pid != engine);
        check(&play, name, false);
        check_gauges(&play, name);
        assert!(play.stories().values().all(|story| story.tie.thread.is_some()));
        assert!(play.steps().iter().all(|step| !step.is_complete));
    }
}

#[test]
fn the_client_saw_the_same() {
    let play = play("basic", usize::MAX, |_| true);
    let stories = play.stories();
    for line in fixture("basic.client") {
        let client: Value = serde_json::from_str(&line).unwrap();
        let Some(id) = client["id"].as_str() else { continue };
        let begin_ns = client["t0_ns"].as_u64().unwrap();
        let end_ns = client["end_ns"].as_u64().unwrap();
        let mut parts: Vec<_> =
            stories.values().filter(|story| story.tie.outer_id.as_deref() == Some(id)).collect();
        parts.sort_by_key(|story| story.tie.part);
        // Two clients chose the same id: each sees one of them.
        let is_shared = id == "chatcmpl-dup";
        assert_eq!(
            parts.len(),
            if is_shared { 2 } else { client["finish"].as_array().unwrap().len().max(1) },
            "{id}"
        );
        for (place, story) in parts.iter().enumerate() {
            let (reason, _) = story.end.unwrap();
            match client["finish"][place].as_str() {
                Some(finish) => {
                    assert!(finish == reason.name() || (reason, finish) == (Reason::FrontEnd, "stop"), "{id}")
                }
                None => assert!(client["aborted"] == true && reason == Reason::FrontEnd || is_shared),
            }
            assert!(story.met_ns > begin_ns || is_shared, "{id}");
            let seen: Vec<u64> = client["events"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|event| event[0] == place)
                .map(|event| event[1].as_u64().unwrap())
                .collect();
            // An event may carry two tokens, never none that the engine did not have yet.
            if !is_shared {
                assert!(seen.len() <= story.tokens.len() + 1, "{id}");
                for (seen_ns, (at_ns, _)) in seen.iter().zip(&story.tokens) {
                    assert!(seen_ns > at_ns && *at_ns < end_ns, "{id}");
                }
            }
        }
        if let (Some(prompt), Some(completion)) =
            (client["usage"]["prompt_tokens"].as_u64(), client["usage"]["completion_tokens"].as_u64())
        {
            let one = if is_shared { &parts[..1] } else { &parts[..] };
            assert_eq!(one[0].counts.prompt, Some(prompt), "{id}");
            let sum: u64 = one.iter().map(|story| story.counts.generated.unwrap()).sum();
            assert_eq!(sum, completion, "{id}");
        }
    }
}

/// A partial prefill is in no output; the engine's number of running requests tells of it.
#[test]
fn edge_29_chunked_prefill_is_inferred_where_only_one_request_can_have_run() {
    let play = play("chunked", usize::MAX, |_| true);
    let stories = play.stories();
    let (mut inferred, mut partial) = (0, 0);
    for step in play.steps() {
        for member in step.members.iter().filter(|member| member.evidence != Evidence::E0) {
            assert_eq!((member.evidence, member.generated), (Evidence::E2, 0));
            let story = &stories[&member.inner];
            let scheduled_ns =
                story.moments.iter().find(|(moment, ..)| *moment == Moment::Scheduled).unwrap().1;
            // The engine's own stamps, heard later: it was scheduled, and had no output yet.
            assert!(scheduled_ns < step.end_ns && step.end_ns < story.tokens[0].0, "{step:?}");
            inferred += 1;
        }
        partial += stories
            .values()
            .filter(|story| {
                let scheduled = story.moments.iter().find(|(moment, ..)| *moment == Moment::Scheduled);
                scheduled.is_some_and(|(_, at_ns, _)| *at_ns < step.end_ns)
                    && story.tokens.first().is_some_and(|(at_ns, _)| step.end_ns < *at_ns)
            })
            .count();
    }
    println!("{inferred} of {partial} partial prefills inferred");
    assert!(inferred * 2 > partial && inferred > 10, "{inferred} of {partial}");
}

#[test]
fn edge_29_preempted_requests_come_back() {
    let play = play("two-servers", usize::MAX, |_| true);
    let preempted: Vec<_> = play
        .stories()
        .into_values()
        .filter(|story| story.moments.iter().any(|(moment, ..)| *moment == Moment::Preempted))
        .collect();
    assert_eq!(preempted.len(), 2);
    for story in preempted {
        let names: Vec<_> = story.moments.iter().map(|(moment, ..)| *moment).collect();
        use Moment::{Enqueued, Preempted, Prefilling, Scheduled};
        assert_eq!(names, [Enqueued, Scheduled, Prefilling, Preempted, Scheduled]);
        assert!(story.counts.generated.is_none() && story.tokens.len() > 80, "{story:?}");
        assert_eq!(story.end.map(|(reason, _)| reason), Some(Reason::Unsaid), "the recording lacks its end");
    }
}

#[test]
fn edge_28_messages_of_one_step_to_two_servers_are_one_step() {
    let play = play("two-servers", usize::MAX, |_| true);
    let mut ends: Vec<_> = play.steps().iter().map(|step| step.end_ns).collect();
    let count = ends.len();
    ends.dedup_by(|b, a| b.abs_diff(*a) < 50_000);
    assert_eq!(ends.len(), count, "one step said twice");
    let full = play.steps().iter().filter(|step| step.members.len() >= 3 && step.is_complete).count();
    assert!(full > 50, "{full}");
}

#[test]
fn edge_31_a_dying_engine_ends_its_requests() {
    let play = play("two-servers", usize::MAX, |_| true);
    let dead: Vec<_> = play.said.iter().filter(|said| said.saying == Saying::EngineDead).collect();
    assert_eq!(dead.len(), 1, "two clients are told, one engine died");
    let last = play.stories().into_values().last().unwrap();
    assert_eq!(last.end, Some((Reason::Error, dead[0].time_ns)));
}

/// The version is named in frames of the start, which a profiler that comes later has not heard.
#[test]
fn edge_27_the_version_is_found_without_the_start() {
    let start_ns = recorded("two-servers")
        .iter()
        .find(|frame| frame.more && frame.bytes == [0] && !frame.sent)
        .unwrap()
        .time_ns;
    check(&play("two-servers", usize::MAX, |frame| frame.time_ns >= start_ns), "two-servers", true);
}

/// Frames are copied up to a limit: less is known, nothing is wrong.
#[test]
fn edge_25_cut_frames_say_less_and_nothing_wrong() {
    let whole = play("basic", usize::MAX, |_| true).stories();
    for to in [700, 256, 100, 60, 40, 8] {
        let play = play_or_nothing("basic", to);
        assert_eq!(play.adapter.health().failed, 0, "{to}: {:?}", play.adapter.health());
        for (inner, story) in play.stories() {
            let truth = &whole[&inner];
            let known = story.counts;
            assert!(known.prompt.is_none() || known.prompt == truth.counts.prompt, "{to}");
            assert!(
                known.generated.is_none() || known.generated == truth.counts.generated,
                "{to}: {story:?}"
            );
            assert!(story.tokens.len() <= truth.tokens.len());
            // Without the stamp, the time of the frame stands for it.
            for (at_ns, _) in &story.tokens {
                assert!(
                    truth.tokens.iter().any(|(true_ns, _)| at_ns.abs_diff(*true_ns) < 10_000_000),
                    "{to}"
                );
            }
        }
    }
}

fn play_or_nothing(name: &str, to: usize) -> Play {
    let mut play = Play::default();
    for frame in recorded(name) {
        play.pid = Some(frame.pid);
        play.cut(frame.time_ns, frame.sent, frame.socket, frame.more, &frame.bytes, to);
    }
    play
}

/// A profiler that comes while requests run: it says what it hears from then on, and no totals.
#[test]
fn requests_that_run_already_are_met_late() {
    let frames = recorded("two-servers");
    let middle_ns = 6_852_800_000_000;
    assert!(frames.iter().any(|frame| frame.time_ns < middle_ns));
    let play = play("two-servers", usize::MAX, |frame| frame.time_ns >= middle_ns);
    let stories = play.stories();
    let late: Vec<_> = stories.values().filter(|story| story.tie.prompt_tokens.is_none()).collect();
    assert_eq!(late.len(), 4, "{late:?}");
    for story in late {
        assert_eq!(story.counts.generated, None);
        assert!(story.end.is_some() && !story.tokens.is_empty());
    }
    assert_eq!(play.adapter.health().failed, 0);
}
