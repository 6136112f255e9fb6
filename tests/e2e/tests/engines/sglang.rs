//! SGLang: three processes that send each other its messages over libzmq (`tests/servers/sglang.py`), observed from
//! outside. The scheduler's own log is the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e::{Observation, Report};
use serde_json::Value;
use tempfile::TempDir;

#[path = "../../../../profiler/tests/python/mod.rs"]
pub mod environment;

/// What SGLang 0.5.23 is built on.
pub const PACKAGES: &[&str] = &["pyzmq==27.1.0", "msgspec==0.20.0"];
/// How long the profiler may take to read what is still in its ring, and to look at a load once more.
const SETTLE: Duration = Duration::from_millis(900);
/// How far a step's end may lie from the scheduler's own clock reading before it made its message.
const CLOSE_NS: u64 = 1_000_000;

/// The front end with the other two.
struct Server {
    child: Child,
    python: PathBuf,
    said: Value,
    folder: TempDir,
}

impl Server {
    /// Nothing where its libraries cannot be had. A `disguised` libzmq has another name, by which nobody knows it.
    fn start(options: &[&str], disguised: bool) -> Option<Self> {
        let python = environment::interpreter("sglang-wire", PACKAGES)?;
        let folder = TempDir::new().unwrap();
        let mut command = Command::new(&python);
        if disguised {
            disguise(&python, folder.path());
            command.env("PYTHONPATH", folder.path());
        }
        command.arg(program("sglang.py")).arg("--log").arg(folder.path().join("log")).args(options);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let said = serde_json::from_str(&first).unwrap();
        // Its children have connected when the first answer comes.
        let server = Self { child, python, said, folder };
        server.load("warm");
        Some(server)
    }

    /// Runs the client with a scenario; what it got.
    fn load(&self, scenario: &str) -> Vec<Value> {
        let mut client = Command::new(&self.python);
        client.arg(program("sglang_client.py")).arg(self.said["port"].to_string()).arg(scenario);
        lines(std::str::from_utf8(&environment::run(&mut client).unwrap()).unwrap())
    }

    fn log(&self) -> Vec<Value> {
        lines(&std::fs::read_to_string(self.folder.path().join("log")).unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: kill has no pointers, and the child has not been waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let _ = self.child.wait();
    }
}

/// Puts a copy of pyzmq into `folder` whose libzmq is called otherwise: the file, and the name by which it is asked for.
fn disguise(python: &Path, folder: &Path) {
    let code = "import zmq, os; print(os.path.dirname(os.path.dirname(zmq.__file__)))";
    let packages = environment::run(Command::new(python).args(["-c", code])).unwrap();
    let packages = PathBuf::from(std::str::from_utf8(&packages).unwrap().trim());
    for name in ["zmq", "pyzmq.libs"] {
        environment::run(Command::new("cp").arg("-r").arg(packages.join(name)).arg(folder)).unwrap();
    }
    let other = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let places: Vec<_> = bytes.windows(7).enumerate().filter(|(_, text)| text == b"libzmq-").collect();
        let places: Vec<usize> = places.into_iter().map(|(place, _)| place).collect();
        places.into_iter().for_each(|place| bytes[place..place + 7].copy_from_slice(b"libqmz-"));
        bytes
    };
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.contains(".so") {
                std::fs::write(&path, other(&std::fs::read(&path).unwrap())).unwrap();
                std::fs::rename(&path, path.with_file_name(name.replace("libzmq-", "libqmz-"))).unwrap();
            }
        }
    }
}

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../servers").join(name)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn number(line: &Value, name: &str) -> u64 {
    line[name].as_u64().unwrap_or_else(|| panic!("no {name} in {line}"))
}

/// What everybody saw of one load.
struct Observed {
    client: Vec<Value>,
    log: Vec<Value>,
    requests: Vec<Value>,
    steps: Vec<Value>,
    report: Report,
    /// Inner number → rid, by what requests were joined with.
    rids: BTreeMap<u64, String>,
}

fn observe(options: &[&str], scenario: &str, disguised: bool) -> Option<Observed> {
    e2e::program::gpuspan().unwrap();
    let server = Server::start(options, disguised)?;
    let observation = Observation::start(server.child.id(), &["--output", "json"]).unwrap();
    let begun = server.log().len();
    let client = server.load(scenario);
    std::thread::sleep(SETTLE);
    let report = observation.stop().unwrap();
    let log = server.log().split_off(begun);
    let told = lines(&report.stdout);
    let of = |kind: &str| told.iter().filter(|line| line["type"] == kind).cloned().collect::<Vec<_>>();
    let (requests, steps) = (of("request"), of("step"));
    let mut rids = BTreeMap::new();
    for request in requests.iter().filter(|request| request["engine"].is_object()) {
        for part in request["engine"]["parts"].as_array().unwrap() {
            rids.insert(number(part, "inner"), request["id"].as_str().unwrap_or_default().to_owned());
        }
    }
    Some(Observed { client, log, requests, steps, report, rids })
}

impl Observed {
    /// The adapter's account of itself.
    fn check_adapter(&self, schema: &str) {
        let engines = &self.report.summary.engines;
        let adapters = engines["adapters"].as_array().unwrap();
        let sglang = adapters.iter().find(|adapter| adapter["adapter"] == "sglang");
        let sglang = sglang.unwrap_or_else(|| panic!("no adapter: {engines}\n{}", self.report.stderr));
        assert_eq!((&sglang["state"], &sglang["schema"]), (&"ok".into(), &schema.into()), "{sglang}");
        assert_eq!(number(sglang, "failed"), 0, "{sglang}");
    }

    /// Every request that was answered is joined by its id, and its counts are the client's and the scheduler's.
    fn check_requests(&self) -> usize {
        let answered =
            self.client.iter().filter(|said| said["usage"].is_object() && said["path"] != "/v1/embeddings");
        let ends: BTreeMap<_, _> =
            self.log.iter().filter_map(|line| Some((line["end"].as_str()?, line))).collect();
        let mut count = 0;
        for said in answered {
            let id = said["id"].as_str().unwrap();
            let request = self.requests.iter().find(|request| request["id"] == id);
            let request = request.unwrap_or_else(|| panic!("{said} was not seen"));
            assert_eq!(request["engine"]["evidence"], "E0", "{request}");
            let part = &request["engine"]["parts"][0];
            let truth = ends[id];
            assert_eq!(
                number(part, "generated_tokens"),
                number(&said["usage"], "completion_tokens"),
                "{request}"
            );
            for (ours, theirs) in
                [("prompt_tokens", "prompt"), ("cached_tokens", "cached"), ("generated_tokens", "generated")]
            {
                assert_eq!(number(part, ours), number(truth, theirs), "{ours} of {request}");
            }
            assert_eq!(part["reason"], truth["reason"], "{request}");
            count += 1;
        }
        count
    }

    /// The scheduler's steps that made tokens: when they ended, and who was in them.
    fn made(&self) -> Vec<(u64, BTreeMap<String, String>)> {
        let steps = self.log.iter().filter(|line| line["step"].is_string());
        let members = |step: &Value| -> BTreeMap<String, String> {
            let made =
                step["members"].as_array().unwrap().iter().filter(|member| number(member, "generated") > 0);
            made.map(|one| {
                (one["rid"].as_str().unwrap().to_owned(), one["phase"].as_str().unwrap().to_owned())
            })
            .collect()
        };
        let steps = steps.map(|step| (number(step, "end_ns"), members(step)));
        steps.filter(|(_, members)| !members.is_empty()).collect()
    }

    fn members(&self, step: &Value) -> BTreeMap<String, String> {
        let members = step["members"].as_array().unwrap().iter();
        members
            .map(|one| {
                (
                    self.rids.get(&number(one, "inner")).cloned().unwrap_or_default(),
                    one["phase"].as_str().unwrap().to_owned(),
                )
            })
            .collect()
    }
}

/// All requests stream: every step is known with all of its members, and ends when the scheduler says.
fn check_streams(options: &[&str], schema: &str) -> Option<Observed> {
    let observed = observe(options, "streams", false)?;
    observed.check_adapter(schema);
    let requests = observed.check_requests();
    assert_eq!(requests, 10);
    let made = observed.made();
    assert_eq!(observed.steps.len(), made.len(), "steps");
    let mut late = Vec::new();
    for (step, (end_ns, truth)) in observed.steps.iter().zip(&made) {
        assert_eq!(&observed.members(step), truth, "{step}");
        late.push(number(step, "end_ns").saturating_sub(*end_ns));
        assert!(number(step, "end_ns") >= *end_ns);
    }
    late.sort_unstable();
    println!(
        "{requests} requests, {} steps, late by {} ns, at most {:?}",
        made.len(),
        late[late.len() / 2],
        late.last()
    );
    // On two cores that others use too, a few are preempted between their clock reading and their message.
    assert!(late[late.len() * 9 / 10] < CLOSE_NS, "{late:?}");
    let gauges = observed.report.summary.engines["gauges"].as_array().unwrap();
    assert!(
        gauges.iter().any(|gauge| gauge["running"].is_u64() && gauge["kv_usage"].is_number()),
        "{gauges:?}"
    );
    Some(observed)
}

#[test]
fn edge_33_streams_of_pickles() {
    e2e::or_skip!();
    let _ = check_streams(&["--rest"], "0.5.23 pickle");
}

#[test]
fn edge_33_streams_on_msgpack() {
    e2e::or_skip!();
    let _ = check_streams(&["--rest", "--msgpack"], "0.5.23 msgpack");
}

#[test]
fn edge_33_a_scheduler_that_spins_loses_its_receive_probes_and_nothing_else() {
    e2e::or_skip!();
    let Some(observed) = check_streams(&[], "0.5.23 pickle") else { return };
    let said = format!("{:?}", observed.report.summary.blind);
    assert!(said.contains("receives are not probed any more"), "{said}\n{}", observed.report.stderr);
}

#[test]
fn edge_33_mixed_load_has_exact_counts() {
    e2e::or_skip!();
    let Some(observed) = observe(&["--rest", "--metrics"], "mixed", false) else { return };
    observed.check_adapter("0.5.23 pickle");
    let requests = observed.check_requests();
    let made = observed.made();
    let all: BTreeMap<u64, BTreeSet<_>> =
        made.iter().map(|(end, members)| (*end, members.keys().collect())).collect();
    for step in &observed.steps {
        let (_, truth) = all.range(..=number(step, "end_ns")).next_back().unwrap();
        let said = observed.members(step);
        // Requests whose clients left have no response to be joined with, and embeddings generate nothing.
        let wrong: Vec<_> = said.keys().filter(|rid| !rid.is_empty() && !truth.contains(rid)).collect();
        let is_embedding = step["members"].as_array().unwrap().iter().all(|member| member["generated"] == 0);
        assert!(wrong.is_empty() || is_embedding, "{wrong:?} in {step}, not in {truth:?}");
    }
    println!("{requests} requests, {} steps told of {}", observed.steps.len(), made.len());
}

/// What a library that nobody knows sends is heard on the sockets that the processes accept.
#[test]
fn edge_26_frames_are_heard_on_sockets_where_no_library_is_probed() {
    e2e::or_skip!();
    let Some(observed) = observe(&["--rest"], "streams", true) else { return };
    let probed = observed.report.summary.coverage.iter().any(|library| library.library.contains("libzmq"));
    assert!(!probed, "the library is in disguise");
    observed.check_adapter("0.5.23 pickle");
    assert_eq!(observed.check_requests(), 10);
    let made = observed.made();
    assert_eq!(observed.steps.len(), made.len(), "steps");
    for (step, (_, truth)) in observed.steps.iter().zip(&made) {
        assert_eq!(&observed.members(step), truth, "{step}");
    }
    let connections = &observed.report.summary.connections;
    println!("{} steps, {connections:?}", made.len());
}
