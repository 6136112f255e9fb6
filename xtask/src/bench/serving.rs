//! What the measured process does with sockets: single calls on a connection that it accepted, and streams to many
//! clients at a given pace.
//!
//! Its clients are in another process (`streams`), except for single calls, where both ends are its own.

use super::openssl::{Openssl, Side, Tls};
use anyhow::{Context as _, Result, ensure};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// How a stream goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// Server-sent events in chunks.
    Http1,
    /// Server-sent events in DATA frames.
    Http2,
    /// As `Http1`, through OpenSSL.
    Tls,
}

impl Protocol {
    /// The name in commands.
    pub fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self)
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Streams at the same time, each on a connection of its own.
pub const STREAMS: usize = 32;

/// Messages of a batch of single calls, and their size: a unix socket's buffer holds them.
const BATCH: u64 = 64;
const MESSAGE: usize = 64;

/// Both ends of a connection. A unix socket, since writing to TCP on the loopback does the reader's work too.
pub struct Pair {
    served: UnixStream,
    client: UnixStream,
}

impl Pair {
    /// A new connection, accepted here.
    pub fn accept() -> Result<Self> {
        let address = SocketAddr::from_abstract_name(format!("gpuspan-bench-{}", std::process::id()))?;
        let listener = UnixListener::bind_addr(&address)?;
        let client = UnixStream::connect_addr(&address)?;
        Ok(Self { served: listener.accept()?.0, client })
    }

    /// What `timed` says of reads of 64 bytes each, summed up.
    pub fn reads(mut self, times: u64, timed: impl Fn(u64, &mut dyn FnMut()) -> u64) -> Result<u64> {
        let mut sum = 0;
        for _ in 0..times / BATCH {
            for _ in 0..BATCH {
                self.client.write_all(&[b'x'; MESSAGE])?;
            }
            // What cannot be read costs as much to try; a batch lies there.
            sum += timed(BATCH, &mut || drop(self.served.read(&mut [0; MESSAGE])));
        }
        Ok(sum * times / (times / BATCH * BATCH))
    }

    /// Likewise of writes.
    pub fn writes(mut self, times: u64, timed: impl Fn(u64, &mut dyn FnMut()) -> u64) -> Result<u64> {
        let mut sum = 0;
        for _ in 0..times / BATCH {
            sum += timed(BATCH, &mut || drop(self.served.write(&[b'x'; MESSAGE])));
            self.client.read_exact(&mut [0; MESSAGE * BATCH as usize])?;
        }
        Ok(sum * times / (times / BATCH * BATCH))
    }
}

/// An accepted connection.
enum Connection {
    Plain(TcpStream),
    /// The socket must live as long as the session.
    Tls(Tls, #[expect(dead_code, reason = "kept open")] TcpStream),
}

impl Connection {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        match self {
            Self::Plain(stream) => Ok(stream.read(bytes)?),
            Self::Tls(session, _) => session.read(bytes),
        }
    }

    /// In one call.
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Plain(stream) => ensure!(stream.write(bytes)? == bytes.len(), "a write in part"),
            Self::Tls(session, _) => session.write(bytes)?,
        }
        Ok(())
    }
}

/// Streams to [`STREAMS`] clients, all together `rate` chunks a second, one write each. `say` is told the port. Returns
/// how many chunks went out, and how long it took.
pub fn stream(
    protocol: Protocol,
    rate: u64,
    duration: Duration,
    say: impl Fn(&str) -> Result<()>,
) -> Result<(u64, Duration)> {
    let openssl = (protocol == Protocol::Tls).then(|| Openssl::load(Side::Server)).transpose()?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    say(&listener.local_addr()?.port().to_string())?;
    let accept = |_| accept(&listener, openssl.as_ref(), protocol);
    let mut connections = (0..STREAMS).map(accept).collect::<Result<Vec<_>>>()?;
    let chunk = framed(protocol, &token(), false);
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < duration {
        let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
        while sent < due {
            let next = connections.get_mut(sent as usize % STREAMS).context("no such stream")?;
            next.write(&chunk)?;
            sent += 1;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    let took = start.elapsed();
    for connection in &mut connections {
        connection.write(&framed(protocol, "data: [DONE]\n\n", true))?;
    }
    Ok((sent, took))
}

/// Takes a connection, reads its request, and begins the answer.
fn accept(listener: &TcpListener, openssl: Option<&Openssl>, protocol: Protocol) -> Result<Connection> {
    let (socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    let mut connection = match openssl {
        Some(openssl) => Connection::Tls(openssl.session(&socket)?, socket),
        None => Connection::Plain(socket),
    };
    let (mut request, mut room) = (Vec::new(), [0; 4096]);
    while !request.ends_with(b"}") {
        let got = connection.read(&mut room)?;
        ensure!(got > 0, "the client closed");
        request.extend_from_slice(room.get(..got).unwrap_or_default());
    }
    connection.write(&head(protocol))?;
    Ok(connection)
}

/// One token's event, as large as OpenAI-compatible servers make them.
fn token() -> String {
    let delta = r#"{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}"#;
    let id = r#""id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1700000000,"model":"m""#;
    format!("data: {{{id},\"choices\":[{delta}]}}\n\n")
}

fn framed(protocol: Protocol, event: &str, last: bool) -> Vec<u8> {
    if protocol == Protocol::Http2 {
        return frame(0, u8::from(last), 1, event.as_bytes());
    }
    let end = if last { "0\r\n\r\n" } else { "" };
    format!("{:x}\r\n{event}\r\n{end}", event.len()).into_bytes()
}

fn head(protocol: Protocol) -> Vec<u8> {
    if protocol != Protocol::Http2 {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        return head.as_bytes().to_vec();
    }
    // `:status: 200` of the static table, and a literal `content-type`, its name of the static table (RFC 7541).
    let fields = [&[0x88, 0x0f, 0x10, 17][..], b"text/event-stream"].concat();
    [frame(4, 0, 0, &[]), frame(4, 1, 0, &[]), frame(1, 4, 1, &fields)].concat()
}

/// The request of a client.
pub fn request(protocol: Protocol) -> Vec<u8> {
    let body = r#"{"model":"m","messages":[],"stream":true}"#;
    let path = "/v1/chat/completions";
    if protocol != Protocol::Http2 {
        let length = body.len();
        return format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n{body}")
            .into_bytes();
    }
    // `:method: POST`, `:scheme: http` of the static table, `:path` and `:authority` as literals.
    let path = [&[0x04, path.len() as u8][..], path.as_bytes()].concat();
    let fields = [&[0x83, 0x86][..], &path, &[0x01, 1, b'h']].concat();
    let settings = [&[0, 4][..], &0x7fff_ffffu32.to_be_bytes()].concat();
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &settings),
        frame(8, 0, 0, &0x7fff_0000u32.to_be_bytes()),
        frame(1, 4, 1, &fields),
        frame(0, 1, 1, body.as_bytes()),
    ]
    .concat()
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let [_, length @ ..] = length;
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_chunk_and_one_frame() {
        let chunk = framed(Protocol::Http1, &token(), false);
        assert!(chunk.starts_with(format!("{:x}\r\ndata: ", token().len()).as_bytes()));
        assert!(chunk.ends_with(b"\n\n\r\n"));
        let frame = framed(Protocol::Http2, &token(), true);
        assert_eq!(frame[..9], [0, 0, token().len() as u8, 0, 1, 0, 0, 0, 1]);
        assert_eq!(frame.len(), 9 + token().len());
    }
}
