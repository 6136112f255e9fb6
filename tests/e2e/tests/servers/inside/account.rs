//! gpuspan's account of an engine, as `--output json` and `--summary` have it: the names that scripts rely on.

use std::collections::BTreeMap;

use e2e::Report;
use serde::Deserialize;

use super::plan::Record;

/// How long a request may take from the client's write to the server's read on a busy machine.
const ON_THE_WAY_NS: u64 = 100_000_000;

/// All of it.
#[derive(Debug)]
pub struct Account {
    pub requests: Vec<Request>,
    /// In the order of their ends.
    pub steps: Vec<Step>,
    pub engines: Engines,
    pub report: Report,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Request {
    pub id: Option<String>,
    pub status: Option<u16>,
    pub outcome: String,
    pub opened_ns: u64,
    pub arrived_ns: Option<u64>,
    pub ended_ns: u64,
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    pub time_to_first_token_s: Option<f64>,
    pub engine: Option<Engine>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Engine {
    pub adapter: String,
    pub schema: Option<String>,
    pub evidence: String,
    pub parts: Vec<Part>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Part {
    pub inner: u64,
    pub part: Option<u64>,
    pub enqueued_ns: Option<u64>,
    pub scheduled_ns: Option<u64>,
    pub prefilling_ns: Option<u64>,
    pub first_token_ns: Option<u64>,
    pub last_token_ns: Option<u64>,
    pub ended_ns: Option<u64>,
    pub reason: Option<String>,
    pub prompt_tokens: Option<u64>,
    pub cached_tokens: Option<u64>,
    pub generated_tokens: u64,
    pub steps: u64,
    pub preemptions: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Step {
    pub adapter: String,
    pub engine: u64,
    pub start_ns: Option<u64>,
    pub end_ns: u64,
    pub complete: bool,
    pub failed: bool,
    pub tokens: Option<u64>,
    pub members: Vec<Member>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Member {
    pub inner: u64,
    pub phase: String,
    pub computed: u64,
    pub generated: u64,
    pub evidence: String,
}

/// `engines` of the summary.
#[derive(Clone, Debug, Deserialize)]
pub struct Engines {
    pub adapters: Vec<Adapter>,
    pub steps: u64,
    pub members: u64,
    pub tokens: u64,
    pub gauges: Vec<Gauges>,
    pub joined: BTreeMap<String, u64>,
    pub unjoined: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Adapter {
    pub pids: Vec<u32>,
    pub adapter: String,
    pub schema: Option<String>,
    pub seen: u64,
    pub failed: u64,
    pub state: String,
    pub why: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Gauges {
    pub running: Option<u64>,
    pub waiting: Option<u64>,
    pub kv_usage: Option<f64>,
}

/// A line of `--output json`.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line {
    Request(Box<Request>),
    Step(Step),
}

impl Account {
    pub fn of(report: Report) -> Self {
        let (mut requests, mut steps) = (Vec::new(), Vec::new());
        for line in report.stdout.lines() {
            match serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")) {
                Line::Request(request) => requests.push(*request),
                Line::Step(step) => steps.push(step),
            }
        }
        steps.sort_by_key(|step: &Step| step.end_ns);
        let engines = serde_json::from_value(report.summary.engines.clone());
        let engines = engines.unwrap_or_else(|error| panic!("{error}: {}", report.summary.engines));
        Self { requests, steps, engines, report }
    }

    /// What it says of a request that the client made: by the id of the answer, or by its time where a client left
    /// before it had one.
    pub fn of_record(&self, record: &Record) -> &Request {
        let mut found = self.requests.iter().filter(|request| match &record.id {
            Some(id) => request.id.as_ref() == Some(id),
            None => request.id.is_none() && sent_then(record, request),
        });
        let request = found.next().unwrap_or_else(|| panic!("nothing is said of {record:#?}"));
        assert!(found.next().is_none(), "two requests are one: {record:#?}");
        request
    }

    /// The steps that a request was in and that did not fail.
    pub fn steps_of(&self, inner: u64) -> impl Iterator<Item = (&Step, &Member)> {
        let done = self.steps.iter().filter(|step| !step.failed);
        done.flat_map(move |step| {
            step.members.iter().filter(move |member| member.inner == inner).map(move |member| (step, member))
        })
    }

    /// All requests inside that were joined with one outside.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.requests.iter().filter_map(|request| request.engine.as_ref()).flat_map(|engine| &engine.parts)
    }
}

fn sent_then(record: &Record, request: &Request) -> bool {
    request.outcome == "aborted"
        && request.ended_ns.abs_diff(record.end_ns) < ON_THE_WAY_NS
        && request.opened_ns.abs_diff(record.sent_ns) < ON_THE_WAY_NS
}
