//! One direction of a connection: bytes → frames.
//!
//! In: bytes and gaps. Out: [`Piece`]s: payload of DATA as it comes, all other frames when complete. Deliberately
//! absent: what frames mean for streams.

use super::frame::{END_HEADERS, END_STREAM, FrameHeader, HEADER, Kind, PADDED, PREFACE, begins_frames};
use crate::http::Direction;

/// Longest header block that is read: larger than what servers accept (hyper 16 KiB, gRPC 8 KiB, nghttp2 64 KiB).
const MAX_BLOCK: usize = 64 * 1024;
/// SETTINGS_HEADER_TABLE_SIZE (RFC 9113, section 6.5.2).
const HEADER_TABLE_SIZE: u16 = 1;

/// What comes out.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// No more bytes.
    More,
    /// Payload of a stream. `fresh`: the first of its frame.
    Data { stream: u32, bytes: &'a [u8], fresh: bool },
    /// A DATA frame with END_STREAM is over.
    DataEnd { stream: u32 },
    /// A header block is complete: take it with [`Reader::block`].
    Block(Block),
    /// The size of the table that the sender allows for the other direction's blocks.
    TableSize(u32),
    /// RST_STREAM. No code: it was lost.
    Reset { stream: u32, code: Option<u32> },
    /// GOAWAY with the last stream that its sender may have processed.
    GoAway { last: u32 },
    /// The bytes are not HTTP/2.
    Bad { stream: u32 },
}

/// A header block from HEADERS or PUSH_PROMISE to END_HEADERS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) end_stream: bool,
    /// It is a pushed request's.
    pub(super) promise: bool,
    /// Parts of it are missing.
    pub(super) lost: bool,
    /// First byte of its first frame.
    pub(super) start_ns: u64,
}

/// What a gap took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gap {
    /// Payload of a stream.
    pub(super) data: Option<(u32, u64)>,
    /// It goes on beyond the frame.
    pub(super) beyond: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In the client's preface.
    Preface {
        seen: usize,
    },
    /// In a frame header.
    Header {
        bytes: [u8; HEADER],
        len: usize,
    },
    Payload {
        frame: FrameHeader,
        left: u32,
        pad: Pad,
    },
    /// Behind an unknown place.
    Lost,
}

/// Padding of a DATA frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pad {
    Wanted,
    Length(u32),
}

const START: State = State::Header { bytes: [0; HEADER], len: 0 };

/// The reader's state.
pub(super) struct Reader {
    direction: Direction,
    state: State,
    /// A header block under way.
    open: Option<Block>,
    block: Vec<u8>,
    /// Where the current frame's part of `block` begins.
    fragment: usize,
    /// Fields of a control frame.
    small: [u8; 8],
    small_len: usize,
    table_size: Option<u32>,
    /// The current frame has bytes that were lost.
    damaged: bool,
    fresh: bool,
    frame_ns: u64,
}

impl Reader {
    pub(super) fn new(direction: Direction, mid_stream: bool) -> Self {
        let state = match direction {
            _ if mid_stream => State::Lost,
            Direction::Request => State::Preface { seen: 0 },
            Direction::Response => START,
        };
        Self {
            direction,
            state,
            open: None,
            block: Vec::new(),
            fragment: 0,
            small: [0; 8],
            small_len: 0,
            table_size: None,
            damaged: false,
            fresh: false,
            frame_ns: 0,
        }
    }

    /// Nothing is known of where frames begin.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost)
    }

    /// A read or write of `len` bytes begins with `bytes`, behind an unknown place. True if frames begin with it; and
    /// whether the connection does.
    pub(super) fn resume(&mut self, bytes: &[u8], len: usize) -> (bool, bool) {
        let preface = self.direction == Direction::Request && bytes.starts_with(PREFACE);
        if preface {
            self.state = State::Preface { seen: 0 };
        } else if begins_frames(self.direction, bytes, len) {
            self.state = START;
        }
        (!self.is_lost(), preface)
    }

    /// Waits for frames to begin at a read's or write's start.
    pub(super) fn lose(&mut self) {
        self.state = State::Lost;
        self.open = None;
        self.block = Vec::new();
    }

    /// Takes the fragments of the last [`Piece::Block`].
    pub(super) fn block(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.block)
    }

    /// Takes the buffer back, for the next block.
    pub(super) fn reuse(&mut self, mut block: Vec<u8>) {
        block.clear();
        block.shrink_to(4096);
        self.block = block;
    }

    /// The next piece of `bytes`.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8], time_ns: u64) -> Piece<'a> {
        loop {
            let piece = match self.state {
                State::Lost => {
                    *bytes = &[];
                    return Piece::More;
                }
                State::Payload { frame, left: 0, pad } => self.end_frame(frame, pad),
                _ if bytes.is_empty() => return Piece::More,
                State::Preface { seen } => self.preface(seen, bytes),
                State::Header { bytes: header, len } => self.header(header, len, bytes, time_ns),
                State::Payload { frame, left, pad } => self.payload(frame, left, pad, bytes),
            };
            if let Some(piece) = piece {
                return piece;
            }
        }
    }

    fn preface<'a>(&mut self, seen: usize, bytes: &mut &'a [u8]) -> Option<Piece<'a>> {
        let expected = PREFACE.get(seen..).unwrap_or_default();
        let len = expected.len().min(bytes.len());
        if expected.get(..len) != bytes.get(..len) {
            return Some(Piece::Bad { stream: 0 });
        }
        *bytes = bytes.get(len..).unwrap_or_default();
        self.state = if len == expected.len() { START } else { State::Preface { seen: seen + len } };
        None
    }

    fn header<'a>(
        &mut self,
        mut header: [u8; HEADER],
        mut len: usize,
        bytes: &mut &'a [u8],
        time_ns: u64,
    ) -> Option<Piece<'a>> {
        if len == 0 {
            self.frame_ns = time_ns;
        }
        for slot in header.iter_mut().skip(len) {
            let Some((byte, rest)) = bytes.split_first() else { break };
            *slot = *byte;
            *bytes = rest;
            len += 1;
        }
        if len < HEADER {
            self.state = State::Header { bytes: header, len };
            return None;
        }
        let frame = FrameHeader::parse(header);
        if !frame.is_allowed(self.direction) || !self.in_order(&frame) {
            return Some(Piece::Bad { stream: frame.stream });
        }
        self.begin_frame(&frame);
        let pad = if frame.kind == Kind::Data && frame.has(PADDED) { Pad::Wanted } else { Pad::Length(0) };
        self.state = State::Payload { frame, left: frame.length, pad };
        None
    }

    /// Nothing may stand between the frames of a header block (section 4.3), which CONTINUATION alone goes on with.
    fn in_order(&self, frame: &FrameHeader) -> bool {
        match self.open {
            Some(open) => frame.kind == Kind::Continuation && frame.stream == open.stream,
            None => frame.kind != Kind::Continuation,
        }
    }

    fn begin_frame(&mut self, frame: &FrameHeader) {
        self.damaged = false;
        self.fresh = true;
        self.small_len = 0;
        self.table_size = None;
        let promise = frame.kind == Kind::Promise;
        if promise || frame.kind == Kind::Headers {
            let end_stream = !promise && frame.has(END_STREAM);
            let (stream, start_ns) = (frame.stream, self.frame_ns);
            self.open = Some(Block { stream, end_stream, promise, lost: false, start_ns });
            self.block.clear();
        }
        if let Some(open) = &mut self.open {
            self.fragment = self.block.len();
            open.lost |= self.fragment.saturating_add(frame.length as usize) > MAX_BLOCK;
        }
    }

    fn payload<'a>(
        &mut self,
        frame: FrameHeader,
        left: u32,
        pad: Pad,
        bytes: &mut &'a [u8],
    ) -> Option<Piece<'a>> {
        if pad == Pad::Wanted {
            let (byte, rest) = bytes.split_first()?;
            *bytes = rest;
            let (left, pad) = (left - 1, u32::from(*byte));
            if pad > left {
                return Some(Piece::Bad { stream: frame.stream });
            }
            self.state = State::Payload { frame, left, pad: Pad::Length(pad) };
            return None;
        }
        let len = bytes.len().min(left as usize);
        let (part, rest) = bytes.split_at_checked(len)?;
        *bytes = rest;
        self.state = State::Payload { frame, left: left.saturating_sub(len as u32), pad };
        match (frame.kind, pad) {
            (Kind::Data, Pad::Length(pad)) => {
                let data = left.saturating_sub(pad) as usize;
                let bytes = part.get(..data.min(len)).unwrap_or_default();
                let fresh = std::mem::take(&mut self.fresh);
                (!bytes.is_empty()).then_some(Piece::Data { stream: frame.stream, bytes, fresh })
            }
            (Kind::Headers | Kind::Promise | Kind::Continuation, _) => {
                if self.open.is_some_and(|open| !open.lost) {
                    self.block.extend_from_slice(part);
                }
                None
            }
            (Kind::Settings, _) => {
                part.iter().for_each(|byte| self.setting(*byte));
                None
            }
            (Kind::Reset | Kind::GoAway, _) => {
                part.iter().for_each(|byte| self.small(*byte));
                None
            }
            _ => None,
        }
    }

    fn small(&mut self, byte: u8) {
        if let Some(slot) = self.small.get_mut(self.small_len) {
            *slot = byte;
            self.small_len += 1;
        }
    }

    /// A byte of SETTINGS: identifier (16 bits) and value (32) follow each other.
    fn setting(&mut self, byte: u8) {
        self.small(byte);
        if self.small_len == 6 {
            self.small_len = 0;
            let [i0, i1, v0, v1, v2, v3, ..] = self.small;
            if u16::from_be_bytes([i0, i1]) == HEADER_TABLE_SIZE && !self.damaged {
                self.table_size = Some(u32::from_be_bytes([v0, v1, v2, v3]));
            }
        }
    }

    fn end_frame<'a>(&mut self, frame: FrameHeader, pad: Pad) -> Option<Piece<'a>> {
        self.state = START;
        let stream = frame.stream;
        let word = |at: usize| {
            self.small.get(at..).and_then(|bytes| bytes.first_chunk()).copied().map(u32::from_be_bytes)
        };
        match frame.kind {
            Kind::Data => {
                debug_assert!(self.damaged || pad != Pad::Wanted);
                frame.has(END_STREAM).then_some(Piece::DataEnd { stream })
            }
            Kind::Headers | Kind::Promise | Kind::Continuation => self.end_fragment(frame),
            // It may have said anything.
            Kind::Settings if self.damaged => Some(Piece::TableSize(u32::MAX)),
            Kind::Settings if !frame.is_ack() => self.table_size.take().map(Piece::TableSize),
            Kind::Reset => Some(Piece::Reset { stream, code: word(0).filter(|_| !self.damaged) }),
            Kind::GoAway if !self.damaged => word(0).map(|last| Piece::GoAway { last: last & 0x7fff_ffff }),
            _ => None,
        }
    }

    /// Takes padding and priority off a fragment (sections 6.2 and 6.6).
    fn end_fragment<'a>(&mut self, frame: FrameHeader) -> Option<Piece<'a>> {
        let open = self.open.as_mut()?;
        open.lost |= self.damaged;
        if !open.lost {
            let padding = match self.block.get(self.fragment) {
                Some(padding) if frame.has(PADDED) && frame.kind != Kind::Continuation => {
                    usize::from(*padding)
                }
                _ => 0,
            };
            let before = frame.before_fragment() as usize;
            if before + padding > frame.length as usize {
                return Some(Piece::Bad { stream: frame.stream });
            }
            self.block.truncate(self.block.len() - padding);
            self.block.drain(self.fragment..self.fragment + before);
        }
        if frame.has(END_HEADERS) { self.open.take().map(Piece::Block) } else { None }
    }

    /// `len` bytes are missing. The frame that they are in, if its header was seen, goes on or ends where its header
    /// says; ask [`Self::next`] for what follows, then, if it goes on beyond, [`Self::lose`].
    pub(super) fn gap(&mut self, len: u64) -> Gap {
        let State::Payload { frame, left, pad } = self.state else {
            return Gap { data: None, beyond: true };
        };
        self.damaged = true;
        let inside = u32::try_from(len).unwrap_or(u32::MAX).min(left);
        let padding = match pad {
            Pad::Length(padding) => padding,
            // Unknown: it counts as payload.
            Pad::Wanted => 0,
        };
        let payload = u64::from(left.saturating_sub(padding).min(inside));
        let data = (frame.kind == Kind::Data).then_some((frame.stream, payload));
        let (left, pad) = (left - inside, Pad::Length(padding.min(left - inside)));
        self.state = State::Payload { frame, left, pad };
        self.fresh = false;
        Gap { data, beyond: len > u64::from(inside) }
    }
}

/// Lengths only: the bytes are not ours to show.
impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let block = self.block.len();
        f.debug_struct("Reader").field("state", &self.state).field("block", &block).finish_non_exhaustive()
    }
}
