//! The program that makes an exactly known number of calls (`tests/programs/calls`), led step by step.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use simgpu::{Environment, Runtime, command_env};

use crate::summary::{Copies, Memory};
use crate::wait;

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Calls {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

/// What the program says it did.
#[derive(Clone, Debug, Deserialize)]
pub struct Made {
    /// Who made the calls.
    pub pid: u32,
    /// Every call by name, those of its preparation included.
    pub calls: BTreeMap<String, u64>,
    /// What it did after the wait before `start`; programs that only launch leave it out.
    #[serde(default)]
    pub after: After,
}

/// What the program did after its preparation, and what that should have done, worked out from its arguments alone.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct After {
    /// Every call by name.
    pub calls: BTreeMap<String, u64>,
    /// What was asked for.
    pub asked: Work,
    /// What was asked for by calls that succeeded.
    pub done: Work,
    /// What the replays of its own graphs ran.
    pub graph_nodes: GraphNodes,
    /// By device number, and `managed`, `pinned`, `registered`, `reserved`, `arrays`.
    pub memory: BTreeMap<String, Memory>,
    /// Operations by name, with their bytes.
    pub collectives: BTreeMap<String, Copies>,
    /// Calls that failed.
    pub failures: Vec<Failure>,
}

/// Work for the device. Copies by direction; those inside graphs are [`GraphNodes`].
#[derive(Clone, Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the program")]
pub struct Work {
    pub launches: u64,
    pub captured: u64,
    pub host_functions: u64,
    pub graph_launches: u64,
    /// Of these, launches of graphs from before the wait.
    pub unknown_graphs: u64,
    pub copies: BTreeMap<String, Copies>,
    pub sets: Copies,
}

/// Nodes that ran, all replays together.
#[derive(Clone, Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the program")]
pub struct GraphNodes {
    pub kernels: u64,
    pub host_functions: u64,
    pub copies: BTreeMap<String, Copies>,
    pub sets: Copies,
}

/// Calls of one function that failed in one way.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the program")]
pub struct Failure {
    pub name: String,
    pub code: i64,
    pub count: u64,
}

/// The APIs that the program knows, each with its group.
///
/// # Errors
/// When it cannot be run.
pub fn known() -> Result<Vec<(String, String)>> {
    let output = Command::new(simgpu::calls_program()).arg("--list").output()?;
    let listed = String::from_utf8(output.stdout)?;
    let pairs = listed.lines().filter_map(|line| line.split_once(" @"));
    Ok(pairs.map(|(name, group)| (name.to_owned(), group.to_owned())).collect())
}

#[derive(Deserialize)]
struct Waiting {
    waiting: String,
    pid: u32,
}

/// A command for the program on the stand-ins, whose truth goes to `log`.
#[must_use]
pub fn command(runtime: Runtime, log: &Path) -> Command {
    command_on(runtime, &Environment { log_dir: Some(log.to_owned()), ..Environment::default() })
}

/// A command for the program on stand-ins with these settings.
#[must_use]
pub fn command_on(runtime: Runtime, settings: &Environment) -> Command {
    let mut command = Command::new(simgpu::calls_program());
    command.envs(command_env(runtime, settings));
    command
}

impl Calls {
    /// Starts the program; `arguments` should hold `--wait-stdin`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command, arguments: &[&str]) -> Result<Self> {
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("failed to start {command:?}"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the program has no standard output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // Ends with the program, or with the test that listens.
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Ok(Self { child, stdin, lines })
    }

    /// Process id of what was started.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the program waits before `what`: `exec`, `fork`, `load`, `loaded`, `start` or `end`. Returns who waits.
    ///
    /// # Errors
    /// When it does anything else.
    pub fn waits_before(&self, what: &str) -> Result<u32> {
        let line = self.line()?;
        let waiting: Waiting =
            serde_json::from_str(&line).with_context(|| format!("not waiting for {what}: {line}"))?;
        ensure!(waiting.waiting == what, "the program waits for {}, not for {what}", waiting.waiting);
        Ok(waiting.pid)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn go_on(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the program has no standard input")?;
        stdin.write_all(b"\n").context("the program does not listen")
    }

    /// Waits until the calls are made.
    ///
    /// # Errors
    /// When it does anything else.
    pub fn made(&self) -> Result<Made> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("no counts: {line}"))
    }

    /// Lets it make its calls, which it must be waiting for, and waits until it waits before its end.
    ///
    /// # Errors
    /// When it does anything else.
    pub fn make(&mut self) -> Result<Made> {
        self.go_on()?;
        let made = self.made()?;
        self.waits_before("end")?;
        Ok(made)
    }

    /// Lets it end, and checks that it ends well.
    ///
    /// # Errors
    /// When it does not.
    pub fn end(mut self) -> Result<()> {
        self.go_on()?;
        let child = &mut self.child;
        let status = wait::until("the program's end", || Ok(child.try_wait()?))?;
        ensure!(status.success(), "the program ended with {status}");
        Ok(())
    }

    fn line(&self) -> Result<String> {
        self.lines.recv_timeout(wait::PATIENCE).context("the program said nothing")
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        // Both fail only when the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
