//! Programs that make and judge what is shipped, from Debian's packages. In: their names. Out: commands that run them from
//! the user's cache. Absent: anything installed.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::debian::{Apt, unpack};
use crate::server::cache::Kept;

/// Packages with their suites: kustomize and umoci as new as they run on Debian 12's C library, runc with its library from
/// Debian 12 itself, since later ones want a later C library.
const PACKAGES: [&str; 4] =
    ["kustomize/forky", "umoci/trixie-backports", "runc/bookworm", "libseccomp2/bookworm"];
const SUITES: [&str; 3] = ["forky", "trixie-backports", "bookworm"];

/// A program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Renders the manifests.
    Kustomize,
    /// Writes and unpacks OCI images.
    Umoci,
    /// Runs what an image was unpacked to.
    Runc,
}

impl Tool {
    /// A command for it: the one that the user has, or one from the cache, which is filled the first time (10 MB, seconds).
    ///
    /// # Errors
    /// `debian::Unavailable` when this machine has no way to the packages.
    pub fn command(self) -> Result<Command> {
        let (folder, name, variable) = self.names();
        if let Some(path) = std::env::var_os(variable) {
            return Ok(Command::new(path));
        }
        let root = root()?;
        let mut command = Command::new(root.join(folder).join(name));
        let triple = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        command.env("LD_LIBRARY_PATH", root.join(triple));
        Ok(command)
    }

    /// Its folder and name in the package, and the variable that names one that the user has.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Kustomize => ("usr/bin", "kustomize", "GPUSPAN_KUSTOMIZE"),
            Self::Umoci => ("usr/bin", "umoci", "GPUSPAN_UMOCI"),
            Self::Runc => ("usr/sbin", "runc", "GPUSPAN_RUNC"),
        }
    }
}

fn root() -> Result<PathBuf> {
    let kept = Kept::open("ship-tools")?;
    kept.step("packages", &PACKAGES.join(" "), || {
        let work = kept.path("work");
        // What an attempt that was cut off has left may be incomplete.
        std::fs::remove_dir_all(&work).ok();
        Apt::new(&work, &SUITES)?.download(&PACKAGES, &work.join("packages"))?;
        unpack(&work.join("packages"), &kept.path("root"))?;
        std::fs::remove_dir_all(&work).context("failed to clean up")
    })?;
    Ok(kept.path("root"))
}
