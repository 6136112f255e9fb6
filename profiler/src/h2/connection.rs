//! One HTTP/2 connection: both directions, their tables, and the streams under way.
//!
//! In: chunks with their position. Out: [`Signal`]s, whose exchange is the stream's number. Frames come from `reader`,
//! header blocks from `hpack`; what a stream makes of them is in `stream`.
//!
//! Behind bytes of which it is not known which frames they held, nothing is known of that direction until a read or
//! write starts that can only be frames, nor of its header table. Streams that were being answered before such a place
//! of the response direction end as partial; others go on, and prove by a complete response that nothing of them was
//! missed.

use std::collections::{BTreeMap, BTreeSet};

use super::header::Fields;
use super::hpack::Decoder;
use super::loss::Hole;
use super::reader::{Block, Piece, Reader};
use super::stream::Stream;
use crate::http::{Direction, End, Outcome, Signal, Verdict};

/// Streams under way that are kept. Servers allow 100 to 1,000 (nghttp2 100, hyper 200, gRPC as many as one asks for).
const MAX_STREAMS: usize = 1024;
/// SETTINGS_HEADER_TABLE_SIZE before any SETTINGS (RFC 9113, section 6.5.2).
pub(super) const INITIAL_TABLE: u32 = 4096;
/// Streams that end between looks at those that may have ended unseen.
const LOOK: u32 = 64;
/// Error codes of RST_STREAM (section 7).
const REFUSED_STREAM: u32 = 7;

/// What belongs to one direction.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) reader: Reader,
    pub(super) decoder: Decoder,
    /// Position of the byte that comes next, once known.
    next: Option<u64>,
    /// The largest header table that its sender has allowed the other direction, if none can have been missed.
    pub(super) allowed: Option<u32>,
    /// Some of its frames were missed.
    pub(super) missed: bool,
}

impl Side {
    fn new(direction: Direction, mid_stream: bool) -> Self {
        Self {
            reader: Reader::new(direction, mid_stream),
            decoder: Decoder::new(!mid_stream),
            next: (!mid_stream).then_some(0),
            allowed: (!mid_stream).then_some(INITIAL_TABLE),
            missed: mid_stream,
        }
    }
}

/// The observer of one connection.
#[derive(Debug)]
pub struct Connection {
    pub(super) verdict: Verdict,
    pub(super) request: Side,
    pub(super) response: Side,
    pub(super) streams: BTreeMap<u32, Stream>,
    /// Greatest stream seen.
    pub(super) highest: u32,
    pub(super) holes: Vec<Hole>,
    pub(super) told: BTreeSet<u32>,
    pub(super) counts: Counts,
    /// Streams that ended.
    ends: u32,
    input_ended: bool,
    /// It broke the rules.
    pub(super) broken: bool,
    ended: bool,
}

/// What was passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Header blocks that were too long, or of which bytes were lost.
    pub lost_blocks: u64,
    /// Streams that were given up because more were under way than are kept.
    pub crowded_out: u64,
    /// Gaps, reads and writes behind which, or in which, it is not known where frames begin.
    pub lost_places: u64,
}

impl Connection {
    /// `mid_stream`: the connection is older than the attach, so its first bytes may be from inside a frame, and its
    /// header tables have entries that were not seen.
    pub fn new(mid_stream: bool) -> Self {
        let holes = if mid_stream { vec![Hole { above: 0, below: u32::MAX }] } else { Vec::new() };
        Self {
            verdict: Verdict::Undecided,
            request: Side::new(Direction::Request, mid_stream),
            response: Side::new(Direction::Response, mid_stream),
            streams: BTreeMap::new(),
            highest: 0,
            holes,
            told: BTreeSet::new(),
            counts: Counts::default(),
            ends: 0,
            input_ended: false,
            broken: false,
            ended: false,
        }
    }

    /// Whether the connection carries HTTP/2, as far as its bytes have shown.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Nothing more will be said: it broke the rules, or ended.
    pub fn is_opaque(&self) -> bool {
        self.ended || self.broken
    }

    /// What was passed over so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes bytes of one direction. `position`: bytes of that direction before them, as counted in the kernel;
    /// `lost_after`: bytes behind them that no chunk carries.
    pub fn on_bytes(
        &mut self,
        direction: Direction,
        position: u64,
        time_ns: u64,
        bytes: &[u8],
        lost_after: u32,
        out: &mut Vec<Signal>,
    ) {
        if self.is_opaque() {
            return;
        }
        let next = &mut self.side(direction).next;
        let expected = next.unwrap_or(position);
        let end = position.saturating_add(bytes.len() as u64);
        *next = Some(expected.max(end.saturating_add(u64::from(lost_after))));
        let seen = usize::try_from(expected.saturating_sub(position)).unwrap_or(usize::MAX);
        self.on_gap(direction, time_ns, position.saturating_sub(expected), out);
        let bytes = bytes.get(seen..).unwrap_or_default();
        if !bytes.is_empty() {
            let len = bytes.len().saturating_add(lost_after as usize);
            self.read(direction, time_ns, bytes, (seen == 0).then_some(len), out);
        }
        let lost = end.saturating_add(u64::from(lost_after)).saturating_sub(expected.max(end));
        self.on_gap(direction, time_ns, lost, out);
    }

    /// The connection ended, or with `EndOfInput` or `SentAll` one direction of it.
    pub fn on_end(&mut self, end: End, time_ns: u64, out: &mut Vec<Signal>) {
        let whole = !matches!(end, End::EndOfInput | End::SentAll);
        if self.is_opaque() {
            self.ended |= whole;
            return;
        }
        if end == End::EndOfInput {
            if !std::mem::replace(&mut self.input_ended, true) {
                self.streams.values_mut().for_each(|stream| stream.input_ended(time_ns, out));
            }
            return;
        }
        let orderly = matches!(end, End::Closed | End::SentAll);
        let first = if self.input_ended && orderly { End::EndOfInput } else { end };
        let outcome = if end == End::Detached { Outcome::Partial } else { Outcome::Truncated(first) };
        self.end_streams(outcome, time_ns, out);
        self.ended |= whole;
    }

    pub(super) fn side(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }

    /// `len`: the length of the read or write that begins with `bytes`, if it does.
    pub(super) fn read(
        &mut self,
        direction: Direction,
        time_ns: u64,
        mut bytes: &[u8],
        len: Option<usize>,
        out: &mut Vec<Signal>,
    ) {
        if self.side(direction).reader.is_lost() {
            let Some(len) = len else { return };
            let (found, preface) = self.side(direction).reader.resume(bytes, len);
            if !found {
                return self.lose(direction, time_ns, out);
            }
            if preface {
                self.begin_anew(time_ns, out);
            }
        }
        while !self.is_opaque() {
            let piece = self.side(direction).reader.next(&mut bytes, time_ns);
            if self.verdict == Verdict::Undecided && !matches!(piece, Piece::More | Piece::Bad { .. }) {
                self.verdict = Verdict::Http;
            }
            match piece {
                Piece::More => return,
                piece => self.piece(direction, piece, time_ns, out),
            }
        }
    }

    fn piece(&mut self, direction: Direction, piece: Piece<'_>, time_ns: u64, out: &mut Vec<Signal>) {
        match piece {
            Piece::More => {}
            Piece::Data { stream, bytes, fresh } => self.data(direction, stream, bytes, fresh, time_ns, out),
            Piece::DataEnd { stream } => self.end_of_stream(direction, stream, time_ns, out),
            Piece::Block(block) => self.block(direction, block, time_ns, out),
            Piece::TableSize(size) => {
                let side = self.side(direction);
                side.allowed = side.allowed.map(|before| before.max(size));
                self.allow(direction);
            }
            Piece::Reset { stream, code } => self.reset(direction, stream, code, time_ns, out),
            Piece::GoAway { last } if direction == Direction::Response => {
                let refused: Vec<u32> =
                    self.streams.range(last.saturating_add(1)..).map(|(id, _)| *id).collect();
                refused.into_iter().for_each(|id| self.end_stream(id, Outcome::Refused, time_ns, out));
            }
            Piece::GoAway { .. } => {}
            Piece::Bad { stream } => self.bad(direction, stream, time_ns, out),
        }
    }

    fn data(
        &mut self,
        direction: Direction,
        id: u32,
        bytes: &[u8],
        fresh: bool,
        time_ns: u64,
        out: &mut Vec<Signal>,
    ) {
        let Some(stream) = self.stream(id, time_ns, out) else { return };
        match direction {
            Direction::Request => stream.request_data(bytes, time_ns, out),
            Direction::Response => stream.response_data(bytes, fresh, time_ns, out),
        }
    }

    fn end_of_stream(&mut self, direction: Direction, id: u32, time_ns: u64, out: &mut Vec<Signal>) {
        match direction {
            Direction::Request => {
                if let Some(stream) = self.stream(id, time_ns, out) {
                    stream.end_request(true, time_ns, out);
                }
            }
            Direction::Response => self.end_stream(id, Outcome::Complete, time_ns, out),
        }
    }

    fn block(&mut self, direction: Direction, block: Block, time_ns: u64, out: &mut Vec<Signal>) {
        let side = self.side(direction);
        let bytes = side.reader.block();
        let mut fields = Fields::default();
        let decoded = if block.lost {
            side.decoder.forget();
            fields = Fields::lost();
            Ok(())
        } else {
            side.decoder.decode(&bytes, &mut fields)
        };
        side.reader.reuse(bytes);
        self.counts.lost_blocks += u64::from(block.lost);
        if decoded.is_err() {
            return self.bad(direction, block.stream, time_ns, out);
        }
        match direction {
            _ if block.promise => {}
            Direction::Request => self.request_block(block, &fields, time_ns, out),
            Direction::Response => self.response_block(block, &fields, time_ns, out),
        }
    }

    fn request_block(&mut self, block: Block, fields: &Fields, time_ns: u64, out: &mut Vec<Signal>) {
        let id = block.stream;
        if id.is_multiple_of(2) {
            return self.bad(Direction::Request, id, time_ns, out);
        }
        let open_hole = self.holes.last().is_some_and(|hole| hole.below == u32::MAX);
        if id > self.highest && (fields.begins_request() || !open_hole) {
            let stream = Stream::open(&block, fields, time_ns, out);
            if let Some(hole) = self.holes.last_mut().filter(|hole| hole.below == u32::MAX) {
                hole.below = id;
            }
            self.highest = id;
            self.keep(id, stream, time_ns, out);
        } else if let Some(stream) = self.stream(id, time_ns, out)
            && block.end_stream
        {
            stream.end_request(true, time_ns, out);
        }
    }

    fn response_block(&mut self, block: Block, fields: &Fields, time_ns: u64, out: &mut Vec<Signal>) {
        let Some(stream) = self.stream(block.stream, time_ns, out) else { return };
        stream.response_block(&block, fields, time_ns, out);
        if block.end_stream {
            self.end_stream(block.stream, Outcome::Complete, time_ns, out);
        }
    }

    fn reset(
        &mut self,
        direction: Direction,
        id: u32,
        code: Option<u32>,
        time_ns: u64,
        out: &mut Vec<Signal>,
    ) {
        let outcome = match (direction, code) {
            (Direction::Request, _) => Outcome::Truncated(End::EndOfInput),
            (Direction::Response, Some(REFUSED_STREAM)) => Outcome::Refused,
            (Direction::Response, Some(_)) => Outcome::Truncated(End::Closed),
            (Direction::Response, None) => Outcome::Partial,
        };
        self.end_stream(id, outcome, time_ns, out);
    }

    pub(super) fn keep(&mut self, id: u32, stream: Stream, time_ns: u64, out: &mut Vec<Signal>) {
        if self.streams.len() >= MAX_STREAMS
            && let Some((_, oldest)) = self.streams.pop_first()
        {
            self.counts.crowded_out += 1;
            oldest.end(Outcome::Partial, time_ns, out);
        }
        self.streams.insert(id, stream);
    }

    fn end_stream(&mut self, id: u32, outcome: Outcome, time_ns: u64, out: &mut Vec<Signal>) {
        let Some(stream) = self.streams.remove(&id) else { return };
        stream.end(outcome, time_ns, out);
        self.ends = self.ends.wrapping_add(1);
        if self.ends.is_multiple_of(LOOK) {
            self.end_streams_that(Stream::seems_gone, time_ns, out);
        }
    }

    /// Ends some as partial.
    pub(super) fn end_streams_that(
        &mut self,
        wanted: impl Fn(&mut Stream) -> bool,
        time_ns: u64,
        out: &mut Vec<Signal>,
    ) {
        for (_, stream) in self.streams.extract_if(.., |_, stream| wanted(stream)) {
            stream.end(Outcome::Partial, time_ns, out);
        }
    }

    pub(super) fn end_streams(&mut self, outcome: Outcome, time_ns: u64, out: &mut Vec<Signal>) {
        while let Some((_, stream)) = self.streams.pop_first() {
            stream.end(outcome, time_ns, out);
        }
    }
}
