//! The client: requests go out at a chosen concurrency or rate, one record per request comes back.
//!
//! In: [`ClientOptions`]. Out: [`ClientRecord`]s whose times are `CLOCK_MONOTONIC` nanoseconds of this process.
//! Works against any OpenAI-compatible server and against Ollama's `/api/generate`. Absent: TLS, redirects.

mod connection;
mod event;
mod exchange;
mod plan;
mod record;
mod summary;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, anyhow};
use clap::{Parser, ValueEnum};

use crate::clock::{monotonic_ns, sleep_until};
use connection::Connection;
pub use plan::Range;
use plan::{Plan, Planned};
pub use record::{ClientRecord, Usage};
pub use summary::Summary;

/// Whether answers are streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StreamMode {
    /// All.
    True,
    /// None.
    False,
    /// Every second one.
    Mix,
}

/// The server's dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Api {
    /// `POST /v1/chat/completions`.
    Chat,
    /// `POST /v1/completions`.
    Completions,
    /// `POST /api/generate`, NDJSON.
    Ollama,
}

/// What to send, how often and how much at once.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "workload-client",
    about = "Loads an OpenAI-compatible server and records every token's time"
)]
pub struct ClientOptions {
    /// Server, as `http://ADDRESS:PORT`.
    #[arg(long)]
    pub url: String,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 4)]
    pub concurrency: usize,
    /// Requests in all.
    #[arg(long, default_value_t = 16)]
    pub requests: usize,
    /// Words of a prompt, as `MIN..MAX` (both included).
    #[arg(long, default_value = "8..64")]
    pub prompt_words: Range,
    /// Tokens of a completion, as `MIN..MAX` (both included).
    #[arg(long, default_value = "4..32")]
    pub max_tokens: Range,
    /// Whether answers are streamed.
    #[arg(long, value_enum, default_value = "true")]
    pub stream: StreamMode,
    /// Requests per second with exponential gaps; without it each connection sends as soon as it is free. A
    /// request whose time comes while all connections are busy is sent late.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Dialect.
    #[arg(long, value_enum, default_value = "chat")]
    pub api: Api,
    /// Send a sampled `traceparent` of its own with each request.
    #[arg(long)]
    pub traceparent: bool,
    /// Seed of prompts, lengths, gaps and trace ids.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Model to ask for.
    #[arg(long, default_value = "workload-1")]
    pub model: String,
    /// Write pattern to ask `workload-server` for: plain, split, joined, vector or utf8split.
    #[arg(long)]
    pub writes: Option<String>,
    /// Close the connection of every Nth request after its second token; 0 closes none.
    #[arg(long, default_value_t = 0)]
    pub abort_every: usize,
    /// Seconds without a byte after which a request counts as failed.
    #[arg(long, default_value_t = 60)]
    pub timeout_s: u64,
}

impl ClientOptions {
    /// The defaults of the command line, against `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self::parse_from(["workload-client".to_owned(), "--url".to_owned(), url.into()])
    }
}

/// Sends every request and returns their records in order of their index.
///
/// # Errors
/// When the URL is none, or a thread cannot be had. A failed request is a record with `error`, not an error.
pub fn load(options: &ClientOptions) -> Result<Vec<ClientRecord>> {
    load_with(options, |_| Ok(()))
}

/// Like [`load`], with a look at each record as soon as it is there.
///
/// # Errors
/// As [`load`], and whatever `look` returns.
pub fn load_with(
    options: &ClientOptions,
    look: impl FnMut(&ClientRecord) -> Result<()> + Send,
) -> Result<Vec<ClientRecord>> {
    let authority = options
        .url
        .strip_prefix("http://")
        .ok_or_else(|| anyhow!("the URL {} does not start with http://", options.url))?
        .trim_end_matches('/');
    let plan = Plan::new(options);
    let next = AtomicUsize::new(0);
    let done = Mutex::new((Vec::new(), look));
    let start_ns = monotonic_ns();
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            let mut connection = Connection::new(authority, options.timeout_s);
            while let Some(planned) = plan.request(next.fetch_add(1, Ordering::Relaxed)) {
                let record = send(&mut connection, options, planned, start_ns);
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                (done.1)(&record)?;
                done.0.push(record);
            }
            Ok(())
        };
        let threads: Vec<_> = (0..options.concurrency.max(1)).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a client thread panicked"))?)
    })?;
    let (mut records, _) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    records.sort_by_key(|record| record.index);
    Ok(records)
}

/// One request at its time. Whatever fails is said in the record, and the next request connects anew.
fn send(
    connection: &mut Connection,
    options: &ClientOptions,
    planned: Planned,
    start_ns: u64,
) -> ClientRecord {
    sleep_until(start_ns.saturating_add(planned.after_ns));
    let mut record = planned.record;
    let aborts = options.abort_every > 0 && (record.index + 1).is_multiple_of(options.abort_every);
    let result = exchange::run(connection, options, &planned.body, aborts, &mut record);
    record.end_ns = monotonic_ns();
    if let Err(error) = result {
        record.error = Some(format!("{error:#}"));
    }
    if record.error.is_some() || record.aborted {
        connection.close();
    }
    record
}
