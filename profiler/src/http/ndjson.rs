//! One JSON document per line, as Ollama streams them.
//!
//! In: payload bytes. Out: each line to the JSON scanner, and a commit at its end. A line is never gathered.

use super::dialects::{RESPONSE, ResponseField};
use super::facts::{Emit, ResponseFacts};
use super::json::Scanner;

/// A stream of lines.
#[derive(Debug)]
pub(super) struct NdJson {
    scanner: Scanner<ResponseField>,
    /// The line has something other than white space.
    filled: bool,
    /// Behind a gap: nothing is known before the next line.
    lost: bool,
}

impl NdJson {
    pub(super) fn new() -> Self {
        Self { scanner: Scanner::new(&RESPONSE), filled: false, lost: false }
    }

    /// Reads the next bytes. `boundary`: they start a chunk or a read, where servers start their lines.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        boundary: bool,
        facts: &mut ResponseFacts,
        emit: &mut Emit<'_>,
    ) {
        if boundary && bytes.starts_with(b"{\"") {
            self.lost = false;
        }
        while !bytes.is_empty() {
            let end = memchr::memchr(b'\n', bytes);
            let (text, rest) = bytes.split_at_checked(end.unwrap_or(bytes.len())).unwrap_or((bytes, &[]));
            if !self.lost {
                self.filled |= !text.trim_ascii().is_empty();
                self.scanner.feed(text, facts);
            }
            bytes = rest.get(1..).unwrap_or_default();
            if end.is_some() {
                self.end(facts, emit);
            }
        }
    }

    /// Bytes are missing. What the line said before holds.
    pub(super) fn gap(&mut self, facts: &mut ResponseFacts, emit: &mut Emit<'_>) {
        self.end(facts, emit);
        self.lost = true;
    }

    /// The line, or the stream with its last line, is over.
    pub(super) fn end(&mut self, facts: &mut ResponseFacts, emit: &mut Emit<'_>) {
        if std::mem::take(&mut self.filled) {
            // A number at the very end of a document ends with its line.
            self.scanner.feed(b"\n", facts);
            facts.commit(emit);
        }
        self.lost = false;
        self.scanner.reset();
    }
}
