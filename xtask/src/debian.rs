//! Packages of Debian, from the mirror that this machine uses. In: suites and names. Out: their files in a folder.
//! Absent: anything installed, any change of the machine's own lists, and any host's name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A program cannot be had here: tests that need it are skipped.
#[derive(Debug)]
pub struct Unavailable(String);

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Debian's packages cannot be had: {}", self.0)
    }
}

impl std::error::Error for Unavailable {}

/// apt with its own lists and state, so that the machine's stay as they are.
pub struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Below `work`, for packages of `suites`; a package is named with its suite where they differ in it.
    pub fn new(work: &Path, suites: &[&str]) -> Result<Self> {
        let mirror = mirror(&sources()).ok_or_else(|| {
            Unavailable(
                "no Debian mirror in /etc/apt; name a program that you have in the environment".into(),
            )
        })?;
        let folder = work.join("apt");
        for part in [
            "etc/apt.conf.d",
            "etc/preferences.d",
            "etc/parts",
            "state/lists/partial",
            "cache/archives/partial",
        ] {
            fs::create_dir_all(folder.join(part))
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::write(folder.join("state/status"), "")?;
        let signed =
            if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
        let lines = suites.iter().map(|suite| format!("deb {signed}{mirror} {suite} main\n"));
        fs::write(folder.join("etc/sources.list"), lines.collect::<String>())?;
        Ok(Self { folder })
    }

    /// Fetches `packages` into the folder `to`.
    pub fn download(&self, packages: &[&str], to: &Path) -> Result<()> {
        fs::create_dir_all(to)?;
        let update = ["-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false", "update"];
        let fetched = finish(self.command().args(update))
            .and_then(|()| finish(self.command().arg("download").args(packages).current_dir(to)));
        Ok(fetched.map_err(|error| Unavailable(format!("{error:#}")))?)
    }

    fn command(&self) -> Command {
        let folder = self.folder.display();
        let mut command = Command::new("apt-get");
        command.args(["-qq", "-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3"]);
        for (option, part) in [
            ("Dir::Etc", "etc"),
            ("Dir::Etc::sourcelist", "etc/sources.list"),
            ("Dir::Etc::sourceparts", "etc/parts"),
            ("Dir::State", "state"),
            ("Dir::State::status", "state/status"),
            ("Dir::Cache", "cache"),
        ] {
            command.arg("-o").arg(format!("{option}={folder}/{part}"));
        }
        // apt's own user could not write into a home folder.
        command.args(["-o", "APT::Sandbox::User="]);
        command
    }
}

/// Unpacks every package in a folder.
pub fn unpack(packages: &Path, root: &Path) -> Result<()> {
    for package in fs::read_dir(packages)? {
        finish(Command::new("dpkg").arg("-x").arg(package?.path()).arg(root))?;
    }
    Ok(())
}

/// The text of all apt sources.
fn sources() -> Vec<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(folder) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(folder.flatten().map(|entry| entry.path()));
    }
    files.retain(|path| {
        path.extension().is_some_and(|extension| extension == "list" || extension == "sources")
    });
    files.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
}

/// The first URI of the main Debian archive, in either format of apt's sources.
fn mirror(sources: &[String]) -> Option<String> {
    let lines = sources.iter().flat_map(|text| text.lines());
    let lines = lines.filter(|line| line.starts_with("URIs:") || line.starts_with("deb "));
    let words = lines.flat_map(str::split_whitespace);
    let archive = |word: &&str| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian");
    words.into_iter().find(archive).map(str::to_owned)
}

/// Runs a command to its end; an error shows the end of what it said.
pub fn finish(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run `{name}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<_> = said.lines().collect();
        bail!(
            "`{name}` failed:\n{}",
            lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_found_in_both_formats_of_sources() {
        for (text, expected) in [
            (
                "# deb http://no.example/debian x main\ndeb http://a.example/debian bookworm main\n",
                "http://a.example/debian",
            ),
            (
                "deb [arch=amd64 signed-by=/k.gpg] https://b.example/debian/ sid main\n",
                "https://b.example/debian/",
            ),
            (
                "Types: deb\nURIs: http://s.example/debian-security\nSuites: x\n\nURIs: http://c.example/debian\n",
                "http://c.example/debian",
            ),
        ] {
            assert_eq!(mirror(&[text.to_owned()]).as_deref(), Some(expected));
        }
        assert_eq!(mirror(&["URIs: https://d.example/ubuntu\n".to_owned()]), None);
    }
}
