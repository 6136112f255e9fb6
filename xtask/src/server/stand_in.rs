//! The stand-in CUDA libraries, given to a server. In goes its command, out comes the same command with an environment
//! in which the loader finds the stand-ins where it would find NVIDIA's libraries. The servers are not changed.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use simgpu::{Environment, Runtime};

use super::process::library_path;

/// What PyTorch links to and loads by name.
const PRELOADED: [&str; 5] =
    ["libcuda.so.1", "libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libnvidia-ml.so.1"];

/// For a program that finds its CUDA libraries by the loader's search path. `others` are further folders for it.
pub fn give(command: &mut Command, runtime: Runtime, truth: &Path, others: &[&Path]) -> Result<()> {
    let settings = Environment { log_dir: Some(truth.to_path_buf()), ..Environment::default() };
    command.envs(simgpu::command_env(runtime, &settings));
    let folders: Vec<&Path> =
        std::iter::once(simgpu::library_dir(runtime)).chain(others.iter().copied()).collect();
    command.env("LD_LIBRARY_PATH", library_path(&folders)?);
    Ok(())
}

/// For a program that finds its CUDA libraries by a path of its own: a library already loaded under the same name
/// comes first.
pub fn preload(command: &mut Command, truth: &Path) -> Result<()> {
    give(command, Runtime::Cuda13, truth, &[])?;
    let folder = simgpu::library_dir(Runtime::Cuda13);
    let paths: Vec<String> = PRELOADED.iter().map(|name| folder.join(name).display().to_string()).collect();
    command.env("LD_PRELOAD", paths.join(":"));
    Ok(())
}
