//! Heads, bodies, order and ends, with nothing missing.

use super::*;

const GET: &str = "GET /health HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn edge_01_head_split_at_every_byte() {
    let request = post("/v1/completions?key=1", r#"{"model":"m"}"#);
    let response = json(r#"{"id":"x"}"#);
    let whole = kinds(&run(false, &[req(&request), resp(&response)]));
    assert_eq!(whole.len(), 7);
    for at in 1..request.len() {
        let (head, rest) = request.split_at(at);
        assert_eq!(kinds(&run(false, &[req(head), req(rest), resp(&response)])), whole, "{at}");
    }
    for at in 1..response.len() {
        let (head, rest) = response.split_at(at);
        assert_eq!(kinds(&run(false, &[req(&request), resp(head), resp(rest)])), whole, "{at}");
    }
}

#[test]
fn edge_01_times_are_of_the_first_and_last_byte() {
    check(
        &[
            req("POST / HT"),
            req("TP/1.1\r\nContent-Length: 4\r\n\r\n"),
            req("{"),
            req("}  "),
            resp("HTTP/1.1 2"),
            resp("00 OK\r\nContent-Length: 2\r\n\r\n"),
            resp("{"),
            resp("}"),
        ],
        &["0@1 start", "0@2 POST /", "0@4 asked 4", "0@5 answer", "0@6 200 None", "0@8 Complete 2"],
    );
}

#[test]
fn edge_01_pipelined_requests_share_a_read() {
    let three = format!("{}{}{GET}", post("/a", "{}"), post("/b", "{}"));
    let answers = format!("{}{}", json("1"), json("22"));
    check(
        &[req(three), resp(answers), resp(json("333"))],
        &[
            "0@1 start",
            "0@1 POST /a",
            "0@1 asked 2",
            "1@1 start",
            "1@1 POST /b",
            "1@1 asked 2",
            "2@1 start",
            "2@1 GET /health",
            "2@1 asked 0",
            "0@2 answer",
            "0@2 200 None",
            "0@2 Complete 1",
            "1@2 answer",
            "1@2 200 None",
            "1@2 Complete 2",
            "2@3 answer",
            "2@3 200 None",
            "2@3 Complete 3",
        ],
    );
    let flood = run(false, &[req(GET.repeat(100))]);
    assert!(flood.iter().any(|signal| signal.kind == SignalKind::Malformed(MalformedReason::Pipeline)));
    let ends = flood.iter().filter(|signal| matches!(signal.kind, SignalKind::ResponseEnd(_))).count();
    let starts = flood.iter().filter(|signal| signal.kind == SignalKind::RequestStart).count();
    assert_eq!(ends, starts);
}

#[test]
fn edge_02_keep_alive_with_ends_at_the_reads_edge() {
    let mut script = Vec::new();
    for body in [r#"{"model":"a"}"#, r#"{"model":"b"}"#, "{}"] {
        script.extend([req(post("/", body)), resp(json("{}"))]);
    }
    check(
        &script,
        &[
            "0@1 start",
            "0@1 POST /",
            "0@1 asked 13 model=a",
            "0@2 answer",
            "0@2 200 None",
            "0@2 Complete 2",
            "1@3 start",
            "1@3 POST /",
            "1@3 asked 13 model=b",
            "1@4 answer",
            "1@4 200 None",
            "1@4 Complete 2",
            "2@5 start",
            "2@5 POST /",
            "2@5 asked 2",
            "2@6 answer",
            "2@6 200 None",
            "2@6 Complete 2",
        ],
    );
}

#[test]
fn edge_03_chunked_split_over_writes() {
    let whole = STREAM.to_owned() + &chunk(&chat("a")) + &chunk(&chat("b")) + "0\r\n\r\n";
    let request = req(post("/", "{}"));
    let expected = kinds(&run(false, &[request.clone(), resp(&whole)]));
    assert_eq!(expected.iter().filter(|(_, kind)| matches!(kind, SignalKind::Token { .. })).count(), 2);
    for size in 1..whole.len() {
        let mut script = vec![request.clone()];
        script.extend(whole.as_bytes().chunks(size).map(resp));
        assert_eq!(kinds(&run(false, &script)), expected, "writes of {size}");
    }
    // Header, data and CRLF in writes of their own; the end alone.
    let parts = [STREAM, "8b;ext=1\r\n", &"x".repeat(0x8b), "\r\n", "0\r\n", "Trailer: x\r\n", "\r\n"];
    let mut script = vec![request];
    script.extend(parts.map(resp));
    assert_eq!(last_end(&run(false, &script)).body_bytes, 0x8b);
    assert_eq!(last_end(&run(false, &script)).outcome, Outcome::Complete);
}

#[test]
fn edge_04_bytes_count_once() {
    let mut driver = Driver::new(false);
    let request = post("/", "{}");
    driver.step(&req(&request));
    // The same record twice, and one that overlaps.
    driver.position[0] = 0;
    driver.step(&req(&request));
    driver.step(&resp("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab"));
    driver.position[1] -= 1;
    driver.step(&resp("bcd"));
    assert_eq!(last_end(&driver.out).body_bytes, 4);
    assert_eq!(driver.out.iter().filter(|signal| signal.kind == SignalKind::RequestStart).count(), 1);
}

#[test]
fn edge_09_client_disconnects() {
    let stream = [req(post("/", "{}")), resp(STREAM), resp(chunk(&chat("a")))];
    let begun = ["0@1 start", "0@1 POST /", "0@1 asked 2", "0@2 answer", "0@2 200 Sse", "0@3 token 0 in 1"];
    let size = chat("a").len();
    for (ends, expected) in [
        (vec![Do::End(End::Failed)], vec![format!("0@4 Truncated(Failed) {size} events=1")]),
        (vec![Do::End(End::Closed)], vec![format!("0@4 Truncated(Closed) {size} events=1")]),
        (vec![Do::End(End::ProcessExited)], vec![format!("0@4 Truncated(ProcessExited) {size} events=1")]),
        (vec![Do::End(End::Detached)], vec![format!("0@4 Partial {size} events=1")]),
        (
            vec![Do::End(End::EndOfInput), Do::End(End::Closed)],
            vec!["0@4 InputEnded".to_owned(), format!("0@5 Truncated(EndOfInput) {size} events=1")],
        ),
        // Half-closed: the response goes on.
        (
            vec![Do::End(End::EndOfInput), resp("0\r\n\r\n"), Do::End(End::Closed)],
            vec!["0@4 InputEnded".to_owned(), format!("0@5 Complete {size} events=1")],
        ),
    ] {
        let script: Vec<Do> = stream.iter().cloned().chain(ends).collect();
        let expected: Vec<&str> = begun.into_iter().chain(expected.iter().map(String::as_str)).collect();
        check(&script, &expected);
    }
    check(
        &[req("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{\"mo"), Do::End(End::Closed)],
        &["0@1 start", "0@1 POST /", "0@2 asked 4 cut", "0@2 Truncated(Closed) 0"],
    );
    check(
        &[req("POST / HTTP/1.1\r\nConte"), Do::End(End::Failed)],
        &["0@1 start", "0@2 asked 0 cut", "0@2 Truncated(Failed) 0"],
    );
    check(
        &[req(GET), resp("HTTP/1.1 200"), Do::End(End::Closed)],
        &["0@1 start", "0@1 GET /health", "0@1 asked 0", "0@2 answer", "0@3 Truncated(Closed) 0"],
    );
    check(&[Do::End(End::Closed)], &[]);
}

#[test]
fn edge_09_the_server_stops_sending() {
    let old = "HTTP/1.0 200 OK\r\n\r\n";
    let asked = "POST / HTTP/1.0\r\nContent-Length: 4\r\n\r\n{}";
    // A body without a length ends there; what the client still sends is still its request.
    check(
        &[req(asked), resp(old), resp("abc"), Do::End(End::SentAll), req("  "), Do::End(End::Closed)],
        &["0@1 start", "0@1 POST /", "0@2 answer", "0@2 200 None", "0@4 Complete 3", "0@5 asked 4"],
    );
    // One with a length is cut, and a request that waits gets no answer any more.
    check(
        &[req(GET), resp("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), Do::End(End::SentAll)],
        &[
            "0@1 start",
            "0@1 GET /health",
            "0@1 asked 0",
            "0@2 answer",
            "0@2 200 None",
            "0@3 Truncated(SentAll) 3",
        ],
    );
    check(
        &[req(GET), Do::End(End::SentAll), Do::End(End::Closed)],
        &["0@1 start", "0@1 GET /health", "0@1 asked 0", "0@2 Truncated(SentAll) 0"],
    );
}

#[test]
fn edge_10_interim_responses_do_not_end_an_exchange() {
    check(
        &[
            req("POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"),
            resp("HTTP/1.1 100 Continue\r\n\r\n"),
            req("{}"),
            resp("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ],
        &[
            "0@1 start",
            "0@1 POST /",
            "0@2 Informational { status: 100 }",
            "0@3 asked 2",
            "0@4 Informational { status: 103 }",
            "0@4 answer",
            "0@4 200 None",
            "0@4 Complete 0",
        ],
    );
}

#[test]
fn edge_10_responses_without_a_body() {
    for (method, status) in [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")] {
        let head = format!("{method} / HTTP/1.1\r\n\r\n");
        let bare = format!("HTTP/1.1 {status}\r\nContent-Length: 99\r\n\r\n");
        let signals = run(false, &[req(&head), resp(bare), req(GET), resp(json("{}"))]);
        let done: Vec<_> =
            signals.iter().filter(|signal| matches!(signal.kind, SignalKind::ResponseEnd(_))).collect();
        assert_eq!((done.len(), last_end(&signals).body_bytes), (2, 2), "{method} {status}");
    }
}

#[test]
fn edge_10_answer_before_the_request_is_complete() {
    check(
        &[
            req("POST / HTTP/1.1\r\nContent-Length: 6\r\n\r\n{"),
            resp("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"),
            req("     "),
            req(GET),
            resp(json("{}")),
        ],
        &[
            "0@1 start",
            "0@1 POST /",
            "0@2 answer",
            "0@2 413 None",
            "0@2 Complete 2",
            "0@3 asked 6",
            "1@4 start",
            "1@4 GET /health",
            "1@4 asked 0",
            "1@5 answer",
            "1@5 200 None",
            "1@5 Complete 2",
        ],
    );
    // Even before its head is.
    check(
        &[req("GET / HTTP/1.1\r\nX: y"), resp("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")],
        &["0@1 start", "0@2 answer", "0@2 408 None", "0@2 Complete 0"],
    );
}

#[test]
fn edge_10_upgrade_and_connect() {
    let upgrade = "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    check(
        &[
            req(upgrade),
            resp("HTTP/1.1 101 Switching Protocols\r\n\r\n\x7f"),
            req(GET),
            resp("\x01"),
            Do::End(End::Closed),
        ],
        &[
            "0@1 start",
            "0@1 GET /ws",
            "0@1 asked 0",
            "0@2 answer",
            "0@2 101 None",
            "0@2 Upgraded(Other)",
            "0@2 Complete 0",
        ],
    );
    check(
        &[req("CONNECT h:1 HTTP/1.1\r\n\r\n"), resp("HTTP/1.1 200 OK\r\n\r\n"), req("\x16\x03")],
        &[
            "0@1 start",
            "0@1 CONNECT h:1",
            "0@1 asked 0",
            "0@2 answer",
            "0@2 200 None",
            "0@2 Upgraded(Tunnel)",
            "0@2 Complete 0",
        ],
    );
}

#[test]
fn edge_11_traceparent_behind_cookies_and_sizes_around_powers_of_two() {
    let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for cookie in [0, 1023, 1024, 1025, 4095, 4096, 4097, 6 * 1024, 60_000] {
        let head = format!(
            "POST /x HTTP/1.1\r\nCookie: {}\r\n{trace}\r\nX-Request-ID: r-1\r\nContent-Length: 2\r\n\r\n{{}}",
            "c".repeat(cookie)
        );
        let signals = run(false, &[req(head)]);
        let SignalKind::RequestHead(head) = &signals[1].kind else { panic!("{signals:?}") };
        assert_eq!(head.traceparent.map(|context| context.flags), Some(1), "{cookie}");
        assert_eq!(head.request_id.as_deref(), Some("r-1"));
    }
    for size in [1023, 1024, 1025, 4095, 4096, 4097, 65535, 65536, 65537, 2 << 20] {
        let body = format!(r#"{{"model":"m","image":"{}","stream":true}}"#, "A".repeat(size));
        let facts = request_facts(&body);
        assert_eq!(
            (facts.model.as_deref(), facts.stream, facts.whole),
            (Some("m"), Some(true), true),
            "{size}"
        );
    }
}

#[test]
fn edge_11_head_too_large() {
    check(
        &[
            req(format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(70_000))),
            resp("HTTP/1.1 431 x\r\nContent-Length: 0\r\n\r\n"),
            req(GET),
        ],
        &[
            "0@1 start",
            "0@1 Malformed(HeadTooLarge)",
            "0@1 asked 0 cut",
            "0@2 answer",
            "0@2 431 None",
            "0@2 Complete 0",
        ],
    );
}

#[test]
fn edge_12_encoded_close_delimited_and_untyped_bodies() {
    let request = req(post("/", "{}"));
    // Compressed in a way that is not read: the framing is known, the contents are not.
    let zstd =
        STREAM.replace("\r\n\r\n", "\r\nContent-Encoding: zstd\r\n\r\n") + &chunk(&chat("a")) + "0\r\n\r\n";
    let signals = run(false, &[request.clone(), resp(zstd)]);
    assert_eq!(last_end(&signals).unread, Some(Unread::Coding));
    assert!(
        signals.iter().any(|signal| matches!(&signal.kind, SignalKind::ResponseHead(head) if head.opaque))
    );
    assert_eq!((tokens(&signals).len(), last_end(&signals).outcome), (0, Outcome::Complete));
    // HTTP/1.0: the close is the end.
    let old = "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let signals =
        run(false, &[request.clone(), resp(old), resp(chat("a")), resp(chat("b")), Do::End(End::Closed)]);
    assert_eq!((tokens(&signals).len(), last_end(&signals).outcome), (2, Outcome::Complete));
    let signals = run(false, &[request.clone(), resp(old), resp(chat("a")), Do::End(End::Failed)]);
    assert_eq!(last_end(&signals).outcome, Outcome::Truncated(End::Failed));
    // No content type.
    let bare = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let events = chunk(&chat("a")) + "0\r\n\r\n";
    assert_eq!(tokens(&run(false, &[request.clone(), resp(bare), resp(events)])).len(), 1);
    let document = chunk(r#"{"id":"z"}"#) + "0\r\n\r\n";
    assert_eq!(facts(&run(false, &[request, resp(bare), resp(document)])), [Fact::Id("z".into())]);
}

#[test]
fn edge_10_an_upgrade_says_where_the_other_protocol_begins() {
    let asked = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    for (name, protocol) in
        [("websocket", Protocol::WebSocket), ("h2c", Protocol::Http2), ("irc/6.9", Protocol::Other)]
    {
        let answer = format!("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: {name}\r\n\r\n");
        let bytes = format!("{answer}frames");
        for at in 1..bytes.len() {
            let mut driver = Driver::new(false);
            for step in [req(GET), resp(json("{}")), req(asked), resp(&bytes[..at]), resp(&bytes[at..])] {
                driver.step(&step);
            }
            let expected = Upgrade {
                protocol,
                exchange: 1,
                request_position: (GET.len() + asked.len()) as u64,
                response_position: (json("{}").len() + answer.len()) as u64,
            };
            assert_eq!(driver.connection.upgrade(), Some(expected), "{at}");
            assert!(driver.connection.is_opaque());
            assert_eq!(last_end(&driver.out).outcome, Outcome::Complete);
        }
    }
    // Servers that do not speak h2c answer as if nothing had been asked (Java's client asks every one).
    let asked = asked.replace("Upgrade: x", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk");
    let mut driver = Driver::new(false);
    for step in [req(asked), resp(json("{}")), req(GET), resp(json("{}"))] {
        driver.step(&step);
    }
    assert_eq!((driver.connection.upgrade(), driver.out.last().unwrap().exchange), (None, 1));
}

#[test]
fn edge_10_a_body_may_go_on_behind_its_answer() {
    // The server answers by the length alone, the client sends the rest all the same, in chunks too.
    for (head, rest) in [
        ("POST / HTTP/1.1\r\nContent-Length: 6\r\n\r\n{", "     "),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{", "\r\n5\r\n     \r\n0\r\n\r\n"),
    ] {
        for at in 0..rest.len() {
            let too_large = resp("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno");
            let (sent, left) = rest.split_at(at);
            let signals =
                run(false, &[req(head), req(sent), too_large, req(left), req(GET), resp(json("{}"))]);
            let asked: Vec<_> = signals
                .iter()
                .filter_map(|signal| match &signal.kind {
                    SignalKind::RequestEnd(end) => Some((signal.exchange, end.complete, end.body_bytes)),
                    _ => None,
                })
                .collect();
            assert_eq!(asked, [(0, true, 6), (1, true, 0)], "{at}");
            assert_eq!(
                (last_end(&signals).outcome, signals.last().unwrap().exchange),
                (Outcome::Complete, 1)
            );
        }
    }
}

#[test]
fn edge_02_nothing_follows_a_request_that_closes() {
    for head in ["GET /a HTTP/1.1\r\nConnection: close\r\n\r\n", "GET /a HTTP/1.0\r\n\r\n"] {
        let signals =
            run(false, &[req(format!("{head}{GET}")), resp(json("{}")), req(GET), Do::End(End::Closed)]);
        assert!(signals.iter().all(|signal| signal.exchange == 0), "{signals:?}");
        assert_eq!(last_end(&signals).outcome, Outcome::Complete);
    }
    let kept = "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let signals = run(false, &[req(kept), resp(json("{}")), req(kept), resp(json("{}"))]);
    assert_eq!(signals.last().unwrap().exchange, 1);
}

#[test]
fn edge_04_overlaps_of_every_size_count_once() {
    let request = post("/", r#"{"model":"m"}"#);
    let response = STREAM.to_owned() + &chunk(&chat("a")) + &chunk(&chat("b")) + "0\r\n\r\n";
    let whole = kinds(&run(false, &[req(&request), resp(&response)]));
    for at in 0..=response.len() {
        for back in [0, 1, 7, at] {
            let mut driver = Driver::new(false);
            driver.step(&req(&request));
            driver.step(&resp(&response[..at]));
            // What was sent again, or a record that came twice.
            let from = at.saturating_sub(back);
            driver.position[1] = from as u64;
            driver.step(&resp(&response[from..]));
            assert_eq!(kinds(&driver.out), whole, "{at} {back}");
        }
    }
}

#[test]
fn bad_heads_end_the_reading() {
    let told = |reason| SignalKind::Malformed(reason);
    for (request, reason) in [
        ("GET / HTTP/1.1\r\n folded\r\nX: a\r\n\r\n", MalformedReason::RequestHead),
        ("GET / HTTP/1.1\r\nX: a\rb\r\n\r\n", MalformedReason::RequestHead),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", MalformedReason::Length),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", MalformedReason::Length),
        ("GET  HTTP/1.1\r\n\r\n", MalformedReason::RequestHead),
        ("POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", MalformedReason::Length),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz", MalformedReason::Chunk),
    ] {
        let signals = run(false, &[req(request), req(GET)]);
        assert!(signals.iter().any(|signal| signal.kind == told(reason)), "{request:?}: {signals:?}");
        assert!(signals.iter().all(|signal| signal.exchange == 0), "{request:?}");
    }
    for response in ["ICY 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n folded\r\nX: a\r\n\r\n"] {
        let mut driver = Driver::new(false);
        for step in [req(GET), resp(response), req(GET), resp(json("{}"))] {
            driver.step(&step);
        }
        assert!(driver.out.iter().any(|signal| signal.kind == told(MalformedReason::ResponseHead)));
        assert_eq!(last_end(&driver.out).outcome, Outcome::Partial);
        assert!(driver.connection.is_opaque());
    }
}

#[test]
fn tells_http_from_the_rest() {
    use Verdict::{Http, Undecided};
    let not = Verdict::NotHttp;
    for (bytes, expected) in [
        (&b""[..], Undecided),
        (b"P", Undecided),
        (b"\r\nPOS", Undecided),
        (b"POST ", Http),
        (b"OPTIONS *", Http),
        (b"PRI * HTTP/2.0\r\n\r\nSM", not(NotHttp::Http2)),
        (b"PRI * HTT", Undecided),
        (b"\x16\x03\x01\x02\x00", not(NotHttp::Tls)),
        (b"\xff\x00\x00\x00", not(NotHttp::Unknown)),
        (b"POSTER", not(NotHttp::Unknown)),
        (b"get /", not(NotHttp::Unknown)),
        (b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n", not(NotHttp::Unknown)),
    ] {
        for size in [1, 2, 64] {
            let mut driver = Driver::new(false);
            bytes.chunks(size).for_each(|part| driver.step(&req(part)));
            assert_eq!(driver.connection.verdict(), expected, "{bytes:?} by {size}");
            assert_eq!(driver.connection.is_opaque(), matches!(expected, Verdict::NotHttp(_)));
            assert!(driver.out.is_empty(), "{bytes:?}: {:?}", driver.out);
        }
    }
    let mut driver = Driver::new(false);
    driver.step(&resp("220 smtp ready\r\n"));
    assert_eq!(driver.connection.verdict(), not(NotHttp::Unknown));
}
