//! `cargo xtask ebpf`: the kernel side, compiled for each machine.
//!
//! In go the sources of `profiler-ebpf`; out come the objects in `profiler-ebpf/prebuilt/`, which a plain
//! `cargo build` embeds, so that nobody who builds gpuspan needs a BPF toolchain. `--check` proves that what is
//! there is what the sources make: the same toolchain makes the same bytes on every machine and in every folder.

mod toolchain;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use self::toolchain::Toolchain;

/// BPF of little-endian machines, which both are.
const TARGET: &str = "bpfel-unknown-none";

/// The machines whose registers the kernel side knows.
const MACHINES: [&str; 2] = ["x86_64", "aarch64"];

/// Instructions of version 3 (Linux 5.12): atomic operations that return what was there.
const CPU: &str = "v3";

/// What decides the bytes, spelt out so that neither the workspace's profile nor the user's environment does.
/// Debug information and BTF carry paths and are left out.
const PREBUILT_PROFILE: [&str; 9] = [
    "opt-level=3",
    "debug=0",
    "lto=false",
    "codegen-units=1",
    "panic=\"abort\"",
    "strip=false",
    "debug-assertions=false",
    "overflow-checks=false",
    "incremental=false",
];

/// Build the kernel side into `profiler-ebpf/prebuilt/`, or check that what is there is up to date.
#[derive(clap::Args)]
pub struct Args {
    /// Build elsewhere and fail when `profiler-ebpf/prebuilt/` holds other bytes. Writes nothing there. Without a
    /// BPF toolchain, and no way to get one, nothing is checked and the command says SKIPPED.
    #[arg(long, conflicts_with = "debug")]
    check: bool,
    /// Build with log lines and debug information, into `target/ebpf/`. The prebuilt objects stay as they are.
    #[arg(long)]
    debug: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let root = workspace();
    if args.check {
        return check(&root);
    }
    let toolchain = toolchain::provide(&root)?;
    let build = Build { root: &root, toolchain: &toolchain, debug: args.debug };
    for machine in MACHINES {
        let built = build.run(machine, &target_dir(&root))?;
        let kept = if args.debug { debug_object(&root, machine) } else { prebuilt(&root, machine) };
        copy(&built, &kept)?;
        println!("built {}", kept.display());
    }
    Ok(())
}

fn check(root: &Path) -> Result<()> {
    let toolchain = match toolchain::provide(root) {
        Ok(toolchain) => toolchain,
        Err(why) => {
            println!("ebpf --check: SKIPPED, nothing was compared: {why:#}");
            return Ok(());
        }
    };
    let elsewhere = Scratch::new()?;
    let build = Build { root, toolchain: &toolchain, debug: false };
    let mut stale = Vec::new();
    for machine in MACHINES {
        let built = build.run(machine, &elsewhere.0)?;
        let kept = prebuilt(root, machine);
        match difference(&read(&built)?, &read(&kept)?) {
            None => println!("ebpf --check: ok, {} is what the sources make", kept.display()),
            Some(how) => stale.push(format!("{} {how}", kept.display())),
        }
    }
    if !stale.is_empty() {
        bail!("the sources make other bytes: {}; run `cargo xtask ebpf` and commit", stale.join(", "));
    }
    Ok(())
}

fn difference(built: &[u8], kept: &[u8]) -> Option<String> {
    if built.len() != kept.len() {
        return Some(format!("has {} bytes instead of {}", kept.len(), built.len()));
    }
    let at = built.iter().zip(kept).position(|(a, b)| a != b)?;
    Some(format!("differs from byte {at} on"))
}

/// One way to compile the kernel side.
struct Build<'a> {
    root: &'a Path,
    toolchain: &'a Toolchain,
    debug: bool,
}

impl Build<'_> {
    /// Compiles for `machine` and returns the object's path, which the next build overwrites.
    ///
    /// All machines share a folder, because what runs while building is the same for all.
    fn run(&self, machine: &str, target_dir: &Path) -> Result<PathBuf> {
        let mut cargo = self.toolchain.cargo();
        cargo
            .current_dir(self.root)
            .args(["build", "--release", "--locked", "--package", "profiler-ebpf"])
            // A target without a shipped standard library: `core` is compiled along, for which a stable compiler
            // must be told to accept unstable options.
            .args(["--target", TARGET, "-Z", "build-std=core"])
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags(machine).join("\x1f"));
        for setting in PREBUILT_PROFILE {
            cargo.arg("--config").arg(format!("profile.release.{setting}"));
        }
        if self.debug {
            cargo.args(["--features", "log", "--config", "profile.release.debug=2"]);
        }
        run_command(&mut cargo).with_context(|| format!("failed to build the kernel side for {machine}"))?;
        Ok(target_dir.join(TARGET).join("release/profiler-ebpf"))
    }

    fn rustflags(&self, machine: &str) -> Vec<String> {
        let mut flags = vec![
            "--cfg".to_owned(),
            format!("bpf_target_arch=\"{machine}\""),
            "--check-cfg".to_owned(),
            format!("cfg(bpf_target_arch, values(\"{}\"))", MACHINES.join("\", \"")),
            format!("-Ctarget-cpu={CPU}"),
            format!("-Clinker={}", self.toolchain.linker.display()),
        ];
        if self.debug {
            flags.push("-Clink-arg=--btf".to_owned());
        }
        flags
    }
}

/// Runs a command to its end; its output goes where ours goes.
fn run_command(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("failed to start {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Where this command builds: beside what cargo builds, in a folder of its own.
fn target_dir(root: &Path) -> PathBuf {
    let cargo_dir = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    root.join(cargo_dir).join("ebpf")
}

fn prebuilt(root: &Path, machine: &str) -> PathBuf {
    root.join(format!("profiler-ebpf/prebuilt/gpuspan-{machine}.bpf.o"))
}

fn debug_object(root: &Path, machine: &str) -> PathBuf {
    target_dir(root).join(format!("gpuspan-{machine}.bpf.o"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("failed to read {}", path.display()))
}

/// Copies the bytes alone: cargo's output is executable, an object is not.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    }
    fs::write(to, read(from)?).with_context(|| format!("failed to write {}", to.display()))
}

/// A folder that goes away with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("gpuspan-ebpf-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("failed to make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be deleted in the folder for temporary files is left to whoever clears that folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn a_difference_is_told_by_its_kind() {
        assert_eq!(difference(b"abc", b"abc"), None);
        assert_eq!(difference(b"abc", b"ab").as_deref(), Some("has 2 bytes instead of 3"));
        assert_eq!(difference(b"abc", b"aXc").as_deref(), Some("differs from byte 1 on"));
    }
}
