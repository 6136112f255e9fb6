//! A real OpenTelemetry Collector, which judges what gpuspan exports. In: Debian's Go packages, from the mirror that
//! this machine uses. Out: a binary in the user's cache. Absent: anything installed, and any host's name.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::debian::{Apt, finish, unpack};
use crate::server::cache::folder;

/// Where the libraries are newest, and complete for a collector.
const LIBRARIES: &str = "sid";
/// Where a compiler new enough for them runs on Debian 12's C library too.
const COMPILER: &str = "trixie-backports";
const GO: &str = "1.26";
/// The packages' root of Go sources, as Debian lays it out.
const GOPATH: &str = "usr/share/gocode";
const MAIN: &str = include_str!("../collector/main.go");
const PACKAGES: &str = include_str!("../collector/packages.txt");

/// Arguments.
#[derive(clap::Args)]
pub struct Args {}

/// Prints the path of the collector, which is built first if there is none.
pub fn run(_: &Args) -> Result<()> {
    println!("{}", path()?.display());
    Ok(())
}

/// The collector's path: `GPUSPAN_OTELCOL`, or the cached one, or a new one, which takes two minutes. The error is
/// `debian::Unavailable` when this machine has no way to the packages.
pub fn path() -> Result<PathBuf> {
    if let Some(path) = env::var_os("GPUSPAN_OTELCOL") {
        return Ok(path.into());
    }
    let folder = folder("otelcol")?;
    // Another program or list of packages is another collector.
    let mut hasher = DefaultHasher::new();
    (MAIN, PACKAGES, LIBRARIES, COMPILER, GO).hash(&mut hasher);
    let binary = folder.join(format!("otelcol-{:016x}", hasher.finish()));
    if !binary.exists() {
        let work = folder.join(format!("work-{}", std::process::id()));
        let result = build(&work, &binary);
        // A failed attempt leaves nothing to build upon either: downloads are most of it, and may be incomplete.
        fs::remove_dir_all(&work).ok();
        result?;
    }
    Ok(binary)
}

fn build(work: &Path, binary: &Path) -> Result<()> {
    eprintln!("building an OpenTelemetry Collector from Debian packages; once, about two minutes");
    let apt = Apt::new(work, &[LIBRARIES, COMPILER])?;
    let compiler = ["go", "src"].map(|part| format!("golang-{GO}-{part}/{COMPILER}"));
    let mut packages: Vec<&str> = packages().collect();
    packages.extend(compiler.iter().map(String::as_str));
    apt.download(&packages, &work.join("packages"))?;
    unpack(&work.join("packages"), &work.join("root"))?;
    compile(work)?;
    fs::rename(work.join("otelcol"), binary)
        .with_context(|| format!("cannot move it to {}", binary.display()))
}

fn packages() -> impl Iterator<Item = &'static str> {
    PACKAGES.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

fn compile(work: &Path) -> Result<()> {
    let root = work.join("root");
    // Debian's sources have no modules: everything is found below GOPATH.
    let source = root.join(GOPATH).join("src/gpuspan/otelcol");
    fs::create_dir_all(&source)?;
    fs::write(source.join("main.go"), MAIN)?;
    let goroot = root.join(format!("usr/lib/go-{GO}"));
    let mut go = Command::new(goroot.join("bin/go"));
    go.args(["build", "-trimpath", "-ldflags", "-s -w", "-o"])
        .arg(work.join("otelcol"))
        .arg(".")
        .current_dir(&source);
    go.env("GOROOT", &goroot).env("GOPATH", root.join(GOPATH)).env("GOCACHE", work.join("objects"));
    for (name, value) in [
        ("GO111MODULE", "off"),
        ("GOFLAGS", ""),
        ("GOTOOLCHAIN", "local"),
        ("GOTELEMETRY", "off"),
        ("CGO_ENABLED", "0"),
    ] {
        go.env(name, value);
    }
    finish(&mut go)
}
