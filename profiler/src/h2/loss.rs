//! What is missing: gaps, places where it is not known which frames they held, streams that began unseen.
//!
//! In: lost bytes, and frames that fit nothing that was seen. Out: streams that end as partial or go on, and what each
//! direction still knows.

use super::connection::{Connection, INITIAL_TABLE};
use super::hpack::Decoder;
use super::stream::Stream;
use crate::http::{Direction, MalformedReason, NotHttp, Outcome, Signal, SignalKind, Verdict};

/// Stretches of stream numbers that may have gone unseen.
const MAX_HOLES: usize = 8;
/// Unseen streams in them that are remembered as told.
const MAX_TOLD: usize = 4096;

/// Stream numbers between two, without them, of which any may have begun unseen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hole {
    pub(super) above: u32,
    pub(super) below: u32,
}

impl Connection {
    pub(super) fn on_gap(&mut self, direction: Direction, time_ns: u64, len: u64, out: &mut Vec<Signal>) {
        if len == 0 || self.is_opaque() {
            return;
        }
        let gap = self.side(direction).reader.gap(len);
        if let Some((id, lost)) = gap.data
            && let Some(stream) = self.stream(id, time_ns, out)
        {
            match direction {
                Direction::Request => stream.request_gap(lost, time_ns, out),
                Direction::Response => stream.response_gap(lost, time_ns, out),
            }
        }
        // The frame may have ended with it.
        self.read(direction, time_ns, &[], None, out);
        if gap.beyond {
            self.lose(direction, time_ns, out);
        }
    }

    /// It is not known which frames the missing bytes of a direction held.
    pub(super) fn lose(&mut self, direction: Direction, time_ns: u64, out: &mut Vec<Signal>) {
        self.counts.lost_places += 1;
        let side = self.side(direction);
        side.reader.lose();
        side.decoder.forget();
        side.allowed = None;
        side.missed = true;
        self.allow(direction);
        match direction {
            Direction::Request => {
                self.streams.values_mut().for_each(|stream| stream.lose_request(time_ns, out));
                if self.holes.last().is_none_or(|hole| hole.below != u32::MAX) {
                    if self.holes.len() >= MAX_HOLES {
                        self.holes.remove(0);
                    }
                    self.holes.push(Hole { above: self.highest, below: u32::MAX });
                }
            }
            Direction::Response => {
                self.end_streams_that(|stream| !stream.survives_lost_responses(), time_ns, out)
            }
        }
    }

    /// The rules are broken: nothing behind this place can be trusted. Behind a place where bytes were missed that may
    /// be our own mistake.
    pub(super) fn bad(&mut self, direction: Direction, id: u32, time_ns: u64, out: &mut Vec<Signal>) {
        if self.side(direction).missed {
            return self.lose(direction, time_ns, out);
        }
        if self.streams.contains_key(&id) {
            let kind = SignalKind::Malformed(MalformedReason::Frame);
            out.push(Signal { time_ns, exchange: id, kind });
        }
        self.end_streams(Outcome::Partial, time_ns, out);
        self.broken = true;
        if self.verdict == Verdict::Undecided {
            self.verdict = Verdict::NotHttp(NotHttp::Unknown);
        }
    }

    /// The preface came on a connection that was taken for an older one: nothing was missed of it.
    pub(super) fn begin_anew(&mut self, time_ns: u64, out: &mut Vec<Signal>) {
        self.end_streams(Outcome::Partial, time_ns, out);
        self.holes.clear();
        for side in [&mut self.request, &mut self.response] {
            side.decoder = Decoder::new(true);
            side.missed = false;
        }
        self.request.allowed = Some(INITIAL_TABLE);
        // The server may have sent its SETTINGS before.
        self.request.decoder.allow(self.response.allowed);
    }

    /// Tells the other direction's table how large its reader lets it be.
    pub(super) fn allow(&mut self, direction: Direction) {
        match direction {
            Direction::Request => self.response.decoder.allow(self.request.allowed),
            Direction::Response => self.request.decoder.allow(self.response.allowed),
        }
    }

    /// The stream of a frame: one under way, or one that may have begun unseen.
    pub(super) fn stream(&mut self, id: u32, time_ns: u64, out: &mut Vec<Signal>) -> Option<&mut Stream> {
        if !self.streams.contains_key(&id) {
            let hidden = self.holes.iter().any(|hole| hole.above < id && id < hole.below);
            if !hidden || id.is_multiple_of(2) || self.told.len() >= MAX_TOLD || !self.told.insert(id) {
                return None;
            }
            self.highest = self.highest.max(id);
            let stream = Stream::unseen(id, time_ns, out);
            self.keep(id, stream, time_ns, out);
        }
        self.streams.get_mut(&id)
    }
}
