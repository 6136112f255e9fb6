//! The trailers of a chunked body: lines of headers up to an empty one.
//!
//! In: bytes behind the last chunk's size. Out: where they end, or that they are none. Nothing of them is kept. A folded
//! line is not taken: nobody sends trailers as old as that.

/// Inside the trailers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trailer {
    /// At a line's first byte.
    Start,
    /// Behind the CR of the empty line.
    StartLf,
    Name,
    Value,
    /// Behind a CR, which nothing but LF may follow.
    ValueLf,
    End,
}

impl Trailer {
    /// The state behind `byte`. A bare LF ends a line too (RFC 9112, section 2.2).
    pub(super) fn step(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Start | Self::StartLf, b'\n') => Self::End,
            (Self::Start, b'\r') => Self::StartLf,
            (Self::Name, b':') => Self::Value,
            (Self::Start | Self::Name, byte) if is_token(byte) => Self::Name,
            (Self::Value | Self::ValueLf, b'\n') => Self::Start,
            (Self::Value, b'\r') => Self::ValueLf,
            (Self::Value, 1..) => Self::Value,
            _ => return None,
        })
    }
}

/// Whether a byte may stand in a method or in a header's name (RFC 9110, section 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
