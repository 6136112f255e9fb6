//! A launch under each of gpuspan's modes, against an empty probe at the same place, in turn.
//!
//! Unlike `calls`, gpuspan is the released program in a process of its own, with all of its probes: modes are what its
//! command line gives. Absent: modes that this build does not have; each is named.

use super::Effort;
use super::calls::Place;
use super::spawn::{self, Gpuspan};
use super::table::{Added, Goal, Table};
use super::target::{Op, Target};
use anyhow::{Result, ensure};
use profiler::attach::EmptyProgram;
use profiler::probe::Layer;

/// What a launch that is only summed up may cost above an empty probe, nanoseconds.
const AGGREGATE_GOAL: Goal = Goal::AtMost(200.0);

/// Attaching takes far longer than the calls, and loads the machine: more rounds bring little.
const ROUNDS_AT_MOST: usize = 11;

/// A way to run gpuspan.
struct Mode {
    name: &'static str,
    /// Its first word is what the build must know.
    flags: &'static [&'static str],
    goal: Option<&'static Goal>,
}

const MODES: [Mode; 4] = [
    Mode { name: "a record each (default)", flags: &[], goal: None },
    Mode { name: "`--detail aggregate`", flags: &["--detail", "aggregate"], goal: Some(&AGGREGATE_GOAL) },
    Mode { name: "`--results all`, entry and return", flags: &["--results", "all"], goal: None },
    Mode { name: "`--stacks 1/100`", flags: &["--stacks", "1/100"], goal: None },
];

/// Adds what a runtime launch costs under each mode.
pub fn measure(target: &mut Target, effort: Effort, table: &mut Table) -> Result<()> {
    let mut modes = Vec::new();
    for mode in &MODES {
        match mode.flags.first().map_or(Ok(true), |flag| spawn::knows(flag))? {
            true => modes.push((mode, Vec::new())),
            false => table.fact(&what(mode), "this build does not have it"),
        }
    }
    let place = Place::of(Layer::Runtime, "cudaLaunchKernel", target.pid())?;
    let empty = EmptyProgram::load()?;
    let mut floor = Vec::new();
    // One round unmeasured: the first attach reads files that are cold.
    Gpuspan::attach(target.pid())?.stop()?;
    for _ in 0..effort.rounds.min(ROUNDS_AT_MOST) {
        {
            let _links = empty.attach(place.path(), place.pid, &place.library)?;
            floor.push(target.time(Op::RuntimeLaunch, effort.calls)?);
        }
        for (mode, rounds) in &mut modes {
            rounds.push(observed(target, effort.calls, mode)?);
        }
    }
    for (mode, rounds) in modes {
        let added = Added::of(&floor, &rounds);
        match mode.goal {
            Some(goal) => table.judge(&what(mode), added.difference, &added.to_string(), goal, "ns"),
            None => table.fact(&what(mode), &added.to_string()),
        }
    }
    Ok(())
}

/// Nanoseconds of a launch while gpuspan runs in this mode, which must have lost nothing and summed up every launch.
fn observed(target: &mut Target, calls: u64, mode: &Mode) -> Result<f64> {
    let gpuspan = Gpuspan::attach_with(target.pid(), mode.flags)?;
    let nanoseconds = target.time(Op::RuntimeLaunch, calls)?;
    let account = gpuspan.stop()?;
    ensure!(account.lost == 0 && account.balanced, "gpuspan lost records in mode {}", mode.name);
    ensure!(
        account.launches == calls,
        "gpuspan counted {} of {calls} launches in mode {}",
        account.launches,
        mode.name
    );
    Ok(nanoseconds)
}

fn what(mode: &Mode) -> String {
    format!("runtime launch, gpuspan with {}: above an empty probe", mode.name)
}
