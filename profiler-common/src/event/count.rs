//! What the kernel side counts instead of sending, in the detail level `aggregate`.
//!
//! All numbers only rise: the reader keeps what it saw last and takes the difference, so that a lost record or a
//! late look loses nothing.

use super::Head;

/// What a thread has sent to the GPU, told when it waits or ends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Burst {
    /// Kind, process, thread, time.
    pub head: Head,
    /// First operation since the last such record, `CLOCK_MONOTONIC` nanoseconds.
    pub first_ns: u64,
    /// Last operation, likewise.
    pub last_ns: u64,
    /// Launches by this thread so far.
    pub launches: u64,
    /// Copies so far.
    pub copies: u64,
    /// Bytes of those copies.
    pub copy_bytes: u64,
}

/// `CountKey::detail`.
pub mod counted {
    /// Calls that count as operations of their own.
    pub const OWN: u16 = 0;
    /// The driver's halves of runtime calls.
    pub const NESTED: u16 = 1;
    /// Queries that were answered "not ready".
    pub const NOT_READY: u16 = 2;
}

/// Key of the count table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CountKey {
    /// Launches: which kernel, as in [`super::Launch`]. Copies: the value of their kind argument.
    pub function: u64,
    /// Process.
    pub tgid: u32,
    /// Index into the probe catalogue.
    pub api: u16,
    /// One of [`counted`].
    pub detail: u16,
}

/// Per-CPU value of the count table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Calls.
    pub count: u64,
    /// Bytes copied by them.
    pub bytes: u64,
}

impl Count {
    /// Adds the value of another CPU.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.bytes += other.bytes;
    }
}

/// Value of the thread table, by `pid_tgid`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    /// As in [`Burst`]; 0 when nothing was sent since.
    pub first_ns: u64,
    /// As in [`Burst`].
    pub last_ns: u64,
    /// As in [`Burst`].
    pub launches: u64,
    /// As in [`Burst`].
    pub copies: u64,
    /// As in [`Burst`].
    pub copy_bytes: u64,
    /// Stack pointer at the entry of the runtime call that the thread is in; 0 outside, or when the driver's half of
    /// it has been met.
    pub entered_stack: u64,
    /// Return address of that call.
    pub entered_caller: u64,
    /// One of [`crate::cookie::class`].
    pub entered_class: u64,
    /// [`Settings::generation`] when the thread was met last.
    pub generation: u64,
}

/// How much of a target group's GPU calls is sent.
pub mod detail {
    /// A record a call.
    pub const EVENTS: u32 = 0;
    /// Launches and plain copies are counted by kernel and thread.
    pub const AGGREGATE: u32 = 1;
}

/// Settings of a target group, which may change at any time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// One of [`detail`].
    pub detail: u32,
    /// The stack of each such launch is sent; 0 sends none.
    pub stack_every: u32,
    /// Rises with each change of the detail level.
    pub generation: u32,
    /// Whether threads of a process of the group may say what they work for: 1 or 0.
    pub contexts: u32,
}
