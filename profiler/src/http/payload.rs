//! A response's payload: picks the reader for its content and hands it the bytes.
//!
//! In: payload slices and gaps in the order of the body. Out: tokens and facts.

use super::content::Media;
use super::dialects::{RESPONSE, ResponseField};
use super::document::Document;
use super::facts::{Emit, ResponseFacts};
use super::ndjson::NdJson;
use super::sse::Sse;

/// The payload of one response.
#[derive(Debug)]
pub(super) struct Payload {
    reader: Reader,
    facts: ResponseFacts,
}

#[derive(Debug)]
enum Reader {
    Skip,
    /// Waits for the first byte to tell what it is.
    Sniff,
    Document(Document<ResponseField>),
    Sse(Sse),
    NdJson(NdJson),
}

impl Reader {
    fn new(media: Media) -> Self {
        match media {
            Media::Opaque | Media::Other => Self::Skip,
            Media::Unknown => Self::Sniff,
            Media::Json => Self::Document(Document::new(&RESPONSE)),
            Media::Sse => Self::Sse(Sse::new()),
            Media::NdJson => Self::NdJson(NdJson::new()),
        }
    }
}

impl Payload {
    /// `generation`: the request asked for one, so that a replayed stream does not count as tokens.
    pub(super) fn new(media: Media, generation: bool) -> Self {
        let streams = matches!(media, Media::Sse | Media::NdJson | Media::Unknown);
        let facts = ResponseFacts::new(generation && streams);
        Self { reader: Reader::new(media), facts }
    }

    pub(super) fn feed(&mut self, bytes: &[u8], boundary: bool, emit: &mut Emit<'_>) {
        if matches!(self.reader, Reader::Sniff) {
            self.sniff(bytes);
        }
        match &mut self.reader {
            Reader::Skip | Reader::Sniff => {}
            Reader::Document(document) => document.feed(bytes, &mut self.facts),
            Reader::Sse(sse) => sse.feed(bytes, boundary, &mut self.facts, emit),
            Reader::NdJson(lines) => lines.feed(bytes, boundary, &mut self.facts, emit),
        }
    }

    /// A body without a content type: JSON begins with a brace, events with a field name or a colon.
    fn sniff(&mut self, bytes: &[u8]) {
        let media = match bytes.trim_ascii_start().first() {
            None => return,
            Some(b'{' | b'[') => Media::Json,
            Some(b'd' | b'e' | b':') => Media::Sse,
            Some(_) => Media::Opaque,
        };
        self.facts.tokens &= media == Media::Sse;
        self.reader = Reader::new(media);
    }

    /// Payload bytes are missing.
    pub(super) fn gap(&mut self, emit: &mut Emit<'_>) {
        match &mut self.reader {
            Reader::Skip => {}
            Reader::Sniff => self.reader = Reader::Skip,
            Reader::Document(document) => document.gap(),
            Reader::Sse(sse) => sse.gap(&mut self.facts, emit),
            Reader::NdJson(lines) => lines.gap(&mut self.facts, emit),
        }
    }

    /// Nothing more of it will be read. What was said before holds.
    pub(super) fn stop(&mut self, emit: &mut Emit<'_>) {
        self.gap(emit);
        if let Reader::Document(document) = &mut self.reader {
            document.stop();
        } else {
            self.reader = Reader::Skip;
        }
    }

    /// Bytes that may hold framing. Only a document's end can make something of them.
    pub(super) fn unframed(&mut self, bytes: &[u8]) {
        if let Reader::Document(document) = &mut self.reader {
            document.feed(bytes, &mut self.facts);
        }
    }

    /// The last `len` of them were framing.
    pub(super) fn retract(&mut self, len: usize) {
        if let Reader::Document(document) = &mut self.reader {
            document.retract(len);
        }
    }

    /// Whether its bytes say anything at all.
    pub(super) fn is_read(&self) -> bool {
        !matches!(self.reader, Reader::Skip)
    }

    pub(super) fn saw_done(&self) -> bool {
        self.facts.saw_done
    }

    /// The payload is over. `complete`: its framing ended. Gives back the number of events, and whether the end mark
    /// was seen.
    pub(super) fn end(mut self, complete: bool, emit: &mut Emit<'_>) -> (u32, bool) {
        match &mut self.reader {
            Reader::Document(document) => {
                if complete {
                    document.end(&mut self.facts);
                }
                self.facts.commit(emit);
                return (0, self.facts.saw_done);
            }
            Reader::NdJson(lines) => lines.end(&mut self.facts, emit),
            // An event without its empty line is not dispatched: the standard drops it too.
            Reader::Skip | Reader::Sniff | Reader::Sse(_) => {}
        }
        (self.facts.events, self.facts.saw_done)
    }
}
