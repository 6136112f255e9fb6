//! The simulated device behaves as clients expect. In: the check program of `tests/programs`, run once per check and
//! CUDA version. Out: its verdicts. Absent: counts (`counts.rs`).

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use simgpu::{Environment, Runtime, Truth, calls_program, command_env};

fn checks() -> Command {
    Command::new(calls_program().with_file_name("device_checks"))
}

fn settings(log: &Path) -> Environment {
    Environment {
        devices: Some(2),
        log_dir: Some(log.to_owned()),
        kernel_times: vec![
            ("long_kernel".to_owned(), Duration::from_millis(20)),
            ("short_kernel".to_owned(), Duration::from_micros(100)),
        ],
        ..Environment::default()
    }
}

/// Time bounds are upper bounds too, and this machine may be busy: a check has three attempts.
fn check(runtime: Runtime, name: &str) -> Result<(), String> {
    let mut said = String::new();
    for _ in 0..3 {
        let log = tempfile::tempdir().unwrap();
        let output = checks().arg(name).envs(command_env(runtime, &settings(log.path()))).output().unwrap();
        if output.status.success() {
            return Ok(());
        }
        said = format!("{name} on {runtime:?}: {}{}", output.status, String::from_utf8_lossy(&output.stdout));
    }
    Err(said)
}

fn all(runtime: Runtime) {
    let list = checks().envs(command_env(runtime, &Environment::default())).output().unwrap().stdout;
    let list = String::from_utf8(list).unwrap();
    assert!(list.lines().count() >= 20, "the program lost checks: {list}");
    let failed: Vec<_> = list.lines().filter_map(|name| check(runtime, name).err()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn cuda_12_behaves() {
    all(Runtime::Cuda12);
}

#[test]
fn cuda_13_behaves() {
    all(Runtime::Cuda13);
}

#[test]
fn blas_is_seen_only_at_the_driver() {
    let log = tempfile::tempdir().unwrap();
    let mut program = checks();
    program.arg("blas_launches_on_its_stream").envs(command_env(Runtime::Cuda12, &settings(log.path())));
    assert!(program.output().unwrap().status.success());
    let total = Truth::read(log.path()).unwrap().total;
    assert_eq!(
        (total.call("cublasGemmEx"), total.call("cuLaunchKernel"), total.call("cudaLaunchKernel")),
        (1, 2, 0)
    );
    assert_eq!(total.kernels["sim_gemm"].launched, 2);
}

#[test]
fn a_missing_function_is_named() {
    let log = tempfile::tempdir().unwrap();
    let mut program = checks();
    program.arg("unsupported_says_so").envs(command_env(Runtime::Cuda13, &settings(log.path())));
    assert!(program.output().unwrap().status.success());
    let total = Truth::read(log.path()).unwrap().total;
    assert_eq!(total.unsupported(), ["cuTexRefCreate", "cudaGraphicsUnregisterResource"]);
}
