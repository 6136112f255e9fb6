//! A keep-alive connection: bytes of a request out, head and body bytes of the answer in, with read times.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::clock::monotonic_ns;

const MAX_HEADERS: usize = 64;
const READ_BYTES: usize = 64 << 10;

/// How the end of an answer's body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// The head of an answer.
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) framing: Framing,
    pub(super) ndjson: bool,
    pub(super) event_stream: bool,
    pub(super) closes: bool,
}

pub(super) struct Connection {
    authority: String,
    timeout: Duration,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
    ordinal: u64,
    /// After the latest read.
    pub(super) last_read_ns: u64,
}

impl Connection {
    pub(super) fn new(authority: &str, timeout_s: u64) -> Self {
        Self {
            authority: authority.to_owned(),
            timeout: Duration::from_secs(timeout_s.max(1)),
            stream: None,
            buffer: Vec::new(),
            ordinal: 0,
            last_read_ns: 0,
        }
    }

    /// Connects where needed; gives the local port and the request's ordinal on the connection.
    pub(super) fn open(&mut self) -> Result<(u16, u64)> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(&self.authority)
                .with_context(|| format!("failed to connect to {}: is the server up?", self.authority))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(self.timeout))?;
            self.stream = Some(stream);
            self.buffer.clear();
            self.ordinal = 0;
        }
        let ordinal = self.ordinal;
        self.ordinal += 1;
        Ok((self.stream()?.local_addr()?.port(), ordinal))
    }

    /// Closes, so that the next request connects anew.
    pub(super) fn close(&mut self) {
        self.stream = None;
    }

    /// Sends a request and returns the time after its last byte.
    pub(super) fn send(&mut self, path: &str, headers: &str, body: &[u8]) -> Result<u64> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n",
            self.authority,
            body.len(),
        );
        let mut stream = self.stream()?;
        stream.write_all(&[head.as_bytes(), body].concat()).context("failed to send the request")?;
        Ok(monotonic_ns())
    }

    /// Reads the head of the answer; also gives the time of its first byte. None when the server closed a kept
    /// connection instead of answering, which HTTP allows it to do at any moment between two exchanges.
    pub(super) fn head(&mut self) -> Result<Option<(Head, u64)>> {
        let kept = self.ordinal > 1;
        let first_read = self.fill();
        if kept && !matches!(first_read, Ok(1..)) {
            return Ok(None);
        }
        ensure!(first_read? > 0, "the server closed instead of answering");
        let first_byte_ns = self.last_read_ns;
        loop {
            if let Some((head, length)) = parse_head(&self.buffer)? {
                self.buffer.drain(..length);
                return Ok(Some((head, first_byte_ns)));
            }
            ensure!(self.fill()? > 0, "the server closed within the answer's head");
        }
    }

    /// The next part of the body; none at its end. `left` holds what is left of a body with a length.
    pub(super) fn body_part(&mut self, framing: Framing, left: &mut usize) -> Result<Option<Vec<u8>>> {
        match framing {
            Framing::Chunked => self.chunk(),
            Framing::UntilClose => {
                let closed = self.buffer.is_empty() && self.fill()? == 0;
                Ok((!closed).then(|| std::mem::take(&mut self.buffer)))
            }
            Framing::Length(_) => {
                if *left == 0 {
                    return Ok(None);
                }
                ensure!(!self.buffer.is_empty() || self.fill()? > 0, "the server closed within the answer");
                let part: Vec<u8> = self.buffer.drain(..self.buffer.len().min(*left)).collect();
                *left -= part.len();
                Ok(Some(part))
            }
        }
    }

    fn chunk(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            let Ok(parsed) = httparse::parse_chunk_size(&self.buffer) else {
                bail!("invalid chunk size in the answer")
            };
            if let httparse::Status::Complete((head, size)) = parsed {
                let size = usize::try_from(size)?;
                self.require(head + size + 2)?;
                let data: Vec<u8> = self.buffer.drain(..head + size + 2).skip(head).take(size).collect();
                return Ok((size > 0).then_some(data));
            }
            ensure!(self.fill()? > 0, "the server closed within the stream");
        }
    }

    fn require(&mut self, length: usize) -> Result<()> {
        while self.buffer.len() < length {
            ensure!(self.fill()? > 0, "the server closed within a chunk");
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<usize> {
        let start = self.buffer.len();
        self.buffer.resize(start + READ_BYTES, 0);
        let read = match (self.stream.as_mut(), self.buffer.get_mut(start..)) {
            (Some(stream), Some(free)) => stream.read(free),
            _ => Ok(0),
        };
        self.last_read_ns = monotonic_ns();
        self.buffer.truncate(start + *read.as_ref().unwrap_or(&0));
        read.context("failed to read the answer")
    }

    fn stream(&self) -> Result<&TcpStream> {
        self.stream.as_ref().context("the connection is closed")
    }
}

fn parse_head(buffer: &[u8]) -> Result<Option<(Head, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    let length = match parsed.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => bail!("invalid head of an answer: {error}"),
    };
    let header = |name: &str| {
        let found = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map_or(String::new(), |header| String::from_utf8_lossy(header.value).to_ascii_lowercase())
    };
    let framing = if header("transfer-encoding").contains("chunked") {
        Framing::Chunked
    } else {
        header("content-length").parse().map_or(Framing::UntilClose, Framing::Length)
    };
    let kind = header("content-type");
    let head = Head {
        status: parsed.code.unwrap_or(0),
        framing,
        ndjson: kind.contains("ndjson"),
        event_stream: kind.contains("event-stream"),
        closes: header("connection").contains("close") || framing == Framing::UntilClose,
    };
    Ok(Some((head, length)))
}
