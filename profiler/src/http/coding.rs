//! Content codings (RFC 9110, section 8.4.1), taken off in a stream.
//!
//! In: compressed bytes of any split. Out: their content, a piece at a time, or why it is not read any further.
//! Deliberately absent: anything kept. What a decoder holds is its window and one piece; what it may give for the
//! bytes it took is bounded, because a body that unpacks to a thousand times its size is there to hurt. Zstandard,
//! `compress` and codings on top of each other are not read: no model server or client of one sends them by default.

use std::fmt;
use std::io::Write;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use super::signal::Unread;

/// What any content may unpack to.
const FREE: u64 = 1 << 20;
/// Beyond it, bytes of content for a byte taken. A stream of events has 10 to 50, and deflate ends at 1,032.
const MOST_RATIO: u64 = 128;
/// A brotli window of 4 MiB (WBITS 22), the encoders' default. Larger ones are not worth their memory.
const MOST_WINDOW_BITS: u8 = 22;
/// Bytes of content that brotli gives at once.
const PIECE: usize = 8 * 1024;

/// How content is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// It is not.
    Identity,
    Gzip,
    /// RFC 9110 means zlib's format; some servers send it bare.
    Deflate,
    Brotli,
    /// One that is not read, or several on top of each other.
    Unknown,
}

impl Coding {
    /// From the values of `Content-Encoding` and `Transfer-Encoding`.
    pub(crate) fn of<'v>(values: impl IntoIterator<Item = &'v [u8]>) -> Self {
        let codings = values.into_iter().flat_map(|value| value.split(|byte| *byte == b','));
        let mut codings = codings
            .map(<[u8]>::trim_ascii)
            .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
        match (codings.next(), codings.next()) {
            (None, _) => Self::Identity,
            (Some(coding), None) => Self::named(coding),
            (Some(_), Some(_)) => Self::Unknown,
        }
    }

    fn named(coding: &[u8]) -> Self {
        match coding.to_ascii_lowercase().as_slice() {
            b"gzip" | b"x-gzip" => Self::Gzip,
            b"deflate" => Self::Deflate,
            b"br" => Self::Brotli,
            _ => Self::Unknown,
        }
    }
}

/// Takes one coding off.
pub(super) struct Decoder {
    engine: Engine,
    taken: u64,
    given: u64,
}

enum Engine {
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    /// The first byte tells zlib's format from bare deflate.
    Undecided,
    Zlib(Box<ZlibDecoder<Vec<u8>>>),
    Bare(Box<DeflateDecoder<Vec<u8>>>),
    Brotli(Box<Brotli>),
}

impl Decoder {
    /// `None` where nothing is to be taken off, or nothing can.
    pub(super) fn new(coding: Coding) -> Option<Self> {
        let engine = match coding {
            Coding::Identity | Coding::Unknown => return None,
            Coding::Gzip => Engine::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
            Coding::Deflate => Engine::Undecided,
            Coding::Brotli => Engine::Brotli(Box::new(Brotli::new())),
        };
        Some(Self { engine, taken: 0, given: 0 })
    }

    /// Takes compressed bytes and hands their content on. After an error nothing more is to be fed.
    pub(super) fn feed(&mut self, bytes: &[u8], to: &mut dyn FnMut(&[u8])) -> Result<(), Unread> {
        let Some(first) = bytes.first() else { return Ok(()) };
        if matches!(self.engine, Engine::Undecided) {
            // The method of zlib's header is 8 (RFC 1950, section 2.2). Bare deflate would begin with a stored block
            // whose padding is not zero.
            self.engine = match first & 0x0f {
                8 => Engine::Zlib(Box::new(ZlibDecoder::new(Vec::new()))),
                _ => Engine::Bare(Box::new(DeflateDecoder::new(Vec::new()))),
            };
        }
        self.taken = self.taken.saturating_add(bytes.len() as u64);
        let allowance = FREE.max(self.taken.saturating_mul(MOST_RATIO));
        let given = &mut self.given;
        let mut to = |content: &[u8]| {
            *given = given.saturating_add(content.len() as u64);
            to(content);
            if *given > allowance { Err(Unread::Bomb) } else { Ok(()) }
        };
        match &mut self.engine {
            Engine::Gzip(decoder) => inflate(&mut **decoder, MultiGzDecoder::get_mut, bytes, &mut to),
            Engine::Zlib(decoder) => inflate(&mut **decoder, ZlibDecoder::get_mut, bytes, &mut to),
            Engine::Bare(decoder) => inflate(&mut **decoder, DeflateDecoder::get_mut, bytes, &mut to),
            Engine::Brotli(decoder) => decoder.feed(bytes, &mut to),
            Engine::Undecided => Ok(()),
        }
    }
}

/// Windows and pieces are not ours to show.
impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("taken", &self.taken)
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}

/// One write unpacks 32 KiB at most, so the sink never holds more than a write and a flush.
fn inflate<D: Write>(
    decoder: &mut D,
    sink: fn(&mut D) -> &mut Vec<u8>,
    mut bytes: &[u8],
    to: &mut dyn FnMut(&[u8]) -> Result<(), Unread>,
) -> Result<(), Unread> {
    while !bytes.is_empty() {
        let taken = decoder.write(bytes).map_err(|_| Unread::Corrupt)?;
        drain(sink(decoder), to)?;
        if taken == 0 {
            // The compressed stream is over. Bytes behind it mean nothing to those who read it either.
            return Ok(());
        }
        bytes = bytes.get(taken..).unwrap_or_default();
    }
    decoder.flush().map_err(|_| Unread::Corrupt)?;
    drain(sink(decoder), to)
}

fn drain(sink: &mut Vec<u8>, to: &mut dyn FnMut(&[u8]) -> Result<(), Unread>) -> Result<(), Unread> {
    if sink.is_empty() {
        return Ok(());
    }
    let told = to(sink);
    sink.clear();
    told
}

/// A brotli stream (RFC 7932).
struct Brotli {
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    begun: bool,
    piece: Box<[u8]>,
}

impl Brotli {
    fn new() -> Self {
        let alloc = StandardAlloc::default;
        let state = BrotliState::new(alloc(), alloc(), alloc());
        Self { state, begun: false, piece: vec![0; PIECE].into_boxed_slice() }
    }

    fn feed(&mut self, bytes: &[u8], to: &mut dyn FnMut(&[u8]) -> Result<(), Unread>) -> Result<(), Unread> {
        if !std::mem::replace(&mut self.begun, true) && bytes.first().is_some_and(|first| !fits(*first)) {
            return Err(Unread::Bomb);
        }
        let (mut left, mut at, mut total) = (bytes.len(), 0, 0);
        loop {
            let (mut room, mut len) = (self.piece.len(), 0);
            let result = BrotliDecompressStream(
                &mut left,
                &mut at,
                bytes,
                &mut room,
                &mut len,
                &mut self.piece,
                &mut total,
                &mut self.state,
            );
            if len > 0 {
                to(self.piece.get(..len).unwrap_or_default())?;
            }
            match result {
                BrotliResult::NeedsMoreOutput => {}
                BrotliResult::NeedsMoreInput | BrotliResult::ResultSuccess => return Ok(()),
                BrotliResult::ResultFailure => return Err(Unread::Corrupt),
            }
        }
    }
}

/// Whether the window that a stream's first byte announces is one that it gets (RFC 7932, section 9.1).
fn fits(first: u8) -> bool {
    let bits = match (first & 1, first >> 1 & 7, first >> 4 & 7) {
        (0, ..) => 16,
        // Reserved; encoders use it for "large windows" of up to 1 GiB.
        (_, 0, 1) => u8::MAX,
        (_, 0, 0) => 17,
        (_, 0, more) => 8 + more,
        (_, more, _) => 17 + more,
    };
    bits <= MOST_WINDOW_BITS
}
