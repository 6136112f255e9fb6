//! `cargo xtask demo`: a model server, load on it, and gpuspan attached by pid; what it saw, and where it can go.
//!
//! The server is the workload server on the stand-in CUDA libraries, or with `--server llama` a real llama-server
//! whose unmodified CUDA backend runs on them.

use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use workload::client::Range;
use workload::{ClientOptions, ServerOptions, ServerProcess};
use xtask::server::{self, Name, Options, Running};

/// Shows the main job.
#[derive(clap::Args)]
pub struct Args {
    /// What to observe.
    #[arg(long, value_enum, default_value_t)]
    server: Server,
    /// Requests to send.
    #[arg(long, default_value_t = 120)]
    requests: usize,
    /// How many of them at the same time.
    #[arg(long, default_value_t = 6)]
    concurrency: usize,
}

/// What the demo observes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Server {
    /// A small continuous-batching server on the stand-in CUDA libraries.
    #[default]
    Workload,
    /// A real llama-server with ggml-cuda on the stand-ins; fetched and built the first time (about 15 minutes).
    Llama,
}

/// Time for the probes to be in place.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs the demo.
pub fn run(args: &Args) -> Result<()> {
    println!("building gpuspan and the demo's server …");
    cargo(&["build", "--quiet", "--package", "profiler", "--package", "workload"])?;
    let target = Target::start(args.server)?;
    println!("\na model server runs as pid {}, unmodified and unaware; attaching to it:\n", target.pid());
    println!("  gpuspan attach --pid {} --otlp-file target/demo/traces.jsonl\n", target.pid());
    let folder = root().join("target/demo");
    std::fs::create_dir_all(&folder)?;
    let mut gpuspan = Observer::start(target.pid(), &folder)?;
    load(&target, args)?;
    gpuspan.stop()?;
    farewell(&folder);
    Ok(())
}

/// The server under observation.
enum Target {
    Workload(ServerProcess),
    Llama(Running),
}

impl Target {
    fn start(server: Server) -> Result<Self> {
        match server {
            Server::Workload => {
                // Kernels of 60 µs make steps of some milliseconds, as a small model on a real GPU has them.
                let options = ServerOptions { kernel_ns: 60_000, max_batch: 4, ..ServerOptions::default() };
                let environment =
                    simgpu::command_env(simgpu::Runtime::Cuda12, &simgpu::Environment::default());
                Ok(Self::Workload(ServerProcess::start(&options, &environment)?))
            }
            Server::Llama => Ok(Self::Llama(server::start(Name::Llama, &Options::default())?)),
        }
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Workload(server) => server.pid(),
            Self::Llama(server) => server.pid,
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Workload(server) => server.url(),
            Self::Llama(server) => server.url.clone(),
        }
    }

    fn model(&self) -> String {
        match self {
            Self::Workload(_) => ServerOptions::default().model,
            Self::Llama(server) => server.model.clone(),
        }
    }
}

/// gpuspan, attached.
struct Observer(Child);

impl Observer {
    fn start(pid: u32, folder: &Path) -> Result<Self> {
        let ready = folder.join("ready");
        // From an earlier demo; there is none the first time.
        let _ = std::fs::remove_file(&ready);
        let _ = std::fs::remove_file(folder.join("traces.jsonl"));
        let child = Command::new(root().join("target/debug/gpuspan"))
            .args(["attach", "--pid", &pid.to_string(), "--ready-file"])
            .arg(&ready)
            .arg("--otlp-file")
            .arg(folder.join("traces.jsonl"))
            .arg("--summary")
            .arg(folder.join("summary.json"))
            .spawn()
            .context("failed to start gpuspan")?;
        let mut observer = Self(child);
        let start = Instant::now();
        while !ready.exists() {
            if let Some(status) = observer.0.try_wait()? {
                anyhow::bail!("gpuspan ended before it was attached ({status}); the demo needs root");
            }
            ensure!(start.elapsed() < ATTACH_TIMEOUT, "gpuspan was not attached within {ATTACH_TIMEOUT:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(observer)
    }

    /// As Ctrl-C would.
    fn stop(&mut self) -> Result<()> {
        let pid = libc::pid_t::try_from(self.0.id())?;
        // SAFETY: a signal to our own child, which has not been waited for, so the number is still its own.
        unsafe { libc::kill(pid, libc::SIGINT) };
        let status = self.0.wait()?;
        ensure!(status.success(), "gpuspan ended with {status}");
        Ok(())
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // Both fail only when it has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn load(target: &Target, args: &Args) -> Result<()> {
    let range = |text: &str| text.parse::<Range>().map_err(|error| anyhow::anyhow!("{error}"));
    let options = ClientOptions {
        concurrency: args.concurrency,
        requests: args.requests,
        prompt_words: range("16..400")?,
        max_tokens: range("8..48")?,
        traceparent: true,
        model: target.model(),
        ..ClientOptions::new(target.url())
    };
    let records = workload::load(&options)?;
    let failed = records.iter().filter(|record| !record.is_ok()).count();
    ensure!(failed == 0, "{failed} of {} requests failed", records.len());
    Ok(())
}

fn farewell(folder: &Path) {
    let folder = folder.strip_prefix(root()).unwrap_or(folder).display().to_string();
    println!(
        "\nthe same in files: {folder}/traces.jsonl (OTLP/JSON lines), {folder}/summary.json (every count and loss)\n\
         to see it in Tempo, send it there instead of to a file:\n\n  \
         gpuspan attach --pid PID --otlp-endpoint http://TEMPO:4317\n\n\
         with metrics to Prometheus:\n\n  \
         OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://TEMPO:4317 \\\n  \
         OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://PROMETHEUS:9090/api/v1/otlp/v1/metrics \\\n  \
         OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=http/protobuf gpuspan attach --pid PID"
    );
}

/// Runs cargo in the workspace.
pub fn cargo(arguments: &[&str]) -> Result<()> {
    let status = workload::cargo().args(arguments).current_dir(root()).status()?;
    ensure!(status.success(), "`cargo {}` failed", arguments.join(" "));
    Ok(())
}

/// The workspace's folder.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}
