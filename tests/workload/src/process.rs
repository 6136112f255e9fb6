//! A `workload-server` in a process of its own, for tests.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail, ensure};
use serde::Deserialize;

use crate::options::ServerOptions;

/// How long opening the libraries and capturing every graph may take on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long an orderly end may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// One build for all tests of a process, which run at the same time.
static BUILD: OnceLock<Result<(), String>> = OnceLock::new();

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    /// Kept open: a server whose standard output is closed could fail to write.
    stdout: Option<BufReader<ChildStdout>>,
    port: u16,
}

#[derive(Deserialize)]
struct Announcement {
    port: u16,
}

impl ServerProcess {
    /// Starts the server and waits until it listens. `environment` goes on top of this process's own; what
    /// `simgpu::command_env` gives puts the server on the stand-ins.
    ///
    /// # Errors
    /// When the binary cannot be had or started, and when it ends before it listens (its own message is on
    /// standard error).
    pub fn start(options: &ServerOptions, environment: &[(String, String)]) -> Result<Self> {
        let binary = server_binary()?;
        let mut child = Command::new(&binary)
            .args(options.to_args())
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {}", binary.display()))?;
        let stdout = child.stdout.take().context("the server has no standard output")?;
        // From here on the child is killed on every way out.
        let mut server = Self { child, stdout: None, port: 0 };
        let (stdout, line) = first_line(stdout)
            .with_context(|| format!("{} did not listen within {START_TIMEOUT:?}", binary.display()))?;
        if line.is_empty() {
            bail!("{} ended before it listened: {}", binary.display(), server.child.wait()?);
        }
        let announcement: Announcement =
            serde_json::from_str(&line).context("the server's first line is no JSON")?;
        server.stdout = Some(stdout);
        server.port = announcement.port;
        Ok(server)
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Port on the loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Base URL for the client.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Whether the process still runs.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Ends the server in order, so that the truth log gets its last line.
    ///
    /// # Errors
    /// When it ends with an error or not in time.
    pub fn stop(mut self) -> Result<()> {
        let pid = libc::pid_t::try_from(self.child.id())?;
        // SAFETY: a signal to our own child, which has not been waited for, so the id is still its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the server ended with {status}");
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the server (pid {pid}) did not end within {STOP_TIMEOUT:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Both fail only when the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the first line, but not for ever: a library may hang while it is opened.
fn first_line(stdout: ChildStdout) -> Result<(BufReader<ChildStdout>, String)> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        let read = stdout.read_line(&mut line);
        // Nobody listens any more when the time was over.
        let _ = sender.send(read.map(|_| (stdout, line)));
    });
    Ok(receiver.recv_timeout(START_TIMEOUT)??)
}

/// The server's binary: beside the running test's target folder, built when it is not there.
///
/// # Errors
/// When it has to be built and the build fails.
pub fn server_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("WORKLOAD_SERVER") {
        return Ok(path.into());
    }
    let test = std::env::current_exe()?;
    let profile = profile_folder(&test)?;
    let binary = profile.join("workload-server");
    // Cargo has built it for this crate's own tests. For those of other crates it may be missing or stale.
    let fresh = std::env::var("CARGO_PKG_NAME").is_ok_and(|running| running == env!("CARGO_PKG_NAME"));
    if !(fresh && binary.exists()) {
        BUILD
            .get_or_init(|| build(profile).map_err(|error| format!("{error:#}")))
            .clone()
            .map_err(Error::msg)?;
    }
    Ok(binary)
}

/// Cargo, as a shell would call it.
///
/// Cargo tells what it runs which package it belongs to. Some build scripts (that of ring 0.17) watch these variables,
/// so a build from a test and one from a shell would undo each other's work, minutes each time.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            command.env_remove(name);
        }
    }
    command
}

/// `target/debug` of `target/debug/deps/test-1234` or `target/debug/program`.
fn profile_folder(executable: &Path) -> Result<&Path> {
    let folder = executable.parent().context("the running executable has no folder")?;
    let folder = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    folder.context("the running executable lies outside a target folder")
}

fn build(profile: &Path) -> Result<()> {
    let target = profile.parent().context("the target folder has no parent")?;
    let mut command = cargo();
    command
        .args(["build", "--quiet", "--package", env!("CARGO_PKG_NAME"), "--bins", "--target-dir"])
        .arg(target);
    if profile.ends_with("release") {
        command.arg("--release");
    }
    let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().context("failed to run cargo")?;
    ensure!(status.success(), "building workload-server failed: {status}");
    Ok(())
}
