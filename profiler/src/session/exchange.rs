//! What comes to the correlating thread, and what it has to say: plain data.

use crate::attach::Learnt;
use crate::correlate::{KernelKey, Payload, Request};
use crate::decode::{Burst, Change, Event};
use crate::device::Reading;
use crate::server::Limits;
use crate::span::model::{Resource, Span};
use crate::target::Address;
use profiler_common::event::{Count, CountKey};
use std::sync::Arc;

/// What reaches the correlating thread, in the order in which it must see it.
#[derive(Debug)]
pub enum Input {
    /// Decoded events.
    Events(Vec<Event>),
    /// What `attach` learnt of a process, before its first event.
    Learnt(Learnt, Arc<Resource>),
    /// What a descriptor listens on.
    Listener {
        /// Process.
        pid: u32,
        /// Descriptor.
        fd: u32,
        /// Port or path.
        address: Address,
    },
    /// Which server the group is.
    Serves(&'static str),
    /// How much its engines may do at once, as far as a command line says it.
    Limits(Limits),
    /// Bytes of KV cache that a token of a model takes.
    Shape {
        /// The model, as requests name it.
        model: String,
        /// Bytes.
        kv_bytes: u64,
    },
    /// A snapshot that a server publishes in shared memory.
    Snapshot {
        /// Process that publishes it.
        pid: u32,
        /// When it was read, `CLOCK_MONOTONIC` nanoseconds.
        time_ns: u64,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// A process is gone.
    Gone {
        /// Process.
        pid: u32,
        /// When, `CLOCK_MONOTONIC` nanoseconds.
        time_ns: u64,
    },
    /// Time passed.
    Tick {
        /// `CLOCK_MONOTONIC`, nanoseconds.
        now_ns: u64,
        /// What Unix time is ahead of it, nanoseconds.
        unix_offset_ns: i64,
    },
    /// Launches and copies are counted in the kernel from here on.
    Counting,
    /// The kernel side's sums as they stand: by kernel, and by process and thread.
    Counted {
        /// By kernel.
        sums: Vec<(CountKey, Count)>,
        /// By process and thread.
        threads: Vec<(u32, u32, Burst)>,
    },
    /// What devices said.
    Devices(Box<Reading>),
    /// What kernels are called for short; none where no name could be learnt.
    Named(Vec<(KernelKey, Option<Arc<str>>)>),
    /// Nothing more comes.
    Finish,
}

/// What the controlling thread must act upon: each wants a look at the system, which is not done here.
#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    /// A process changed.
    Changed(u32, Change),
    /// Not all of a connection's payload is of use any more.
    Payload(u64, Payload),
    /// A listening descriptor whose address is not known.
    Listener(u32, u32),
    /// A kernel that was launched for the first time.
    Kernel(KernelKey),
}

/// A finished request as the live view and the JSON lines show it.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The request.
    pub request: Arc<Request>,
    /// Its spans, none when its caller did not sample it.
    pub spans: Arc<[Span]>,
}
