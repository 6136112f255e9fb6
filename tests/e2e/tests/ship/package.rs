//! The Debian package in a folder of its own, and the unit that it brings.

use std::path::Path;
use std::process::{Command, Output};

use e2e::program;
use tempfile::TempDir;
use xtask::ship::package;

use crate::deploy;

#[test]
fn the_package_installs_and_goes() {
    e2e::or_skip!();
    if !has("dpkg-deb") {
        println!("skipped: no dpkg-deb (Debian package dpkg)");
        return;
    }
    let folder = TempDir::new().unwrap();
    let binary = program::gpuspan().unwrap();
    let deb = package::build(&binary, folder.path()).unwrap();
    let first = std::fs::read(&deb).unwrap();
    assert_eq!(first, std::fs::read(package::build(&binary, folder.path()).unwrap()).unwrap());

    let root = folder.path().join("root");
    for part in ["var/lib/dpkg/updates", "var/lib/dpkg/info"] {
        std::fs::create_dir_all(root.join(part)).unwrap();
    }
    for file in ["status", "available"] {
        std::fs::write(root.join("var/lib/dpkg").join(file), "").unwrap();
    }
    // Nothing else is installed there, a shell for the scripts neither: they run as if the folder was the machine's.
    let dpkg = |arguments: &[&str]| {
        let mut command = Command::new("dpkg");
        command.arg("--root").arg(&root).args(["--force-depends", "--force-script-chrootless"]);
        output(command.args(arguments))
    };
    let installed = dpkg(&["--install", deb.to_str().unwrap()]);
    assert!(installed.status.success(), "{}", text(&installed));
    let conffiles = dpkg_query(&root, "${Conffiles}");
    assert!(
        conffiles.contains("/etc/gpuspan/agent.yaml") && conffiles.contains("/etc/default/gpuspan-agent")
    );
    assert_eq!(dpkg_query(&root, "${Version}"), xtask::ship::VERSION);
    for path in [
        "usr/lib/systemd/system/gpuspan-agent.service",
        "usr/share/doc/gpuspan/docs/limits.md",
        "usr/share/bash-completion/completions/gpuspan",
    ] {
        assert!(root.join(path).is_file(), "{path}");
    }
    for (page, says) in [
        ("gpuspan", "gpuspan\\-agent(1)"),
        ("gpuspan-agent", "check\\-config"),
        ("gpuspan-attach", "\\-\\-pid"),
    ] {
        let page = std::fs::File::open(root.join(format!("usr/share/man/man1/{page}.1.gz"))).unwrap();
        let page = std::io::read_to_string(flate2::read::GzDecoder::new(page)).unwrap();
        assert!(page.contains(says), "{says}: {page}");
    }
    let version = output(Command::new(root.join("usr/bin/gpuspan")).arg("--version"));
    assert!(text(&version).contains(xtask::ship::VERSION), "{}", text(&version));
    // What the operator wrote stays until it is purged.
    let removed = dpkg(&["--remove", "gpuspan"]);
    assert!(removed.status.success(), "{}", text(&removed));
    assert!(!root.join("usr/bin/gpuspan").exists() && root.join("etc/gpuspan/agent.yaml").exists());
    let purged = dpkg(&["--purge", "gpuspan"]);
    assert!(purged.status.success() && !root.join("etc/gpuspan/agent.yaml").exists(), "{}", text(&purged));
}

/// systemd knows every line of the unit, and its own measure of exposure stays what it is (3.0 with systemd 252, out of 10).
#[test]
fn systemd_knows_every_line_of_the_unit() {
    if !has("systemd-analyze") {
        println!("skipped: no systemd-analyze (Debian package systemd)");
        return;
    }
    let unit = std::fs::read_to_string(deploy().join("systemd/gpuspan-agent.service")).unwrap();
    let folder = TempDir::new().unwrap();
    let binary = program::gpuspan().unwrap();
    let binary = binary.to_str().unwrap();
    let verify = |unit: &str| {
        let path = folder.path().join("gpuspan-agent.service");
        std::fs::write(&path, unit.replace("/usr/bin/gpuspan", binary)).unwrap();
        output(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path))
    };
    let verified = verify(&unit);
    assert!(verified.status.success() && text(&verified).is_empty(), "{}", text(&verified));
    assert!(text(&verify(&unit.replace("MemoryMax", "MemoryMaximum"))).contains("MemoryMaximum"));
    let path = folder.path().join("gpuspan-agent.service");
    let mut security = Command::new("systemd-analyze");
    let exposure = output(security.args(["security", "--offline=true", "--threshold=32"]).arg(&path));
    assert!(exposure.status.success(), "{}", text(&exposure));
}

fn dpkg_query(root: &Path, format: &str) -> String {
    let mut command = Command::new("dpkg-query");
    command.arg("--admindir").arg(root.join("var/lib/dpkg")).args([
        "--show",
        "--showformat",
        format,
        "gpuspan",
    ]);
    text(&output(&mut command))
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}
