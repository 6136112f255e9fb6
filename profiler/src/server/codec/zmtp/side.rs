//! One direction of a connection.

use super::{Command, Event, Frame, MOST_KEPT, SIGNATURE, Unread, Way};

/// Signature, version, mechanism, role and filler.
const GREETING: usize = 64;
const MECHANISM: std::ops::Range<usize> = 12..32;

/// Bits of a frame's first byte.
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// A direction.
#[derive(Debug)]
pub(super) struct Side {
    state: State,
    /// Bytes of a greeting or a header that is not whole.
    held: Vec<u8>,
    /// Bytes that went this way so far.
    position: u64,
    /// Version 3.0, and its socket takes subscriptions: they are messages then.
    subscribes: bool,
    minor: u8,
}

#[derive(Debug)]
enum State {
    /// Its beginning was not seen: what comes first that is nothing but whole frames begins with one.
    Resuming,
    Greeting,
    Header,
    Body(Body),
    Unread(Unread),
}

#[derive(Debug)]
struct Body {
    flags: u8,
    size: u64,
    left: u64,
    kept: Vec<u8>,
    /// What comes now does not belong behind what was kept.
    has_gap: bool,
}

/// Whether bytes are whole frames, one behind the other, and nothing else: a piece that ends inside a frame is not taken
/// for one, since anything could look so.
pub(super) fn are_frames(mut bytes: &[u8]) -> bool {
    let mut any = false;
    while let [flags, rest @ ..] = bytes {
        let is_command = flags & COMMAND != 0;
        if *flags > COMMAND | LONG || is_command && flags & MORE != 0 {
            return false;
        }
        let (size, rest) = if flags & LONG != 0 {
            let Some((size, rest)) = rest.split_first_chunk() else { return false };
            (u64::from_be_bytes(*size), rest)
        } else {
            let Some((size, rest)) = rest.split_first() else { return false };
            (u64::from(*size), rest)
        };
        let Some(behind) = usize::try_from(size).ok().and_then(|size| rest.get(size..)) else { return false };
        bytes = behind;
        any |= size > 0;
    }
    any
}

impl Default for Side {
    fn default() -> Self {
        Self { state: State::Greeting, held: Vec::new(), position: 0, subscribes: false, minor: 0 }
    }
}

impl Side {
    pub(super) fn unread(&self) -> Option<Unread> {
        match self.state {
            State::Unread(why) => Some(why),
            _ => None,
        }
    }

    /// Of a connection whose beginning was not seen.
    pub(super) fn resuming() -> Self {
        Self { state: State::Resuming, ..Self::default() }
    }

    pub(super) fn feed(&mut self, way: Way, position: u64, mut bytes: &[u8], take: &mut impl FnMut(Event)) {
        if matches!(self.state, State::Resuming) {
            if !are_frames(bytes) {
                return;
            }
            self.position = position;
            self.state = State::Header;
        }
        // What was seen before is not seen again.
        let seen = usize::try_from(self.position.saturating_sub(position)).unwrap_or(usize::MAX);
        bytes = bytes.get(seen..).unwrap_or_default();
        self.skip(position.saturating_sub(self.position), way, take);
        self.position += bytes.len() as u64;
        // Every turn takes bytes, or changes the state without any; an empty body is done without bytes too.
        loop {
            let before = bytes.len();
            let turned = match &mut self.state {
                State::Greeting => self.greet(&mut bytes),
                State::Header => self.head(&mut bytes),
                State::Body(body) => {
                    body.take(&mut bytes);
                    body.left == 0
                }
                State::Unread(_) | State::Resuming => return,
            };
            if matches!(&self.state, State::Body(body) if body.left == 0) {
                self.finish(way, take);
            }
            if !turned && (bytes.is_empty() || bytes.len() == before) {
                return;
            }
        }
    }

    /// So many bytes are missing.
    pub(super) fn skip(&mut self, lost: u64, way: Way, take: &mut impl FnMut(Event)) {
        if lost == 0 {
            return;
        }
        self.position = self.position.saturating_add(lost);
        match &mut self.state {
            State::Body(body) if lost <= body.left => {
                body.left -= lost;
                body.has_gap = true;
                if body.left == 0 {
                    self.finish(way, take);
                }
            }
            State::Unread(_) | State::Resuming => {}
            _ => self.give_up(Unread::Gap),
        }
    }

    fn give_up(&mut self, why: Unread) {
        self.held = Vec::new();
        self.state = State::Unread(why);
    }

    /// Holds bytes until there are `count`; whether there are.
    fn hold(&mut self, bytes: &mut &[u8], count: usize) -> bool {
        let wanted = count.saturating_sub(self.held.len()).min(bytes.len());
        let (taken, rest) = bytes.split_at(wanted);
        self.held.extend_from_slice(taken);
        *bytes = rest;
        self.held.len() >= count
    }

    fn greet(&mut self, bytes: &mut &[u8]) -> bool {
        // An older version has no more than a signature and a byte before its first frame.
        let wanted = if self.held.len() <= SIGNATURE { SIGNATURE + 1 } else { GREETING };
        if !self.hold(bytes, wanted) {
            return false;
        }
        let greeting = self.held.as_slice();
        let is_signed = greeting.first() == Some(&0xff) && greeting.get(SIGNATURE - 1) == Some(&0x7f);
        let major = greeting.get(SIGNATURE).copied().unwrap_or(0);
        if !is_signed || major < 3 {
            self.give_up(if is_signed { Unread::OldVersion } else { Unread::Malformed });
            return true;
        }
        if wanted < GREETING {
            return true;
        }
        self.minor = greeting.get(SIGNATURE + 1).copied().unwrap_or(0);
        let mechanism = greeting.get(MECHANISM).unwrap_or_default();
        let end = mechanism.iter().position(|byte| *byte == 0).unwrap_or(mechanism.len());
        match mechanism.get(..end).unwrap_or_default() {
            b"NULL" => {
                self.held.clear();
                self.state = State::Header;
            }
            b"PLAIN" => self.give_up(Unread::Plain),
            b"CURVE" => self.give_up(Unread::Curve),
            _ => self.give_up(Unread::Mechanism),
        }
        true
    }

    fn head(&mut self, bytes: &mut &[u8]) -> bool {
        if !self.hold(bytes, 1) {
            return false;
        }
        let flags = self.held.first().copied().unwrap_or(0);
        // Bits 3 to 7 are zero, and a command is one frame (RFC 37, "Framing").
        if flags & !(MORE | LONG | COMMAND) != 0 || flags & (COMMAND | MORE) == COMMAND | MORE {
            self.give_up(Unread::Malformed);
            return true;
        }
        if !self.hold(bytes, if flags & LONG == 0 { 2 } else { 9 }) {
            return false;
        }
        let size = match self.held.get(1..) {
            Some([size]) => u64::from(*size),
            Some(long) => long.iter().fold(0, |size, byte| size << 8 | u64::from(*byte)),
            None => 0,
        };
        self.held.clear();
        if size > i64::MAX as u64 {
            self.give_up(Unread::Malformed);
        } else {
            self.state = State::Body(Body { flags, size, left: size, kept: Vec::new(), has_gap: false });
        }
        true
    }

    fn finish(&mut self, way: Way, take: &mut impl FnMut(Event)) {
        let State::Body(body) = std::mem::replace(&mut self.state, State::Header) else { return };
        if body.flags & COMMAND != 0 {
            let command = command(&body.kept);
            self.subscribes |= command == Command::Ready && self.minor == 0 && is_subscriber(&body.kept);
            take(Event::Command(command));
            return;
        }
        let subscription = match body.kept.first() {
            Some(1) => Some(Command::Subscribe),
            Some(0) => Some(Command::Cancel),
            _ => None,
        };
        match subscription.filter(|_| self.subscribes) {
            Some(command) => take(Event::Command(command)),
            None => {
                let Body { flags, size, kept: bytes, .. } = body;
                take(Event::Frame(Frame { way, more: flags & MORE != 0, bytes, size }));
            }
        }
    }
}

impl Body {
    fn take(&mut self, bytes: &mut &[u8]) {
        let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let (taken, rest) = bytes.split_at(here);
        if !self.has_gap {
            let room = MOST_KEPT.saturating_sub(self.kept.len()).min(taken.len());
            self.kept.extend_from_slice(taken.get(..room).unwrap_or_default());
        }
        self.left -= here as u64;
        *bytes = rest;
    }
}

/// A command begins with the length of its name, and the name.
fn command(body: &[u8]) -> Command {
    let name = body.split_first().and_then(|(length, rest)| rest.get(..usize::from(*length)));
    match name {
        Some(b"READY") => Command::Ready,
        Some(b"PING") => Command::Ping,
        Some(b"PONG") => Command::Pong,
        Some(b"SUBSCRIBE") => Command::Subscribe,
        Some(b"CANCEL") => Command::Cancel,
        Some(b"ERROR") => Command::Error,
        _ => Command::Other,
    }
}

/// READY names the type of its socket: `Socket-Type`, a length of four bytes, the type.
fn is_subscriber(ready: &[u8]) -> bool {
    const NAME: &[u8] = b"\x0bSocket-Type";
    let Some(at) = memchr::memmem::find(ready, NAME) else { return false };
    let value = ready.get(at + NAME.len() + 4..).unwrap_or_default();
    value.starts_with(b"SUB") || value.starts_with(b"XSUB")
}
