//! The head of a message: gathered across reads, parsed once, by `httparse`.
//!
//! In: bytes up to the empty line. Out: what the exchange needs of them, in owned and bounded form. The gathered
//! bytes are dropped with the head; the query of a target is dropped at once.

use std::fmt;

use httparse::{EMPTY_HEADER, Header};

use super::body::{Chunk, Framing};
use super::content::ContentKind;
use super::signal::{HttpVersion, MalformedReason, Method, Protocol, RequestHead, ResponseHead};
use super::traceparent::TraceParent;
use super::trailer::is_token;

/// Larger than what any of the servers accepts (h11 64 KiB, httptools 64 KiB, hyper 400 KiB in theory).
const MAX_HEAD: usize = 64 * 1024;
/// hyper's and httptools' limits are near 100.
const MAX_HEADERS: usize = 128;
/// Texts of a head are cut to these, bytes.
pub(crate) const MAX_PATH: usize = 1024;
pub(crate) const MAX_TRACESTATE: usize = 512;
pub(crate) const MAX_TEXT: usize = 256;

/// Bytes of a head that is still coming in.
pub(super) struct HeadBuffer {
    bytes: Vec<u8>,
    /// Time of its first byte.
    pub(super) start_ns: u64,
    /// It may be no head at all: found while looking for one after a gap.
    pub(super) tentative: bool,
    /// The exchange it already stands for, where a response came before its end.
    pub(super) exchange: Option<u32>,
}

/// What pushing bytes into a [`HeadBuffer`] gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Complete,
    TooLarge,
}

impl HeadBuffer {
    pub(super) fn new(tentative: bool) -> Self {
        Self { bytes: Vec::new(), start_ns: 0, tentative, exchange: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes bytes up to the empty line and gives back the rest. Empty lines before a head are skipped, as RFC
    /// 9112 (section 2.2) asks of servers.
    pub(super) fn push<'a>(&mut self, time_ns: u64, mut bytes: &'a [u8]) -> (&'a [u8], Progress) {
        while !bytes.is_empty() {
            let len = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
            let (line, rest) = bytes.split_at_checked(len).unwrap_or((bytes, &[]));
            bytes = rest;
            if self.bytes.is_empty() {
                self.start_ns = time_ns;
            }
            if self.bytes.len() + line.len() > MAX_HEAD {
                return (bytes, Progress::TooLarge);
            }
            self.bytes.extend_from_slice(line);
            if matches!(self.bytes.as_slice(), b"\n" | b"\r\n") {
                self.bytes.clear();
            } else if self.bytes.ends_with(b"\n\r\n") || self.bytes.ends_with(b"\n\n") {
                return (bytes, Progress::Complete);
            }
        }
        (bytes, Progress::More)
    }
}

/// Lengths only: the bytes are not ours to show.
impl fmt::Debug for HeadBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeadBuffer")
            .field("len", &self.bytes.len())
            .field("tentative", &self.tentative)
            .field("exchange", &self.exchange)
            .finish_non_exhaustive()
    }
}

/// Whether bytes begin a message. `None`: too few to tell.
pub(super) fn begins_request(bytes: &[u8]) -> Option<bool> {
    let bytes = bytes.trim_ascii_start();
    let line = memchr::memchr(b'\n', bytes).and_then(|end| bytes.get(..end));
    if let Some(line) = line {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let method = Method::NAMED.iter().any(|(name, _)| starts_with_token(line, name) == Some(true));
        return Some(method && (line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")));
    }
    let tokens = Method::NAMED.iter().map(|(name, _)| starts_with_token(bytes, name));
    // True of a token means only that the line goes on.
    if tokens.clone().any(|fits| fits != Some(false)) { None } else { Some(false) }
}

/// As [`begins_request`], for responses.
pub(super) fn begins_response(bytes: &[u8]) -> Option<bool> {
    starts_with(bytes, b"HTTP/1.")
}

/// Whether bytes begin with a method and a space. `None`: too few to tell.
pub(super) fn starts_with_token(bytes: &[u8], name: &str) -> Option<bool> {
    match starts_with(bytes, name.as_bytes()) {
        Some(true) => bytes.get(name.len()).map(|byte| *byte == b' '),
        other => other,
    }
}

/// `None`: `bytes` is a proper prefix of `expected`.
pub(super) fn starts_with(bytes: &[u8], expected: &[u8]) -> Option<bool> {
    if bytes.starts_with(expected) {
        return Some(true);
    }
    if expected.starts_with(bytes) { None } else { Some(false) }
}

/// What a request's head says, and its body's framing.
pub(super) struct ParsedRequest {
    pub(super) head: RequestHead,
    pub(super) framing: Framing,
    pub(super) content: ContentKind,
    /// Other requests may follow on the connection.
    pub(super) persistent: bool,
}

/// Parses a complete request head.
pub(super) fn parse_request(bytes: &[u8]) -> Result<ParsedRequest, MalformedReason> {
    let unfolded = unfold(bytes);
    let bytes = unfolded.as_deref().unwrap_or(bytes);
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(MalformedReason::HeadTooLarge),
        _ => return Err(MalformedReason::RequestHead),
    }
    let headers = Headers(request.headers);
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(MalformedReason::RequestHead);
    };
    // httparse takes some more.
    if !method.bytes().all(is_token) {
        return Err(MalformedReason::RequestHead);
    }
    let content_length = headers.content_length()?;
    let framing = match headers.transfer_encoding() {
        Coding::None => Framing::Length(content_length.unwrap_or(0)),
        Coding::Chunked => Framing::Chunked(Chunk::START),
        Coding::Unknown => return Err(MalformedReason::Length),
    };
    let traceparent = headers.only("traceparent").and_then(TraceParent::parse);
    let head = RequestHead {
        method: Method::from_token(method),
        version: if version == 0 { HttpVersion::Http10 } else { HttpVersion::Http11 },
        path: text(path(target).as_bytes(), MAX_PATH).unwrap_or_default(),
        // A target with an authority voids `Host` (RFC 9112, section 3.2.2).
        host: authority(target).map_or_else(|| headers.text("host"), |host| text(host.as_bytes(), MAX_TEXT)),
        user_agent: headers.text("user-agent"),
        tracestate: traceparent.and_then(|_| headers.tracestate()),
        traceparent,
        request_id: headers.text("x-request-id"),
        content_length,
    };
    let persistent = headers.persistent(version);
    Ok(ParsedRequest { head, framing, content: headers.content(), persistent })
}

/// What a response's head says, and its body's framing were it to have one.
pub(super) struct ParsedResponse {
    pub(super) head: ResponseHead,
    pub(super) framing: Framing,
    pub(super) content: ContentKind,
    /// What `Upgrade` names.
    pub(super) upgrade: Protocol,
}

/// Parses a complete response head.
pub(super) fn parse_response(bytes: &[u8]) -> Result<ParsedResponse, MalformedReason> {
    let unfolded = unfold(bytes);
    let bytes = unfolded.as_deref().unwrap_or(bytes);
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(MalformedReason::HeadTooLarge),
        _ => return Err(MalformedReason::ResponseHead),
    }
    let headers = Headers(response.headers);
    let status = response.code.ok_or(MalformedReason::ResponseHead)?;
    let content_length = headers.content_length()?;
    let framing = match (headers.transfer_encoding(), content_length) {
        (Coding::Chunked, _) => Framing::Chunked(Chunk::START),
        (Coding::None, Some(length)) => Framing::Length(length),
        _ => Framing::UntilClose,
    };
    let content = headers.content();
    let (streaming, opaque) = (content.streaming(), content.is_skipped());
    let request_id = headers.text("x-request-id");
    let head = ResponseHead { status, streaming, opaque, request_id, content_length };
    Ok(ParsedResponse { head, framing, content, upgrade: headers.upgrade() })
}

enum Coding {
    None,
    Chunked,
    Unknown,
}

struct Headers<'h>(&'h [Header<'h>]);

impl<'h> Headers<'h> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    fn get(&self, name: &str) -> Option<&'h [u8]> {
        self.all(name).next()
    }

    /// A header that may stand only once.
    fn only(&self, name: &str) -> Option<&'h [u8]> {
        let mut all = self.all(name);
        all.next().filter(|_| all.next().is_none())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name).and_then(|value| text(value, MAX_TEXT))
    }

    /// Several headers combine; the whole is dropped when it is too long, since a cut list would be another list.
    fn tracestate(&self) -> Option<String> {
        let parts: Vec<&[u8]> = self.all("tracestate").filter(|part| !part.is_empty()).collect();
        let members = parts.iter().map(|part| 1 + memchr::memchr_iter(b',', part).count()).sum::<usize>();
        let joined = String::from_utf8(parts.join(&b',')).ok()?;
        (!joined.is_empty() && joined.len() <= MAX_TRACESTATE && members <= 32).then_some(joined)
    }

    /// Repeated equal values are one (RFC 9110, section 8.6).
    fn content_length(&self) -> Result<Option<u64>, MalformedReason> {
        let mut length = None;
        for part in self.all("content-length").flat_map(|value| value.split(|byte| *byte == b',')) {
            let part = part.trim_ascii();
            let digits = !part.is_empty() && part.iter().all(u8::is_ascii_digit);
            let value = std::str::from_utf8(part).ok().filter(|_| digits).and_then(|part| part.parse().ok());
            let value: u64 = value.ok_or(MalformedReason::Length)?;
            if length.replace(value).is_some_and(|before| before != value) {
                return Err(MalformedReason::Length);
            }
        }
        Ok(length)
    }

    fn transfer_codings(&self) -> impl Iterator<Item = &'h [u8]> {
        let codings = self.all("transfer-encoding").flat_map(|value| value.split(|byte| *byte == b','));
        codings.map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty())
    }

    /// Chunked comes last (RFC 9112, section 6.1).
    fn transfer_encoding(&self) -> Coding {
        match self.transfer_codings().last() {
            None if self.get("transfer-encoding").is_none() => Coding::None,
            Some(last) if is_chunked(last) => Coding::Chunked,
            _ => Coding::Unknown,
        }
    }

    fn content(&self) -> ContentKind {
        let transfer = self.transfer_codings().filter(|coding| !is_chunked(coding));
        ContentKind::new(self.get("content-type"), self.all("content-encoding").chain(transfer))
    }

    /// RFC 9112, section 9.3.
    fn persistent(&self, version: u8) -> bool {
        let options = || self.all("connection").flat_map(|value| value.split(|byte| *byte == b','));
        let says = |name: &[u8]| options().any(|option| option.trim_ascii().eq_ignore_ascii_case(name));
        !says(b"close") && (version > 0 || says(b"keep-alive"))
    }

    fn upgrade(&self) -> Protocol {
        match self.get("upgrade").map(<[u8]>::trim_ascii) {
            Some(name) if name.eq_ignore_ascii_case(b"websocket") => Protocol::WebSocket,
            Some(name) if name.eq_ignore_ascii_case(b"h2c") => Protocol::Http2,
            _ => Protocol::Other,
        }
    }
}

fn is_chunked(coding: &[u8]) -> bool {
    coding.eq_ignore_ascii_case(b"chunked")
}

/// The head with each folded line made one by spaces, where it has any (RFC 9112, section 5.2; h11 and Go's net/http
/// take them). The first header cannot be a continuation, and stays what it is.
fn unfold(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut unfolded: Option<Vec<u8>> = None;
    let start = memchr::memchr(b'\n', bytes)? + 1;
    for at in memchr::memchr_iter(b'\n', bytes.get(start..)?).map(|at| start + at) {
        if !matches!(bytes.get(at + 1), Some(b' ' | b'\t')) {
            continue;
        }
        let unfolded = unfolded.get_or_insert_with(|| bytes.to_vec());
        let end = if bytes.get(at - 1) == Some(&b'\r') { at - 1 } else { at };
        unfolded.get_mut(end..=at).into_iter().flatten().for_each(|byte| *byte = b' ');
    }
    unfolded
}

/// What follows `scheme://` in a target in absolute form (RFC 3986, section 3.1).
fn behind_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    let others = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let valid = scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(others);
    valid.then_some(rest)
}

/// The host and port of a target in absolute form. Names and passwords before them are not kept.
fn authority(target: &str) -> Option<&str> {
    let rest = behind_scheme(target)?;
    let authority = rest.split(['/', '?', '#']).next()?;
    authority.rsplit('@').next()
}

/// The path of a target in origin or absolute form.
pub(crate) fn path(target: &str) -> &str {
    let target = match behind_scheme(target) {
        Some(rest) => rest.find(['/', '?', '#']).and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => target,
    };
    target.split(['?', '#']).next().filter(|path| !path.is_empty()).unwrap_or("/")
}

/// Owned text, cut at a character's end. Bytes that are not UTF-8 give nothing.
pub(crate) fn text(value: &[u8], max: usize) -> Option<String> {
    let value = std::str::from_utf8(value.trim_ascii()).ok()?;
    value.get(..value.floor_char_boundary(max)).filter(|value| !value.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_path_only() {
        for (target, expected) in [
            ("/v1/chat/completions?prompt=secret", "/v1/chat/completions"),
            ("http://host:8000/a/b?c", "/a/b"),
            ("http://host?c", "/"),
            ("*", "*"),
            ("/a?u=http://x/y", "/a"),
            ("host:443", "host:443"),
            ("u=http://x/y", "u=http://x/y"),
            ("a/b://x/y", "a/b://x/y"),
            ("http://x#y", "/"),
        ] {
            assert_eq!(path(target), expected);
        }
    }

    #[test]
    fn lengths_must_agree() {
        for (headers, expected) in [
            ("Content-Length: 5\r\ncontent-length: 5\r\n", Some(Framing::Length(5))),
            ("Content-Length: 5, 5\r\n", Some(Framing::Length(5))),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", None),
            ("Content-Length: +5\r\n", None),
            ("Content-Length: 99999999999999999999\r\n", None),
            (
                "Content-Length: 5\r\nTransfer-Encoding: gzip, Chunked\r\n",
                Some(Framing::Chunked(Chunk::START)),
            ),
            ("Transfer-Encoding: gzip\r\n", None),
            ("Transfer-Encoding: chunked, gzip\r\n", None),
            ("Transfer-Encoding:\r\n", None),
            ("Transfer-Encoding: ,chunked,\r\n", Some(Framing::Chunked(Chunk::START))),
        ] {
            let head = format!("POST / HTTP/1.1\r\n{headers}\r\n");
            let framing = parse_request(head.as_bytes()).map(|parsed| parsed.framing);
            assert_eq!(framing.ok(), expected, "{headers}");
        }
    }

    #[test]
    fn folded_lines_are_one() {
        let head = "GET / HTTP/1.1\r\nX-Request-Id: a\r\n\t b\n c\r\nHost:\r\n h\r\n\r\n";
        let parsed = parse_request(head.as_bytes()).unwrap();
        assert_eq!(parsed.head.request_id.as_deref(), Some("a  \t b  c"));
        assert_eq!(parsed.head.host.as_deref(), Some("h"));
        assert!(parse_request(b"GET / HTTP/1.1\r\n folded\r\n\r\n").is_err());
    }

    #[test]
    fn the_targets_authority_is_the_host() {
        for (target, host) in [
            ("/a", "h"),
            ("http://x:8000/a?b", "x:8000"),
            ("HTTP://x?b", "x"),
            ("http://user:pass@x/a@b", "x"),
            ("/a?u=http://y/", "h"),
        ] {
            let parsed =
                parse_request(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
            assert_eq!(parsed.head.host.as_deref(), Some(host), "{target}");
        }
    }

    #[test]
    fn says_whether_others_may_follow() {
        for (version, headers, persistent) in [
            ("1.1", "", true),
            ("1.1", "Connection: upgrade, Close\r\n", false),
            ("1.1", "Connection: a\r\nConnection: close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
        ] {
            let head = format!("GET / HTTP/{version}\r\n{headers}\r\n");
            assert_eq!(parse_request(head.as_bytes()).unwrap().persistent, persistent, "{head}");
        }
    }

    #[test]
    fn tracestate_needs_a_traceparent() {
        let context = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
        let state = "TraceState: a=1\r\ntracestate: b=2,c=3\r\n";
        for (headers, expected) in [
            (format!("{context}{state}"), Some("a=1,b=2,c=3")),
            (state.to_owned(), None),
            (format!("{context}{context}{state}"), None),
            (format!("{context}tracestate: {}\r\n", "x".repeat(600)), None),
        ] {
            let parsed = parse_request(format!("GET / HTTP/1.1\r\n{headers}\r\n").as_bytes()).unwrap();
            assert_eq!(parsed.head.tracestate.as_deref(), expected, "{headers}");
        }
    }
}
