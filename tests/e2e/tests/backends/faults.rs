//! Endpoints that fail in every way that endpoints do, while gpuspan is attached to a server under load: what is lost is
//! counted, memory stays bounded, and the server does not notice. All cases run side by side, so that whatever else the
//! machine does falls on all of them.
//!
//! Absent: each rule of retrying by itself (`profiler/src/export/tests`), and queues that overflow (target `kernel`, loss).

mod endpoint;

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::summary::Export;
use e2e::{Observation, Stage};
use endpoint::{Endpoint, Fault, Seen};
use workload::client::{Range, Summary};
use workload::{ClientOptions, ServerOptions, load};

/// How long the one that comes back is away.
const AWAY: Duration = Duration::from_secs(60);
/// Requests a second, and how many: load lasts longer than the absence.
const RATE: f64 = 5.0;
const REQUESTS: usize = 360;
/// What a queue of 16,384 spans, and the requests made of them, may take beyond what gpuspan takes anyway.
const ROOM: u64 = 64 << 20;
/// How much longer between two tokens a server may take beside a failing endpoint. A machine with two cores that runs all
/// cases at once is no quiet place; a server that waited for an exporter would lose seconds.
const SLACK_MS: f64 = 5.0;

/// What is left of one case.
#[derive(Debug)]
struct Outcome {
    fault: Fault,
    traces: Export,
    seen: Seen,
    rss: u64,
    client: Summary,
}

#[test]
fn whatever_an_endpoint_does_only_counted_spans_are_lost_and_nobody_else_notices() {
    e2e::or_skip!();
    e2e::program::gpuspan().unwrap();
    let cases = [Fault::None, Fault::Away(AWAY), Fault::Slow, Fault::Busy, Fault::Partial, Fault::NoTls];
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let running: Vec<_> = cases.into_iter().map(|fault| scope.spawn(move || play(fault))).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for outcome in &outcomes {
        println!("{outcome:?}");
    }
    for outcome in &outcomes {
        check_account(outcome);
        check_bystanders(outcome, &outcomes[0]);
    }
}

/// A server, its load, its profiler and the endpoint of that.
fn play(fault: Fault) -> Outcome {
    let endpoint = Endpoint::new(fault);
    let stage =
        Stage::start(&ServerOptions { kernel_ns: 2_000, layers: 2, ..ServerOptions::default() }).unwrap();
    let variables = [("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"), ("OTEL_METRIC_EXPORT_INTERVAL", "5000")];
    let arguments = ["--step-sample", "1", "--otlp-endpoint", &endpoint.url];
    let observation = Observation::start_with(stage.server.pid(), &arguments, &variables).unwrap();
    let client = ClientOptions {
        requests: REQUESTS,
        rate: Some(RATE),
        max_tokens: Range { min: 4, max: 16 },
        ..ClientOptions::new(stage.server.url())
    };
    endpoint.open();
    let records = load(&client).unwrap();
    let report = observation.stop().unwrap();
    Outcome {
        fault,
        traces: report.summary.loss.export["otlp.traces"].clone(),
        seen: endpoint.seen(),
        rss: report.summary.own.max_rss_bytes,
        client: Summary::of(&records),
    }
}

/// `produced = exported + dropped`, nothing is dropped but what the endpoint refused, and it saw what was exported, once.
fn check_account(outcome: &Outcome) {
    let Export { produced, exported, dropped, queued, .. } = &outcome.traces;
    let lost: u64 = dropped.values().sum();
    assert_eq!((*produced, *queued), (exported + lost, 0), "{outcome:?}");
    assert!(*produced > REQUESTS as u64, "{outcome:?}");
    assert_eq!(outcome.seen.repeated, 0, "{outcome:?}");
    assert_eq!(outcome.seen.taken, *exported, "{outcome:?}");
    let refused = BTreeMap::from([("refused".to_owned(), outcome.seen.refused)]);
    match outcome.fault {
        Fault::NoTls => assert_eq!((*exported, lost), (0, *produced), "{outcome:?}"),
        Fault::Partial => assert_eq!(dropped, &refused, "{outcome:?}"),
        _ => assert_eq!(lost, 0, "{outcome:?}"),
    }
    // Otherwise the case did not happen.
    match outcome.fault {
        Fault::Busy => assert!(outcome.seen.turned_away > 3 && outcome.seen.hurried == 0, "{outcome:?}"),
        Fault::Partial => assert!(outcome.seen.refused > 3, "{outcome:?}"),
        _ => {}
    }
}

/// Memory has a bound, and the server works as beside an endpoint without fault.
fn check_bystanders(outcome: &Outcome, well: &Outcome) {
    assert!(outcome.rss < well.rss + ROOM, "{outcome:?} {well:?}");
    assert_eq!(outcome.client.ok, REQUESTS, "{outcome:?}");
    assert!(outcome.client.elapsed_s < well.client.elapsed_s + 1.0, "{outcome:?} {well:?}");
    let gap = |outcome: &Outcome| outcome.client.itl_p50_ms.unwrap();
    assert!(gap(outcome) < gap(well) + SLACK_MS, "{outcome:?} {well:?}");
}
