//! Bytes that are missing, and connections older than the attach.

use super::*;

const COMPLETE: Outcome = Outcome::Complete;
const PARTIAL: Outcome = Outcome::Partial;

#[test]
fn edge_13_a_gap_inside_a_frame_is_exact() {
    let event = chat("a");
    let frame = data(1, END_STREAM, event.clone() + &event + &event);
    let cut = 9 + event.len() + 5;
    let lost = frame.len() - cut;
    let signals = run(&[
        req(post(1, "/a", "{}")),
        resp(answer(1, "text/event-stream")),
        Do::RespLost(frame[..cut].to_vec(), lost as u32),
        req(post(3, "/b", "{}")),
        resp(json(3, r#"{"id":"b"}"#)),
    ]);
    assert_eq!(tokens(&signals), 1);
    assert!(lines(&signals).contains(&format!("1@3 Complete {} lost={lost}", 3 * event.len())));
    assert_eq!(outcomes(&signals), [(1, COMPLETE), (3, COMPLETE)]);
    // The same in a request's body.
    let asked = data(1, END_STREAM, r#"{"model":"m","prompt":"a long one"}"#);
    let head = headers(1, 0, &ask("POST", "/a"));
    let signals = run(&[
        Do::ReqLost([head, asked[..9 + 13].to_vec()].concat(), asked.len() as u32 - 22),
        resp(json(1, "{}")),
    ]);
    assert!(lines(&signals).contains(&"1@1 asked 35 lost=22 model=m".to_owned()), "{:?}", lines(&signals));
    assert_eq!(outcomes(&signals), [(1, COMPLETE)]);
}

#[test]
fn edge_13_missing_writes_end_what_was_being_answered() {
    let streamed = [answer(1, "text/event-stream"), data(1, 0, chat("a"))].concat();
    let signals = run(&[
        req([post(1, "/a", "{}"), post(3, "/b", "{}")].concat()),
        resp(streamed),
        Do::RespGone(100),
        resp([data(1, END_STREAM, chat("a")), json(3, "{}")].concat()),
        req(get(5, "/c")),
        resp(json(5, r#"{"id":"c"}"#)),
    ]);
    // The head of 3 shows that nothing of its answer was missed.
    assert_eq!(outcomes(&signals), [(1, PARTIAL), (3, COMPLETE), (5, COMPLETE)]);
}

#[test]
fn an_answer_that_was_missed_is_not_waited_for_for_ever() {
    let mut script = vec![req(get(1, "/a")), Do::RespGone(100)];
    for stream in 1..400 {
        script.extend([req(get(stream * 2 + 1, "/b")), resp(json(stream * 2 + 1, "{}"))]);
    }
    let outcomes = outcomes(&run(&script));
    assert_eq!(outcomes.iter().filter(|(_, outcome)| *outcome == COMPLETE).count(), 399);
    assert_eq!(outcomes.iter().position(|end| *end == (1, PARTIAL)), Some(5 * 64));
}

#[test]
fn edge_13_missing_reads_leave_whole_requests_alone() {
    let signals = run(&[
        req([post(1, "/a", "{}"), headers(3, 0, &ask("POST", "/b"))].concat()),
        Do::ReqGone(50),
        req(get(7, "/d")),
        resp([json(1, "{}"), json(3, "{}"), json(5, "{}"), json(7, "{}")].concat()),
        Do::End(End::Closed),
    ]);
    // Stream 5 began in the missing bytes.
    assert_eq!(outcomes(&signals), [(1, COMPLETE), (3, PARTIAL), (5, PARTIAL), (7, COMPLETE)]);
    assert!(lines(&signals).contains(&"5@4 unseen".to_owned()));
}

#[test]
fn a_client_that_may_have_left_unseen_is_not_said_to_have_been_cut() {
    let signals = run(&[req(get(1, "/a")), Do::ReqGone(13), req(get(3, "/b")), Do::End(End::Closed)]);
    assert_eq!(outcomes(&signals), [(1, PARTIAL), (3, Outcome::Truncated(End::Closed))]);
}

#[test]
fn frames_are_found_again_only_where_a_write_begins_with_them() {
    let frames = json(3, r#"{"id":"b"}"#);
    let script = |resumed: Vec<Do>| {
        let mut script = vec![req(get(1, "/a")), Do::RespGone(100), req(get(3, "/b"))];
        script.extend(resumed);
        outcomes(&run(&script))
    };
    assert_eq!(script(vec![resp(&frames)]), [(3, COMPLETE)]);
    // The end of some frame stands before them.
    assert_eq!(script(vec![resp([b"xx", &frames[..]].concat())]), []);
    assert_eq!(script(vec![resp(b"xx"), Do::End(End::Closed)]), [(1, PARTIAL), (3, PARTIAL)]);
}

#[test]
fn entries_from_before_a_gap_are_unknown_and_those_behind_it_known() {
    let agent = [("user-agent", "curl")];
    let with = |stream, block: &[u8]| {
        let head = [super::block(&ask("GET", "/")), block.to_vec()].concat();
        frame(HEADERS, END_STREAM | END_HEADERS, stream, &head)
    };
    let signals = run(&[
        req(with(1, &inserting(&agent))),
        req(with(3, &[0xbe])),
        Do::ReqGone(9),
        req(with(5, &[0xbe])),
        req(with(7, &inserting(&[("user-agent", "new")]))),
        req(with(9, &[0xbe])),
    ]);
    let agents: Vec<Option<&str>> = signals
        .iter()
        .filter_map(|signal| match &signal.kind {
            SignalKind::RequestHead(head) => Some(head.user_agent.as_deref()),
            _ => None,
        })
        .collect();
    assert_eq!(agents, [Some("curl"), Some("curl"), None, Some("new"), Some("new")]);
}

#[test]
fn edge_7_streams_from_before_the_attach_are_partial() {
    let signals = join(&[
        resp(data(11, 0, chat("a"))),
        req(post(13, "/v1/completions", r#"{"model":"m"}"#)),
        resp([data(9, END_STREAM, "x"), json(13, r#"{"id":"b"}"#), data(11, END_STREAM, "")].concat()),
    ]);
    assert_eq!(outcomes(&signals), [(9, PARTIAL), (13, COMPLETE), (11, PARTIAL)]);
    let told = lines(&signals);
    assert!(told.contains(&"11@1 unseen".to_owned()) && told.contains(&"9@3 unseen".to_owned()), "{told:?}");
    assert!(told.contains(&"13@2 POST /v1/completions".to_owned()), "{told:?}");
    assert_eq!(tokens(&signals), 0, "what an unseen stream carries is not known");
}

#[test]
fn edge_7_an_attach_inside_a_frame() {
    let cut = data(11, 0, chat("a"))[30..].to_vec();
    let mut driver = Driver::new(true);
    driver.step(&resp(&cut));
    driver.step(&req(b"some of a body"));
    assert_eq!(driver.connection.verdict(), crate::http::Verdict::Undecided);
    assert!(driver.out.is_empty());
    driver.step(&resp(data(11, 0, chat("a"))));
    assert_eq!(driver.connection.verdict(), crate::http::Verdict::Http);
    assert_eq!(lines(&driver.out), ["11@3 unseen", "11@3 answering"]);
}

#[test]
fn edge_36_a_path_in_the_unseen_table_is_not_guessed() {
    // POST, http, an entry from before.
    let head = frame(HEADERS, END_HEADERS | END_STREAM, 5, &[0x83, 0x86, 0xc0]);
    let signals = join(&[req(&head), resp(json(5, "{}"))]);
    check(&signals[..3], &["5@1 start", "5@1 POST ", "5@1 asked 0"]);
    assert_eq!(outcomes(&signals), [(5, PARTIAL)]);
}

#[test]
fn the_preface_on_a_connection_found_open_makes_everything_known() {
    let mut driver = Driver::new(true);
    driver.step(&req([opening(), get(1, "/a")].concat()));
    driver.step(&resp([greeting(), json(1, "{}")].concat()));
    driver.step(&req(frame(HEADERS, END_HEADERS, 3, &[0xbe])));
    assert_eq!(outcomes(&driver.out), [(1, COMPLETE)]);
    assert!(driver.connection.is_opaque(), "an entry that is not there breaks the rules");
}

#[test]
fn a_header_by_itself_and_its_payload_behind_it() {
    let frames = json(3, r#"{"id":"b"}"#);
    let signals = join(&[req(get(3, "/")), resp(&frames[..9]), resp(&frames[9..])]);
    assert_eq!(outcomes(&signals), [(3, COMPLETE)]);
}

#[test]
fn a_record_told_twice_counts_once() {
    let mut driver = Driver::new(false);
    let bytes = [opening(), get(1, "/")].concat();
    driver.step(&req(&bytes));
    driver.position[0] -= 10;
    driver.step(&req([&bytes[bytes.len() - 10..], &get(3, "/")].concat()));
    driver.step(&resp([greeting(), json(1, "{}"), json(3, "{}")].concat()));
    assert_eq!(outcomes(&driver.out), [(1, COMPLETE), (3, COMPLETE)]);
}
