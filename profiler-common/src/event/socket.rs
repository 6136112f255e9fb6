//! What the target's server sockets carry.
//!
//! Every accepted connection has an id of its own that is never used again, so a reused file descriptor cannot
//! join an old stream, and each direction has a byte position counted in the kernel, so a record that was lost
//! shows as a gap between positions.

use super::Head;

/// `head.detail` of [`SocketData`]: who sent the bytes.
pub mod direction {
    /// The target read them.
    pub const RECEIVED: u16 = 0;
    /// The target wrote them.
    pub const SENT: u16 = 1;
}

/// `head.detail` of [`SocketEnd`].
pub mod end_reason {
    /// The target closed its last descriptor of the connection that the kernel side knows of.
    pub const CLOSED: u16 = 1;
    /// A read returned 0: the peer sends nothing more.
    pub const END_OF_INPUT: u16 = 2;
    /// A read or write failed for good (`ECONNRESET`, `EPIPE`, …); `error` has the number.
    pub const FAILED: u16 = 3;
    /// The last process that had the connection from a fork ended without closing it.
    pub const PROCESS_EXITED: u16 = 4;
    /// The target sends nothing more (`shutdown`).
    pub const END_OF_OUTPUT: u16 = 5;
}

/// A connection was accepted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOpen {
    /// Kind, system call, process, thread, time.
    pub head: Head,
    /// Id of the connection.
    pub connection: u64,
    /// Its file descriptor.
    pub fd: u32,
    /// The descriptor of the listening socket.
    pub listener_fd: u32,
}

/// Payload capacities, bytes: the kernel side reserves the smallest class that holds the chunk.
pub const PAYLOAD_CLASSES: [usize; 4] = [208, 976, 4048, 16336];

/// Bytes that went through a connection; `len` bytes of payload follow in the record.
///
/// A long system call comes as several records at rising positions. `lost_after` bytes follow this chunk in the
/// stream that were not copied and that no later record carries.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketData {
    /// Kind, system call, [`direction`], process, thread, time the system call returned.
    pub head: Head,
    /// Id of the connection.
    pub connection: u64,
    /// Bytes that went in this direction before this chunk.
    pub position: u64,
    /// Bytes of payload that follow.
    pub len: u32,
    /// Bytes after the payload that were not copied.
    pub lost_after: u32,
}

/// A connection, or one direction of it, ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketEnd {
    /// Kind, system call, [`end_reason`], process, thread, time.
    pub head: Head,
    /// Id of the connection.
    pub connection: u64,
    /// Its file descriptor.
    pub fd: u32,
    /// `errno` of a failure, else 0.
    pub error: u32,
    /// Bytes the target has read from it.
    pub received: u64,
    /// Bytes the target has written to it.
    pub sent: u64,
}
