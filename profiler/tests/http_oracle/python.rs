//! The reference parsers' process: a Python environment that is kept in the user's cache, and a pipe to it.
//!
//! In: questions as JSON. Out: answers in their order. Without a network and without the kept environment there is no
//! oracle, and the tests say so and pass.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Pinned: another version may judge otherwise.
const PACKAGES: [&str; 3] = ["h11==0.16.0", "httptools==0.9.0", "brotli==1.2.1"];

fn folder() -> Result<PathBuf, String> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => std::env::home_dir().ok_or("no home directory")?.join(".cache"),
    };
    Ok(base.join("gpuspan/http-oracle"))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}: {}", output.status, said.lines().last().unwrap_or_default()))
}

/// The interpreter that has the packages. Made once; a stamp says of what.
fn interpreter() -> Result<PathBuf, String> {
    let folder = folder()?;
    let make = |error: std::io::Error| format!("failed to prepare {}: {error}", folder.display());
    fs::create_dir_all(&folder).map_err(make)?;
    // Tests run side by side, and so may builds.
    let lock = File::create(folder.join("lock")).map_err(make)?;
    lock.lock().map_err(make)?;
    let (stamp, python) = (folder.join("made-of"), folder.join("venv/bin/python"));
    let wanted = PACKAGES.join(" ");
    if fs::read_to_string(&stamp).is_ok_and(|made_of| made_of == wanted) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(folder.join("venv")))?;
    run(Command::new(folder.join("venv/bin/pip")).args(["install", "--quiet"]).args(PACKAGES))?;
    fs::write(&stamp, wanted).map_err(make)?;
    Ok(python)
}

/// Asks the oracle, or prints why it cannot be asked.
pub fn ask(questions: &[Value]) -> Option<Vec<Value>> {
    let python = match interpreter() {
        Ok(python) => python,
        Err(reason) => {
            println!("skipped: no reference parsers: {reason}");
            return None;
        }
    };
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
