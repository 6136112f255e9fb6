//! What users install: the manifests against Kubernetes' schemas, the image as a container, the Debian package in a folder
//! of its own, the unit file, the collector's configuration under load. What makes them is `xtask::ship`.
//!
//! Absent: a cluster, a running systemd, and collectors with components from contrib, none of which can be had here.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]
#![expect(clippy::print_stdout, reason = "a test says why it cannot run here")]

mod chart;
mod image;
mod manifests;
mod package;
mod privileges;
mod scale;

use std::path::{Path, PathBuf};

/// The value, or nothing and why on standard output.
fn had<T>(result: anyhow::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        // Everything else is a failure of ours.
        Err(error) if error.chain().any(|cause| cause.is::<xtask::debian::Unavailable>()) => {
            println!("skipped: {error:#}");
            None
        }
        Err(error) => panic!("{error:#}"),
    }
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}
