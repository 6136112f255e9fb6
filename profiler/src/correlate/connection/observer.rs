//! Which protocol a connection speaks, and its observer: bytes → signals, whatever the protocol.

use super::order::Chunk;
use crate::http::{self, Direction, End, NotHttp, Signal, Verdict};

/// What looks at the bytes of a connection.
#[derive(Debug)]
pub enum Observer {
    /// HTTP/1.x, or not known yet.
    Http1(Box<http::Connection>),
    /// Nobody: it speaks nothing that is read.
    Nobody,
}

/// What a connection turned out to be of no interest for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uninteresting {
    /// TLS: what it carries may come as a stream of its own.
    Tls,
    /// Something else.
    Unknown,
}

impl Observer {
    /// `mid_stream`: its first bytes may be from inside a message.
    pub fn new(mid_stream: bool) -> Self {
        Self::Http1(Box::new(http::Connection::new(mid_stream)))
    }

    /// Takes bytes. The answer says, once, that no more are wanted.
    pub fn on_chunk(
        &mut self,
        direction: Direction,
        chunk: &Chunk,
        out: &mut Vec<Signal>,
    ) -> Option<Uninteresting> {
        let Self::Http1(observer) = self else { return None };
        observer.on_bytes(direction, chunk.position, chunk.time_ns, &chunk.bytes, chunk.lost_after, out);
        let why = match observer.verdict() {
            Verdict::NotHttp(NotHttp::Tls) => Uninteresting::Tls,
            Verdict::NotHttp(NotHttp::Http2 | NotHttp::Unknown) => Uninteresting::Unknown,
            Verdict::Http | Verdict::Undecided => return None,
        };
        *self = Self::Nobody;
        Some(why)
    }

    /// So many bytes went this way in all: what no chunk brought is lost.
    pub fn on_total(&mut self, direction: Direction, total: u64, time_ns: u64, out: &mut Vec<Signal>) {
        if let Self::Http1(observer) = self {
            observer.on_bytes(direction, total, time_ns, &[], 0, out);
        }
    }

    /// The connection, or one direction of it, ended.
    pub fn on_end(&mut self, end: End, time_ns: u64, out: &mut Vec<Signal>) {
        if let Self::Http1(observer) = self {
            observer.on_end(end, time_ns, out);
        }
    }
}
