//! Programs built by nvcc 13 with the runtime shared and linked in, with symbols and stripped, attached to before and
//! after their first launch. The shared ones run on the stand-in runtime, whose log has the truth. The linked-in
//! runtime is NVIDIA's own and refuses the stand-in driver; every call is made and fails, and is counted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use e2e::nvcc::{Build, Cudart, Nvcc};
use e2e::stage::{device, since};
use e2e::summary::{Coverage, Summary};
use e2e::{Calls, Observation, Report, or_skip};
use profiler::probe::CATALOG;
use profiler::symbol::demangle;
use simgpu::{Environment, Runtime, Totals, command_env};
use tempfile::TempDir;

use crate::checks::{device_agrees, nothing_lost};

const THREADS: &str = "2";
const TIMES: &str = "50";
const ROUNDS: u64 = 2 * 50;
/// Launches of one round, by the program's source.
const LAUNCHES: u64 = 11;

const SHARED: Build = Build { cudart: Cudart::Shared, stripped: false, legacy_launch: false };
const STATIC: Build = Build { cudart: Cudart::Static, stripped: false, legacy_launch: false };

/// The program, built once a test process; none and the reason when the compiler cannot be had.
pub fn program(build: Build) -> Result<PathBuf, String> {
    static BUILT: OnceLock<Result<(Nvcc, TempDir), String>> = OnceLock::new();
    let provide = || Ok((Nvcc::provide()?, TempDir::new()?));
    let provided = BUILT.get_or_init(|| provide().map_err(|error: anyhow::Error| format!("{error:#}")));
    let (nvcc, folder) = provided.as_ref().map_err(Clone::clone)?;
    let built = folder.path().join(build.name());
    if built.exists() {
        return Ok(built);
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../programs/kernels.cu");
    // That it compiles is no matter of luck.
    Ok(nvcc.build(&source, build, folder.path()).unwrap())
}

macro_rules! or_skip_without_nvcc {
    ($build:expr) => {
        match $crate::nvcc::program($build) {
            Ok(program) => program,
            Err(reason) => {
                println!("skipped: nvcc cannot be had: {reason}");
                return;
            }
        }
    };
}
pub(crate) use or_skip_without_nvcc;

/// A command for `program` on the stand-ins.
pub fn on_stand_ins(program: &Path, log: &Path) -> Command {
    let settings = Environment { log_dir: Some(log.to_owned()), ..Environment::default() };
    let mut command = Command::new(program);
    command.envs(command_env(Runtime::Cuda13, &settings));
    command
}

/// Attaches while the program waits, lets it make its calls, and returns what everybody counted.
fn observe(program: &Path, log: &Path, more: &[&str]) -> (Report, BTreeMap<String, u64>, u32) {
    let arguments = [&["--threads", THREADS, "--times", TIMES], more].concat();
    let mut program = Calls::start(on_stand_ins(program, log), &arguments).unwrap();
    let pid = program.waits_before("start").unwrap();
    let observation = Observation::start(pid, &[]).unwrap();
    let made = program.make().unwrap();
    let report = observation.stop().unwrap();
    program.end().unwrap();
    nothing_lost(&report.summary);
    let mut calls = made.calls;
    calls.retain(|name, _| CATALOG.iter().any(|api| api.symbol == name));
    (report, calls, pid)
}

/// Attached to before the first launch: the runtime's calls are the program's own; the driver is loaded by the first of
/// them, and seen from a moment later on, which changes no count of launches or copies.
fn shared_before_the_first_launch(build: Build) {
    or_skip!();
    let program = or_skip_without_nvcc!(build);
    let log = TempDir::new().unwrap();
    let (report, calls, pid) = observe(&program, log.path(), &[]);
    let made = device(log.path(), pid).unwrap();
    let summary = &report.summary;
    for (name, count) in &calls {
        assert_eq!(summary.call(name), *count, "{build:?}: {name}");
    }
    assert_eq!(
        (summary.launches.total, made.launches()),
        (ROUNDS * LAUNCHES, ROUNDS * LAUNCHES),
        "{build:?}"
    );
    assert_eq!(summary.copies("HtoH").count, ROUNDS);
    names_agree(build, &report, &made);
}

/// Attached to after the first launch of every kernel: every count is the stand-ins' own.
fn shared_after_the_first_launch(build: Build) {
    or_skip!();
    let program = or_skip_without_nvcc!(build);
    let log = TempDir::new().unwrap();
    let arguments = ["--before", "--threads", THREADS, "--times", TIMES];
    let mut program = Calls::start(on_stand_ins(&program, log.path()), &arguments).unwrap();
    let pid = program.waits_before("start").unwrap();
    let observation = Observation::start(pid, &[]).unwrap();
    let before = device(log.path(), pid).unwrap();
    program.make().unwrap();
    let made = since(&before, &device(log.path(), pid).unwrap());
    let report = observation.stop().unwrap();
    program.end().unwrap();
    assert_eq!(made.launches(), ROUNDS * LAUNCHES);
    device_agrees(&report.summary, &made);
    names_agree(build, &report, &made);
    nothing_lost(&report.summary);
}

/// Runs of every kernel by its name, which stripped programs have in their registration code. A kernel of C linkage is
/// called after its signature in the host's half of the program, and without one on the device.
fn names_agree(build: Build, report: &Report, made: &Totals) {
    let launches = &report.summary.launches;
    assert_eq!(launches.unnamed, 0, "{build:?}: {launches:#?}");
    let base = |name: &str| name.split('(').next().unwrap_or_default().to_owned();
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for kernel in &launches.by_kernel {
        let symbol = demangle(kernel.symbol.as_deref().unwrap());
        let name = if made.kernels.contains_key(&base(&symbol)) { base(&symbol) } else { symbol };
        *seen.entry(name).or_default() += kernel.count;
    }
    let truth = made.kernels.iter().filter(|(_, kernel)| kernel.launched > 0);
    let truth: BTreeMap<_, _> = truth.map(|(name, kernel)| (demangle(name), kernel.launched)).collect();
    assert_eq!(seen, truth, "{build:?}");
    assert_eq!(truth.len() as u64, LAUNCHES);
}

fn shared(build: Build) {
    shared_before_the_first_launch(build);
    shared_after_the_first_launch(build);
}

#[test]
fn shared_runtime() {
    shared(SHARED);
}

#[test]
fn shared_runtime_with_launches_by_host_function() {
    shared(Build { legacy_launch: true, ..SHARED });
}

#[test]
fn shared_runtime_without_symbols() {
    shared(Build { stripped: true, ..SHARED });
}

/// Every call is seen, although the runtime refuses to go on to the driver; what the host sends to the driver itself
/// from right beside it is not taken for the driver's half of a launch.
fn linked(build: Build) {
    or_skip!();
    let program = or_skip_without_nvcc!(build);
    for arguments in [&[][..], &["--before"], &["--driver"]] {
        let log = TempDir::new().unwrap();
        let (report, calls, _) = observe(&program, log.path(), arguments);
        let summary = &report.summary;
        for (name, count) in &calls {
            assert_eq!(summary.call(name), *count, "{build:?} {arguments:?}: {name}");
        }
        let by_driver = calls.get("cuLaunchKernel").copied().unwrap_or(0);
        assert_eq!(by_driver > 0, arguments.contains(&"--driver"));
        assert_eq!(summary.launches.total, ROUNDS * LAUNCHES + by_driver, "{build:?} {arguments:?}");
        assert_eq!(summary.copies("HtoH").count, ROUNDS);
        let host = host(summary, &program);
        assert_eq!(host.roles, ["linked-in CUDA runtime"]);
        assert!(host.attached > 0 && host.expensive.is_empty(), "{host:?}");
        if build.legacy_launch {
            // A handle is never made without a driver, but a host function is what it is.
            let named: u64 =
                summary.launches.by_kernel.iter().filter(|k| k.symbol.is_some()).map(|k| k.count).sum();
            assert_eq!(named, ROUNDS * LAUNCHES, "{:#?}", summary.launches);
        }
    }
}

#[test]
fn linked_in_runtime() {
    linked(STATIC);
}

#[test]
fn linked_in_runtime_with_launches_by_host_function() {
    linked(Build { legacy_launch: true, ..STATIC });
}

/// Nothing tells the runtime's code from the program's: what goes to the driver is counted, and the rest is said to
/// be unseen.
#[test]
fn linked_in_runtime_without_symbols() {
    or_skip!();
    let program = or_skip_without_nvcc!(Build { stripped: true, ..STATIC });
    let log = TempDir::new().unwrap();
    let (report, ..) = observe(&program, log.path(), &["--driver"]);
    let summary = &report.summary;
    assert_eq!(summary.call("cuLaunchKernel"), ROUNDS);
    assert!(summary.calls.keys().all(|name| !name.contains("cuda")), "{:?}", summary.calls);
    assert_eq!(summary.launches.total, ROUNDS);
    let host = host(summary, &program);
    assert_eq!(
        (host.attached, &host.roles[..]),
        (0, &["device code without a visible CUDA runtime".to_owned()][..])
    );
}

/// What was probed of the program itself.
fn host<'a>(summary: &'a Summary, program: &Path) -> &'a Coverage {
    summary.coverage.iter().find(|library| Path::new(&library.library) == program).unwrap()
}
