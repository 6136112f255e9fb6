//! Who rode in which step, and what it cost: what gpuspan finds from outside, against the server's own log and the
//! stand-ins' account of every operation.

#[cfg(test)]
mod engines;
#[cfg(test)]
mod ranks;

use std::collections::{BTreeMap, BTreeSet};

use e2e::{Observation, Report, Stage, or_skip};
use serde_json::Value;
use simgpu::{Kind, Op};
use workload::client::{Range, StreamMode};
use workload::options::Graphs;
use workload::truth::StepLine;
use workload::{ClientOptions, ServerOptions, ServerTruth, load};

use crate::checks::client;

/// Every step as gpuspan printed it, and every request.
struct Seen {
    steps: Vec<Value>,
    /// Server's id by connection and exchange.
    ids: BTreeMap<(u64, u64), String>,
    requests: Vec<Value>,
}

/// How well it was found.
#[derive(Debug, Default)]
struct Score {
    steps: usize,
    edges: usize,
    wrong: usize,
    within: usize,
    busy_ns: u64,
    true_busy_ns: u64,
    share_errors: Vec<f64>,
}

fn run(options: &ServerOptions, load_options: ClientOptions) -> (Report, ServerTruth, Vec<Op>) {
    let stage = Stage::start_logging(options).unwrap();
    let client = ClientOptions { url: stage.server.url(), ..load_options };
    let observation = Observation::start(stage.server.pid(), &["--output", "json"]).unwrap();
    load(&client).unwrap();
    let report = observation.stop().unwrap();
    (report, stage.truth().unwrap(), stage.operations().unwrap())
}

impl Seen {
    fn of(report: &Report) -> Self {
        let lines = report.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let (steps, requests): (Vec<_>, Vec<_>) = lines.partition(|line| line["type"] == "step");
        let key = |line: &Value| Some((line["connection"].as_u64()?, line["exchange"].as_u64()?));
        let ids =
            requests.iter().filter_map(|line| Some((key(line)?, line["id"].as_str()?.to_owned()))).collect();
        Self { steps, ids, requests }
    }

    /// The step of an engine's threads whose GPU work ended last before a step of the server's log did, and after the one
    /// before it.
    fn step(&self, truth: &StepLine, threads: &[u32], before_ns: u64) -> Option<&Value> {
        let end = |step: &Value| step["gpu"]["end_ns"].as_u64();
        let own = self.steps.iter().filter(|step| end(step).is_some_and(|end| end > before_ns));
        let own = own.filter(|step| self::threads(step).iter().any(|thread| threads.contains(thread)));
        own.filter(|step| end(step) <= Some(truth.end_ns)).max_by_key(|step| end(step))
    }

    fn riders(&self, step: &Value) -> BTreeSet<&str> {
        let key = |rider: &Value| Some((rider["connection"].as_u64()?, rider["exchange"].as_u64()?));
        let riders = step["riders"].as_array().into_iter().flatten();
        riders.filter_map(|rider| self.ids.get(&key(rider)?).map(String::as_str)).collect()
    }
}

fn time(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name} of {value}"))
}

/// Threads that sent the work of a step.
fn threads(step: &Value) -> Vec<u32> {
    let devices = step["gpu"]["devices"].as_array().into_iter().flatten();
    devices.filter_map(|device| device["thread"].as_u64()?.try_into().ok()).collect()
}

/// The threads of each engine, by device.
fn engines(truth: &ServerTruth) -> &[Vec<u32>] {
    &truth.server.as_ref().unwrap().engines
}

/// Work of one engine for a time: when it kept a device busy, and which.
type Busy = (usize, (u64, u64));

/// When what each engine's threads sent kept each device busy, in order.
fn spans_by_device(truth: &ServerTruth, ops: &[Op]) -> BTreeMap<usize, Vec<Busy>> {
    let options = &truth.server.as_ref().unwrap().options;
    let mut devices: BTreeMap<usize, Vec<Busy>> = BTreeMap::new();
    for (engine, threads) in engines(truth).iter().enumerate() {
        for (rank, thread) in threads.iter().enumerate() {
            let device = rank + if options.own_devices { engine * options.devices } else { 0 };
            let spans = busy_spans(ops, *thread, (0, u64::MAX));
            devices.entry(device).or_default().extend(spans.into_iter().map(|span| (engine, span)));
        }
    }
    devices.values_mut().for_each(|spans| spans.sort_unstable_by_key(|(_, span)| *span));
    devices
}

/// How long spans of a step kept a device busy: of the time in which it works for several engines each has its part.
fn shared_ns(own: &[(u64, u64)], engine: usize, device: &[Busy]) -> u64 {
    let mut busy = 0.0;
    for (from, to) in own {
        let first = device.partition_point(|(_, span)| span.0 + LONGEST_NS < *from);
        let near = device[first..].iter().take_while(|(_, span)| span.0 < *to);
        let others: Vec<_> = near.filter(|(of, span)| *of != engine && span.1 > *from).collect();
        let shared: u64 = others.iter().map(|(_, span)| span.1.min(*to) - span.0.max(*from)).sum();
        busy += (to - from) as f64 - shared as f64 / 2.0;
    }
    busy as u64
}

/// No operation of the stand-ins takes longer; neighbours in a stream are one span of at most so much.
const LONGEST_NS: u64 = 1_000_000_000;

/// Each step of the server's log, how it was found, and how long its devices were busy for it.
fn pairs<'a>(seen: &'a Seen, truth: &'a ServerTruth, ops: &[Op]) -> Vec<(&'a StepLine, &'a Value, u64)> {
    let mut before_ns = vec![0; engines(truth).len()];
    let devices = spans_by_device(truth, ops);
    let options = &truth.server.as_ref().unwrap().options;
    let pair = |(index, step): (usize, &'a StepLine)| {
        let threads = &engines(truth)[step.engine];
        let before_ns = std::mem::replace(&mut before_ns[step.engine], step.end_ns);
        let found = seen.step(step, threads, before_ns).unwrap_or_else(|| {
            let near = |found: &&Value| self::threads(found).iter().any(|thread| threads.contains(thread));
            let next = seen
                .steps
                .iter()
                .find(|found| near(found) && found["gpu"]["end_ns"].as_u64() > Some(before_ns));
            panic!("no step for {step:?}; the next one is {:?}", next.map(|next| &next["gpu"]))
        });
        let mut later = truth.steps[index + 1..].iter();
        let next_ns = later.find(|next| next.engine == step.engine).map_or(u64::MAX, |next| next.start_ns);
        let busy = threads.iter().enumerate().map(|(rank, thread)| {
            let device = rank + if options.own_devices { step.engine * options.devices } else { 0 };
            shared_ns(&busy_spans(ops, *thread, (step.start_ns, next_ns)), step.engine, &devices[&device])
        });
        (step, found, busy.sum())
    };
    truth.steps.iter().enumerate().map(pair).collect()
}

/// When operations that a thread sent within a time kept its device busy: work of one engine, on one stream or on several
/// at once.
fn busy_spans(ops: &[Op], thread: u32, (from_ns, to_ns): (u64, u64)) -> Vec<(u64, u64)> {
    let work = [Kind::Kernel, Kind::Copy, Kind::Fill];
    let is_own = |op: &&Op| op.thread == thread && work.contains(&op.kind);
    let sent = ops.iter().filter(is_own).filter(|op| (from_ns..to_ns).contains(&op.submit_ns));
    let mut spans: Vec<(u64, u64)> = Vec::new();
    // They are in the order of their beginnings.
    for op in sent {
        match spans.last_mut().filter(|span| span.1 >= op.start_ns) {
            Some(span) => span.1 = span.1.max(op.end_ns),
            None => spans.push((op.start_ns, op.end_ns)),
        }
    }
    spans
}

fn busy_ns(ops: &[Op], thread: u32, time: (u64, u64)) -> u64 {
    busy_spans(ops, thread, time).iter().map(|(from, to)| to - from).sum()
}

fn score(report: &Report, truth: &ServerTruth, ops: &[Op]) -> Score {
    let seen = Seen::of(report);
    let mut score = Score::default();
    let mut shares: BTreeMap<&str, f64> = BTreeMap::new();
    for (step, found, busy) in pairs(&seen, truth, ops) {
        let members: BTreeSet<&str> = step.members.iter().map(|member| member.id.as_str()).collect();
        let riders = seen.riders(found);
        score.steps += 1;
        score.edges += members.union(&riders).count();
        score.wrong += members.symmetric_difference(&riders).count();
        let gpu = &found["gpu"]["time"];
        score.true_busy_ns += busy;
        score.busy_ns += time(gpu, "ns");
        score.within += usize::from((time(gpu, "lo_ns")..=time(gpu, "hi_ns")).contains(&busy));
        let tokens: u64 = step.members.iter().map(|member| member.prefill_tokens.max(1)).sum();
        for member in &step.members {
            let part = busy as f64 * member.prefill_tokens.max(1) as f64 / tokens as f64;
            *shares.entry(&member.id).or_default() += part;
        }
    }
    for request in &seen.requests {
        let Some(share) = request["id"].as_str().and_then(|id| shares.get(id)) else { continue };
        score.share_errors.push((time(&request["gpu"], "ns") as f64 / share - 1.0).abs());
    }
    score.share_errors.sort_by(f64::total_cmp);
    score
}

/// Shares and what is nobody's are the step, steps are all there is, and idle time is the rest: to the nanosecond.
fn sums_hold(report: &Report) {
    let seen = Seen::of(report);
    for step in seen.steps.iter().filter(|step| !step["gpu"].is_null()) {
        for name in ["ns", "lo_ns", "hi_ns"] {
            let riders: u64 =
                step["riders"].as_array().unwrap().iter().map(|rider| time(&rider["time"], name)).sum();
            let all = time(&step["gpu"]["time"], name);
            assert_eq!(riders + time(&step["unattributed"], name), all, "{name}: {step}");
        }
    }
    let steps = &report.summary.steps;
    let sum: u64 = seen.steps.iter().filter_map(|step| step["gpu"]["time"]["ns"].as_u64()).sum();
    assert_eq!((steps.iterations.gpu_ns, steps.gpu_ns.estimated), (sum, sum));
    assert_eq!(steps.iterations.shared_ns + steps.iterations.unattributed_ns, sum);
    let shares: u64 = seen.requests.iter().map(|request| time(&request["gpu"], "ns")).sum();
    assert_eq!(shares, steps.iterations.shared_ns);
    for times in steps.times.values().flat_map(BTreeMap::values) {
        let parts = times.busy_ns + times.no_request_ns + times.cpu_late_ns + times.launch_bound_ns;
        assert_eq!(parts, times.window_ns);
    }
}

/// The steps on each of several devices: what is told of each, and of its idle time, is within a twentieth of the truth,
/// and nearly every step is one iteration of all of them.
fn devices_hold(report: &Report, truth: &ServerTruth, ops: &[Op], count: usize) {
    let seen = Seen::of(report);
    let (first, last) = (truth.steps.first().unwrap().start_ns, truth.steps.last().unwrap().end_ns);
    let [threads] = engines(truth) else { panic!("one engine") };
    assert_eq!(threads.len(), count);
    let devices = |step: &Value| step["gpu"]["devices"].as_array().map_or(0, Vec::len);
    let whole = seen.steps.iter().filter(|step| devices(step) == count).count();
    println!(
        "{whole} of {} steps are iterations of {count} devices, {} in all",
        truth.steps.len(),
        seen.steps.len()
    );
    assert!(whole as f64 >= truth.steps.len() as f64 * 0.99);
    for (index, thread) in threads.iter().enumerate() {
        let true_busy = busy_ns(ops, *thread, (first, last));
        let pid = ops.iter().find(|op| op.thread == *thread).unwrap().pid;
        let of = |step: &Value| step["gpu"]["devices"].as_array().cloned().unwrap_or_default();
        let all = seen.steps.iter().flat_map(of).filter(|device| device["device"] == index);
        let busy: u64 = all.map(|device| time(&device["time"], "ns")).sum();
        let told = report.summary.steps.times[&pid][&index.to_string()];
        for busy in [busy, told.busy_ns] {
            let part = busy as f64 / true_busy as f64;
            println!("device {index}: busy {part:.3} of the truth");
            assert!((0.95..=1.05).contains(&part), "{told:?}");
        }
    }
}

/// What must be reached, as parts of one. The GPU time of all steps is the truth's within a twentieth, whatever the
/// server does.
struct Goal {
    memberships: f64,
    within: f64,
    /// The error of a request's share at the median, and at p95.
    share: (f64, f64),
}

const GOAL: Goal = Goal { memberships: 0.99, within: 0.95, share: (0.1, 0.15) };

/// A machine that runs other things at the same time delays what shows who rode: one of so many runs must do.
const RUNS: usize = 5;

/// Loads a server until all that must be reached is, at most [`RUNS`] times. Sums hold each time.
fn reaches(
    what: &str,
    goal: &Goal,
    options: &ServerOptions,
    client: &ClientOptions,
) -> (Report, ServerTruth, Vec<Op>) {
    for left in (0..RUNS).rev() {
        let (report, truth, ops) = run(options, client.clone());
        sums_hold(&report);
        match score(&report, &truth, &ops).misses(what, goal) {
            None => return (report, truth, ops),
            Some(missed) if left > 0 => println!("once more: {missed}"),
            Some(missed) => panic!("{what}: {missed}"),
        }
    }
    unreachable!("the last run has ended the test")
}

impl Score {
    /// What of the goal is not reached.
    fn misses(&self, what: &str, goal: &Goal) -> Option<String> {
        let of = |part: usize, all: usize| part as f64 / all.max(1) as f64;
        let right = 1.0 - of(self.wrong, self.edges);
        let within = of(self.within, self.steps);
        let busy = self.busy_ns as f64 / self.true_busy_ns as f64;
        let share = |percent: usize| self.share_errors[self.share_errors.len() * percent / 100];
        println!(
            "{what}: {} steps, {:.2} % of {} memberships right, busy {busy:.3} of the truth, truth in bounds in {:.1} %, \
             shares off by {:.1} % at the median, {:.1} % at p95",
            self.steps,
            right * 100.0,
            self.edges,
            within * 100.0,
            share(50) * 100.0,
            share(95) * 100.0
        );
        let misses = [
            (right < goal.memberships, "memberships"),
            ((busy - 1.0).abs() > 0.05, "GPU time"),
            (within < goal.within, "bounds"),
            (share(50) > goal.share.0, "shares at the median"),
            (share(95) > goal.share.1, "shares at p95"),
        ];
        let missed: Vec<_> = misses.iter().filter(|(missed, _)| *missed).map(|(_, name)| *name).collect();
        (!missed.is_empty()).then(|| missed.join(", "))
    }
}

fn options() -> ServerOptions {
    ServerOptions {
        max_batch: 16,
        max_batch_tokens: 256,
        layers: 4,
        kernel_ns: 40_000,
        ..ServerOptions::default()
    }
}

/// More streams than fit into a batch, prompts longer than fit into a step.
fn mixed(stream: StreamMode) -> ClientOptions {
    ClientOptions {
        stream,
        prompt_words: Range { min: 1, max: 600 },
        max_tokens: Range { min: 1, max: 60 },
        ..client(32, 160)
    }
}

#[test]
fn thirty_two_streams_of_mixed_lengths() {
    or_skip!();
    reaches("streams", &GOAL, &options(), &mixed(StreamMode::True));
}

/// How well the GPU time of measured steps was found: which part of the steps they are, all of them together beside the
/// truth, and how far each is off, sorted. The truth is within the bounds of each.
fn measured(report: &Report, truth: &ServerTruth, ops: &[Op]) -> (f64, f64, Vec<f64>) {
    let (seen, mut errors) = (Seen::of(report), Vec::new());
    let (mut told_ns, mut true_ns) = (0, 0);
    for (_, found, busy) in pairs(&seen, truth, ops) {
        let told = &found["gpu"]["time"];
        if told["class"] == "measured" {
            assert!((time(told, "lo_ns")..=time(told, "hi_ns")).contains(&busy), "{busy} ns: {told}");
            (told_ns, true_ns) = (told_ns + time(told, "ns"), true_ns + busy);
            errors.push((time(told, "ns") as f64 / busy as f64 - 1.0).abs());
        }
    }
    errors.sort_by(f64::total_cmp);
    (errors.len() as f64 / truth.steps.len() as f64, told_ns as f64 / true_ns as f64, errors)
}

/// An engine that asks how long its steps take tells it to who listens as well. Where the GPU does not wait for launches,
/// with which a machine that is busy is late, that is how long it worked.
#[test]
fn an_engine_that_times_its_steps() {
    or_skip!();
    for (what, graphs, least) in [("timed", Graphs::Off, 0.3), ("timed, on graphs", Graphs::Lazy, 0.6)] {
        let options = ServerOptions { timed: true, graphs, ..options() };
        let (report, truth, ops) = reaches(what, &GOAL, &options, &mixed(StreamMode::True));
        let (part, whole, errors) = measured(&report, &truth, &ops);
        let off = |percent: usize| errors[errors.len() * percent / 100] * 100.0;
        println!(
            "{what}: {:.1} % of the steps measured, {whole:.4} of the truth, off by {:.2} % at the median, {:.2} % at p95",
            part * 100.0,
            off(50),
            off(95)
        );
        // What a copy takes beside a kernel is not known, and the first pieces are copies.
        assert!(part >= least && (0.98..=1.02).contains(&whole) && off(50) < 1.0 && off(95) < 5.0);
        assert!(report.summary.steps.gpu_ns.measured > 0);
    }
}

#[test]
fn streams_and_whole_answers_on_graphs() {
    or_skip!();
    let options = ServerOptions { graphs: Graphs::StartUp, ..options() };
    reaches("graphs, every second answer whole", &GOAL, &options, &mixed(StreamMode::Mix));
}

#[test]
fn an_engine_that_schedules_ahead() {
    or_skip!();
    let options = ServerOptions { asynchronous: true, ..options() };
    let what = "scheduled ahead, samples copied on a second stream";
    reaches(what, &Goal { within: 0.9, share: (0.1, 0.3), ..GOAL }, &options, &mixed(StreamMode::True));
}

/// How long the prompt of a request was that nobody answered is not said, which moves the shares of those after it.
#[test]
fn clients_that_leave() {
    or_skip!();
    let client = ClientOptions { abort_every: 5, ..mixed(StreamMode::True) };
    let goal = Goal { share: (0.1, 1.0), ..GOAL };
    reaches("every fifth client leaves", &goal, &options(), &client);
}

#[test]
fn two_devices() {
    or_skip!();
    let options = ServerOptions { devices: 2, ..options() };
    let (report, truth, ops) = reaches("two devices", &GOAL, &options, &mixed(StreamMode::True));
    devices_hold(&report, &truth, &ops, 2);
}

/// Streams take turns as far as nobody sees which of their kernels ran at once.
#[test]
fn two_streams_at_once() {
    or_skip!();
    let options = ServerOptions { streams: 2, ..options() };
    let goal = Goal { share: (0.1, 0.2), ..GOAL };
    reaches("two streams at once", &goal, &options, &mixed(StreamMode::True));
}
