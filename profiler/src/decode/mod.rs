//! Records → events. Total: any bytes give an event or a reason, and nothing stops the stream.
//!
//! In: the bytes of one ring-buffer record. Out: an [`Event`] that owns what it needs. No I/O, no clock, no state.

mod record;
mod server;

pub use record::decode;
pub use server::{Batch, Run, ServerCall, ServerData, Way};

use profiler_common::event::{WIDE_ARGS, WIDE_WORDS};

/// Why a record was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rejected {
    /// Shorter than its kind, or than any kind.
    Truncated,
    /// A kind that this program does not know.
    UnknownKind,
    /// A probe index that the catalogue does not have.
    UnknownApi,
    /// A field holds a value that its kind does not allow.
    BadValue,
}

impl Rejected {
    /// All reasons, in the order of the summary.
    pub const ALL: [Self; 4] = [Self::Truncated, Self::UnknownKind, Self::UnknownApi, Self::BadValue];

    /// The name in summaries and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::UnknownKind => "unknown_kind",
            Self::UnknownApi => "unknown_api",
            Self::BadValue => "bad_value",
        }
    }
}

/// Something that happened in a target process.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// What.
    pub body: Body,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A GPU function was called.
    Gpu(GpuCall),
    /// The stack of a launch.
    Stack(Box<Stack>),
    /// What a thread has sent to the GPU, counted in the kernel.
    Burst(Burst),
    /// A socket moved.
    Socket(Socket),
    /// A function of a model server was called.
    Server(ServerCall),
    /// The process itself changed.
    Process(Change),
    /// The thread works for another span than before, or for none.
    Context(Option<SpanContext>),
}

/// The span that a thread has active, as its SDK says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SpanContext {
    /// Its trace.
    pub trace_id: [u8; 16],
    /// Its id; 0 where several spans of a trace are meant.
    pub span_id: [u8; 8],
    /// Its W3C flags; none where the publisher leaves them empty.
    pub flags: Option<u8>,
}

impl SpanContext {
    /// Whether its trace is recorded, as far as is known.
    #[must_use]
    pub fn is_sampled(self) -> bool {
        self.flags.is_none_or(|flags| flags & 1 == 1)
    }
}

/// A call of a GPU function.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GpuCall {
    /// Index into the probe catalogue; known to be in range.
    pub api: u16,
    /// What came with it.
    pub data: CallData,
}

/// What is known of a GPU call.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum CallData {
    /// A kernel launch.
    Launch(Launch),
    /// Anything else, seen at entry.
    Entered {
        /// Return address; 0 where it was not asked for.
        caller: u64,
        /// The first six arguments.
        args: [u64; 6],
    },
    /// Anything else, seen at return.
    Returned {
        /// When it was entered, `CLOCK_MONOTONIC` nanoseconds.
        entered_ns: u64,
        /// Return address; 0 where it was not asked for.
        caller: u64,
        /// The first six arguments.
        args: [u64; 6],
        /// `cudaError_t` or `CUresult`: 0 is success.
        result: i64,
        /// What the out argument and the second one pointed to.
        out: [u64; 2],
    },
    /// A call with many arguments or a structure, seen at entry.
    Wide(Box<Wide>),
    /// A call that has been reported at its entry failed.
    Failed {
        /// `cudaError_t` or `CUresult`.
        result: i64,
    },
    /// A handle was handed out for something with a name.
    Named {
        /// The handle.
        handle: u64,
        /// The name.
        name: Box<str>,
        /// It went on.
        cut: bool,
    },
}

/// The arguments of a call that six do not tell.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Wide {
    /// Return address.
    pub caller: u64,
    /// Arguments in order.
    pub args: [u64; WIDE_ARGS],
    /// The structure that one of them points to; or sum, summed and present elements, and the first destination and
    /// source of an array.
    pub pointee: [u64; WIDE_WORDS],
}

/// The user stack of a launch.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stack {
    /// Index into the probe catalogue; known to be in range.
    pub api: u16,
    /// Which kernel.
    pub function: u64,
    /// Return address of the launch.
    pub caller: u64,
    /// Return addresses, innermost first; the caller is among them.
    pub frames: Vec<u64>,
}

/// What a thread has sent so far, as sums that only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Burst {
    /// First operation since the last one told, `CLOCK_MONOTONIC` nanoseconds.
    pub first_ns: u64,
    /// Last operation, likewise.
    pub last_ns: u64,
    /// Launches.
    pub launches: u64,
    /// Copies.
    pub copies: u64,
    /// Bytes copied.
    pub copy_bytes: u64,
}

/// The arguments of a kernel launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Launch {
    /// Host function, `cudaKernel_t` or `CUfunction`.
    pub function: u64,
    /// Stream handle.
    pub stream: u64,
    /// Return address of the call.
    pub caller: u64,
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u16; 3],
    /// Dynamic shared memory of a block, bytes.
    pub shared_bytes: u32,
}

/// What a connection did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socket {
    /// It was accepted.
    Opened {
        /// Its id.
        connection: u64,
        /// Its descriptor.
        fd: u32,
        /// The listening descriptor.
        listener_fd: u32,
    },
    /// Bytes went through.
    Data {
        /// Its id.
        connection: u64,
        /// Whether the target read or wrote them.
        direction: Direction,
        /// Bytes that went this way before.
        position: u64,
        /// The bytes.
        bytes: Vec<u8>,
        /// Bytes after them that were not copied.
        lost_after: u32,
    },
    /// It, or its input, ended.
    Ended {
        /// Its id.
        connection: u64,
        /// Its descriptor.
        fd: u32,
        /// How.
        end: End,
        /// Bytes received on it so far.
        received: u64,
        /// Bytes sent on it so far.
        sent: u64,
    },
    /// A TLS session was met: what a library deciphers is a stream of its own.
    Secured {
        /// Its id.
        connection: u64,
        /// It is new: its first bytes are its very first.
        new: bool,
    },
    /// What carries a TLS session became known, or doubtful.
    Carried {
        /// The session's id.
        connection: u64,
        /// The connection that carries it; for doubts, what was thought to.
        carrier: u64,
        /// How that is known.
        tie: Tie,
    },
}

/// How the carrier of a TLS session is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Tie {
    /// The program set the descriptor.
    Descriptor,
    /// The library read or wrote the connection inside a call for the session.
    Nested,
    /// The thread read the connection, and handed the bytes to the session.
    Order,
    /// The thread wrote to the connection exactly what the session's bytes become.
    Length,
    /// Two observations speak against it.
    Dropped,
}

/// Who sent the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Direction {
    /// The target read them.
    Received,
    /// The target wrote them.
    Sent,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum End {
    /// The target closed it.
    Closed,
    /// The peer sends nothing more.
    EndOfInput,
    /// It broke, with this `errno`.
    Failed(u32),
    /// The target sends nothing more.
    EndOfOutput,
    /// The last process that had it, from a fork, ended without closing it.
    ProcessExited,
}

/// How a process changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Change {
    /// It made a new task.
    Forked {
        /// The new thread or process.
        task: u32,
    },
    /// It runs another program now.
    Executed,
    /// The task ended.
    Exited,
    /// It mapped a file executable.
    Mapped,
    /// It listens.
    Listens {
        /// On this descriptor.
        fd: u32,
    },
    /// It made an io_uring: what it moves through that is not seen.
    MadeIoUring,
}
