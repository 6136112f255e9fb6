//! What the kernel side is compiled with: the workspace's rustc, its sources, and bpf-linker.
//!
//! In go the machine as it is; out come paths to all of it, or why it cannot be had. What is missing is fetched into
//! `${XDG_CACHE_HOME:-~/.cache}/gpuspan`, never into the system. The sources must be those of exactly the running
//! rustc: from rustup where it can reach its server, else from Debian, which packages them.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::run_command;

/// The last release that uses rustc's own LLVM; later ones want an LLVM installed.
const LINKER_VERSION: &str = "0.10.3";

/// The Debian suite that packages current sources of rustc.
const DEBIAN_SUITE: &str = "trixie-backports";

/// Debian's keys, in the package `debian-archive-keyring`.
const DEBIAN_KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A complete BPF toolchain.
pub struct Toolchain {
    /// bpf-linker, by name or path.
    pub linker: PathBuf,
    /// The `library` folder of rustc's sources, where it is not in rustc's own folder.
    library: Option<PathBuf>,
}

impl Toolchain {
    /// A cargo that finds rustc's sources.
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(cargo());
        if let Some(library) = &self.library {
            // Cargo's own tests give it other sources this way; there is no documented one.
            cargo.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
        }
        cargo
    }
}

/// Finds or fetches the toolchain.
///
/// # Errors
///
/// What is missing and why it could not be fetched.
pub fn provide(root: &Path) -> Result<Toolchain> {
    let version = rustc_version()?;
    let pinned = pinned_version(root)?;
    if version != pinned {
        bail!("rustc is {version}, and the objects are built by {pinned} (rust-toolchain.toml)");
    }
    let library = provide_sources(&version).context("no sources of rustc's library")?;
    let linker = provide_linker().with_context(|| format!("no bpf-linker {LINKER_VERSION}"))?;
    Ok(Toolchain { linker, library })
}

fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn rustc_version() -> Result<String> {
    let said = output(Command::new("rustc").arg("-vV"))?;
    let release = said.lines().find_map(|line| line.strip_prefix("release: "));
    release.map(str::to_owned).ok_or_else(|| anyhow!("`rustc -vV` names no release"))
}

fn pinned_version(root: &Path) -> Result<String> {
    let path = root.join("rust-toolchain.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let channel =
        text.lines().find_map(|line| line.strip_prefix("channel = ")).map(|it| it.trim_matches('"'));
    channel.map(str::to_owned).ok_or_else(|| anyhow!("{} names no channel", path.display()))
}

fn cache() -> Result<PathBuf> {
    let folder = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = folder.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    Ok(folder.ok_or_else(|| anyhow!("neither XDG_CACHE_HOME nor a home folder"))?.join("gpuspan"))
}

/// bpf-linker of the right version from PATH or the cache, installed into the cache when there is none.
fn provide_linker() -> Result<PathBuf> {
    let folder = cache()?.join(format!("bpf-linker-{LINKER_VERSION}"));
    let ours = folder.join("bin/bpf-linker");
    let on_path = PathBuf::from("bpf-linker");
    if let Some(found) = [on_path, ours.clone()].into_iter().find(|path| is_linker(path)) {
        return Ok(found);
    }
    println!("installing bpf-linker {LINKER_VERSION} into {}", folder.display());
    let mut install = Command::new(cargo());
    install.args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--root"]).arg(&folder);
    run_command(install.env_remove("CARGO_TARGET_DIR"))?;
    if !is_linker(&ours) {
        bail!("{} does not run", ours.display());
    }
    Ok(ours)
}

fn is_linker(path: &Path) -> bool {
    output(Command::new(path).arg("--version")).is_ok_and(|said| said.trim().ends_with(LINKER_VERSION))
}

/// The `library` folder of rustc's sources; `None` where cargo finds them by itself.
fn provide_sources(version: &str) -> Result<Option<PathBuf>> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let own = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
    if has_sources(&own) {
        return Ok(None);
    }
    let kept = cache()?.join(format!("rust-src-{version}"));
    let library = kept.join(format!("usr/src/rustc-{version}/library"));
    if has_sources(&library) {
        return Ok(Some(library));
    }
    let Err(rustup) = from_rustup() else { return Ok(None) };
    from_debian(version, &kept).map_err(|debian| anyhow!("rustup: {rustup:#}; Debian: {debian:#}"))?;
    if !has_sources(&library) {
        bail!("Debian's package has no {}", library.display());
    }
    Ok(Some(library))
}

fn has_sources(library: &Path) -> bool {
    library.join("core/Cargo.toml").exists()
}

fn from_rustup() -> Result<()> {
    println!("adding rust-src with rustup");
    output(Command::new("rustup").args(["component", "add", "rust-src"])).map(drop)
}

/// Fetches and unpacks Debian's package of the sources, with lists and downloads of its own, so that neither root
/// nor a change of the machine's package sources is needed.
fn from_debian(version: &str, kept: &Path) -> Result<()> {
    println!("fetching rust-src {version} from Debian's {DEBIAN_SUITE}");
    let work = kept.with_file_name(format!("rust-src-{version}.part"));
    fs::remove_dir_all(&work).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    for folder in ["lists/partial", "cache/archives/partial", "tree"] {
        fs::create_dir_all(work.join(folder))?;
    }
    let keys =
        if Path::new(DEBIAN_KEYS).exists() { format!("[signed-by={DEBIAN_KEYS}] ") } else { String::new() };
    let source = format!("deb {keys}{} {DEBIAN_SUITE} main\n", debian_mirror()?);
    fs::write(work.join("source.list"), source)?;
    let apt = |program: &str| apt(program, &work);
    output(apt("apt-get").arg("update"))?;
    let offered = output(apt("apt-cache").args(["madison", "rust-src"]))?;
    let package = debian_version(&offered, version)
        .ok_or_else(|| anyhow!("{DEBIAN_SUITE} does not offer rust-src {version} any more"))?;
    output(apt("apt-get").arg("download").arg(format!("rust-src={package}")))?;
    let file = fs::read_dir(&work)?.flatten().map(|entry| entry.path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|it| it == "deb"));
    let file = file.ok_or_else(|| anyhow!("apt-get downloaded nothing"))?;
    output(Command::new("dpkg").arg("-x").arg(file).arg(work.join("tree")))?;
    // The folder gets its name only now, so that a broken download is never taken for sources.
    fs::rename(work.join("tree"), kept).with_context(|| format!("failed to make {}", kept.display()))?;
    fs::remove_dir_all(&work).with_context(|| format!("failed to delete {}", work.display()))
}

/// An apt program that sees only the sources, lists and downloads in `work`.
fn apt(program: &str, work: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(work).args(["-o", "Dir::Etc::sourceparts=-", "-o", "APT::Sandbox::User="]);
    for (option, place) in
        [("Dir::Etc::sourcelist", "source.list"), ("Dir::State::lists", "lists"), ("Dir::Cache", "cache")]
    {
        command.arg("-o").arg(format!("{option}={}", work.join(place).display()));
    }
    command
}

/// The address of Debian's archive that this machine uses already.
fn debian_mirror() -> Result<String> {
    let known = output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    let archive = known.lines().find(|uri| uri.trim_end_matches('/').ends_with("/debian"));
    archive
        .map(str::to_owned)
        .ok_or_else(|| anyhow!("no Debian archive in apt's sources (`apt-get update`?)"))
}

/// The package version of `version` in what `apt-cache madison` says: `name | version | source`.
fn debian_version<'a>(offered: &'a str, version: &str) -> Option<&'a str> {
    let versions = offered.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim);
    versions.into_iter().find(|it| it.strip_prefix(version).is_some_and(|rest| rest.starts_with('+')))
}

/// What a command prints; its failure carries what it complained about.
fn output(command: &mut Command) -> Result<String> {
    let done =
        command.stdin(Stdio::null()).output().with_context(|| format!("failed to start {command:?}"))?;
    if !done.status.success() {
        let complaint = String::from_utf8_lossy(&done.stderr);
        let last = complaint.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
        bail!("{command:?}: {}: {last}", done.status);
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::debian_version;

    #[test]
    fn the_package_of_exactly_this_version_is_chosen() {
        let offered = " rust-src | 1.96.1+dfsg1-2~bpo13+1 | x\n rust-src | 1.95.0+dfsg1-2~bpo13+1 | x\n";
        assert_eq!(debian_version(offered, "1.95.0"), Some("1.95.0+dfsg1-2~bpo13+1"));
        assert_eq!(debian_version(offered, "1.9"), None);
    }
}
