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

/// How much of a connection's payload travels.
pub mod mode {
    /// All of it.
    pub const FULL: u32 = 0;
    /// Nothing: user space has seen that it is not a protocol it reads.
    pub const OFF: u32 = 1;
    /// Set by the kernel side beside either: the end of the input has been reported.
    pub const INPUT_ENDED: u32 = 1 << 31;
    /// Set by the kernel side beside either: a failure has been reported.
    pub const FAILED: u32 = 1 << 30;
}

/// Value of the stream table: byte positions and the payload mode that user space sets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Bytes the target has read.
    pub received: u64,
    /// Bytes the target has written.
    pub sent: u64,
    /// One of [`mode`], and the bits there that the kernel side adds.
    pub mode: u32,
    /// Descriptors that refer to the connection (`dup` adds one).
    pub descriptors: u32,
}

/// Set in the ids that user space gives to connections it finds open at attach; ids of the kernel side lack it.
pub const FOUND_OPEN: u64 = 1 << 63;

/// Names of the maps, as both sides call them.
pub mod map {
    /// The ring buffer of all records.
    pub const EVENTS: &str = "EVENTS";
    /// Per-CPU [`crate::counter::Counters`], by family.
    pub const COUNTERS: &str = "COUNTERS";
    /// One bit per pid: the processes whose system calls and forks are of interest.
    pub const TARGETS: &str = "TARGETS";
    /// Calls between entry and return.
    pub const IN_FLIGHT: &str = "IN_FLIGHT";
    /// [`crate::event::Settings`] of the target groups.
    pub const SETTINGS: &str = "SETTINGS";
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
    /// Source of connection ids: one `u64`.
    pub const NEXT_CONNECTION: &str = "NEXT_CONNECTION";
}
