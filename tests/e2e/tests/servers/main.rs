//! Real, unmodified servers, profiled from outside while a client loads them. What the profiler says about every
//! request is compared with what the client saw, and what it says about the device with the exact log of the stand-in
//! libraries under the server. Run by `cargo xtask test servers`; elsewhere each test says why it is skipped.
//!
//! Here: what all of them have in common; `inside` has their queues, steps and tokens. Absent: times of the device,
//! which a stand-in cannot prove.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at its first surprise"
)]
#![expect(clippy::print_stdout, reason = "a test says how close it was, and why it cannot run here")]

mod coverage;
mod fleet;
mod inside;
mod names;
mod truth;

use std::time::{Duration, Instant};

use e2e::summary::{Launches, Loss, Summary};
use e2e::{Metrics, Observation, Report, Span, or_skip};
use truth::{Reading, Truth};
use workload::client::{Range, StreamMode};
use workload::{ClientOptions, ClientRecord, load};
use xtask::server::{self, Cuda, Device, Name, Options, Running};

/// A third of them at once: some wait, some share a step.
const REQUESTS: u64 = 12;
const CONNECTIONS: usize = 4;
/// How far the time to the first token may lie from the client's, both measured on a loaded machine with two cores:
/// the client's own reading adds a wake-up of its thread.
const TTFT_TOLERANCE_NS: f64 = 25e6;

/// How long after the last answer a server may still touch the device.
const SETTLE: Duration = Duration::from_millis(500);

#[test]
fn llama_on_the_cpu() {
    check(Name::Llama, Options { device: Device::Cpu, ..Options::default() });
}

#[test]
fn llama_on_the_stand_ins() {
    check(Name::Llama, Options::default());
}

#[test]
fn llama_built_for_cuda_12() {
    check(Name::Llama, Options { cuda: Cuda::Twelve, ..Options::default() });
}

#[test]
fn llama_attached_before_its_first_launch() {
    for cuda in [Cuda::Twelve, Cuda::Thirteen] {
        check_from_the_start(Name::Llama, Options { cuda, ..Options::default() });
    }
}

#[test]
fn transformers_attached_before_its_first_launch() {
    check_from_the_start(Name::Transformers, Options::default());
}

#[test]
fn transformers_on_the_cpu() {
    check(Name::Transformers, Options { device: Device::Cpu, ..Options::default() });
}

#[test]
fn vllm_on_the_cpu() {
    check(Name::Vllm, Options { device: Device::Cpu, ..Options::default() });
}

#[test]
fn transformers_on_the_stand_ins() {
    check(Name::Transformers, Options::default());
}

#[test]
fn transformers_with_cuda_graphs() {
    check(Name::Transformers, Options { cuda_graphs: true, ..Options::default() });
}

fn check(name: Name, options: Options) {
    if std::env::var_os("GPUSPAN_SERVERS").is_none() {
        println!(
            "skipped: {name:?} on {:?}: real servers are big; `cargo xtask test servers` runs them",
            options.device
        );
        return;
    }
    or_skip!();
    let started = Instant::now();
    let mut running = server::start(name, &options).unwrap();
    println!("{name:?} on {:?} answers after {:.1} s", options.device, started.elapsed().as_secs_f64());
    // What a server does only once (loading kernels, capturing graphs) is not what the window is about.
    ask(&running, 2 * CONNECTIONS, 1);
    if options.device != Device::Cpu {
        coverage::check(running.pid, coverage_file(name, &options));
    }
    let observed = observe(&running);
    assert!(running.alive(), "the server ended under the profiler");
    assert_eq!(observed.report.summary.target.server, recognised_as(name));
    requests_agree(&running, &observed);
    metrics_agree(&observed);
    if name == Name::Transformers {
        engine_is_as_its_command_line_says(&observed);
    }
    // Without work on a GPU nothing shows when an engine that is not heard has begun.
    if observed.truth.is_some() || name != Name::Transformers {
        durations_are_explained(&observed);
    }
    if let Some(truth) = &observed.truth {
        device_agrees(&observed.report.summary, truth);
    }
    // The target never depends on the profiler.
    let after = ask(&running, 2, 3);
    assert!(after.iter().all(answered), "{after:#?}");
}

/// Attached before the server has mapped a library: every call that it ever makes is seen, and every kernel named.
fn check_from_the_start(name: Name, options: Options) {
    if std::env::var_os("GPUSPAN_SERVERS").is_none() {
        println!(
            "skipped: {name:?} from its start: real servers are big; `cargo xtask test servers` runs them"
        );
        return;
    }
    or_skip!();
    let mut running = server::spawn(name, &Options { held: true, ..options }).unwrap();
    let gpuspan = Observation::start(running.pid, &[]).unwrap();
    running.go_on();
    running.ready().unwrap();
    let client = ask(&running, CONNECTIONS, 4);
    assert!(client.iter().all(answered), "{client:#?}");
    std::thread::sleep(SETTLE);
    let truth = Reading::of(running.truth_dir.as_deref().unwrap()).all();
    let report = gpuspan.stop().unwrap();
    assert!(running.alive(), "the server ended under the profiler");
    device_agrees(&report.summary, &truth);
    let launches = &report.summary.launches;
    let all = launches.total + launches.graph_nodes;
    println!("{name:?}, {:?}: {} of {all} launches have no name", options.cuda, launches.unnamed);
    assert!(launches.unnamed * 1000 <= all, "{launches:#?}");
}

/// Names what `gpuspan check` says of a server on the stand-ins.
fn coverage_file(name: Name, options: &Options) -> &'static str {
    match (name, options.cuda) {
        (Name::Llama, Cuda::Twelve) => "check-llama-cuda12.txt",
        (Name::Llama, Cuda::Thirteen) => "check-llama-cuda13.txt",
        (Name::Transformers, _) => "check-transformers.txt",
        (Name::Vllm, _) => "check-vllm.txt",
    }
}

fn recognised_as(name: Name) -> &'static str {
    match name {
        Name::Llama => "llama.cpp",
        Name::Transformers => "transformers",
        Name::Vllm => "vllm",
    }
}

/// The parts of a duration; the last is what nothing explains.
const BREAKDOWN: [&str; 8] =
    ["front_end", "queue", "prefill", "decode", "blocked_by_prefill", "preempted", "cpu_gap", "unknown"];

/// What everybody saw of the same window.
struct Observed {
    client: Vec<ClientRecord>,
    report: Report,
    /// Of the window alone; none on the CPU.
    truth: Option<Truth>,
}

fn observe(running: &Running) -> Observed {
    let gpuspan = Observation::start(running.pid, &["--compat", "transformers"]).unwrap();
    let before = running.truth_dir.as_deref().map(Reading::of);
    let client = ask(running, REQUESTS as usize, 2);
    // The last step's copies may still be under way when the last answer is out.
    std::thread::sleep(SETTLE);
    let after = running.truth_dir.as_deref().map(Reading::of);
    // Requests of an engine that is new are told after a second, and then their model is looked for.
    std::thread::sleep(4 * SETTLE);
    let report = gpuspan.stop().unwrap();
    let truth = after.zip(before).map(|(after, before)| after.since(&before));
    Observed { client, report, truth }
}

/// Half of the answers are streamed.
fn ask(running: &Running, requests: usize, seed: u64) -> Vec<ClientRecord> {
    let options = ClientOptions {
        requests,
        seed,
        concurrency: CONNECTIONS,
        model: running.model.clone(),
        stream: StreamMode::Mix,
        max_tokens: Range { min: 4, max: 24 },
        traceparent: true,
        ..ClientOptions::new(&running.url)
    };
    load(&options).unwrap()
}

/// transformers ends a stream without `[DONE]`, so that a finish reason is what tells the end.
fn answered(record: &ClientRecord) -> bool {
    record.status == 200 && record.error.is_none() && record.finish_reason.is_some()
}

fn requests_agree(running: &Running, observed: &Observed) {
    let spans: Vec<&Span> = observed.report.spans.iter().filter(|span| span.is_server()).collect();
    let mut farthest: f64 = 0.0;
    for record in &observed.client {
        assert!(answered(record), "{record:#?}\n{}", running.log.display());
        let id = record.id.as_deref().expect("the answer has an id");
        let mut same = spans.iter().filter(|span| span.text("gen_ai.response.id") == Some(id));
        let span = same.next().unwrap_or_else(|| panic!("no SERVER span for {record:#?} in {spans:#?}"));
        assert!(same.next().is_none(), "two SERVER spans for {record:#?}");
        request_agrees(running, record, span);
        farthest = farthest.max(first_token_distance_ns(record, span));
    }
    println!("the first token is at most {:.1} ms from the client's", farthest / 1e6);
    assert!(farthest < TTFT_TOLERANCE_NS);
    let requests = &observed.report.summary.requests;
    assert_eq!(requests.by_status.get("200"), Some(&REQUESTS), "{requests:?}");
    assert_eq!(requests.by_outcome.get("completed"), Some(&REQUESTS), "{requests:?}");
    assert_eq!((requests.streaming, requests.partial), (REQUESTS / 2, 0), "{requests:?}");
    assert_eq!(requests.total, spans.len() as u64, "{requests:?}");
    let others = spans.iter().filter(|span| span.text("gen_ai.response.id").is_none());
    others.for_each(|span| was_dropped(span, observed));
}

/// Histograms have the client's values, each once, and tokens are exact.
fn metrics_agree(observed: &Observed) {
    let metrics = Metrics::last(&observed.report.otlp).unwrap();
    let tolerance_s = TTFT_TOLERANCE_NS / 1e9;
    let seconds = |ns: u64| ns as f64 / 1e9;
    let latencies: Vec<f64> = observed.client.iter().map(|of| seconds(of.end_ns - of.sent_ns)).collect();
    // A server that keeps the connection may end a stream long after its last event.
    metrics.has_values("gen_ai.server.request.duration", &latencies, 4.0 * tolerance_s).unwrap();
    let streamed = observed.client.iter().filter(|of| of.stream);
    let first: Vec<f64> = streamed.map(|of| seconds(of.time_to_first_token_ns().expect("a token"))).collect();
    metrics.has_values("gen_ai.server.time_to_first_token", &first, tolerance_s).unwrap();
    let millis: Vec<f64> = first.iter().map(|seconds| 1e3 * seconds).collect();
    // Once a request, where the instrument it is named after recorded each token.
    metrics.has_values("ttft_milliseconds", &millis, 1e3 * tolerance_s).unwrap();
    let usage = || observed.client.iter().map(|of| of.usage.expect("the answer counts its tokens"));
    let prompts: u64 = usage().map(|usage| usage.prompt_tokens).sum();
    let answers: u64 = usage().map(|usage| usage.completion_tokens).sum();
    let tokens = |kind| metrics.sum("gen_ai.client.token.usage", &[("gen_ai.token.type", kind)]) as u64;
    assert_eq!((tokens("input"), tokens("output")), (prompts, answers));
    let parts = metrics.sum("gpuspan.request.part.duration", &[]);
    let all = metrics.sum("gen_ai.server.request.duration", &[]);
    assert!((parts - all).abs() < 1e-6 * all, "{parts} s of parts in {all} s");
}

/// The server was told how large its cache and its batches are, and the model's folder says what a token takes.
fn engine_is_as_its_command_line_says(observed: &Observed) {
    let metrics = Metrics::last(&observed.report.otlp).unwrap();
    let bytes = |state| metrics.sum("gpuspan.engine.kv_cache.memory", &[("gpuspan.kv_cache.state", state)]);
    // 64 blocks of 32 tokens (xtask/src/server/transformers.rs).
    assert!(bytes("free") > 0.0 && bytes("free") % (64.0 * 32.0) == 0.0, "{} bytes free", bytes("free"));
    assert_eq!(bytes("used"), 0.0, "nobody is under way");
    assert_eq!(metrics.sum("kv_cache_free_memory_bytes", &[]), bytes("free"));
    if observed.truth.is_some() {
        let fill = |from| metrics.count("gpuspan.engine.batch.fill", &[("gpuspan.capacity", from)]);
        let (told, seen) = (fill("command_line"), fill("largest_seen"));
        assert!(told > 0 && seen == 0, "{told} batches by the command line, {seen} by the largest");
    }
}

/// llama-server ends a connection after a stream although it said `Keep-Alive`, reads what the client has already sent
/// on it, and never answers; the client asks again on a new connection. Both are exchanges of their own.
/// Why each request took as long as it did: parts that add up to its duration, next to nothing of it unknown.
fn durations_are_explained(observed: &Observed) {
    let mut unknown = Vec::new();
    for span in observed.report.spans.iter().filter(|span| span.is_server()) {
        if span.text("gen_ai.response.id").is_none() {
            continue;
        }
        let parts: Vec<u64> = BREAKDOWN
            .iter()
            .map(|part| {
                span.int(&format!("gpuspan.breakdown.{part}_ns"))
                    .unwrap_or_else(|| panic!("{part}: {span:#?}"))
            })
            .collect();
        let (sum, took) = (parts.iter().sum::<u64>(), span.end_ns - span.start_ns);
        assert!(sum.abs_diff(took) as f64 <= 0.01 * took as f64, "{sum} of {took}: {span:#?}");
        unknown.extend(parts.last().map(|unknown| *unknown as f64 / took as f64));
    }
    unknown.sort_by(f64::total_cmp);
    let median = unknown.get(unknown.len() / 2).copied().expect("requests with an id");
    let most = unknown.last().copied().unwrap_or(median);
    println!("of durations {:.2} % are unknown at the median, {:.2} % at most", 100.0 * median, 100.0 * most);
    assert!(median <= 0.05, "{unknown:?}");
}

fn was_dropped(span: &Span, observed: &Observed) {
    assert_eq!(span.text("gpuspan.outcome"), Some("aborted"), "{span:#?}");
    assert_eq!(span.int("http.response.status_code"), None, "{span:#?}");
    let asked_again = observed.client.iter().any(|record| record.trace_id.as_ref() == Some(&span.trace_id));
    assert!(asked_again, "nobody sent {span:#?}");
}

fn request_agrees(running: &Running, record: &ClientRecord, span: &Span) {
    let usage = record.usage.expect("the answer counts its tokens");
    assert_eq!(span.text("gen_ai.request.model"), Some(running.model.as_str()), "{span:#?}");
    assert_eq!(span.text("gen_ai.response.model"), record.model.as_deref(), "{span:#?}");
    assert_eq!(span.int("http.response.status_code"), Some(u64::from(record.status)), "{span:#?}");
    assert_eq!(span.int("gen_ai.usage.input_tokens"), Some(usage.prompt_tokens), "{span:#?}");
    assert_eq!(span.int("gen_ai.usage.output_tokens"), Some(usage.completion_tokens), "{span:#?}");
    assert_eq!(span.text("gpuspan.outcome"), Some("completed"), "{span:#?}");
    assert_eq!(Some(&span.trace_id), record.trace_id.as_ref(), "the caller's trace goes on: {span:#?}");
}

/// Between the profiler's and the client's time to the first token; none where the answer came at once.
fn first_token_distance_ns(record: &ClientRecord, span: &Span) -> f64 {
    if !record.stream {
        return 0.0;
    }
    let said = span.double("gpuspan.time_to_first_token").expect("a streamed answer has a first token") * 1e9;
    let seen = record.time_to_first_token_ns().expect("the client saw a token") as f64;
    (said - seen).abs()
}

/// Every count is equal, not close: the server is idle at both ends of the window.
fn device_agrees(summary: &Summary, truth: &Truth) {
    let launches = &summary.launches;
    assert!(truth.fact("launches") > 0, "the server never used the device");
    assert_eq!(launches.total, truth.fact("launches"), "{launches:?}");
    assert_eq!(launches.graph_launches, truth.fact("graph_launches"), "{launches:?}");
    assert_eq!(launches.captured, truth.fact("captured_launches"), "{launches:?}");
    if launches.unknown_graphs == 0 {
        assert_eq!(launches.graph_nodes, truth.fact("graph_kernel_nodes"), "{launches:?}");
    }
    for (direction, fact) in [("HtoD", "htod"), ("DtoH", "dtoh"), ("DtoD", "dtod")] {
        let seen = summary.copies.get(direction).copied().unwrap_or_default();
        let (count, bytes) =
            (truth.fact(&format!("copies_{fact}")), truth.fact(&format!("copies_{fact}_bytes")));
        assert_eq!((seen.count, seen.bytes), (count, bytes), "{direction}: {:?}", summary.copies);
    }
    kernels_agree(launches, truth);
    nothing_was_lost(&summary.loss);
}

/// Every kernel has its own count under the device's own name for it. What is left on both sides is what cuBLAS launches
/// by the driver's handles; then the counts must be those of the remaining kernels.
fn kernels_agree(launches: &Launches, truth: &Truth) {
    let seen = launches.by_kernel.iter().filter(|kernel| kernel.count > 0);
    let (named, unnamed): (Vec<_>, Vec<_>) = seen.partition(|kernel| kernel.symbol.is_some());
    assert!(unnamed.iter().all(|kernel| kernel.evidence == "opaque_handle"), "{unnamed:#?}");
    // What cuBLAS launches by the driver's own handles.
    assert!(unnamed.len() <= 2, "{unnamed:#?}");
    let mut left = truth.kernels().clone();
    let mut counted: Vec<u64> = unnamed.iter().map(|kernel| kernel.count).collect();
    for kernel in &named {
        match kernel.symbol.as_ref().and_then(|symbol| left.remove(symbol)) {
            Some(count) => assert_eq!(count, kernel.count, "{kernel:?}"),
            // Of a name that was cut short the device knows more.
            None if kernel.symbol.as_ref().is_some_and(|symbol| symbol.contains('…')) => {
                counted.push(kernel.count)
            }
            None => panic!("the device ran no {kernel:#?}: {truth:#?}"),
        }
    }
    let mut true_counts: Vec<u64> = left.into_values().collect();
    counted.sort_unstable();
    true_counts.sort_unstable();
    assert_eq!(counted, true_counts, "{launches:#?}\n{truth:#?}");
}

/// The profiler's own equations, and none of their losses.
fn nothing_was_lost(loss: &Loss) {
    assert!(loss.balanced, "{loss:#?}");
    assert_eq!(loss.lost, 0, "{loss:#?}");
}
