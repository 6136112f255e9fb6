//! Overflow, on purpose: what is lost is counted, what is counted happened, and every equation holds.

use e2e::calls;
use e2e::stage::{device, since};
use e2e::{Calls, Observation, or_skip};
use profiler::probe::CATALOG;
use simgpu::Runtime;
use tempfile::TempDir;
use workload::client::StreamMode;
use workload::{ClientOptions, ClientRecord, load};

use crate::checks::{Observed, client, equations_hold, nothing_lost, observe, options};

#[test]
fn counted_and_lost_calls_are_all_calls() {
    or_skip!();
    let log = TempDir::new().unwrap();
    let arguments = ["--wait-stdin", "--threads", "8", "--times", "20000", "--api", "cudaLaunchKernel"];
    let mut program = Calls::start(calls::command(Runtime::Cuda12, log.path()), &arguments).unwrap();
    let pid = program.waits_before("start").unwrap();
    let observation = Observation::start(pid, &["--ring-bytes", "4096"]).unwrap();
    let before = device(log.path(), pid).unwrap();
    program.make().unwrap();
    let made = since(&before, &device(log.path(), pid).unwrap());
    let report = observation.stop().unwrap();
    let probed: u64 = CATALOG.iter().map(|api| made.call(api.symbol)).sum();
    assert!(probed >= 2 * 8 * 20_000, "each launch crosses two layers: {probed}");
    let counted: u64 = report.summary.calls.values().sum();
    let gpu = report.summary.loss.kernel["gpu"];
    assert!(gpu.lost() > 0, "a ring of one page cannot hold this: {gpu:?}");
    assert_eq!(counted + gpu.lost(), probed, "{gpu:?}");
    assert_eq!(gpu.seen, probed, "{gpu:?}");
    assert!(report.summary.launches.total <= made.launches());
    equations_hold(&report.summary);
    let lost: u64 = report.summary.loss.kernel.values().map(|terms| terms.lost()).sum();
    assert_eq!(report.summary.loss.lost, lost);
    program.end().unwrap();
}

#[test]
fn requests_under_overflow_are_partial_but_never_wrong() {
    or_skip!();
    for ring in ["4096", "16384"] {
        let client = ClientOptions { stream: StreamMode::Mix, ..client(32, 256) };
        never_wrong(&observe(options(), client, &["--ring-bytes", ring]));
    }
}

fn never_wrong(observed: &Observed) {
    let summary = &observed.report.summary;
    equations_hold(summary);
    println!("lost {} records under {} requests", summary.loss.lost, summary.requests.total);
    assert!(observed.records.iter().all(ClientRecord::is_ok), "the server is not disturbed");
    assert!(summary.requests.total <= observed.records.len() as u64, "{:?}", summary.requests);
    for span in observed.report.spans.iter().filter(|span| span.text("gpuspan.outcome") == Some("completed"))
    {
        let Some(id) = span.text("gen_ai.response.id") else { continue };
        let record = observed.records.iter().find(|record| record.id.as_deref() == Some(id)).unwrap();
        for (name, truth) in [
            ("http.response.status_code", u64::from(record.status)),
            ("gen_ai.usage.output_tokens", record.usage.unwrap().completion_tokens),
            ("gen_ai.request.max_tokens", record.max_tokens as u64),
        ] {
            assert!(span.int(name).is_none_or(|seen| seen == truth), "{name}: {span:?} {record:?}");
        }
    }
}

#[test]
fn nothing_is_lost_at_full_speed_with_the_usual_ring() {
    or_skip!();
    let log = TempDir::new().unwrap();
    let arguments = ["--wait-stdin", "--threads", "8", "--times", "5000", "--api", "cudaLaunchKernel"];
    let mut program = Calls::start(calls::command(Runtime::Cuda13, log.path()), &arguments).unwrap();
    let pid = program.waits_before("start").unwrap();
    let observation = Observation::start(pid, &[]).unwrap();
    program.make().unwrap();
    let report = observation.stop().unwrap();
    assert_eq!(report.summary.launches.total, 8 * 5000);
    nothing_lost(&report.summary);
    program.end().unwrap();
}

#[test]
fn spans_beyond_the_exporters_queue_are_counted() {
    or_skip!();
    // A file takes everything; the endpoint, where nobody listens, takes nothing.
    let stage = e2e::Stage::start(&crate::requests::no_gpu()).unwrap();
    let observation =
        Observation::start(stage.server.pid(), &["--otlp-endpoint", "http://127.0.0.1:9"]).unwrap();
    let records = load(&ClientOptions { url: stage.server.url(), ..client(8, 64) }).unwrap();
    let report = observation.stop().unwrap();
    equations_hold(&report.summary);
    assert_eq!(report.summary.requests.total, records.len() as u64);
    for (destination, terms) in &report.summary.loss.export {
        let file = destination.starts_with("file");
        assert_eq!(terms.exported, if file { terms.produced } else { 0 }, "{destination}: {terms:?}");
        assert_eq!(terms.dropped.values().sum::<u64>(), if file { 0 } else { terms.produced });
    }
}
