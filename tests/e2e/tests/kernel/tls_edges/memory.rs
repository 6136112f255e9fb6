//! Sessions that know no socket: their bytes go through memory, as CPython's do.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use e2e::{Observation, or_skip};

use super::{EX, Library, Session, Workshop, scene, were_https};
use crate::checks::nothing_lost;
use crate::sockets::{Exchange, whole};

#[test]
fn edge_16_sessions_in_memory_on_one_thread() {
    or_skip!();
    for version in [12, 13] {
        let Some(mut scene) = scene(Library::Shared, version) else { return };
        scene.attach(&[]);
        let mut sessions: Vec<_> = (0..4).map(|_| Session::open(&mut scene, "memory", EX)).collect();
        let mut exchanges = Vec::new();
        for round in 0..3 {
            // Streams of one length, so that a piece joined to another's stream would fit there.
            let now: Vec<_> = (0..4).map(|index| Exchange::new(20 + 4 * round + index)).collect();
            for (session, exchange) in sessions.iter_mut().zip(&now) {
                session.ask(&mut scene.server, &exchange.request());
            }
            let streams: Vec<_> = now.iter().map(Exchange::stream).collect();
            let longest = streams.iter().map(Vec::len).max().unwrap();
            for piece in 0..longest {
                for (session, stream) in sessions.iter_mut().zip(&streams) {
                    if let Some(piece) = stream.get(piece) {
                        session.answer(&mut scene.server, piece);
                    }
                }
            }
            exchanges.extend(now);
        }
        let report = scene.saw(&exchanges);
        were_https(&report, &exchanges);
    }
}

#[test]
fn edge_16_a_write_of_many_records() {
    or_skip!();
    for version in [12, 13] {
        for how in ["memory", "memory partial"] {
            let Some(mut scene) = scene(Library::Shared, version) else { return };
            scene.attach(&[]);
            let mut session = Session::open(&mut scene, how, EX);
            let mut exchanges = Vec::new();
            for (tokens, size) in (1..).zip([16_000, 16_384, 16_385, 100_000]) {
                let exchange = Exchange::new(tokens);
                session.ask(&mut scene.server, &exchange.request_with("", &"p".repeat(size)));
                session.answer(&mut scene.server, &exchange.answer(&"a".repeat(size)));
                exchanges.push(exchange);
            }
            scene.saw(&exchanges);
        }
    }
}

#[test]
fn edge_16_keys_and_tickets_that_nobody_wrote() {
    or_skip!();
    let Some(mut scene) = scene(Library::Shared, 13) else { return };
    scene.attach(&[]);
    // The handshake of TLS 1.3 ends with two tickets, and then keys change in the middle of an answer, on two
    // sessions by turns.
    let mut sessions: Vec<_> = (0..2).map(|_| Session::open(&mut scene, "memory", EX)).collect();
    let exchanges = [Exchange::new(9), Exchange::new(10)];
    for (session, exchange) in sessions.iter_mut().zip(&exchanges) {
        session.ask(&mut scene.server, &exchange.request());
    }
    for piece in 0..exchanges[1].stream().len() {
        for (session, exchange) in sessions.iter_mut().zip(&exchanges) {
            let Some(bytes) = exchange.stream().get(piece).cloned() else { continue };
            session.answer(&mut scene.server, &bytes);
            if piece % 4 == 1 {
                scene.server.call(&format!("tls_key_update {}", session.number)).unwrap();
                session.flush(&mut scene.server);
            }
        }
    }
    let more: Vec<_> =
        sessions.iter_mut().zip([30, 31]).map(|(s, tokens)| s.exchange(&mut scene.server, tokens)).collect();
    scene.saw(&[&exchanges[..], &more].concat());
}

#[test]
fn edge_16_a_session_on_the_memory_of_another() {
    or_skip!();
    for how in ["memory", "fd"] {
        let Some(mut scene) = scene(Library::Shared, 13) else { return };
        scene.attach(&[]);
        let mut exchanges = Vec::new();
        let mut addresses = BTreeSet::new();
        for tokens in 1..=6 {
            let mut session = Session::open(&mut scene, how, EX);
            addresses.insert(scene.server.call(&format!("tls_address {}", session.number)).unwrap());
            exchanges.push(session.exchange(&mut scene.server, tokens));
            session.close(&mut scene.server);
        }
        assert!(addresses.len() < 6, "no session had the address of another: {addresses:x?}");
        scene.saw(&exchanges);
    }
}

#[test]
fn edge_16_sessions_from_before_the_attach() {
    or_skip!();
    for how in ["memory", "fd"] {
        let Some(mut scene) = scene(Library::Shared, 13) else { return };
        let mut idle = Session::open(&mut scene, how, EX);
        let mut busy = Session::open(&mut scene, how, EX);
        idle.exchange(&mut scene.server, 90);
        let cut = Exchange::new(12);
        busy.ask(&mut scene.server, &cut.request());
        busy.answer_in_pieces(&mut scene.server, &cut.stream()[..5]);
        scene.attach(&[]);
        busy.answer_in_pieces(&mut scene.server, &cut.stream()[5..]);
        let later = [idle.exchange(&mut scene.server, 2), busy.exchange(&mut scene.server, 3)];
        let report = scene.report();
        whole(&report, &later);
        let requests = &report.summary.requests;
        assert!(requests.partial <= 1, "{requests:?}");
        assert_eq!(requests.total, 2 + requests.partial, "nothing is made up: {requests:?}");
        nothing_lost(&report.summary);
    }
}

#[test]
fn edge_16_asyncio_with_many_connections() {
    or_skip!();
    for version in ["1.2", "1.3"] {
        let workshop = Workshop::open();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../programs/sockets/tls/memory_bio.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(workshop.file("certificate.pem")).arg(workshop.file("key.pem")).arg(version);
        let Ok(mut server) = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn() else {
            println!("skipped: no python3");
            return;
        };
        let mut port = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let port: u16 = port.trim().parse().expect("a Python with the ssl module");
        let observation = Observation::start(server.id(), &[]).unwrap();
        let clients: Vec<_> =
            (0..8).map(|number| std::thread::spawn(move || three_streams(port, number))).collect();
        let exchanges: Vec<Exchange> =
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        let report = observation.stop().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        assert_eq!(report.summary.requests.total, exchanges.len() as u64, "{:?}", report.summary.requests);
        whole(&report, &exchanges);
        were_https(&report, &exchanges);
        nothing_lost(&report.summary);
    }
}

/// Three streams on one connection, to their ends.
fn three_streams(port: u16, number: u64) -> Vec<Exchange> {
    let mut client = Workshop::open().client(port);
    let ask = |round| {
        let exchange = Exchange::new(20 + 10 * number + round);
        client.write_all(&exchange.request()).unwrap();
        let (mut answer, mut room) = (Vec::new(), [0; 4096]);
        while !answer.ends_with(b"0\r\n\r\n") {
            let got = client.read(&mut room).unwrap();
            assert!(got > 0, "the server closed");
            answer.extend_from_slice(&room[..got]);
        }
        exchange
    };
    (0..3).map(ask).collect()
}
