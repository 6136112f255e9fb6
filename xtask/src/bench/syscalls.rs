//! System calls: what the socket hook adds to them, for a target and for everybody else, by either hook.

use super::Effort;
use super::calls::Drain;
use super::table::{Added, Table, median};
use super::target::{Op, Target};
use anyhow::Result;
use profiler::attach::{Kernel, KernelSettings};

/// Which system calls, and their names in the table.
const OPS: [(Op, &str); 5] = [
    (Op::Read, "`read` (no socket)"),
    (Op::Write, "`write` (no socket)"),
    (Op::SocketRead, "`read` of a connection"),
    (Op::SocketWrite, "`write` to a connection"),
    (Op::Getppid, "`getppid`"),
];

/// Times of [`OPS`], round by round.
type Series = [Vec<f64>; OPS.len()];

/// Adds both hooks.
pub fn measure(target: &mut Target, effort: Effort, table: &mut Table) -> Result<()> {
    for raw_tracepoint in [false, true] {
        let settings = KernelSettings { raw_tracepoint, ..KernelSettings::default() };
        let [mut none, mut bystander, mut watched] = [(); 3].map(|()| Series::default());
        let mut hook = "";
        for _ in 0..effort.rounds {
            time(target, effort, &mut none)?;
            let mut kernel = Kernel::load(&settings)?;
            hook = kernel.socket_hook();
            let drain = Drain::start(&mut kernel)?;
            time(target, effort, &mut bystander)?;
            kernel.set_target(target.pid(), true);
            time(target, effort, &mut watched)?;
            kernel.set_target(target.pid(), false);
            drain.stop()?;
        }
        report(hook, [&none, &bystander, &watched], table);
    }
    Ok(())
}

fn time(target: &mut Target, effort: Effort, series: &mut Series) -> Result<()> {
    for ((op, _), times) in OPS.into_iter().zip(series) {
        times.push(target.time(op, effort.calls)?);
    }
    Ok(())
}

fn report(hook: &str, [none, bystander, watched]: [&Series; 3], table: &mut Table) {
    for (who, with) in [("target", watched), ("other process", bystander)] {
        for (((_, name), without), with) in OPS.iter().zip(none).zip(with) {
            let base = median(without.iter().copied());
            let what = format!("{name} of the {who}, {hook}");
            table.fact(&what, &format!("{} on {base:.0} ns", Added::of(without, with)));
        }
    }
}
