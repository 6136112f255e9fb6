//! `cargo xtask test`: runs the tests, counts what passed, failed and was skipped, and says so in one last line.
//!
//! A test that cannot run here prints `skipped: why` and returns; such lines are counted, never hidden. Tests that attach
//! for real measure times on a machine that others use, too: where a few of them fail they run a second time, alone, and
//! those that pass only then are named.

use crate::demo::root;
use crate::tidy;
use anyhow::{Context as _, Result, ensure};
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

/// Runs the tests.
#[derive(clap::Args)]
pub struct Args {
    /// Which tier; without one, what CI always runs.
    #[arg(value_enum)]
    tier: Option<Tier>,
    /// Of the tier `servers`: only tests with this in their name, such as `llama`, `transformers`, `protocols`, `nginx`.
    name: Option<String>,
}

/// Tiers beyond the one that always runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Tier {
    /// Real model servers, fetched and built outside the tree the first time.
    Servers,
}

/// What became of tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// Tests that failed, by name.
    failures: Vec<String>,
    /// Tests that passed only when they ran a second time.
    unsteady: Vec<String>,
}

/// Failures of a run that are tried a second time, at most: more are no accident.
const MOST_TRIED_AGAIN: usize = 5;

impl Tally {
    /// Takes a line of a test run's output.
    fn take(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += before(result, " passed");
            self.failed += before(result, " failed");
            self.skipped += before(result, " ignored");
        } else if said(line).starts_with("skipped: ") {
            // It returned early, so the harness counts it as passed.
            self.skipped += 1;
            self.passed = self.passed.saturating_sub(1);
        } else if let Some(name) = line.strip_prefix("    ").filter(|name| is_test_name(name)) {
            // The list at the end of a run; the one before it has what they printed.
            self.failures.push(name.to_owned());
        }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
        self.unsteady.extend(other.unsteady);
    }
}

/// Whether a line of the list of failures can be one: what tests print is indented otherwise, or has blanks.
fn is_test_name(line: &str) -> bool {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    !line.is_empty() && line.chars().all(is_of_name)
}

/// What a test printed: one at a time, the harness puts its first line behind the test's name.
fn said(line: &str) -> &str {
    match line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
        Some((_, said)) => said,
        None => line.trim_start(),
    }
}

/// The number before a word.
fn before(text: &str, word: &str) -> u64 {
    let number = text.split_once(word).map_or("", |(head, _)| head);
    number.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Runs what was asked for; fails when a test failed.
pub fn run(args: &Args) -> Result<()> {
    let mut tally = Tally::default();
    let ended_well = match args.tier {
        None => usual(&mut tally)?,
        Some(Tier::Servers) => servers(args.name.as_deref(), &mut tally)?,
    };
    for name in &tally.unsteady {
        println!("passed only at the second try: {name}");
    }
    println!("\n{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    ensure!(ended_well && tally.failed == 0, "tests failed");
    Ok(())
}

fn usual(tally: &mut Tally) -> Result<bool> {
    tidy::check()?;
    if let Err(error) = xtask::collector::path() {
        println!("the collector cannot be had, its test will be skipped: {error:#}");
    }
    let well = cargo_test(&["--workspace", "--exclude", "e2e"], &[], &[], tally)?;
    // What attaches shares the kernel and two cores: one at a time.
    Ok(attaching_test(&["--package", "e2e"], &["--test-threads=1"], &[], tally)? && well)
}

fn servers(name: Option<&str>, tally: &mut Tally) -> Result<bool> {
    let (targets, name): (&[&str], _) = match name {
        Some("protocols") => (&["--package", "e2e", "--test", "protocols"], None),
        Some("engines") => (&["--package", "e2e", "--test", "engines"], None),
        name => {
            (&["--package", "e2e", "--test", "servers", "--test", "protocols", "--test", "engines"], name)
        }
    };
    let arguments: Vec<&str> = name.into_iter().chain(["--test-threads=1"]).collect();
    attaching_test(targets, &arguments, &[("GPUSPAN_SERVERS", "1")], tally)
}

/// Runs tests that attach for real; what fails runs once more, if it is little.
fn attaching_test(
    what: &[&str],
    arguments: &[&str],
    environment: &[(&str, &str)],
    tally: &mut Tally,
) -> Result<bool> {
    let mut first = Tally::default();
    let well = cargo_test(what, arguments, environment, &mut first)?;
    let failures = std::mem::take(&mut first.failures);
    if well || failures.is_empty() || failures.len() > MOST_TRIED_AGAIN {
        first.failures = failures;
        tally.add(first);
        return Ok(well);
    }
    println!("\na second try, alone: {}\n", failures.join(", "));
    let mut again: Vec<&str> = failures.iter().map(String::as_str).collect();
    again.extend(["--exact", "--test-threads=1"]);
    let mut second = Tally::default();
    let well = cargo_test(what, &again, environment, &mut second)?;
    first.failed = second.failed;
    first.passed += second.passed;
    first.unsteady = failures.into_iter().filter(|name| !second.failures.contains(name)).collect();
    first.failures = second.failures;
    tally.add(first);
    Ok(well)
}

/// Runs `cargo test` and passes its output on, counting. False when it failed.
fn cargo_test(
    what: &[&str],
    arguments: &[&str],
    environment: &[(&str, &str)],
    tally: &mut Tally,
) -> Result<bool> {
    let mut child = workload::cargo()
        .arg("test")
        .args(what)
        .args(["--no-fail-fast", "--", "--nocapture"])
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(root())
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to start cargo test")?;
    let output = child.stdout.take().context("cargo test has no output")?;
    for line in BufReader::new(output).lines() {
        // Tests of hostile input may print bytes that are no text.
        let Ok(line) = line else { continue };
        println!("{line}");
        tally.take(&line);
    }
    Ok(child.wait()?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_skips_are_counted() {
        let mut tally = Tally::default();
        for line in [
            "test result: ok. 22 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.20s",
            "skipped: not root",
            "test one::of_many ... skipped: no collector",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
            "nothing of interest: 7 passed",
        ] {
            tally.take(line);
        }
        assert_eq!(tally, Tally { passed: 23, failed: 2, skipped: 3, ..Tally::default() });
    }

    #[test]
    fn failures_are_known_by_name() {
        let mut tally = Tally::default();
        for line in [
            "failures:",
            "---- one::of_many stdout ----",
            "failures:",
            "    one::of_many",
            "    another",
            "    at src/lib.rs:7",
            "  indented",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            tally.take(line);
        }
        assert_eq!(tally.failures, ["one::of_many", "another"]);
    }
}
