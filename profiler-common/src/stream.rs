//! The connection tables that both sides keep: descriptor → connection, connection → stream.

/// Key of the descriptor table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Descriptor {
    /// Process.
    pub tgid: u32,
    /// File descriptor.
    pub fd: u32,
}

/// What the kernel side remembers of a connection, as bits of [`Stream::mode`].
pub mod mode {
    /// Every byte travels, however long the turn: a protocol whose framing does not survive a gap (HTTP/2).
    pub const WHOLE: u32 = 1;
    /// It opened like TLS: what it carries is not readable here, and payload does not travel.
    pub const TLS: u32 = 1 << 1;
    /// The end of what the target sends has been reported.
    pub const OUTPUT_ENDED: u32 = 1 << 29;
    /// A failure has been reported.
    pub const FAILED: u32 = 1 << 30;
    /// The end of the input has been reported.
    pub const INPUT_ENDED: u32 = 1 << 31;
}

/// Payload of a turn, a request or a response, that travels whole, bytes: heads, and all but the largest bodies.
pub const TURN_BYTES: u64 = 64 << 10;

/// Of each system call behind [`TURN_BYTES`], how many bytes travel of its head and of its tail.
pub const REDUCED: (u64, u64) = (4048, 976);

/// Likewise where user space has said that it needs no contents ([`Wish::brief_while`]): enough for a chunk's size and
/// the end of a stream.
pub const BRIEF: (u64, u64) = (96, 32);

/// Value of the stream table.
///
/// A read ends the response and a write ends the request: each begins a turn of its own, which is how the kernel side
/// knows where the next head may stand without reading the protocol.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Bytes the target has read.
    pub received: u64,
    /// Bytes the target has written.
    pub sent: u64,
    /// What `received` was when the target last wrote: the turn of the client begins there.
    pub request_from: u64,
    /// What `sent` was when the target last read.
    pub response_from: u64,
    /// Bits of [`mode`].
    pub mode: u32,
    /// Descriptors that refer to the connection (`dup` and `fork` add one).
    pub descriptors: u32,
    /// The kernel's `struct file` of the connection, 0 where it is not known.
    pub file: u64,
}

impl Stream {
    /// Nothing has gone by.
    pub const EMPTY: Self =
        Self { received: 0, sent: 0, request_from: 0, response_from: 0, mode: 0, descriptors: 0, file: 0 };
}

/// What user space wishes of a connection's payload: an entry of a table of [`WISHES`], at the place of the low bits of
/// the connection's id. A wish may be overwritten by that of another connection; more payload travels then.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Whose.
    pub connection: u64,
    /// The contents of what the target sends are of no use as long as it has read no more than this; [`Wish::NOTHING`]:
    /// no payload at all, [`Wish::WHOLE`]: all of it.
    pub brief_while: u64,
}

impl Wish {
    /// No payload is of use, whatever comes.
    pub const NOTHING: u64 = u64::MAX;
    /// All of it, however long the turn.
    pub const WHOLE: u64 = u64::MAX - 1;
}

/// Entries of the table of wishes; a power of two.
pub const WISHES: u32 = 16384;

/// Key of the table of TLS sessions: an `SSL` object of a process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// Address of the object.
    pub ssl: u64,
    /// Process, widened.
    pub tgid: u64,
}

/// Value of the table of TLS sessions.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Connection id of what it deciphers: a stream of its own, with an entry in the stream table.
    pub connection: u64,
    /// The connection that carries it; 0 until that is known.
    pub carrier: u64,
    /// Observations against the carrier; the second drops it.
    pub doubts: u64,
}

/// Descriptors that the newest connections of a process have; what a fork may pass on.
pub const RECENT: usize = 16;

/// Value of the table of recent descriptors, by process.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recent {
    /// Descriptors; bits of [`recent`] above the number, [`u32::MAX`] where there is none.
    pub descriptors: [u32; RECENT],
    /// How many have been entered so far.
    pub entered: u64,
}

/// Bits of an entry of [`Recent`] beside the descriptor, which is below 2^30 (`NR_OPEN_MAX` is no larger in practice).
pub mod recent {
    /// It is closed by `exec`.
    pub const CLOSED_BY_EXEC: u32 = 1 << 31;
    /// It came with the fork that made the process.
    pub const INHERITED: u32 = 1 << 30;
}

/// Set in the ids that user space gives to connections it finds open at attach; ids of the kernel side lack it.
pub const FOUND_OPEN: u64 = 1 << 63;

/// Names of the maps, as both sides call them.
pub mod map {
    /// The ring buffer of all records.
    pub const EVENTS: &str = "EVENTS";
    /// The ring buffer of [`crate::hint::Hint`]s.
    pub const HINTS: &str = "HINTS";
    /// Per-CPU [`crate::counter::Counters`], by family.
    pub const COUNTERS: &str = "COUNTERS";
    /// One bit per pid: the processes whose system calls and forks are of interest.
    pub const TARGETS: &str = "TARGETS";
    /// Calls between entry and return.
    pub const IN_FLIGHT: &str = "IN_FLIGHT";
    /// [`crate::event::Settings`] of the target groups.
    pub const SETTINGS: &str = "SETTINGS";
    /// Per-CPU runs of the uprobe programs, by [`crate::cookie::runs`].
    pub const RUNS: &str = "RUNS";
    /// Per-CPU [`crate::event::Count`] by [`crate::event::CountKey`].
    pub const COUNTS: &str = "COUNTS";
    /// Captures under way, by process.
    pub const CAPTURING: &str = "CAPTURING";
    /// [`crate::event::Thread`] by `pid_tgid`.
    pub const THREADS: &str = "THREADS";
    /// [`super::Descriptor`] → connection id.
    pub const DESCRIPTORS: &str = "DESCRIPTORS";
    /// Connection id → [`super::Stream`].
    pub const STREAMS: &str = "STREAMS";
    /// [`super::Wish`] by the low bits of the connection's id.
    pub const WISHES: &str = "WISHES";
    /// [`super::SessionKey`] → [`super::Session`].
    pub const SESSIONS: &str = "SESSIONS";
    /// [`crate::event::BatchLayout`] by number.
    pub const LAYOUTS: &str = "LAYOUTS";
    /// [`crate::event::Ring`] by process.
    pub const RINGS: &str = "RINGS";
    /// Receives that found nothing, by process.
    pub const IDLE_RECEIVES: &str = "IDLE_RECEIVES";
    /// [`crate::event::Variable`] by process.
    pub const VARIABLES: &str = "VARIABLES";
    /// How many processes have one: one `u64`.
    pub const PUBLISHERS: &str = "PUBLISHERS";
    /// [`crate::event::Told`] by `pid_tgid`.
    pub const TOLD: &str = "TOLD";
    /// Source of connection ids: one `u64`.
    pub const NEXT_CONNECTION: &str = "NEXT_CONNECTION";
}
