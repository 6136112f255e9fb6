//! Sessions that read and write their socket themselves.

use e2e::{or_skip, program};

use super::{Calls, EX, Library, PLAIN, Session, WANT_READ, WANT_WRITE, scene, were_https};
use crate::sockets::{Exchange, outcomes, span_of, whole};

#[test]
fn edge_17_sessions_on_a_descriptor_and_on_bios() {
    or_skip!();
    for version in [12, 13] {
        let Some(mut scene) = scene(Library::Shared, version) else { return };
        scene.attach(&[]);
        let mut exchanges = Vec::new();
        for (tokens, (how, calls)) in
            (1..).step_by(10).zip([("fd", PLAIN), ("fd", EX), ("bio", PLAIN), ("bio", EX)])
        {
            let mut session = Session::open(&mut scene, how, calls);
            exchanges.push(session.exchange(&mut scene.server, tokens));
            exchanges.push(session.exchange(&mut scene.server, tokens + 1));
            session.close(&mut scene.server);
        }
        let report = scene.saw(&exchanges);
        were_https(&report, &exchanges);
    }
}

#[test]
fn edge_17_plaintext_that_is_read_without_a_system_call() {
    or_skip!();
    let Some(mut scene) = scene(Library::Shared, 13) else { return };
    scene.attach(&[]);
    let mut session = Session::open(&mut scene, "fd", PLAIN);
    let mut exchanges = Vec::new();
    // One record holds the request; the server takes it off in small pieces, and has a look at each before.
    for (tokens, room) in [(3, 7), (4, 100)] {
        let exchange = Exchange::new(tokens);
        let request = exchange.request();
        session.say(&request);
        let number = session.number;
        assert_eq!(scene.server.call(&format!("tls_peek {number} 10")).unwrap(), 10);
        session.hear(&mut scene.server, request.len(), room);
        session.answer_in_pieces(&mut scene.server, &exchange.stream());
        exchanges.push(exchange);
    }
    // Two requests in one record, and read by one call.
    let (first, second) = (Exchange::new(5), Exchange::new(6));
    let both = [first.request(), second.request()].concat();
    session.ask(&mut scene.server, &both);
    session.answer(&mut scene.server, &[first.answer(""), second.answer("")].concat());
    exchanges.extend([first, second]);
    scene.saw(&exchanges);
}

#[test]
fn edge_17_a_write_that_is_tried_again() {
    or_skip!();
    for how in ["fd", "fd partial"] {
        let Some(mut scene) = scene(Library::Shared, 13) else { return };
        scene.attach(&[]);
        let mut session = Session::open(&mut scene, how, PLAIN);
        let exchange = Exchange::new(7);
        session.ask(&mut scene.server, &exchange.request());
        scene.server.call(&format!("send_buffer {} 4096", session.fd)).unwrap();
        scene.server.call(&format!("nonblock {}", session.fd)).unwrap();
        let none = scene.server.attempt(&format!("tls_read {} 100", session.number)).unwrap();
        assert_eq!(none, Err(WANT_READ));
        let answer = exchange.answer(&"x".repeat(3 << 20));
        scene.server.load(&answer).unwrap();
        let expected = answer.clone();
        let mut client = session.client;
        // The client begins to read once the server has had to wait.
        let (waited, begin) = std::sync::mpsc::channel();
        let reading = std::thread::spawn(move || {
            begin.recv().unwrap();
            let mut got = vec![0; expected.len()];
            std::io::Read::read_exact(&mut client, &mut got).unwrap();
            assert!(got == expected);
        });
        let (mut at, mut again) = (0, 0);
        while at < answer.len() {
            let write = format!("tls_write {} {at} {}", session.number, answer.len() - at);
            match scene.server.attempt(&write).unwrap() {
                Ok(sent) => at += sent as usize,
                Err(error) => {
                    assert_eq!(error, WANT_WRITE);
                    again += 1;
                    // Fails once the client has read all and ended.
                    let _ = waited.send(());
                }
            }
        }
        reading.join().unwrap();
        assert!(again > 0, "the socket took all at once");
        let next = Session::open(&mut scene, "fd", PLAIN).exchange(&mut scene.server, 3);
        let report = scene.report();
        let requests = &report.summary.requests;
        assert_eq!((requests.total, requests.by_outcome["completed"]), (2, 2), "{requests:?}");
        whole(&report, &[next]);
        let span = span_of(&report, &exchange);
        assert!(span.int("gen_ai.usage.output_tokens").is_none_or(|tokens| tokens == 7), "{span:?}");
        crate::checks::nothing_lost(&report.summary);
    }
}

#[test]
fn edge_17_sizes_around_a_record() {
    or_skip!();
    let Some(mut scene) = scene(Library::Shared, 13) else { return };
    scene.attach(&[]);
    let mut session = Session::open(&mut scene, "fd", PLAIN);
    let mut exchanges = Vec::new();
    for (tokens, size) in (1..).zip([16_000, 16_384, 16_385, 40_000, 200_000]) {
        let exchange = Exchange::new(tokens);
        session.ask(&mut scene.server, &exchange.request_with("", &"p".repeat(size)));
        session.answer(&mut scene.server, &exchange.answer(&"a".repeat(size)));
        exchanges.push(exchange);
    }
    scene.saw(&exchanges);
}

#[test]
fn edge_17_openssl_in_the_program_itself() {
    or_skip!();
    let Some(mut scene) = scene(Library::Static, 13) else { return };
    scene.attach(&[]);
    let mut exchanges = Vec::new();
    for (tokens, (how, calls)) in (1..).zip([("fd", PLAIN), ("bio", EX), ("memory", EX)]) {
        let mut session = Session::open(&mut scene, how, calls);
        exchanges.push(session.exchange(&mut scene.server, tokens));
    }
    let report = scene.saw(&exchanges);
    were_https(&report, &exchanges);
}

#[test]
fn edge_17_openssl_without_symbols_is_said_to_be_blind() {
    or_skip!();
    let Some(mut scene) = scene(Library::Stripped, 13) else { return };
    scene.attach(&[]);
    let mut session = Session::open(&mut scene, "fd", PLAIN);
    session.exchange(&mut scene.server, 3);
    let pid = scene.server.pid().to_string();
    let checked = program::run(&["check", "--pid", &pid]).unwrap().stdout;
    assert!(checked.contains("TLS"), "{checked}");
    let report = scene.report();
    assert_eq!(report.summary.requests.by_outcome, outcomes(&[]), "nothing is made up");
    assert_eq!(report.summary.connections.tls, 1, "and it is counted");
    crate::checks::nothing_lost(&report.summary);
}

#[test]
fn edge_17_the_newest_way_to_write() {
    or_skip!();
    let Some(mut scene) = scene(Library::Shared, 13) else { return };
    scene.attach(&[]);
    let calls = Calls { read: "tls_read_ex", write: "tls_write_ex2" };
    let mut session = Session::open(&mut scene, "fd", calls);
    scene.server.load(b"x").unwrap();
    let probe = Session::open(&mut scene, "fd", calls);
    if scene.server.attempt(&format!("tls_write_ex2 {} 0 1", probe.number)).unwrap() == Err(libc::ENOSYS) {
        println!("skipped: this OpenSSL has no SSL_write_ex2 (3.3 and later have it)");
        return;
    }
    let exchange = session.exchange(&mut scene.server, 4);
    whole(&scene.report(), &[exchange]);
}
