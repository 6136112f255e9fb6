//! The Debian package. In: the program, `deploy/systemd`, the defaults of the agent's configuration. Out: a `.deb`, the same
//! bytes for the same input, made by Debian's own `dpkg-deb`. Absent: a source package; starting anything on a machine
//! that only installs it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::elf::Needs;
use super::manual;
use super::{Args, VERSION, epoch, output, root};
use crate::debian::finish;

/// Makes the package and says where it is.
///
/// # Errors
/// When it cannot be made.
pub fn run(args: &Args) -> Result<()> {
    let binary = args.binary()?;
    println!("{}", build(&binary, &output())?.display());
    Ok(())
}

/// Makes the package of `binary` in the folder `to`.
///
/// # Errors
/// When a file is missing, or this machine has no `dpkg-deb`.
pub fn build(binary: &Path, to: &Path) -> Result<PathBuf> {
    fs::create_dir_all(to)?;
    let stage = to.join("package");
    if stage.exists() {
        fs::remove_dir_all(&stage).with_context(|| format!("cannot clear {}", stage.display()))?;
    }
    files(binary, &stage)?;
    control(binary, &stage)?;
    let package = to.join(format!("gpuspan_{VERSION}_{}.deb", architecture()?));
    let mut command = Command::new("dpkg-deb");
    // One thread: more of them make other bytes.
    command
        .args(["--root-owner-group", "--threads-max=1", "-Zzstd", "-z9", "--build"])
        .arg(&stage)
        .arg(&package);
    finish(command.env("SOURCE_DATE_EPOCH", epoch()?.to_string()))?;
    fs::remove_dir_all(&stage)?;
    Ok(package)
}

fn files(binary: &Path, stage: &Path) -> Result<()> {
    let deploy = root().join("deploy");
    for (from, to, mode) in [
        (binary.to_owned(), "usr/bin/gpuspan", 0o755),
        (deploy.join("systemd/gpuspan-agent.service"), "usr/lib/systemd/system/gpuspan-agent.service", 0o644),
        (deploy.join("systemd/gpuspan-agent.default"), "etc/default/gpuspan-agent", 0o600),
        (deploy.join("agent/config.yaml"), "etc/gpuspan/agent.yaml", 0o644),
        (root().join("README.md"), "usr/share/doc/gpuspan/README.md", 0o644),
        (root().join("CHANGELOG.md"), "usr/share/doc/gpuspan/CHANGELOG.md", 0o644),
        (root().join("LICENSE-GPL2"), "usr/share/doc/gpuspan/LICENSE-GPL2", 0o644),
        (root().join("LICENSE-MIT"), "usr/share/doc/gpuspan/LICENSE-MIT", 0o644),
        (root().join("LICENSE-APACHE"), "usr/share/doc/gpuspan/LICENSE-APACHE", 0o644),
    ] {
        put(
            &stage.join(to),
            &fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?,
            mode,
        )?;
    }
    for (path, content) in manual::files()? {
        put(&stage.join(path), &content, 0o644)?;
    }
    for page in fs::read_dir(root().join("docs"))? {
        let page = page?.path();
        if page.extension().is_some_and(|extension| extension == "md") {
            let name = page.file_name().context("a page without a name")?;
            put(&stage.join("usr/share/doc/gpuspan/docs").join(name), &fs::read(&page)?, 0o644)?;
        }
    }
    Ok(())
}

fn control(binary: &Path, stage: &Path) -> Result<()> {
    let newest = Needs::of(binary)?.newest("GLIBC").context("the program does not use glibc")?;
    let glibc: Vec<String> = newest.iter().map(u32::to_string).collect();
    let fields = format!(
        "Package: gpuspan\nVersion: {VERSION}\nArchitecture: {}\nSection: admin\nPriority: optional\n\
         Maintainer: gpuspan <{}>\nHomepage: {}\n\
         Depends: libc6 (>= {}), libgcc-s1 (>= 4.2)\nRecommends: ca-certificates\n\
         Description: zero-instrumentation eBPF profiler for GPU model servers\n \
         Shows requests, tokens and GPU work of unmodified model servers, as OpenTelemetry\n \
         traces and metrics. The service gpuspan-agent finds the servers of a machine by itself.\n",
        architecture()?,
        env!("CARGO_PKG_REPOSITORY"),
        env!("CARGO_PKG_REPOSITORY"),
        glibc.join("."),
    );
    let debian = root().join("deploy/systemd/debian");
    put(&stage.join("DEBIAN/control"), fields.as_bytes(), 0o644)?;
    put(&stage.join("DEBIAN/conffiles"), b"/etc/default/gpuspan-agent\n/etc/gpuspan/agent.yaml\n", 0o644)?;
    for script in ["postinst", "prerm", "postrm"] {
        put(&stage.join("DEBIAN").join(script), &fs::read(debian.join(script))?, 0o755)?;
    }
    Ok(())
}

fn put(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(fs::set_permissions(path, Permissions::from_mode(mode))?)
}

fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => anyhow::bail!("there is no package for {other}"),
    }
}
