//! The gpuspan binary, and runs of it that end by themselves.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, ensure};

use crate::wait;

/// One build for all tests of a process.
static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// The binary under test: `$GPUSPAN`, or the one of the running test's target folder, brought up to date.
///
/// # Errors
/// When the build fails.
pub fn gpuspan() -> Result<PathBuf> {
    BUILT.get_or_init(|| find().map_err(|error| format!("{error:#}"))).clone().map_err(Error::msg)
}

fn find() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("GPUSPAN") {
        return Ok(path.into());
    }
    let test = std::env::current_exe()?;
    // target/debug of target/debug/deps/kernel-1234.
    let profile = test.parent().and_then(Path::parent).context("the test lies outside a target folder")?;
    build(profile)?;
    Ok(profile.join("gpuspan"))
}

fn build(profile: &Path) -> Result<()> {
    let target = profile.parent().context("the target folder has no parent")?;
    let mut command = workload::cargo();
    command.args(["build", "--quiet", "--package", "profiler", "--bin", "gpuspan", "--target-dir"]);
    command.arg(target).args(profile.ends_with("release").then_some("--release"));
    let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().context("failed to run cargo")?;
    ensure!(status.success(), "building gpuspan failed: {status}");
    Ok(())
}

/// A run that is over.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; none after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

/// Runs gpuspan to its end. What the environment says about OpenTelemetry and logging is left out.
///
/// # Errors
/// When it cannot be started, or does not end.
pub fn run(arguments: &[&str]) -> Result<Ended> {
    run_command(command()?.args(arguments))
}

/// A command for gpuspan, free of what the environment says about its output.
///
/// # Errors
/// When the binary cannot be built.
pub fn command() -> Result<Command> {
    let mut command = Command::new(gpuspan()?);
    clean(&mut command);
    Ok(command)
}

/// Takes away what would change what gpuspan says or sends.
pub fn clean(command: &mut Command) {
    let ours = |name: &str| name.starts_with("OTEL_") || name.starts_with("GPUSPAN");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(ours) {
            command.env_remove(name);
        }
    }
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be started, or does not end.
pub fn run_command(command: &mut Command) -> Result<Ended> {
    let start = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("failed to start {command:?}"))?;
    // Both pipes are read at the same time: a full one would stop the program.
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let ended = wait::until("the end of gpuspan", || Ok(child.try_wait()?));
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    let text = |collected: Option<std::thread::JoinHandle<String>>| {
        collected.and_then(|thread| thread.join().ok()).unwrap_or_default()
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    let status: ExitStatus = ended.with_context(|| format!("{command:?} hangs: {stderr}"))?;
    Ok(Ended { code: status.code(), stdout, stderr, took: start.elapsed() })
}

fn collect(mut pipe: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What could be read before a failure is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
