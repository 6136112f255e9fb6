//! `cargo xtask bench`: what gpuspan costs the target, its neighbours and the machine, as one table.
//!
//! In: this machine, the stand-in CUDA libraries, gpuspan as it is released. Out: figures beside their goals; a
//! missed goal is said and is no error. Everything is compared within the run, round by round: nanoseconds belong to
//! the machine, differences and ratios to gpuspan. Absent: a GPU, and other machines' figures (docs/overhead.md).

mod agent;
mod attaching;
mod calls;
mod inside;
mod machine;
mod modes;
mod openssl;
mod pipeline;
mod serving;
mod spawn;
mod streams;
mod syscalls;
mod table;
mod target;
mod throughput;

use crate::demo::cargo;
use anyhow::{Result, ensure};
use clap::ValueEnum;
use table::Table;
use target::Target;

/// Measures what gpuspan costs; needs root, and a machine that does nothing else.
#[derive(clap::Args)]
pub struct Args {
    /// Fewer and shorter rounds, to see that it works: about a minute.
    #[arg(long)]
    quick: bool,
    /// Only these parts, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Be the process that is measured; the benchmark starts it itself.
    #[arg(long, hide = true)]
    be_target: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Probed GPU calls, against an empty probe at the same place.
    Calls,
    /// A launch under gpuspan's modes: each launch a record, sums only, results, stacks.
    Modes,
    /// gpuspan itself at 200,000 launches a second.
    Pipeline,
    /// gpuspan itself under 50,000 streamed chunks a second.
    Streams,
    /// Putting the probes in and taking them out.
    Attaching,
    /// System calls of the target and of everybody else.
    Syscalls,
    /// Tokens a second of a server with 32 streams.
    Throughput,
    /// The agent, idle on a node with 500 processes, and beside one busy server.
    Agent,
    /// A token of vLLM's engine, listened to inside; only by name, since 6 GB are fetched for it the first time.
    Inside,
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// Interleaved rounds of short measurements; a median is taken over them.
    rounds: usize,
    /// Calls of a round: at 1 µs each, long enough for the clock, and their records stay below the ring's wake-up.
    calls: u64,
    /// Seconds of the pipeline's run.
    pipeline_s: u64,
    /// Rounds of attaching, and pairs of throughput.
    long_rounds: usize,
    /// Requests of a round of throughput.
    requests: usize,
}

const FULL: Effort = Effort { rounds: 21, calls: 20_000, pipeline_s: 10, long_rounds: 7, requests: 160 };
const QUICK: Effort = Effort { rounds: 5, calls: 10_000, pipeline_s: 3, long_rounds: 3, requests: 64 };

/// Measures and prints the table.
pub fn run(args: &Args) -> Result<()> {
    if args.be_target {
        return target::serve();
    }
    // SAFETY: geteuid has no preconditions.
    ensure!(unsafe { libc::geteuid() } == 0, "attaching needs root: run `cargo xtask bench` as root");
    profiler::attach::ensure_tracefs();
    cargo(&["build", "--quiet", "--release", "--package", "profiler"])?;
    let effort = if args.quick { QUICK } else { FULL };
    let wants = |part| args.only.is_empty() || args.only.contains(&part);
    println!("{}", machine::facts());
    let mut table = Table::start();
    let mut target = Target::start()?;
    if wants(Part::Calls) {
        calls::measure(&mut target, effort, &mut table)?;
    }
    if wants(Part::Modes) {
        modes::measure(&mut target, effort, &mut table)?;
    }
    if wants(Part::Syscalls) {
        syscalls::measure(&mut target, effort, &mut table)?;
    }
    if wants(Part::Attaching) {
        attaching::measure(&target, effort, &mut table)?;
    }
    if wants(Part::Pipeline) {
        pipeline::measure(&mut target, effort, &mut table)?;
    }
    if wants(Part::Streams) {
        streams::measure(&mut target, effort, &mut table)?;
    }
    drop(target);
    if wants(Part::Throughput) {
        throughput::measure(effort, &mut table)?;
    }
    if wants(Part::Agent) {
        agent::measure(effort, &mut table)?;
    }
    if args.only.contains(&Part::Inside) {
        inside::measure(effort, &mut table)?;
    }
    println!("\n{}\n{}", table.verdict(), machine::load());
    Ok(())
}
