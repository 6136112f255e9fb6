//! The HTTP/1 observer held against h11, httptools, zlib and brotli on thousands of random exchanges.
//!
//! In: generated streams, valid and broken, at random splits. Out: the same requests and responses as the references
//! see. Where both of them take a stream we take it, and say the same; where both refuse it we invent nothing; where
//! they differ we do as one of them. Every deliberate difference is a line of [`POLICIES`], with its reason.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends at its first surprise")]
#![expect(clippy::print_stdout, reason = "a test says what it compared, or why it cannot")]

mod draw;
mod python;

use draw::Draw;
use profiler::http::{Connection, Direction, End, Outcome, RequestHead, Signal, SignalKind, Unread};
use serde_json::{Value, json};

/// Streams of each kind, unless `GPUSPAN_ORACLE_CASES` asks for others.
const CASES: u64 = 3000;

fn cases() -> u64 {
    std::env::var("GPUSPAN_ORACLE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// A request as both sides tell it.
#[derive(Debug, PartialEq)]
struct Asked {
    method: String,
    path: Option<String>,
    version: String,
    host: Option<String>,
    user_agent: Option<String>,
    request_id: Option<String>,
    content_length: Option<u64>,
    /// Bytes of the body and the model it names, where the body is complete.
    body: Option<(usize, Option<String>)>,
}

/// Runs of white space are one: references join folded lines with one space.
fn spaced(text: &str) -> Option<String> {
    let text = text.split([' ', '\t']).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    (!text.is_empty() && !text.contains('\u{fffd}')).then_some(text)
}

fn is_json(told: &Value) -> bool {
    serde_json::from_slice::<Value>(&unhex(told["body"].as_str().unwrap())).is_ok()
}

fn model(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<Value>(body).ok()?.get("model")?.as_str().map(str::to_owned)
}

impl Asked {
    fn by_oracle(told: &Value) -> Self {
        let text = |name: &str| told[name].as_str().and_then(spaced);
        let method = told["method"].as_str().unwrap();
        let named = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
        let body = unhex(told["body"].as_str().unwrap());
        let absolute = told["absolute"] == true;
        Self {
            method: if named.contains(&method) { method } else { "_OTHER" }.to_owned(),
            path: told["path"].as_str().map(str::to_owned),
            version: told["version"].as_str().unwrap().to_owned(),
            // The target's authority is the host then; references leave that to their user.
            host: if absolute { None } else { text("host") },
            user_agent: text("user_agent"),
            request_id: text("request_id"),
            content_length: if told["chunked"] == true {
                None
            } else {
                length(told["content_length"].as_str())
            },
            body: (told["complete"] == true).then(|| (body.len(), model(&body))),
        }
    }

    fn by_us(head: &RequestHead, absolute: bool, chunked: bool) -> Self {
        let text = |value: &Option<String>| value.as_deref().and_then(spaced);
        Self {
            method: head.method.as_str().to_owned(),
            path: Some(head.path.clone()),
            version: if head.version == profiler::http::HttpVersion::Http10 { "1.0" } else { "1.1" }
                .to_owned(),
            host: if absolute { None } else { text(&head.host) },
            user_agent: text(&head.user_agent),
            request_id: text(&head.request_id),
            content_length: if chunked { None } else { head.content_length },
            body: None,
        }
    }
}

/// The first of a list of equal lengths.
fn length(value: Option<&str>) -> Option<u64> {
    value?.split(',').next()?.trim().parse().ok()
}

/// What we tell of a client's bytes, `like` an oracle that says which targets are absolute and bodies chunked.
fn ours(signals: &[Signal], like: &[Value]) -> Vec<Asked> {
    let mut asked: Vec<Asked> = Vec::new();
    for signal in signals {
        match &signal.kind {
            SignalKind::RequestHead(head) => {
                let like = like.get(asked.len());
                let is = |name: &str| like.is_some_and(|told| told[name] == true);
                asked.push(Asked::by_us(head, is("absolute"), is("chunked")));
            }
            SignalKind::RequestEnd(end) if end.complete => {
                // The scanner passes over what it does not keep, so it also reads what is not quite JSON.
                let json = like.get(asked.len() - 1).is_none_or(is_json);
                let ours = end.facts.model.clone().filter(|_| end.facts.whole && json);
                // The references leave `Transfer-Encoding: gzip` to their user, and the content was not compressed.
                let packed = end.unread.and(like.get(asked.len() - 1));
                let model = packed.map_or(ours, |told| model(&unhex(told["body"].as_str().unwrap())));
                asked.last_mut().unwrap().body = Some((end.body_bytes as usize, model));
            }
            _ => {}
        }
    }
    asked
}

fn observe(direction: Direction, before: &[u8], parts: &[Vec<u8>]) -> Vec<Signal> {
    let (mut connection, mut out, mut position) = (Connection::new(false), Vec::new(), 0);
    connection.on_bytes(Direction::Request, 0, 0, before, 0, &mut out);
    for (time_ns, part) in (1..).zip(parts) {
        connection.on_bytes(direction, position, time_ns, part, 0, &mut out);
        position += part.len() as u64;
    }
    if direction == Direction::Response {
        connection.on_end(End::Closed, parts.len() as u64 + 1, &mut out);
    }
    out
}

/// Bytes as one can read them.
fn shown(parts: &[Vec<u8>]) -> String {
    parts.concat().escape_ascii().to_string()
}

#[test]
fn requests_are_what_h11_and_httptools_see() {
    let streams: Vec<(u64, Vec<Vec<u8>>)> = (0..cases())
        .map(|seed| {
            let mut draw = Draw(seed);
            let bytes = draw::requests(&mut draw, seed % 3 > 0);
            (seed, draw.split(&bytes, 12))
        })
        .collect();
    let questions: Vec<Value> = streams
        .iter()
        .map(|(_, parts)| json!({"kind": "requests", "parts": parts.iter().map(|part| hex(part)).collect::<Vec<_>>()}))
        .collect();
    let Some(answers) = python::ask(&questions) else { return };
    let (mut same, mut either, mut known) = (0, 0, std::collections::BTreeMap::new());
    let mut wrong: Vec<String> = Vec::new();
    for ((seed, parts), answer) in streams.iter().zip(&answers) {
        let signals = observe(Direction::Request, b"", parts);
        let agrees = |oracle: &str| {
            let like = answer[oracle][0].as_array().unwrap();
            let theirs: Vec<Asked> = like.iter().map(Asked::by_oracle).collect();
            let mut ours = ours(&signals, like);
            // httptools ends where it would hand the connection on; h11 ends it behind every request of HTTP/1.0,
            // where `Connection: keep-alive` has us go on (RFC 9112, section 9.3).
            let old = theirs.last().is_some_and(|last| last.version == "1.0");
            if answer[oracle][1] == "upgrade" || answer[oracle][1] == "closed" && old {
                ours.truncate(theirs.len());
            }
            (ours == theirs, ours, theirs)
        };
        let (h11, httptools) = (agrees("h11"), agrees("httptools"));
        match (h11.0, httptools.0) {
            (true, true) => same += 1,
            (true, false) | (false, true) => either += 1,
            (false, false) => match difference(&parts.concat(), answer) {
                Some(why) => *known.entry(why).or_insert(0) += 1,
                None => wrong.push(format!(
                    "seed {seed}: {}\n  ours      {:?}\n  h11       {:?} {}\n  httptools {:?} {}",
                    shown(parts),
                    h11.1,
                    h11.2,
                    answer["h11"][1],
                    httptools.2,
                    answer["httptools"][1],
                )),
            },
        }
    }
    println!("requests: {same} as both, {either} as one of them, {known:?}");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
    assert!(same * 10 > cases() * 5, "the streams say little: {same}");
}

/// A response as both sides tell it.
#[derive(Debug, PartialEq)]
struct Answered {
    interim: Vec<u64>,
    status: Option<u64>,
    /// Bytes of the body, where it is complete.
    body: Option<usize>,
    upgraded: bool,
}

/// h11 counts 101 among them.
fn interim(told: &Value) -> impl Iterator<Item = u64> {
    told["interim"].as_array().unwrap().iter().filter_map(Value::as_u64).filter(|status| *status != 101)
}

impl Answered {
    fn by_oracle(told: &Value) -> Self {
        let upgraded = told["upgraded"] == true || told["status"] == 101;
        let body = unhex(told["body"].as_str().unwrap()).len();
        Self {
            interim: interim(told).collect(),
            status: told["status"].as_u64().or_else(|| upgraded.then_some(101)),
            body: (told["complete"] == true || upgraded).then_some(if upgraded { 0 } else { body }),
            upgraded,
        }
    }

    fn by_us(signals: &[Signal]) -> Self {
        let mut told = Self { interim: Vec::new(), status: None, body: None, upgraded: false };
        for signal in signals.iter().filter(|signal| signal.exchange == 0) {
            match &signal.kind {
                SignalKind::Informational { status } => told.interim.push((*status).into()),
                SignalKind::ResponseHead(head) => told.status = Some(head.status.into()),
                SignalKind::Upgraded(_) => told.upgraded = true,
                SignalKind::ResponseEnd(end) if end.outcome == Outcome::Complete => {
                    told.body = Some(end.body_bytes as usize);
                }
                _ => {}
            }
        }
        told
    }
}

#[test]
fn responses_are_what_h11_and_httptools_see() {
    let streams: Vec<(u64, &str, Vec<Vec<u8>>)> = (0..cases())
        .map(|seed| {
            let mut draw = Draw(seed ^ 1 << 40);
            let method = draw.one(&["GET", "POST", "POST", "HEAD", "CONNECT"]);
            let bytes = draw::response(&mut draw, seed % 3 > 0);
            (seed, method, draw.split(&bytes, 12))
        })
        .collect();
    let in_hex = |parts: &[Vec<u8>]| parts.iter().map(|part| hex(part)).collect::<Vec<_>>();
    let question = |(_, method, parts): &(u64, &str, Vec<Vec<u8>>)| json!({"kind": "response", "method": method, "parts": in_hex(parts)});
    let questions: Vec<Value> = streams.iter().map(question).collect();
    let Some(answers) = python::ask(&questions) else { return };
    let (mut same, mut either, mut known) = (0, 0, std::collections::BTreeMap::new());
    let mut wrong: Vec<String> = Vec::new();
    for ((seed, method, parts), answer) in streams.iter().zip(&answers) {
        let target = if *method == "CONNECT" { "h:1" } else { "/" };
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
        let ours = Answered::by_us(&observe(Direction::Response, request.as_bytes(), parts));
        let theirs = |oracle: &str| answer.get(oracle).map(|told| Answered::by_oracle(&told[0]));
        let agree = ["h11", "httptools"].map(|oracle| theirs(oracle).map(|theirs| theirs == ours));
        match agree {
            [Some(true), Some(true) | None] => same += 1,
            [Some(true), _] | [_, Some(true)] => either += 1,
            _ if ours.status.is_none() && is_odd(&parts.concat()) => *known.entry("odd heads are refused").or_insert(0) += 1,
            _ => match difference(&parts.concat(), answer) {
                Some(why) => *known.entry(why).or_insert(0) += 1,
                None => wrong.push(format!(
                    "seed {seed}: {method} {}\n  ours      {ours:?}\n  h11       {:?} {}\n  httptools {:?} {}",
                    shown(parts),
                    theirs("h11"),
                    answer["h11"][1],
                    theirs("httptools"),
                    answer["httptools"][1],
                )),
            },
        }
    }
    println!("responses: {same} as all that were asked, {either} as one of them, {known:?}");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
    assert!(same * 10 > cases() * 5, "the streams say little: {same}");
}

/// Whether there is what httparse refuses in a response's head and h11 does not: control characters, and versions that
/// do not exist. No server writes either.
fn is_odd(bytes: &[u8]) -> bool {
    let control = |byte: &u8| byte.is_ascii_control() && !b"\r\n\t".contains(byte);
    let known = [&b"HTTP/1.0 "[..], b"HTTP/1.1 "];
    let version =
        |line: &[u8]| line.starts_with(b"HTTP/") && !known.iter().any(|known| line.starts_with(known));
    bytes.iter().any(control) || bytes.split(|byte| *byte == b'\n').any(version)
}

fn document(draw: &mut Draw) -> String {
    let (model, count) = (format!("m{}", draw.below(10_000)), draw.below(60) as u64);
    let message = |n: u64| json!({"role": "user", "content": format!("{n} words ").repeat(n as usize % 40)});
    let document = json!({"messages": (0..count).map(message).collect::<Vec<_>>(), "model": model});
    document.to_string()
}

/// A flipped bit may make another document, which may say a thing twice.
fn intact(content: &Value) -> bool {
    content.as_object().is_some_and(|object| object.len() == 2) && content["model"].is_string()
}

#[test]
fn compressed_bodies_are_what_zlib_and_brotli_unpack() {
    let codings = ["gzip", "deflate", "bare", "br"];
    let count = cases() / 4;
    let drawn: Vec<_> = (0..count)
        .map(|seed| {
            let mut draw = Draw(seed ^ 2 << 40);
            let document = document(&mut draw);
            (draw, codings[seed as usize % 4], document)
        })
        .collect();
    let pack = |(draw, coding, text): &(Draw, &str, String)| json!({"kind": "pack", "coding": coding, "seed": draw.0, "text": text});
    let Some(packed) = python::ask(&drawn.iter().map(pack).collect::<Vec<_>>()) else { return };
    // Each as it is, and broken.
    let mut streams = Vec::new();
    for ((mut draw, coding, _), answer) in drawn.into_iter().zip(&packed) {
        let whole = unhex(answer["data"].as_str().unwrap());
        let mut broken = whole.clone();
        for _ in 0..=draw.below(2) {
            let at = draw.below(broken.len());
            broken[at] ^= 1 << draw.below(8);
        }
        broken.truncate(broken.len() - draw.below(3));
        for bytes in [whole, broken] {
            let parts = draw.split(&bytes, 12);
            streams.push((coding, bytes, parts));
        }
    }
    let question = |(coding, bytes, _): &(&str, Vec<u8>, Vec<Vec<u8>>)| json!({"kind": "unpack", "coding": coding, "data": hex(bytes)});
    let answers = python::ask(&streams.iter().map(question).collect::<Vec<_>>()).unwrap();
    let (mut read, mut refused) = (0, 0);
    for ((coding, bytes, parts), answer) in streams.iter().zip(&answers) {
        let name = if *coding == "bare" { "deflate" } else { coding };
        let head =
            format!("POST / HTTP/1.1\r\nContent-Encoding: {name}\r\nContent-Length: {}\r\n\r\n", bytes.len());
        let signals = observe(Direction::Request, b"", &[&[head.into_bytes()], parts.as_slice()].concat());
        let end = signals.iter().find_map(|signal| match &signal.kind {
            SignalKind::RequestEnd(end) => Some(end),
            _ => None,
        });
        let end = end.expect("the framing does not depend on the content");
        assert_eq!((end.complete, end.body_bytes), (true, bytes.len() as u64));
        let Some(content) = answer["data"].as_str().map(unhex) else {
            // What came before the place where it broke may be a whole document: checksums stand behind it.
            refused += u64::from(end.unread.is_some() || !end.facts.whole);
            continue;
        };
        read += 1;
        if end.unread == Some(Unread::Bomb) {
            // A flipped bit asks for a window that nobody gets.
            assert_eq!((*coding, bytes[0] & 1), ("br", 1));
            continue;
        }
        if *coding == "gzip" && bytes[3] & 0xe0 > 0 {
            // Reserved flags (RFC 1952, section 2.3.1.2), which Python does not look at.
            continue;
        }
        assert_eq!(end.unread, None, "{coding} {}", hex(bytes));
        let Ok(content) = serde_json::from_slice::<Value>(&content) else { continue };
        if intact(&content) {
            assert!(end.facts.whole, "{coding} {}", hex(bytes));
            assert_eq!(end.facts.model.as_deref(), content["model"].as_str());
            assert_eq!(
                end.facts.messages_count.map(|n| n as usize),
                content["messages"].as_array().map(Vec::len)
            );
        }
    }
    println!("compressed: {read} read, {refused} refused of {}", streams.len());
    assert!(read >= count && refused > count / 4);
}

/// What a reference refuses by a policy of its own, and why we do not.
const POLICIES: [(&str, &str, &str); 20] = [
    ("h11", "Missing mandatory Host: header", "servers answer it with a 400, or take it: it is a request"),
    ("h11", "Found multiple Host: headers", "as above; the first is told"),
    (
        "h11",
        "Only Transfer-Encoding: chunked is supported",
        "RFC 9112, section 6.1: others may come before it",
    ),
    ("h11", "no request line received", "RFC 9112, section 2.2: empty lines before a request are skipped"),
    ("h11", "multiple Transfer-Encoding headers", "a response without content has no coding"),
    ("h11", "no response line received", "RFC 9112, section 2.2, as for requests"),
    (
        "httptools",
        "Transfer-Encoding can't be present with",
        "RFC 9112, section 6.3: the length is void then",
    ),
    ("httptools", "Unexpected whitespace after header value", "RFC 9112, section 5.2: folded lines are one"),
    ("httptools", "Invalid method encountered", "RFC 9110, section 9.1: any token is a method"),
    ("httptools", "Expected space after method", "RFC 9110, section 9.1: any token is a method"),
    ("httptools", "Invalid header field char", "RFC 9112, section 2.2: a lone LF ends a line"),
    ("httptools", "Missing expected CR after header value", "RFC 9112, section 2.2: a lone LF ends a line"),
    ("httptools", "Expected CRLF after version", "RFC 9112, section 2.2: a lone LF ends a line"),
    (
        "httptools",
        "Invalid `Transfer-Encoding` header value",
        "RFC 9110, section 6.5.1: as a trailer it says nothing",
    ),
    ("h11", "conflicting Content-Length headers", "RFC 9110, section 8.6: 03 and 3 are one length"),
    ("httptools", "Duplicate Content-Length", "RFC 9110, section 8.6: equal lengths are one"),
    ("httptools", "Invalid character in Content-Length", "RFC 9110, section 8.6: equal lengths are one"),
    // Go's net/http and cpp-httplib take them.
    ("h11", "illegal request line", "a target outside ASCII is read"),
    ("httptools", "HttpParserInvalidURLError", "a target outside ASCII is read"),
    ("httptools", "Content-Length can't be present with", "RFC 9112, section 6.3: the length is void then"),
];

/// The deliberate difference that explains why we do as neither: each refuses by a policy of its own.
fn difference(bytes: &[u8], answer: &Value) -> Option<&'static str> {
    let policy = |oracle: &str| {
        let said = answer[oracle][1].as_str()?;
        POLICIES
            .iter()
            .find(|(of, refusal, _)| *of == oracle && said.contains(refusal))
            .map(|(_, _, why)| *why)
    };
    let both = answer.get("httptools").is_none() || policy("httptools").is_some();
    let why = policy("h11").filter(|_| both)?;
    let mut lines = bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| line.trim_ascii().ends_with(b"HTTP/1.1") || line.trim_ascii().ends_with(b"HTTP/1.0"));
    // Without a line in its error, h11 met an empty one.
    let empty = answer["h11"][1] == "illegal request line";
    (!why.contains("ASCII") || empty || lines.any(|line| !line.is_ascii())).then_some(why)
}
