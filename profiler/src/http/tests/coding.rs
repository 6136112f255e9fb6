//! Compressed content, both ways.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use super::*;

const ASK: &str = r#"{"model":"m","messages":[{"role":"user","content":"hé"}],"stream":true,"max_tokens":9}"#;

fn gzip(parts: &[&str]) -> Vec<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut out: Vec<Vec<u8>> = parts
        .iter()
        .map(|part| {
            encoder.write_all(part.as_bytes()).unwrap();
            encoder.flush().unwrap();
            std::mem::take(encoder.get_mut())
        })
        .collect();
    out.push(encoder.finish().unwrap());
    out
}

fn zlib(text: &str) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn bare(text: &str) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// Brotli with stored blocks only (RFC 7932, section 9.2): WBITS 16, then a block of four nibbles of length, then
/// the empty last block.
fn brotli(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let header = ((text.len() as u32 - 1) << 4) | 1 << 20;
    out.extend(&header.to_le_bytes()[..3]);
    out.extend(text.as_bytes());
    out.push(3);
    out
}

fn post_encoded(coding: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("POST / HTTP/1.1\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn framed(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

fn stream_head(coding: &str) -> String {
    STREAM.replace("\r\n\r\n", &format!("\r\nContent-Encoding: {coding}\r\n\r\n"))
}

#[test]
fn edge_12_every_coding_of_a_request_is_read_at_every_split() {
    let expected = request_facts(ASK);
    assert!(expected.whole);
    for (coding, body) in [
        ("gzip", gzip(&[ASK]).concat()),
        ("X-GZip", gzip(&[&ASK[..20], &ASK[20..]]).concat()),
        ("deflate", zlib(ASK)),
        ("deflate", bare(ASK)),
        ("br", brotli(ASK)),
        ("identity, gzip", gzip(&[ASK]).concat()),
        // Members one behind the other are one content (RFC 1952, section 2.2).
        ("gzip", [gzip(&[&ASK[..40]]).concat(), gzip(&[&ASK[40..]]).concat()].concat()),
    ] {
        let bytes = post_encoded(coding, &body);
        for at in 0..bytes.len() {
            let end = request_end(&run(false, &[req(&bytes[..at]), req(&bytes[at..])]));
            assert_eq!((&end.facts, end.unread), (&expected, None), "{coding} at {at}");
            assert_eq!(end.body_bytes, body.len() as u64);
        }
    }
    // In the transfer coding.
    let head = b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n";
    let bytes = [&head[..], &framed(&gzip(&[ASK]).concat()), b"0\r\n\r\n"].concat();
    assert_eq!(request_end(&run(false, &[req(bytes)])).facts, expected);
}

#[test]
fn edge_12_events_of_a_compressed_stream_have_the_times_of_their_writes() {
    let events = [chat("a"), chat("é"), chat(""), data_done()];
    let parts: Vec<&str> = events.iter().map(String::as_str).collect();
    for size in [1, 3, 1000] {
        let mut script = vec![req(post("/", "{}")), resp(stream_head("gzip"))];
        for part in gzip(&parts).iter().filter(|part| !part.is_empty()) {
            script.extend(framed(part).chunks(size).map(resp));
        }
        script.push(resp("0\r\n\r\n"));
        let signals = run(false, &script);
        assert_eq!(tokens(&signals), [(0, 1), (0, 2)]);
        let end = last_end(&signals);
        assert_eq!((end.outcome, end.saw_done, end.unread, end.events), (Outcome::Complete, true, None, 3));
        if size == 1000 {
            let times: Vec<_> = signals
                .iter()
                .filter(|signal| matches!(signal.kind, SignalKind::Token { .. }))
                .map(|signal| signal.time_ns)
                .collect();
            assert_eq!(times, [3, 4], "each is told with its own write");
        }
    }
    let whole = [stream_head("br").as_bytes(), &framed(&brotli(&events.concat())), b"0\r\n\r\n"].concat();
    for at in 0..whole.len() {
        let signals = run(false, &[req(post("/", "{}")), resp(&whole[..at]), resp(&whole[at..])]);
        assert_eq!((tokens(&signals).len(), last_end(&signals).saw_done), (2, true), "{at}");
    }
}

fn data_done() -> String {
    "data: [DONE]\n\n".to_owned()
}

#[test]
fn edge_12_what_cannot_be_unpacked_ends_the_reading_and_not_the_framing() {
    let next = || [req("GET / HTTP/1.1\r\n\r\n"), resp(json("{}"))];
    let bomb = gzip(&[&" ".repeat(8 << 20)]).concat();
    assert!(bomb.len() < 10_000);
    let mut corrupt = gzip(&[ASK]).concat();
    corrupt[14] ^= 0x55;
    for (coding, body, unread) in [
        ("gzip", bomb.clone(), Unread::Bomb),
        ("gzip", corrupt, Unread::Corrupt),
        ("gzip", ASK.into(), Unread::Corrupt),
        ("br", b"\xff\xff\xff\xff".to_vec(), Unread::Bomb),
        ("br", vec![0x11; 40], Unread::Bomb),
        ("br", ASK.into(), Unread::Corrupt),
        ("gzip, gzip", ASK.into(), Unread::Coding),
        ("zstd", ASK.into(), Unread::Coding),
    ] {
        let mut script = vec![req(post_encoded(coding, &body)), resp(json("{}"))];
        script.extend(next());
        let signals = run(false, &script);
        let end = request_end(&signals);
        assert_eq!(
            (end.unread, end.complete, end.body_bytes),
            (Some(unread), true, body.len() as u64),
            "{coding}"
        );
        assert_eq!(signals.last().unwrap().exchange, 1, "{coding}");
        assert_eq!(last_end(&signals).outcome, Outcome::Complete);
    }
    // A response's.
    let mut script = vec![req(post("/", "{}")), resp(stream_head("gzip"))];
    script.extend([resp(framed(&bomb)), resp("0\r\n\r\n")]);
    script.extend(next());
    let signals = run(false, &script);
    let end = signals.iter().find_map(|signal| match signal.kind {
        SignalKind::ResponseEnd(end) => Some(end),
        _ => None,
    });
    assert_eq!(end.map(|end| (end.unread, end.outcome)), Some((Some(Unread::Bomb), Outcome::Complete)));
    assert_eq!(signals.last().unwrap().exchange, 1);
}

#[test]
fn edge_13_a_gap_ends_the_unpacking_alone() {
    let events = [chat("a"), chat("b"), chat("c")];
    let parts = gzip(&events.each_ref().map(String::as_str));
    let second = framed(&parts[1]);
    let cut = Do::Cut(Direction::Response, second.clone(), 8, 2);
    let script = [
        req(post("/", "{}")),
        resp(stream_head("gzip")),
        resp(framed(&parts[0])),
        cut,
        resp(framed(&parts[2])),
    ];
    let mut script = script.to_vec();
    script.extend([resp("0\r\n\r\n"), req("GET / HTTP/1.1\r\n\r\n"), resp(json("{}"))]);
    let signals = run(false, &script);
    assert_eq!(tokens(&signals), [(0, 1)]);
    let end = signals.iter().find_map(|signal| match signal.kind {
        SignalKind::ResponseEnd(end) => Some(end),
        _ => None,
    });
    let end = end.unwrap();
    assert_eq!((end.outcome, end.unread), (Outcome::Complete, Some(Unread::Gap)));
    assert!(end.lost_bytes > 0);
    assert_eq!(signals.last().unwrap().exchange, 1);
    // A request.
    let body = gzip(&[ASK]).concat();
    let bytes = post_encoded("gzip", &body);
    let end = request_end(&run(false, &[Do::Cut(Direction::Request, bytes, 80, 8)]));
    assert_eq!((end.complete, end.unread, end.facts.model), (true, Some(Unread::Gap), None));
}
