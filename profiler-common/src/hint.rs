//! Hints of the kernel side for whoever looks for servers: they go through a ring buffer of their own.

/// Something happened that may make a server of a process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// One of [`what`].
    pub what: u32,
    /// Process.
    pub pid: u32,
}

/// Kinds of hints.
pub mod what {
    /// It runs another program.
    pub const EXEC: u32 = 1;
    /// It listens on a socket of TCP.
    pub const LISTEN: u32 = 2;
}
