//! Life of the processes in the target group.

use super::Head;

/// What `head.detail` of a [`Process`] record says.
pub mod change {
    /// `other` is a new task, thread or process, that the task of the head made.
    pub const FORK: u16 = 1;
    /// The process replaced its program.
    pub const EXEC: u16 = 2;
    /// The task `head.tid` ended; the process ended when it was its last.
    pub const EXIT: u16 = 3;
    /// The process mapped a file executable: a library may have arrived.
    pub const MAP: u16 = 4;
    /// The process made an io_uring: what it reads and writes through that is not seen.
    pub const IO_URING: u16 = 5;
    /// The process listens on the descriptor `other`.
    pub const LISTEN: u16 = 6;
}

/// A change in a target process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Kind, process, thread, time; `detail` is one of [`change`].
    pub head: Head,
    /// The new task of a fork, or a descriptor, else 0.
    pub other: u32,
    /// Always 0.
    pub padding: u32,
}
