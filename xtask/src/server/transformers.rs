//! Hugging Face `transformers serve` with continuous batching, on PyTorch as PyPI ships it. In goes PyPI, out comes a
//! server on a small random model. On the device `cuda` the stand-ins are preloaded: PyTorch finds NVIDIA's libraries
//! by a path of its own, before any path of the environment.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::cache::Kept;
use super::process::{self, Prepared, Spec};
use super::{Device, Options, stand_in};

/// The versions that this is known to work with; `accelerate` is what `--device` needs.
const PYTHON: [&str; 6] = [
    "torch==2.15.0",
    "transformers==5.23.0",
    "accelerate==1.15.0",
    "fastapi==0.165.0",
    "uvicorn==0.54.0",
    "openai==3.54.0",
];
const MODEL_SCRIPT: &str = include_str!("../../server/random_transformer.py");
/// A folder of this name lies in the server's working directory: so the name in requests is short.
const MODEL: &str = "gpuspan-random";
/// A cache of 64 blocks of 32 tokens and batches of 256 tokens: enough for a few short requests at a time.
const BATCHING: [&str; 7] = [
    "--continuous-batching",
    "--cb-block-size",
    "32",
    "--cb-num-blocks",
    "64",
    "--cb-max-batch-tokens",
    "256",
];
/// Importing PyTorch alone takes 10 s with cold disks; a start took up to 40 s.
const PATIENCE: Duration = Duration::from_secs(300);

/// The command that is the server, its parts fetched and built when they are not there yet.
pub fn prepare(options: &Options) -> Result<Prepared> {
    let kept = provision()?;
    let port = process::port(options.port)?;
    // By its interpreter, and not by its script, whose first line holds a path that has a length limit.
    let mut command = Command::new(kept.path("venv/bin/python"));
    command.arg(kept.path("venv/bin/transformers")).args(["serve", MODEL]).args(BATCHING);
    command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    // Everything is local: a look at the model hub would only fail, slowly.
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", kept.path("home")).current_dir(kept.path("models"));
    let truth_dir = match options.device {
        Device::Cpu => {
            command.args(["--device", "cpu"]);
            None
        }
        Device::Cuda => {
            let truth = process::truth_dir("transformers", port)?;
            stand_in::preload(&mut command, &truth)?;
            command.args(["--device", "cuda:0"]);
            command.arg(if options.cuda_graphs { "--cb-use-cuda-graph" } else { "--no-cb-use-cuda-graph" });
            Some(truth)
        }
    };
    // The lock is for filling the folder; servers share it.
    drop(kept);
    let spec = Spec {
        name: "transformers",
        port,
        model: MODEL.into(),
        truth_dir,
        patience: PATIENCE,
        held: options.held,
    };
    Ok(Prepared { command, spec })
}

/// The interpreter with PyTorch and transformers, fetched when it is not there yet.
pub fn python() -> Result<PathBuf> {
    Ok(provision()?.path("venv/bin/python"))
}

/// Fetches what is not there yet.
fn provision() -> Result<Kept> {
    let kept = Kept::open("transformers")?;
    kept.python(&PYTHON)?;
    kept.step("model", MODEL_SCRIPT, || model(&kept))?;
    Ok(kept)
}

fn model(kept: &Kept) -> Result<()> {
    let script = kept.path("random_transformer.py");
    fs::write(&script, MODEL_SCRIPT).with_context(|| format!("failed to write {}", script.display()))?;
    fs::create_dir_all(kept.path("models")).context("failed to make the folder of models")?;
    let mut make = Command::new(kept.path("venv/bin/python"));
    kept.run("model", make.arg(script).arg(kept.path("models").join(MODEL)))
}
