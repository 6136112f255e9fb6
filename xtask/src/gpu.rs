//! `cargo xtask gpu`: one script that tries gpuspan on a machine with a GPU, and the run of it where there is one.
//!
//! In: the released program, `xtask/gpu/` (a shell header and Python). Out: a file to carry to such a machine, which
//! needs PyTorch there and neither Rust nor a network. What its table means: docs/gpu.md. Absent: a GPU.

mod pack;
mod wheels;

use crate::demo::{cargo, root};
use anyhow::{Context as _, Result, bail};
use pack::{Member, Script};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Packs the script, and runs it when this machine has an NVIDIA GPU.
#[derive(clap::Args)]
pub struct Args {
    /// Where to write the script.
    #[arg(long, value_name = "FILE", default_value = "target/gpu/gpuspan-gpu.sh")]
    out: PathBuf,
    /// Pack what `transformers serve` needs besides transformers, from PyPI, for this version of Python (such as
    /// 3.12); without it, a machine that lacks FastAPI is tried with a small server of our own.
    #[arg(long, value_name = "VERSION")]
    serving: Option<String>,
    /// Rehearse on the stand-in CUDA libraries, with the PyTorch that `cargo xtask server transformers` fetches.
    /// Shows that every stage runs; measures nothing of a GPU.
    #[arg(long)]
    simulate: bool,
    /// For the script, after `--`; `-- --help` lists them.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// What a machine with NVIDIA's driver has.
const DEVICE: &str = "/dev/nvidiactl";

/// Builds, packs, and runs where that makes sense.
pub fn run(args: &Args) -> Result<()> {
    cargo(&["build", "--quiet", "--release", "--package", "profiler"])?;
    let script = script(args.serving.as_deref())?;
    // Cargo may have started us in a package's folder.
    let out = root().join(&args.out);
    script.write(&out)?;
    println!("packed {}, {:.1} MB", out.display(), script.size() as f64 / 1e6);
    if args.simulate {
        return rehearse(&out, &args.arguments);
    }
    if Path::new(DEVICE).exists() {
        return execute(Command::new(&out).args(&args.arguments));
    }
    println!(
        "skipped: no NVIDIA GPU here ({DEVICE} is missing); run the script on a machine that has one, as root"
    );
    Ok(())
}

fn script(serving: Option<&str>) -> Result<Script> {
    let mut members = vec![program()?];
    members.extend(pack::folder(&root().join("xtask/gpu/gpucheck"), "gpucheck")?);
    if let Some(version) = serving {
        members.extend(wheels::members(version)?);
    }
    let header = root().join("xtask/gpu/run.sh");
    let header =
        std::fs::read_to_string(&header).with_context(|| format!("failed to read {}", header.display()))?;
    Script::new(&header, &members)
}

/// The released program, without symbols where `strip` is at hand: a fifth of the size.
fn program() -> Result<Member> {
    let built = root().join("target/release/gpuspan");
    let small = root().join("target/gpu/gpuspan");
    std::fs::create_dir_all(root().join("target/gpu")).context("failed to make target/gpu")?;
    let stripped = Command::new("strip").arg("-o").arg(&small).arg(&built).status();
    let path = if stripped.is_ok_and(|status| status.success()) { small } else { built };
    let bytes = std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(Member { name: "gpuspan".into(), executable: true, bytes })
}

fn rehearse(script: &Path, arguments: &[String]) -> Result<()> {
    let python = xtask::server::transformers::python()?;
    let standins = simgpu::library_dir(simgpu::Runtime::Cuda13);
    execute(
        Command::new(script).arg("--simulate").arg(standins).args(arguments).env("GPUSPAN_PYTHON", python),
    )
}

fn execute(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("failed to start {command:?}"))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => bail!("the script ended with {code}"),
        None => bail!("the script was ended by a signal"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Python side has tests of its own; they need nothing but Python.
    #[test]
    fn the_python_side_passes_its_tests() {
        let folder = root().join("xtask/gpu");
        let tests = Command::new("python3")
            .args([
                "-B",
                "-m",
                "unittest",
                "discover",
                "--start-directory",
                "tests",
                "--top-level-directory",
                ".",
            ])
            .current_dir(folder)
            .output();
        let Ok(tests) = tests else {
            println!("skipped: there is no python3 here");
            return;
        };
        let said = String::from_utf8_lossy(&tests.stderr).into_owned();
        assert!(tests.status.success(), "{said}");
        assert!(!said.contains("Ran 0 tests"), "{said}");
    }

    #[test]
    fn without_a_gpu_the_script_says_so_in_one_line_and_ends_well() {
        if Path::new(DEVICE).exists() || Command::new("python3").arg("--version").output().is_err() {
            println!("skipped: a GPU, or no python3");
            return;
        }
        let folder = std::env::temp_dir().join(format!("gpuspan-gpu-skip-{}", std::process::id()));
        let path = folder.join("gpu.sh");
        let members = pack::folder(&root().join("xtask/gpu/gpucheck"), "gpucheck").unwrap();
        let header = std::fs::read_to_string(root().join("xtask/gpu/run.sh")).unwrap();
        Script::new(&header, &members).unwrap().write(&path).unwrap();
        let output = Command::new(&path).env("TMPDIR", &folder).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        assert!(said.starts_with("skipped: no NVIDIA GPU") && said.lines().count() == 1, "{said}");
        let left: Vec<_> = std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path()).collect();
        assert_eq!(left, [path], "what it unpacked is gone");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
