//! Where a message's body ends (RFC 9112, section 6), and which of its bytes are payload.
//!
//! In: bytes and gaps behind a head. Out: payload slices and the body's end. Nothing is stored but the last bytes of
//! a chunked body whose chunks were lost: what they end with tells where its framing is found again.

use super::signal::MalformedReason;
use super::trailer::Trailer;

/// Chunk extensions and trailers longer than this are taken for garbage: servers accept less.
const MAX_OVERHEAD: u32 = 64 * 1024;

/// How much of a body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunk),
    /// All up to the connection's end.
    UntilClose,
}

/// Inside the chunked coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    Size {
        value: u64,
        digits: u8,
    },
    Extension {
        value: u64,
        seen: u32,
    },
    SizeLf {
        value: u64,
    },
    Data {
        remaining: u64,
        fresh: bool,
    },
    DataCr,
    DataLf,
    Trailer {
        seen: u32,
        at: Trailer,
    },
    /// A chunk's size is missing: where the chunks lie is not known. Holds the last bytes.
    Adrift(Last),
}

/// The last bytes of a stretch without a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Last {
    bytes: [u8; LAST_CHUNK.len()],
}

/// The end of the last data, and the last chunk.
const LAST_CHUNK: &[u8; 7] = b"\r\n0\r\n\r\n";

impl Last {
    fn push(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(bytes.len().saturating_sub(self.bytes.len())..).unwrap_or(bytes);
        self.bytes.rotate_left(bytes.len());
        let keep = self.bytes.len() - bytes.len();
        if let Some(room) = self.bytes.get_mut(keep..) {
            room.copy_from_slice(bytes);
        }
    }
}

impl Chunk {
    pub(super) const START: Self = Self::Size { value: 0, digits: 0 };
}

/// The next piece of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Payload. `fresh`: the first of its chunk.
    Data { bytes: &'a [u8], fresh: bool },
    /// Bytes of which it is not known what is payload and what is framing.
    Unframed(&'a [u8]),
    /// All bytes are used and the body goes on.
    More,
    /// The body is over. What is left of the bytes belongs to the next message.
    End,
    /// Not the chunked coding.
    Bad(MalformedReason),
}

/// What a gap did to a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// The framing is still exact; so many bytes of payload were in the gap.
    Inside(u64),
    /// So many bytes, of payload for the most part, were in the gap, and the body goes on somehow.
    Adrift(u64),
    /// The body ended in the gap, `payload` bytes into it; `beyond` bytes of it are of unknown messages.
    Ended { payload: u64, beyond: u64 },
    /// Nothing is known any more.
    Lost,
}

impl Framing {
    /// Takes the next piece off `bytes`.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Piece<'a> {
        match self {
            Self::Length(0) => Piece::End,
            _ if bytes.is_empty() => Piece::More,
            Self::Length(remaining) => Piece::Data { bytes: take(bytes, remaining), fresh: false },
            Self::UntilClose => Piece::Data { bytes: std::mem::take(bytes), fresh: false },
            Self::Chunked(chunk) => chunk.next(bytes),
        }
    }

    /// Skips `len` bytes that were not copied.
    pub(super) fn gap(&mut self, len: u64) -> Gap {
        match self {
            Self::UntilClose => Gap::Inside(len),
            Self::Length(remaining) if len <= *remaining => {
                *remaining -= len;
                Gap::Inside(len)
            }
            Self::Length(remaining) => Gap::Ended { payload: *remaining, beyond: len - *remaining },
            Self::Chunked(chunk) => chunk.gap(len),
        }
    }

    /// It is not known where its chunks lie.
    pub(super) fn is_adrift(&self) -> bool {
        matches!(self, Self::Chunked(Chunk::Adrift(_)))
    }

    /// `bytes` are what a write began with. Says whether chunks are found again there: behind a CRLF stands the line
    /// of a size, or the sizes fit the write. A write inside a chunk's data has neither, save by intent.
    pub(super) fn find(&mut self, bytes: &[u8]) -> bool {
        let Self::Chunked(Chunk::Adrift(last)) = self else { return false };
        let found = size_line(bytes).is_some_and(|(size, line)| {
            last.bytes.ends_with(b"\r\n") || ends_chunk(size, bytes.get(line..).unwrap_or_default())
        });
        if found {
            *self = Self::Chunked(Chunk::START);
        }
        found
    }

    /// A write ended. Says whether the body did too, and how many bytes its last chunk took: servers end a write
    /// behind the last chunk, and JSON has no line of a lone 0 with an empty line behind it.
    pub(super) fn ended(&self) -> Option<usize> {
        let Self::Chunked(Chunk::Adrift(last)) = self else { return None };
        (last.bytes == *LAST_CHUNK).then_some(LAST_CHUNK.len())
    }
}

/// The size that a line at the beginning of `bytes` gives, and the line's length.
fn size_line(bytes: &[u8]) -> Option<(u64, usize)> {
    let digits = bytes.iter().take(9).take_while(|byte| byte.is_ascii_hexdigit()).count();
    let line = bytes.get(digits..)?.starts_with(b"\r\n").then_some(digits + 2)?;
    let size = std::str::from_utf8(bytes.get(..digits)?).ok()?;
    // Eight digits are 4 GiB.
    (digits <= 8).then(|| u64::from_str_radix(size, 16).ok()).flatten().map(|size| (size, line))
}

/// Whether a chunk of this size ends in these bytes as it should; the last one, with all of them.
fn ends_chunk(size: u64, bytes: &[u8]) -> bool {
    match usize::try_from(size) {
        Ok(0) => bytes == b"\r\n",
        Ok(size) => bytes.get(size..).is_some_and(|rest| rest.starts_with(b"\r\n")),
        Err(_) => false,
    }
}

impl Chunk {
    fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Piece<'a> {
        loop {
            if let Self::Data { remaining, fresh } = self {
                let fresh = std::mem::take(fresh);
                let data = take(bytes, remaining);
                if *remaining == 0 {
                    *self = Self::DataCr;
                }
                return Piece::Data { bytes: data, fresh };
            }
            if let Self::Adrift(last) = self {
                let unframed = std::mem::take(bytes);
                last.push(unframed);
                return if unframed.is_empty() { Piece::More } else { Piece::Unframed(unframed) };
            }
            let Some((byte, rest)) = bytes.split_first() else { return Piece::More };
            *bytes = rest;
            match self.step(*byte) {
                Some(Step::On(chunk)) => *self = chunk,
                Some(Step::End) => return Piece::End,
                None => return Piece::Bad(MalformedReason::Chunk),
            }
            if bytes.is_empty() {
                return Piece::More;
            }
        }
    }

    fn step(self, byte: u8) -> Option<Step> {
        Some(Step::On(match (self, byte) {
            (Self::Size { digits: 1.., value }, b'\r') => Self::SizeLf { value },
            // A bare LF ends headers' lines only (RFC 9112, section 2.2): llhttp, h11 and hyper refuse it here.
            (Self::SizeLf { value }, b'\n') => Self::after_size(value),
            (Self::Size { digits: 1.., value }, b';' | b' ' | b'\t') => Self::Extension { value, seen: 0 },
            (Self::Size { digits: 0..16, value }, _) => return Self::digit(self, value, byte).map(Step::On),
            (Self::Extension { value, .. }, b'\r') => Self::SizeLf { value },
            (Self::Extension { value, seen: 0..MAX_OVERHEAD }, 0x20.. | b'\t') => self.extension(value),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::START,
            (Self::Trailer { seen: seen @ 0..MAX_OVERHEAD, at }, byte) => match at.step(byte)? {
                Trailer::End => return Some(Step::End),
                at => Self::Trailer { seen: seen + 1, at },
            },
            _ => return None,
        }))
    }

    fn digit(self, value: u64, byte: u8) -> Option<Self> {
        let Self::Size { digits, .. } = self else { return None };
        let digit = char::from(byte).to_digit(16)?;
        Some(Self::Size { value: value << 4 | u64::from(digit), digits: digits + 1 })
    }

    fn extension(self, value: u64) -> Self {
        let Self::Extension { seen, .. } = self else { return self };
        Self::Extension { value, seen: seen + 1 }
    }

    fn after_size(value: u64) -> Self {
        match value {
            0 => Self::Trailer { seen: 0, at: Trailer::Start },
            remaining => Self::Data { remaining, fresh: true },
        }
    }

    /// Chunk data is always followed by CRLF, so a gap over both is still inside what is known.
    fn gap(&mut self, len: u64) -> Gap {
        let remaining = match self {
            Self::Data { remaining, .. } => *remaining,
            Self::DataCr => 0,
            // Trailers may have ended.
            Self::Trailer { .. } => return Gap::Lost,
            _ => return self.lose(len),
        };
        *self = match len.checked_sub(remaining) {
            None => Self::Data { remaining: remaining - len, fresh: false },
            Some(0) => Self::DataCr,
            Some(1) => Self::DataLf,
            Some(2) => Self::START,
            Some(_) => return self.lose(len),
        };
        Gap::Inside(len.min(remaining))
    }

    fn lose(&mut self, len: u64) -> Gap {
        *self = Self::Adrift(Last::default());
        Gap::Adrift(len)
    }
}

enum Step {
    On(Chunk),
    End,
}

/// Takes up to `remaining` bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], remaining: &mut u64) -> &'a [u8] {
    let len = usize::try_from(*remaining).unwrap_or(usize::MAX).min(bytes.len());
    let (data, rest) = bytes.split_at_checked(len).unwrap_or((bytes, &[]));
    *bytes = rest;
    *remaining -= data.len() as u64;
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mut framing: Framing, input: &str, payload: &str, last: Piece<'_>, rest: &str) {
        for size in [1, 2, 3, input.len().max(1)] {
            let mut whole = Vec::new();
            let mut framing_ = framing;
            let mut left: &[u8] = input.as_bytes();
            let end = 'done: loop {
                let (mut read, behind) = left.split_at(size.min(left.len()));
                loop {
                    match framing_.next(&mut read) {
                        Piece::Data { bytes, .. } => whole.extend_from_slice(bytes),
                        Piece::Unframed(_) => panic!("nothing was lost"),
                        Piece::More if behind.is_empty() => break 'done (Piece::More, 0),
                        Piece::More => break,
                        end => break 'done (end, read.len() + behind.len()),
                    }
                }
                left = behind;
            };
            assert_eq!(String::from_utf8(whole).unwrap(), payload, "{input:?} by {size}");
            assert_eq!((end.0, end.1), (last, rest.len()), "{input:?} by {size}");
        }
        framing.gap(0);
    }

    #[test]
    fn finds_the_end() {
        let bad = Piece::Bad(MalformedReason::Chunk);
        let chunked = Framing::Chunked(Chunk::START);
        check(Framing::Length(5), "helloGET", "hello", Piece::End, "GET");
        check(Framing::Length(0), "GET", "", Piece::End, "GET");
        check(Framing::Length(9), "hello", "hello", Piece::More, "");
        check(Framing::UntilClose, "hello", "hello", Piece::More, "");
        check(chunked, "5\r\nhello\r\n0\r\n\r\nGET", "hello", Piece::End, "GET");
        check(
            chunked,
            "05;a=\"b\"\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n",
            "hello0123456789",
            Piece::End,
            "",
        );
        check(chunked, "3\r\nabc\r\n0;x\r\nExpires: 1\r\nX-Y: z\r\n\r\nH", "abc", Piece::End, "H");
        check(chunked, "3\r\nabc\r\n0\r\nA: b\n\nH", "abc", Piece::End, "H");
        check(chunked, "3\nabc\r\n", "", bad, "abc\r\n");
        check(chunked, "3;a\nabc\r\n", "", bad, "abc\r\n");
        check(chunked, "3\r\nabc\n0\r\n\r\n", "abc", bad, "0\r\n\r\n");
        check(chunked, "0\r\nA b: c\r\n\r\n", "", bad, "b: c\r\n\r\n");
        check(chunked, "0\r\nA\r\n\r\n", "", bad, "\n\r\n");
        check(chunked, "0\r\nA: b\rc\r\n\r\n", "", bad, "\r\n\r\n");
        check(chunked, "3\r\nabcd\r\n", "abc", bad, "\r\n");
        check(chunked, "x\r\n", "", bad, "\r\n");
        check(chunked, "\r\n", "", bad, "\n");
        check(chunked, "11112222333344445\r\n", "", bad, "\r\n");
    }

    #[test]
    fn a_gap_inside_known_data_is_exact() {
        let data = Framing::Chunked(Chunk::Data { remaining: 10, fresh: false });
        for (len, expected, rest) in [
            (4, Gap::Inside(4), "abcdef\r\n0\r\n\r\n"),
            (10, Gap::Inside(10), "\r\n0\r\n\r\n"),
            (11, Gap::Inside(10), "\n0\r\n\r\n"),
            (12, Gap::Inside(10), "0\r\n\r\n"),
            (13, Gap::Adrift(13), ""),
        ] {
            let mut framing = data;
            assert_eq!(framing.gap(len), expected, "{len}");
            if len < 13 {
                check(framing, rest, if len == 4 { "abcdef" } else { "" }, Piece::End, "");
            }
        }
        assert_eq!(Framing::Length(10).gap(12), Gap::Ended { payload: 10, beyond: 2 });
        assert_eq!(Framing::Length(10).gap(10), Gap::Inside(10));
        assert_eq!(Framing::Chunked(Chunk::START).gap(1), Gap::Adrift(1));
        assert_eq!(Framing::Chunked(Chunk::Trailer { seen: 0, at: Trailer::Start }).gap(1), Gap::Lost);
    }

    /// Adrift behind these bytes, finds its chunks at `write` or does not.
    fn check_find(seen: &[u8], write: &str, found: bool) {
        let mut framing = Framing::Chunked(Chunk::Adrift(Last::default()));
        let mut bytes = seen;
        while framing.next(&mut bytes) != Piece::More {}
        assert_eq!(framing.find(write.as_bytes()), found, "{seen:?} {write:?}");
        assert_eq!(framing.is_adrift(), !found);
    }

    #[test]
    fn finds_its_chunks_at_a_write_that_begins_one() {
        check_find(b"data\r\n", "5\r\nhe", true);
        check_find(b"data\r\n", "1f4\r\n", true);
        check_find(b"data\r\n", "0\r\n\r\n", true);
        check_find(b"data\r\n", "hello\r\n", false);
        check_find(b"data\r\n", "\r\n", false);
        check_find(b"data\r\n", "5", false);
        check_find(b"data\r\n", "123456789\r\n", false);
        check_find(b"data\n", "5\r\nhe", false);
        check_find(b"", "5\r\nhello", false);
        check_find(b"", "5\r\nhello\r\n", true);
        check_find(b"", "5\r\nhello\r\n3\r\nab", true);
        check_find(b"", "5\r\nhell\r\n\r\n", false);
        check_find(b"", "0\r\n\r\n", true);
        check_find(b"", "0\r\n\r\nHTTP", false);
    }

    #[test]
    fn tells_its_end_by_a_last_chunk_at_a_writes_end() {
        for (write, ended) in [
            ("x\r\n0\r\n\r\n", true),
            ("0\r\n\r\n", false),
            ("x\r\n10\r\n\r\n", false),
            ("x\r\n0\r\n\r\n ", false),
        ] {
            for size in 1..=write.len() {
                let mut framing = Framing::Chunked(Chunk::Adrift(Last::default()));
                for mut part in write.as_bytes().chunks(size) {
                    while framing.next(&mut part) != Piece::More {}
                }
                assert_eq!(framing.ended().is_some(), ended, "{write:?} by {size}");
            }
        }
    }
}
