//! The server's options: one struct for the command line, for the library and for the truth log's first line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

/// Which CUDA runtime the engine opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Runtime {
    /// `libcudart.so.12`: launches pass the host function's address, as nvcc up to 12.9 emits.
    #[value(name = "12")]
    #[serde(rename = "12")]
    Cuda12,
    /// `libcudart.so.13`: launches pass an opaque handle from `__cudaGetKernel`, as nvcc 13 emits.
    #[value(name = "13")]
    #[serde(rename = "13")]
    Cuda13,
    /// No CUDA at all: a step sleeps as long as its kernels would have taken.
    #[value(name = "none")]
    #[serde(rename = "none")]
    None,
}

/// When decode steps are captured into CUDA graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Graphs {
    /// Every step launches its kernels one by one.
    Off,
    /// All batch sizes before the server listens, as vLLM and SGLang do: a late observer never sees the nodes.
    StartUp,
    /// Each batch size at its first decode step.
    Lazy,
}

/// What the server listens on, how it batches and what each step launches.
#[derive(Clone, Debug, Parser, Serialize, Deserialize)]
#[command(name = "workload-server", about = "A continuous-batching model server without a model")]
pub struct ServerOptions {
    /// Address to listen on; port 0 takes any free port and prints it.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// CUDA runtime to open by its plain library name (the loader's search path decides which file).
    #[arg(long, value_enum, default_value = "12")]
    pub runtime: Runtime,
    /// Launch GEMMs and the fused activation by `cuLaunchKernel`, as cuBLAS and Triton do.
    #[arg(long)]
    pub driver_launches: bool,
    /// Replay pure decode steps from CUDA graphs; the bare flag means `start-up`.
    #[arg(long, value_enum, default_value = "off", num_args = 0..=1, require_equals = true, default_missing_value = "start-up")]
    pub graphs: Graphs,
    /// Schedule ahead: the next step is on the device before the tokens of the last one are handed out.
    #[arg(long)]
    pub asynchronous: bool,
    /// Record an event before and behind each step's work, and ask how much time lies between them when it is done.
    #[arg(long)]
    pub timed: bool,
    /// Devices that run each step together, one thread for each.
    #[arg(long, value_parser = at_least_one, default_value_t = 1)]
    pub devices: usize,
    /// A process for each device instead of a thread; the server itself then uses none.
    #[arg(long)]
    pub rank_processes: bool,
    /// Engines, each with its own queue, thread and streams; requests go to them in turn.
    #[arg(long, value_parser = at_least_one, default_value_t = 1)]
    pub engines: usize,
    /// Each engine has devices of its own.
    #[arg(long)]
    pub own_devices: bool,
    /// Streams that share the kernels of each step on a device: 2 run half of the batch each, at the same time.
    #[arg(long, value_parser = one_or_two, default_value_t = 1)]
    pub streams: usize,
    /// Sequences in one step at most; the rest waits.
    #[arg(long, value_parser = at_least_one, default_value_t = 32)]
    pub max_batch: usize,
    /// Tokens in one step at most: longer prompts are prefilled in chunks over several steps.
    #[arg(long, value_parser = at_least_one, default_value_t = 512)]
    pub max_batch_tokens: usize,
    /// Requests that may wait; one more is answered 429.
    #[arg(long, default_value_t = 256)]
    pub max_queue: usize,
    /// Prompt plus completion of one request at most; more is answered 400.
    #[arg(long, default_value_t = 4096)]
    pub max_model_len: usize,
    /// Transformer layers: each launches seven kernels per step, beside three around them.
    #[arg(long, default_value_t = 6)]
    pub layers: usize,
    /// Duration of one kernel in nanoseconds, passed to the kernel and to the stand-in.
    #[arg(long, default_value_t = 20_000)]
    pub kernel_ns: u64,
    /// Model name to serve; other names are answered 404.
    #[arg(long, default_value = "workload-1")]
    pub model: String,
    /// Silence before the first token after which a `: ping` comment is sent; 0 sends none.
    #[arg(long, default_value_t = 500)]
    pub ping_ms: u64,
    /// Chance that a token ends its sequence early; 0 makes every completion `max_tokens` long.
    #[arg(long, default_value_t = 0.0)]
    pub eos_probability: f64,
    /// Seed of the tokens' text and of early ends.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// File for the truth log (JSON lines); without it nothing is logged.
    #[arg(long)]
    pub truth: Option<PathBuf>,
    /// Be the process of this device of a server with `--rank-processes`, which starts it so.
    #[arg(long, hide = true)]
    #[serde(skip)]
    pub rank: Option<usize>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        // One source for the defaults: those of the command line.
        Self::parse_from(["workload-server"])
    }
}

impl ServerOptions {
    /// Devices of all engines.
    pub fn all_devices(&self) -> usize {
        self.devices * if self.own_devices { self.engines } else { 1 }
    }

    /// The first device of an engine.
    pub(crate) fn first_device(&self, engine: usize) -> usize {
        if self.own_devices { engine * self.devices } else { 0 }
    }

    /// The command line that gives these options.
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        let mut add = |name: &str, value: String| args.extend([OsString::from(name), value.into()]);
        add("--listen", self.listen.to_string());
        add("--runtime", value_name(self.runtime));
        add("--devices", self.devices.to_string());
        add("--engines", self.engines.to_string());
        add("--streams", self.streams.to_string());
        add("--max-batch", self.max_batch.to_string());
        add("--max-batch-tokens", self.max_batch_tokens.to_string());
        add("--max-queue", self.max_queue.to_string());
        add("--max-model-len", self.max_model_len.to_string());
        add("--layers", self.layers.to_string());
        add("--kernel-ns", self.kernel_ns.to_string());
        add("--model", self.model.clone());
        add("--ping-ms", self.ping_ms.to_string());
        add("--eos-probability", self.eos_probability.to_string());
        add("--seed", self.seed.to_string());
        args.push(format!("--graphs={}", value_name(self.graphs)).into());
        args.extend(self.driver_launches.then(|| "--driver-launches".into()));
        args.extend(self.asynchronous.then(|| "--asynchronous".into()));
        args.extend(self.timed.then(|| "--timed".into()));
        args.extend(self.rank_processes.then(|| "--rank-processes".into()));
        args.extend(self.own_devices.then(|| "--own-devices".into()));
        if let Some(truth) = &self.truth {
            args.extend(["--truth".into(), truth.into()]);
        }
        args
    }
}

/// A step without room would never end the wait of any request.
fn at_least_one(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|error| format!("{error}"))?;
    if number == 0 { Err("must be at least 1".to_owned()) } else { Ok(number) }
}

fn one_or_two(text: &str) -> Result<usize, String> {
    match at_least_one(text)? {
        number @ 1..=2 => Ok(number),
        _ => Err("must be 1 or 2".to_owned()),
    }
}

/// The name by which the command line knows `value`.
fn value_name(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_round_trip() {
        let options = ServerOptions {
            runtime: Runtime::Cuda13,
            graphs: Graphs::Lazy,
            driver_launches: true,
            asynchronous: true,
            timed: true,
            devices: 3,
            rank_processes: true,
            engines: 2,
            own_devices: true,
            streams: 2,
            kernel_ns: 77,
            truth: Some("/tmp/truth.jsonl".into()),
            ..ServerOptions::default()
        };
        let parsed = ServerOptions::parse_from(
            [OsString::from("workload-server")].into_iter().chain(options.to_args()),
        );
        assert_eq!(serde_json::to_value(&parsed).unwrap(), serde_json::to_value(&options).unwrap());
    }

    #[test]
    fn a_step_without_room_is_refused() {
        assert!(ServerOptions::try_parse_from(["workload-server", "--max-batch", "0"]).is_err());
        assert!(ServerOptions::try_parse_from(["workload-server", "--streams", "3"]).is_err());
    }

    #[test]
    fn bare_graphs_flag_captures_at_start_up() {
        let parsed = ServerOptions::parse_from(["workload-server", "--graphs", "--layers", "3"]);
        assert_eq!((parsed.graphs, parsed.layers), (Graphs::StartUp, 3));
    }
}
