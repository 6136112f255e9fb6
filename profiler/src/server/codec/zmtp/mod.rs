//! ZMTP 3.0 and 3.1, the protocol of ZeroMQ's sockets (RFC 23 and RFC 37 of ZeroMQ), as both sides of a connection show it.
//!
//! In: bytes of each direction in their order, in any pieces, and gaps. Out: frames of messages, and what the commands
//! were. Bytes of a frame are kept up to a limit, its length always. A gap inside a frame cuts the frame and is stepped
//! over; behind any other the direction is given up, as nothing in the stream tells where a frame begins. Deliberately
//! absent: versions before 3, and connections whose mechanism is not NULL: what is enciphered is not readable, and a
//! password of PLAIN is none of our business.

mod side;

#[cfg(test)]
mod tests;

use side::Side;

/// Bytes of a frame that are kept: as much as is copied of a message anywhere else.
pub const MOST_KEPT: usize = 64 * 1024;

/// The two directions of a connection, seen from the process that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To it.
    Received,
    /// From it.
    Sent,
}

/// What went over a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A frame of a message.
    Frame(Frame),
    /// A command, which is no part of any message.
    Command(Command),
}

/// A frame of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which way.
    pub way: Way,
    /// More frames of the same message follow.
    pub more: bool,
    /// Its bytes, as far as they were kept.
    pub bytes: Vec<u8>,
    /// Its size.
    pub size: u64,
}

/// Commands (RFC 37).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The handshake is done: messages follow.
    Ready,
    /// A heartbeat, and its answer.
    Ping,
    /// The answer.
    Pong,
    /// A subscriber wants a topic. In version 3.0 this is a message.
    Subscribe,
    /// It does not want it any more.
    Cancel,
    /// The handshake failed.
    Error,
    /// Another one.
    Other,
}

/// Why a connection, or a direction of it, is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// A version before 3.
    OldVersion,
    /// Its mechanism is PLAIN: what it says begins with a password.
    Plain,
    /// Its mechanism is CURVE: it is enciphered.
    Curve,
    /// Another mechanism.
    Mechanism,
    /// Bytes are missing, and where the next frame begins is not known.
    Gap,
    /// It breaks the rules.
    Malformed,
}

/// A connection.
#[derive(Debug, Default)]
pub struct Connection {
    received: Side,
    sent: Side,
}

impl Connection {
    /// One whose beginning was not seen: each direction is read from where whole frames come.
    #[must_use]
    pub fn resuming() -> Self {
        Self { received: Side::resuming(), sent: Side::resuming() }
    }

    /// Takes bytes of a direction that stand at `position` in it, and so many behind them that are missing.
    pub fn feed(
        &mut self,
        way: Way,
        position: u64,
        bytes: &[u8],
        lost_after: u64,
        take: &mut impl FnMut(Event),
    ) {
        let side = match way {
            Way::Received => &mut self.received,
            Way::Sent => &mut self.sent,
        };
        side.feed(way, position, bytes, take);
        side.skip(lost_after, way, take);
    }

    /// Why a direction is not read, if so.
    #[must_use]
    pub fn unread(&self, way: Way) -> Option<Unread> {
        match way {
            Way::Received => self.received.unread(),
            Way::Sent => self.sent.unread(),
        }
    }

    /// Neither direction is read any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.received.unread().is_some() && self.sent.unread().is_some()
    }
}

/// Whether bytes of an older connection, as they went at once, are ZMTP's: whole frames and nothing else.
#[must_use]
pub fn continues(bytes: &[u8]) -> bool {
    side::are_frames(bytes)
}

/// Length of the signature: `FF`, eight bytes of padding, `7F`.
const SIGNATURE: usize = 10;

/// Whether a connection begins as ZMTP does: nothing if more bytes are needed. Either side begins so.
#[must_use]
pub fn looks_like(first: &[u8]) -> Option<bool> {
    match (first.first(), first.get(SIGNATURE - 1)) {
        (None, _) => None,
        (Some(0xff), None) => None,
        (Some(0xff), Some(end)) => Some(*end == 0x7f),
        (Some(_), _) => Some(false),
    }
}
