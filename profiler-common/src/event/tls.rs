//! TLS sessions: what a library deciphers is a stream of its own, tied to the connection that carries it.
//!
//! The bytes travel as [`super::SocketData`] under the session's own connection id, with positions of their own.

use super::Head;

/// `head.detail` of [`TlsSession`]: what is known of the session, and how its carrier became known.
pub mod tie {
    /// The session is new, or has been cleared: its first bytes are its very first.
    pub const NEW: u16 = 1;
    /// The session is older than its probes: its first bytes may be from inside a message.
    pub const MET: u16 = 2;
    /// The program set the descriptor (`SSL_set_fd`).
    pub const DESCRIPTOR: u16 = 3;
    /// The library read or wrote the connection inside a call for the session.
    pub const NESTED: u16 = 4;
    /// The thread read the connection and then handed the bytes to the session: nothing else came between.
    pub const ORDER: u16 = 5;
    /// The thread wrote to the connection exactly what the session's bytes become as records.
    pub const LENGTH: u16 = 6;
    /// What was thought to carry it does not.
    pub const DROPPED: u16 = 7;
}

/// A TLS session was met, or its carrier became known or doubtful.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsSession {
    /// Kind, probe, [`tie`], process, thread, time.
    pub head: Head,
    /// Connection id of the deciphered stream.
    pub connection: u64,
    /// Connection id of what carries it, 0 while unknown.
    pub carrier: u64,
    /// Always 0.
    pub reserved: u64,
}
