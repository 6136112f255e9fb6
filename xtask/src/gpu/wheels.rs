//! What `transformers serve` imports and a machine for training lacks. In: a version of Python. Out: files to carry, as
//! PyPI has them for x86-64 Linux. Used there only where they are missing. Absent: PyTorch and transformers.

use super::pack::{self, Member};
use crate::demo::root;
use anyhow::{Context as _, Result, ensure};
use std::process::Command;

/// Checked together by `is_serve_available` of transformers (5.17 to 5.23).
const PACKAGES: [&str; 3] = ["fastapi", "uvicorn", "openai"];
/// The names under which wheels with compiled parts are published, oldest C library first.
const PLATFORMS: [&str; 3] = ["manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64"];

/// The packages with what they need, below `site`.
pub fn members(version: &str) -> Result<Vec<Member>> {
    let folder = root().join("target/gpu").join(format!("site-{version}"));
    if !folder.exists() {
        fetch(version, &folder)?;
    }
    pack::folder(&folder, "site")
}

fn fetch(version: &str, folder: &std::path::Path) -> Result<()> {
    let partial = folder.with_extension("partial");
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        "--only-binary=:all:",
        "--implementation",
        "cp",
    ]);
    // A separate folder disturbs nothing, whatever pip thinks of this machine's own packages.
    pip.args(["--no-warn-conflicts", "--root-user-action=ignore", "--python-version", version]);
    for platform in PLATFORMS {
        pip.args(["--platform", platform]);
    }
    let status = pip.arg("--target").arg(&partial).args(PACKAGES).status().context("failed to start pip")?;
    ensure!(status.success(), "pip cannot get {} for Python {version}", PACKAGES.join(", "));
    std::fs::rename(&partial, folder).with_context(|| format!("failed to make {}", folder.display()))
}
