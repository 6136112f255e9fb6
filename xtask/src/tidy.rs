//! `cargo xtask tidy`: rules that compilers and linters do not know.

use crate::demo::root;
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Checks the sources.
#[derive(clap::Args)]
pub struct Args {}

/// Lines of a file without its tests. A longer one is more than one room.
const MOST_LINES: usize = 450;

/// Folders whose code takes bytes and times and gives values: no I/O, no clock, no threads, nothing of aya.
const PURE: [&str; 7] = ["decode", "http", "h2", "server", "correlate", "span", "metric"];

/// What a pure module must not name.
const IMPURE: [&str; 9] = [
    "std::fs",
    "std::net",
    "std::thread",
    "std::time::Instant",
    "SystemTime",
    "tokio::",
    "aya::",
    "libc::",
    "std::process",
];

/// Runs the checks.
pub fn run(_: &Args) -> Result<()> {
    check()?;
    println!("tidy: ok");
    Ok(())
}

/// Every complaint, as one error.
pub fn check() -> Result<()> {
    let mut complaints = Vec::new();
    for path in tracked("*.rs")? {
        let text = std::fs::read_to_string(root().join(&path))?;
        complaints.extend(
            complaints_about(&path, &text).into_iter().map(|what| format!("{}: {what}", path.display())),
        );
    }
    ensure!(complaints.is_empty(), "tidy:\n  {}", complaints.join("\n  "));
    Ok(())
}

fn complaints_about(path: &Path, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if !text.starts_with("//!") {
        complaints.push("does not open with `//!`: what comes in, what goes out, what is absent".to_owned());
    }
    if let Some(line) = text.lines().position(|line| line.ends_with([' ', '\t'])) {
        complaints.push(format!("line {} ends with white space", line + 1));
    }
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let lines = code.lines().count();
    let is_test = path.components().any(|part| part.as_os_str() == "tests");
    if lines > MOST_LINES && !is_test {
        complaints.push(format!("{lines} lines without tests: more than one room"));
    }
    if is_pure(path) && !is_test && !path.ends_with("tests.rs") {
        let named =
            IMPURE.iter().filter(|word| code.lines().any(|line| !is_comment(line) && line.contains(**word)));
        complaints.extend(named.map(|word| format!("names `{word}`, but this folder is pure")));
    }
    complaints
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

fn is_pure(path: &Path) -> bool {
    PURE.iter().any(|folder| path.starts_with(Path::new("profiler/src").join(folder)))
}

/// Files that git tracks.
fn tracked(pattern: &str) -> Result<Vec<PathBuf>> {
    let output = Command::new("git").args(["ls-files", "--", pattern]).current_dir(root()).output()?;
    ensure!(output.status.success(), "`git ls-files` failed");
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().map(PathBuf::from).filter(|path| root().join(path).exists()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints() {
        let about = |path: &str, text: &str| complaints_about(Path::new(path), text).len();
        assert_eq!(about("profiler/src/clock.rs", "//! Clock.\nuse std::fs;\n"), 0);
        assert_eq!(about("profiler/src/decode/mod.rs", "//! Decode.\nuse std::fs;\n"), 1);
        assert_eq!(about("profiler/src/decode/mod.rs", "//! Decode.\n// not std::fs\n"), 0);
        assert_eq!(about("a.rs", "fn main() {}\n"), 1);
        assert_eq!(about("a.rs", "//! A. \n"), 1);
        assert_eq!(about("a.rs", &format!("//! A.\n{}", "x\n".repeat(MOST_LINES))), 1);
    }
}
