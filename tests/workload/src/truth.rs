//! What truly happened in the server: the truth log's lines, its writer and its reader.
//!
//! One JSON object a line, told apart by `kind`: `server` first, then `request` and `step` lines in the order
//! in which they ended, and `totals` last after a clean end. All times are `CLOCK_MONOTONIC` nanoseconds. Each
//! line is written by one `write` call, so the file can be read while the server lives.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::options::ServerOptions;

/// One line of the truth log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// First line.
    Server(ServerLine),
    /// One HTTP exchange, of whatever route.
    Request(RequestLine),
    /// One engine step.
    Step(StepLine),
    /// Last line, only after a clean end.
    Totals(Totals),
}

/// Who wrote the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerLine {
    /// Process id of the server.
    pub pid: u32,
    /// Port that it listens on.
    pub port: u16,
    /// When it began to listen.
    pub start_ns: u64,
    /// What `cudaRuntimeGetVersion` gave, 0 without a runtime.
    pub cuda_runtime_version: i32,
    /// Threads that drive the devices, by engine and device.
    pub engines: Vec<Vec<u32>>,
    /// The resolved options.
    pub options: ServerOptions,
}

/// One HTTP exchange.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RequestLine {
    /// The id on the wire (`chatcmpl-…`, `cmpl-…`, `gen-…`); none where the request never reached the engine.
    pub id: Option<String>,
    /// Ordinal of the connection, from 0 in order of acceptance.
    pub connection: u64,
    /// Ordinal of the request on its connection, from 0.
    pub ordinal: u64,
    /// The client's port: with `ordinal` it identifies the exchange from both ends.
    pub peer_port: u16,
    /// Method, as sent.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Status of the response; 0 when the client went away before there was one.
    pub status: u16,
    /// Whether the response was streamed.
    pub stream: bool,
    /// When the read that brought the request's last byte returned.
    pub arrival_ns: u64,
    /// Index of the engine step that first held the request.
    pub admitted_step: Option<u64>,
    /// Just before the write that carried the first token (streams) or the whole response.
    pub first_token_ns: Option<u64>,
    /// Just before the write that carried each token, in order; tokens that share a write share the time.
    /// Without streaming, the times at which the engine handed the tokens over.
    pub tokens_ns: Vec<u64>,
    /// Just after the response's last write.
    pub end_ns: u64,
    /// Words of the prompt.
    pub prompt_tokens: u64,
    /// Tokens handed to the connection's thread and, for streams, written.
    pub completion_tokens: u64,
    /// The client went away before the end.
    pub aborted: bool,
    /// `stop` or `length`.
    pub finish_reason: Option<String>,
    /// `: ping` comments sent before the first token.
    pub pings: u64,
}

impl RequestLine {
    /// Whether the exchange reached the engine.
    pub fn generated(&self) -> bool {
        self.id.is_some()
    }
}

/// One engine step: a single forward pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepLine {
    /// Which engine's, from 0.
    pub engine: usize,
    /// From 0 in each engine.
    pub index: u64,
    /// Before the first CUDA call of the step.
    pub start_ns: u64,
    /// After the stream's synchronisation.
    pub end_ns: u64,
    /// The sequences in the step, in batch order.
    pub members: Vec<Member>,
    /// Kernel launches through the runtime or the driver, each counted once; replays excluded.
    pub launches: u64,
    /// Kernel launches recorded into a graph in this step (not executed by the recording).
    pub captured: u64,
    /// Whether the step was replayed from a graph.
    pub graph_launch: bool,
    /// Kernels that the replay ran.
    pub graph_nodes: u64,
    /// Asynchronous copies.
    pub copies: u64,
    /// Their bytes.
    pub copy_bytes: u64,
}

/// A sequence's part of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The request's id on the wire.
    pub id: String,
    /// Prompt tokens processed in this step.
    pub prefill_tokens: u64,
    /// Whether the sequence decoded one token from its last one.
    pub decode: bool,
    /// Whether the step produced a token of the sequence (a decode, or a prefill's last chunk).
    pub output: bool,
}

/// Count and bytes of copies in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copies {
    /// Calls.
    pub count: u64,
    /// Bytes of all calls.
    pub bytes: u64,
}

/// What the engine's device did since the process started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceTotals {
    /// Calls per API function, as the server called them. Not in it: nested calls inside CUDA, and the
    /// bookkeeping of nvcc's host code (`__cudaRegister…`, `__cudaPushCallConfiguration`, `__cudaGetKernel`).
    pub calls: BTreeMap<String, u64>,
    /// Kernel launches through the runtime or the driver; neither captures nor replays.
    pub launches: u64,
    /// Of these, launches by `cuLaunchKernel`.
    pub driver_launches: u64,
    /// Launches recorded into graphs.
    pub captured: u64,
    /// `cudaGraphLaunch` calls.
    pub graph_launches: u64,
    /// Kernels that these ran.
    pub graph_nodes: u64,
    /// Executions per kernel (mangled device name), replays included.
    pub kernels: BTreeMap<String, u64>,
    /// Copies per direction, `HtoD` and `DtoH`.
    pub copies: BTreeMap<String, Copies>,
    /// Bytes of `cudaMalloc`.
    pub allocated_bytes: u64,
}

impl DeviceTotals {
    /// Adds what another device did.
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { calls, launches, driver_launches, captured, graph_launches, graph_nodes, .. } = other;
        let count = |sums: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>| {
            more.iter().for_each(|(name, count)| *sums.entry(name.clone()).or_default() += count);
        };
        count(&mut self.calls, calls);
        count(&mut self.kernels, &other.kernels);
        self.launches += launches;
        self.driver_launches += driver_launches;
        self.captured += captured;
        self.graph_launches += graph_launches;
        self.graph_nodes += graph_nodes;
        for (direction, copies) in &other.copies {
            let sums = self.copies.entry(direction.clone()).or_default();
            sums.count += copies.count;
            sums.bytes += copies.bytes;
        }
        self.allocated_bytes += other.allocated_bytes;
    }
}

/// The last line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Exchanges of all routes.
    pub requests: u64,
    /// Exchanges per status (JSON keys are strings, so these are too).
    pub by_status: BTreeMap<String, u64>,
    /// Exchanges whose client went away.
    pub aborted: u64,
    /// Prompt tokens of the requests that reached the engine.
    pub prompt_tokens: u64,
    /// Their completion tokens.
    pub completion_tokens: u64,
    /// Engine steps.
    pub steps: u64,
    /// When the log was closed.
    pub end_ns: u64,
    /// The device's side.
    pub device: DeviceTotals,
}

/// Writes the log and keeps the sums of its last line.
pub(crate) struct TruthLog {
    state: Mutex<State>,
}

struct State {
    file: Option<File>,
    totals: Totals,
}

impl TruthLog {
    /// Creates `path`, emptied; without a path only the sums are kept.
    pub(crate) fn create(path: Option<&Path>) -> Result<Self> {
        let file = path
            .map(|path| {
                File::create(path)
                    .with_context(|| format!("failed to create the truth log {}", path.display()))
            })
            .transpose()?;
        Ok(Self { state: Mutex::new(State { file, totals: Totals::default() }) })
    }

    pub(crate) fn server(&self, line: ServerLine) -> Result<()> {
        self.state().write(&Line::Server(line))
    }

    pub(crate) fn request(&self, line: RequestLine) -> Result<()> {
        let mut state = self.state();
        let totals = &mut state.totals;
        totals.requests += 1;
        *totals.by_status.entry(line.status.to_string()).or_default() += 1;
        totals.aborted += u64::from(line.aborted);
        totals.prompt_tokens += line.prompt_tokens;
        totals.completion_tokens += line.completion_tokens;
        state.write(&Line::Request(line))
    }

    pub(crate) fn step(&self, line: StepLine) -> Result<()> {
        let mut state = self.state();
        state.totals.steps += 1;
        state.write(&Line::Step(line))
    }

    pub(crate) fn close(&self, device: DeviceTotals) -> Result<()> {
        let mut state = self.state();
        let totals = Totals { end_ns: crate::clock::monotonic_ns(), device, ..state.totals.clone() };
        state.write(&Line::Totals(totals))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, line: &Line) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        file.write_all(&text).context("failed to write the truth log")
    }
}

/// A truth log, read.
#[derive(Clone, Debug, Default)]
pub struct ServerTruth {
    /// The first line.
    pub server: Option<ServerLine>,
    /// All exchanges, in the order in which they ended.
    pub requests: Vec<RequestLine>,
    /// All steps, in the order of their ends.
    pub steps: Vec<StepLine>,
    /// The sums; none while the server lives or after it was killed.
    pub totals: Option<Totals>,
}

impl ServerTruth {
    /// Reads the log; a last line that is still being written is left out.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("failed to read the truth log {}", path.display()))?;
        let complete = text.rfind('\n').and_then(|end| text.get(..end)).unwrap_or("");
        let mut truth = Self::default();
        for (number, line) in complete.lines().enumerate() {
            let line = serde_json::from_str(line)
                .with_context(|| format!("line {} of {} is no truth line", number + 1, path.display()))?;
            truth.add(line);
        }
        Ok(truth)
    }

    /// The exchange with this id on the wire.
    pub fn request(&self, id: &str) -> Option<&RequestLine> {
        self.requests.iter().find(|request| request.id.as_deref() == Some(id))
    }

    /// The exchanges that reached the engine.
    pub fn generations(&self) -> impl Iterator<Item = &RequestLine> {
        self.requests.iter().filter(|request| request.generated())
    }

    /// The steps that held the request with this id.
    pub fn steps_of<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a StepLine> {
        self.steps.iter().filter(move |step| step.members.iter().any(|member| member.id == id))
    }

    fn add(&mut self, line: Line) {
        match line {
            Line::Server(line) => self.server = Some(line),
            Line::Request(line) => self.requests.push(line),
            Line::Step(line) => self.steps.push(line),
            Line::Totals(line) => self.totals = Some(line),
        }
    }
}
