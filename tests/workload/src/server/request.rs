//! Bytes of a connection in, complete HTTP/1.1 requests out: keep-alive, pipelining, split reads, chunked
//! bodies and `100-continue`.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail, ensure};

use crate::clock::monotonic_ns;

/// Far above what any HTTP client sends by itself.
const MAX_HEADERS: usize = 128;
const MAX_HEAD_BYTES: usize = 64 << 10;
/// A prompt with a few images fits.
const MAX_BODY_BYTES: usize = 64 << 20;
const READ_BYTES: usize = 64 << 10;

/// One complete request.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// HTTP/1.0 clients get no chunks and no keep-alive.
    pub(super) http_1_0: bool,
    /// Names in lower case.
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
    /// When the read that brought the last byte returned.
    pub(super) arrival_ns: u64,
}

impl Request {
    /// The first header with this lower-case name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(known, _)| known == name)?;
        std::str::from_utf8(value).ok()
    }

    /// Whether the connection ends after the answer.
    pub(super) fn closes(&self) -> bool {
        let connection = self.header("connection").unwrap_or("").to_ascii_lowercase();
        connection.contains("close") || (self.http_1_0 && !connection.contains("keep-alive"))
    }
}

/// The reading half of a connection.
pub(super) struct Reader<'a> {
    stream: &'a TcpStream,
    buffer: Vec<u8>,
    last_read_ns: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(stream: &'a TcpStream) -> Self {
        Self { stream, buffer: Vec::new(), last_read_ns: 0 }
    }

    /// The next request; none when the client closed between requests.
    pub(super) fn next(&mut self) -> Result<Option<Request>> {
        let (mut request, head_len) = loop {
            if let Some(parsed) = parse_head(&self.buffer)? {
                break parsed;
            }
            ensure!(
                self.buffer.len() < MAX_HEAD_BYTES,
                "the request head is longer than {MAX_HEAD_BYTES} bytes"
            );
            if !self.fill()? {
                ensure!(self.buffer.is_empty(), "the client closed within a request head");
                return Ok(None);
            }
        };
        self.buffer.drain(..head_len);
        if request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            let mut stream = self.stream;
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        request.body = self.body(&request)?;
        request.arrival_ns = self.last_read_ns;
        Ok(Some(request))
    }

    fn body(&mut self, request: &Request) -> Result<Vec<u8>> {
        if request.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return self.chunked_body();
        }
        let length = match request.header("content-length") {
            Some(length) => length.trim().parse().context("content-length is no number")?,
            None => 0,
        };
        self.take(length)
    }

    fn chunked_body(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let parsed = httparse::parse_chunk_size(&self.buffer)
                .map_err(|_| anyhow::anyhow!("invalid chunk size"))?;
            let httparse::Status::Complete((head, size)) = parsed else {
                ensure!(self.fill()?, "the client closed within a chunk");
                continue;
            };
            self.take(head)?;
            let size = usize::try_from(size)?;
            ensure!(body.len().saturating_add(size) <= MAX_BODY_BYTES, "the body is too long");
            body.extend(self.take(size)?);
            // Trailers are not supported: the last chunk's empty line ends the body.
            self.take(2)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// Takes exactly `length` bytes, reading as often as needed.
    fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        ensure!(length <= MAX_BODY_BYTES, "the body is longer than {MAX_BODY_BYTES} bytes");
        while self.buffer.len() < length {
            ensure!(self.fill()?, "the client closed within a request body");
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// One read; false at the end of the stream.
    fn fill(&mut self) -> Result<bool> {
        let start = self.buffer.len();
        self.buffer.resize(start + READ_BYTES, 0);
        let mut stream = self.stream;
        let read = match self.buffer.get_mut(start..) {
            Some(free) => stream.read(free),
            None => Ok(0),
        };
        self.buffer.truncate(start + *read.as_ref().unwrap_or(&0));
        self.last_read_ns = monotonic_ns();
        Ok(read? > 0)
    }
}

/// Parses a complete head; none while bytes are missing.
fn parse_head(buffer: &[u8]) -> Result<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => bail!("invalid request head: {error}"),
    };
    let path = parsed.path.unwrap_or("/");
    let request = Request {
        method: parsed.method.unwrap_or("").to_owned(),
        path: path.split('?').next().unwrap_or(path).to_owned(),
        http_1_0: parsed.version == Some(0),
        headers: parsed
            .headers
            .iter()
            .map(|header| (header.name.to_ascii_lowercase(), header.value.to_vec()))
            .collect(),
        ..Request::default()
    };
    Ok(Some((request, length)))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Sends `pieces` with a pause between them and reads requests until the end.
    fn check(pieces: &[&[u8]], expected: &[(&str, &[u8])]) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let client = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            for piece in pieces {
                stream.write_all(&piece).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        let (stream, _) = listener.accept().unwrap();
        let mut reader = Reader::new(&stream);
        let mut actual = Vec::new();
        while let Some(request) = reader.next().unwrap() {
            actual.push((request.path, request.body));
        }
        client.join().unwrap();
        let actual: Vec<_> = actual.iter().map(|(path, body)| (path.as_str(), body.as_slice())).collect();
        assert_eq!(actual, expected);
    }

    const TWO: &[u8] = b"POST /a HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcGET /b?x=1 HTTP/1.1\r\n\r\n";

    #[test]
    fn pipelined_requests_are_told_apart() {
        check(&[TWO], &[("/a", b"abc"), ("/b", b"")]);
    }

    #[test]
    fn a_split_at_every_byte_changes_nothing() {
        for at in 1..TWO.len() {
            check(&[&TWO[..at], &TWO[at..]], &[("/a", b"abc"), ("/b", b"")]);
        }
    }

    #[test]
    fn chunked_bodies_are_joined() {
        check(
            &[
                b"POST /c HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r",
                b"\n1;x=y\r\nc\r\n0\r\n\r\n",
            ],
            &[("/c", b"abc")],
        );
    }
}
