//! The SGLang adapter held against a program that sends SGLang's messages and keeps a log of what its steps did.
//!
//! In: frames of three processes, as `pickle` and `msgspec` write them. Out: counts, members, moments and ends, equal to
//! the scheduler's own log. Altered messages must demote it, and nothing wrong be said meanwhile.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]
#![expect(clippy::print_stdout, reason = "a test says what it compared, or why it cannot")]

mod server;

use std::collections::{BTreeMap, BTreeSet};

use profiler::evidence::Evidence;
use profiler::server::adapter::{Adapter as _, Frame, Heard, What};
use profiler::server::said::{EngineStep, Inner, Moment, Part, Reason, Said, Saying};
use profiler::server::sglang::SgLang;
use serde_json::Value;
use server::{Recorded, Run};

fn hear(adapter: &mut SgLang, frame: &Recorded, copied: usize, out: &mut Vec<Said>) {
    let bytes = &frame.bytes[..frame.bytes.len().min(copied)];
    let what =
        Frame { sent: frame.sent, socket: frame.socket, more: false, bytes, size: frame.bytes.len() as u64 };
    let heard = Heard { pid: frame.pid, tid: frame.tid, time_ns: frame.time_ns, what: What::Frame(what) };
    adapter.hear(&heard, out);
}

/// What was said of one request.
#[derive(Debug, Default)]
struct Account {
    outer: String,
    prompt: Option<u64>,
    cached: Option<u64>,
    generated: Option<u64>,
    tokens: u64,
    token_times: Vec<u64>,
    moments: Vec<(Moment, u64, Evidence)>,
    ended: Option<(Reason, u64)>,
    generates: bool,
}

#[derive(Default)]
struct Everything {
    accounts: BTreeMap<Inner, Account>,
    steps: Vec<EngineStep>,
}

impl Everything {
    fn of(said: Vec<Said>) -> Self {
        let mut all = Self::default();
        said.into_iter().for_each(|said| all.take(said));
        all
    }

    fn take(&mut self, said: Said) {
        match said.saying {
            Saying::Met { inner, tie, generates } => {
                let outer = tie.outer_id.unwrap().into_string();
                let account = Account { outer, prompt: tie.prompt_tokens, generates, ..Account::default() };
                assert!(self.accounts.insert(inner, account).is_none(), "met twice");
            }
            Saying::Reached { inner, moment, at_ns, evidence } => {
                self.of_mut(inner).moments.push((moment, at_ns, evidence))
            }
            Saying::Tokens { inner, count, at_ns } => {
                let account = self.of_mut(inner);
                account.tokens += u64::from(count);
                account.token_times.push(at_ns);
            }
            Saying::Counts { inner, counts } => {
                let account = self.of_mut(inner);
                account.prompt = counts.prompt.or(account.prompt);
                account.cached = counts.cached.or(account.cached);
                account.generated = counts.generated.or(account.generated);
            }
            Saying::Ended { inner, reason, at_ns } => {
                assert!(self.of_mut(inner).ended.replace((reason, at_ns)).is_none(), "ended twice");
            }
            Saying::Step(step) => self.steps.push(*step),
            Saying::Gauges(_) | Saying::EngineDead => {}
        }
    }

    fn of_mut(&mut self, inner: Inner) -> &mut Account {
        self.accounts.get_mut(&inner).unwrap()
    }

    fn by_rid(&self) -> BTreeMap<&str, (&Inner, &Account)> {
        self.accounts.iter().map(|(inner, account)| (account.outer.as_str(), (inner, account))).collect()
    }
}

/// Replays what a profiler would hear: all of it, or only what is sent.
fn replay(run: &Run, sends_only: bool) -> (SgLang, Everything) {
    let (mut adapter, mut out) = (SgLang::default(), Vec::new());
    for frame in run.frames.iter().filter(|frame| frame.sent || !sends_only) {
        hear(&mut adapter, frame, usize::MAX, &mut out);
    }
    assert_eq!(adapter.health().failed, 0, "{:?}", adapter.health());
    (adapter, Everything::of(out))
}

fn number(line: &Value, name: &str) -> u64 {
    line[name].as_u64().unwrap()
}

/// Counts and ends are those of the scheduler's log.
fn check_ends(run: &Run, heard: &Everything) -> usize {
    let by_rid = heard.by_rid();
    let ends: Vec<_> = run.log.iter().filter(|line| line["end"].is_string()).collect();
    for end in &ends {
        let rid = end["end"].as_str().unwrap();
        let account = by_rid[rid].1;
        let reason = account.ended.unwrap_or_else(|| panic!("{end}: no end")).0;
        assert_eq!(reason.name(), end["reason"].as_str().unwrap(), "{end}");
        assert_eq!(account.tokens, number(end, "generated"), "{end}");
        assert_eq!(account.prompt, Some(number(end, "prompt")), "{end}");
        if account.tokens > 0 {
            assert_eq!(account.cached, Some(number(end, "cached")), "{end}");
            assert_eq!(account.generated, Some(number(end, "generated")), "{end}");
        }
        let preempted = account.moments.iter().filter(|(moment, ..)| *moment == Moment::Preempted).count();
        assert_eq!(preempted as u64, number(end, "retractions"), "{end}");
    }
    let generating = heard.accounts.values().filter(|account| account.generates);
    assert!(generating.clone().all(|account| account.ended.is_some()), "one never ended");
    assert_eq!(generating.count(), ends.len());
    ends.len()
}

/// The log's steps that made tokens, with their members: (id, phase).
fn made(run: &Run) -> Vec<(u64, BTreeMap<String, String>)> {
    let steps = run.log.iter().filter(|line| line["step"].is_string());
    let members = |step: &Value| {
        let is_embedding = step["step"] == "embed";
        let all = step["members"].as_array().unwrap().iter();
        let all = all.filter(|member| number(member, "generated") > 0 || is_embedding);
        all.map(|member| (member["rid"].as_str().unwrap().into(), member["phase"].as_str().unwrap().into()))
            .collect()
    };
    let steps = steps.map(|step| (number(step, "end_ns"), members(step)));
    steps.filter(|(_, members): &(u64, BTreeMap<_, _>)| !members.is_empty()).collect()
}

fn said_members(
    step: &EngineStep,
    heard: &Everything,
    of: impl Fn(&profiler::server::said::Member) -> bool,
) -> BTreeMap<String, String> {
    let phase = |part| match part {
        Part::Prefill => "prefill",
        Part::Decode => "decode",
        Part::Unknown => "unknown",
    };
    let members = step.members.iter().filter(|member| of(member));
    members
        .map(|member| (heard.accounts[&member.inner].outer.clone(), phase(member.part).to_owned()))
        .collect()
}

/// Every step is one of the log's, all of its members are in it, and where it claims so no other is.
fn check_steps(run: &Run, heard: &Everything) -> (usize, usize) {
    let made = made(run);
    let (mut complete, mut inferred) = (0, 0);
    for step in &heard.steps {
        // A message leaves after its step has ended, and before the next one ends.
        let Some((_, truth)) = made.iter().rev().find(|(end_ns, _)| *end_ns <= step.end_ns) else {
            panic!("{step:?}")
        };
        let said = said_members(step, heard, |_| true);
        assert!(said.iter().all(|(rid, phase)| truth.get(rid) == Some(phase)), "{said:?} of {truth:?}");
        inferred += step.members.iter().filter(|member| member.evidence == Evidence::E2).count();
        if step.is_complete {
            complete += 1;
            assert_eq!(&said, truth);
        }
    }
    (complete, inferred)
}

fn check_streams(options: &[&str], schema: &str) {
    let Some(run) = server::run("streams", options) else { return };
    let (adapter, heard) = replay(&run, true);
    assert_eq!(adapter.schema(), Some(schema));
    let requests = check_ends(&run, &heard);
    let made = made(&run);
    assert_eq!(heard.steps.len(), made.len(), "every step that made tokens is one message");
    let mut last = 0;
    for (step, (end_ns, truth)) in heard.steps.iter().zip(&made) {
        assert_eq!(&said_members(step, &heard, |member| member.evidence == Evidence::E1), truth);
        assert!(step.members.iter().all(|member| member.generated == 1));
        assert!(step.end_ns >= *end_ns && *end_ns > last);
        last = step.end_ns;
    }
    let (complete, _) = check_steps(&run, &heard);
    assert!(complete * 2 > made.len(), "{complete} of {} steps complete", made.len());
    println!("{requests} requests, {} steps, {complete} complete, {} frames", made.len(), run.frames.len());
}

#[test]
fn members_of_streams_are_exact_in_pickles() {
    check_streams(&[], "0.5.23 pickle");
}

#[test]
fn edge_33_members_of_streams_are_exact_on_msgpack() {
    check_streams(&["--msgpack"], "0.5.23 msgpack");
}

#[test]
fn edge_33_requests_that_do_not_stream_have_exact_counts_at_every_50th_token() {
    for options in [&[][..], &["--msgpack", "--metrics"]] {
        let Some(run) = server::run("whole", options) else { return };
        let (_, heard) = replay(&run, true);
        check_ends(&run, &heard);
        check_steps(&run, &heard);
        let metrics = options.contains(&"--metrics");
        for account in heard.accounts.values() {
            // 50, 100, 120; with the scheduler's stamps the first token is known too.
            assert_eq!(account.token_times.len(), if metrics { 4 } else { 3 }, "{account:?}");
            assert!(account.token_times.is_sorted());
        }
        let inferred: usize = heard.steps.iter().map(|step| step.members.len()).sum();
        println!("{} steps told, {inferred} members", heard.steps.len());
    }
}

#[test]
fn edge_33_stamps_of_the_scheduler_are_taken_where_it_sends_them() {
    let Some(run) = server::run("mixed", &["--metrics"]) else { return };
    let (_, heard) = replay(&run, true);
    let by_rid = heard.by_rid();
    let mut exact = 0;
    for end in run.log.iter().filter(|line| line["end"].is_string() && line["generated"] != 0) {
        let account = by_rid[end["end"].as_str().unwrap()].1;
        for (name, moment) in [("queued", Moment::Enqueued), ("scheduled", Moment::Scheduled)] {
            let (_, at_ns, evidence) = account.moments.iter().find(|(is, ..)| *is == moment).unwrap();
            assert_eq!(*evidence, Evidence::E0);
            assert!((*at_ns as f64 / 1e9 - end[name].as_f64().unwrap()).abs() < 1e-6, "{end} {account:?}");
        }
        exact += 1;
    }
    println!("{exact} requests with stamps");
    assert!(exact > 10);
}

#[test]
fn edge_33_mixed_load_is_told_with_sends_alone_and_with_receives() {
    for options in [&[][..], &["--msgpack"]] {
        let Some(run) = server::run("mixed", options) else { return };
        for sends_only in [true, false] {
            let (_, heard) = replay(&run, sends_only);
            let requests = check_ends(&run, &heard);
            let (complete, inferred) = check_steps(&run, &heard);
            // The scheduler's receive is seen, or the front end's send stands for it.
            let expected = if sends_only { Evidence::E2 } else { Evidence::E1 };
            // What a client gives up may be told before the scheduler has it.
            let kept = heard
                .accounts
                .values()
                .filter(|account| account.ended.is_some_and(|end| end.0 != Reason::Abort));
            let queued = kept.flat_map(|account| &account.moments);
            let queued: BTreeSet<_> = queued
                .filter(|(moment, ..)| *moment == Moment::Enqueued)
                .map(|(.., evidence)| *evidence)
                .collect();
            assert_eq!(queued, BTreeSet::from([expected]));
            println!(
                "{requests} requests, {} steps, {complete} complete, {inferred} inferred",
                heard.steps.len()
            );
        }
        // Clients know requests by the same ids, and count the same.
        let (_, heard) = replay(&run, true);
        let by_rid = heard.by_rid();
        let answered =
            run.client.iter().filter(|said| said["usage"].is_object() && said["path"] != "/v1/embeddings");
        for said in answered {
            let account = by_rid[said["id"].as_str().unwrap()].1;
            assert_eq!(account.tokens, number(&said["usage"], "completion_tokens"));
            assert_eq!(account.prompt, Some(number(&said["usage"], "prompt_tokens")));
        }
    }
}

#[test]
fn edge_33_retraction_is_seen() {
    let Some(run) = server::run("streams", &["--pool", "260", "--slots", "10"]) else { return };
    let retracted = run.log.iter().any(|line| line["retractions"].as_u64().is_some_and(|count| count > 0));
    assert!(retracted, "the pool was large enough after all");
    let (_, heard) = replay(&run, true);
    check_ends(&run, &heard);
    check_steps(&run, &heard);
}

#[test]
fn edge_25_outputs_that_were_cut_are_told_as_far_as_they_go() {
    for options in [&[][..], &["--msgpack"]] {
        let Some(run) = server::run("streams", options) else { return };
        for copied in [120, 400, 700, 1000, 1400] {
            let (mut adapter, mut out) = (SgLang::default(), Vec::new());
            run.frames
                .iter()
                .filter(|frame| frame.sent)
                .for_each(|frame| hear(&mut adapter, frame, copied, &mut out));
            let heard = Everything::of(out);
            let by_rid = heard.by_rid();
            let (mut tokens, mut truth) = (0, 0);
            for end in run.log.iter().filter(|line| line["end"].is_string()) {
                let Some((_, account)) = by_rid.get(end["end"].as_str().unwrap()) else { continue };
                assert!(account.tokens <= number(end, "generated"), "{end} {account:?}");
                assert!(account.generated.is_none_or(|generated| generated <= number(end, "generated")));
                tokens += account.tokens;
                truth += number(end, "generated");
            }
            println!("{options:?}, {copied} bytes: {tokens} of {truth} tokens, {:?}", adapter.health());
            check_steps(&run, &heard);
        }
    }
}

/// The same length, so that the rest of the message stays as it is.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    while let Some(at) = bytes.windows(from.len()).position(|window| window == from) {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}

#[test]
fn altered_messages_demote_within_100_frames_and_nothing_wrong_is_said() {
    let Some(run) = server::run("streams", &[]) else { return };
    let truth: u64 = run.log.iter().filter_map(|line| line["generated"].as_u64()).sum();
    let fields: [(&[u8], &[u8]); 6] = [
        (b"completion_tokens", b"completion_tokenz"),
        (b"prompt_tokens", b"cached_token2"),
        (b"finished_reasons", b"finished_reasonz"),
        (b"\x8c\x04type", b"\x8c\x04kind"),
        (b"\x8c\x04rids", b"\x8c\x04riDs"),
        // Totals under the name of something else, and something else under theirs.
        (b"reasoning_tokens\x94]\x94(K\x00", b"reasoning_tokens\x94]\x94(K\x07"),
    ];
    for (from, to) in fields {
        let (mut adapter, mut out, mut demoted) = (SgLang::default(), Vec::new(), None);
        let mut outputs = 0;
        for frame in run.frames.iter().filter(|frame| frame.sent) {
            let altered = Recorded { bytes: replaced(&frame.bytes, from, to), ..frame.clone() };
            outputs += u32::from(frame.pid == run.scheduler);
            hear(&mut adapter, &altered, usize::MAX, &mut out);
            if adapter.health().is_bad() {
                demoted = Some(outputs);
                break;
            }
        }
        let heard = Everything::of(out);
        let tokens: u64 = heard.accounts.values().map(|account| account.tokens).sum();
        println!("{}: demoted after {demoted:?} outputs, {tokens} tokens said", String::from_utf8_lossy(to));
        if from.starts_with(b"reasoning") {
            // A field that is not read may be anything.
            assert_eq!((demoted, tokens), (None, truth));
        } else {
            assert!(demoted.is_some_and(|outputs| outputs <= 100));
            // Where only reasons are unknown, what does not end is still right.
            let is_reason = from.ends_with(b"type");
            assert!(heard.accounts.values().all(|account| account.ended.is_none()));
            assert!(if is_reason { tokens <= truth } else { (tokens, heard.steps.len()) == (0, 0) });
        }
    }
}

#[test]
fn damaged_messages_never_panic_and_never_count_up() {
    for options in [&[][..], &["--msgpack"]] {
        let Some(run) = server::run("streams", options) else { return };
        let (mut adapter, mut out, mut seed) = (SgLang::default(), Vec::new(), 1_u64);
        for frame in run.frames.iter().filter(|frame| frame.sent) {
            for _ in 0..20 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let mut damaged = frame.clone();
                let at = (seed >> 33) as usize % damaged.bytes.len();
                damaged.bytes[at] = seed as u8;
                if seed & 0x100 != 0 {
                    damaged.bytes.truncate(at);
                }
                hear(&mut adapter, &damaged, if seed & 0x200 != 0 { at } else { usize::MAX }, &mut out);
            }
        }
        println!("{:?}", adapter.health());
    }
}

#[test]
fn the_load_snapshot_is_read() {
    let Some(run) = server::run("streams", &["--pool", "1000"]) else { return };
    let loads = profiler::server::sglang::load::read(&run.snapshot).unwrap();
    let [load] = loads[..] else { panic!("{loads:?}") };
    assert_eq!((load.engine, load.running, load.waiting, load.kv_usage), (0, Some(0), Some(0), Some(0.0)));
    let (mut adapter, mut out) = (SgLang::default(), Vec::new());
    adapter.hear(&Heard { pid: 1, tid: 1, time_ns: 1, what: What::Snapshot(&run.snapshot) }, &mut out);
    assert!(matches!(out[..], [Said { saying: Saying::Gauges(_), .. }]));
}

#[test]
fn a_frame_costs_microseconds() {
    let Some(run) = server::run("streams", &[]) else { return };
    let frames: Vec<_> = run.frames.iter().filter(|frame| frame.sent).collect();
    let started = std::time::Instant::now();
    let mut tokens = 0;
    for _ in 0..20 {
        let (mut adapter, mut out) = (SgLang::default(), Vec::new());
        frames.iter().for_each(|frame| hear(&mut adapter, frame, usize::MAX, &mut out));
        tokens += Everything::of(out).accounts.values().map(|account| account.tokens).sum::<u64>();
    }
    let took = started.elapsed();
    let each = took / (20 * frames.len() as u32);
    println!("{} frames: {each:?} each, {:?} a token", frames.len(), took / tokens as u32);
    assert!(each.as_millis() < 2, "{each:?}");
}
