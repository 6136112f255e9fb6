//! Triton: a library and a backend with the functions of its C interface (`tests/programs/triton`), which batch for real.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e::{Observation, Report};
use serde_json::Value;
use tempfile::TempDir;

use crate::lines::{Lines, is_close, members, part, post, truth};

/// How long the profiler may take to read what is still in its ring.
const SETTLE: Duration = Duration::from_millis(400);

/// A server; it ends with its standard input.
struct Server {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Server {
    /// Builds and starts it; says why where that cannot be done.
    fn start() -> Result<Self, String> {
        let folder = TempDir::new().unwrap();
        build(folder.path())?;
        let mut command = Command::new(folder.path().join("tritonserver"));
        command.arg(folder.path().join("libtriton_tiny.so"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(File::create(folder.path().join("truth")).unwrap());
        let mut child = command.spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Ok(Self { child, port: port.trim().parse().unwrap(), folder })
    }

    fn infer(&self, model: &str, id: &str) -> String {
        post(self.port, &format!("/v2/models/{model}/infer"), &format!(r#"{{"id":"{id}","tokens":0}}"#), None)
    }

    fn stream(&self, id: &str, tokens: u32) -> String {
        let body = format!(r#"{{"id":"{id}","tokens":{tokens}}}"#);
        post(self.port, "/v2/models/stream/generate_stream", &body, None)
    }

    /// Events of a kind in the truth.
    fn truth(&self, event: &str) -> Vec<Value> {
        let all = truth(&self.folder.path().join("truth"));
        all.into_iter().filter(|line| line["event"] == event).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // Whatever it answers, it is gone after that.
        let _ = self.child.wait();
    }
}

fn build(folder: &Path) -> Result<(), String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../programs/triton");
    let path = |name: &str| -> PathBuf { folder.join(name) };
    let here = format!("-L{}", folder.display());
    let run_path = format!("-Wl,-rpath,{}", folder.display());
    let library = &["-shared", "-fPIC"][..];
    for (source, output, kind, links) in [
        ("core.c", "libtritonserver.so", library, vec!["-ldl"]),
        ("backend.c", "libtriton_tiny.so", library, vec![&here, "-ltritonserver"]),
        ("main.c", "tritonserver", &[], vec![&here, "-ltritonserver", &run_path]),
    ] {
        let mut command = Command::new("cc");
        command.args(["-std=gnu17", "-O2", "-pthread", "-o"]).arg(path(output)).args(kind);
        command.arg(sources.join(source)).args(links);
        let done = command.output().map_err(|error| format!("no C compiler: {error}"))?;
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}

/// Ends a test early where there is no compiler.
macro_rules! server {
    () => {
        match Server::start() {
            Ok(server) => server,
            Err(reason) => {
                println!("skipped: {reason}");
                return;
            }
        }
    };
}

/// Observes what `work` does.
fn observe(server: &Server, work: impl FnOnce(&Server)) -> (Lines, Report) {
    let observation = Observation::start(server.child.id(), &["--output", "json"]).unwrap();
    work(server);
    std::thread::sleep(SETTLE);
    let report = observation.stop().unwrap();
    (Lines::read(&report.stdout), report)
}

/// The number inside of each request with an id.
fn inner(lines: &Lines, id: &str) -> u64 {
    part(lines.request(id)).0["inner"].as_u64().unwrap()
}

#[test]
fn edge_35_batches_have_their_members_and_requests_their_moments() {
    e2e::or_skip!();
    let server = server!();
    let (lines, report) = observe(&server, |server| {
        for round in 0..6 {
            std::thread::scope(|scope| {
                for client in 0..4 {
                    scope.spawn(move || server.infer("plain", &format!("r{round}-{client}")));
                }
            });
        }
    });
    let arrivals = server.truth("arrive");
    assert_eq!(arrivals.len(), 24);
    let executions = server.truth("execute");
    let instance = executions[0]["instance"].as_u64().unwrap();
    let steps = lines.steps_of(instance);
    assert_eq!(steps.len(), executions.len());
    for (step, execution) in steps.iter().zip(&executions) {
        let mut asked: Vec<u64> = execution["ids"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| inner(&lines, id.as_str().unwrap()))
            .collect();
        asked.sort_unstable();
        assert_eq!(members(step).into_keys().collect::<Vec<_>>(), asked, "{execution}");
        is_close("start of an execution", &step["start_ns"], &execution["start"]);
        is_close("end of an execution", &step["end_ns"], &execution["end"]);
        assert_eq!((&step["complete"], &step["failed"]), (&true.into(), &false.into()));
    }
    assert!(steps.iter().any(|step| members(step).len() > 1), "nothing was ever batched");
    for arrival in &arrivals {
        let id = arrival["id"].as_str().unwrap();
        let (part, evidence) = part(lines.request(id));
        assert_eq!(evidence, "E0", "{id}");
        is_close("arrival", &part["enqueued_ns"], &arrival["ns"]);
        let by = |event: &[Value]| {
            let holds = |line: &&Value| {
                line["id"] == id || line["ids"].as_array().is_some_and(|i| i.contains(&id.into()))
            };
            event.iter().find(holds).unwrap().clone()
        };
        is_close("execution", &part["scheduled_ns"], &by(&executions)["start"]);
        let statistics = by(&server.truth("statistics"));
        assert_eq!(part["prefilling_ns"], statistics["compute_start"], "the backend's own stamp");
        is_close("response", &part["ended_ns"], &by(&server.truth("response"))["ns"]);
    }
    let engines = &report.summary.engines;
    assert_eq!(engines["adapters"][0]["adapter"], "triton", "{engines}");
    assert_eq!(
        (&engines["adapters"][0]["state"], &engines["adapters"][0]["failed"]),
        (&"ok".into(), &0.into())
    );
    assert_eq!(report.summary.loss.lost, 0);
}

#[test]
fn edge_35_a_decoupled_model_has_a_token_for_each_response_with_outputs() {
    e2e::or_skip!();
    let server = server!();
    let asked: BTreeMap<String, u32> = (1..=8).map(|tokens| (format!("s{tokens}"), tokens)).collect();
    let (lines, _) = observe(&server, |server| {
        std::thread::scope(|scope| {
            for (id, tokens) in &asked {
                scope.spawn(move || server.stream(id, *tokens));
            }
        });
    });
    let responses = server.truth("response");
    for (id, tokens) in &asked {
        let (part, _) = part(lines.request(id));
        assert_eq!(part["generated_tokens"], *tokens, "{id}");
        let mine: Vec<&Value> =
            responses.iter().filter(|line| line["id"] == id.as_str() && line["filled"] == 1).collect();
        is_close("first token", &part["first_token_ns"], &mine[0]["ns"]);
        is_close("last token", &part["last_token_ns"], &mine[mine.len() - 1]["ns"]);
        assert!(part["ended_ns"].as_u64() >= part["last_token_ns"].as_u64());
    }
}

#[test]
fn no_connection_is_lost_where_threads_take_each_others_descriptors_over() {
    e2e::or_skip!();
    const CLIENTS: usize = 4;
    const ROUNDS: usize = 500;
    let server = server!();
    // Each request has a connection of its own, and the server a thread for each: one thread closes a descriptor while
    // another accepts on the number that became free.
    let (lines, _) = observe(&server, |server| {
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                scope.spawn(move || {
                    (0..ROUNDS).for_each(|round| drop(server.infer("plain", &format!("{client}-{round}"))));
                });
            }
        });
    });
    assert_eq!(lines.requests.len(), CLIENTS * ROUNDS);
    let mut ids: Vec<_> = lines.requests.iter().map(|request| request["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), CLIENTS * ROUNDS);
    assert!(lines.requests.iter().all(|request| request["outcome"] == "completed"));
}

#[test]
fn edge_35_warm_ups_ensembles_failures_and_pointers_that_come_again() {
    e2e::or_skip!();
    let server = server!();
    let (lines, report) = observe(&server, |server| {
        // One after the other: the next request has the last one's memory.
        for index in 0..5 {
            server.infer("plain", &format!("a{index}"));
            post(server.port, "/warm", "{}", None);
        }
        server.infer("both", "ensemble");
        server.infer("broken", "failing");
        server.infer("nowhere", "refused");
    });
    let inners: Vec<u64> = (0..5).map(|index| inner(&lines, &format!("a{index}"))).collect();
    assert!(inners.is_sorted() && inners.windows(2).all(|pair| pair[0] != pair[1]), "{inners:?}");
    // Five requests, five to warm up and two of the ensemble, each executed alone; the failure is another instance's.
    let steps: Vec<_> = lines.steps.iter().filter(|step| step["failed"] == false).collect();
    assert_eq!(steps.len(), 12);
    let strangers = steps.iter().filter(|step| !members(step).keys().any(|inner| inners.contains(inner)));
    assert_eq!(strangers.count(), 7);
    let failed: Vec<_> = lines.steps.iter().filter(|step| step["failed"] == true).collect();
    assert_eq!(failed.len(), 1);
    let failing = lines.requests.iter().find(|request| request["status"] == 500).unwrap();
    assert_eq!(part(failing).0["reason"], "error");
    assert!(members(failed[0]).contains_key(&part(failing).0["inner"].as_u64().unwrap()));
    let ensemble = part(lines.request("ensemble")).0;
    assert!(ensemble["enqueued_ns"].is_u64() && ensemble["scheduled_ns"].is_null(), "{ensemble}");
    assert!(ensemble["ended_ns"].is_u64());
    assert_eq!(report.summary.engines["adapters"][0]["failed"], 0);
}
