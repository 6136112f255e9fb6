//! Asks the reference.

use serde_json::Value;

#[path = "../python/mod.rs"]
mod environment;

use std::process::Command;

/// What CPython 3.11 to 3.14 can install; the names stand in the messages that the tests compare.
const PACKAGES: &[&str] = &["msgspec==0.20.0", "numpy==2.3.5"];

/// Pickles of a kind, and what they say by Python's own account; nothing without the reference.
pub fn ask(kind: &str, seed: u64, count: usize) -> Option<Vec<Value>> {
    let python = environment::interpreter("pickle-oracle", PACKAGES)?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pickle_oracle/oracle.py");
    let arguments = [kind.to_owned(), seed.to_string(), count.to_string()];
    let output = environment::run(Command::new(python).arg(script).args(arguments)).unwrap();
    let lines = String::from_utf8(output).unwrap();
    Some(lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}
