//! Which protocol a connection speaks, and its observer: bytes → signals, whatever the protocol.
//!
//! A new connection is held back until its first bytes tell HTTP/1 from HTTP/2 and ZMTP: at most a preface of 24 bytes.
//! One that is older than the attach is read as HTTP/1 until a read or write can only be HTTP/2. Absent: other
//! protocols, ZMTP whose greeting was not seen, and HTTP/2 behind an upgrade from HTTP/1, which RFC 9113 did away with.

use super::order::Chunk;
use crate::h2;
use crate::http::{self, Direction, End, NotHttp, Signal, Verdict};
use crate::server::codec::zmtp;

/// What looks at the bytes of a connection.
#[derive(Debug)]
pub struct Observer {
    protocol: Protocol,
    /// Its first bytes may be from inside a message.
    mid_stream: bool,
    /// What came over ZMTP, and when its last byte did.
    frames: Vec<(u64, zmtp::Frame)>,
}

#[derive(Debug)]
enum Protocol {
    /// Not known yet: what has come so far.
    Opening(Vec<(Direction, Chunk)>),
    Http1(Box<http::Connection>),
    Http2(Box<h2::Connection>),
    Zmtp(Box<zmtp::Connection>),
    /// Nothing that is read, or nothing more.
    None,
}

/// What a connection turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Turn {
    /// HTTP/2: a gap costs more than a body.
    Http2,
    /// ZMTP: frames of messages between processes of a server.
    Zmtp,
    /// TLS: what it carries may come as a stream of its own.
    Tls,
    /// Nothing that is read.
    Unknown,
}

impl Observer {
    /// `mid_stream`: its first bytes may be from inside a message.
    pub fn new(mid_stream: bool) -> Self {
        let protocol = if mid_stream {
            Protocol::Http1(Box::new(http::Connection::new(true)))
        } else {
            Protocol::Opening(Vec::new())
        };
        Self { protocol, mid_stream, frames: Vec::new() }
    }

    /// Whether what it sends next is one response, of which nothing else depends on the contents.
    pub fn has_turns(&self) -> bool {
        matches!(self.protocol, Protocol::Http1(_))
    }

    /// Frames that came since the last time.
    pub fn take_frames(&mut self) -> Vec<(u64, zmtp::Frame)> {
        std::mem::take(&mut self.frames)
    }

    /// Takes bytes. The answer says, once, what the connection turned out to be.
    pub fn on_chunk(&mut self, direction: Direction, chunk: Chunk, out: &mut Vec<Signal>) -> Option<Turn> {
        if let Protocol::Opening(held) = &mut self.protocol {
            held.push((direction, chunk));
            return self.open(false, out);
        }
        let turned = self.turn_to_http2(direction, &chunk).or_else(|| self.turn_to_zmtp(&chunk));
        self.show(direction, &chunk, out).or(turned)
    }

    /// So many bytes went this way in all: what no chunk brought is lost.
    pub fn on_total(&mut self, direction: Direction, total: u64, time_ns: u64, out: &mut Vec<Signal>) {
        self.open(true, out);
        let nothing = Chunk { position: total, time_ns, bytes: Vec::new(), lost_after: 0 };
        self.show(direction, &nothing, out);
    }

    /// The connection, or one direction of it, ended.
    pub fn on_end(&mut self, end: End, time_ns: u64, out: &mut Vec<Signal>) {
        self.open(true, out);
        match &mut self.protocol {
            Protocol::Http1(observer) => observer.on_end(end, time_ns, out),
            Protocol::Http2(observer) => observer.on_end(end, time_ns, out),
            Protocol::Opening(_) | Protocol::Zmtp(_) | Protocol::None => {}
        }
    }

    /// Chooses the protocol, if the first bytes tell it or no more of them come.
    fn open(&mut self, must: bool, out: &mut Vec<Signal>) -> Option<Turn> {
        let Protocol::Opening(held) = &mut self.protocol else { return None };
        let (is_http2, is_zmtp) = match (is_http2(held), is_zmtp(held)) {
            (_, Some(true)) => (false, true),
            (None, _) | (_, None) if !must => return None,
            (known, _) => (known.unwrap_or(false), false),
        };
        let held = std::mem::take(held);
        let mut turn = None;
        self.protocol = if is_zmtp {
            turn = Some(Turn::Zmtp);
            Protocol::Zmtp(Box::default())
        } else if is_http2 {
            turn = Some(Turn::Http2);
            Protocol::Http2(Box::new(h2::Connection::new(false)))
        } else {
            Protocol::Http1(Box::new(http::Connection::new(false)))
        };
        for (direction, chunk) in held {
            turn = self.show(direction, &chunk, out).or(turn);
        }
        turn
    }

    /// An older connection of which HTTP/1 could make nothing shows that it is HTTP/2.
    fn turn_to_http2(&mut self, direction: Direction, chunk: &Chunk) -> Option<Turn> {
        let Protocol::Http1(observer) = &self.protocol else { return None };
        let len = chunk.bytes.len().saturating_add(chunk.lost_after as usize);
        let turns = self.mid_stream
            && observer.verdict() == Verdict::Undecided
            && h2::continues(direction, &chunk.bytes, len);
        if !turns {
            return None;
        }
        self.protocol = Protocol::Http2(Box::new(h2::Connection::new(true)));
        Some(Turn::Http2)
    }

    /// Likewise that it is ZMTP.
    fn turn_to_zmtp(&mut self, chunk: &Chunk) -> Option<Turn> {
        let Protocol::Http1(observer) = &self.protocol else { return None };
        let turns = self.mid_stream
            && observer.verdict() == Verdict::Undecided
            && chunk.lost_after == 0
            && zmtp::continues(&chunk.bytes);
        if !turns {
            return None;
        }
        self.protocol = Protocol::Zmtp(Box::new(zmtp::Connection::resuming()));
        Some(Turn::Zmtp)
    }

    fn show(&mut self, direction: Direction, chunk: &Chunk, out: &mut Vec<Signal>) -> Option<Turn> {
        let Chunk { position, time_ns, bytes, lost_after } = chunk;
        let verdict = match &mut self.protocol {
            Protocol::Zmtp(observer) => {
                let way = match direction {
                    Direction::Request => zmtp::Way::Received,
                    Direction::Response => zmtp::Way::Sent,
                };
                observer.feed(way, *position, bytes, (*lost_after).into(), &mut |event| {
                    if let zmtp::Event::Frame(frame) = event {
                        self.frames.push((*time_ns, frame));
                    }
                });
                if observer.is_over() { Verdict::NotHttp(NotHttp::Unknown) } else { Verdict::Undecided }
            }
            Protocol::Http1(observer) => {
                observer.on_bytes(direction, *position, *time_ns, bytes, *lost_after, out);
                observer.verdict()
            }
            Protocol::Http2(observer) => {
                observer.on_bytes(direction, *position, *time_ns, bytes, *lost_after, out);
                observer.verdict()
            }
            Protocol::Opening(_) | Protocol::None => return None,
        };
        let turn = match verdict {
            Verdict::NotHttp(NotHttp::Tls) => Turn::Tls,
            Verdict::NotHttp(NotHttp::Http2 | NotHttp::Unknown) => Turn::Unknown,
            Verdict::Http | Verdict::Undecided => return None,
        };
        self.protocol = Protocol::None;
        Some(turn)
    }
}

/// Whether what came first is ZMTP: either side may be the first to greet. `None`: too few bytes to tell.
fn is_zmtp(held: &[(Direction, Chunk)]) -> Option<bool> {
    let first = |of: Direction| {
        let chunks = held.iter().filter(|(direction, _)| *direction == of);
        let bytes: Vec<u8> = chunks.flat_map(|(_, chunk)| &chunk.bytes).copied().take(OPENING).collect();
        zmtp::looks_like(&bytes)
    };
    match (first(Direction::Request), first(Direction::Response)) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (None, None) => None,
        _ => Some(false),
    }
}

/// Whether what came first is HTTP/2: the client's preface, or the server's settings, which may come before it has been
/// read. `None`: too few bytes to tell.
fn is_http2(held: &[(Direction, Chunk)]) -> Option<bool> {
    let first = |of: Direction| {
        let chunks = held.iter().filter(|(direction, _)| *direction == of);
        let bytes: Vec<u8> = chunks.flat_map(|(_, chunk)| &chunk.bytes).copied().take(OPENING).collect();
        (!bytes.is_empty()).then_some(bytes)
    };
    let is_whole = held.iter().all(|(_, chunk)| chunk.lost_after == 0) && held.len() < MOST_HELD;
    let request = first(Direction::Request).map(|bytes| h2::client_begins(&bytes));
    let response = first(Direction::Response).map(|bytes| h2::server_begins(&bytes));
    match (request, response) {
        (Some(Some(known)), _) | (None, Some(Some(known))) => Some(known),
        _ if is_whole => None,
        _ => Some(false),
    }
}

/// Bytes that tell HTTP/2: its preface (RFC 9113, section 3.4).
const OPENING: usize = 24;

/// Chunks that are held back: one for each byte of a preface, and what the server says meanwhile.
const MOST_HELD: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

    fn turns(mid_stream: bool, chunks: &[(Direction, &[u8])]) -> Vec<Option<Turn>> {
        let mut observer = Observer::new(mid_stream);
        let mut positions = [0; 2];
        let take = |(direction, bytes): &(Direction, &[u8])| {
            let position = &mut positions[usize::from(*direction == Direction::Response)];
            let chunk = Chunk { position: *position, time_ns: 1, bytes: bytes.to_vec(), lost_after: 0 };
            *position += bytes.len() as u64;
            observer.on_chunk(*direction, chunk, &mut Vec::new())
        };
        chunks.iter().map(take).collect()
    }

    #[test]
    fn the_preface_tells_http_2_wherever_it_is_split() {
        for split in 1..PREFACE.len() {
            let (a, b) = PREFACE.split_at(split);
            let seen = turns(false, &[(Direction::Request, a), (Direction::Request, b)]);
            assert_eq!(seen, [None, Some(Turn::Http2)], "{split}");
        }
        assert_eq!(turns(false, &[(Direction::Request, PREFACE)]), [Some(Turn::Http2)]);
    }

    #[test]
    fn edge_26_a_greeting_tells_zmtp_wherever_it_is_split_and_whoever_speaks_first() {
        let mut greeting = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01NULL".to_vec();
        greeting.resize(64, 0);
        for direction in [Direction::Request, Direction::Response] {
            for split in 1..10 {
                let (a, b) = greeting.split_at(split);
                assert_eq!(
                    turns(false, &[(direction, a), (direction, b)]),
                    [None, Some(Turn::Zmtp)],
                    "{split}"
                );
            }
        }
        let mut observer = Observer::new(false);
        let stream = [&greeting[..], b"\x04\x06\x05READY\x01\x03abc\0\x02de"].concat();
        let chunk = Chunk { position: 0, time_ns: 5, bytes: stream, lost_after: 0 };
        observer.on_chunk(Direction::Request, chunk, &mut Vec::new());
        let frames = observer.take_frames();
        let bytes: Vec<_> =
            frames.iter().map(|(at, frame)| (*at, frame.bytes.as_slice(), frame.more)).collect();
        assert_eq!(bytes, [(5, &b"abc"[..], true), (5, &b"de"[..], false)]);
    }

    #[test]
    fn a_server_may_speak_first() {
        let seen = turns(false, &[(Direction::Response, SETTINGS), (Direction::Request, PREFACE)]);
        assert_eq!(seen, [Some(Turn::Http2), None]);
        assert_eq!(turns(false, &[(Direction::Response, b"220 mail")]), [Some(Turn::Unknown)]);
    }

    #[test]
    fn requests_of_http_1_are_shown_whole() {
        let mut observer = Observer::new(false);
        let mut out = Vec::new();
        for (position, byte) in b"PROPFIND / HTTP/1.1\r\n\r\n".iter().enumerate() {
            let chunk = Chunk { position: position as u64, time_ns: 1, bytes: vec![*byte], lost_after: 0 };
            observer.on_chunk(Direction::Request, chunk, &mut out);
        }
        assert!(out.is_empty() || out.len() >= 2, "{out:?}");
        let mut observer = Observer::new(false);
        let get = Chunk { position: 0, time_ns: 7, bytes: b"G".to_vec(), lost_after: 0 };
        observer.on_chunk(Direction::Request, get, &mut out);
        let rest = b"ET / HTTP/1.1\r\n\r\n".to_vec();
        let rest = Chunk { position: 1, time_ns: 8, bytes: rest, lost_after: 0 };
        out.clear();
        observer.on_chunk(Direction::Request, rest, &mut out);
        assert_eq!(out.first().map(|signal| signal.time_ns), Some(7), "from its first byte");
    }

    #[test]
    fn an_older_connection_shows_itself() {
        let ping: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 4, 1, 0, 0, 0, 0];
        let seen = turns(true, &[(Direction::Request, b"inside something"), (Direction::Request, ping)]);
        assert_eq!(seen, [None, Some(Turn::Http2)]);
        assert_eq!(turns(true, &[(Direction::Request, &[0x17, 3, 3, 0, 9])]), [Some(Turn::Tls)]);
    }
}
