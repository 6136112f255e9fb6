//! The program that speaks as SGLang does, with a client, and everything that went between its processes.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

#[path = "../python/mod.rs"]
mod environment;

/// What SGLang 0.5.23 is built on.
const PACKAGES: &[&str] = &["pyzmq==27.1.0", "msgspec==0.20.0"];

/// A frame that a process sent or received.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub time_ns: u64,
    pub pid: u32,
    pub tid: u32,
    pub sent: bool,
    pub socket: u64,
    pub bytes: Vec<u8>,
}

/// One run: its frames in the order of their times, what the scheduler did, and what the client got.
pub struct Run {
    pub scheduler: u32,
    pub frames: Vec<Recorded>,
    pub log: Vec<Value>,
    pub client: Vec<Value>,
    /// The load snapshot as it stood at the end.
    pub snapshot: Vec<u8>,
}

/// Ends the server, which ends the other two and takes its files away.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/servers").join(name)
}

/// Runs the server with options and a client with a scenario; nothing without their libraries.
pub fn run(scenario: &str, options: &[&str]) -> Option<Run> {
    let python = environment::interpreter("sglang-wire", PACKAGES)?;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = Command::new(&python);
    command.arg(program("sglang.py")).arg("--log").arg(&log).arg("--rest").args(options);
    command.env("RECORD", folder.path().join("frames")).stdout(Stdio::piped());
    let mut server = Server(command.spawn().unwrap());
    let mut first = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let said: Value = serde_json::from_str(&first).unwrap();
    let mut client = Command::new(&python);
    client.arg(program("sglang_client.py")).arg(said["port"].to_string()).arg(scenario);
    let client = lines(std::str::from_utf8(&environment::run(&mut client).unwrap()).unwrap());
    // What clients left behind is cleared away at the next step, and an idle scheduler says so.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let snapshot = std::fs::read(said["snapshot"].as_str().unwrap()).unwrap();
    drop(server);
    let log = lines(&std::fs::read_to_string(log).unwrap());
    let scheduler = said["scheduler"].as_u64().unwrap() as u32;
    Some(Run { scheduler, frames: frames(folder.path()), log, client, snapshot })
}

/// Lines of JSON; the last one may have been cut by the end of its writer.
fn lines(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn frames(folder: &Path) -> Vec<Recorded> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let records = paths.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("frames."));
    let mut frames: Vec<_> = records
        .flat_map(|path| lines(&std::fs::read_to_string(path).unwrap()))
        .map(|line| frame(&line))
        .collect();
    frames.sort_by_key(|frame| frame.time_ns);
    frames
}

fn frame(line: &Value) -> Recorded {
    let number = |name: &str| line[name].as_u64().unwrap();
    let hex = line["bytes"].as_str().unwrap();
    let bytes =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let (pid, tid) = (number("pid") as u32, number("tid") as u32);
    Recorded {
        time_ns: number("time_ns"),
        pid,
        tid,
        sent: line["sent"] == true,
        socket: number("socket"),
        bytes,
    }
}
