//! One observation: a server that runs, connections from before the attach, gpuspan attached, load, and what everybody says
//! of it. In goes a server and a wire, out come the client's records and the profiler's report.

use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::{Observation, Report};

use crate::client::{self, Connection, Load, Question, Record, Wire};

/// What the client and the profiler saw of the same window.
pub struct Observed {
    pub wire: Wire,
    /// The model that was asked.
    pub model: String,
    /// Every request of the load.
    pub records: Vec<Record>,
    /// The stream that had begun before the attach and went on.
    pub mid_stream: Record,
    /// Requests on a connection that was idle at the attach.
    pub on_old: Vec<Record>,
    pub report: Report,
    /// What Unix time was ahead of `CLOCK_MONOTONIC`.
    pub unix_offset_ns: u64,
}

/// How long the profiler may take to read what is still in its ring.
const SETTLE: Duration = Duration::from_millis(200);

/// Observes the process `pid` while `load` comes in on `port`.
pub fn observe(pid: u32, port: u16, wire: Wire, load: &Load) -> Result<Observed> {
    // A build would outlast the stream that is to be under way.
    e2e::program::gpuspan()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let old = Old::open(port, wire, load).await.context("before the attach")?;
        let observation = tokio::task::spawn_blocking(move || Observation::start(pid, &[])).await??;
        let prompt = Prompt::begin();
        let on_old = old.ask(load).await;
        let records = load.run(port, wire).await?;
        let mid_stream = old.busy.await?;
        let unix_offset_ns = client::unix_offset_ns();
        drop(prompt);
        tokio::time::sleep(SETTLE).await;
        let report = tokio::task::spawn_blocking(move || observation.stop()).await??;
        let model = load.model.clone();
        Ok(Observed { wire, model, records, mid_stream, on_old, report, unix_offset_ns })
    })
}

impl Observed {
    /// Requests on connections from before the attach.
    pub fn old(&self) -> impl Iterator<Item = &Record> {
        self.on_old.iter().chain([&self.mid_stream])
    }
}

/// Connections that are older than the attach.
struct Old {
    idle: Connection,
    busy: tokio::task::JoinHandle<Record>,
}

impl Old {
    /// One is idle, after an exchange where connections last; on the other a stream has begun.
    async fn open(port: u16, wire: Wire, load: &Load) -> Result<Self> {
        let idle = Connection::open(port, wire).await?;
        if load.keep_alive {
            idle.ask(&load.question(3)).await;
        }
        let busy = Connection::open(port, wire).await?;
        let long = Question { pace_ms: load.pace_ms, ..load.question(load.early_tokens) };
        let (begun, beginning) = tokio::sync::oneshot::channel();
        let mut begun = Some(begun);
        let busy = tokio::spawn(async move {
            let tell = |tokens| {
                if let Some(begun) = begun.take_if(|_| tokens == 3) {
                    // Nobody waits any more only where the test has failed.
                    let _ = begun.send(());
                }
            };
            busy.ask_telling(&long, tell).await
        });
        beginning.await.context("the stream ended before its third token")?;
        Ok(Self { idle, busy })
    }

    async fn ask(&self, load: &Load) -> Vec<Record> {
        let mut records = Vec::new();
        for tokens in if load.keep_alive { vec![4, 6] } else { vec![4] } {
            records.push(self.idle.ask(&load.question(tokens)).await);
        }
        records
    }
}

/// While it lives, this thread runs before all others that want its core: the client's clock reads are then close to the
/// moments at which bytes arrive, also on a machine that is busy otherwise. Without the right to it nothing changes.
struct Prompt;

impl Prompt {
    fn begin() -> Self {
        // Children have the usual priority.
        schedule(libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, 1);
        Self
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        schedule(libc::SCHED_OTHER, 0);
    }
}

fn schedule(policy: libc::c_int, sched_priority: libc::c_int) {
    let parameters = libc::sched_param { sched_priority };
    // SAFETY: the kernel reads a value that lives through the call; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
}
