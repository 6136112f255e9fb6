//! Frame headers (RFC 9113, section 4.1) and how to know one.
//!
//! In: nine bytes, or the bytes of a read or write. Out: a header, whether the rules allow it, and whether bytes can
//! only be the beginning of frames.

use crate::http::Direction;

/// Length of a frame header.
pub(super) const HEADER: usize = 9;
/// What a client sends first (section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frames behind an unknown place are not believed to be longer than this. Servers and clients of gRPC go up to 4 MiB
/// only in writes of their own, of which a chain of frames covers the whole.
const MAX_LIKELY: u32 = 1 << 20;
/// Frames of one read that are checked while looking for a boundary.
const MAX_CHAIN: usize = 64;

/// Frame types of section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    Promise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// To be skipped (section 4.1).
    Other,
}

pub(super) const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY: u8 = 0x20;

/// A frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// Payload, bytes.
    pub(super) length: u32,
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl FrameHeader {
    pub(super) fn parse(bytes: [u8; HEADER]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes;
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::Headers,
            2 => Kind::Priority,
            3 => Kind::Reset,
            4 => Kind::Settings,
            5 => Kind::Promise,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            8 => Kind::WindowUpdate,
            9 => Kind::Continuation,
            _ => Kind::Other,
        };
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        Self { length: u32::from_be_bytes([0, l0, l1, l2]), kind, flags, stream }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk::<HEADER>().map(|bytes| Self::parse(*bytes))
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether section 6 allows the frame: its length, and whether it belongs to a stream.
    pub(super) fn is_allowed(&self, direction: Direction) -> bool {
        let of_stream = self.stream != 0;
        match self.kind {
            Kind::Data => of_stream && self.length >= u32::from(self.has(PADDED)),
            Kind::Headers => of_stream && self.length >= self.before_fragment(),
            Kind::Promise => {
                of_stream && direction == Direction::Response && self.length >= self.before_fragment()
            }
            Kind::Continuation => of_stream,
            Kind::Priority => of_stream && self.length == 5,
            Kind::Reset => of_stream && self.length == 4,
            Kind::Settings if self.has(ACK) => !of_stream && self.length == 0,
            Kind::Settings => !of_stream && self.length.is_multiple_of(6),
            Kind::Ping => !of_stream && self.length == 8,
            Kind::GoAway => !of_stream && self.length >= 8,
            Kind::WindowUpdate => self.length == 4,
            Kind::Other => true,
        }
    }

    /// Bytes of a header block's frame before the fragment.
    pub(super) fn before_fragment(&self) -> u32 {
        let padded = u32::from(self.has(PADDED));
        match self.kind {
            Kind::Headers => padded + if self.has(PRIORITY) { 5 } else { 0 },
            Kind::Promise => padded + 4,
            _ => 0,
        }
    }

    pub(super) fn is_ack(&self) -> bool {
        self.kind == Kind::Settings && self.has(ACK)
    }

    /// Whether the bytes are what a sender would write, beyond what it may.
    fn is_likely(&self, direction: Direction) -> bool {
        let flags = match self.kind {
            Kind::Data => END_STREAM | PADDED,
            Kind::Headers => END_STREAM | END_HEADERS | PADDED | PRIORITY,
            Kind::Settings | Kind::Ping => ACK,
            Kind::Promise => END_HEADERS | PADDED,
            Kind::Continuation => END_HEADERS,
            _ => 0,
        };
        // Streams of clients are odd, and servers have not pushed for years.
        let stream = self.stream == 0 || self.stream % 2 == 1;
        let empty = self.length == 0
            && match self.kind {
                Kind::Data => !self.has(END_STREAM),
                Kind::Headers | Kind::Continuation => true,
                _ => false,
            };
        let known = !matches!(self.kind, Kind::Other | Kind::Promise);
        let control = matches!(self.kind, Kind::Settings | Kind::GoAway) && self.length > 1024;
        known
            && stream
            && !empty
            && !control
            && self.flags & !flags == 0
            && self.length <= MAX_LIKELY
            && self.is_allowed(direction)
    }
}

/// Whether a read or write can only be whole frames from its first byte on. `len`: its length, of which `bytes` are
/// the first. Frames must reach exactly to its end, or two whole ones must stand at its start.
pub(super) fn begins_frames(direction: Direction, bytes: &[u8], len: usize) -> bool {
    let mut at = 0_usize;
    for whole in 0..MAX_CHAIN {
        if at == len {
            return whole > 0;
        }
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(header) = FrameHeader::read(rest) else { return whole > 1 };
        if !header.is_likely(direction) {
            return false;
        }
        // Some servers read a frame's header by itself, and its payload behind it.
        if len == HEADER && whole == 0 && header.length > 0 {
            return true;
        }
        at = at.saturating_add(HEADER).saturating_add(header.length as usize);
        if at > len {
            return whole > 1;
        }
    }
    true
}

/// Whether the first bytes that a client sends are HTTP/2's. `None`: too few to tell.
pub fn client_begins(bytes: &[u8]) -> Option<bool> {
    if bytes.len() >= PREFACE.len() {
        return Some(bytes.starts_with(PREFACE));
    }
    if PREFACE.starts_with(bytes) { None } else { Some(false) }
}

/// Whether the first bytes that a server sends are HTTP/2's: its SETTINGS (section 3.4). `None`: too few to tell.
pub fn server_begins(bytes: &[u8]) -> Option<bool> {
    if let Some(header) = FrameHeader::read(bytes) {
        let settings = header.kind == Kind::Settings && header.flags == 0;
        return Some(settings && header.length <= 1024 && header.is_allowed(Direction::Response));
    }
    let fits = bytes.iter().zip([Some(0), None, None, Some(4), Some(0), Some(0), Some(0), Some(0), Some(0)]);
    if fits.clone().all(|(byte, want)| want.is_none_or(|want| *byte == want)) { None } else { Some(false) }
}

/// Whether a read or write of `len` bytes that starts with `bytes`, on a connection older than the attach, can only be
/// HTTP/2.
pub fn continues(direction: Direction, bytes: &[u8], len: usize) -> bool {
    (direction == Direction::Request && bytes.starts_with(PREFACE)) || begins_frames(direction, bytes, len)
}
