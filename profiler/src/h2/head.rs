//! Fields of a header block → heads of HTTP.
//!
//! In: [`Fields`]. Out: the heads that HTTP/1 gives, with what is missing in them told apart from what is unknown.

use super::header::{Fields, Header, Seen};
use crate::http::content::ContentKind;
use crate::http::head::{MAX_PATH, MAX_TEXT, MAX_TRACESTATE, path, text};
use crate::http::{HttpVersion, Method, RequestHead, ResponseHead, TraceParent};

/// A request's head.
pub(super) struct Asked {
    /// `None`: the method is not known.
    pub(super) head: Option<RequestHead>,
    pub(super) content: ContentKind,
    /// The method or the path is not known.
    pub(super) partial: bool,
}

pub(super) fn request(fields: &Fields) -> Asked {
    let method = fields.text(Header::Method).map(|token| Method::from_token(&token));
    let target = fields.get(Header::Path);
    // CONNECT has none (RFC 9113, section 8.5).
    let partial = method.is_none() || (target.value().is_none() && method != Some(Method::Connect));
    let traceparent = fields.only(Header::Traceparent).and_then(TraceParent::parse);
    let target = target.value().and_then(|target| std::str::from_utf8(target).ok());
    let head = method.map(|method| RequestHead {
        method,
        version: HttpVersion::Http2,
        path: target.and_then(|target| text(path(target).as_bytes(), MAX_PATH)).unwrap_or_default(),
        host: fields.text(Header::Authority).or_else(|| fields.text(Header::Host)),
        user_agent: fields.text(Header::UserAgent),
        tracestate: traceparent.and_then(|_| fields.tracestate()),
        traceparent,
        request_id: fields.text(Header::RequestId),
        content_length: fields.number(Header::ContentLength),
    });
    Asked { head, content: fields.content(), partial }
}

/// A response's head; nothing if its status is not known.
pub(super) fn response(fields: &Fields) -> Option<(ResponseHead, ContentKind)> {
    let status = fields.number(Header::Status).and_then(|status| u16::try_from(status).ok())?;
    let content = fields.content();
    let unknown =
        [Header::ContentType, Header::ContentEncoding].map(|header| fields.get(header).is_unknown());
    let head = ResponseHead {
        status,
        streaming: content.streaming(),
        opaque: content.is_opaque() || unknown.contains(&true),
        request_id: fields.text(Header::RequestId),
        content_length: fields.number(Header::ContentLength),
    };
    Some((head, content))
}

impl Fields {
    fn all(&self, header: Header) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(move |(name, _)| *name == header.name()).map(|(_, value)| value)
    }

    /// A field that may stand only once.
    fn only(&self, header: Header) -> Option<&[u8]> {
        let mut all = self.all(header);
        all.next().filter(|_| all.next().is_none())
    }

    fn text(&self, header: Header) -> Option<String> {
        self.get(header).value().and_then(|value| text(value, MAX_TEXT))
    }

    pub(super) fn number(&self, header: Header) -> Option<u64> {
        let value = self.get(header).value().filter(|value| value.iter().all(u8::is_ascii_digit))?;
        std::str::from_utf8(value).ok()?.parse().ok()
    }

    /// What is not known is not read: it might be compressed.
    fn content(&self) -> ContentKind {
        let kind = self.get(Header::ContentType);
        if kind.is_unknown() || self.get(Header::ContentEncoding).is_unknown() {
            return ContentKind::NONE;
        }
        ContentKind::new(kind.value(), self.all(Header::ContentEncoding))
    }

    /// Several fields combine; the whole is dropped when it is too long, since a cut list would be another list.
    fn tracestate(&self) -> Option<String> {
        if self.get(Header::Tracestate) == Seen::Unknown {
            return None;
        }
        let parts: Vec<&[u8]> = self.all(Header::Tracestate).filter(|part| !part.is_empty()).collect();
        let members = parts.iter().map(|part| 1 + memchr::memchr_iter(b',', part).count()).sum::<usize>();
        let joined = String::from_utf8(parts.join(&b',')).ok()?;
        (!joined.is_empty() && joined.len() <= MAX_TRACESTATE && members <= 32).then_some(joined)
    }
}
