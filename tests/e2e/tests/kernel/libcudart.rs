//! The true libcudart 12 and 13, without a driver. Every call fails with `cudaErrorInsufficientDriver` (35), and
//! every call is made: the counts must be equal.
//!
//! The libraries are NVIDIA's. They come from the Python registry at test time, into
//! `${XDG_CACHE_HOME:-~/.cache}/gpuspan/libcudart/`, and are never part of this repository.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Observation, or_skip};
use profiler::probe::CATALOG;
use tempfile::TempDir;

use crate::attach::with_library;
use crate::checks::nothing_lost;
use crate::every_call::same;

/// A wheel: package, version, the library in it.
const TWELVE: (&str, &str, &str) =
    ("nvidia-cuda-runtime-cu12", "12.9.79", "nvidia/cuda_runtime/lib/libcudart.so.12");
const THIRTEEN: (&str, &str, &str) = ("nvidia-cuda-runtime", "13.5.37", "nvidia/cu13/lib/libcudart.so.13");

/// Rounds of every API in each thread.
const TIMES: u64 = 20;

#[test]
fn twelve_with_one_and_eight_threads() {
    check(TWELVE);
}

#[test]
fn thirteen_with_one_and_eight_threads() {
    check(THIRTEEN);
}

fn check(wheel: (&str, &str, &str)) {
    or_skip!();
    let library = match provide(wheel) {
        Ok(library) => library,
        Err(reason) => {
            println!("skipped: {} cannot be had: {reason}", wheel.0);
            return;
        }
    };
    for threads in [1, 8] {
        compare(&library, threads);
    }
}

fn compare(library: &Path, threads: u64) {
    let (count, times, apis) = (threads.to_string(), TIMES.to_string(), runtime_apis());
    let arguments = ["--wait-stdin", "--threads", &count, "--times", &times, "--api", &apis];
    let mut program = with_library(library, &arguments);
    let pid = program.waits_before("start").unwrap();
    let observation = Observation::start(pid, &[]).unwrap();
    let made = program.make().unwrap().after;
    let report = observation.stop().unwrap();
    let summary = &report.summary;
    let mut calls = made.calls.clone();
    for suffix in ["", "_ptsz"] {
        let through = calls.get(&format!("__cudaLaunchKernel{suffix}")).copied().unwrap_or(0);
        *calls.entry(format!("cudaLaunchKernel{suffix}")).or_default() += through;
    }
    calls.retain(|name, _| CATALOG.iter().any(|api| api.symbol == name));
    same(&summary.calls, &calls, "calls");
    assert!(calls.len() > 40, "{calls:?}");
    assert!(made.failures.iter().all(|failure| failure.code == 35), "{:?}", made.failures);
    assert_eq!((made.done.launches, made.done.graph_launches), (0, 0));
    // What is reported at entry counts as asked for: whether it failed is known only at return.
    let asked = &made.asked;
    assert_eq!(summary.launches.total, asked.launches);
    assert_eq!(summary.launches.graph_launches, asked.graph_launches);
    assert_eq!(summary.launches.unknown_graphs, asked.graph_launches, "none was made");
    assert_eq!(summary.launches.captured, 0, "a capture that failed to begin records nothing");
    // What is reported at return says that it failed: no memory was handed out, nobody waited.
    assert!(summary.memory.values().all(|memory| (memory.allocations, memory.live_bytes) == (0, 0)));
    let paired: BTreeSet<_> = CATALOG.iter().filter(|api| api.is_paired()).map(|api| api.symbol).collect();
    let failed = made.failures.iter().filter(|failure| paired.contains(failure.name.as_str()));
    assert_eq!(summary.loss.correlate.ignored["failed"], failed.map(|failure| failure.count).sum::<u64>());
    nothing_lost(summary);
    program.end().unwrap();
}

/// The program's APIs of the runtime whose function is probed.
fn runtime_apis() -> String {
    let known = e2e::calls::known().unwrap();
    let names = known.into_iter().filter(|(name, group)| {
        let function = name.split(':').next().unwrap_or(name);
        let probed = CATALOG.iter().any(|api| api.symbol == function) || function.starts_with("__cuda");
        group != "failing" && function.contains("cuda") && probed
    });
    names.map(|(name, _)| name).collect::<Vec<_>>().join(",")
}

/// The library, downloaded on the first use.
fn provide((package, version, inside): (&str, &str, &str)) -> Result<PathBuf, String> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let folder =
        cache.ok_or("neither XDG_CACHE_HOME nor HOME is set")?.join("gpuspan/libcudart").join(version);
    let library = folder.join(Path::new(inside).file_name().unwrap());
    if library.exists() {
        return Ok(library);
    }
    let work = TempDir::new().map_err(|error| error.to_string())?;
    let wanted = format!("{package}=={version}");
    let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"];
    run(Command::new("python3").args(pip).arg(work.path()).arg(wanted))?;
    let wheel = std::fs::read_dir(work.path()).unwrap().next().ok_or("pip downloaded nothing")?.unwrap();
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel.path()).arg(work.path()))?;
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    // Copied beside its place and renamed, so that an interrupted copy is never taken for the library.
    let part = folder.join(format!(".{}", std::process::id()));
    std::fs::copy(work.path().join(inside), &part).map_err(|error| error.to_string())?;
    std::fs::rename(&part, &library).map_err(|error| error.to_string())?;
    Ok(library)
}

fn run(command: &mut Command) -> Result<(), String> {
    let ended = e2e::program::run_command(command).map_err(|error| format!("{error:#}"))?;
    match ended.code {
        Some(0) => Ok(()),
        _ => Err(format!("{command:?}: {}", ended.stderr.trim())),
    }
}
