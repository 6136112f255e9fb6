//! A real OpenTelemetry Collector, which judges what gpuspan exports. In: Debian's Go packages, from the mirror that
//! this machine uses. Out: a binary in the user's cache. Absent: anything installed, and any host's name.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Where the libraries are newest, and complete for a collector.
const LIBRARIES: &str = "sid";
/// Where a compiler new enough for them runs on Debian 12's C library too.
const COMPILER: &str = "trixie-backports";
const GO: &str = "1.26";
/// The packages' root of Go sources, as Debian lays it out.
const GOPATH: &str = "usr/share/gocode";
const MAIN: &str = include_str!("../collector/main.go");
const PACKAGES: &str = include_str!("../collector/packages.txt");
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Arguments.
#[derive(clap::Args)]
pub struct Args {}

/// Prints the path of the collector, which is built first if there is none.
pub fn run(_: &Args) -> Result<()> {
    println!("{}", path()?.display());
    Ok(())
}

/// There can be no collector here: tests that need one are skipped.
#[derive(Debug)]
pub struct Unavailable(String);

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no OpenTelemetry Collector: {}", self.0)
    }
}

impl std::error::Error for Unavailable {}

/// The collector's path: `GPUSPAN_OTELCOL`, or the cached one, or a new one, which takes two minutes. The error is
/// `Unavailable` when this machine has no way to the packages.
pub fn path() -> Result<PathBuf> {
    if let Some(path) = env::var_os("GPUSPAN_OTELCOL") {
        return Ok(path.into());
    }
    let folder = cache()?.join("gpuspan/otelcol");
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

fn cache() -> Result<PathBuf> {
    if let Some(cache) = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        return Ok(cache.into());
    }
    let home = env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set; set one")?;
    Ok(PathBuf::from(home).join(".cache"))
}

fn build(work: &Path, binary: &Path) -> Result<()> {
    let mirror = mirror(&sources()?).ok_or_else(|| {
        Unavailable("no Debian mirror in /etc/apt; set GPUSPAN_OTELCOL to one that you have".into())
    })?;
    eprintln!("building an OpenTelemetry Collector from Debian packages; once, about two minutes");
    let apt = Apt::new(work, &mirror)?;
    apt.download(&work.join("packages")).map_err(|error| Unavailable(format!("{error:#}")))?;
    unpack(work)?;
    compile(work)?;
    fs::rename(work.join("otelcol"), binary)
        .with_context(|| format!("cannot move it to {}", binary.display()))
}

/// The text of all apt sources.
fn sources() -> Result<Vec<String>> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(folder) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(folder.flatten().map(|entry| entry.path()));
    }
    files.retain(|path| {
        path.extension().is_some_and(|extension| extension == "list" || extension == "sources")
    });
    Ok(files.iter().filter_map(|path| fs::read_to_string(path).ok()).collect())
}

/// The first URI of the main Debian archive, in either format of apt's sources.
fn mirror(sources: &[String]) -> Option<String> {
    let lines = sources.iter().flat_map(|text| text.lines());
    let lines = lines.filter(|line| line.starts_with("URIs:") || line.starts_with("deb "));
    let words = lines.flat_map(str::split_whitespace);
    let archive = |word: &&str| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian");
    words.into_iter().find(archive).map(str::to_owned)
}

/// apt with its own lists and state, so that the machine's stay as they are.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn new(work: &Path, mirror: &str) -> Result<Self> {
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
        let source = |suite| format!("deb {signed}{mirror} {suite} main\n");
        fs::write(folder.join("etc/sources.list"), source(LIBRARIES) + &source(COMPILER))?;
        Ok(Self { folder })
    }

    fn download(&self, to: &Path) -> Result<()> {
        fs::create_dir_all(to)?;
        finish(self.command().args([
            "-o",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            "update",
        ]))?;
        let compiler = ["go", "src"].map(|part| format!("golang-{GO}-{part}/{COMPILER}"));
        finish(self.command().arg("download").args(packages()).args(compiler).current_dir(to))
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

fn packages() -> impl Iterator<Item = &'static str> {
    PACKAGES.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

fn unpack(work: &Path) -> Result<()> {
    for package in fs::read_dir(work.join("packages"))? {
        finish(Command::new("dpkg").arg("-x").arg(package?.path()).arg(work.join("root")))?;
    }
    Ok(())
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

/// Runs a command to its end; an error shows the end of what it said.
fn finish(command: &mut Command) -> Result<()> {
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
