//! TGI: a router and two shards that speak `generate.v3` over unix sockets with grpcio (`tests/servers/tgi.py`).

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e::{Observation, Report, wait};
use serde_json::Value;
use tempfile::TempDir;
use xtask::server::parts;

use crate::lines::{Lines, members, part, post, truth};

/// How long the profiler may take to read what is still in its ring.
const SETTLE: Duration = Duration::from_millis(500);

/// Ends a test early, saying why, where packages are not to be fetched or nothing can be attached.
macro_rules! or_skip_servers {
    () => {
        if std::env::var_os("GPUSPAN_SERVERS").is_none() {
            println!("skipped: grpcio is fetched; `cargo xtask test servers engines` runs it");
            return;
        }
        e2e::or_skip!();
    };
}

/// The router with its shards.
struct Server {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Server {
    fn start() -> Self {
        let servers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../servers");
        let modules = parts::grpc_modules(&servers.join("generate.proto")).unwrap();
        let folder = TempDir::new().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(parts::python().unwrap());
        command.arg(servers.join("tgi.py")).arg(port.to_string()).arg(folder.path());
        command.env("PYTHONPATH", modules).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        let server = Self { child, port, folder };
        let listens = || Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
        wait::until("the router's listening", listens).unwrap();
        server
    }

    fn ask(&self, path: &str, tokens: u64, prompt: &str, stops: bool, pieces: Option<usize>) -> String {
        let stop = if stops { r#","stop":["x"]"# } else { "" };
        let body = format!(
            r#"{{"inputs":"{prompt}","parameters":{{"details":true,"max_new_tokens":{tokens}{stop}}}}}"#
        );
        post(self.port, path, &body, pieces)
    }

    fn truth(&self) -> Vec<Value> {
        truth(&self.folder.path().join("truth"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.child.id()));
        for shard in children.unwrap_or_default().split_whitespace().filter_map(|pid| pid.parse().ok()) {
            // SAFETY: kill has no pointers; the shards are children of our child, which has not been waited for.
            unsafe { libc::kill(shard, libc::SIGTERM) };
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn observe(server: &Server, work: impl FnOnce(&Server)) -> (Lines, Report) {
    let observation = Observation::start(server.child.id(), &["--output", "json"]).unwrap();
    work(server);
    std::thread::sleep(SETTLE);
    let report = observation.stop().unwrap();
    (Lines::read(&report.stdout), report)
}

/// The router's ids in the order in which it first asked for them: the adapter counts from 1 in the same order.
fn numbers(truth: &[Value]) -> BTreeMap<u64, u64> {
    let mut numbers = BTreeMap::new();
    for step in truth.iter().filter(|line| !line["step"].is_null()) {
        for id in step["ids"].as_array().unwrap() {
            let next = numbers.len() as u64 + 1;
            numbers.entry(id.as_u64().unwrap()).or_insert(next);
        }
    }
    numbers
}

/// Compares every step, the first included, which comes before anybody knows how many shards there are.
fn compare(lines: &Lines, truth: &[Value]) {
    let numbers = numbers(truth);
    let calls: Vec<_> = truth.iter().filter(|line| !line["step"].is_null()).collect();
    let steps = lines.steps_of(0);
    assert_eq!(steps.len(), calls.len(), "one step for each call of the router, whatever its shards");
    for (step, call) in steps.iter().zip(&calls) {
        let tokens = call["tokens"].as_object().unwrap();
        let expected: BTreeMap<u64, u64> = tokens
            .iter()
            .map(|(id, count)| (numbers[&id.parse().unwrap()], count.as_u64().unwrap()))
            .collect();
        assert_eq!(members(step), expected, "{call}");
        let time = |value: &Value| value.as_u64().unwrap();
        let (start, end) = (time(&step["start_ns"]), time(&step["end_ns"]));
        assert!(time(&call["start"]) <= start && start < end && end <= time(&call["end"]), "{step} {call}");
        assert!(end - start >= 3_000_000, "a forward pass takes 3 ms: {step}");
    }
}

#[test]
fn edge_36_steps_and_members_with_two_shards() {
    or_skip_servers!();
    let server = Server::start();
    let long = "x".repeat(40_000);
    let (lines, report) = observe(&server, |server| {
        std::thread::scope(|scope| {
            for index in 0..6_u64 {
                let prompt = if index % 3 == 0 { &long[..] } else { "short" };
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(7 * index));
                    let path = if index % 2 == 0 { "/generate" } else { "/generate_stream" };
                    server.ask(path, 6 + index, prompt, false, None);
                    server.ask(path, 20 + index, "again", false, None);
                });
            }
        });
        server.ask("/generate", 50, "stops", true, None);
    });
    let truth = server.truth();
    compare(&lines, &truth);
    let requests: Vec<_> = lines.requests.iter().filter(|line| line["engine"].is_object()).collect();
    assert_eq!(requests.len(), 13, "{:?}", lines.requests);
    // Each asked for a number of tokens of its own, so that one that is joined to another shows.
    let mut counts: Vec<u64> =
        requests.iter().map(|request| part(request).0["generated_tokens"].as_u64().unwrap()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [5, 6, 7, 8, 9, 10, 11, 20, 21, 22, 23, 24, 25]);
    for request in &requests {
        let (part, evidence) = part(request);
        assert_eq!(request["output_tokens"], part["generated_tokens"], "{request}");
        assert!(["E2", "E3"].contains(&evidence), "no id goes through: {evidence}");
        let reason = if part["generated_tokens"] == 5 { "stop" } else { "length" };
        assert_eq!(part["reason"], reason);
    }
    let adapter = &report.summary.engines["adapters"][0];
    assert_eq!((&adapter["adapter"], &adapter["failed"]), (&"tgi".into(), &0.into()), "{adapter}");
}

#[test]
fn edge_36_a_client_that_leaves_is_filtered_out() {
    or_skip_servers!();
    let server = Server::start();
    let (lines, _) = observe(&server, |server| {
        std::thread::scope(|scope| {
            scope.spawn(|| server.ask("/generate_stream", 200, "leaves", false, Some(5)));
            scope.spawn(|| server.ask("/generate_stream", 60, "stays", false, None));
        });
    });
    let truth = server.truth();
    compare(&lines, &truth);
    let left = truth.iter().find(|line| line["reason"] == "abort").unwrap();
    assert!(left["left"].is_u64());
    let aborted = lines.requests.iter().find(|request| request["outcome"] == "aborted").unwrap();
    assert_eq!(part(aborted).0["reason"], "abort");
    let stayed = lines.requests.iter().find(|request| request["output_tokens"] == 60).unwrap();
    assert_eq!(part(stayed).0["reason"], "length");
}

#[test]
fn edge_36_calls_whose_names_went_by_before_the_attach_are_not_guessed() {
    or_skip_servers!();
    let server = Server::start();
    // Afterwards the paths of these calls are numbers in a table that nobody saw being filled.
    server.ask("/generate", 4, "before", false, None);
    let (lines, report) = observe(&server, |server| {
        server.ask("/generate", 7, "after", false, None);
    });
    assert_eq!(lines.steps.len(), 0);
    let request = lines.requests.iter().find(|request| request["output_tokens"] == 7).unwrap();
    assert!(request["engine"].is_null());
    assert_eq!(report.summary.engines["joined"].as_object().map_or(0, serde_json::Map::len), 0);
}
