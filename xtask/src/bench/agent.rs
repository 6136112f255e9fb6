//! The agent by itself: on a node with 500 processes and no server, and beside one that works like vLLM with CUDA graphs.

use super::Effort;
use super::spawn::binary;
use super::table::{Goal, Table};
use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use workload::client::Range;
use workload::options::{Graphs, Runtime};
use workload::{ClientOptions, ServerOptions, ServerProcess};

/// Processes that do nothing, beside what runs on this machine anyway.
const PROCESSES: usize = 500;
/// Requests at the same time.
const STREAMS: usize = 32;
/// Of a kernel: with 32 layers, a step of 25 ms.
const KERNEL_NS: u64 = 110_000;
const START: Duration = Duration::from_secs(30);
/// After a start or a new target: loading and attaching are over, the canary is not judged any more.
const SETTLES: Duration = Duration::from_secs(12);

/// Percent of a core, and MiB.
const IDLE: [Goal; 2] = [Goal::AtMost(0.3), Goal::AtMost(40.0)];
const BUSY: [Goal; 2] = [Goal::AtMost(2.0), Goal::AtMost(100.0)];

/// Adds CPU and memory of the agent, idle and with a busy target.
pub fn measure(effort: Effort, table: &mut Table) -> Result<()> {
    let lasts = Duration::from_secs(3 * effort.pipeline_s);
    let _crowd = crowd()?;
    let agent = Agent::start()?;
    std::thread::sleep(SETTLES);
    agent.measure(&format!("the agent without a target, {PROCESSES} processes"), lasts, &IDLE, table)?;

    let environment = simgpu::command_env(simgpu::Runtime::Cuda13, &simgpu::Environment::default());
    let options = ServerOptions {
        runtime: Runtime::Cuda13,
        graphs: Graphs::StartUp,
        asynchronous: true,
        layers: 32,
        kernel_ns: KERNEL_NS,
        ..ServerOptions::default()
    };
    let server = ServerProcess::start(&options, &environment)?;
    let enough = AtomicBool::new(false);
    let url = server.url();
    let tokens = std::thread::scope(|scope| {
        let load = scope.spawn(|| load(&url, &enough));
        std::thread::sleep(SETTLES);
        let what = format!("the agent, one target with {STREAMS} streams");
        let measured = agent.measure(&what, lasts, &BUSY, table);
        enough.store(true, Ordering::Release);
        let (tokens, took) = load.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
        measured.map(|()| tokens as f64 / took.as_secs_f64())
    })?;
    table.fact("the same: tokens/s of the target", &format!("{tokens:.0}"));
    Ok(())
}

/// Rounds of requests until it is enough; their tokens, and how long that took.
fn load(url: &str, enough: &AtomicBool) -> Result<(u64, Duration)> {
    let range = |text: &str| text.parse::<Range>().map_err(|error| anyhow::anyhow!("{error}"));
    let (start, mut tokens, mut seed) = (Instant::now(), 0, 0);
    while !enough.load(Ordering::Acquire) {
        seed += 1;
        let options = ClientOptions {
            seed,
            concurrency: STREAMS,
            requests: 2 * STREAMS,
            prompt_words: range("16..256")?,
            max_tokens: range("64..128")?,
            ..ClientOptions::new(url)
        };
        let records = workload::load(&options)?;
        ensure!(records.iter().all(workload::ClientRecord::is_ok), "requests failed");
        tokens += records.iter().filter_map(|record| Some(record.usage?.completion_tokens)).sum::<u64>();
    }
    Ok((tokens, start.elapsed()))
}

/// Children that end with this value.
struct Crowd(Vec<Child>);

fn crowd() -> Result<Crowd> {
    let mut crowd = Crowd(Vec::new());
    for _ in 0..PROCESSES {
        let child = Command::new("sleep").arg("3600").stdin(Stdio::null()).spawn();
        crowd.0.push(child.context("failed to start a process that sleeps")?);
    }
    Ok(crowd)
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Both fail only when it has already ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `gpuspan agent` with a configuration of this bench's; killed when dropped.
struct Agent {
    child: Child,
    folder: tempfile::TempDir,
}

impl Agent {
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = |name: &str| folder.path().join(name);
        let yaml = format!(
            "listen: 127.0.0.1:0\nexport: {{ otlp_file: {} }}\nbudget: {{ target: 100%, node: 200%, off_file: {} }}\n",
            file("otlp.jsonl").display(),
            file("off").display()
        );
        std::fs::write(file("agent.yaml"), yaml)?;
        let mut command = Command::new(binary()?);
        command.args(["agent", "--config"]).arg(file("agent.yaml"));
        command.arg("--ready-file").arg(file("ready")).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().context("failed to start the agent")?;
        let (agent, start) = (Self { child, folder }, Instant::now());
        while !agent.folder.path().join("ready").exists() {
            ensure!(start.elapsed() < START, "the agent was not ready within {START:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(agent)
    }

    /// CPU and memory over a time, against goals in percent of a core and MiB.
    fn measure(&self, what: &str, lasts: Duration, goals: &[Goal; 2], table: &mut Table) -> Result<()> {
        let (before, start) = (cpu_by_thread(self.child.id())?, Instant::now());
        std::thread::sleep(lasts);
        let (after, took) = (cpu_by_thread(self.child.id())?, start.elapsed());
        let mut used: Vec<(String, f64)> = Vec::new();
        for (task, name, ns) in &after {
            let earlier = before.iter().find(|(known, ..)| known == task).map_or(0, |(.., ns)| *ns);
            let percent = 100.0 * (ns - earlier) as f64 / took.as_nanos() as f64;
            match used.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += percent,
                None => used.push((name.clone(), percent)),
            }
        }
        used.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        let all: f64 = used.iter().map(|(_, percent)| percent).sum();
        let most: Vec<String> =
            used.iter().take(3).map(|(name, percent)| format!("{name} {percent:.2}")).collect();
        let text = format!("{all:.2} % of a core ({})", most.join(", "));
        table.judge(&format!("{what}: CPU"), all, &text, &goals[0], "%");
        let usage = profiler::target::usage(self.child.id()).context("the agent is gone")?;
        let mib = usage.resident_bytes as f64 / f64::from(1 << 20);
        table.judge("the same: memory", mib, &format!("{mib:.1} MiB"), &goals[1], "MiB");
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail only when it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Thread, its name and its CPU time so far in nanoseconds, from `schedstat`: clock ticks are too coarse for so little.
fn cpu_by_thread(pid: u32) -> Result<Vec<(String, String, u64)>> {
    let mut threads = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).context("the agent is gone")? {
        let task = task?;
        let read = |file: &str| std::fs::read_to_string(Path::join(&task.path(), file));
        // A thread may have ended meanwhile.
        let (Ok(name), Ok(schedstat)) = (read("comm"), read("schedstat")) else { continue };
        let ns = schedstat.split(' ').next().and_then(|ns| ns.parse().ok()).context("an odd schedstat")?;
        threads.push((task.file_name().to_string_lossy().into_owned(), name.trim().to_owned(), ns));
    }
    Ok(threads)
}
