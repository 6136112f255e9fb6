//! llama.cpp's `llama-server`, built from source, with ggml's CUDA backend as it is shipped to users: prebuilt and
//! unmodified. In go PyPI and npm, out comes a server on a small random model. The backend's own libggml-base is not
//! used: the server's is, after a check that the two agree (`ggml_agree.py`).

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::cache::Kept;
use super::process::{self, Prepared, Spec};
use super::{Cuda, Device, Options, stand_in};

/// The release that carries llama.cpp 0.5.0 with `tools/server`: the source distribution on PyPI is the only registry
/// package that does.
const SDIST: &str = "llama-cpp-python==0.3.36";
const SOURCE: &str = "llama_cpp_python-0.3.36";
/// A prebuilt ggml-cuda of the same llama.cpp release (0.5.0).
struct Backend {
    package: &'static str,
    /// Where it lies in its package.
    folder: &'static str,
    /// The files that are wanted of it.
    files: &'static [&'static str],
    /// The folder it is kept in.
    kept_in: &'static str,
}

impl Backend {
    fn kept(&self) -> String {
        format!("{}/libggml-cuda.so", self.kept_in)
    }
}

const THIRTEEN: Backend = Backend {
    package: "@node-llama-cpp/linux-x64-cuda@3.22.1",
    folder: "package/bins/linux-x64-cuda",
    files: &["libggml-cuda.so", "libggml-base.so"],
    kept_in: "ggml-cuda",
};
const TWELVE: Backend = Backend {
    package: "@node-llama-cpp/linux-x64-cuda-ext@3.22.1",
    folder: "package/bins/linux-x64-cuda/fallback",
    files: &["libggml-cuda.so"],
    kept_in: "ggml-cuda12",
};

fn backend_of(cuda: Cuda) -> &'static Backend {
    match cuda {
        Cuda::Twelve => &TWELVE,
        Cuda::Thirteen => &THIRTEEN,
    }
}

const PYTHON: [&str; 4] = ["cmake==4.4.4", "ninja==1.13.2", "gguf==0.19.0", "numpy==2.4.6"];
/// No TLS, no web pages: neither takes part in what is measured, and both would be fetched while building.
const CONFIGURE: [&str; 7] = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
];
const MODEL_SCRIPT: &str = include_str!("../../server/random_gguf.py");
const AGREE_SCRIPT: &str = include_str!("../../server/ggml_agree.py");
const MODEL: &str = "gpuspan-random";
/// Requests that are decoded together.
const SLOTS: &str = "4";
/// Loading takes a second; the rest is for busy machines.
const PATIENCE: Duration = Duration::from_secs(120);

/// The command that is the server, its parts fetched and built when they are not there yet.
pub fn prepare(options: &Options) -> Result<Prepared> {
    let kept = provision(options.cuda)?;
    let port = process::port(options.port)?;
    let mut command = Command::new(kept.path("build/bin/llama-server"));
    command.arg("--model").arg(kept.path("model.gguf")).args([
        "--alias",
        MODEL,
        "--host",
        "127.0.0.1",
        "--port",
    ]);
    command.arg(port.to_string()).args(["--parallel", SLOTS, "--ctx-size", "16384", "--no-warmup"]);
    // ggml's threads spin at barriers: two of them on a busy machine make a step of 5 ms last 900 ms.
    command.args(["--threads", "1"]);
    if options.tell {
        // Each batch is logged token by token, with its sequence (llama.cpp, src/llama-batch.cpp).
        command.args(["--metrics", "--verbosity", "5"]).env("LLAMA_BATCH_DEBUG", "2");
    }
    let truth_dir = match options.device {
        Device::Cpu => None,
        Device::Cuda => {
            let truth = process::truth_dir("llama", port)?;
            let bins = kept.path("build/bin");
            stand_in::give(&mut command, options.cuda.into(), &truth, &[&bins])?;
            command.env("GGML_BACKEND_PATH", kept.path(&backend_of(options.cuda).kept()));
            command.args(["--device", "CUDA0", "--n-gpu-layers", "99"]);
            Some(truth)
        }
    };
    // The lock is for filling the folder; servers share it.
    drop(kept);
    let spec =
        Spec { name: "llama", port, model: MODEL.into(), truth_dir, patience: PATIENCE, held: options.held };
    Ok(Prepared { command, spec })
}

/// Fetches and builds what is not there yet.
fn provision(cuda: Cuda) -> Result<Kept> {
    let kept = Kept::open("llama")?;
    kept.python(&PYTHON)?;
    kept.step("source", SDIST, || source(&kept))?;
    kept.step("build", &format!("{SDIST} {CONFIGURE:?}"), || build(&kept))?;
    // The package for CUDA 13 has the libggml-base that says whether backend and server belong together.
    kept.step("backend", THIRTEEN.package, || backend(&kept, &THIRTEEN))?;
    kept.step("agree", &format!("{SDIST} {} {AGREE_SCRIPT}", THIRTEEN.package), || agree(&kept))?;
    if cuda == Cuda::Twelve {
        kept.step("backend12", TWELVE.package, || backend(&kept, &TWELVE))?;
    }
    kept.step("model", MODEL_SCRIPT, || model(&kept))?;
    Ok(kept)
}

fn source(kept: &Kept) -> Result<()> {
    let archive = kept.path(&format!("{}.tar.gz", SOURCE.to_lowercase()));
    let mut download = Command::new(kept.path("venv/bin/pip"));
    download.args(["download", "--no-deps", "--no-binary", "llama-cpp-python", "--dest"]);
    kept.run("source", download.arg(kept.path("")).arg(SDIST))?;
    kept.run("source", Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(kept.path("")))?;
    fs::remove_file(&archive).with_context(|| format!("failed to remove {}", archive.display()))
}

/// About ten minutes of processor time. Cut off, it goes on where it was: ninja keeps what is built.
fn build(kept: &Kept) -> Result<()> {
    let tools = kept.path("venv/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(tools.clone()).chain(std::env::split_paths(&path)))?;
    let source = kept.path(&format!("{SOURCE}/vendor/llama.cpp"));
    let mut configure = Command::new(tools.join("cmake"));
    configure.env("PATH", &path).args(["-G", "Ninja", "-S"]).arg(source).arg("-B").arg(kept.path("build"));
    kept.run("build", configure.args(CONFIGURE))?;
    let mut build = Command::new(tools.join("cmake"));
    build.env("PATH", &path).arg("--build").arg(kept.path("build"));
    kept.run("build", build.args(["--target", "llama-server"]))
}

/// Keeps the backend alone in a folder: it would load the libggml-base beside it, and the process would have two.
fn backend(kept: &Kept, backend: &Backend) -> Result<()> {
    let unpacked = kept.path("backend");
    fs::create_dir_all(&unpacked).context("failed to make the folder of the backend")?;
    kept.run("backend", Command::new("npm").args(["pack", backend.package]).current_dir(&unpacked))?;
    let archive = archive_in(&unpacked)?;
    let mut unpack = Command::new("tar");
    unpack.arg("-xzf").arg(&archive).arg("-C").arg(&unpacked);
    unpack.args(backend.files.iter().map(|file| format!("{}/{file}", backend.folder)));
    kept.run("backend", &mut unpack)?;
    fs::remove_file(&archive).with_context(|| format!("failed to remove {}", archive.display()))?;
    fs::create_dir_all(kept.path(backend.kept_in)).context("failed to make the folder of ggml-cuda")?;
    let from = unpacked.join(backend.folder).join("libggml-cuda.so");
    fs::rename(&from, kept.path(&backend.kept()))
        .with_context(|| format!("failed to move {}", from.display()))
}

fn archive_in(folder: &std::path::Path) -> Result<std::path::PathBuf> {
    let files = fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))?;
    let mut paths = files.filter_map(|file| Some(file.ok()?.path()));
    paths.find(|path| path.extension().is_some_and(|kind| kind == "tgz")).context("npm left no archive")
}

fn agree(kept: &Kept) -> Result<()> {
    let mut check = script(kept, "ggml_agree.py", AGREE_SCRIPT)?;
    check.arg(kept.path("build/bin/libggml-base.so"));
    check.arg(kept.path(&format!("backend/{}/libggml-base.so", THIRTEEN.folder)));
    kept.run("agree", check.arg(kept.path(&format!("{SOURCE}/vendor/llama.cpp/ggml/include/ggml.h"))))
}

fn model(kept: &Kept) -> Result<()> {
    kept.run("model", script(kept, "random_gguf.py", MODEL_SCRIPT)?.arg(kept.path("model.gguf")))
}

fn script(kept: &Kept, name: &str, text: &str) -> Result<Command> {
    let path = kept.path(name);
    fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    let mut command = Command::new(kept.path("venv/bin/python"));
    command.arg(path);
    Ok(command)
}
