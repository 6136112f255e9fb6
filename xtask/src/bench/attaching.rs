//! Putting probes in and taking them out: how long the profiler takes, with either kind of link.

use super::Effort;
use super::table::{Goal, Table, median};
use super::target::{Target, runtime_library};
use anyhow::Result;
use profiler::attach::{Attacher, Kernel, KernelSettings, LinkKind, Links, Scope, inspect};
use profiler::probe::{self, Layer};
use std::time::Instant;

/// All probes of a process, milliseconds.
const GOAL: Goal = Goal::AtMost(100.0);

/// Probes that are attached by perf links: at 0.1 s each to detach, all of them would take minutes.
const PERF_PROBES: usize = 4;

/// Adds both kinds.
pub fn measure(target: &Target, effort: Effort, table: &mut Table) -> Result<()> {
    let multi = (0..effort.long_rounds).map(|_| Times::multi(target.pid())).collect::<Result<Vec<_>>>()?;
    let probes = multi.first().map_or(0, |times| times.probes);
    let load = median(multi.iter().map(|times| times.load_ms));
    table.fact("load the kernel side, socket and process hooks included", &format!("{load:.0} ms"));
    for (what, times) in [
        ("attach", multi.iter().map(|times| times.attach_ms).collect::<Vec<_>>()),
        ("detach", multi.iter().map(|times| times.detach_ms).collect()),
    ] {
        let middle = median(times);
        let what = format!("{what} {probes} probes (runtime and driver), multi links");
        table.judge(&what, middle, &format!("{middle:.1} ms"), &GOAL, "ms");
    }
    let perf = Times::perf(target.pid())?;
    table.fact(
        &format!("attach, detach {} probes, perf links", perf.probes),
        &format!("{:.1} ms, {:.0} ms", perf.attach_ms, perf.detach_ms),
    );
    Ok(())
}

/// One round.
struct Times {
    probes: usize,
    load_ms: f64,
    attach_ms: f64,
    detach_ms: f64,
}

impl Times {
    /// Everything, as `gpuspan attach` does it.
    fn multi(pid: u32) -> Result<Self> {
        let settings = KernelSettings { links: LinkKind::Multi, ..KernelSettings::default() };
        let (kernel, load_ms) = timed(|| Kernel::load(&settings));
        let mut attacher = Attacher::new(kernel?);
        let (added, attach_ms) = timed(|| attacher.add(pid, &mut |_| ()));
        added?;
        let probes = attacher.coverage().map(|library| library.attached).sum();
        let (_, detach_ms) = timed(|| attacher.detach());
        Ok(Self { probes, load_ms, attach_ms, detach_ms })
    }

    /// A few probes of the runtime that have no return side.
    fn perf(pid: u32) -> Result<Self> {
        let settings = KernelSettings { links: LinkKind::Perf, ..KernelSettings::default() };
        let (kernel, load_ms) = timed(|| Kernel::load(&settings));
        let mut kernel = kernel?;
        let path = runtime_library();
        let mut library = inspect(&path, Layer::Runtime)?;
        library.points.retain(|point| probe::api(point.api).is_some_and(|api| !api.is_paired()));
        library.points.truncate(PERF_PROBES);
        let (links, attach_ms) = timed(|| Links::attach(&mut kernel, Scope::ALL, &path, pid, &library));
        let links = links?;
        let (_, detach_ms) = timed(|| drop(links));
        Ok(Self { probes: library.points.len(), load_ms, attach_ms, detach_ms })
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed().as_secs_f64() * 1e3)
}
