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
    queue: Queue,
    truth: TruthLog,
    /// Exchanges between their last byte read and their truth line written.
    in_flight: AtomicUsize,
    generations: AtomicU64,
}

/// Serves until SIGTERM or SIGINT, then ends in order: engine, exchanges, truth log.
///
/// # Errors
/// When the libraries, the address or the truth file cannot be opened, and when a CUDA call fails later.
pub fn run(options: ServerOptions) -> Result<()> {
    // Before any thread starts, so that every thread inherits the mask and only the wait below takes the signal.
    let signals = block_signals();
    let server = Arc::new(Server {
        queue: Queue::new(options.max_queue),
        truth: TruthLog::create(options.truth.as_deref())?,
        in_flight: AtomicUsize::new(0),
        generations: AtomicU64::new(0),
        options,
    });
    let listener = TcpListener::bind(server.options.listen).with_context(|| {
        format!("failed to listen on {}: is another server there?", server.options.listen)
    })?;
    let (ready, opened) = channel();
    let engine = spawn_engine(Arc::clone(&server), ready)?;
    if let Ok(cuda_runtime_version) = opened.recv() {
        announce(&server, listener.local_addr()?, cuda_runtime_version)?;
        let accepting = Arc::clone(&server);
        Builder::new().name("accept".to_owned()).spawn(move || connection::accept(&accepting, &listener))?;
        wait_for_signal(&signals);
    }
    server.queue.close();
    let totals = engine.join().map_err(|_| anyhow!("the engine's thread panicked"))??;
    server.drain();
    server.truth.close(totals)
}

/// Starts the thread that owns the device; it reports the runtime's version once it can take requests.
fn spawn_engine(server: Arc<Server>, ready: Sender<i32>) -> Result<JoinHandle<Result<DeviceTotals>>> {
    let body = move || {
        let result = serve_engine(&server, ready);
        if result.is_err() {
            // Without an engine there is nothing to serve: end the wait in `run`, which reports the error.
            // SAFETY: a signal to the own process.
            unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
        }
        result
    };
    Ok(Builder::new().name("engine".to_owned()).spawn(body)?)
}

fn serve_engine(server: &Server, ready: Sender<i32>) -> Result<DeviceTotals> {
    let mut device = gpu::open(&server.options)?;
    ready.send(device.runtime_version())?;
    drop(ready);
    engine::run(&server.queue, device.as_mut(), &server.options, &server.truth)?;
    device.close()?;
    Ok(device.totals().clone())
}

/// Writes the truth log's first line and the line by which a parent learns the port.
fn announce(server: &Server, address: SocketAddr, cuda_runtime_version: i32) -> Result<()> {
    let pid = std::process::id();
    server.truth.server(ServerLine {
        pid,
        port: address.port(),
        start_ns: monotonic_ns(),
        cuda_runtime_version,
        options: server.options.clone(),
    })?;
    let line = serde_json::json!({
        "message": format!("listening on http://{address}"), "pid": pid, "port": address.port(),
    });
    writeln!(std::io::stdout().lock(), "{line}").context("failed to announce the port on standard output")
}

impl Server {
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
