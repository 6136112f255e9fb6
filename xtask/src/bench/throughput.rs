//! A server with 32 streams, with and without gpuspan, in turn: tokens a second and the time of a token.
//!
//! Twice: with steps of about 10 ms, as a model of some billion parameters has them, and with steps of 1 ms, at which
//! server, client and gpuspan fight for this machine's cores and everything that gpuspan uses is the server's loss.

use super::Effort;
use super::spawn::Gpuspan;
use super::table::{Goal, Table, median};
use anyhow::{Result, ensure};
use workload::client::{Range, Summary};
use workload::{ClientOptions, ServerOptions, ServerProcess};

/// Requests at the same time.
const STREAMS: usize = 32;

/// Share of the tokens a second that must be left, when the server waits for its GPU as real ones do.
const GOAL: Goal = Goal::AtLeast(0.97);

/// Nanoseconds of a kernel, of which a step has 45; requests of a round for each of [`Effort::requests`]; whether the
/// server waits for its GPU.
const PACES: [(u64, usize, bool, &str); 2] =
    [(200_000, 1, true, "10 ms a step"), (20_000, 4, false, "1 ms a step, cores saturated")];

/// Adds the ratio of rounds with gpuspan to those without.
pub fn measure(effort: Effort, table: &mut Table) -> Result<()> {
    for (kernel_ns, factor, waits, pace) in PACES {
        let environment = simgpu::command_env(simgpu::Runtime::Cuda12, &simgpu::Environment::default());
        let options = ServerOptions { kernel_ns, ..ServerOptions::default() };
        let server = ServerProcess::start(&options, &environment)?;
        let requests = effort.requests * factor;
        load(&server, requests)?; // The first round warms caches and allocators.
        let mut rounds = Rounds::default();
        for _ in 0..effort.long_rounds {
            rounds.add(&server, requests)?;
        }
        rounds.report(pace, waits.then_some(&GOAL), table);
    }
    Ok(())
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

    fn report(self, pace: &str, goal: Option<&Goal>, table: &mut Table) {
        let left = self.ratio(Round::tokens_per_s);
        let (alone, observed) = self.middles(Round::tokens_per_s);
        let text = format!("×{left:.3} ({alone:.0} to {observed:.0} tokens/s)");
        let what = format!("server, {STREAMS} streams, {pace}: tokens/s");
        match goal {
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
