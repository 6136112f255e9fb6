//! The OCI image, made of nothing but files. In: the program, and Debian's packages of the libraries that it needs. Out: an
//! OCI layout and an archive of it, the same bytes for the same input. Absent: a shell, a package manager, a base image.
//!
//! umoci writes the layout, so that no registry and no daemon takes part.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::elf::Needs;
use super::tools::Tool;
use super::tree::{Tree, archive};
use super::{Args, VERSION, created, epoch, output, root, sbom};
use crate::debian::{Apt, finish, unpack};
use crate::server::cache::Kept;

/// Whose C library is as old as the one that releases are built on.
const SUITE: &str = "bookworm";
/// `gcc-12-base` has the licence of `libgcc-s1`.
const PACKAGES: [&str; 4] = ["libc6", "libgcc-s1", "gcc-12-base", "ca-certificates"];
/// What the driver's NVML loads beyond what gpuspan itself needs.
const OF_NVML: [&str; 3] = ["libdl.so.2", "libpthread.so.0", "librt.so.1"];

/// Makes the image and says where it is.
///
/// # Errors
/// When it cannot be made.
pub fn run(args: &Args) -> Result<()> {
    let binary = args.binary()?;
    let image = build(&binary, &output())?;
    println!("{}\n{}\n{}", image.archive.display(), image.layout.display(), image.digest);
    Ok(())
}

/// A finished image.
#[derive(Clone, Debug)]
pub struct Image {
    /// The layout as a folder; the image is tagged with the version.
    pub layout: PathBuf,
    /// The layout as one file.
    pub archive: PathBuf,
    /// Of its manifest.
    pub digest: String,
    /// What is in it, a line each.
    pub contents: BTreeSet<String>,
}

/// Makes the image of `binary` in the folder `to`, where an older one gives way.
///
/// # Errors
/// `debian::Unavailable` when this machine has no way to the packages.
pub fn build(binary: &Path, to: &Path) -> Result<Image> {
    fs::create_dir_all(to)?;
    let layout = to.join("image");
    if layout.exists() {
        fs::remove_dir_all(&layout).with_context(|| format!("cannot clear {}", layout.display()))?;
    }
    let debian = debian()?;
    let mut contents = sbom::packages(&debian.join("packages"))?;
    contents.extend(sbom::crates()?);
    let layer = to.join("layer.tar");
    tree(binary, &debian, &contents)?.tar(File::create(&layer)?, epoch()?)?;
    write_layout(&layout, &layer)?;
    fs::remove_file(&layer)?;
    let archived = to.join(format!("gpuspan-{VERSION}-{}.oci.tar", architecture()));
    archive(&layout, &archived, epoch()?)?;
    Ok(Image { digest: digest(&layout)?, layout, archive: archived, contents })
}

/// The packages, and what they unpack to.
fn debian() -> Result<PathBuf> {
    let kept = Kept::open("image")?;
    kept.step("packages", &PACKAGES.join(" "), || {
        for part in ["packages", "root", "work"] {
            // Left by an attempt that was cut off.
            fs::remove_dir_all(kept.path(part)).ok();
        }
        Apt::new(&kept.path("work"), &[SUITE])?.download(&PACKAGES, &kept.path("packages"))?;
        unpack(&kept.path("packages"), &kept.path("root"))?;
        fs::remove_dir_all(kept.path("work")).context("failed to clean up")
    })?;
    Ok(kept.path("."))
}

/// All that is in the image.
fn tree(binary: &Path, debian: &Path, contents: &BTreeSet<String>) -> Result<Tree> {
    let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let mut tree = Tree::default();
    // Where loaders and libraries are looked for, whatever a distribution calls the folder: container toolkits bring the
    // driver's libraries to one or the other.
    tree.link("lib", "usr/lib");
    tree.link("lib64", &libraries);
    tree.link("usr/lib64", libraries.trim_start_matches("usr/"));
    tree.copy("usr/bin/gpuspan", binary, 0o755)?;
    for name in closure(binary, debian)? {
        tree.copy(&format!("{libraries}/{name}"), &library(debian, &name)?, 0o755)?;
    }
    tree.file("etc/ssl/certs/ca-certificates.crt", certificates(debian)?, 0o644);
    for package in PACKAGES {
        let licence = debian.join("root/usr/share/doc").join(package).join("copyright");
        tree.copy(&format!("usr/share/doc/{package}/copyright"), &licence, 0o644)?;
    }
    for licence in ["LICENSE-MIT", "LICENSE-APACHE", "LICENSE-GPL2"] {
        tree.copy(&format!("usr/share/doc/gpuspan/{licence}"), &root().join(licence), 0o644)?;
    }
    let lines: String = contents.iter().map(|line| format!("{line}\n")).collect();
    tree.file("usr/share/doc/gpuspan/contents.txt", lines, 0o644);
    // Places that are mounted over, since the root file system may be read-only.
    for folder in ["etc/gpuspan", "proc", "sys", "dev", "run/gpuspan", "tmp", "var/cache"] {
        tree.folder(folder);
    }
    Ok(tree)
}

/// Names of all libraries that the program needs, directly or not, with the loader and what NVML needs.
fn closure(binary: &Path, debian: &Path) -> Result<BTreeSet<String>> {
    let needs = Needs::of(binary)?;
    let loader = needs.loader.context("the program has no loader")?;
    let loader = loader.rsplit('/').next().unwrap_or_default().to_owned();
    let mut open: Vec<String> = OF_NVML.iter().map(|name| (*name).to_owned()).collect();
    open.extend(needs.libraries);
    open.push(loader);
    let mut names = BTreeSet::new();
    while let Some(name) = open.pop() {
        if names.insert(name.clone()) {
            open.extend(Needs::of(&library(debian, &name)?)?.libraries);
        }
    }
    Ok(names)
}

/// Where a library lies in the packages.
fn library(debian: &Path, name: &str) -> Result<PathBuf> {
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let places = ["lib", "usr/lib"].map(|place| debian.join("root").join(place).join(&triple).join(name));
    let found = places.into_iter().find(|path| path.exists());
    found.with_context(|| format!("{name} is in none of {PACKAGES:?}"))
}

/// One file with all of Mozilla's roots, as `update-ca-certificates` makes it.
fn certificates(debian: &Path) -> Result<Vec<u8>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(debian.join("root/usr/share/ca-certificates/mozilla"))? {
        paths.push(entry?.path());
    }
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        all.extend(fs::read(path)?);
    }
    Ok(all)
}

fn write_layout(layout: &Path, layer: &Path) -> Result<()> {
    let created = created()?;
    let image = format!("{}:{VERSION}", layout.display());
    let umoci = |arguments: &[&str]| finish(Tool::Umoci.command()?.args(arguments));
    umoci(&["init", "--layout", &layout.display().to_string()])?;
    umoci(&["new", "--image", &image])?;
    let layer = layer.display().to_string();
    umoci(&[
        "raw",
        "add-layer",
        "--image",
        &image,
        "--history.created",
        &created,
        "--history.created_by",
        "gpuspan",
        &layer,
    ])?;
    let mut configure =
        vec!["config", "--image", &image, "--no-history", "--created", &created, "--os", "linux"];
    configure.extend([
        "--architecture",
        architecture(),
        "--config.entrypoint",
        "/usr/bin/gpuspan",
        "--config.cmd",
        "--help",
    ]);
    // Added capabilities reach only root, wherever there are no ambient ones.
    configure.extend(["--config.user", "0:0"]);
    let labels = [
        ("title", "gpuspan"),
        ("description", "Zero-instrumentation eBPF profiler for GPU model servers"),
        ("version", VERSION),
        ("licenses", "(MIT OR Apache-2.0) AND GPL-2.0-only"),
        ("source", env!("CARGO_PKG_REPOSITORY")),
        ("created", &created),
    ];
    let labels = labels.map(|(name, value)| format!("org.opencontainers.image.{name}={value}"));
    for label in &labels {
        configure.extend(["--config.label", label]);
    }
    umoci(&configure)?;
    umoci(&["gc", "--layout", &layout.display().to_string()])
}

/// As OCI and Debian call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Of the image's manifest, from the layout's index.
fn digest(layout: &Path) -> Result<String> {
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
    let digest = index.pointer("/manifests/0/digest").and_then(Value::as_str);
    Ok(digest.context("the index of the layout names no image")?.to_owned())
}
