//! The content of one message, whatever framed it: HTTP/1 bodies and the DATA frames of an HTTP/2 stream alike.
//!
//! In: what the head says of it, then its bytes and gaps in their order. Out: the request's facts, or the response's
//! tokens and facts, and the signal that ends it. Framing is deliberately absent: who feeds it knows where it ends.

use super::coding::{Coding, Decoder};
use super::document::Document;
use super::facts::Emit;
use super::parameters::{REQUEST, RequestField};
use super::payload::Payload;
use super::signal::{Outcome, RequestEnd, RequestFacts, ResponseEnd, Signal, SignalKind, Streaming, Unread};

/// What a head says of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentKind {
    pub(super) media: Media,
    coding: Coding,
}

/// How to read a payload, by its media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    /// Nothing that is read.
    Opaque,
    /// No content type: a response's first byte tells, a request is taken for JSON.
    Unknown,
    Json,
    Sse,
    NdJson,
    /// Named, and none of the others. Requests are read all the same: clients send JSON as
    /// `application/x-www-form-urlencoded` (curl) and as `text/plain`.
    Other,
}

impl ContentKind {
    /// Nothing to read.
    pub(crate) const NONE: Self = Self { media: Media::Opaque, coding: Coding::Identity };

    /// From the values of `Content-Type` and of `Content-Encoding` (and codings of the transfer other than chunked).
    pub(crate) fn new<'v>(
        content_type: Option<&[u8]>,
        content_encoding: impl IntoIterator<Item = &'v [u8]>,
    ) -> Self {
        Self {
            media: content_type.map_or(Media::Unknown, Media::named),
            coding: Coding::of(content_encoding),
        }
    }

    /// How a response with it is streamed.
    pub(crate) fn streaming(self) -> Streaming {
        match self.media {
            Media::Sse => Streaming::Sse,
            Media::NdJson => Streaming::NdJson,
            _ => Streaming::None,
        }
    }

    /// Nothing of a response with it is read.
    pub(crate) fn is_skipped(self) -> bool {
        self.is_opaque() || matches!(self.media, Media::Opaque | Media::Other)
    }

    /// It is compressed in a way that is not read.
    pub(crate) fn is_opaque(self) -> bool {
        self.coding == Coding::Unknown
    }
}

impl Media {
    fn named(kind: &[u8]) -> Self {
        let end = memchr::memchr(b';', kind).unwrap_or(kind.len());
        let kind = kind.get(..end).unwrap_or(kind).trim_ascii().to_ascii_lowercase();
        match kind.as_slice() {
            b"text/event-stream" => Self::Sse,
            b"application/x-ndjson" | b"application/ndjson" | b"application/jsonl" => Self::NdJson,
            b"application/jsonlines" | b"application/x-jsonlines" => Self::NdJson,
            b"application/stream+json" => Self::NdJson,
            kind if kind.ends_with(b"json") => Self::Json,
            kind if kind.starts_with(b"multipart/") || kind.starts_with(b"application/grpc") => Self::Opaque,
            _ => Self::Other,
        }
    }
}

/// The content of a request.
#[derive(Debug)]
pub(crate) struct RequestContent {
    decoder: Option<Decoder>,
    document: Option<Document<RequestField>>,
    facts: RequestFacts,
    body_bytes: u64,
    lost_bytes: u64,
    unread: Option<Unread>,
}

impl RequestContent {
    pub(crate) fn new(kind: ContentKind) -> Self {
        let readable = !kind.is_opaque() && !matches!(kind.media, Media::Opaque | Media::NdJson | Media::Sse);
        Self {
            decoder: Decoder::new(kind.coding).filter(|_| readable),
            document: readable.then(|| Document::new(&REQUEST)),
            facts: RequestFacts::default(),
            body_bytes: 0,
            lost_bytes: 0,
            unread: kind.is_opaque().then_some(Unread::Coding),
        }
    }

    /// The next bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.body_bytes = self.body_bytes.saturating_add(bytes.len() as u64);
        self.read(bytes);
    }

    fn read(&mut self, bytes: &[u8]) {
        let (Some(document), facts) = (&mut self.document, &mut self.facts) else { return };
        let Some(decoder) = &mut self.decoder else { return document.feed(bytes, facts) };
        let result = decoder.feed(bytes, &mut |content| document.feed(content, facts));
        if let Err(reason) = result {
            self.give_up(reason);
        }
    }

    /// So many bytes were not copied.
    pub(crate) fn gap(&mut self, bytes: u64) {
        self.body_bytes = self.body_bytes.saturating_add(bytes);
        self.lost_bytes = self.lost_bytes.saturating_add(bytes);
        if self.decoder.is_some() {
            self.give_up(Unread::Gap);
        } else if let Some(document) = &mut self.document {
            document.gap();
        }
    }

    fn give_up(&mut self, reason: Unread) {
        self.unread = Some(reason);
        self.decoder = None;
        self.document = None;
    }

    /// Bytes in which payload and framing were not told apart. They count as lost, and as payload.
    pub(super) fn unframed(&mut self, bytes: &[u8]) {
        self.body_bytes = self.body_bytes.saturating_add(bytes.len() as u64);
        self.lost_bytes = self.lost_bytes.saturating_add(bytes.len() as u64);
        self.read(bytes);
    }

    /// The last `len` unframed bytes were framing.
    pub(super) fn retract(&mut self, len: usize) {
        self.body_bytes = self.body_bytes.saturating_sub(len as u64);
        self.lost_bytes = self.lost_bytes.saturating_sub(len as u64);
        if let Some(document) = &mut self.document {
            document.retract(len);
        }
    }

    /// It is over. `complete`: its framing ended.
    pub(crate) fn end(mut self, complete: bool) -> RequestEnd {
        let mut whole = false;
        if let Some(document) = self.document.as_mut().filter(|_| complete) {
            document.end(&mut self.facts);
            whole = document.is_whole();
        }
        // What was counted before a gap is no count.
        let prompt_token_ids = self.facts.prompt_token_ids.filter(|ids| *ids > 0);
        let facts = RequestFacts { whole, prompt_token_ids, ..self.facts };
        let (body_bytes, lost_bytes) = (self.body_bytes, self.lost_bytes);
        RequestEnd { complete, body_bytes, lost_bytes, unread: self.unread, facts }
    }
}

/// The content of a response.
#[derive(Debug)]
pub(crate) struct ResponseContent {
    exchange: u32,
    decoder: Option<Decoder>,
    payload: Payload,
    body_bytes: u64,
    lost_bytes: u64,
    unread: Option<Unread>,
}

impl ResponseContent {
    /// `generation`: the request was a POST, or is not known. llama.cpp replays a stream's bytes on GET, and what is
    /// replayed is no token.
    pub(crate) fn new(exchange: u32, kind: ContentKind, generation: bool) -> Self {
        let unread = kind.is_opaque().then_some(Unread::Coding);
        let media = if unread.is_some() { Media::Opaque } else { kind.media };
        let payload = Payload::new(media, generation);
        let decoder = Decoder::new(kind.coding).filter(|_| payload.is_read());
        Self { exchange, decoder, payload, body_bytes: 0, lost_bytes: 0, unread }
    }

    /// The next bytes. `boundary`: they start a chunk, a frame or a read, where servers start their events.
    pub(crate) fn feed(&mut self, bytes: &[u8], boundary: bool, time_ns: u64, out: &mut Vec<Signal>) {
        self.body_bytes = self.body_bytes.saturating_add(bytes.len() as u64);
        let mut emit = Emit { time_ns, exchange: self.exchange, out };
        let Some(decoder) = &mut self.decoder else { return self.payload.feed(bytes, boundary, &mut emit) };
        let payload = &mut self.payload;
        let result = decoder.feed(bytes, &mut |content| payload.feed(content, false, &mut emit));
        if let Err(reason) = result {
            self.give_up(reason, &mut emit);
        }
    }

    /// So many bytes were not copied.
    pub(crate) fn gap(&mut self, bytes: u64, time_ns: u64, out: &mut Vec<Signal>) {
        if bytes == 0 {
            return;
        }
        self.body_bytes = self.body_bytes.saturating_add(bytes);
        self.lost_bytes = self.lost_bytes.saturating_add(bytes);
        let mut emit = Emit { time_ns, exchange: self.exchange, out };
        if self.decoder.is_some() {
            self.give_up(Unread::Gap, &mut emit);
        } else {
            self.payload.gap(&mut emit);
        }
    }

    fn give_up(&mut self, reason: Unread, emit: &mut Emit<'_>) {
        self.unread = Some(reason);
        self.decoder = None;
        self.payload.stop(emit);
    }

    /// Bytes in which payload and framing were not told apart. They count as lost, and as payload.
    pub(super) fn unframed(&mut self, bytes: &[u8]) {
        self.body_bytes = self.body_bytes.saturating_add(bytes.len() as u64);
        self.lost_bytes = self.lost_bytes.saturating_add(bytes.len() as u64);
        self.payload.unframed(bytes);
    }

    /// The last `len` unframed bytes were framing.
    pub(super) fn retract(&mut self, len: usize) {
        self.body_bytes = self.body_bytes.saturating_sub(len as u64);
        self.lost_bytes = self.lost_bytes.saturating_sub(len as u64);
        self.payload.retract(len);
    }

    /// What comes next is framed again: it does not continue the bytes before it.
    pub(super) fn rejoin(&mut self, time_ns: u64, out: &mut Vec<Signal>) {
        self.payload.gap(&mut Emit { time_ns, exchange: self.exchange, out });
    }

    /// The dialect's own end mark was seen.
    pub(crate) fn saw_done(&self) -> bool {
        self.payload.saw_done()
    }

    /// It is over: says the last facts and the exchange's end.
    pub(crate) fn end(self, outcome: Outcome, time_ns: u64, out: &mut Vec<Signal>) {
        let mut emit = Emit { time_ns, exchange: self.exchange, out };
        let (events, saw_done) = self.payload.end(outcome == Outcome::Complete, &mut emit);
        let (body_bytes, lost_bytes, unread) = (self.body_bytes, self.lost_bytes, self.unread);
        let end = ResponseEnd { outcome, body_bytes, lost_bytes, unread, events, saw_done };
        emit.push(SignalKind::ResponseEnd(end));
    }
}
