//! The HTTP/2 observer held against Python's `hpack` and `h2` on thousands of random header blocks and connections.
//!
//! In: what the reference encodes, at random splits, with and without losses. Out: what it encoded, or, where bytes
//! were missed, a part of that and nothing else. Blocks that were tampered with are taken or refused as the reference
//! does; the deliberate differences are in [`is_policy`], with their reasons.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends at its first surprise")]
#![expect(clippy::print_stdout, reason = "a test says what it compared, or why it cannot")]

mod python;

use std::collections::BTreeMap;

use profiler::h2::Connection;
use profiler::http::{Direction, End, Outcome, RequestHead, Signal, SignalKind};
use serde_json::Value;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Blocks of each kind, unless `GPUSPAN_ORACLE_CASES` asks for others.
fn cases() -> usize {
    std::env::var("GPUSPAN_ORACLE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(4000)
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// HEADERS with END_HEADERS and END_STREAM.
fn headers(stream: u32, block: &[u8]) -> Vec<u8> {
    let mut bytes = (block.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([1, 5]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(block);
    bytes
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % end.max(1) as u64) as usize
    }
}

/// A connection whose client's bytes come as told.
struct Client {
    connection: Connection,
    position: u64,
    out: Vec<Signal>,
}

impl Client {
    fn new(mid_stream: bool) -> Self {
        let mut client = Self { connection: Connection::new(mid_stream), position: 0, out: Vec::new() };
        if !mid_stream {
            client.feed(PREFACE);
        }
        client
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.connection.on_bytes(Direction::Request, self.position, 1, bytes, 0, &mut self.out);
        self.position += bytes.len() as u64;
    }

    fn heads(&self) -> BTreeMap<u32, &RequestHead> {
        let heads = self.out.iter().filter_map(|signal| match &signal.kind {
            SignalKind::RequestHead(head) => Some((signal.exchange, &**head)),
            _ => None,
        });
        heads.collect()
    }
}

/// What we keep of the reference's fields, as one line.
fn expected(fields: &Value) -> BTreeMap<&'static str, String> {
    let mut kept = BTreeMap::new();
    for field in fields.as_array().unwrap() {
        let (name, value) = (field[0].as_str().unwrap(), field[1].as_str().unwrap());
        let cut = |max: usize| value.trim()[..value.trim().len().min(max)].to_owned();
        let (name, value) = match name {
            ":method" => ("method", value.to_owned()),
            ":path" => ("path", cut(1024)),
            ":authority" => ("host", cut(256)),
            "user-agent" => ("agent", cut(256)),
            "x-request-id" => ("id", cut(256)),
            "content-length" => ("length", value.to_owned()),
            _ => continue,
        };
        kept.insert(name, value);
    }
    kept
}

fn said(head: &RequestHead) -> BTreeMap<&'static str, String> {
    let fields = [
        ("method", Some(head.method.as_str().to_owned())),
        ("path", Some(head.path.clone()).filter(|path| !path.is_empty())),
        ("host", head.host.clone()),
        ("agent", head.user_agent.clone()),
        ("id", head.request_id.clone()),
        ("length", head.content_length.map(|length| length.to_string())),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

#[test]
fn header_blocks_say_what_was_encoded() {
    let Some(blocks) = python::ask("blocks", 1, cases()) else { return };
    let mut client = Client::new(false);
    let mut draw = Draw(7);
    let all: Vec<u8> = (0_u32..)
        .zip(&blocks)
        .flat_map(|(n, block)| headers(n * 2 + 1, &unhex(block["block"].as_str().unwrap())))
        .collect();
    let mut rest = &all[..];
    while !rest.is_empty() {
        let (part, behind) = rest.split_at((1 + draw.below(600)).min(rest.len()));
        client.feed(part);
        assert!(!client.connection.is_opaque(), "behind {:?}", client.heads().last_key_value());
        rest = behind;
    }
    let heads = client.heads();
    for (n, block) in (0_u32..).zip(&blocks) {
        assert_eq!(said(heads[&(n * 2 + 1)]), expected(&block["fields"]), "{block}");
    }
    println!("{} header blocks, {} bytes", blocks.len(), all.len());
}

#[test]
fn edge_36_behind_lost_blocks_nothing_wrong_is_said() {
    let Some(blocks) = python::ask("blocks", 2, cases()) else { return };
    for (seed, mid_stream, lost_percent) in [(1, true, 0), (2, false, 1), (3, false, 10), (4, true, 30)] {
        let mut draw = Draw(seed);
        let mut client = Client::new(mid_stream);
        let (mut seen, mut lost) = (0, 0);
        // The first third is from before an attach.
        let skipped = if mid_stream { blocks.len() / 3 } else { 0 };
        for (n, block) in (0_u32..).zip(&blocks).skip(skipped) {
            let bytes = headers(n * 2 + 1, &unhex(block["block"].as_str().unwrap()));
            if draw.below(100) < lost_percent {
                client.position += bytes.len() as u64;
                lost += 1;
            } else {
                client.feed(&bytes);
                seen += 1;
            }
        }
        assert!(!client.connection.is_opaque());
        let heads = client.heads();
        let (mut whole, mut parts, mut fields) = (0, 0, 0);
        for (stream, head) in &heads {
            let expected = expected(&blocks[(*stream as usize - 1) / 2]["fields"]);
            let said = said(head);
            fields += said.len();
            for (name, value) in &said {
                assert_eq!(Some(value), expected.get(name), "{name} of {stream}");
            }
            if said == expected { whole += 1 } else { parts += 1 }
        }
        println!("{seen} blocks seen, {lost} lost: {whole} whole heads, {parts} in part, {fields} fields");
        // Every block that was seen has a method, which stands in the static table or in the block.
        assert!(heads.len() * 100 >= seen * 90, "{} heads of {seen}", heads.len());
        assert!(whole * 100 >= seen * 40, "{whole} of {seen}");
    }
}

/// Where we refuse what the reference takes, or the other way round, on purpose.
fn is_policy(ours_refuses: bool, answer: &Value, block: &[u8]) -> bool {
    let reference = answer.as_str().unwrap_or_default();
    if reference.starts_with("astray") || reference.starts_with("OversizedHeaderListError") {
        return true;
    }
    // Integers of more than four octets behind their prefix: the reference reads them to any length (RFC 7541, section
    // 5.1, lets implementations set limits).
    ours_refuses && block.windows(4).any(|octets| octets.iter().all(|octet| octet & 0x80 != 0))
}

#[test]
fn broken_blocks_are_refused_where_the_reference_refuses_them() {
    let Some(cases) = python::ask("hostile", 3, cases()) else { return };
    let (mut taken, mut refused, mut policies) = (0, 0, 0);
    for case in &cases {
        let mut client = Client::new(false);
        let blocks = case["blocks"].as_array().unwrap().iter().map(|block| unhex(block.as_str().unwrap()));
        for ((n, block), answer) in (0_u32..).zip(blocks).zip(case["answers"].as_array().unwrap()) {
            client.feed(&headers(n * 2 + 1, &block));
            let ours_refuses = client.connection.is_opaque();
            if ours_refuses != answer.is_string() {
                assert!(is_policy(ours_refuses, answer, &block), "{ours_refuses}: {case}");
                policies += 1;
                break;
            }
            if ours_refuses {
                refused += 1;
                break;
            }
            taken += 1;
            // Of fields that stand twice the first counts, here as there.
            let fields = answer.as_array().unwrap();
            let first = |name: &str| {
                fields.iter().find(|field| field[0] == name).map(|field| field[1].as_str().unwrap())
            };
            if let Some(head) = client.heads().get(&(n * 2 + 1)) {
                let agent = first("user-agent").filter(|agent| agent.is_ascii() && agent.trim() == *agent);
                if let Some(agent) = agent.filter(|agent| !agent.is_empty() && agent.len() <= 256) {
                    assert_eq!(head.user_agent.as_deref(), Some(agent), "{case}");
                }
                assert!(first(":method").is_some(), "{case}");
            }
        }
    }
    println!("{taken} blocks taken, {refused} refused, {policies} by policy");
    assert!(taken > cases.len() / 3 && refused > cases.len() / 5 && policies < cases.len() / 50);
}

/// What was said of a stream.
#[derive(Debug, Default)]
struct Told {
    path: String,
    model: Option<String>,
    status: Option<u16>,
    /// What the content is stands in a part of the table that was missed.
    opaque: bool,
    tokens: u64,
    bytes: u64,
    ended: Vec<Outcome>,
}

fn told(signals: &[Signal]) -> BTreeMap<String, Told> {
    let mut streams: BTreeMap<String, Told> = BTreeMap::new();
    for signal in signals {
        let told = streams.entry(signal.exchange.to_string()).or_default();
        match &signal.kind {
            SignalKind::RequestHead(head) => told.path = head.path.clone(),
            SignalKind::RequestEnd(end) => told.model = end.facts.model.clone(),
            SignalKind::ResponseHead(head) => (told.status, told.opaque) = (Some(head.status), head.opaque),
            SignalKind::Token { .. } => told.tokens += 1,
            SignalKind::ResponseEnd(end) => {
                told.bytes = end.body_bytes;
                told.ended.push(end.outcome);
            }
            _ => {}
        }
    }
    streams
}

/// Replays a session. `lost`: of a hundred records, so many never arrive.
fn replay(session: &Value, draw: &mut Draw, lost: usize) -> BTreeMap<String, Told> {
    let mut connection = Connection::new(false);
    let (mut positions, mut out, mut time_ns) = ([0_u64; 2], Vec::new(), 0);
    for record in session["sent"].as_array().unwrap() {
        let (direction, place) = match record[0].as_str() {
            Some("request") => (Direction::Request, 0),
            _ => (Direction::Response, 1),
        };
        let bytes = unhex(record[1].as_str().unwrap());
        let most = if lost > 0 { usize::MAX } else { 1 + draw.below(20_000) };
        for part in bytes.chunks(most) {
            time_ns += 1;
            if draw.below(100) >= lost {
                connection.on_bytes(direction, positions[place], time_ns, part, 0, &mut out);
            }
            positions[place] += part.len() as u64;
        }
    }
    connection.on_bytes(Direction::Request, positions[0], time_ns, &[], 0, &mut out);
    connection.on_bytes(Direction::Response, positions[1], time_ns, &[], 0, &mut out);
    assert!(!connection.is_opaque());
    connection.on_end(End::Closed, time_ns, &mut out);
    told(&out)
}

#[test]
fn connections_of_a_real_client_and_server() {
    let Some(sessions) = python::ask("sessions", 4, cases() / 250) else { return };
    let (mut streams, mut complete) = (0, 0);
    let mut draw = Draw(11);
    for session in &sessions {
        let told = replay(session, &mut draw, 0);
        let expected = session["streams"].as_object().unwrap();
        assert_eq!(told.len(), expected.len());
        for (stream, truth) in expected {
            let told = &told[stream];
            assert_eq!(told.path, truth["path"].as_str().unwrap());
            assert_eq!(told.model.is_some(), truth["method"] == "POST");
            assert_eq!(told.status.map(u64::from), truth["status"].as_u64(), "{told:?} {truth}");
            assert_eq!(told.tokens, truth["tokens"].as_u64().unwrap(), "{told:?} {truth}");
            assert_eq!(told.bytes, truth["bytes"].as_u64().unwrap(), "{told:?} {truth}");
            let outcome = match truth["outcome"].as_str().unwrap() {
                "complete" => Outcome::Complete,
                "left" => Outcome::Truncated(End::EndOfInput),
                _ => Outcome::Truncated(End::Closed),
            };
            assert_eq!(told.ended, [outcome], "{told:?} {truth}");
            streams += 1;
            complete += usize::from(outcome == Outcome::Complete);
        }
    }
    println!("{} connections, {streams} streams, {complete} complete", sessions.len());
}

#[test]
fn edge_13_connections_with_lost_records() {
    let Some(sessions) = python::ask("sessions", 5, cases() / 250) else { return };
    let (mut right, mut partial, mut all) = (0, 0, 0);
    for (seed, session) in (0..).zip(&sessions) {
        let told = replay(session, &mut Draw(seed), 3);
        let expected = session["streams"].as_object().unwrap();
        all += expected.len();
        for (stream, told) in &told {
            let truth = expected.get(stream).unwrap_or_else(|| panic!("{stream} was never there: {told:?}"));
            assert_eq!(told.ended.len(), 1, "{told:?}");
            let path = truth["path"].as_str().unwrap();
            assert!(told.path.is_empty() || told.path == path, "{told:?} {truth}");
            assert!(told.tokens <= truth["tokens"].as_u64().unwrap(), "{told:?} {truth}");
            let status = told.status.map(u64::from);
            assert!(status.is_none() || status == truth["status"].as_u64(), "{told:?} {truth}");
            if told.ended == [Outcome::Complete] {
                assert_eq!(truth["outcome"], "complete", "{told:?} {truth}");
                assert_eq!(told.path.as_str(), path, "{truth}");
                let tokens = if told.opaque { 0 } else { truth["tokens"].as_u64().unwrap() };
                assert_eq!(told.tokens, tokens, "{told:?} {truth}");
                right += 1;
            } else {
                partial += 1;
            }
        }
    }
    println!("{all} streams: {right} complete and right, {partial} in part");
    assert!(right > all / 20, "{right} of {all}");
}
