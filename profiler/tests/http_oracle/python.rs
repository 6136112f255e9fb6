//! The reference parsers' process, and a pipe to it.
//!
//! In: questions as JSON. Out: answers in their order.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

#[path = "../python/mod.rs"]
mod environment;

/// Pinned: another version may judge otherwise.
const PACKAGES: [&str; 3] = ["h11==0.16.0", "httptools==0.9.0", "brotli==1.2.1"];

/// Asks the oracle; nothing without one.
pub fn ask(questions: &[Value]) -> Option<Vec<Value>> {
    let python = environment::interpreter("http-oracle", &PACKAGES)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http_oracle/oracle.py");
    let mut child =
        Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines: String = questions.iter().map(|question| format!("{question}\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let answers: Vec<Value> = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    writer.join().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(answers.len(), questions.len());
    Some(answers)
}
