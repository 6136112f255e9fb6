//! The reference libraries' process: a Python environment that is kept in the user's cache, and what it prints.
//!
//! In: a mode, a seed, a count. Out: JSON documents. Without a network and without the kept environment there is no
//! oracle, and the tests say so and pass.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Pinned: another version may judge otherwise.
const PACKAGES: [&str; 3] = ["h2==4.4.1", "hpack==4.2.0", "hyperframe==6.1.0"];

fn folder() -> Result<PathBuf, String> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => std::env::home_dir().ok_or("no home directory")?.join(".cache"),
    };
    Ok(base.join("gpuspan/h2-oracle"))
}

fn run(command: &mut Command) -> Result<Vec<u8>, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
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

/// What the oracle prints, or nothing, and why on standard output, if there is none.
pub fn ask(mode: &str, seed: u64, count: usize) -> Option<Vec<Value>> {
    let python = match interpreter() {
        Ok(python) => python,
        Err(reason) => {
            println!("skipped: no reference libraries: {reason}");
            return None;
        }
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/h2_oracle/oracle.py");
    let numbers = [seed.to_string(), count.to_string()];
    let printed = run(Command::new(python).arg(script).arg(mode).args(numbers)).unwrap();
    let lines: Vec<Value> =
        String::from_utf8(printed).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), count);
    Some(lines)
}
