//! The lines of `--output json`: requests with what their engine said of them, and steps. And a small client.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;

use serde_json::Value;

/// Everything that an observation printed.
pub struct Lines {
    pub requests: Vec<Value>,
    pub steps: Vec<Value>,
}

impl Lines {
    pub fn read(stdout: &str) -> Self {
        let lines: Vec<Value> = stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).cloned().collect();
        Self { requests: of("request"), steps: of("step") }
    }

    /// The request whose response had this id.
    pub fn request(&self, id: &str) -> &Value {
        let request = self.requests.iter().find(|request| request["id"] == id);
        request.unwrap_or_else(|| panic!("no request {id}"))
    }

    /// Steps of an engine in the order of their ends.
    pub fn steps_of(&self, engine: u64) -> Vec<&Value> {
        let mut steps: Vec<_> = self.steps.iter().filter(|step| step["engine"] == engine).collect();
        steps.sort_by_key(|step| step["end_ns"].as_u64());
        steps
    }
}

/// The only part of a request inside, and what it was joined by.
pub fn part(request: &Value) -> (&Value, &str) {
    let engine = &request["engine"];
    let parts = engine["parts"].as_array().unwrap_or_else(|| panic!("nothing was said of {request}"));
    assert_eq!(parts.len(), 1, "{engine}");
    (&parts[0], engine["evidence"].as_str().unwrap())
}

/// inner → generated, of a step.
pub fn members(step: &Value) -> BTreeMap<u64, u64> {
    let member = |member: &Value| (member["inner"].as_u64().unwrap(), member["generated"].as_u64().unwrap());
    step["members"].as_array().unwrap().iter().map(member).collect()
}

/// The truth that a program wrote, line by line.
pub fn truth(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Whether a moment is the true one, within a millisecond.
#[track_caller]
pub fn is_close(what: &str, told: &Value, truth: &Value) {
    let (told, truth) = (told.as_u64().unwrap_or_default(), truth.as_u64().unwrap());
    assert!(told.abs_diff(truth) < 1_000_000, "{what}: told {told}, was {truth}");
}

/// Asks on a connection of its own and reads to the end of the answer; of a stream with `pieces` only so many.
pub fn post(port: u16, path: &str, body: &str, pieces: Option<usize>) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut text = String::new();
    let mut bytes = [0; 4096];
    loop {
        let count = stream.read(&mut bytes).unwrap();
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        let enough = pieces.is_some_and(|pieces| text.matches("data:").count() >= pieces);
        if count == 0 || is_whole(&text) || enough {
            return text;
        }
    }
}

fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:").map(str::to_owned));
    match length.and_then(|length| length.trim().parse().ok()) {
        Some(length) => body.len() >= length,
        None => body.ends_with("0\r\n\r\n"),
    }
}
