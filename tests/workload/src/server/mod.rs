//! The HTTP side: connections come in, generations go to the engine, answers and the truth log go out.
//!
//! One blocking thread per connection, as in cpp-httplib under llama-server. Absent: TLS and HTTP/2.

mod api;
mod connection;
mod exchange;
mod generation;
mod reply;
mod request;
mod write;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::clock::monotonic_ns;
use crate::engine::{self, Queue};
use crate::gpu;
use crate::options::ServerOptions;
use crate::truth::{DeviceTotals, ServerLine, TruthLog};

/// How long the end waits for exchanges that are being answered.
const DRAIN: Duration = Duration::from_secs(2);

/// What all threads of the server share.
struct Server {
    options: ServerOptions,
    /// By engine.
    queues: Vec<Queue>,
    truth: TruthLog,
    /// Exchanges between their last byte read and their truth line written.
    in_flight: AtomicUsize,
    generations: AtomicU64,
}

/// What an engine has opened.
struct Opened {
    cuda_runtime_version: i32,
    threads: Vec<u32>,
}

/// Serves until SIGTERM or SIGINT, then ends in order: engines, exchanges, truth log.
///
/// # Errors
/// When the libraries, the address or the truth file cannot be opened, and when a CUDA call fails later.
pub fn run(options: ServerOptions) -> Result<()> {
    if let Some(device) = options.rank {
        return gpu::serve_rank(&options, device);
    }
    // Before any thread starts, so that every thread inherits the mask and only the wait below takes the signal.
    let signals = block_signals();
    let server = Arc::new(Server {
        queues: (0..options.engines).map(|_| Queue::new(options.max_queue)).collect(),
        truth: TruthLog::create(options.truth.as_deref())?,
        in_flight: AtomicUsize::new(0),
        generations: AtomicU64::new(0),
        options,
    });
    let listener = TcpListener::bind(server.options.listen).with_context(|| {
        format!("failed to listen on {}: is another server there?", server.options.listen)
    })?;
    let (mut engines, mut opened) = (Vec::new(), Vec::new());
    for engine in 0..server.options.engines {
        let (ready, is_ready) = channel();
        engines.push(spawn_engine(Arc::clone(&server), engine, ready)?);
        opened.extend(is_ready.recv());
    }
    if opened.len() == engines.len() {
        announce(&server, listener.local_addr()?, opened)?;
        let accepting = Arc::clone(&server);
        Builder::new().name("accept".to_owned()).spawn(move || connection::accept(&accepting, &listener))?;
        wait_for_signal(&signals);
    }
    server.queues.iter().for_each(Queue::close);
    let mut totals = DeviceTotals::default();
    for engine in engines {
        totals.add(&engine.join().map_err(|_| anyhow!("an engine's thread panicked"))??);
    }
    server.drain();
    server.truth.close(totals)
}

/// Starts the thread that owns an engine's devices; it tells what it opened once it can take requests.
fn spawn_engine(
    server: Arc<Server>,
    engine: usize,
    ready: Sender<Opened>,
) -> Result<JoinHandle<Result<DeviceTotals>>> {
    let body = move || {
        let result = serve_engine(&server, engine, ready);
        if let Err(error) = &result {
            server.fail(engine, error);
        }
        result
    };
    Ok(Builder::new().name("engine".to_owned()).spawn(body)?)
}

fn serve_engine(server: &Server, engine: usize, ready: Sender<Opened>) -> Result<DeviceTotals> {
    let mut device = gpu::open(&server.options, engine)?;
    ready.send(Opened { cuda_runtime_version: device.runtime_version(), threads: device.threads() })?;
    drop(ready);
    let queue = server.queues.get(engine).context("no such engine")?;
    engine::run(queue, engine, device.as_mut(), &server.options, &server.truth)?;
    device.close()?;
    Ok(device.totals().clone())
}

/// Writes the truth log's first line and the line by which a parent learns the port.
fn announce(server: &Server, address: SocketAddr, opened: Vec<Opened>) -> Result<()> {
    let pid = std::process::id();
    server.truth.server(ServerLine {
        pid,
        port: address.port(),
        start_ns: monotonic_ns(),
        cuda_runtime_version: opened.first().map_or(0, |opened| opened.cuda_runtime_version),
        engines: opened.into_iter().map(|opened| opened.threads).collect(),
        options: server.options.clone(),
    })?;
    let line = serde_json::json!({
        "message": format!("listening on http://{address}"), "pid": pid, "port": address.port(),
    });
    writeln!(std::io::stdout().lock(), "{line}").context("failed to announce the port on standard output")
}

impl Server {
    /// An engine is no more.
    fn fail(&self, engine: usize, error: &anyhow::Error) {
        if self.options.rank_processes {
            // The front goes on, and answers that the engine is gone, as vLLM's does for a while.
            self.queues.get(engine).into_iter().for_each(Queue::close);
            let _ = writeln!(std::io::stderr(), "engine {engine} failed: {error:#}");
            return;
        }
        // Without an engine there is nothing to serve: end the wait in `run`, which reports the error.
        // SAFETY: a signal to the own process.
        unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
    }

    /// The queue of the engine whose turn a generation is.
    fn queue(&self, generation: u64) -> Option<&Queue> {
        self.queues.get(usize::try_from(generation).ok()? % self.queues.len().max(1))
    }

    /// Waits until every exchange has its truth line, but not for ever.
    fn drain(&self) {
        let deadline = std::time::Instant::now() + DRAIN;
        while self.in_flight.load(Ordering::Acquire) > 0 && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn block_signals() -> libc::sigset_t {
    // SAFETY: an all-zero set is a valid object for sigemptyset to fill; the calls only change this thread's mask.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        set
    }
}

fn wait_for_signal(set: &libc::sigset_t) {
    let mut signal = 0;
    // SAFETY: an initialised set and a valid out-pointer.
    unsafe { libc::sigwait(set, &raw mut signal) };
}
