//! A server with 32 streams, with and without gpuspan, in turn: tokens a second and the time of a token.
//!
//! Server, client and gpuspan share this machine's cores, so three paces are measured: steps of about 10 ms, as a
//! model of some billion parameters has them, with and without priority for the thread that launches (with it, that
//! thread finds a free core whenever it wants one, as on a server with enough of them), and steps of 1 ms, at which
//! all fight for the cores and everything that gpuspan uses is the server's loss.

use super::Effort;
use super::spawn::Gpuspan;
use super::table::{Goal, Table, median};
use anyhow::{Result, ensure};
use workload::client::{Range, Summary};
use workload::{ClientOptions, ServerOptions, ServerProcess};

/// Requests at the same time.
const STREAMS: usize = 32;

/// Share of the tokens a second that must be left when the server waits for its GPU, as real ones do.
const GOAL: Goal = Goal::AtLeast(0.97);

/// How a server is set up.
struct Pace {
    name: &'static str,
    /// Of a kernel; a step has 45.
    kernel_ns: u64,
    /// Requests of a round for each of [`Effort::requests`].
    factor: usize,
    /// Whether the thread that launches has priority.
    priority: bool,
    goal: Option<&'static Goal>,
}

const PACES: [Pace; 3] = [
    Pace { name: "10 ms a step", kernel_ns: 200_000, factor: 1, priority: false, goal: Some(&GOAL) },
    Pace {
        name: "10 ms a step, launching thread has priority",
        kernel_ns: 200_000,
        factor: 1,
        priority: true,
        goal: Some(&GOAL),
    },
    Pace { name: "1 ms a step, cores saturated", kernel_ns: 20_000, factor: 4, priority: false, goal: None },
];

/// Adds the ratio of rounds with gpuspan to those without.
pub fn measure(effort: Effort, table: &mut Table) -> Result<()> {
    for pace in PACES {
        let environment = simgpu::command_env(simgpu::Runtime::Cuda12, &simgpu::Environment::default());
        let options = ServerOptions { kernel_ns: pace.kernel_ns, ..ServerOptions::default() };
        let server = ServerProcess::start(&options, &environment)?;
        if pace.priority {
            prefer_launches(server.pid())?;
        }
        let requests = effort.requests * pace.factor;
        load(&server, requests)?; // The first round warms caches and allocators.
        let mut rounds = Rounds::default();
        for _ in 0..effort.long_rounds {
            rounds.add(&server, requests)?;
        }
        rounds.report(&pace, table);
    }
    Ok(())
}

/// Gives the server's engine thread a better nice value than everything else here has.
fn prefer_launches(pid: u32) -> Result<()> {
    const NICE: libc::c_int = -10;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        if std::fs::read_to_string(task.path().join("comm"))?.trim() == "engine" {
            let tid = task.file_name().to_string_lossy().parse()?;
            // SAFETY: it takes numbers and changes only that thread's priority.
            let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, tid, NICE) };
            ensure!(result == 0, "failed to prefer thread {tid}: {}", std::io::Error::last_os_error());
            return Ok(());
        }
    }
    anyhow::bail!("the workload server has no thread `engine`")
}

/// Rounds without and with gpuspan, and what gpuspan used.
#[derive(Default)]
struct Rounds {
    alone: Vec<Round>,
    observed: Vec<Round>,
    /// gpuspan's CPU time for each token, microseconds, start and end included.
    cpu_us: Vec<f64>,
    launches: Vec<f64>,
}

impl Rounds {
    fn add(&mut self, server: &ServerProcess, requests: usize) -> Result<()> {
        self.alone.push(Round(load(server, requests)?));
        let gpuspan = Gpuspan::attach(server.pid())?;
        let summary = load(server, requests)?;
        let account = gpuspan.stop()?;
        ensure!(account.lost == 0 && account.balanced, "gpuspan lost records");
        let tokens = summary.completion_tokens.max(1) as f64;
        self.cpu_us.push(account.cpu_s * 1e6 / tokens);
        self.launches.push(account.launches as f64 / tokens);
        self.observed.push(Round(summary));
        Ok(())
    }

    fn report(self, pace: &Pace, table: &mut Table) {
        let left = self.ratio(Round::tokens_per_s);
        let (alone, observed) = self.middles(Round::tokens_per_s);
        let text = format!("×{left:.3} ({alone:.0} to {observed:.0} tokens/s)");
        let what = format!("server, {STREAMS} streams, {}: tokens/s", pace.name);
        match pace.goal {
            Some(goal) => table.judge(&what, left, &text, goal, ""),
            None => table.fact(&what, &text),
        }
        let (alone, observed) = self.middles(Round::gap_ms);
        let text = format!("×{:.3} ({alone:.2} to {observed:.2} ms)", self.ratio(Round::gap_ms));
        table.fact("the same: time between two tokens, median", &text);
        let text = format!("{:.1} µs, {:.1} launches", median(self.cpu_us), median(self.launches));
        table
            .fact("the same: gpuspan's CPU for a token, start and end included; launches for a token", &text);
    }

    fn ratio(&self, of: fn(&Round) -> f64) -> f64 {
        median(self.alone.iter().zip(&self.observed).map(|(alone, observed)| of(observed) / of(alone)))
    }

    fn middles(&self, of: fn(&Round) -> f64) -> (f64, f64) {
        (median(self.alone.iter().map(of)), median(self.observed.iter().map(of)))
    }
}

/// What the clients saw in one round.
struct Round(Summary);

impl Round {
    fn tokens_per_s(&self) -> f64 {
        self.0.completion_tokens as f64 / self.0.elapsed_s
    }

    fn gap_ms(&self) -> f64 {
        self.0.itl_p50_ms.unwrap_or(0.0)
    }
}

fn load(server: &ServerProcess, requests: usize) -> Result<Summary> {
    let range = |text: &str| text.parse::<Range>().map_err(|error| anyhow::anyhow!("{error}"));
    let options = ClientOptions {
        concurrency: STREAMS,
        requests,
        prompt_words: range("16..64")?,
        max_tokens: range("64..64")?,
        ..ClientOptions::new(server.url())
    };
    let records = workload::load(&options)?;
    let failed = records.iter().filter(|record| !record.is_ok()).count();
    ensure!(failed == 0, "{failed} of {} requests failed", records.len());
    Ok(Summary::of(&records))
}
