//! The workload server on the stand-ins, with its logs in a folder of its own.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use simgpu::{Environment, Totals, Truth, command_env};
use tempfile::TempDir;
use workload::options::Runtime;
use workload::{ServerOptions, ServerProcess, ServerTruth};

/// A running server and its logs; both gone when dropped.
#[derive(Debug)]
pub struct Stage {
    /// The server.
    pub server: ServerProcess,
    folder: TempDir,
    gpu: bool,
}

impl Stage {
    /// Starts a server, without CUDA when the options say so.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(options: &ServerOptions) -> Result<Self> {
        Self::start_with(options, Environment::default())
    }

    /// Starts a server whose device logs every operation.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_logging(options: &ServerOptions) -> Result<Self> {
        Self::start_with(options, Environment { ops: true, ..Environment::default() })
    }

    /// Starts a server on a device with these settings.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_with(options: &ServerOptions, settings: Environment) -> Result<Self> {
        let folder = TempDir::new()?;
        let devices = u32::try_from(options.all_devices()).ok().filter(|devices| *devices > 1);
        let settings = Environment { devices: settings.devices.or(devices), ..settings };
        let options = ServerOptions { truth: Some(folder.path().join("truth.jsonl")), ..options.clone() };
        let settings = Environment { log_dir: Some(folder.path().to_owned()), ..settings };
        let environment = match options.runtime {
            Runtime::Cuda12 => command_env(simgpu::Runtime::Cuda12, &settings),
            Runtime::Cuda13 => command_env(simgpu::Runtime::Cuda13, &settings),
            Runtime::None => Vec::new(),
        };
        let gpu = !environment.is_empty();
        Ok(Self { server: ServerProcess::start(&options, &environment)?, folder, gpu })
    }

    /// Where the stand-ins and the server keep their logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the stand-ins have counted so far: nothing without CUDA.
    ///
    /// # Errors
    /// When their log cannot be read.
    pub fn device(&self) -> Result<Totals> {
        if !self.gpu {
            return Ok(Totals::default());
        }
        device(self.folder.path(), self.server.pid())
    }

    /// Every operation that its device has run so far.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn operations(&self) -> Result<Vec<simgpu::Op>> {
        Ok(simgpu::ops(self.folder.path())?)
    }

    /// What the server has logged so far.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn truth(&self) -> Result<ServerTruth> {
        ServerTruth::read(&self.folder.path().join("truth.jsonl"))
    }
}

/// What the stand-ins have counted in one process.
///
/// # Errors
/// When their log cannot be read, or has nothing of the process.
pub fn device(log: &Path, pid: u32) -> Result<Totals> {
    let truth = Truth::read(log)?;
    Ok(truth.process(pid).with_context(|| format!("the stand-ins know nothing of {pid}"))?.totals.clone())
}

/// What was counted after `before`. Levels, such as live and peak bytes, mean nothing in it.
#[must_use]
pub fn since(before: &Totals, after: &Totals) -> Totals {
    let less = |after: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>| {
        let of = |name: &String| before.get(name).copied().unwrap_or(0);
        after.iter().map(|(name, count)| (name.clone(), count.saturating_sub(of(name)))).collect()
    };
    let mut kernels = after.kernels.clone();
    for (name, kernel) in &mut kernels {
        let Some(before) = before.kernels.get(name) else { continue };
        kernel.launched -= before.launched;
        kernel.captured -= before.captured;
        kernel.graph_runs -= before.graph_runs;
        kernel.total_ns -= before.total_ns;
    }
    Totals { calls: less(&after.calls, &before.calls), facts: less(&after.facts, &before.facts), kernels }
}
