//! However the libraries come into a process, and whoever the process becomes: its calls are counted from the moment
//! the probes are in place.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::calls::{self, Made};
use e2e::stage::{device, since};
use e2e::{Calls, Observation, Report, code, or_skip, wait};
use profiler::probe::CATALOG;
use profiler::target::children_of;
use simgpu::{Environment, Runtime, command_env, library_dir};
use tempfile::TempDir;

use crate::checks::{device_agrees, nothing_lost};

/// What each thread calls, again and again.
const APIS: &str = "cudaLaunchKernel,cuLaunchKernel,cudaMemcpyAsync,cudaMemcpyAsyncDtoH,cudaMemcpyAsyncDtoD,\
                    cudaMemset,cudaMalloc,cudaMallocAsync,cudaStreamSynchronize,cudaEventRecord";
/// The stand-ins' runtime and driver.
const LIBRARIES: usize = 2;

pub fn arguments(more: &[&'static str]) -> Vec<&'static str> {
    [&["--wait-stdin", "--threads", "2", "--times", "500", "--api", APIS][..], more].concat()
}

fn start(log: &TempDir, more: &[&'static str]) -> Calls {
    Calls::start(calls::command(Runtime::Cuda12, log.path()), &arguments(more)).unwrap()
}

/// Lets the waiting program `pid` make its calls, and compares.
pub fn compare(mut program: Calls, pid: u32, log: &Path, observation: Observation) -> Report {
    let before = device(log, pid).unwrap();
    program.make().unwrap();
    let made = since(&before, &device(log, pid).unwrap());
    let report = observation.stop().unwrap();
    device_agrees(&report.summary, &made);
    assert_eq!(made.launches(), 2 * 2 * 500);
    nothing_lost(&report.summary);
    program.end().unwrap();
    report
}

/// As [`compare`], for a program whose libraries came after the profiler: what it called to prepare itself, before it
/// waited, was seen from some moment on.
fn compare_late(mut program: Calls, pid: u32, log: &Path, observation: Observation) -> Report {
    let before = device(log, pid).unwrap();
    program.make().unwrap();
    let all = device(log, pid).unwrap();
    let made = since(&before, &all);
    let report = observation.stop().unwrap();
    let summary = &report.summary;
    for (name, count) in made.calls.iter().filter(|(name, _)| CATALOG.iter().any(|api| api.symbol == **name))
    {
        let seen = summary.call(name);
        assert!(
            (*count..=all.calls[name]).contains(&seen),
            "{name}: {seen} of {count} to {}",
            all.calls[name]
        );
    }
    // It prepares nothing that launches or copies.
    assert_eq!((summary.launches.total, made.launches(), all.launches()), (2000, 2000, 2000));
    for (direction, name) in [("HtoD", "htod"), ("DtoH", "dtoh"), ("DtoD", "dtod")] {
        let (seen, ran) = (summary.copies(direction), made.copies(name));
        assert_eq!((seen.count, seen.bytes), (ran.count, ran.bytes), "{direction}");
    }
    nothing_lost(summary);
    program.end().unwrap();
    report
}

#[test]
fn a_library_that_is_already_mapped() {
    or_skip!();
    let log = TempDir::new().unwrap();
    let program = start(&log, &[]);
    let pid = program.waits_before("start").unwrap();
    let observation = Observation::start(pid, &[]).unwrap();
    assert!(code::is_probed(pid, LIBRARIES).unwrap(), "the ready file comes after the probes");
    let report = compare(program, pid, log.path(), observation);
    assert!(report.summary.target.processes[0].gpu);
    let missing = report.summary.coverage.iter().flat_map(|library| &library.missing);
    assert!(
        report.summary.coverage.iter().all(|library| library.attached > 0 && library.expensive.is_empty())
    );
    assert!(missing.into_iter().all(|missing| missing.group == "not_in_this_version"));
}

#[test]
fn a_library_that_is_loaded_later() {
    or_skip!();
    let log = TempDir::new().unwrap();
    let program = start(&log, &["--dlopen-after-ms", "1000"]);
    // Stopped, so that it cannot load before the profiler is there, however slow the machine.
    // SAFETY: signals to our own child, which has not been waited for.
    let signal = |signal| unsafe { libc::kill(program.pid().cast_signed(), signal) };
    assert_eq!(signal(libc::SIGSTOP), 0);
    let observation = Observation::start(program.pid(), &[]).unwrap();
    assert!(!code::is_probed(program.pid(), 1).unwrap(), "no library is mapped yet");
    assert_eq!(signal(libc::SIGCONT), 0);
    let pid = program.waits_before("start").unwrap();
    code::wait_until_probed(pid, LIBRARIES).unwrap();
    compare_late(program, pid, log.path(), observation);
}

/// Copies the stand-ins, for tests that take their files away.
pub fn copies(to: &Path) {
    for entry in std::fs::read_dir(library_dir(Runtime::Cuda12)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn edge_37_a_library_in_another_mount_namespace() {
    or_skip!();
    let (log, private) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    // The libraries exist only in a file system that this process does not see.
    let script = format!(
        "mount -t tmpfs none {0} && cp {1}/*.so* {0}/ && exec env LD_LIBRARY_PATH={0} \"$@\"",
        private.path().display(),
        library_dir(Runtime::Cuda12).display(),
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(simgpu::calls_program());
    let settings = Environment { log_dir: Some(log.path().to_owned()), ..Environment::default() };
    command.envs(command_env(Runtime::Cuda12, &settings));
    let program = Calls::start(command, &arguments(&[])).unwrap();
    let pid = program.waits_before("start").unwrap();
    assert_eq!(std::fs::read_dir(private.path()).unwrap().count(), 0, "not visible from here");
    let observation = Observation::start(pid, &[]).unwrap();
    let report = compare(program, pid, log.path(), observation);
    let here = private.path().to_str().unwrap();
    assert!(report.summary.coverage.iter().all(|library| library.library.starts_with(here)));
}

#[test]
fn edge_37_a_process_in_another_pid_namespace() {
    or_skip!();
    let log = TempDir::new().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc"]).arg(simgpu::calls_program());
    let settings = Environment { log_dir: Some(log.path().to_owned()), ..Environment::default() };
    command.envs(command_env(Runtime::Cuda12, &settings));
    let mut program = Calls::start(command, &arguments(&[])).unwrap();
    let inside = program.waits_before("start").unwrap();
    let [outside] = children_of(program.pid())[..] else { panic!("unshare has one child") };
    assert_eq!(inside, 1, "it calls itself by another number");
    let observation = Observation::start(outside, &[]).unwrap();
    let before = device(log.path(), inside).unwrap();
    program.make().unwrap();
    let made = since(&before, &device(log.path(), inside).unwrap());
    let report = observation.stop().unwrap();
    device_agrees(&report.summary, &made);
    nothing_lost(&report.summary);
    program.end().unwrap();
}

#[test]
fn edge_37_a_library_that_was_deleted() {
    or_skip!();
    let (log, own) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    copies(own.path());
    let mut command = calls::command(Runtime::Cuda12, log.path());
    command.env("LD_LIBRARY_PATH", own.path());
    let program = Calls::start(command, &arguments(&[])).unwrap();
    let pid = program.waits_before("start").unwrap();
    own.close().unwrap();
    let observation = Observation::start(pid, &[]).unwrap();
    compare(program, pid, log.path(), observation);
}

#[test]
fn edge_37_a_child_that_comes_later() {
    or_skip!();
    let log = TempDir::new().unwrap();
    let mut program = start(&log, &["--fork"]);
    let parent = program.waits_before("fork").unwrap();
    let observation = Observation::start(parent, &[]).unwrap();
    program.go_on().unwrap();
    let child = program.waits_before("start").unwrap();
    assert_ne!(child, parent);
    code::wait_until_probed(child, LIBRARIES).unwrap();
    let report = compare_late(program, child, log.path(), observation);
    let processes: Vec<_> =
        report.summary.target.processes.iter().map(|p| (p.pid, p.role.as_str())).collect();
    assert!(processes.contains(&(parent, "root")) && processes.contains(&(child, "child")), "{processes:?}");
}

#[test]
fn edge_37_a_process_that_executes_another_program() {
    or_skip!();
    let log = TempDir::new().unwrap();
    let mut program = start(&log, &["--exec"]);
    let pid = program.waits_before("exec").unwrap();
    let observation = Observation::start(pid, &[]).unwrap();
    program.go_on().unwrap();
    assert_eq!(program.waits_before("start").unwrap(), pid);
    code::wait_until_probed(pid, LIBRARIES).unwrap();
    compare_late(program, pid, log.path(), observation);
}

#[test]
fn a_process_that_ends_under_observation() {
    or_skip!();
    let log = TempDir::new().unwrap();
    let mut program = start(&log, &[]);
    let pid = program.waits_before("start").unwrap();
    let before = device(log.path(), pid).unwrap();
    let observation = Observation::start(pid, &[]).unwrap();
    program.make().unwrap();
    let made = since(&before, &device(log.path(), pid).unwrap());
    program.end().unwrap();
    // Nobody asks it to end.
    let report = observation.finish().unwrap();
    assert_eq!((report.summary.calls["cudaLaunchKernel"], report.summary.launches.total), (1000, 2000));
    assert_eq!(report.summary.launches.total, made.launches());
    nothing_lost(&report.summary);
}

#[test]
fn a_process_that_ends_while_being_attached_to() {
    or_skip!();
    let log = TempDir::new().unwrap();
    for after_ms in [0, 5, 20, 50, 80, 120, 200] {
        let program = start(&log, &[]);
        let pid = program.waits_before("start").unwrap();
        let mut observation = Observation::spawn(pid, &[]).unwrap();
        // Any moment will do; the point is that there are several.
        std::thread::sleep(std::time::Duration::from_millis(after_ms));
        drop(program);
        let code = observation.wait().unwrap();
        assert!(matches!(code, Some(0 | 3)), "{code:?} after {after_ms} ms: {}", observation.stderr());
        assert!(!observation.stderr().contains("panicked"), "{}", observation.stderr());
    }
}

#[test]
fn two_profilers_at_once() {
    or_skip!();
    let log = TempDir::new().unwrap();
    let mut program = start(&log, &[]);
    let pid = program.waits_before("start").unwrap();
    let before = device(log.path(), pid).unwrap();
    let two = [(); 2].map(|()| Observation::start(pid, &[]).unwrap());
    program.make().unwrap();
    let made = since(&before, &device(log.path(), pid).unwrap());
    for observation in two {
        let report = observation.stop().unwrap();
        device_agrees(&report.summary, &made);
        nothing_lost(&report.summary);
    }
    program.end().unwrap();
}

/// A runtime with so few functions that detaching one perf link each takes no time.
const SMALL: &str = "
    static char memory[1 << 16];
    int cudaMalloc(void **address, unsigned long bytes) { *address = memory; return 0; }
    int cudaLaunchKernel(const void *f) { __asm__ volatile(\"\"); return 0; }
    int cudaMemcpyAsync(void *to, const void *from, unsigned long bytes) { __asm__ volatile(\"nop\"); return 0; }
    int cudaStreamSynchronize(void *stream) { __asm__ volatile(\"nop; nop\"); return 0; }
";

/// Compiles a stand-in of its own for `libcudart.so.12`.
pub fn compile(folder: &Path, source: &str) -> PathBuf {
    compile_as(folder, "libcudart.so.12", source, &[])
}

/// Compiles a library of this name; `more` goes to the linker.
pub fn compile_as(folder: &Path, name: &str, source: &str, more: &[&str]) -> PathBuf {
    let (c, library) = (folder.join(name).with_extension("c"), folder.join(name));
    std::fs::write(&c, source).unwrap();
    let flags = ["-shared", "-fPIC", "-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls"];
    let mut command = Command::new("cc");
    command.args(flags).arg(format!("-Wl,-soname,{name}")).arg("-o").arg(&library).arg(&c).args(more);
    let status = command.status().unwrap();
    assert!(status.success(), "cc: {status}");
    library
}

/// A program with a runtime library of its own and no driver.
pub fn with_library(library: &Path, arguments: &[&str]) -> Calls {
    let mut command = Command::new(simgpu::calls_program());
    command.arg("--library").arg(library).env_remove("LD_LIBRARY_PATH");
    Calls::start(command, arguments).unwrap()
}

/// The calls after `--wait-stdin`: what was made, less what a run without any made for its preparation.
pub fn made_after_start(made: &Made, library: &Path, arguments: &[&str], threads: u64) -> Vec<(String, u64)> {
    let mut prepared = with_library(library, &[arguments, &["--times", "0"]].concat());
    prepared.waits_before("start").unwrap();
    let prepared = prepared.make().unwrap();
    let after = made.calls.iter().map(|(name, count)| {
        let mut before = prepared.calls.get(name).copied().unwrap_or(0);
        if name == "cudaStreamSynchronize" {
            // Each thread makes one at its end, with or without calls.
            before -= threads;
        }
        (name.clone(), count - before)
    });
    after.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn every_kind_of_hook_counts_the_same() {
    or_skip!();
    let folder = TempDir::new().unwrap();
    let library = compile(folder.path(), SMALL);
    let apis = "cudaLaunchKernel,cudaMemcpyAsync,cudaMalloc,cudaStreamSynchronize";
    let arguments = ["--wait-stdin", "--threads", "2", "--times", "300", "--api", apis];
    for kind in [&["--links", "perf"][..], &["--links", "multi"], &["--raw-tracepoint"]] {
        let mut program = with_library(&library, &arguments);
        let pid = program.waits_before("start").unwrap();
        let observation = Observation::start(pid, kind).unwrap();
        let made = program.make().unwrap();
        let report = observation.stop().unwrap();
        let expected = made_after_start(&made, &library, &arguments, 2);
        assert_eq!(report.summary.calls.into_iter().collect::<Vec<_>>(), expected, "{kind:?}");
        assert_eq!((report.summary.launches.total, report.summary.copies["HtoD"].count), (600, 600));
        assert_eq!(report.summary.loss.lost, 0);
        wait::until("bytes as they were", || Ok((code::changed_bytes(pid)? == 0).then_some(()))).unwrap();
        program.end().unwrap();
    }
}
