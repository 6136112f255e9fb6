//! The interface between what is heard inside a server and what it means.
//!
//! In: [`Heard`], bounded copies of messages, calls and shared memory. Out: [`Said`]. An adapter is pure: no I/O, no
//! clock. It believes nothing that its checks do not confirm, and its [`Health`] says how that goes; one that fails is
//! demoted by whoever runs it, and never asked again.

use super::said::Said;
pub use crate::decode::Run;
use crate::http::{ShardBatch, ShardStep};

/// One observation inside a server's process.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// What.
    pub what: What<'a>,
}

/// What was observed.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// A frame went through a message queue (libzmq, or ZMTP on a socket).
    Frame(Frame<'a>),
    /// The engine wrote this into a ring in shared memory for its workers.
    Ring(Chunk<'a>),
    /// A batch was given to llama.cpp; the call is under way.
    Batch(Batch<'a>),
    /// A function of the server or its library was called, or returned.
    Call(Call<'a>),
    /// A gRPC call between a router and its shards: what was asked.
    ShardBatches {
        /// Connection and stream: names the call among those under way.
        call: u64,
        /// What.
        batches: &'a [ShardBatch],
    },
    /// What a shard answered.
    ShardStep {
        /// As above.
        call: u64,
        /// What.
        step: &'a ShardStep,
    },
    /// A snapshot that the server publishes in shared memory.
    Snapshot(&'a [u8]),
}

/// A frame of a message.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The process sent it; else it received it.
    pub sent: bool,
    /// Names the socket in its process.
    pub socket: u64,
    /// More frames of the same message follow.
    pub more: bool,
    /// Its bytes, as far as they were copied.
    pub bytes: &'a [u8],
    /// Its size: more than `bytes` holds when it was cut.
    pub size: u64,
}

/// A chunk of a ring in shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Which slot.
    pub slot: u32,
    /// Its bytes from the start of the slot, as far as they were copied.
    pub bytes: &'a [u8],
}

/// A batch of llama.cpp (`llama_batch` or `llama_batch_ext`).
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// `llama_context*`.
    pub context: u64,
    /// Index of the function in the probe catalogue.
    pub api: u16,
    /// Tokens in it.
    pub tokens: u32,
    /// They come as embeddings, not as tokens.
    pub embeddings: bool,
    /// It does not say which tokens want an output: the last one does.
    pub last_only: bool,
    /// The tokens in order, as runs of one sequence at rising positions.
    pub runs: &'a [Run],
    /// Tokens behind the last run that were not looked at.
    pub unseen: u32,
}

/// A call.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The function's symbol, as the catalogue has it.
    pub symbol: &'static str,
    /// Arguments in order; some calls have only the first six.
    pub args: &'a [u64],
    /// At its return: its result, and when it was entered. None at its entry.
    pub returned: Option<Returned>,
    /// Text that an argument pointed to.
    pub text: Option<&'a str>,
    /// Words of an array that an argument pointed to.
    pub array: &'a [u64],
}

/// How a call returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Returned {
    /// When it was entered, `CLOCK_MONOTONIC` nanoseconds.
    pub entered_ns: u64,
    /// The low 32 bits of its result, sign-extended.
    pub result: i64,
    /// The word that its out argument pointed to.
    pub out: u64,
}

/// How an adapter's checks go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Messages or calls that it should have understood.
    pub seen: u64,
    /// Of these, those that failed a check. Nothing was said of them.
    pub failed: u64,
    /// Why the last one failed.
    pub why: Option<&'static str>,
}

impl Health {
    /// One that passed.
    pub fn pass(&mut self) {
        self.seen += 1;
    }

    /// One that failed, and why.
    pub fn fail(&mut self, why: &'static str) {
        self.seen += 1;
        self.failed += 1;
        self.why = Some(why);
    }

    /// Whether the adapter must not be believed any more: more than one in a hundred failed, or most of the first few.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        match self.seen {
            0..20 => false,
            seen => self.failed * 100 > seen.max(100),
        }
    }
}

/// Makes [`Said`] of [`Heard`] for the processes of one server.
pub trait Adapter: std::fmt::Debug + Send {
    /// Its name, as `check`, the summary and metrics have it.
    fn name(&self) -> &'static str;

    /// Takes one observation.
    fn hear(&mut self, heard: &Heard<'_>, out: &mut Vec<Said>);

    /// How its checks go.
    fn health(&self) -> Health;

    /// Which version of the server's formats it has settled on, if there are several and it has.
    fn schema(&self) -> Option<&'static str> {
        None
    }

    /// Time passed, at least as far as this; nothing may be heard for long.
    fn tick(&mut self, _now_ns: u64, _out: &mut Vec<Said>) {}

    /// A process is gone.
    fn process_gone(&mut self, _pid: u32, _time_ns: u64, _out: &mut Vec<Said>) {}
}
