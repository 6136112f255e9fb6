//! Server-sent events (WHATWG HTML, section 9.2.6), read across any split.
//!
//! In: payload bytes. Out: each event's data to the JSON scanner, and a commit at its empty line. Names are matched
//! as far as needed; data is never gathered.

use super::dialects::{RESPONSE, ResponseField};
use super::facts::{Emit, ResponseFacts};
use super::head::starts_with;
use super::json::Scanner;

const DONE: &[u8] = b"[DONE]";
/// What may stand before the first line.
const MARK: &[u8] = b"\xef\xbb\xbf";
/// Longest field name that means something, and longest event name that is told apart.
const MAX_NAME: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// In a field's name, or at a line's first byte.
    Name,
    /// Behind the colon of `data` (or llama.cpp's older `error`): one space is dropped.
    DataStart,
    Data,
    /// In the value of `event`.
    EventName,
    /// A comment or a field without meaning here.
    Ignored,
    /// Behind a gap: no line is known before the next empty one.
    Lost {
        empty: bool,
    },
}

/// A stream of events.
#[derive(Debug)]
pub(super) struct Sse {
    line: Line,
    after_cr: bool,
    /// A line was seen.
    begun: bool,
    name: Vec<u8>,
    /// The event has data.
    has_data: bool,
    /// Bytes of its data that matched [`DONE`]; none once it differs.
    done: Option<usize>,
    scanner: Scanner<ResponseField>,
}

impl Sse {
    pub(super) fn new() -> Self {
        Self {
            line: Line::Name,
            after_cr: false,
            begun: false,
            name: Vec::with_capacity(MAX_NAME),
            has_data: false,
            done: Some(0),
            scanner: Scanner::new(&RESPONSE),
        }
    }

    /// Reads the next bytes. `boundary`: they start a chunk or a read, where servers start their events.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        boundary: bool,
        facts: &mut ResponseFacts,
        emit: &mut Emit<'_>,
    ) {
        let resumes = [&b"data:"[..], b"event:", b"id:", b":"];
        if boundary
            && matches!(self.line, Line::Lost { .. })
            && resumes.iter().any(|field| starts_with(bytes, field) == Some(true))
        {
            self.line = Line::Name;
        }
        while let Some((first, rest)) = bytes.split_first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                bytes = rest;
                continue;
            }
            let end = memchr::memchr2(b'\n', b'\r', bytes);
            let (text, rest) = bytes.split_at_checked(end.unwrap_or(bytes.len())).unwrap_or((bytes, &[]));
            self.text(text, facts);
            bytes = rest.get(1..).unwrap_or_default();
            if end.is_some() {
                self.after_cr = rest.first() == Some(&b'\r');
                self.end_line(facts, emit);
            }
        }
    }

    /// Bytes are missing. What the event said before holds.
    pub(super) fn gap(&mut self, facts: &mut ResponseFacts, emit: &mut Emit<'_>) {
        self.scanner.stop();
        self.done = None;
        self.dispatch(facts, emit);
        self.line = Line::Lost { empty: false };
        self.after_cr = false;
    }

    fn text(&mut self, mut text: &[u8], facts: &mut ResponseFacts) {
        if self.line == Line::Name && !text.is_empty() {
            text = self.field_name(text, facts);
        }
        if self.line == Line::DataStart && !text.is_empty() {
            text = text.strip_prefix(b" ").unwrap_or(text);
            self.line = Line::Data;
        }
        match &mut self.line {
            Line::Data => self.data(text, facts),
            Line::EventName => self.push_name(text),
            Line::Lost { empty } => *empty &= text.is_empty(),
            _ => {}
        }
    }

    /// Reads up to the colon and gives back what is behind it.
    fn field_name<'a>(&mut self, text: &'a [u8], facts: &mut ResponseFacts) -> &'a [u8] {
        let colon = memchr::memchr(b':', text);
        let (name, rest) = text.split_at_checked(colon.unwrap_or(text.len())).unwrap_or((text, &[]));
        self.push_name(name);
        if colon.is_none() {
            return rest;
        }
        let name = match self.name.strip_prefix(MARK) {
            Some(name) if !self.begun => name,
            _ => self.name.as_slice(),
        };
        self.line = match name {
            b"data" => Line::DataStart,
            b"event" => Line::EventName,
            b"error" => {
                facts.mark_error();
                Line::DataStart
            }
            _ => Line::Ignored,
        };
        if self.line == Line::DataStart {
            self.start_data(facts);
        }
        self.begun = true;
        self.name.clear();
        rest.get(1..).unwrap_or_default()
    }

    fn push_name(&mut self, name: &[u8]) {
        let room = MAX_NAME - self.name.len().min(MAX_NAME);
        self.name.extend_from_slice(name.get(..room).unwrap_or(name));
    }

    /// A second `data` line of an event is joined by a line feed.
    fn start_data(&mut self, facts: &mut ResponseFacts) {
        if std::mem::replace(&mut self.has_data, true) {
            self.data(b"\n", facts);
        }
    }

    fn data(&mut self, text: &[u8], facts: &mut ResponseFacts) {
        if let Some(at) = self.done {
            let fits = DONE.get(at..).and_then(|rest| starts_with(text, rest));
            self.done = match fits {
                _ if text.is_empty() => Some(at),
                None if at + text.len() < DONE.len() => Some(at + text.len()),
                Some(true) if at + text.len() == DONE.len() => Some(DONE.len()),
                _ => None,
            };
        }
        self.scanner.feed(text, facts);
    }

    fn end_line(&mut self, facts: &mut ResponseFacts, emit: &mut Emit<'_>) {
        match self.line {
            Line::Name if self.name.is_empty() => self.dispatch(facts, emit),
            Line::EventName if matches!(self.name.as_slice(), b"error" | b" error") => facts.mark_error(),
            // The line that the gap cut is no line; the next one may be empty.
            Line::Lost { empty: false } => {
                self.line = Line::Lost { empty: true };
                return;
            }
            _ => {}
        }
        self.name.clear();
        self.line = Line::Name;
    }

    fn dispatch(&mut self, facts: &mut ResponseFacts, emit: &mut Emit<'_>) {
        if std::mem::take(&mut self.has_data) {
            if self.done == Some(DONE.len()) {
                facts.mark_done();
            } else {
                facts.commit(emit);
            }
        }
        self.done = Some(0);
        self.scanner.reset();
    }
}
