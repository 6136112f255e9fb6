//! The shipped gateway under the load of many agents: nothing is lost but counted, and what a request costs in bytes.
//!
//! Agents are simulated by what `gpuspan replay` makes of a kept recording, sent again and again under identities of
//! their own; beside them a few real replays. A second collector stands for Tempo and Prometheus and counts what arrives.
//! Quick by default; `cargo xtask scale` runs it for five minutes with 200 agents and prints the figures of docs/scale.md.
//!
//! Absent: tail sampling and balancing, whose components are not in Debian's libraries of the collector.

mod agent;
pub mod batch;
mod gateway;

use std::process::Command;
use std::time::{Duration, Instant};

use agent::{Agent, Tally};
use batch::Recorded;
use e2e::program;
use gateway::Gateway;

use crate::deploy;

/// How often each agent sends, as exporters do whose queue has something.
const INTERVAL: Duration = Duration::from_secs(2);
/// How often each agent sends its metrics, in intervals: every ten seconds.
const METRICS_EVERY: u32 = 5;
const RECORDINGS: [&str; 2] = ["workload", "llama"];

/// A number from the environment.
fn setting(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn the_gateway_loses_nothing_uncounted() {
    let collector = match xtask::collector::path() {
        Ok(path) => path,
        Err(error) => {
            println!("skipped: {error:#}");
            return;
        }
    };
    let agents = setting("GPUSPAN_SCALE_AGENTS", 40);
    let seconds = setting("GPUSPAN_SCALE_SECONDS", 5);
    let recorded: Vec<Recorded> = RECORDINGS.iter().map(|name| Recorded::replay(name)).collect();
    for (name, recorded) in RECORDINGS.iter().zip(&recorded) {
        println!("{name}: {}", recorded.figures());
    }
    let gateway = Gateway::start(&collector, &deploy().join("collector/gateway.yaml"));

    let start = Instant::now();
    let end = start + Duration::from_secs(seconds.into());
    let (mut sent, replays) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..agents)
            .map(|number| {
                let recorded = &recorded[number as usize % recorded.len()];
                let port = gateway.http;
                // Spread over the interval, as agents on many machines are.
                let first = start + INTERVAL * number / agents;
                scope.spawn(move || Agent::new(number, port, recorded).run(first, end))
            })
            .collect();
        let replays = real_replays(gateway.http, end.min(start + Duration::from_secs(10)));
        let tallies = threads.into_iter().map(|thread| thread.join().unwrap());
        (tallies.fold(Tally::default(), Tally::plus), replays)
    });
    let busy = gateway.cpu_seconds();
    let took = start.elapsed().as_secs_f64();
    sent.spans += replays.0;
    sent.requests += replays.1;
    let account = gateway.drained(sent.spans - sent.refused_spans);
    println!(
        "{agents} agents for {took:.0} s: {:.0} requests/s, {:.0} spans/s, {:.0} points/s, {:.2} MB/s in; refused {} spans, \
         {} points\n  gateway: {:.0} % of a core, {} MiB at most; {account:?}",
        sent.requests as f64 / took,
        sent.spans as f64 / took,
        sent.points as f64 / took,
        sent.bytes as f64 / took / 1e6,
        sent.refused_spans,
        sent.refused_points,
        100.0 * busy / took,
        gateway.most_memory_mib(),
    );
    assert!(sent.requests > u64::from(agents), "{sent:?}");
    // Agents know what was refused; the rest is the gateway's.
    assert_eq!(account.accepted_spans, sent.spans - sent.refused_spans);
    assert_eq!(account.accepted_spans, account.passed_on_spans + account.failed_spans);
    assert_eq!(account.passed_on_spans, account.arrived_spans);
    assert_eq!(account.accepted_points, account.passed_on_points + account.failed_points);
    assert_eq!(account.passed_on_points, account.arrived_points);
    assert!(account.accepted_points >= sent.points - sent.refused_points && sent.points > 0);
    if seconds <= 10 {
        // So little is no load: nothing at all may be missing.
        assert_eq!((sent.refused_spans, account.failed_spans, account.failed_points), (0, 0, 0));
    }
}

/// Real replays, one after another until `end`; their spans and requests.
fn real_replays(port: u16, end: Instant) -> (u64, u64) {
    let mut sums = (0, 0);
    for round in 0.. {
        for name in RECORDINGS {
            if Instant::now() >= end && round > 0 {
                return sums;
            }
            let mut command: Command = program::command().unwrap();
            command.args([
                "replay",
                "--output",
                "none",
                "--otlp-endpoint",
                &format!("http://127.0.0.1:{port}"),
            ]);
            command.arg(batch::recording(name));
            command.env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
            command.env("OTEL_RESOURCE_ATTRIBUTES", format!("host.name=replayed-{round}"));
            let ended = program::run_command(&mut command).unwrap();
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
            let recorded = Recorded::replay(name);
            sums = (sums.0 + recorded.spans, sums.1 + recorded.requests);
        }
    }
    sums
}
