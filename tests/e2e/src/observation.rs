//! One run of `gpuspan attach`: started, waited for, ended, read.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::otlp::{self, Span};
use crate::program;
use crate::summary::Summary;
use crate::wait;

/// A profiler at work; killed when dropped.
#[derive(Debug)]
pub struct Observation {
    child: Child,
    folder: TempDir,
    /// When it was asked to end.
    asked: Option<Instant>,
}

/// What an observation left.
#[derive(Clone, Debug)]
pub struct Report {
    /// `--summary`.
    pub summary: Summary,
    /// `--otlp-file`.
    pub spans: Vec<Span>,
    /// `--otlp-file` as it was written.
    pub otlp: String,
    /// `--summary` as it was written.
    pub summary_text: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// From the signal to the end.
    pub ending: Duration,
}

impl Observation {
    /// Attaches to `pid` and returns when every probe is in place. Later arguments win over the usual ones.
    ///
    /// # Errors
    /// When it ends before that.
    pub fn start(pid: u32, arguments: &[&str]) -> Result<Self> {
        Self::start_with(pid, arguments, &[])
    }

    /// The same with variables in its environment.
    ///
    /// # Errors
    /// When it ends before that.
    pub fn start_with(pid: u32, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Self> {
        Self::spawn_with(pid, arguments, variables)?.ready()
    }

    /// The same by a command that becomes gpuspan, such as one that takes privileges away first.
    ///
    /// # Errors
    /// When it ends before that.
    pub fn start_by(command: Command, pid: u32, arguments: &[&str]) -> Result<Self> {
        Self::spawn_by(command, pid, arguments)?.ready()
    }

    fn ready(self) -> Result<Self> {
        let mut observation = self;
        let ready = observation.path("ready");
        let attached = wait::until("the probes' being in place", || {
            if let Some(status) = observation.child.try_wait()? {
                bail!("gpuspan ended with {status} instead of attaching");
            }
            Ok(ready.exists().then_some(()))
        });
        attached.with_context(|| observation.text("stderr"))?;
        Ok(observation)
    }

    /// Starts to attach.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(pid: u32, arguments: &[&str]) -> Result<Self> {
        Self::spawn_with(pid, arguments, &[])
    }

    fn spawn_with(pid: u32, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Self> {
        let mut command = program::command()?;
        command.envs(variables.iter().copied());
        Self::spawn_by(command, pid, arguments)
    }

    fn spawn_by(mut command: Command, pid: u32, arguments: &[&str]) -> Result<Self> {
        let folder = TempDir::new()?;
        // Whoever it runs as writes there.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o777))?;
        let file = |name: &str| folder.path().join(name);
        command.args(["attach", "--pid", &pid.to_string(), "--summary"]).arg(file("summary.json"));
        command.arg("--otlp-file").arg(file("otlp.jsonl")).arg("--ready-file").arg(file("ready"));
        if !arguments.contains(&"--output") {
            command.args(["--output", "none"]);
        }
        command.args(arguments).stdin(Stdio::null());
        command.stdout(File::create(file("stdout"))?).stderr(File::create(file("stderr"))?);
        let child = command.spawn().context("failed to start gpuspan")?;
        Ok(Self { child, folder, asked: None })
    }

    /// Process id of the profiler.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.text("stdout")
    }

    /// What it has said so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.text("stderr")
    }

    /// Where scrapes are answered, as its ready file says: `host:port`.
    ///
    /// # Errors
    /// When the file does not say it.
    pub fn scraped_at(&self) -> Result<String> {
        let file = self.text("ready");
        let url = file.lines().find_map(|line| line.strip_prefix("prometheus http://"));
        let address = url.and_then(|url| url.strip_suffix("/metrics"));
        Ok(address.with_context(|| format!("no address for scrapes in the ready file: {file}"))?.to_owned())
    }

    /// Ends it as Ctrl-C does, and reads what it left.
    ///
    /// # Errors
    /// When it fails, hangs, or leaves files that cannot be read.
    pub fn stop(mut self) -> Result<Report> {
        self.signal(libc::SIGINT)?;
        self.finish()
    }

    /// Waits for an end that comes by itself, and reads what it left.
    ///
    /// # Errors
    /// When it fails, hangs, or leaves files that cannot be read.
    pub fn finish(mut self) -> Result<Report> {
        let status = self.wait()?;
        let ending = self.asked.map_or(Duration::ZERO, |asked| asked.elapsed());
        ensure!(status == Some(0), "gpuspan ended with {status:?}: {}", self.text("stderr"));
        let summary_text =
            std::fs::read_to_string(self.path("summary.json")).context("no summary was written")?;
        let summary = serde_json::from_str(&summary_text).context("the summary is not what it should be")?;
        let spans = otlp::read(&self.path("otlp.jsonl"))?;
        let [otlp, stdout, stderr] = ["otlp.jsonl", "stdout", "stderr"].map(|name| self.text(name));
        Ok(Report { summary, spans, otlp, summary_text, stdout, stderr, ending })
    }

    /// Waits for the end; the exit code, none after a signal.
    ///
    /// # Errors
    /// When it hangs.
    pub fn wait(&mut self) -> Result<Option<i32>> {
        let child = &mut self.child;
        let status = wait::until("the end of gpuspan", || Ok(child.try_wait()?));
        Ok(status.with_context(|| self.text("stderr"))?.code())
    }

    /// Ends it without a chance to clean up; returns when it is gone.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn kill(mut self) -> Result<()> {
        self.signal(libc::SIGKILL)?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process has already been waited for.
    pub fn signal(&mut self, signal: libc::c_int) -> Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "gpuspan has ended: {}", self.text("stderr"));
        self.asked = Some(Instant::now());
        // SAFETY: kill has no pointers; the child is ours and has not been waited for, so its pid is its own.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        let bytes = std::fs::read(self.path(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        // Both fail only when the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
