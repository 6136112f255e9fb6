//! gpuspan as a process of its own, as it is released: attached, stopped, and asked what it saw and cost.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time for the probes to be in place.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(30);

/// An attached gpuspan; killed when dropped.
pub struct Gpuspan {
    child: Child,
    folder: PathBuf,
}

/// What its summary says.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    /// Records it took from the ring.
    pub records: u64,
    /// Records that it or the kernel side lost.
    pub lost: u64,
    /// The loss equations hold.
    pub balanced: bool,
    /// CPU time in all, seconds.
    pub cpu_s: f64,
    /// Largest resident size, bytes.
    pub max_rss_bytes: u64,
    /// Kernel launches.
    pub launches: u64,
    /// Requests.
    pub requests: u64,
    /// Messages and calls inside a server.
    pub messages: u64,
}

impl Gpuspan {
    /// Attaches to `pid` as it does by default.
    pub fn attach(pid: u32) -> Result<Self> {
        Self::attach_with(pid, &[])
    }

    /// Attaches to `pid` with these flags and waits until the probes are in place.
    pub fn attach_with(pid: u32, flags: &[&str]) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("gpuspan-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let ready = folder.join("ready");
        // From the run before; there is none the first time.
        let _ = std::fs::remove_file(&ready);
        let child = Command::new(binary()?)
            .args(["attach", "--pid", &pid.to_string(), "--output", "none"])
            .args(flags)
            .arg("--ready-file")
            .arg(&ready)
            .arg("--summary")
            .arg(folder.join("summary.json"))
            .stdin(Stdio::null())
            .spawn()
            .context("failed to start gpuspan")?;
        let mut gpuspan = Self { child, folder };
        let start = Instant::now();
        while !ready.exists() {
            if let Some(status) = gpuspan.child.try_wait()? {
                anyhow::bail!("gpuspan ended before it was attached ({status})");
            }
            ensure!(start.elapsed() < ATTACH_TIMEOUT, "gpuspan was not attached within {ATTACH_TIMEOUT:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(gpuspan)
    }

    /// How often its thread of this name has slept and been woken.
    pub fn wakes(&self, thread: &str) -> Result<u64> {
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let task = task?.path();
            if std::fs::read_to_string(task.join("comm"))?.trim() == thread {
                let status = std::fs::read_to_string(task.join("status"))?;
                let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
                return Ok(count.context("no count of switches in its status")?.trim().parse()?);
            }
        }
        anyhow::bail!("gpuspan has no thread `{thread}`")
    }

    /// Ends it as Ctrl-C would, and reads its summary.
    pub fn stop(mut self) -> Result<Account> {
        let pid = libc::pid_t::try_from(self.child.id())?;
        // SAFETY: a signal to our own child, which has not been waited for, so the number is still its own.
        unsafe { libc::kill(pid, libc::SIGINT) };
        let status = self.child.wait()?;
        ensure!(status.success(), "gpuspan ended with {status}");
        let text = std::fs::read_to_string(self.folder.join("summary.json"))?;
        let summary: Value = serde_json::from_str(&text).context("gpuspan's summary is no JSON")?;
        let number = |pointer: &str| {
            let value = summary.pointer(pointer).and_then(Value::as_f64);
            value.with_context(|| format!("gpuspan's summary has no {pointer}"))
        };
        Ok(Account {
            records: number("/loss/receive/received")? as u64,
            lost: number("/loss/lost")? as u64,
            balanced: summary.pointer("/loss/balanced").and_then(Value::as_bool).unwrap_or(false),
            cpu_s: number("/self/cpu_s")?,
            max_rss_bytes: number("/self/max_rss_bytes")? as u64,
            launches: number("/launches/total")? as u64,
            requests: number("/requests/total")? as u64,
            messages: number("/loss/kernel/server/seen")? as u64,
        })
    }
}

impl Drop for Gpuspan {
    fn drop(&mut self) {
        // All fail only when there is nothing left to end or to remove.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Whether `gpuspan attach` has this flag: what a build lacks is said and not measured.
pub fn knows(flag: &str) -> Result<bool> {
    let output = Command::new(binary()?).args(["attach", "--help"]).output()?;
    let help = String::from_utf8_lossy(&output.stdout);
    Ok(help.split_whitespace().any(|word| word == flag))
}

/// `target/release/gpuspan` beside this program's own `target/…/xtask`.
pub fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2).context("this program lies outside a target folder")?;
    Ok(target.join("release/gpuspan"))
}
