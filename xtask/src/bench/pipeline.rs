//! gpuspan itself under load: CPU per event, losses and memory at 200,000 launches a second, and at as many as there can be.

use super::Effort;
use super::spawn::{Account, Gpuspan};
use super::table::{Goal, Table};
use super::target::Target;
use anyhow::{Result, ensure};
use std::time::Duration;

/// Launches a second: several busy GPUs' worth.
const RATE: u64 = 200_000;

/// More than any machine reaches.
const ANY_RATE: u64 = 1_000_000_000;

/// User-space CPU per event, nanoseconds.
const CPU_GOAL: Goal = Goal::AtMost(1000.0);
const LOSS_GOAL: Goal = Goal::AtMost(0.0);
/// MiB.
const MEMORY_GOAL: Goal = Goal::AtMost(64.0);
/// The draining thread comes by itself 50 times a second; more would mean that records wake it.
const WAKES_GOAL: Goal = Goal::AtMost(60.0);

/// Adds the figures of a run under load, less those of runs in which nothing happens.
pub fn measure(target: &mut Target, effort: Effort, table: &mut Table) -> Result<()> {
    let duration = Duration::from_secs(effort.pipeline_s);
    let start = Gpuspan::attach(target.pid())?.stop()?;
    let idle = {
        let gpuspan = Gpuspan::attach(target.pid())?;
        std::thread::sleep(duration);
        gpuspan.stop()?
    };
    let gpuspan = Gpuspan::attach(target.pid())?;
    let before = gpuspan.wakes(DRAINING)?;
    let paced = target.pace(RATE, duration)?;
    let wakes = (gpuspan.wakes(DRAINING)? - before) as f64 / duration.as_secs_f64();
    let busy = gpuspan.stop()?;
    ensure!(busy.balanced, "gpuspan's loss equations do not hold");
    ensure!(busy.records + busy.lost >= paced.calls, "gpuspan saw fewer calls than were made");
    table.fact("rate asked for, reached", &format!("{RATE}, {:.0} launches/s", paced.rate));
    table.judge("wake-ups of gpuspan's draining thread", wakes, &format!("{wakes:.0}/s"), &WAKES_GOAL, "/s");
    report(&Accounts { start, idle, busy }, duration, table);
    flat_out(target, duration / 2, table)
}

/// As many launches as the target can make: what no real program does, for where the limits lie.
fn flat_out(target: &mut Target, duration: Duration, table: &mut Table) -> Result<()> {
    let gpuspan = Gpuspan::attach(target.pid())?;
    let paced = target.pace(ANY_RATE, duration)?;
    let account = gpuspan.stop()?;
    ensure!(account.balanced, "gpuspan's loss equations do not hold");
    let mib = account.max_rss_bytes as f64 / f64::from(1 << 20);
    let (lost, all) = (account.lost, account.records + account.lost);
    let text = format!("{:.0} launches/s, lost {lost} of {all}, memory at most {mib:.1} MiB", paced.rate);
    table.fact("launches as fast as one thread can", &text);
    Ok(())
}

/// The thread that takes records from the ring.
const DRAINING: &str = "receive";

/// Of three runs: over at once, without events, and under load.
struct Accounts {
    start: Account,
    idle: Account,
    busy: Account,
}

fn report(Accounts { start, idle, busy }: &Accounts, duration: Duration, table: &mut Table) {
    let cpu_ns = (busy.cpu_s - idle.cpu_s) * 1e9 / busy.records.max(1) as f64;
    table.judge("gpuspan's CPU for an event", cpu_ns, &format!("{cpu_ns:.0} ns"), &CPU_GOAL, "ns");
    let share = |account: &Account| (account.cpu_s - start.cpu_s) / duration.as_secs_f64() * 100.0;
    table.fact(
        "gpuspan's CPU: start and end, idle, under load",
        &format!("{:.0} ms, {:.2} %, {:.1} % of a core", start.cpu_s * 1e3, share(idle), share(busy)),
    );
    let of = format!("{} of {}", busy.lost, busy.records + busy.lost);
    table.judge("records lost, default ring", busy.lost as f64, &of, &LOSS_GOAL, "");
    let mib = busy.max_rss_bytes as f64 / f64::from(1 << 20);
    table.judge("gpuspan's memory at most", mib, &format!("{mib:.1} MiB"), &MEMORY_GOAL, "MiB");
}
