//! What a child process needs to use the stand-ins. In: the wanted settings. Out: paths and environment pairs. Absent:
//! starting the child.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The major version of the CUDA runtime that a client was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// `libcudart.so.12`, `libcublas.so.12`, `libcublasLt.so.12`.
    Cuda12,
    /// `libcudart.so.13`, `libcublas.so.13`, `libcublasLt.so.13`.
    Cuda13,
}

const OUT_DIR: &str = env!("SIMGPU_OUT_DIR");

/// The folder to put on `LD_LIBRARY_PATH`: the runtime and cuBLAS of that version, `libcuda.so.1`, `libnvidia-ml.so.1`.
#[must_use]
pub fn library_dir(runtime: Runtime) -> &'static Path {
    Path::new(match runtime {
        Runtime::Cuda12 => concat!(env!("SIMGPU_OUT_DIR"), "/cuda12"),
        Runtime::Cuda13 => concat!(env!("SIMGPU_OUT_DIR"), "/cuda13"),
    })
}

/// The program that makes an exactly known number of calls (`tests/programs/calls`); `--help` lists its flags.
#[must_use]
pub fn calls_program() -> PathBuf {
    Path::new(OUT_DIR).join("programs/calls")
}

/// The server whose every system call is asked for (`tests/programs/sockets`).
#[must_use]
pub fn sockets_program() -> PathBuf {
    Path::new(OUT_DIR).join("programs/sockets")
}

/// Settings of the simulated device. Everything that is `None` or empty keeps the libraries' default.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Where each process keeps its truth; must exist. Without it nothing can be read afterwards.
    pub log_dir: Option<PathBuf>,
    /// Also record each operation ([`crate::ops`]).
    pub ops: bool,
    /// How long a kernel runs (20 µs).
    pub kernel_time: Option<Duration>,
    /// Run times by kernel name: a glob, or a part of the name. The first match decides.
    pub kernel_times: Vec<(String, Duration)>,
    /// Nanoseconds for each KiB copied (80, that is 12.8 GB/s).
    pub copy_ns_per_kib: Option<u64>,
    /// How many devices (1, at most 8).
    pub devices: Option<u32>,
    /// Memory of each device in MiB (24576).
    pub memory_mib: Option<u64>,
    /// What a device says it can do, such as 90 (86): from 90 on it has performance metrics (GPM).
    pub compute_capability: Option<u32>,
    /// What the management library is told ([`crate::Told`]).
    pub nvml: Option<PathBuf>,
}

impl Environment {
    /// As variables: for a child on the stand-ins, and for whoever loads the management library only.
    #[must_use]
    pub fn pairs(&self) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        let mut set = |name: &str, value: Option<String>| {
            pairs.extend(value.map(|value| (name.to_owned(), value)));
        };
        set("SIMGPU_LOG_DIR", self.log_dir.as_ref().map(|dir| dir.display().to_string()));
        set("SIMGPU_OPS", self.ops.then(|| "1".to_owned()));
        set("SIMGPU_KERNEL_NS", self.kernel_time.map(|time| time.as_nanos().to_string()));
        let times: Vec<_> =
            self.kernel_times.iter().map(|(name, time)| format!("{name}={}", time.as_nanos())).collect();
        set("SIMGPU_KERNELS", (!times.is_empty()).then(|| times.join(",")));
        set("SIMGPU_COPY_NS_PER_KIB", self.copy_ns_per_kib.map(|ns| ns.to_string()));
        set("SIMGPU_DEVICES", self.devices.map(|count| count.to_string()));
        set("SIMGPU_MEMORY_MIB", self.memory_mib.map(|mib| mib.to_string()));
        set("SIMGPU_COMPUTE_CAPABILITY", self.compute_capability.map(|capability| capability.to_string()));
        set("SIMGPU_NVML", self.nvml.as_ref().map(|path| path.display().to_string()));
        pairs
    }
}

/// The environment pairs for a child: the stand-ins first on `LD_LIBRARY_PATH`, and the settings.
#[must_use]
pub fn command_env(runtime: Runtime, settings: &Environment) -> Vec<(String, String)> {
    let mut path = library_dir(runtime).display().to_string();
    if let Ok(inherited) = std::env::var("LD_LIBRARY_PATH") {
        path = format!("{path}:{inherited}");
    }
    let mut pairs = vec![("LD_LIBRARY_PATH".to_owned(), path)];
    pairs.extend(settings.pairs());
    pairs
}
