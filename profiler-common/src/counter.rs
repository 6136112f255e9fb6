//! What the kernel side counts about itself, one block per probe family and CPU.
//!
//! `seen = submitted + ring_full + oversized + map_full` holds per family at any quiet moment: every hit that the
//! family wants to report ends in exactly one of the four.

/// Probe families, the index into the per-CPU counter array.
pub mod family {
    /// uprobes on GPU libraries.
    pub const GPU: u32 = 0;
    /// Socket system calls.
    pub const SOCKET: u32 = 1;
    /// Fork, exec, exit, executable mappings.
    pub const PROCESS: u32 = 2;
    /// uprobes on TLS libraries.
    pub const TLS: u32 = 3;
    /// uprobes on model servers and their libraries.
    pub const SERVER: u32 = 4;
    /// Spans that threads have active.
    pub const CONTEXT: u32 = 5;
    /// How many there are.
    pub const COUNT: u32 = 6;
    /// Their names, by index.
    pub const NAMES: [&str; COUNT as usize] = ["gpu", "socket", "process", "tls", "server", "context"];
}

/// The counters of one family on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records that the probes of this family set out to send.
    pub seen: u64,
    /// Records that entered the ring.
    pub submitted: u64,
    /// Records lost because the ring had no room.
    pub ring_full: u64,
    /// Records lost because an argument could not be read or did not fit.
    pub oversized: u64,
    /// Records lost because a table had no room.
    pub map_full: u64,
    /// Bytes of socket payload that were not copied; the records around them were sent and say so.
    pub bytes_uncopied: u64,
}

impl Counters {
    /// Adds the counters of another CPU.
    pub fn add(&mut self, other: &Self) {
        self.seen += other.seen;
        self.submitted += other.submitted;
        self.ring_full += other.ring_full;
        self.oversized += other.oversized;
        self.map_full += other.map_full;
        self.bytes_uncopied += other.bytes_uncopied;
    }
}
