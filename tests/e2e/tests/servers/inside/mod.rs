//! Real engines, asked in every way that makes a difference inside: what gpuspan says of their queues, steps and tokens is
//! compared with what the client saw, with the engine's own statistics and with its own log. Counts are equal, not
//! close; times that the engine stamps are the engine's within a millisecond.

mod account;
mod agree;
mod llama;
mod own;
mod plan;
mod record;
mod transformers;
mod vllm;

use std::time::Duration;

use account::Account;
use e2e::Observation;
use own::Metrics;
use plan::{Asked, Record};
use xtask::server::Running;

/// How long after the last answer an engine may still say something about it.
const SETTLE: Duration = Duration::from_millis(700);

/// What everybody said of the same window.
struct Window {
    plan: Vec<Asked>,
    records: Vec<Record>,
    account: Account,
    /// The metrics that were exported.
    told: e2e::Metrics,
    /// What the engine's counters gained; none where it has none.
    metrics: Option<Metrics>,
    /// What the server logged.
    log: String,
}

impl Window {
    /// Attaches, asks, and reads what was said.
    fn of(running: &mut Running, plan: impl FnOnce(&Running) -> Vec<Asked>, has_metrics: bool) -> Self {
        let plan = plan(running);
        let before = has_metrics.then(|| Metrics::of(running));
        let length = logged(running).len();
        let gpuspan = Observation::start(running.pid, &["--output", "json"]).unwrap();
        let records = plan::run(running, &plan);
        std::thread::sleep(SETTLE);
        let report = gpuspan.stop().unwrap();
        assert!(running.alive(), "the server ended under the profiler");
        let metrics = before.map(|before| Metrics::of(running).since(&before));
        let log = logged(running).split_off(length);
        let told = e2e::Metrics::last(&report.otlp).unwrap();
        Self { plan, records, told, account: Account::of(report), metrics, log }
    }

    /// Requests with what the client saw of each.
    fn asked(&self) -> impl Iterator<Item = (&Asked, &Record)> {
        self.plan.iter().zip(&self.records)
    }
}

fn logged(running: &Running) -> String {
    String::from_utf8_lossy(&std::fs::read(&running.log).unwrap()).into_owned()
}

/// Whether the tests of this tier run; says so where not.
fn asked_for(what: &str) -> bool {
    let asked = std::env::var_os("GPUSPAN_SERVERS").is_some();
    if !asked {
        println!("skipped: {what}: real servers are big; `cargo xtask test servers` runs them");
    }
    asked
}
