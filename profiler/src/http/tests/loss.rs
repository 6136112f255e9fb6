//! Gaps, and connections that are older than the attach.

use super::*;

const GET: &str = "GET /health HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn edge_07_attach_between_exchanges() {
    let lines =
        ["0@1 start", "0@1 GET /health", "0@1 asked 0", "0@2 answer", "0@2 200 None", "0@2 Complete 2"];
    check_on(true, &[req(GET), resp(json("{}"))], &lines);
    for at in 1..GET.len() {
        let (head, rest) = GET.split_at(at);
        let signals = run(true, &[req(head), req(rest), resp(json("{}"))]);
        assert_eq!((signals.len(), last_end(&signals).outcome), (6, Outcome::Complete), "{at}");
    }
}

#[test]
fn edge_07_attach_inside_a_request() {
    // The rest of a body, even one that looks like a request at first, is no request.
    for rest in ["\"}]}", "POST is my word", "GET /x HTTP/9.9\r\n\r\n", "GET it\nGET /x HTTP/1.1\r\n\r\n"] {
        check_on(
            true,
            &[req(rest), req(rest), resp(json("{}")), req(GET), resp(json("{}"))],
            &[
                "0@3 RequestUnseen",
                "0@3 answer",
                "0@3 200 None",
                "0@3 Partial 2",
                "1@4 start",
                "1@4 GET /health",
                "1@4 asked 0",
                "1@5 answer",
                "1@5 200 None",
                "1@5 Complete 2",
            ],
        );
    }
}

#[test]
fn edge_07_attach_inside_a_stream() {
    let rest = chunk(&chat("a"));
    check_on(
        true,
        &[resp(&rest), resp(&rest), resp("0\r\n\r\n"), req(GET), resp(json("{}")), Do::End(End::Closed)],
        &[
            "0@1 RequestUnseen",
            "0@4 Partial 0",
            "1@4 start",
            "1@4 GET /health",
            "1@4 asked 0",
            "1@5 answer",
            "1@5 200 None",
            "1@5 Complete 2",
        ],
    );
    check_on(true, &[resp(&rest), Do::End(End::Closed)], &["0@1 RequestUnseen", "0@2 Partial 0"]);
    // What may not be HTTP at all shows no exchange, before the connection shows to be HTTP.
    check_on(true, &[resp("rest"), resp("rest"), Do::End(End::Closed)], &[]);
    check_on(
        true,
        &[resp("rest"), resp("rest"), req(GET)],
        &["0@1 RequestUnseen", "0@3 Partial 0", "1@3 start", "1@3 GET /health", "1@3 asked 0"],
    );
    check_on(true, &[req("junk"), Do::End(End::Closed)], &[]);
    let mut driver = Driver::new(true);
    driver.step(&resp("rest"));
    assert_eq!(driver.connection.verdict(), Verdict::Undecided);
    driver.step(&req("\x17\x03\x03\x00"));
    assert_eq!(driver.connection.verdict(), Verdict::NotHttp(NotHttp::Tls));
}

#[test]
fn edge_13_gap_inside_a_length() {
    let request = post("/", &format!(r#"{{"model":"m","prompt":"{}"}}"#, "x".repeat(1000)));
    let (seen, lost) = request.split_at(120);
    let lost = lost.len() as u32;
    let end = ["0@2 answer", "0@2 200 None", "0@2 Complete 2"];
    // As a record that says so, and as records that never came.
    let body = request.split_once("\r\n\r\n").unwrap().1.len();
    let asked = format!("0@1 asked {body} lost={lost} model=m");
    let mut lines = vec!["0@1 start", "0@1 POST /", &asked];
    lines.extend(end);
    check(&[Do::ReqLost(seen.into(), lost), resp(json("{}"))], &lines);
    // The gap shows only with the next request, which is still right.
    let asked = format!("0@4 asked {body} lost={lost} model=m");
    check(
        &[req(seen), Do::ReqGone(u64::from(lost)), resp(json("{}")), req(GET), resp(json("{}"))],
        &[
            "0@1 start",
            "0@1 POST /",
            "0@3 answer",
            "0@3 200 None",
            "0@3 Complete 2",
            &asked,
            "1@4 start",
            "1@4 GET /health",
            "1@4 asked 0",
            "1@5 answer",
            "1@5 200 None",
            "1@5 Complete 2",
        ],
    );
}

#[test]
fn edge_13_gap_inside_a_chunk_keeps_the_framing() {
    let event = chat("hello");
    let size = event.len() as u64;
    let framed = chunk(&event);
    for (seen, data) in [(10, 0), (95, 1)] {
        // All that is cut, with the chunk's CRLF.
        let lost = (framed.len() - seen) as u32;
        let signals = run(
            false,
            &[
                req(post("/", "{}")),
                resp(STREAM),
                resp(&framed),
                Do::RespLost(framed[..seen].into(), lost),
                resp(&framed),
                resp("e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"),
                req(GET),
                resp(json("{}")),
            ],
        );
        let SignalKind::ResponseEnd(end) =
            signals.iter().find(|signal| matches!(signal.kind, SignalKind::ResponseEnd(_))).unwrap().kind
        else {
            panic!()
        };
        assert_eq!((end.outcome, end.body_bytes, end.saw_done), (Outcome::Complete, 3 * size + 14, true));
        assert!(end.lost_bytes > 0 && end.lost_bytes <= size);
        // What the cut event said before the gap holds; the event behind it starts a chunk, so it is known too.
        assert!(tokens(&signals).len() >= 2 + data, "{seen}: {signals:?}");
        assert_eq!(last_end(&signals).outcome, Outcome::Complete);
        assert_eq!(signals.last().unwrap().exchange, 1);
    }
}

#[test]
fn edge_13_gap_over_an_unknown_part_of_a_stream() {
    let framed = chunk(&chat("a"));
    let size = chat("a").len();
    let partial = format!("0@5 Partial {size} events=1");
    check(
        &[
            req(post("/", "{}")),
            resp(STREAM),
            resp(&framed),
            Do::RespGone(3 * framed.len() as u64),
            resp(&framed),
            resp(&framed),
            resp("0\r\n\r\n"),
            req(GET),
            resp(json("{}")),
        ],
        &[
            "0@1 start",
            "0@1 POST /",
            "0@1 asked 2",
            "0@2 answer",
            "0@2 200 Sse",
            "0@3 token 0 in 1",
            &partial,
            "1@8 start",
            "1@8 GET /health",
            "1@8 asked 0",
            "1@9 answer",
            "1@9 200 None",
            "1@9 Complete 2",
        ],
    );
}

#[test]
fn edge_13_whole_messages_lost() {
    let first = ["0@1 start", "0@1 GET /health", "0@1 asked 0"];
    let with = |more: &[&'static str]| first.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>();
    // A response.
    check(
        &[req(GET), Do::RespGone(100), req(GET), resp(json("{}"))],
        &with(&[
            "1@3 start",
            "1@3 GET /health",
            "1@3 asked 0",
            "0@4 Partial 0",
            "1@4 answer",
            "1@4 200 None",
            // As far as can be told: a third request and the second response may be missing too.
            "1@4 Partial 2",
        ]),
    );
    // A response and the next request: the next response answers what was not seen.
    check(
        &[req(GET), Do::RespGone(100), Do::ReqGone(50), resp(json("{}")), req(GET), resp(json("{}"))],
        &with(&[
            "0@4 Partial 0",
            "1@4 RequestUnseen",
            "1@4 answer",
            "1@4 200 None",
            "1@4 Partial 2",
            "2@5 start",
            "2@5 GET /health",
            "2@5 asked 0",
            "2@6 answer",
            "2@6 200 None",
            "2@6 Complete 2",
        ]),
    );
    // A response before a close that tells how much was sent.
    check(&[req(GET), Do::RespGone(100), resp(""), Do::End(End::Closed)], &with(&["0@4 Partial 0"]));
    // A request: its response shows it.
    check(
        &[req(GET), resp(json("{}")), Do::ReqGone(50), resp(json("{}")), req(GET), resp(json("{}"))],
        &with(&[
            "0@2 answer",
            "0@2 200 None",
            "0@2 Complete 2",
            "1@4 RequestUnseen",
            "1@4 answer",
            "1@4 200 None",
            "1@4 Partial 2",
            "2@5 start",
            "2@5 GET /health",
            "2@5 asked 0",
            "2@6 answer",
            "2@6 200 None",
            "2@6 Complete 2",
        ]),
    );
    // The head of a response, with its body still coming.
    check(
        &[req(GET), Do::RespGone(100), resp("rest of a body"), req(GET), resp(json("{}"))],
        &with(&[
            "0@3 Partial 0",
            "1@4 start",
            "1@4 GET /health",
            "1@4 asked 0",
            "1@5 answer",
            "1@5 200 None",
            "1@5 Complete 2",
        ]),
    );
    // The end of a request's head: what it was is not known, its answer is.
    check(
        &[Do::ReqLost(b"POST / HTTP/1.1\r\nX: ".to_vec(), 40), resp(json("{}")), req(GET), resp(json("{}"))],
        &[
            "0@1 start",
            "0@1 asked 0 cut",
            "0@2 answer",
            "0@2 200 None",
            "0@2 Complete 2",
            "1@3 start",
            "1@3 GET /health",
            "1@3 asked 0",
            "1@4 answer",
            "1@4 200 None",
            "1@4 Complete 2",
        ],
    );
    // The end of a stream and some of the requests: a new request shows that the stream is over.
    check(
        &[req(GET), resp(STREAM), Do::RespGone(99), Do::ReqGone(9), req(GET), resp(json("{}"))],
        &with(&[
            "0@2 answer",
            "0@2 200 Sse",
            "0@5 Partial 0",
            "1@5 start",
            "1@5 GET /health",
            "1@5 asked 0",
            "1@6 answer",
            "1@6 200 None",
            "1@6 Partial 2",
        ]),
    );
    // The end of a stream, and nothing else: the next answer is the next request's.
    check(
        &[req(GET), resp(STREAM), Do::RespGone(99), req(GET), resp(json("{}"))],
        &with(&[
            "0@2 answer",
            "0@2 200 Sse",
            "1@4 start",
            "1@4 GET /health",
            "1@4 asked 0",
            "0@5 Partial 0",
            "1@5 answer",
            "1@5 200 None",
            "1@5 Partial 2",
        ]),
    );
    // The end of a stream, then an answer and the next request.
    check(
        &[
            req(GET),
            resp(STREAM),
            Do::RespGone(99),
            resp("rest"),
            req(GET),
            Do::RespGone(50),
            Do::ReqGone(50),
            resp(json("{}")),
        ],
        &with(&[
            "0@2 answer",
            "0@2 200 Sse",
            "0@4 Partial 0",
            "1@5 start",
            "1@5 GET /health",
            "1@5 asked 0",
            "1@8 answer",
            "1@8 200 None",
            "1@8 Partial 2",
        ]),
    );
    // Pipelined: nobody knows whose response comes.
    let signals =
        run(false, &[req(GET.repeat(3)), Do::RespGone(100), resp(json("{}")), req(GET), resp(json("{}"))]);
    let ends = signals.iter().filter_map(|signal| match signal.kind {
        SignalKind::ResponseEnd(end) => Some((signal.exchange, end.outcome == Outcome::Complete)),
        _ => None,
    });
    assert_eq!(ends.filter(|(exchange, complete)| *exchange < 3 && *complete).count(), 0);
}

#[test]
fn edge_13_gap_in_lines_and_documents() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
    let line = chunk("{\"model\":\"m\",\"response\":\"a\",\"done\":false}\n");
    let signals = run(
        false,
        &[
            req(post("/", "{}")),
            resp(head),
            Do::RespLost(line[..12].into(), line.len() as u32 - 12),
            resp(&line),
            resp("0\r\n\r\n"),
        ],
    );
    assert_eq!((tokens(&signals).len(), last_end(&signals).outcome), (1, Outcome::Complete));
    let document = json(&format!(r#"{{"id":"a","text":"{}","model":"m"}}"#, "x".repeat(100)));
    let signals = run(
        false,
        &[req(post("/", "{}")), Do::RespLost(document[..100].into(), document.len() as u32 - 100)],
    );
    assert_eq!(facts(&signals), [Fact::Id("a".into())]);
}
