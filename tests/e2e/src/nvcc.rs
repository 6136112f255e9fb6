//! NVIDIA's compiler, and programs built with it: PyPI → `${XDG_CACHE_HOME:-~/.cache}/gpuspan/nvcc/` → [`Nvcc`].
//!
//! The compiler is NVIDIA's. It comes from the Python registry at test time and is never part of this repository.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::program::run_command;

/// Whose files together are a compiler. They share one folder in the wheels, `nvidia/cu13`.
const WHEELS: [&str; 5] = [
    "nvidia-cuda-nvcc==13.5.37",
    "nvidia-nvvm==13.5.37",
    "nvidia-cuda-crt==13.5.37",
    "nvidia-cuda-runtime==13.5.37",
    "nvidia-cuda-cccl==13.3.5.0.6",
];
const VERSION: &str = "13.5.37";

/// A compiler.
#[derive(Clone, Debug)]
pub struct Nvcc(PathBuf);

/// How the runtime comes into a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cudart {
    /// `libcudart.so.13` is loaded.
    Shared,
    /// It is linked into the program.
    Static,
}

/// What to build.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    /// How the runtime comes in.
    pub cudart: Cudart,
    /// Without symbols.
    pub stripped: bool,
    /// Launches name their host function, as with CUDA 12, and not a handle.
    pub legacy_launch: bool,
}

impl Nvcc {
    /// The compiler, downloaded on the first use.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn provide() -> Result<Self> {
        ensure!(cfg!(target_arch = "x86_64"), "its wheels are looked for on x86-64 only");
        let tree = cached(&format!("nvcc/{VERSION}"), "nvidia/cu13", &WHEELS, &[], prepare)?;
        Ok(Self(tree))
    }

    /// Compiles `source` into `folder`.
    ///
    /// # Errors
    /// When the compiler fails.
    pub fn build(&self, source: &Path, build: Build, folder: &Path) -> Result<PathBuf> {
        let program = folder.join(build.name());
        let mut command = Command::new(self.0.join("bin/nvcc"));
        command.args(["--cudart", if build.cudart == Cudart::Shared { "shared" } else { "static" }]);
        command.args(build.legacy_launch.then_some("-legacy-launch-seq"));
        run(command.arg("-o").arg(&program).arg(source))?;
        if build.stripped {
            run(Command::new("strip").arg(&program))?;
        }
        Ok(program)
    }

    /// The folder of NVIDIA's own `libcudart.so.13`.
    #[must_use]
    pub fn library_dir(&self) -> PathBuf {
        self.0.join("lib")
    }
}

impl Build {
    /// Says what it is.
    #[must_use]
    pub fn name(self) -> String {
        let cudart = if self.cudart == Cudart::Shared { "shared" } else { "static" };
        let launch = if self.legacy_launch { "-legacy" } else { "" };
        let stripped = if self.stripped { "-stripped" } else { "" };
        format!("{cudart}{launch}{stripped}")
    }
}

/// NVIDIA's `libcudart.so.13` for aarch64, downloaded on the first use.
///
/// # Errors
/// When it cannot be had.
pub fn aarch64_runtime() -> Result<PathBuf> {
    let platform = ["--platform", "manylinux2014_aarch64", "--platform", "manylinux_2_17_aarch64"];
    let wheel = format!("nvidia-cuda-runtime=={VERSION}");
    let tree =
        cached(&format!("libcudart-aarch64/{VERSION}"), "nvidia/cu13", &[&wheel], &platform, |_| Ok(()))?;
    Ok(tree.join("lib/libcudart.so.13"))
}

/// The folder `inside` of these wheels together, from `${XDG_CACHE_HOME:-~/.cache}/gpuspan/` or from the registry.
fn cached(
    name: &str,
    inside: &str,
    wheels: &[&str],
    platform: &[&str],
    prepare: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let kept = cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("gpuspan").join(name);
    if kept.exists() {
        return Ok(kept);
    }
    let folder = kept.parent().context("the cache has no folder")?;
    fs::create_dir_all(folder)?;
    // Beside its place and renamed, so that an interrupted download is never taken for a whole one.
    let work = TempDir::new_in(folder)?;
    download(work.path(), wheels, platform)?;
    let tree = work.path().join(inside);
    prepare(&tree)?;
    // Another test process may have been faster; what it got is as good.
    if let Err(error) = fs::rename(&tree, &kept) {
        ensure!(kept.exists(), "failed to rename {}: {error}", tree.display());
    }
    Ok(kept)
}

/// Puts the contents of all wheels into `folder`.
fn download(folder: &Path, names: &[&str], platform: &[&str]) -> Result<()> {
    let wheels = folder.join("wheels");
    let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"];
    run(Command::new("python3").args(pip).arg(&wheels).args(platform).args(names))?;
    for wheel in fs::read_dir(&wheels)? {
        run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel?.path()).arg(folder))?;
    }
    Ok(())
}

/// What a wheel cannot carry: executable bits, and the link that the linker looks for.
fn prepare(tree: &Path) -> Result<()> {
    for folder in ["bin", "nvvm/bin"] {
        for entry in fs::read_dir(tree.join(folder))? {
            let path = entry?.path();
            if path.is_file() && path.extension() != Some(OsStr::new("profile")) {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            }
        }
    }
    std::os::unix::fs::symlink("libcudart.so.13", tree.join("lib/libcudart.so"))?;
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let ended = run_command(command)?;
    ensure!(ended.code == Some(0), "{command:?}: {}{}", ended.stdout.trim(), ended.stderr.trim());
    Ok(())
}
