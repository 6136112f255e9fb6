//! A server with 32 streams, with and without gpuspan, in turn: tokens a second and the time of a token.

use super::Effort;
use super::spawn::Gpuspan;
use super::table::{Goal, Table, median};
use anyhow::{Result, ensure};
use workload::client::{Range, Summary};
use workload::{ClientOptions, ServerOptions, ServerProcess};

/// Requests at the same time.
const STREAMS: usize = 32;

/// Share of the tokens a second that must be left.
const GOAL: Goal = Goal::AtLeast(0.95);

/// Adds the ratio of rounds with gpuspan to those without.
pub fn measure(effort: Effort, table: &mut Table) -> Result<()> {
    let environment = simgpu::command_env(simgpu::Runtime::Cuda12, &simgpu::Environment::default());
    let server = ServerProcess::start(&ServerOptions::default(), &environment)?;
    load(&server, effort)?; // The first round warms caches and allocators.
    let (mut alone, mut observed, mut per_token) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.long_rounds {
        alone.push(Round::of(&load(&server, effort)?));
        let gpuspan = Gpuspan::attach(server.pid())?;
        let summary = load(&server, effort)?;
        let account = gpuspan.stop()?;
        ensure!(account.lost == 0 && account.balanced, "gpuspan lost records");
        per_token.push(account.launches as f64 / summary.completion_tokens.max(1) as f64);
        observed.push(Round::of(&summary));
    }
    report(&alone, &observed, median(per_token), table);
    Ok(())
}

struct Round {
    tokens_per_s: f64,
    gap_ms: f64,
}

impl Round {
    fn of(summary: &Summary) -> Self {
        Self {
            tokens_per_s: summary.completion_tokens as f64 / summary.elapsed_s,
            gap_ms: summary.itl_p50_ms.unwrap_or(0.0),
        }
    }
}

fn report(alone: &[Round], observed: &[Round], launches: f64, table: &mut Table) {
    let ratio = |of: fn(&Round) -> f64| {
        median(alone.iter().zip(observed).map(|(alone, observed)| of(observed) / of(alone)))
    };
    let middle = |rounds: &[Round], of: fn(&Round) -> f64| median(rounds.iter().map(of));
    let tokens: fn(&Round) -> f64 = |round| round.tokens_per_s;
    let gap: fn(&Round) -> f64 = |round| round.gap_ms;
    let left = ratio(tokens);
    let text =
        format!("×{left:.3} ({:.0} to {:.0} tokens/s)", middle(alone, tokens), middle(observed, tokens));
    let what = format!("server with {STREAMS} streams, {launches:.1} launches a token: tokens/s");
    table.judge(&what, left, &text, &GOAL, "");
    table.fact(
        "the same: time between two tokens, median",
        &format!("×{:.3} ({:.2} to {:.2} ms)", ratio(gap), middle(alone, gap), middle(observed, gap)),
    );
}

fn load(server: &ServerProcess, effort: Effort) -> Result<Summary> {
    let range = |text: &str| text.parse::<Range>().map_err(|error| anyhow::anyhow!("{error}"));
    let options = ClientOptions {
        concurrency: STREAMS,
        requests: effort.requests,
        prompt_words: range("16..64")?,
        max_tokens: range("64..64")?,
        ..ClientOptions::new(server.url())
    };
    let records = workload::load(&options)?;
    let failed = records.iter().filter(|record| !record.is_ok()).count();
    ensure!(failed == 0, "{failed} of {} requests failed", records.len());
    Ok(Summary::of(&records))
}
