//! A walk over one protobuf message that is fed slices of any split (protobuf.dev, "Encoding").
//!
//! In: the bytes of one message of a known length, and the fields that are asked for. Out: their values, to a
//! [`Receiver`]. All else is passed over without being stored. It stops where the encoding is broken, and never
//! guesses. Deliberately absent: defaults. Proto3 does not send them, so a field that is missing has its type's zero.

use std::fmt;

/// Longest string that is kept. A longer one is dropped: a cut name would be another name.
const MAX_TEXT: usize = 256;

/// A field that is asked for.
#[derive(Debug)]
pub(super) struct Rule<F: 'static> {
    pub(super) number: u64,
    pub(super) want: Want<F>,
}

/// What is wanted of a field.
#[derive(Debug)]
pub(super) enum Want<F: 'static> {
    /// An integer, or each of repeated ones, packed or not.
    Number(F),
    /// A short string.
    Text(F),
    /// Whether it has a byte.
    Filled(F),
    /// A message.
    Message(F, &'static [Rule<F>]),
}

/// A value as it is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Text(&'a str),
    Filled(bool),
    Begin,
    End,
}

/// Takes values as they are met.
pub(super) trait Receiver<F> {
    fn value(&mut self, field: F, value: Value<'_>);
}

#[derive(Clone, Copy)]
struct Level<F: 'static> {
    rules: &'static [Rule<F>],
    /// Where it ends, in bytes of the whole message.
    end: u64,
    /// What to say then.
    field: Option<F>,
}

/// What the bytes that come next are. Variable-length integers gather in `Walker::number`.
enum State<F: 'static> {
    Key,
    Number(Option<F>),
    Length(Option<&'static Want<F>>),
    Skip(u64),
    Text(F, u64),
    Packed(F, u64),
    Broken,
}

/// The walk's state.
pub(super) struct Walker<F: 'static> {
    state: State<F>,
    levels: Vec<Level<F>>,
    /// Bytes read so far.
    at: u64,
    number: u64,
    shift: u32,
    text: Vec<u8>,
}

impl<F: Copy> Walker<F> {
    pub(super) fn new(rules: &'static [Rule<F>], len: u64) -> Self {
        Self {
            state: State::Key,
            levels: vec![Level { rules, end: len, field: None }],
            at: 0,
            number: 0,
            shift: 0,
            text: Vec::new(),
        }
    }

    /// The message was read to its end.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Key)
            && self.shift == 0
            && self.levels.iter().all(|level| level.field.is_none() && level.end == self.at)
    }

    /// Reads the next bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8], to: &mut impl Receiver<F>) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Broken => return,
                State::Skip(left) => self.skip(left, bytes, to),
                State::Text(field, left) => self.string(field, left, bytes, to),
                State::Key | State::Number(_) | State::Length(_) | State::Packed(..) => {
                    self.varint(bytes, to)
                }
            };
        }
    }

    fn varint<'a>(&mut self, bytes: &'a [u8], to: &mut impl Receiver<F>) -> &'a [u8] {
        let Some((byte, rest)) = bytes.split_first() else { return bytes };
        self.at += 1;
        self.number |= u64::from(byte & 0x7f).checked_shl(self.shift).unwrap_or(0);
        self.shift += 7;
        let end = self.levels.last().map_or(0, |level| level.end);
        if self.at > end || self.shift > 70 {
            self.state = State::Broken;
        } else if byte & 0x80 == 0 {
            let number = std::mem::take(&mut self.number);
            self.shift = 0;
            self.number(number, to);
        }
        rest
    }

    fn number(&mut self, number: u64, to: &mut impl Receiver<F>) {
        match self.state {
            State::Key => self.key(number),
            State::Number(field) => {
                if let Some(field) = field {
                    to.value(field, Value::Number(number));
                }
                self.settle(to);
            }
            State::Packed(field, end) => {
                to.value(field, Value::Number(number));
                if self.at > end {
                    self.state = State::Broken;
                } else if self.at == end {
                    self.settle(to);
                }
            }
            State::Length(want) => self.length(want, number, to),
            State::Skip(_) | State::Text(..) | State::Broken => {}
        }
    }

    fn key(&mut self, key: u64) {
        let rules = self.levels.last().map_or(&[][..], |level| level.rules);
        let want = rules.iter().find(|rule| rule.number == key >> 3).map(|rule| &rule.want);
        self.state = match key & 7 {
            0 => State::Number(match want {
                Some(Want::Number(field)) => Some(*field),
                _ => None,
            }),
            1 => State::Skip(8),
            2 => State::Length(want),
            5 => State::Skip(4),
            // Groups have not been used since before proto3.
            _ => State::Broken,
        };
        let room = self.levels.last().map_or(0, |level| level.end.saturating_sub(self.at));
        if matches!(self.state, State::Skip(len) if len > room) {
            self.state = State::Broken;
        }
    }

    fn length(&mut self, want: Option<&'static Want<F>>, len: u64, to: &mut impl Receiver<F>) {
        let end = self.at.saturating_add(len);
        if self.levels.last().is_none_or(|level| end > level.end) {
            self.state = State::Broken;
            return;
        }
        match want {
            Some(Want::Message(field, rules)) => {
                to.value(*field, Value::Begin);
                self.levels.push(Level { rules, end, field: Some(*field) });
                self.settle(to);
            }
            Some(Want::Number(field)) if len > 0 => self.state = State::Packed(*field, end),
            Some(Want::Text(field)) if len > 0 => {
                self.text.clear();
                self.state = State::Text(*field, len);
            }
            Some(Want::Filled(field)) => {
                to.value(*field, Value::Filled(len > 0));
                self.state = State::Skip(len);
            }
            _ => self.state = State::Skip(len),
        }
        if matches!(self.state, State::Skip(0)) {
            self.settle(to);
        }
    }

    fn skip<'a>(&mut self, left: u64, bytes: &'a [u8], to: &mut impl Receiver<F>) -> &'a [u8] {
        let (part, rest) = take(bytes, left);
        self.at += part.len() as u64;
        self.state = State::Skip(left - part.len() as u64);
        if matches!(self.state, State::Skip(0)) {
            self.settle(to);
        }
        rest
    }

    fn string<'a>(&mut self, field: F, left: u64, bytes: &'a [u8], to: &mut impl Receiver<F>) -> &'a [u8] {
        let (part, rest) = take(bytes, left);
        self.at += part.len() as u64;
        let room = (MAX_TEXT + 1).saturating_sub(self.text.len());
        self.text.extend(part.iter().take(room));
        let left = left - part.len() as u64;
        self.state = State::Text(field, left);
        if left == 0 {
            if self.text.len() <= MAX_TEXT
                && let Ok(text) = std::str::from_utf8(&self.text)
            {
                to.value(field, Value::Text(text));
            }
            self.text.clear();
            self.settle(to);
        }
        rest
    }

    /// A field is over, and with it the messages that end there.
    fn settle(&mut self, to: &mut impl Receiver<F>) {
        self.state = State::Key;
        while let Some(level) = self.levels.last().filter(|level| level.end == self.at) {
            let Some(field) = level.field else { return };
            to.value(field, Value::End);
            self.levels.pop();
        }
    }
}

fn take(bytes: &[u8], left: u64) -> (&[u8], &[u8]) {
    let len = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    bytes.split_at_checked(len).unwrap_or((bytes, &[]))
}

/// Places only: the bytes are not ours to show.
impl<F> fmt::Debug for Walker<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walker").field("at", &self.at).finish_non_exhaustive()
    }
}
