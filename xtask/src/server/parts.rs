//! What the servers of the tests of protocols are made of: Python packages, and packages of this machine's Debian release
//! that it lacks. In go PyPI and the machine's own apt sources, out come folders below the cache. Nothing is installed:
//! apt downloads with lists of its own, and dpkg unpacks. Absent: the servers themselves, which are `tests/servers`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cache::Kept;

/// uvicorn with each of its parsers and loops; gRPC with its compiler.
const PYTHON: [&str; 6] = [
    "uvicorn==0.54.0",
    "uvloop==0.23.0",
    "httptools==0.9.0",
    "h11==0.16.0",
    "grpcio==1.85.1",
    "grpcio-tools==1.85.1",
];

/// The interpreter with uvicorn and grpcio.
///
/// # Errors
/// When PyPI cannot be reached.
pub fn python() -> Result<PathBuf> {
    let kept = Kept::open("protocols")?;
    kept.python(&PYTHON)?;
    Ok(kept.path("venv/bin/python"))
}

/// A folder with the Python modules that grpcio's compiler makes of `proto`.
///
/// # Errors
/// When PyPI cannot be reached, or the text is no proto3.
pub fn grpc_modules(proto: &Path) -> Result<PathBuf> {
    let python = python()?;
    let kept = Kept::open("protocols")?;
    let text = fs::read_to_string(proto).with_context(|| format!("failed to read {}", proto.display()))?;
    let (folder, include) = (kept.path("grpc"), proto.parent().unwrap_or(Path::new(".")));
    kept.step("grpc", &format!("{text}{PYTHON:?}"), || {
        fs::create_dir_all(&folder).context("failed to make the folder of modules")?;
        let mut compile = Command::new(&python);
        compile.args(["-m", "grpc_tools.protoc", "-I"]).arg(include);
        for kind in ["--python_out", "--grpc_python_out"] {
            compile.arg(format!("{kind}={}", folder.display()));
        }
        kept.run("grpc", compile.arg(proto))
    })?;
    Ok(folder)
}

/// nginx's binary and the folders of libraries that it needs beside the machine's.
///
/// # Errors
/// When there is neither nginx nor a way to Debian's packages.
pub fn nginx() -> Result<Program> {
    program("nginx", "nginx", "usr/sbin/nginx")
}

/// Debian's Node, which uses the system's OpenSSL; others bring their own.
///
/// # Errors
/// When there is no way to Debian's packages.
pub fn node() -> Result<Program> {
    let release = release().context("this is no Debian")?;
    // Another Node may be installed, from elsewhere and newer.
    program("node-debian", &format!("nodejs/{release}"), "usr/bin/node")
}

/// A Go program, built by Debian's compiler.
///
/// # Errors
/// When there is no way to Debian's packages, or the program does not compile.
pub fn go(source: &Path) -> Result<PathBuf> {
    let kept = Kept::open("go")?;
    let installed = Path::new("/");
    let root =
        if goroot(installed).is_ok() { installed.to_path_buf() } else { unpacked(&kept, "golang-go")? };
    let text = fs::read_to_string(source).with_context(|| format!("failed to read {}", source.display()))?;
    let binary = kept.path("server");
    kept.step("build", &text, || {
        let goroot = goroot(&root)?;
        let mut build = Command::new(goroot.join("bin/go"));
        build.args(["build", "-trimpath", "-o"]).arg(&binary).arg(source).env("GOROOT", &goroot);
        build.env("GOPATH", kept.path("path")).env("GOCACHE", kept.path("objects"));
        for (name, value) in
            [("GO111MODULE", "off"), ("GOFLAGS", ""), ("GOTOOLCHAIN", "local"), ("CGO_ENABLED", "0")]
        {
            build.env(name, value);
        }
        kept.run("build", &mut build)
    })?;
    Ok(binary)
}

/// Debian names the folder by the release of Go.
fn goroot(root: &Path) -> Result<PathBuf> {
    let library = root.join("usr/lib");
    let entries = fs::read_dir(&library).with_context(|| format!("failed to list {}", library.display()))?;
    let mut folders = entries.filter_map(|entry| Some(entry.ok()?.path()));
    folders.find(|folder| folder.join("bin/go").exists()).context("Debian's package has no Go in it")
}

/// What a build needs to find OpenSSL where its headers are not installed: variables and their values.
///
/// # Errors
/// When there is no way to Debian's packages.
pub fn openssl() -> Result<Vec<(&'static str, PathBuf)>> {
    if Path::new("/usr/include/openssl/ssl.h").exists() {
        return Ok(Vec::new());
    }
    let kept = Kept::open("openssl")?;
    let usr = unpacked(&kept, "libssl-dev")?.join("usr");
    let (libraries, headers) = (usr.join("lib").join(triple()), usr.join("include"));
    kept.step("links", "libssl libcrypto", || {
        // The package's links lead to a library that is installed, and lies elsewhere.
        for name in ["libssl.so", "libcrypto.so"] {
            let link = libraries.join(name);
            let target = Path::new("/usr/lib").join(triple()).join(format!("{name}.3"));
            fs::remove_file(&link).with_context(|| format!("failed to remove {}", link.display()))?;
            std::os::unix::fs::symlink(target, &link)
                .with_context(|| format!("failed to make {}", link.display()))?;
        }
        Ok(())
    })?;
    // Some headers are the architecture's.
    let of_machine = headers.join(triple());
    Ok(vec![("OPENSSL_LIB_DIR", libraries), ("OPENSSL_INCLUDE_DIR", headers), ("CPATH", of_machine)])
}

/// Debian's name of the machine.
fn triple() -> String {
    format!("{}-linux-gnu", std::env::consts::ARCH)
}

/// A binary that is not installed.
#[derive(Clone, Debug)]
pub struct Program {
    /// The binary.
    pub path: PathBuf,
    /// Folders for `LD_LIBRARY_PATH`.
    pub libraries: Vec<PathBuf>,
    /// The root of its package, and of what it depends on.
    pub root: PathBuf,
}

impl Program {
    /// A command for it. Its `/usr/share` is that of its package, in a mount namespace of its own: some programs look
    /// for their parts at fixed paths.
    pub fn command(&self) -> Result<Command> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "sh", "-c", r#"mount --bind "$0" /usr/share && exec "$@""#]);
        command.arg(self.root.join("usr/share")).arg(&self.path);
        let folders: Vec<&Path> = self.libraries.iter().map(PathBuf::as_path).collect();
        command.env("LD_LIBRARY_PATH", super::process::library_path(&folders)?);
        Ok(command)
    }
}

fn program(folder: &'static str, package: &str, path: &str) -> Result<Program> {
    let root = unpacked(&Kept::open(folder)?, package)?;
    let libraries = ["usr/lib", "lib"].map(|lib| root.join(lib).join(triple())).to_vec();
    Ok(Program { path: root.join(path), libraries, root })
}

fn release() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(line.trim_matches('"').to_owned())
}

/// The files of a package and of what it depends on and the machine lacks.
fn unpacked(kept: &Kept, package: &str) -> Result<PathBuf> {
    let root = kept.path("root");
    kept.step("packages", &format!("{package} {:?}", release()), || {
        download(kept, package)?;
        let archives = kept.path("apt/cache/archives");
        let entries =
            fs::read_dir(&archives).with_context(|| format!("failed to list {}", archives.display()))?;
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.extension().is_some_and(|kind| kind == "deb") {
                kept.run("packages", Command::new("dpkg").arg("-x").arg(&path).arg(&root))?;
            }
        }
        fs::remove_dir_all(kept.path("apt")).context("failed to remove what apt left")
    })?;
    Ok(root)
}

fn download(kept: &Kept, package: &str) -> Result<()> {
    for folder in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(kept.path("apt").join(folder)).context("failed to make the folders of apt")?;
    }
    kept.run("packages", apt(kept).arg("update"))?;
    let mut install = apt(kept);
    install.args(["--yes", "--download-only", "--no-install-recommends", "--allow-downgrades"]);
    // A package that is installed is downloaded too: it is looked for in the folder.
    install.args(["--reinstall", "install"]);
    kept.run("packages", install.arg(package))
}

/// apt with the machine's sources and its list of what is installed, which it only reads.
fn apt(kept: &Kept) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-qq", "-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3"]);
    // apt's own user could not write into a home folder; nothing is written that would need the lock.
    command.args(["-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=true"]);
    command.args(["-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"]);
    for (option, folder) in [("Dir::State::lists", "lists"), ("Dir::Cache", "cache")] {
        command.arg("-o").arg(format!("{option}={}/", kept.path("apt").join(folder).display()));
    }
    command
}
