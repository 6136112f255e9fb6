//! `cargo xtask fuzz`: the profiler's property tests, over and over with new random input, for a given time.
//!
//! In: every test inside a `proptest!` block of `profiler`. Out: how many rounds of each ran, how long, and the input
//! of a failure as proptest shrank it. Absent: coverage guidance and a corpus; a failure that is found becomes a test.

use crate::demo::root;
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs the property tests of the profiler for a while; nightly, or by hand after a change to a parser.
#[derive(clap::Args)]
pub struct Args {
    /// How long in all, in seconds; a test that has begun is finished.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Cases of a test in one round (`PROPTEST_CASES`). A test that fixes its number itself runs that many.
    #[arg(long, default_value_t = 65_536)]
    cases: u32,
    /// Only tests whose path contains this.
    filter: Option<String>,
}

/// The package whose parsers take what strangers wrote.
const PACKAGE: &str = "profiler";

/// Runs rounds until the time is over; fails with the first failure.
pub fn run(args: &Args) -> Result<()> {
    let mut tests = property_tests(args.filter.as_deref())?;
    ensure!(!tests.is_empty(), "no property test of {PACKAGE} matches");
    let deadline = Instant::now() + Duration::from_secs(args.seconds);
    'rounds: loop {
        for test in &mut tests {
            if Instant::now() >= deadline {
                break 'rounds;
            }
            test.round(args.cases)?;
        }
    }
    report(&tests, args.cases);
    Ok(())
}

/// A test and what became of it.
#[derive(Debug)]
struct Test {
    /// The test binary that has it: the library's own, or one below `tests`.
    binary: PathBuf,
    path: String,
    rounds: u64,
    time: Duration,
}

impl Test {
    /// A process of its own, so that each round draws a new seed and a crash ends only itself.
    fn round(&mut self, cases: u32) -> Result<()> {
        let started = Instant::now();
        let output = Command::new(&self.binary)
            .args(["--exact", &self.path, "--nocapture", "--test-threads=1"])
            .env("PROPTEST_CASES", cases.to_string())
            .current_dir(root().join(PACKAGE))
            .output()
            .with_context(|| format!("failed to start {}", self.binary.display()))?;
        self.time += started.elapsed();
        self.rounds += 1;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            bail!("{} failed:\n{}", self.path, String::from_utf8_lossy(&said));
        }
        Ok(())
    }
}

fn report(tests: &[Test], cases: u32) {
    println!("| property | rounds of {cases} cases | time |\n|---|---|---|");
    for Test { path, rounds, time, .. } in tests {
        println!("| `{path}` | {rounds} | {:.1} s |", time.as_secs_f64());
    }
    let idle = tests.iter().filter(|test| test.rounds == 0).count();
    println!("\n{} properties, none failed; {idle} had no time to run", tests.len());
}

/// Builds the package's tests and says where they are.
fn test_binaries() -> Result<Vec<PathBuf>> {
    let output = workload::cargo()
        .args(["test", "--package", PACKAGE, "--no-run", "--message-format=json"])
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .context("failed to start cargo test")?;
    ensure!(output.status.success(), "the tests of {PACKAGE} do not build");
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_test = |message: &Value| message.pointer("/profile/test").and_then(Value::as_bool) == Some(true);
    let executable = |message: Value| Some(PathBuf::from(message.get("executable")?.as_str()?));
    Ok(messages.filter(is_test).filter_map(executable).collect())
}

/// Those tests that some `proptest!` block defines.
fn property_tests(filter: Option<&str>) -> Result<Vec<Test>> {
    let mut properties = BTreeSet::new();
    let sources = Command::new("git").args(["ls-files", "--", PACKAGE]).current_dir(root()).output()?;
    for path in String::from_utf8_lossy(&sources.stdout).lines().filter(|path| path.ends_with(".rs")) {
        properties.extend(properties_in(&std::fs::read_to_string(root().join(path)).unwrap_or_default()));
    }
    let mut tests = Vec::new();
    for binary in test_binaries()? {
        let wanted = listed(&binary)?.into_iter().filter(|path| {
            let name = path.rsplit("::").next().unwrap_or(path);
            properties.contains(name) && filter.is_none_or(|filter| path.contains(filter))
        });
        tests.extend(wanted.map(|path| Test {
            binary: binary.clone(),
            path,
            rounds: 0,
            time: Duration::ZERO,
        }));
    }
    Ok(tests)
}

/// Every test of a binary.
fn listed(binary: &Path) -> Result<Vec<String>> {
    let list = Command::new(binary).args(["--list", "--format=terse"]).output()?;
    let text = String::from_utf8_lossy(&list.stdout);
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// The functions marked as tests inside `proptest! { … }`, by the indentation that rustfmt gives such a block.
fn properties_in(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut end: Option<String> = None;
    for line in source.lines() {
        let indent: String = line.chars().take_while(|c| *c == ' ').collect();
        match &end {
            None if line.trim_start().starts_with("proptest! {") => end = Some(indent + "}"),
            Some(closing) if line == closing => end = None,
            Some(_) => found.extend(function(line.trim_start())),
            None => {}
        }
    }
    found
}

/// The name in `fn name(…`.
fn function(line: &str) -> Option<String> {
    let (name, _) = line.strip_prefix("fn ")?.split_once('(')?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_property_blocks_are_found_and_no_others() {
        let source = "fn helper() {}\nproptest! {\n    #![proptest_config(x)]\n\n    #[test]\n    fn one(a in 0..5) {\n        body();\n    }\n}\nfn after(x: u8) {}\nmod m {\n    proptest! {\n        #[test]\n        fn two(b in any::<u8>()) {}\n    }\n    fn three(y: u8) {}\n}\n";
        assert_eq!(properties_in(source), ["one", "two"]);
    }
}
