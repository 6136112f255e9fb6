//! System calls of which the kernel side copies the beginning and the end: 4,048 and 976 bytes behind the first 64 KiB
//! of a turn, 96 and 32 in the briefest mode.

use super::*;

const GET: &str = "GET /health HTTP/1.1\r\nHost: h\r\n\r\n";

/// What a turn brings in full, and what a call brings behind that.
const FULL: usize = 64 * 1024;
const LONG: (usize, usize) = (4048, 976);
const BRIEF: (usize, usize) = (96, 32);

/// The calls that move `bytes`, at most `size` bytes each, as they are captured.
fn calls(
    direction: Direction,
    bytes: &[u8],
    size: usize,
    full: usize,
    (head, tail): (usize, usize),
) -> Vec<Do> {
    let mut moved = 0;
    let call = |call: &[u8]| {
        let head = head.max(full.saturating_sub(moved));
        moved += call.len();
        Do::Cut(direction, call.to_vec(), head, tail)
    };
    bytes.chunks(size).map(call).collect()
}

fn ends(signals: &[Signal]) -> Vec<(u32, ResponseEnd)> {
    let end = |signal: &Signal| match signal.kind {
        SignalKind::ResponseEnd(end) => Some((signal.exchange, end)),
        _ => None,
    };
    signals.iter().filter_map(end).collect()
}

/// A body of the OpenAI client: what was asked last stands last.
fn image_body(size: usize) -> String {
    format!(
        r#"{{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{}"}}}},{{"type":"text","text":"say \"model\":\"no\""}}]}}],"model":"org/m","max_tokens":64,"n":1,"stream":true,"stream_options":{{"include_usage":true}}}}"#,
        "A".repeat(size)
    )
}

#[test]
fn edge_11_an_image_of_two_megabytes_hides_no_parameter() {
    let body = image_body(2 << 20);
    let framings = [
        post("/v1/chat/completions", &body),
        // undici and Go send a body of unknown length in chunks that no read is aligned to.
        body.as_bytes().chunks(30_000).fold(
            "POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            |whole, part| whole + &chunk(std::str::from_utf8(part).unwrap()),
        ) + "0\r\n\r\n",
    ];
    for (bytes, chunked) in framings.iter().zip([false, true]) {
        for size in [16 << 10, 65_536, 256 << 10, 4 << 20] {
            let mut script = calls(Direction::Request, bytes.as_bytes(), size, FULL, LONG);
            let last = script.len() as u64;
            script.extend([resp(json("{}")), req(GET), resp(json("{}"))]);
            let signals = run(false, &script);
            let end = request_end(&signals);
            assert!(end.complete && end.lost_bytes > 0, "by {size}");
            let expected = RequestFacts {
                model: Some("org/m".into()),
                max_tokens: Some(64),
                n: Some(1),
                stream: Some(true),
                include_usage: Some(true),
                ..RequestFacts::default()
            };
            assert_eq!(end.facts, expected, "by {size}");
            if !chunked {
                assert_eq!(end.body_bytes, body.len() as u64);
            }
            // Its end has the time of its last byte, and what follows is right.
            let time = |wanted: fn(&SignalKind) -> bool| {
                signals.iter().find(|signal| wanted(&signal.kind)).map(|signal| signal.time_ns)
            };
            assert_eq!(time(|kind| matches!(kind, SignalKind::RequestEnd(_))), Some(last), "by {size}");
            assert_eq!(ends(&signals).iter().filter(|(_, end)| end.outcome == Outcome::Complete).count(), 2);
        }
    }
}

#[test]
fn edge_11_what_does_not_lie_behind_the_hole_is_unknown() {
    // The parameters come first: known. A text that the hole cuts looks like parameters: unknown.
    let fake = r#"\",\"model\":\"no\",\"max_tokens\":1,\"stream\":false}"#;
    let body = format!(r#"{{"model":"m","messages":[{{"content":"{}{fake}"}}]}}"#, "A".repeat(200_000));
    let script = calls(Direction::Request, post("/", &body).as_bytes(), 32 << 10, FULL, LONG);
    let facts = request_end(&run(false, &script)).facts;
    assert_eq!(facts, RequestFacts { model: Some("m".into()), ..RequestFacts::default() });
    // So is a list of ids that it cuts.
    let body = format!(r#"{{"prompt":[{}9],"model":"m"}}"#, "1,".repeat(100_000));
    let script = calls(Direction::Request, post("/", &body).as_bytes(), 32 << 10, FULL, LONG);
    let facts = request_end(&run(false, &script)).facts;
    assert_eq!((facts.prompt_token_ids, facts.model.as_deref()), (None, Some("m")));
}

#[test]
fn edge_11_the_usage_behind_a_large_document_is_read() {
    let document = format!(
        r#"{{"object":"list","data":[{{"embedding":[{}0.5],"index":0}}],"model":"e","usage":{{"prompt_tokens":8,"total_tokens":8}}}}"#,
        "0.25,".repeat(60_000)
    );
    for framed in [
        json(&document),
        json("").replace("Content-Length: 0", "Transfer-Encoding: chunked") + &chunk(&document) + "0\r\n\r\n",
        json("").replace("Content-Length: 0", "X: y") + &document,
    ] {
        for size in [8 << 10, 64 << 10, 1 << 20] {
            let mut script = vec![req(post("/v1/embeddings", "{}"))];
            script.extend(calls(Direction::Response, framed.as_bytes(), size, FULL, LONG));
            script.push(Do::End(End::Closed));
            let signals = run(false, &script);
            let usage = Usage { input: Some(8), ..Usage::default() };
            assert_eq!(facts(&signals), [Fact::Model("e".into()), Fact::Usage(usage)], "by {size}");
            assert_eq!(last_end(&signals).outcome, Outcome::Complete);
            assert!(last_end(&signals).lost_bytes > 0);
        }
    }
}

/// Writes of a stream: chunks, of which some writes hold several.
fn writes(count: usize, together: usize, end_apart: bool) -> Vec<String> {
    let event = |n: usize| chunk(&chat(&format!("{}{n}", "word ".repeat(n % 40))));
    let events: Vec<String> = (0..count).map(event).collect();
    let mut writes: Vec<String> = events.chunks(together).map(<[String]>::concat).collect();
    if end_apart {
        writes.push("0\r\n\r\n".to_owned());
    } else {
        writes.last_mut().unwrap().push_str("0\r\n\r\n");
    }
    writes
}

#[test]
fn edge_13_cut_writes_leave_the_framing_exact() {
    for together in [1, 2, 7] {
        for end_apart in [true, false] {
            let mut script = vec![req(post("/", "{}")), resp(STREAM)];
            let writes = writes(100, together, end_apart);
            let cut = |write: &String| Do::Cut(Direction::Response, write.clone().into(), BRIEF.0, BRIEF.1);
            script.extend(writes.iter().map(cut));
            let last = script.len() as u64;
            script.extend([req(GET), resp(json("{}"))]);
            let signals = run(false, &script);
            let ends = ends(&signals);
            assert_eq!(ends.len(), 2, "{together} {end_apart}");
            assert!(
                ends.iter().all(|(_, end)| end.outcome == Outcome::Complete),
                "{together} {end_apart}: {ends:?}"
            );
            assert!(ends[0].1.lost_bytes > 0);
            let payload: usize =
                (0..100).map(|n| chat(&format!("{}{n}", "word ".repeat(n % 40))).len()).sum();
            match together {
                1 => assert_eq!(ends[0].1.body_bytes, payload as u64),
                _ => assert!(ends[0].1.body_bytes >= payload as u64),
            }
            let at = signals.iter().find(|signal| matches!(signal.kind, SignalKind::ResponseEnd(_))).unwrap();
            assert_eq!(at.time_ns, last, "{together} {end_apart}");
        }
    }
}

#[test]
fn edge_13_chunks_are_found_again_at_the_next_write() {
    let event = chunk(&chat("a"));
    let four = event.repeat(4);
    let cut = Do::Cut(Direction::Response, four.clone().into(), 96, 32);
    let size = chat("a").len() as u64;
    let signals = run(
        false,
        &[
            req(post("/", "{}")),
            resp(STREAM),
            resp(&event),
            cut.clone(),
            resp(&event),
            resp(event.repeat(2)),
            cut,
            resp(chunk("data: [DONE]\n\n")),
            resp("0\r\n\r\n"),
        ],
    );
    let end = last_end(&signals);
    assert_eq!((end.outcome, end.saw_done), (Outcome::Complete, true));
    assert!(end.body_bytes >= 12 * size && end.body_bytes < 12 * size + 14 + 8 * 8, "{end:?}");
    // One, then one that the cut did not hide, then three, then one; `[DONE]` is none.
    assert!(tokens(&signals).len() >= 4, "{:?}", tokens(&signals));
}

#[test]
fn edge_13_without_its_end_a_stream_is_partial() {
    let four = chunk(&chat("a")).repeat(4);
    let adrift = [
        req(post("/", "{}")),
        resp(STREAM),
        // Nothing of its end is copied.
        Do::RespLost(four.as_bytes()[..96].into(), four.len() as u32 - 96),
    ];
    let with = |more: Vec<Do>| run(false, &[adrift.to_vec(), more].concat());
    // The next request shows that it is over, and is right itself.
    let signals = with(vec![req(GET), resp(json("{}"))]);
    let outcomes: Vec<_> = ends(&signals).iter().map(|(exchange, end)| (*exchange, end.outcome)).collect();
    assert_eq!(outcomes, [(0, Outcome::Partial), (1, Outcome::Complete)]);
    // So does the next response, whose request was lost.
    let signals = with(vec![Do::ReqGone(50), resp(json("{}")), req(GET), resp(json("{}"))]);
    let outcomes: Vec<_> = ends(&signals).iter().map(|(exchange, end)| (*exchange, end.outcome)).collect();
    assert_eq!(outcomes, [(0, Outcome::Partial), (1, Outcome::Partial), (2, Outcome::Complete)]);
    assert!(signals.iter().any(|signal| signal.kind == SignalKind::RequestUnseen));
    // And the close.
    assert_eq!(last_end(&with(vec![Do::End(End::Closed)])).outcome, Outcome::Partial);
    // What looks like a chunk and is none is no broken rule.
    let signals = with(vec![resp("3\r\nabc\r\n7\r\nx"), resp("yyyyyyyyyyyyyyy"), req(GET), resp(json("{}"))]);
    assert!(!signals.iter().any(|signal| matches!(signal.kind, SignalKind::Malformed(_))));
    assert_eq!(last_end(&signals).outcome, Outcome::Complete);
}

#[test]
fn edge_13_the_end_of_a_call_is_not_its_start() {
    // The last bytes of a read look like a request, those of a write like a response.
    let body = format!("{}{GET}", "x".repeat(5000));
    let unknown = Do::ReqLost(b"POST / HTTP/1.1\r\nX: ".to_vec(), 200);
    let cut = Do::Cut(Direction::Request, body.into(), 96, GET.len());
    let signals = run(false, &[unknown, cut, resp(json("{}"))]);
    assert!(signals.iter().all(|signal| signal.exchange == 0), "{signals:?}");
    let write = format!("{}{}", "x".repeat(5000), json("{}"));
    let cut = Do::Cut(Direction::Response, write.into(), 96, json("{}").len());
    let signals = run(true, &[cut, req(GET), resp(json("{}"))]);
    assert_eq!(ends(&signals).len(), 2, "{signals:?}");
    // Nor is a later record of a call that is copied whole.
    let mut driver = Driver::new(false);
    driver.step(&Do::ReqLost(b"POST / HTTP/1.1\r\nX: ".to_vec(), 200));
    driver.step += 1;
    driver.bytes(Direction::Request, b"rest of a head", 0);
    driver.bytes(Direction::Request, GET.as_bytes(), 0);
    driver.step(&resp(json("{}")));
    assert!(driver.out.iter().all(|signal| signal.exchange == 0), "{:?}", driver.out);
}
