//! The management library answers from what ran. In: a process that keeps device memory and runs kernels. Out: NVML's
//! values, read by the client library that the profiler uses. Absent: values that are mere constants.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use nvml_wrapper::Nvml;
use nvml_wrapper::enums::device::UsedGpuMemory;
use simgpu::{Environment, Runtime, Truth, calls_program, command_env, library_dir};

/// One test: the library reads the log directory's name from the environment once, when it is loaded.
#[test]
fn values_follow_from_the_truth() {
    let log = tempfile::tempdir().unwrap();
    let settings = Environment { log_dir: Some(log.path().to_owned()), ..Environment::default() };
    let mut child = Command::new(calls_program())
        .args(["--times", "5000", "--wait-stdin"])
        .envs(command_env(Runtime::Cuda13, &settings))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();

    // SAFETY: this file's only test; no other thread reads the environment.
    unsafe { std::env::set_var("SIMGPU_LOG_DIR", log.path()) };
    let nvml = Nvml::builder()
        .lib_path(library_dir(Runtime::Cuda13).join("libnvidia-ml.so.1").as_os_str())
        .init()
        .unwrap();
    assert_eq!(nvml.device_count().unwrap(), 1);
    let device = nvml.device_by_index(0).unwrap();
    assert_eq!(device.uuid().unwrap(), "GPU-53494d47-5055-0000-0000-000000000000");
    assert_eq!(device.name().unwrap(), "Simulated GPU 24GB");
    assert_eq!(device.utilization_rates().unwrap().gpu, 0);
    let energy_before = device.total_energy_consumption().unwrap();
    let memory = device.memory_info().unwrap();
    assert_eq!((memory.total, memory.used), (24 << 30, 8192), "two buffers of 4096 bytes");
    let processes = device.running_compute_processes().unwrap();
    let found: Vec<_> =
        processes.iter().map(|process| (process.pid, process.used_gpu_memory.clone())).collect();
    assert_eq!(found, [(child.id(), UsedGpuMemory::Used(8192))]);

    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    lines.next().unwrap().unwrap();
    let busy_ns = Truth::read(log.path()).unwrap().total.fact("busy_ns");
    assert_eq!(busy_ns, 5000 * 20_000);
    assert!(device.utilization_rates().unwrap().gpu > 0);
    // 275 W above idle while anything ran; idle power went on meanwhile.
    let joules = (device.total_energy_consumption().unwrap() - energy_before) / 1000;
    assert!(joules >= 27, "{joules} J");
    assert!(device.power_usage().unwrap() > 25_000);

    child.kill().unwrap();
    child.wait().unwrap();
    assert!(device.running_compute_processes().unwrap().is_empty());
    assert_eq!(device.memory_info().unwrap().used, 0);
}
