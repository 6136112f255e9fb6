//! The reference libraries' process, which prints what it draws.
//!
//! In: a mode, a seed, a count. Out: JSON documents.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[path = "../python/mod.rs"]
mod environment;

/// Pinned: another version may judge otherwise.
const PACKAGES: [&str; 3] = ["h2==4.4.1", "hpack==4.2.0", "hyperframe==6.1.0"];

/// What the oracle prints; nothing without one.
pub fn ask(mode: &str, seed: u64, count: usize) -> Option<Vec<Value>> {
    let python = environment::interpreter("h2-oracle", &PACKAGES)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/h2_oracle/oracle.py");
    let numbers = [seed.to_string(), count.to_string()];
    let printed = environment::run(Command::new(python).arg(script).arg(mode).args(numbers)).unwrap();
    let lines: Vec<Value> =
        String::from_utf8(printed).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), count);
    Some(lines)
}
