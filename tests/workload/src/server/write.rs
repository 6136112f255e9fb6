//! Answers out, in the write patterns of real servers and in odd ones that a tracer must survive.

use std::io::{self, IoSlice, Write};
use std::net::TcpStream;

use crate::clock::monotonic_ns;

/// Events that one write of [`Style::Joined`] holds.
const JOINED_EVENTS: usize = 3;

/// How an answer's bytes are cut into writes; the header `x-workload-writes` chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Style {
    /// Head alone, then one write per event with its chunk framing, the last chunk alone (uvicorn with asyncio).
    #[default]
    Plain,
    /// Chunk size, data, the data's last byte and the closing line break in writes of their own.
    Split,
    /// Three events in one write, the head with the first and the last chunk with the last ones.
    Joined,
    /// One `writev` with chunk size, data and line break in vectors of their own (hyper).
    Vector,
    /// A write that ends within a character of several bytes, where there is one.
    Utf8Split,
}

impl Style {
    /// None for a name that is not known.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "plain" => Self::Plain,
            "split" => Self::Split,
            "joined" => Self::Joined,
            "vector" => Self::Vector,
            "utf8split" => Self::Utf8Split,
            _ => return None,
        })
    }
}

/// Writes one answer.
pub(super) struct Writer<'a> {
    stream: &'a TcpStream,
    style: Style,
    chunked: bool,
    held: Vec<u8>,
    held_events: usize,
    held_tokens: usize,
    /// For each token, when the write that carried it began.
    pub(super) tokens_ns: Vec<u64>,
}

impl<'a> Writer<'a> {
    /// `chunked` is false for HTTP/1.0, where the end of the connection ends the answer.
    pub(super) fn new(stream: &'a TcpStream, style: Style, chunked: bool) -> Self {
        Self {
            stream,
            style,
            chunked,
            held: Vec::new(),
            held_events: 0,
            held_tokens: 0,
            tokens_ns: Vec::new(),
        }
    }

    /// The head of a streamed answer.
    pub(super) fn head(&mut self, head: &[u8]) -> io::Result<()> {
        if self.style == Style::Joined {
            self.held.extend(head);
            return Ok(());
        }
        self.stream.write_all(head)
    }

    /// One event of a streamed answer; `token` when it carries one.
    pub(super) fn event(&mut self, data: &[u8], token: bool) -> io::Result<()> {
        let (size, end): (String, &[u8]) =
            if self.chunked { (format!("{:x}\r\n", data.len()), b"\r\n") } else { (String::new(), b"") };
        let parts = [size.as_bytes(), data, end];
        if self.style == Style::Joined {
            self.held.extend(parts.concat());
            self.held_events += 1;
            self.held_tokens += usize::from(token);
            return if self.held_events >= JOINED_EVENTS { self.flush() } else { Ok(()) };
        }
        self.tokens_ns.extend(token.then(monotonic_ns));
        self.write_parts(parts)
    }

    /// The end of a streamed answer.
    pub(super) fn end(&mut self) -> io::Result<()> {
        let end: &[u8] = if self.chunked { b"0\r\n\r\n" } else { b"" };
        self.held.extend(end);
        self.flush()
    }

    /// A whole answer that is not streamed.
    pub(super) fn whole(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        match self.style {
            Style::Plain | Style::Joined => self.stream.write_all(&[head, body].concat()),
            _ => self.write_parts([head, body, b""]),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let now = monotonic_ns();
        self.tokens_ns.extend(std::iter::repeat_n(now, std::mem::take(&mut self.held_tokens)));
        self.held_events = 0;
        let held = std::mem::take(&mut self.held);
        self.stream.write_all(&held)
    }

    fn write_parts(&mut self, [size, data, end]: [&[u8]; 3]) -> io::Result<()> {
        match self.style {
            Style::Plain | Style::Joined => self.stream.write_all(&[size, data, end].concat()),
            Style::Vector => self.write_vectored([size, data, end]),
            Style::Split => {
                let (first, last) = data.split_at(data.len().saturating_sub(1));
                [size, first, last, end].into_iter().try_for_each(|part| self.stream.write_all(part))
            }
            Style::Utf8Split => {
                let whole = [size, data, end].concat();
                let at = whole.iter().position(|byte| *byte >= 0x80).map_or(whole.len(), |at| at + 1);
                let (first, rest) = whole.split_at(at);
                [first, rest].into_iter().try_for_each(|part| self.stream.write_all(part))
            }
        }
    }

    fn write_vectored(&mut self, parts: [&[u8]; 3]) -> io::Result<()> {
        let mut vectors = parts.map(IoSlice::new);
        let mut left = vectors.as_mut_slice();
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let written = self.stream.write_vectored(left)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut left, written);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    /// What a client receives of two events in `style`.
    fn received(style: Style) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let mut writer = Writer::new(&stream, style, true);
        writer.head(b"HEAD\r\n\r\n").unwrap();
        writer.event("data: größer\n\n".as_bytes(), true).unwrap();
        writer.event(b"data: b\n\n", true).unwrap();
        writer.end().unwrap();
        assert_eq!(writer.tokens_ns.len(), 2);
        drop(stream);
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn every_style_sends_the_same_bytes() {
        let plain = received(Style::Plain);
        assert!(plain.ends_with("9\r\ndata: b\n\n\r\n0\r\n\r\n"), "{plain:?}");
        for style in [Style::Split, Style::Joined, Style::Vector, Style::Utf8Split] {
            assert_eq!(received(style), plain, "{style:?}");
        }
    }
}
