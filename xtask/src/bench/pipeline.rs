//! gpuspan itself under load: CPU per event, losses and memory at 200,000 launches a second.

use super::Effort;
use super::spawn::{Account, Gpuspan};
use super::table::{Goal, Table};
use super::target::Target;
use anyhow::{Result, ensure};
use std::time::Duration;

/// Launches a second: several busy GPUs' worth.
const RATE: u64 = 200_000;

/// User-space CPU per event, nanoseconds.
const CPU_GOAL: Goal = Goal::AtMost(1000.0);
const LOSS_GOAL: Goal = Goal::AtMost(0.0);
const MEMORY_GOAL: Goal = Goal::AtMost(64.0);

/// Adds the figures of one run, less those of a run in which nothing happens.
pub fn measure(target: &mut Target, effort: Effort, table: &mut Table) -> Result<()> {
    let duration = Duration::from_secs(effort.pipeline_s);
    let idle = {
        let gpuspan = Gpuspan::attach(target.pid())?;
        std::thread::sleep(duration);
        gpuspan.stop()?
    };
    let gpuspan = Gpuspan::attach(target.pid())?;
    let paced = target.pace(RATE, duration)?;
    let busy = gpuspan.stop()?;
    ensure!(busy.balanced, "gpuspan's loss equations do not hold");
    ensure!(busy.records + busy.lost >= paced.calls, "gpuspan saw fewer calls than were made");
    table.fact("rate asked for, reached", &format!("{RATE}, {:.0} launches/s", paced.rate));
    report(&idle, &busy, duration, table);
    Ok(())
}

fn report(idle: &Account, busy: &Account, duration: Duration, table: &mut Table) {
    let cpu_ns = (busy.cpu_s - idle.cpu_s) * 1e9 / busy.records.max(1) as f64;
    table.judge("gpuspan's CPU per event", cpu_ns, &format!("{cpu_ns:.0} ns"), &CPU_GOAL, "ns");
    let share = |account: &Account| account.cpu_s / duration.as_secs_f64() * 100.0;
    table.fact(
        "gpuspan's share of a core, start and end included: idle, under load",
        &format!("{:.1} %, {:.1} %", share(idle), share(busy)),
    );
    let of = format!("{} of {}", busy.lost, busy.records + busy.lost);
    table.judge("records lost, default ring", busy.lost as f64, &of, &LOSS_GOAL, "");
    let mib = busy.max_rss_bytes as f64 / f64::from(1 << 20);
    table.judge("gpuspan's memory at most", mib, &format!("{mib:.1} MiB"), &MEMORY_GOAL, "MiB");
}
