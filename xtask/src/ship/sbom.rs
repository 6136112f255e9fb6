//! What is in an image, for those who have to know. In: Debian's packages, cargo's tree. Out: a line for each.
//! Absent: a judgement about licences (`cargo deny` has it).

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::root;

/// Lines `deb NAME VERSION sha256:…` of the packages in a folder.
///
/// # Errors
/// When one is no package.
pub fn packages(folder: &Path) -> Result<BTreeSet<String>> {
    let mut lines = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let field = |name: &str| said(Command::new("dpkg-deb").arg("-f").arg(&path).arg(name));
        let sum = said(Command::new("sha256sum").arg(&path))?;
        let sum = sum.split_whitespace().next().unwrap_or_default();
        lines.insert(format!("deb {} {} sha256:{sum}", field("Package")?, field("Version")?));
    }
    Ok(lines)
}

/// Lines `crate NAME VERSION LICENCE` of everything that is compiled into the program.
///
/// # Errors
/// When cargo cannot tell.
pub fn crates() -> Result<BTreeSet<String>> {
    let mut cargo = workload::cargo();
    cargo.args(["tree", "--locked", "--package", "profiler", "--edges", "normal", "--prefix", "none"]);
    cargo.args(["--format", "{p}|{l}"]).current_dir(root());
    Ok(said(&mut cargo)?.lines().filter_map(line_of_crate).collect())
}

/// `name v1.2.3 (proc-macro) (*)|LICENCE`, where a folder stands for one of our own.
fn line_of_crate(line: &str) -> Option<String> {
    let (package, licence) = line.split_once('|')?;
    let mut words = package.split_whitespace();
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    // Cargo marks what it has told before behind the licence.
    Some(format!("crate {name} {version} {}", licence.trim_end_matches("(*)").trim()))
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_lines_are_read() {
        for (line, expected) in [
            ("aya v0.14.0|MIT OR Apache-2.0", Some("crate aya 0.14.0 MIT OR Apache-2.0")),
            ("aya v0.14.0|MIT OR Apache-2.0 (*)", Some("crate aya 0.14.0 MIT OR Apache-2.0")),
            ("serde_derive v1.0.2 (proc-macro)|MIT", Some("crate serde_derive 1.0.2 MIT")),
            ("profiler v0.1.0 (/somewhere)|MIT", Some("crate profiler 0.1.0 MIT")),
            ("", None),
        ] {
            assert_eq!(line_of_crate(line).as_deref(), expected);
        }
    }
}
