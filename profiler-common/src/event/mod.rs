//! The records of the ring buffer, one file per kind.
//!
//! Each record opens with a [`Head`] whose first field is the kind. A reader that meets a kind or a length it does
//! not know counts the record and goes on; it never guesses.

mod call;
mod context;
mod count;
mod launch;
mod process;
mod server;
mod socket;
mod tls;

pub use call::{
    Call, CallDone, CallFailed, NAME_CLASSES, Named, STACK_FRAMES, Stack, WIDE_ARGS, WIDE_WORDS, WideCall,
};
pub use context::{ThreadContext, Told, Variable, flag};
pub use count::{Burst, Count, CountKey, Settings, Thread, counted, detail};
pub use launch::Launch;
pub use process::{Process, change};
pub use server::{
    BATCH_CLASSES, Batch, BatchLayout, ELEMENT_WORDS, LAYOUTS, LIST_CLASSES, List, MESSAGE_CLASSES, Message,
    RING_CHUNKS, Ring, batch, way,
};
pub use socket::{PAYLOAD_CLASSES, SocketData, SocketEnd, SocketOpen, direction, end_reason};
pub use tls::{TlsSession, tie};

/// Record kinds, the first word of each record.
pub mod kind {
    /// [`super::Launch`].
    pub const LAUNCH: u32 = 1;
    /// [`super::Call`].
    pub const CALL: u32 = 2;
    /// [`super::CallDone`].
    pub const CALL_DONE: u32 = 3;
    /// [`super::SocketOpen`].
    pub const SOCKET_OPEN: u32 = 4;
    /// [`super::SocketData`], followed by its payload.
    pub const SOCKET_DATA: u32 = 5;
    /// [`super::SocketEnd`].
    pub const SOCKET_END: u32 = 6;
    /// [`super::Process`].
    pub const PROCESS: u32 = 7;
    /// [`super::WideCall`].
    pub const WIDE_CALL: u32 = 8;
    /// [`super::CallFailed`].
    pub const CALL_FAILED: u32 = 9;
    /// [`super::Named`], followed by the name.
    pub const NAMED: u32 = 10;
    /// [`super::Stack`].
    pub const STACK: u32 = 11;
    /// [`super::Burst`].
    pub const BURST: u32 = 12;
    /// [`super::TlsSession`].
    pub const TLS_SESSION: u32 = 13;
    /// [`super::Message`], followed by its bytes.
    pub const MESSAGE: u32 = 14;
    /// [`super::Batch`], followed by its runs.
    pub const BATCH: u32 = 15;
    /// [`super::List`], followed by its words.
    pub const LIST: u32 = 16;
    /// [`super::ThreadContext`].
    pub const THREAD_CONTEXT: u32 = 17;
}

/// What every record opens with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// One of [`kind`].
    pub kind: u32,
    /// GPU calls: index into the probe catalogue. Socket records: the number of the system call.
    pub api: u16,
    /// A small value that the kind gives its meaning.
    pub detail: u16,
    /// Process, as the initial pid namespace numbers it.
    pub tgid: u32,
    /// Thread, likewise.
    pub tid: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds (`bpf_ktime_get_ns`).
    pub time_ns: u64,
}
