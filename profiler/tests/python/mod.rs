//! A Python environment with reference libraries, kept in the user's cache and shared by the tests that ask them.
//!
//! In: a name and pinned packages. Out: an interpreter that has them. Without a network and without the kept environment
//! there is no oracle; the tests then say so and pass.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn folder(name: &str) -> Result<PathBuf, String> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => std::env::home_dir().ok_or("no home directory")?.join(".cache"),
    };
    Ok(base.join("gpuspan").join(name))
}

/// Runs a command to its end; what it printed.
pub fn run(command: &mut Command) -> Result<Vec<u8>, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}: {}", output.status, said.lines().last().unwrap_or_default()))
}

/// The interpreter that has the packages, or nothing, and why on standard output.
pub fn interpreter(name: &str, packages: &[&str]) -> Option<PathBuf> {
    let made = make(name, packages);
    made.inspect_err(|reason| println!("skipped: no reference libraries: {reason}")).ok()
}

/// Made once; a stamp says of what.
fn make(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let folder = folder(name)?;
    let failed = |error: std::io::Error| format!("failed to prepare {}: {error}", folder.display());
    fs::create_dir_all(&folder).map_err(failed)?;
    // Tests run side by side, and so may builds.
    let lock = File::create(folder.join("lock")).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let (stamp, python) = (folder.join("made-of"), folder.join("venv/bin/python"));
    let wanted = packages.join(" ");
    if fs::read_to_string(&stamp).is_ok_and(|made_of| made_of == wanted) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(folder.join("venv")))?;
    run(Command::new(folder.join("venv/bin/pip")).args(["install", "--quiet"]).args(packages))?;
    fs::write(&stamp, wanted).map_err(failed)?;
    Ok(python)
}
