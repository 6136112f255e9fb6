//! Records → events. Total: any bytes give an event or a reason, and nothing stops the stream.
//!
//! In: the bytes of one ring-buffer record. Out: an [`Event`] that owns what it needs. No I/O, no clock, no state.

mod record;

pub use record::decode;

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
    /// A socket moved.
    Socket(Socket),
    /// The process itself changed.
    Process(Change),
}

/// A call of a GPU function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuCall {
    /// Index into the probe catalogue; known to be in range.
    pub api: u16,
    /// What came with it.
    pub data: CallData,
}

/// What is known of a GPU call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallData {
    /// A kernel launch.
    Launch(Launch),
    /// Anything else, seen at entry.
    Entered {
        /// Register arguments.
        args: [u64; 5],
    },
    /// Anything else, seen at return.
    Returned {
        /// When it was entered, `CLOCK_MONOTONIC` nanoseconds.
        entered_ns: u64,
        /// Register arguments.
        args: [u64; 5],
        /// `cudaError_t` or `CUresult`: 0 is success.
        result: i64,
        /// What the out argument pointed to.
        out: u64,
    },
}

/// The arguments of a kernel launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// Who sent the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The target read them.
    Received,
    /// The target wrote them.
    Sent,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The target closed it.
    Closed,
    /// The peer sends nothing more.
    EndOfInput,
    /// It broke, with this `errno`.
    Failed(u32),
}

/// How a process changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}
