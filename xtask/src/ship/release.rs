//! The release binary. In: the sources. Out: `target/release/gpuspan`, and what it asks of a machine, held against a limit.
//! Absent: a static binary. NVML is loaded by `dlopen`, which needs the C library that the driver was made for.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use super::elf::Needs;
use super::root;

/// Of RHEL 9, Amazon Linux 2023 and Ubuntu 22.04: the oldest C library beside a kernel that gpuspan runs on.
pub const OLDEST_GLIBC: [u32; 2] = [2, 34];
/// Libraries that every Linux with glibc has.
const LIBRARIES: [&str; 4] = ["libgcc_s.so.1", "libm.so.6", "libc.so.6", "ld-linux-x86-64.so.2"];

/// Arguments.
#[derive(clap::Args)]
pub struct Args {}

/// Builds the release binary and says what it needs.
///
/// # Errors
/// When it does not build, or needs more than the oldest machine has.
pub fn run(_: &Args) -> Result<()> {
    let path = build()?;
    let needs = Needs::of(&path)?;
    println!("{} ({} bytes)", path.display(), path.metadata()?.len());
    println!("  loader     {}", needs.loader.as_deref().unwrap_or("none"));
    println!("  libraries  {}", needs.libraries.join(" "));
    for family in ["GLIBC", "GCC"] {
        let newest = needs.newest(family).unwrap_or_default();
        let text: Vec<String> = newest.iter().map(u32::to_string).collect();
        let version = format!("{family}_{}", text.join("."));
        let symbols = needs.versions.get(&version).into_iter().flatten().map(String::as_str);
        println!("  {version}  {}", symbols.collect::<Vec<_>>().join(" "));
    }
    check(&needs)
}

/// Builds it.
///
/// # Errors
/// When it does not build.
pub fn build() -> Result<PathBuf> {
    let mut cargo = workload::cargo();
    cargo.args(["build", "--release", "--locked", "--package", "profiler", "--bin", "gpuspan"]);
    let status = cargo.current_dir(root()).status().context("cannot run cargo")?;
    ensure!(status.success(), "`cargo build --release` failed");
    Ok(root().join("target/release/gpuspan"))
}

/// Whether every machine that gpuspan is for has what it needs.
///
/// # Errors
/// What is too new or not there.
pub fn check(needs: &Needs) -> Result<()> {
    let newest = needs.newest("GLIBC").context("it does not use glibc")?;
    ensure!(
        newest.as_slice() <= OLDEST_GLIBC.as_slice(),
        "it needs glibc {newest:?}, newer than {OLDEST_GLIBC:?}: build on Debian 12"
    );
    let strange: Vec<&String> = needs
        .libraries
        .iter()
        .filter(|name| !LIBRARIES.contains(&name.as_str()) && !name.starts_with("ld-linux-aarch64"))
        .collect();
    ensure!(strange.is_empty(), "it needs libraries that not every machine has: {strange:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(library: &str, version: &str) -> Needs {
        let versions = [(version.to_owned(), ["f".to_owned()].into())].into();
        Needs { libraries: vec![library.to_owned()], versions, loader: None }
    }

    #[test]
    fn what_an_old_machine_lacks_is_refused() {
        assert!(check(&needs("libc.so.6", "GLIBC_2.34")).is_ok());
        assert!(check(&needs("libc.so.6", "GLIBC_2.35")).is_err());
        assert!(check(&needs("libssl.so.3", "GLIBC_2.34")).is_err());
    }
}
