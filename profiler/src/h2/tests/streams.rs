//! Frames and streams that are seen whole.

use super::*;

const COMPLETE: Outcome = Outcome::Complete;
const LEFT: Outcome = Outcome::Truncated(End::EndOfInput);
const FAILED: Outcome = Outcome::Truncated(End::Closed);

#[test]
fn a_request_and_its_answer() {
    let signals =
        run(&[req(post(1, "/v1/chat/completions?q", r#"{"model":"m"}"#)), resp(json(1, r#"{"id":"a"}"#))]);
    check(
        &signals,
        &[
            "1@1 start",
            "1@1 POST /v1/chat/completions",
            "1@1 asked 13 model=m",
            "1@2 answering",
            "1@2 200 None",
            "1@2 id=a",
            "1@2 Complete 10",
        ],
    );
    let SignalKind::RequestHead(head) = &signals[1].kind else { panic!() };
    assert_eq!((head.host.as_deref(), head.version), (Some("h"), crate::http::HttpVersion::Http2));
}

#[test]
fn edge_19_events_of_many_streams_in_any_order() {
    let mut script = vec![req([post(1, "/a", "{}"), post(3, "/b", "{}")].concat())];
    script.push(resp([answer(3, "text/event-stream"), answer(1, "text/event-stream")].concat()));
    // One event over two frames, with another stream's between them; two events in one frame.
    let event = chat("one");
    script.push(resp(data(1, 0, &event[..20])));
    script.push(resp(data(3, 0, chat("three") + &chat("three"))));
    script.push(resp(data(1, 0, &event[20..])));
    script.push(resp([data(1, END_STREAM, "data: [DONE]\n\n"), data(3, END_STREAM, "")].concat()));
    let signals = run(&script);
    let told: Vec<String> = lines(&signals).into_iter().filter(|line| line.contains("token")).collect();
    assert_eq!(told, ["3@4 token", "3@4 token", "1@5 token"]);
    assert_eq!(outcomes(&signals), [(1, COMPLETE), (3, COMPLETE)]);
}

#[test]
fn padding_and_priority_are_no_payload() {
    let padded = |flags: u8, before: &[u8], payload: &[u8]| {
        [&[3][..], before, payload, &[0; 3]].concat().into_iter().collect::<Vec<u8>>().tap(flags)
    };
    let head = padded(PADDED | PRIORITY | END_HEADERS, &[0, 0, 0, 0, 16], &block(&ask("POST", "/a")));
    let body = padded(PADDED | END_STREAM, &[], br#"{"model":"m"}"#);
    let signals = run(&[req([frame(HEADERS, head.0, 1, &head.1), frame(DATA, body.0, 1, &body.1)].concat())]);
    check(&signals, &["1@1 start", "1@1 POST /a", "1@1 asked 13 model=m"]);
    // A frame of padding alone.
    let signals =
        run(&[req(headers(1, 0, &ask("POST", "/a"))), req(frame(DATA, PADDED | END_STREAM, 1, &[0]))]);
    check(&signals, &["1@1 start", "1@1 POST /a", "1@2 asked 0"]);
}

trait Tap: Sized {
    fn tap(self, flags: u8) -> (u8, Self) {
        (flags, self)
    }
}
impl Tap for Vec<u8> {}

#[test]
fn a_header_block_over_many_frames() {
    let fields =
        block(&[(":method", "POST"), (":path", "/a"), (":scheme", "http"), ("cookie", &"x".repeat(9000))]);
    let mut parts = fields.chunks(1000);
    let mut bytes = frame(HEADERS, END_STREAM, 1, parts.next().unwrap());
    let rest: Vec<&[u8]> = parts.collect();
    for (n, part) in rest.iter().enumerate() {
        let last = n + 1 == rest.len();
        bytes.extend(frame(CONTINUATION, if last { END_HEADERS } else { 0 }, 1, part));
    }
    check(&run(&[req(bytes)]), &["1@1 start", "1@1 POST /a", "1@1 asked 0"]);
}

#[test]
fn edge_11_a_traceparent_behind_six_kilobytes_of_cookies() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let cookies = "x".repeat(6000);
    let fields =
        [&ask("POST", "/a")[..], &[("cookie", &cookies), ("traceparent", trace), ("tracestate", "a=1")]];
    let signals = run(&[req(headers(1, END_STREAM, &fields.concat()))]);
    let SignalKind::RequestHead(head) = &signals[1].kind else { panic!("{signals:?}") };
    assert!(head.traceparent.is_some());
    assert_eq!(head.tracestate.as_deref(), Some("a=1"));
}

#[test]
fn a_header_block_that_is_too_long_hides_its_stream_alone() {
    let huge = block(&[(":method", "POST"), ("cookie", &"x".repeat(70_000))]);
    let mut driver = Driver::new(false);
    driver.step(&req([opening(), frame(HEADERS, END_STREAM | END_HEADERS, 1, &huge), get(3, "/b")].concat()));
    driver.step(&resp([greeting(), json(1, "{}"), json(3, "{}")].concat()));
    assert_eq!(outcomes(&driver.out), [(1, Outcome::Partial), (3, COMPLETE)]);
    assert_eq!(driver.connection.counts().lost_blocks, 1);
}

#[test]
fn frames_that_say_nothing_of_streams_are_skipped() {
    let others = [
        frame(PING, 0, 0, &[0; 8]),
        frame(WINDOW, 0, 0, &[0, 0, 1, 0]),
        frame(WINDOW, 0, 1, &[0, 0, 1, 0]),
        frame(2, 0, 1, &[0; 5]),
        frame(0x4d, 0xff, 77, &[0; 20]),
        frame(SETTINGS, 1, 0, &[]),
        frame(10, 0, 0, b"alt"),
    ]
    .concat();
    let signals = run(&[
        req([others.clone(), get(1, "/"), others.clone()].concat()),
        resp([others.clone(), json(1, "{}"), others].concat()),
    ]);
    assert_eq!(outcomes(&signals), [(1, COMPLETE)]);
}

#[test]
fn edge_10_interim_responses_head_and_responses_without_content() {
    let interim = headers(1, 0, &[(":status", "103"), ("link", "x")]);
    check(
        &run(&[req(get(1, "/")), resp([interim, json(1, "{}")].concat())])[3..],
        &["1@2 Informational { status: 103 }", "1@2 answering", "1@2 200 None", "1@2 Complete 2"],
    );
    let kind = ("content-type", "application/json");
    for (method, status) in [("HEAD", "200"), ("GET", "204"), ("GET", "304")] {
        let asked = headers(1, END_STREAM, &ask(method, "/"));
        let head = headers(1, END_STREAM, &[(":status", status), kind, ("content-length", "5")]);
        let signals = run(&[req(asked), resp(head)]);
        check(&signals[3..], &["1@2 answering", &format!("1@2 {status} None"), "1@2 Complete 0"]);
    }
}

#[test]
fn trailers_end_both_ways() {
    let trailers = headers(1, END_STREAM, &[("x-checksum", "1")]);
    let asked = [headers(1, 0, &ask("POST", "/a")), data(1, 0, "{}"), trailers.clone()].concat();
    let answered = [answer(1, "application/json"), data(1, 0, r#"{"id":"a"}"#), trailers].concat();
    check(
        &run(&[req(asked), resp(answered)])[2..],
        &["1@1 asked 2", "1@2 answering", "1@2 200 None", "1@2 id=a", "1@2 Complete 10"],
    );
}

#[test]
fn an_answer_before_the_request_is_whole_ends_it() {
    let signals = run(&[
        req([headers(1, 0, &ask("POST", "/a")), data(1, 0, "{")].concat()),
        resp(headers(1, END_STREAM, &[(":status", "413")])),
        resp(frame(RESET, 0, 1, &[0; 4])),
        req([data(1, END_STREAM, "}"), get(3, "/")].concat()),
    ]);
    check(
        &signals[2..],
        &[
            "1@2 answering",
            "1@2 413 None",
            "1@2 asked 1 cut",
            "1@2 Complete 0",
            "3@4 start",
            "3@4 GET /",
            "3@4 asked 0",
        ],
    );
}

#[test]
fn edge_9_resets_by_client_and_by_server() {
    let streamed = [answer(1, "text/event-stream"), data(1, 0, chat("a"))].concat();
    for (reset, outcome) in [
        (req(frame(RESET, 0, 1, &[0, 0, 0, 8])), LEFT),
        (resp(frame(RESET, 0, 1, &[0, 0, 0, 2])), FAILED),
        (resp(frame(RESET, 0, 1, &[0, 0, 0, 7])), Outcome::Refused),
        (resp(frame(RESET, 0, 1, &[0, 0, 0, 0])), FAILED),
    ] {
        let signals = run(&[req(post(1, "/a", "{}")), resp(&streamed), reset]);
        assert_eq!(outcomes(&signals), [(1, outcome)]);
        assert_eq!(tokens(&signals), 1);
    }
    // After the complete response it means nothing.
    let signals = run(&[req(post(1, "/a", "{}")), resp(json(1, "{}")), resp(frame(RESET, 0, 1, &[0; 4]))]);
    assert_eq!(outcomes(&signals), [(1, COMPLETE)]);
}

#[test]
fn goaway_names_the_last_stream_that_was_processed() {
    let away = |last: u32| frame(GOAWAY, 0, 0, &[&last.to_be_bytes()[..], &[0; 4], b"debug"].concat());
    let asked = req([get(1, "/"), get(3, "/"), get(5, "/")].concat());
    let signals = run(&[
        asked.clone(),
        resp(away(0x7fff_ffff)),
        resp(away(3)),
        resp([json(1, "{}"), json(3, "{}")].concat()),
    ]);
    assert_eq!(outcomes(&signals), [(5, Outcome::Refused), (1, COMPLETE), (3, COMPLETE)]);
    // A client's says nothing of its own streams.
    let signals = run(&[asked, req(away(0)), resp(json(3, "{}"))]);
    assert_eq!(outcomes(&signals), [(3, COMPLETE)]);
}

#[test]
fn the_end_of_the_connection_ends_all_streams() {
    let asked = req([get(1, "/"), get(3, "/"), headers(5, 0, &ask("POST", "/"))].concat());
    for (end, outcome) in [
        (End::Closed, FAILED),
        (End::Failed, Outcome::Truncated(End::Failed)),
        (End::ProcessExited, Outcome::Truncated(End::ProcessExited)),
        (End::Detached, Outcome::Partial),
    ] {
        let signals = run(&[asked.clone(), resp(json(3, "{}")), Do::End(end)]);
        assert_eq!(outcomes(&signals), [(3, COMPLETE), (1, outcome), (5, outcome)]);
    }
    let signals = run(&[asked, Do::End(End::EndOfInput), resp(json(3, "{}")), Do::End(End::Closed)]);
    assert_eq!(outcomes(&signals), [(3, COMPLETE), (1, LEFT), (5, LEFT)]);
    assert_eq!(lines(&signals).iter().filter(|line| line.ends_with("InputEnded")).count(), 3);
}

#[test]
fn pushed_streams_move_the_table_and_nothing_else() {
    let promised = [&2_u32.to_be_bytes()[..], &inserting(&[("content-type", "application/json")])].concat();
    let pushed = [headers(2, 0, &[(":status", "200")]), data(2, END_STREAM, "x")].concat();
    // 0xbe: the newest entry.
    let head = [block(&[(":status", "200")]), vec![0xbe]].concat();
    let answered = [frame(HEADERS, END_HEADERS, 1, &head), data(1, END_STREAM, r#"{"id":"a"}"#)].concat();
    let signals = run(&[
        req(get(1, "/")),
        resp([frame(PROMISE, END_HEADERS, 1, &promised), pushed, answered].concat()),
    ]);
    check(&signals[3..], &["1@2 answering", "1@2 200 None", "1@2 id=a", "1@2 Complete 10"]);
}

#[test]
fn the_table_follows_what_the_reader_allows() {
    // The client allows 8,192 bytes; the server says that it uses them.
    let allow = frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0x20, 0]);
    let update = [0x3f, 0xe1, 0x3f];
    let head = [&update[..], &block(&[(":status", "200")])].concat();
    let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &head);
    let signals = run(&[req([allow, get(1, "/")].concat()), resp(&head)]);
    assert_eq!(outcomes(&signals), [(1, COMPLETE)]);
    let signals = run(&[req(get(1, "/")), resp(&head)]);
    assert_eq!(outcomes(&signals), [(1, Outcome::Partial)], "4,096 are allowed");
}

#[test]
fn what_the_rules_forbid_ends_everything() {
    for bytes in [
        frame(DATA, 0, 0, b"x"),
        frame(HEADERS, END_HEADERS, 2, &block(&ask("GET", "/"))),
        frame(CONTINUATION, END_HEADERS, 1, &[]),
        frame(PING, 0, 0, &[0; 7]),
        frame(SETTINGS, 0, 0, &[0; 5]),
        frame(SETTINGS, 1, 0, &[0; 6]),
        frame(SETTINGS, 0, 1, &[]),
        frame(RESET, 0, 0, &[0; 4]),
        frame(GOAWAY, 0, 0, &[0; 7]),
        frame(WINDOW, 0, 0, &[0; 3]),
        frame(PROMISE, END_HEADERS, 1, &[0; 4]),
        frame(DATA, PADDED, 1, &[9, 0]),
        frame(HEADERS, PADDED | END_HEADERS, 3, &[9, 0]),
        [frame(HEADERS, 0, 3, &block(&ask("GET", "/"))), frame(PING, 0, 0, &[0; 8])].concat(),
        frame(HEADERS, END_HEADERS, 3, &[0xff]),
    ] {
        let mut driver = Driver::new(false);
        driver.step(&req([opening(), get(1, "/")].concat()));
        driver.step(&req(&bytes));
        driver.step(&resp([greeting(), json(1, "{}")].concat()));
        assert!(driver.connection.is_opaque(), "{bytes:02x?}");
        assert_eq!(outcomes(&driver.out), [(1, Outcome::Partial)], "{bytes:02x?}");
    }
}

#[test]
fn what_is_not_http2_is_told() {
    use crate::http::{NotHttp, Verdict};
    let mut driver = Driver::new(false);
    driver.step(&req("GET / HTTP/1.1\r\n\r\n"));
    assert_eq!(driver.connection.verdict(), Verdict::NotHttp(NotHttp::Unknown));
    assert!(driver.connection.is_opaque() && driver.out.is_empty());
    let mut driver = Driver::new(false);
    driver.step(&req(&PREFACE[..10]));
    assert_eq!(driver.connection.verdict(), Verdict::Undecided);
}

#[test]
fn streams_are_bounded() {
    let mut driver = Driver::new(false);
    driver.step(&req(opening()));
    for stream in 0..3000 {
        driver.step(&req(get(stream * 2 + 1, "/")));
    }
    assert_eq!(outcomes(&driver.out).len(), 3000 - 1024);
    assert_eq!(driver.connection.counts().crowded_out, 3000 - 1024);
    assert!(outcomes(&driver.out).iter().all(|(_, outcome)| *outcome == Outcome::Partial));
}

#[test]
fn how_it_begins() {
    assert_eq!(client_begins(PREFACE), Some(true));
    assert_eq!(client_begins(&opening()), Some(true));
    assert_eq!(client_begins(b"PRI * HT"), None);
    assert_eq!(client_begins(b""), None);
    assert_eq!(client_begins(b"PUT / HTTP/1.1\r\n"), Some(false));
    assert_eq!(server_begins(&greeting()), Some(true));
    assert_eq!(server_begins(&frame(SETTINGS, 0, 0, &[0; 18])), Some(true));
    assert_eq!(server_begins(&greeting()[..4]), None);
    assert_eq!(server_begins(b"HTTP/1.1 200 OK\r\n"), Some(false));
    assert_eq!(server_begins(&json(1, "{}")), Some(false));
    for (direction, bytes, expected) in [
        (Direction::Request, opening(), true),
        (Direction::Request, get(7, "/"), true),
        (Direction::Request, get(7, "/")[..9].to_vec(), true),
        (Direction::Request, get(7, "/")[..12].to_vec(), false),
        (Direction::Response, json(7, "{}"), true),
        (Direction::Response, data(7, 0, "x"), true),
        (Direction::Response, b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), false),
        (Direction::Response, chat("a").into_bytes(), false),
        (Direction::Response, vec![0; 64], false),
        (Direction::Response, (0..64_u64).flat_map(u64::to_be_bytes).collect(), false),
        (Direction::Response, (0..64_u32).flat_map(u32::to_le_bytes).collect(), false),
    ] {
        assert_eq!(continues(direction, &bytes, bytes.len()), expected, "{bytes:02x?}");
    }
    let cut = data(7, 0, "x".repeat(100));
    assert!(continues(Direction::Response, &cut[..20], cut.len()), "its length tells");
}
