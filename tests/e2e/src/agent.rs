//! One run of `gpuspan agent` with a configuration of its own: started, asked for its pages, ended, read.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::otlp::{self, Span};
use crate::program;
use crate::wait;

/// An agent at work; killed when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    folder: Arc<TempDir>,
    name: String,
}

impl Agent {
    /// Starts one whose further configuration is `yaml`, and returns when it runs.
    ///
    /// # Errors
    /// When it ends before that.
    pub fn start(yaml: &str) -> Result<Self> {
        Self::start_in(&Arc::new(TempDir::new()?), "agent", yaml)
    }

    /// The same, in a folder where it finds others.
    ///
    /// # Errors
    /// When it ends before that.
    pub fn start_in(folder: &Arc<TempDir>, name: &str, yaml: &str) -> Result<Self> {
        let mut agent = Self::spawn(folder, name, yaml)?;
        let ready = agent.path("ready");
        let started = wait::until("the agent's start", || {
            if let Some(status) = agent.child.try_wait()? {
                bail!("the agent ended with {status}");
            }
            Ok(ready.exists().then_some(()))
        });
        started.with_context(|| agent.log())?;
        Ok(agent)
    }

    fn spawn(folder: &Arc<TempDir>, name: &str, yaml: &str) -> Result<Self> {
        let file = |suffix: &str| folder.path().join(format!("{name}.{suffix}"));
        let text = format!(
            "listen: 127.0.0.1:0\nexport:\n  otlp_file: {}\n{}",
            file("otlp").display(),
            yaml.replace("OFF_FILE", &folder.path().join("off").display().to_string())
        );
        std::fs::write(file("yaml"), text)?;
        let mut command = program::command()?;
        command.args(["agent", "-v", "--config"]).arg(file("yaml")).arg("--ready-file").arg(file("ready"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(file("log"))?);
        let child = command.spawn().context("failed to start the agent")?;
        Ok(Self { child, folder: Arc::clone(folder), name: name.to_owned() })
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file that switches agents of this folder off.
    #[must_use]
    pub fn off_file(&self) -> PathBuf {
        self.folder.path().join("off")
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path("yaml")
    }

    /// What it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        read(&self.path("log"))
    }

    /// Status and body of a page.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn page(&self, path: &str) -> Result<(u16, String)> {
        let ready = read(&self.path("ready"));
        let address = ready.lines().find_map(|line| line.strip_prefix("http://")).context("no address")?;
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(wait::PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
        Ok((status, body.to_owned()))
    }

    /// `/targets`.
    ///
    /// # Errors
    /// When nobody answers, or with something else than JSON.
    pub fn targets(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.page("/targets")?.1)?)
    }

    /// What `/targets` says of the target with this process, if it is one.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn target(&self, pid: u32) -> Result<Option<Value>> {
        let all = self.targets()?;
        let mut targets = all.get("targets").and_then(Value::as_array).into_iter().flatten();
        Ok(targets.find(|target| target.get("pid").is_some_and(|of| *of == pid)).cloned())
    }

    /// Waits until that target is as `is` wants it, at most for `limit`.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn wait_for(&self, limit: Duration, pid: u32, is: impl Fn(Option<&Value>) -> bool) -> Result<()> {
        wait::within(limit, "the state of a target", || {
            std::thread::sleep(Duration::from_millis(20));
            Ok(is(self.target(pid)?.as_ref()).then_some(()))
        })
        .with_context(|| format!("{:#}\n{}", self.targets().unwrap_or_default(), self.log()))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let pid = i32::try_from(self.child.id())?;
        // SAFETY: the process is a child of ours that has not been waited for.
        let sent = unsafe { libc::kill(pid, signal) };
        ensure!(sent == 0, "{}", std::io::Error::last_os_error());
        Ok(())
    }

    /// Ends it as Kubernetes does, and reads the spans that it exported.
    ///
    /// # Errors
    /// When it fails or hangs.
    pub fn stop(mut self) -> Result<Vec<Span>> {
        self.signal(libc::SIGTERM)?;
        let ended = wait::within(Duration::from_secs(10), "the agent's end", || Ok(self.child.try_wait()?));
        let status = ended.with_context(|| self.log())?;
        ensure!(status.success(), "the agent ended with {status}: {}", self.log());
        otlp::read(&self.path("otlp"))
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.folder.path().join(format!("{}.{suffix}", self.name))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
