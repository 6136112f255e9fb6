//! Wheels with other people's GPU libraries, as they come from PyPI: unpacked, never installed or run. In goes a pinned
//! requirement, out comes the folder of its files.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::cache::Kept;

/// The unpacked files of `requirement` (`name==version`) for a platform other than this machine's, or for this one.
///
/// # Errors
/// When the wheel cannot be had.
pub fn unpacked(folder: &'static str, requirement: &str, platform: Option<&str>) -> Result<PathBuf> {
    let kept = Kept::open(folder)?;
    let (wheels, files) = (kept.path("wheels"), kept.path("files"));
    kept.step("wheel", &format!("{requirement} {platform:?}"), || {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", requirement]);
        pip.args(platform.iter().flat_map(|platform| ["--platform", platform]));
        kept.run("wheel", pip.arg("--dest").arg(&wheels))?;
        for wheel in std::fs::read_dir(&wheels)? {
            let path = wheel?.path();
            kept.run("wheel", Command::new("python3").args(["-m", "zipfile", "-e"]).arg(path).arg(&files))?;
        }
        Ok(())
    })?;
    Ok(files)
}
