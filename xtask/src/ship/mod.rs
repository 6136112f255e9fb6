//! What users install: the release binary, the Debian package, the image, the manifests. In: the sources and Debian's
//! packages. Out: files in `target/ship`. Absent: any upload, and any registry of images.

pub mod elf;
pub mod image;
pub mod manifests;
mod manual;
pub mod package;
pub mod release;
pub mod sbom;
pub mod tools;
mod tree;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// The version of everything.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What to pack.
#[derive(clap::Args)]
pub struct Args {
    /// The program to pack; without it, a release is built.
    #[arg(long)]
    binary: Option<PathBuf>,
}

impl Args {
    fn binary(&self) -> Result<PathBuf> {
        self.binary.clone().map_or_else(release::build, Ok)
    }
}

/// The workspace's folder.
#[must_use]
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Where results go that nobody named a place for.
#[must_use]
pub fn output() -> PathBuf {
    root().join("target/ship")
}

/// The time that all files are given, in seconds since 1970: `SOURCE_DATE_EPOCH`, or that of the last commit. With the time
/// of the build no two builds would be the same.
///
/// # Errors
/// When there is neither.
pub fn epoch() -> Result<u64> {
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        return epoch.parse().context("SOURCE_DATE_EPOCH is no number of seconds");
    }
    let git = Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(root()).output()?;
    ensure!(git.status.success(), "no last commit to take the time from: set SOURCE_DATE_EPOCH");
    String::from_utf8(git.stdout)?.trim().parse().context("git tells no time of the last commit")
}

/// The same as RFC 3339 has it.
fn created() -> Result<String> {
    let mut date = Command::new("date");
    date.args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d"]).arg(format!("@{}", epoch()?));
    let output = date.output().context("cannot run `date`")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
