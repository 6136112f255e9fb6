//! vLLM: against the times and counts that its answers tell, its `/metrics`, and its log of each step.

use std::sync::MutexGuard;
use std::time::Duration;

use xtask::server::vllm::Tuning;
use xtask::server::{self, Name, Options, Running};

use super::account::{Account, Part, Step};
use super::agree::{adapter_is_sound, engine, ms, requests_agree};
use super::own::{Iteration, Metrics, iterations};
use super::plan::{Abort, Asked, words};
use super::{Window, asked_for};

/// How far a time may lie from the engine's own statistics.
const TOLERANCE_MS: f64 = 1.0;
/// The cache works by blocks of 128 tokens on the CPU: prompts of more are found again.
const LONG: usize = 300;

#[test]
fn vllm_tells_the_same_inside() {
    let Some((mut running, _alone)) = start(true, Tuning::default()) else { return };
    let window = Window::of(&mut running, everything, true);
    agrees(&window);
    own_times_agree(&window);
    iterations_agree(&window);
    let metrics = window.metrics.as_ref().unwrap();
    steps_agree_with_metrics(&window, metrics);
}

#[test]
fn vllm_as_it_comes() {
    let Some((mut running, _alone)) = start(false, Tuning::default()) else { return };
    let window = Window::of(&mut running, |running| usuals(running, 12, 4), true);
    agrees(&window);
    let metrics = window.metrics.as_ref().unwrap();
    steps_agree_with_metrics(&window, metrics);
    told_metrics_agree(&window, metrics);
    levels_agree(&running);
}

/// Prompts that take several steps, requests that wait, are preempted, and are given up in each of these states.
#[test]
fn vllm_with_little_room() {
    let tuning = Tuning {
        step_tokens: Some(64),
        kv_blocks: Some(7),
        max_seqs: Some(3),
        max_len: Some(640),
        ..Tuning::default()
    };
    let Some((mut running, _alone)) = start(true, tuning) else { return };
    let window = Window::of(&mut running, crowded, true);
    agrees(&window);
    own_times_agree(&window);
    iterations_agree(&window);
    let preempted: u64 = window.account.parts().map(|part| part.preemptions).sum();
    let chunked = window.account.parts().filter(|part| part.steps > part.generated_tokens).count();
    println!("{preempted} preemptions, {chunked} prompts in several steps");
    assert!(preempted > 0 && chunked > 0, "the test is of no use without either");
    // Batches are as full as their limit says, which none exceeds.
    let told = &window.told;
    let fill = told.of("gpuspan.engine.batch.fill", &[("gpuspan.capacity", "command_line")]);
    let fill: f64 = fill.map(|point| point.value).sum();
    let members = |step: &&Step| !step.members.is_empty();
    let computed: u64 = window.account.steps.iter().filter(members).filter_map(|step| step.tokens).sum();
    assert!(told.count("gpuspan.engine.batch.fill", &[("gpuspan.capacity", "largest_seen")]) == 0);
    assert!(fill * 64.0 >= computed as f64 && computed > 0, "{fill} batches of 64, {computed} tokens");
}

#[test]
fn vllm_with_two_api_servers() {
    let Some((mut running, _alone)) = start(false, Tuning { api_servers: Some(2), ..Tuning::default() })
    else {
        return;
    };
    // Connections of their own: the kernel spreads them over both.
    let window = Window::of(&mut running, |running| usuals(running, 24, 24), true);
    agrees(&window);
}

/// Nobody stamps anything: counts are exact all the same, and tokens have the times of their messages.
#[test]
fn vllm_without_statistics() {
    let Some((mut running, _alone)) = start(false, Tuning { no_log_stats: true, ..Tuning::default() }) else {
        return;
    };
    let window = Window::of(&mut running, |running| usuals(running, 12, 4), false);
    adapter_is_sound(&window, "vllm", "E0");
    requests_agree(&window, "vllm", "E0");
}

/// The server with a first answer behind it; none where it cannot run.
fn start(tell: bool, vllm: Tuning) -> Option<(Running, MutexGuard<'static, ()>)> {
    if !asked_for("vLLM") {
        return None;
    }
    if let Some(reason) = e2e::cannot_attach() {
        println!("skipped: {reason}");
        return None;
    }
    let alone = e2e::alone();
    let running = server::start(Name::Vllm, &Options { tell, vllm, ..Options::default() }).unwrap();
    let warm = super::plan::run(&running, &[Asked::chat(&running, "w1 w2", 4)]);
    assert!(warm.iter().all(super::Record::is_whole), "{warm:#?}");
    Some((running, alone))
}

/// Streamed and not, over so many connections.
fn usual(running: &Running, at: usize, lanes: usize) -> Asked {
    let words = words(at as u64, 5 + 3 * at);
    let asked = Asked::chat(running, &words, 4 + at as u32 % 20).on(at % lanes);
    if at.is_multiple_of(2) { asked.streamed() } else { asked }
}

fn usuals(running: &Running, requests: usize, lanes: usize) -> Vec<Asked> {
    (0..requests).map(|at| usual(running, at, lanes)).collect()
}

/// Sixteen at once, of all kinds.
fn everything(running: &Running) -> Vec<Asked> {
    let chat = |seed: u64, tokens| Asked::chat(running, &words(seed, 8), tokens);
    let known = words(1000, LONG);
    let long = || Asked::chat(running, &known, 10);
    let mut plan = usuals(running, 8, 8);
    plan.extend([
        chat(100, 1).streamed().on(8),
        chat(101, 1).on(8),
        // The second and third find the first's prompt in the cache.
        long().streamed().on(9),
        long().on(9),
        long().streamed().on(9),
        chat(102, 12).with("n", 2).streamed().on(10),
        chat(103, 6).with("n", 2).on(10),
        Asked::completion(running, vec![words(104, 4), words(105, 9), words(106, 2)], 7).streamed().on(11),
        Asked::completion(running, vec![words(107, 3), words(108, 3)], 3).on(11),
        // A random word has a 7 in one of four cases.
        chat(109, 200).with("stop", vec!["7"]).with("seed", 5).streamed().on(12),
        chat(110, 200).with("stop", vec!["7"]).with("seed", 6).on(12),
        // Half of all tokens end an answer.
        chat(111, 200)
            .with("stop_token_ids", (0..512).collect::<Vec<u32>>())
            .with("seed", 7)
            .streamed()
            .on(12),
        // Two at a time by one name.
        chat(112, 15).head("X-Request-Id", "the-same").streamed().on(13),
        chat(113, 15).head("X-Request-Id", "another").streamed().on(14),
        chat(114, 400).left(Abort::Events(20)).on(15),
        chat(115, 1500).left(Abort::AfterS(0.5)).on(15),
    ]);
    plan
}

/// More than there is room for.
fn crowded(running: &Running) -> Vec<Asked> {
    let ask = |seed: u64, words_: usize, tokens| Asked::chat(running, &words(seed, words_), tokens);
    let mut plan: Vec<Asked> = (0..4).map(|at| ask(200 + at, 150, 250).streamed().on(at as usize)).collect();
    plan.extend((4..8).map(|at| ask(200 + at, 40, 60).on(at as usize).after(0.05)));
    plan.extend([
        // While it waits: three long answers are before it.
        ask(220, 20, 30).left(Abort::AfterS(0.2)).head("X-Request-Id", "waits").on(20).after(0.1),
        // While it runs.
        ask(221, 20, 300).left(Abort::Events(8)).on(21).after(0.2),
        // On the connection of a short one, so that it comes when there is room.
        ask(222, 500, 20).streamed().on(4),
    ]);
    plan
}

fn agrees(window: &Window) {
    adapter_is_sound(window, "vllm", "E0");
    requests_agree(window, "vllm", "E0");
    let [gauges] = window.account.engines.gauges.as_slice() else { panic!("{:#?}", window.account.engines) };
    assert_eq!((gauges.running, gauges.waiting), (Some(0), Some(0)), "{gauges:#?}");
    if let Some(metrics) = &window.metrics {
        counts_agree_with_metrics(window, metrics);
        times_agree_with_metrics(window, metrics);
    }
}

/// The parts of requests whose answers are whole.
fn whole(window: &Window) -> impl Iterator<Item = &Part> {
    let whole = window.asked().filter(|(_, record)| record.is_whole());
    whole.flat_map(|(_, record)| &engine(window.account.of_record(record)).parts)
}

/// What answers say of their own times (`--enable-per-request-metrics`).
fn own_times_agree(window: &Window) {
    let mut farthest: f64 = 0.0;
    let mut compared = 0;
    for (_, record) in window.asked() {
        let Some(own) = &record.metrics else { continue };
        let request = window.account.of_record(record);
        let [part] = engine(request).parts.as_slice() else { continue };
        let between =
            |from: Option<u64>, to: Option<u64>| to.unwrap() as f64 / 1e6 - from.unwrap() as f64 / 1e6;
        for (said, own) in [
            (between(part.enqueued_ns, part.scheduled_ns), own.queue_time_ms),
            (between(part.scheduled_ns, part.first_token_ns), own.time_to_first_token_ms),
            (between(part.first_token_ns, part.last_token_ns), own.generation_time_ms),
        ] {
            // An answer that the front end ended has its last token there, and the engine has another.
            if part.reason.as_deref() == Some("front_end") {
                continue;
            }
            let distance = (said - own.unwrap()).abs();
            assert!(distance < TOLERANCE_MS, "{said} ms: {record:#?} {part:#?}");
            farthest = farthest.max(distance);
            compared += 1;
        }
    }
    println!("{compared} times are at most {farthest:.6} ms from those that answers tell");
    assert!(compared > 0);
}

/// How far ahead in the log a step is looked for.
const NEAR: usize = 8;

/// The steps as the log has them: who was in each, as a count, and how many tokens. Where gpuspan knows all tokens of
/// every step, both lists are the same. Else each step that it knows is in the log, in that order: what it calls complete
/// with the very members, and the others with no more than these.
fn iterations_agree(window: &Window) {
    let logged = iterations(&window.log);
    let steps: Vec<&Step> = window.account.steps.iter().filter(|step| !step.members.is_empty()).collect();
    let complete = steps.iter().filter(|step| step.complete).count();
    let exact = steps.iter().filter(|step| step.complete && step.tokens.is_some()).count();
    if exact == steps.len() && steps.len() == logged.len() {
        let seen = steps.iter().map(|step| (step.members.len() as u64, step.tokens.unwrap()));
        let counted = logged.iter().map(|step| (step.members(), step.tokens()));
        assert!(seen.eq(counted), "{steps:#?} {logged:#?}");
    }
    let mut left = logged.iter();
    let mut strangers = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let members = step.members.len() as u64;
        let is_it = |logged: &Iteration| match (step.complete, step.tokens) {
            (true, Some(tokens)) => (logged.members(), logged.tokens()) == (members, tokens),
            (true, None) => logged.members() == members,
            (false, _) => members <= logged.members(),
        };
        // Not every step brings a message; a few in a row may not.
        match left.clone().take(NEAR).position(is_it) {
            Some(place) => drop(left.nth(place)),
            None => strangers.push((at, *step)),
        }
    }
    assert!(strangers.is_empty(), "the log has none of {strangers:#?}: {logged:#?}");
    let (logged, seen) = (logged.len(), steps.len());
    println!(
        "of {logged} steps in the log {seen} are seen: {complete} with all members, {exact} with all tokens"
    );
    assert!(2 * exact > logged);
}

fn counts_agree_with_metrics(window: &Window, metrics: &Metrics) {
    let account = &window.account;
    let sum = |count: fn(&Part) -> u64| account.parts().map(count).sum::<u64>();
    let answered = |part: &Part| part.first_token_ns.is_some();
    let prompts: u64 =
        account.parts().filter(|part| answered(part)).map(|part| part.prompt_tokens.unwrap()).sum();
    assert_eq!(prompts, metrics.count("vllm:prompt_tokens_total", ""));
    let cached = sum(|part| part.cached_tokens.unwrap_or(0));
    assert_eq!(cached, metrics.count("vllm:prompt_tokens_cached_total", ""));
    assert_eq!(sum(|part| part.preemptions), metrics.count("vllm:num_preemptions_total", ""));
    let queried: u64 = account
        .parts()
        .filter(|part| part.scheduled_ns.is_some())
        .map(|part| part.prompt_tokens.unwrap())
        .sum();
    assert_eq!(queried, metrics.count("vllm:prefix_cache_queries_total", ""));
    assert_eq!(cached, metrics.count("vllm:prefix_cache_hits_total", ""));
    // The front end does not count what the engine makes after the front end has ended an answer.
    let ended_early = account.parts().filter(|part| part.reason.as_deref() != Some("length")).count() as u64;
    let (generated, counted) =
        (sum(|part| part.generated_tokens), metrics.count("vllm:generation_tokens_total", ""));
    let ahead = generated.checked_sub(counted);
    assert!(ahead.is_some_and(|ahead| ahead <= 3 * ended_early), "{generated} {counted} {ended_early}");
    let said =
        |reason: &str| whole(window).filter(|part| part.reason.as_deref() == Some(reason)).count() as u64;
    let counted = |reason: &str| metrics.count("vllm:request_success_total", &format!("=\"{reason}\""));
    assert_eq!(said("length"), counted("length"));
    assert_eq!(said("stop") + said("front_end"), counted("stop"));
}

/// Sums over all requests that ended by themselves.
fn times_agree_with_metrics(window: &Window, metrics: &Metrics) {
    let requests = whole(window).count() as f64;
    for (name, from, to) in [
        (
            "queue",
            (|part| part.enqueued_ns) as fn(&Part) -> Option<u64>,
            (|part| part.scheduled_ns) as fn(&Part) -> _,
        ),
        ("prefill", |part| part.scheduled_ns, |part| part.first_token_ns),
    ] {
        let metric = format!("vllm:request_{name}_time_seconds");
        assert_eq!(metrics.count(&format!("{metric}_count"), "") as f64, requests, "{metric}");
        let said: u64 = whole(window).map(|part| to(part).unwrap() - from(part).unwrap()).sum();
        let counted = metrics.sum(&format!("{metric}_sum"), "") * 1e3;
        println!("{name}: {:.3} ms in all, {counted:.3} ms in /metrics, {requests} requests", ms(said));
        assert!((ms(said) - counted).abs() < TOLERANCE_MS * requests);
    }
}

/// The metrics that are exported, where all requests ended by themselves: queue, tokens and the counts of steps.
fn told_metrics_agree(window: &Window, metrics: &Metrics) {
    let told = &window.told;
    let requests = window.records.len() as u64;
    let queue = "gpuspan.engine.queue.duration";
    assert_eq!(told.count(queue, &[("gpuspan.evidence", "E0")]), requests);
    assert_eq!(metrics.count("vllm:request_queue_time_seconds_count", ""), requests);
    let own = metrics.sum("vllm:request_queue_time_seconds_sum", "");
    let ours = told.sum(queue, &[]);
    assert!((ours - own).abs() * 1e3 < TOLERANCE_MS * requests as f64, "{ours} s, {own} s in /metrics");
    let tokens = told.sum("gpuspan.engine.tokens", &[]) as u64;
    assert_eq!(tokens, metrics.count("vllm:generation_tokens_total", ""));
    let usage = |kind| told.sum("gen_ai.client.token.usage", &[("gen_ai.token.type", kind)]) as u64;
    assert_eq!(usage("input"), metrics.count("vllm:prompt_tokens_total", ""));
    assert_eq!(usage("output"), metrics.count("vllm:generation_tokens_total", ""));
    let first = "gen_ai.server.time_to_first_token";
    let streamed = window.plan.iter().filter(|asked| asked.is_streamed()).count() as u64;
    assert_eq!((told.count(first, &[]), streamed > 0), (streamed, true));
    for name in ["gpuspan.engine.requests.running", "gpuspan.engine.requests.waiting"] {
        let levels: Vec<f64> =
            told.of(name, &[("gpuspan.evidence", "E0")]).map(|point| point.value).collect();
        assert_eq!((levels.as_slice(), told.sum(name, &[])), ([0.0].as_slice(), 0.0), "{name}");
    }
}

/// What the engine says of itself while it works, in `/metrics` and in what is exported: how many run, and how much of the
/// KV cache they fill. Both are looked at every now and then, and each stands for a while.
fn levels_agree(running: &Running) {
    let often = [("OTEL_METRIC_EXPORT_INTERVAL", "50")];
    let gpuspan = e2e::Observation::start_with(running.pid, &[], &often).unwrap();
    let long = |at: usize| Asked::chat(running, &words(300 + at as u64, 40), 400).on(at);
    let plan: Vec<Asked> = (0..4).map(long).collect();
    let own = std::thread::scope(|scope| {
        let load = scope.spawn(|| super::plan::run(running, &plan));
        let mut own = Vec::new();
        while !load.is_finished() {
            own.push(Metrics::of(running));
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(load.join().unwrap().iter().all(super::Record::is_whole));
        own
    });
    let told = e2e::Metrics::all(&gpuspan.stop().unwrap().otlp).unwrap();
    for (ours, theirs) in [
        ("gpuspan.engine.requests.running", "vllm:num_requests_running"),
        ("gpuspan.engine.kv_cache.usage", "vllm:kv_cache_usage_perc"),
    ] {
        let said: Vec<f64> = own.iter().map(|at| at.sum(theirs, "")).collect();
        let levels: Vec<f64> = told.iter().flat_map(|at| at.of(ours, &[])).map(|point| point.value).collect();
        let most = |levels: &[f64]| levels.iter().copied().fold(0.0, f64::max);
        println!("{ours}: {} looks, at most {}; {theirs} {}", levels.len(), most(&levels), most(&said));
        assert!(most(&said) > 0.0 && (most(&levels) - most(&said)).abs() < 1e-9, "{levels:?} {said:?}");
        let strange: Vec<_> =
            levels.iter().filter(|of| !said.iter().any(|at| (at - *of).abs() < 1e-9)).collect();
        assert!(10 * strange.len() <= levels.len(), "{strange:?} of {levels:?} were not seen in {said:?}");
    }
}

/// One front end counts each message with tokens as an iteration.
fn steps_agree_with_metrics(window: &Window, metrics: &Metrics) {
    let Account { steps, .. } = &window.account;
    let productive = steps.iter().filter(|step| step.members.iter().any(|member| member.generated > 0));
    assert_eq!(productive.count() as u64, metrics.count("vllm:iteration_tokens_total_count", ""));
    let prompts: u64 = window
        .account
        .parts()
        .filter(|part| part.first_token_ns.is_some())
        .map(|part| part.prompt_tokens.unwrap() - part.cached_tokens.unwrap_or(0))
        .sum();
    let generated = metrics.count("vllm:generation_tokens_total", "");
    assert_eq!(prompts + generated, metrics.count("vllm:iteration_tokens_total_sum", ""));
}
