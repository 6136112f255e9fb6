//! Messages of one direction of a gRPC call: five bytes before each, over DATA frames of any split (gRPC,
//! `doc/PROTOCOL-HTTP2.md`, "Length-Prefixed-Message").
//!
//! In: payload and gaps. Out: where messages begin and end, and their bytes between.

use crate::http::Messages;

/// The compressed flag and the length.
const PREFIX: usize = 5;

/// What comes out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// No more bytes.
    More,
    /// A message begins.
    Begin { len: u64, compressed: bool },
    /// Some of it.
    Bytes(&'a [u8]),
    /// It is over. `whole`: none of it was lost.
    End { whole: bool },
}

#[derive(Clone, Copy, Debug)]
enum State {
    Prefix {
        bytes: [u8; PREFIX],
        len: usize,
    },
    Body {
        left: u64,
        whole: bool,
    },
    /// It is not known where messages begin.
    Lost,
}

/// The state of one direction.
#[derive(Debug)]
pub(super) struct Deframer {
    state: State,
    counts: Messages,
}

const START: State = State::Prefix { bytes: [0; PREFIX], len: 0 };

impl Deframer {
    pub(super) fn new() -> Self {
        Self { state: START, counts: Messages::default() }
    }

    /// What was seen. Lower bounds, if messages were lost.
    pub(super) fn counts(&self) -> Messages {
        self.counts
    }

    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Piece<'a> {
        match self.state {
            State::Lost => *bytes = &[],
            State::Body { left: 0, whole } => {
                self.state = START;
                self.counts.count = self.counts.count.saturating_add(1);
                return Piece::End { whole };
            }
            State::Body { left, whole } => {
                let len = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                if let Some((part, rest)) = bytes.split_at_checked(len).filter(|_| len > 0) {
                    *bytes = rest;
                    self.state = State::Body { left: left - len as u64, whole };
                    self.counts.bytes = self.counts.bytes.saturating_add(len as u64);
                    return Piece::Bytes(part);
                }
            }
            State::Prefix { bytes: prefix, len } => return self.prefix(prefix, len, bytes),
        }
        Piece::More
    }

    fn prefix<'a>(&mut self, mut prefix: [u8; PREFIX], mut len: usize, bytes: &mut &'a [u8]) -> Piece<'a> {
        for slot in prefix.iter_mut().skip(len) {
            let Some((byte, rest)) = bytes.split_first() else { break };
            *slot = *byte;
            *bytes = rest;
            len += 1;
        }
        self.state = State::Prefix { bytes: prefix, len };
        if len < PREFIX {
            return Piece::More;
        }
        let [flag, l0, l1, l2, l3] = prefix;
        if flag > 1 {
            self.lose();
            *bytes = &[];
            return Piece::More;
        }
        let left = u64::from(u32::from_be_bytes([l0, l1, l2, l3]));
        self.state = State::Body { left, whole: true };
        Piece::Begin { len: left, compressed: flag == 1 }
    }

    /// Bytes are missing. Ask [`Self::next`] whether the message ended with them.
    pub(super) fn gap(&mut self, len: u64) {
        match self.state {
            State::Body { left, .. } if len <= left => {
                self.state = State::Body { left: left - len, whole: false };
                self.counts.bytes = self.counts.bytes.saturating_add(len);
            }
            _ if len == 0 => {}
            _ => self.lose(),
        }
    }

    /// It is not known any more where messages begin.
    pub(super) fn lose(&mut self) {
        self.state = State::Lost;
        self.counts.lost = true;
    }
}
