//! The stand-in CUDA libraries, given to a server. In goes its command, out comes the same command with an environment
//! in which the loader finds the stand-ins where it would find NVIDIA's libraries. The servers are not changed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::process::library_path;

/// What PyTorch links to and loads by name, in the order in which the loader must know them.
const PRELOADED: [&str; 4] = ["libcuda.so.1", "libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13"];

/// For a program that finds its CUDA libraries by the loader's search path. `others` are further folders for it.
pub fn give(command: &mut Command, truth: &Path, others: &[&Path]) -> Result<()> {
    let stand_ins = libraries()?;
    let folders: Vec<&Path> = std::iter::once(stand_ins.as_path()).chain(others.iter().copied()).collect();
    command.env("LD_LIBRARY_PATH", library_path(&folders)?).env("SIMGPU_LOG_DIR", truth);
    Ok(())
}

/// For a program that finds its CUDA libraries by a path of its own: a library already loaded under the same name
/// comes first.
pub fn preload(command: &mut Command, truth: &Path) -> Result<()> {
    let stand_ins = libraries()?;
    give(command, truth, &[])?;
    let paths: Vec<String> =
        PRELOADED.iter().map(|name| stand_ins.join(name).display().to_string()).collect();
    command.env("LD_PRELOAD", paths.join(":"));
    Ok(())
}

/// The folder of the stand-ins.
fn libraries() -> Result<PathBuf> {
    std::env::var_os("SIMGPU_DIR").map(PathBuf::from).context("no stand-ins")
}
