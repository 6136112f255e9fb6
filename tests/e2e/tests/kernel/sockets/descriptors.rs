//! Descriptors that are used again, duplicated, inherited and closed in every way: a number is not a connection.

use e2e::{Sockets, or_skip};

use super::{Exchange, READ, Scene, WRITE, client, outcomes, whole};
use crate::checks::nothing_lost;

/// What a file holds that must never be taken for a request.
const BAIT: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}";

#[test]
fn edge_06_a_number_is_used_again_by_the_next_connection() {
    or_skip!();
    let mut scene = Scene::start();
    let mut exchanges = Vec::new();
    let mut numbers = Vec::new();
    for tokens in 1..=5 {
        let mut link = scene.connect();
        numbers.push(link.fd);
        exchanges.push(link.exchange(&mut scene.server, tokens));
        link.close(&mut scene.server);
    }
    numbers.dedup();
    assert_eq!(numbers.len(), 1, "each connection had the same number");
    scene.saw(&exchanges);
}

#[test]
fn edge_06_a_file_on_the_number_of_a_closed_socket_is_no_connection() {
    or_skip!();
    let mut scene = Scene::start();
    let mut link = scene.connect();
    let fd = link.fd;
    let first = link.exchange(&mut scene.server, 2);
    // Half a request more: the connection is closed in the middle of it.
    link.ask(&mut scene.server, &BAIT[..30], READ);
    link.close(&mut scene.server);
    let file = scene.server.file("bait");
    assert_eq!(scene.server.call(&format!("open {}", file.display())).unwrap(), fd);
    scene.server.load(BAIT).unwrap();
    for _ in 0..3 {
        scene.server.call(&format!("write {fd} 0 {}", BAIT.len())).unwrap();
    }
    scene.server.call(&format!("rewind {fd}")).unwrap();
    assert_eq!(scene.server.call(&format!("read {fd} 1000")).unwrap(), 3 * BAIT.len() as u64);
    scene.server.call(&format!("close {fd}")).unwrap();
    let mut link = scene.connect();
    assert_eq!(link.fd, fd);
    let second = link.exchange(&mut scene.server, 3);
    let report = scene.report();
    whole(&report, &[first, second]);
    assert_eq!(report.summary.requests.by_outcome["completed"], 2, "{:?}", report.summary.requests);
    assert!(report.summary.requests.total <= 3, "only the half one more: {:?}", report.summary.requests);
    nothing_lost(&report.summary);
}

#[test]
fn edge_06_an_outgoing_connection_on_the_number_is_no_request() {
    or_skip!();
    let mut scene = Scene::start();
    let mut link = scene.connect();
    let first = link.exchange(&mut scene.server, 2);
    let fd = link.fd;
    link.close(&mut scene.server);
    // The server asks another one, on the number that one of its own connections had.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    assert_eq!(scene.server.call(&format!("connect {port}")).unwrap(), fd);
    let asked = Exchange::new(77);
    let (mut peer, _) = other.accept().unwrap();
    std::io::Write::write_all(&mut peer, &asked.request()).unwrap();
    scene.server.call(&format!("recv {fd} {} {}", asked.request().len(), libc::MSG_WAITALL)).unwrap();
    scene.server.load(&asked.answer("")).unwrap();
    scene.server.call(&format!("write {fd} 0 {}", asked.answer("").len())).unwrap();
    scene.server.call(&format!("close {fd}")).unwrap();
    scene.saw(&[first]);
}

#[test]
fn edge_06_a_duplicate_over_a_connection_ends_it() {
    or_skip!();
    for duplicate in ["dup2", "dup3"] {
        let mut scene = Scene::start();
        let mut link = scene.connect();
        let first = link.exchange(&mut scene.server, 2);
        let file = scene.server.file("bait");
        let file = scene.server.call(&format!("open {}", file.display())).unwrap();
        scene.server.call(&format!("{duplicate} {file} {}", link.fd)).unwrap();
        scene.server.load(BAIT).unwrap();
        scene.server.call(&format!("write {} 0 {}", link.fd, BAIT.len())).unwrap();
        scene.server.call(&format!("rewind {}", link.fd)).unwrap();
        scene.server.call(&format!("read {} 1000", link.fd)).unwrap();
        // And a connection over the number of the file.
        let mut next = scene.connect();
        scene.server.call(&format!("{duplicate} {} {}", next.fd, link.fd)).unwrap();
        scene.server.call(&format!("close {}", next.fd)).unwrap();
        next.fd = link.fd;
        let second = next.exchange(&mut scene.server, 3);
        scene.saw(&[first, second]);
    }
}

#[test]
fn edge_06_a_connection_lives_as_long_as_its_last_duplicate() {
    or_skip!();
    let mut scene = Scene::start();
    let mut exchanges = Vec::new();
    for (tokens, duplicate) in (1..).zip(["dup {fd}", "dup2 {fd} 100", "dup3 {fd} 101", "fcntl_dup {fd} 102"])
    {
        let mut link = scene.connect();
        let exchange = Exchange::new(tokens);
        link.ask(&mut scene.server, &exchange.request(), READ);
        let copy = scene.server.call(&duplicate.replace("{fd}", &link.fd.to_string())).unwrap();
        let stream = exchange.stream();
        link.answer_in_pieces(&mut scene.server, &stream[..1], WRITE);
        scene.server.call(&format!("close {}", link.fd)).unwrap();
        link.fd = copy;
        link.answer_in_pieces(&mut scene.server, &stream[1..], WRITE);
        exchanges.push(exchange);
        link.close(&mut scene.server);
    }
    scene.saw(&exchanges);
}

#[test]
fn edge_06_forked_workers_accept_on_one_listener() {
    or_skip!();
    // Some are there before the attach, one comes after it.
    let mut scene = Scene::bare();
    let mut workers: Vec<Sockets> = (0..2).map(|_| scene.server.fork().unwrap()).collect();
    scene.attach(&[]);
    workers.push(scene.server.fork().unwrap());
    let mut exchanges = Vec::new();
    for tokens in 1..=6 {
        let worker = &mut workers[tokens as usize % 3];
        let client = client(scene.port);
        let fd = worker.call(&format!("accept4 {}", scene.listener)).unwrap();
        let mut link = super::Link { client, fd };
        exchanges.push(link.exchange(worker, tokens));
        link.close(worker);
    }
    let report = scene.saw(&exchanges);
    let pids: std::collections::BTreeSet<_> =
        report.summary.target.processes.iter().map(|process| process.pid).collect();
    assert!(workers.iter().all(|worker| pids.contains(&worker.pid())), "{pids:?}");
}

#[test]
fn edge_06_close_range_spares_what_lies_outside() {
    or_skip!();
    let mut scene = Scene::start();
    let mut links: Vec<_> = (0..6).map(|_| scene.connect()).collect();
    let exchanges: Vec<_> = (1..=6).map(Exchange::new).collect();
    for (link, exchange) in links.iter_mut().zip(&exchanges) {
        link.ask(&mut scene.server, &exchange.request(), READ);
    }
    // The two in the middle go.
    scene.server.call(&format!("close_range {} {} 0", links[2].fd, links[3].fd)).unwrap();
    for index in [0, 1, 4, 5] {
        links[index].answer_in_pieces(&mut scene.server, &exchanges[index].stream(), WRITE);
    }
    let report = scene.report();
    let answered = [0, 1, 4, 5].map(|index: usize| exchanges[index].clone());
    whole(&report, &answered);
    assert_eq!(report.summary.requests.by_outcome, outcomes(&[("completed", 4), ("error", 2)]));
    nothing_lost(&report.summary);
}

#[test]
fn edge_06_a_process_that_ends_without_closing() {
    or_skip!();
    let mut scene = Scene::start();
    let mut child = scene.server.fork().unwrap();
    let client = client(scene.port);
    let fd = child.call(&format!("accept4 {}", scene.listener)).unwrap();
    let mut link = super::Link { client, fd };
    let first = link.exchange(&mut child, 2);
    let cut = Exchange::new(9);
    link.ask(&mut child, &cut.request(), READ);
    link.answer_in_pieces(&mut child, &cut.stream()[..3], WRITE);
    let pid = child.pid();
    child.tell("exit 3").unwrap();
    scene.server.call(&format!("wait {pid}")).unwrap();
    // The parent goes on.
    let mut next = scene.connect();
    let after = next.exchange(&mut scene.server, 3);
    let report = scene.report();
    whole(&report, &[first, after]);
    assert_eq!(report.summary.requests.by_outcome, outcomes(&[("completed", 2), ("lost", 1)]));
    nothing_lost(&report.summary);
}

#[test]
fn edge_06_an_exec_closes_what_is_marked() {
    or_skip!();
    let mut scene = Scene::start();
    let mut link = scene.connect();
    let first = link.exchange(&mut scene.server, 2);
    let fd = link.fd;
    // The connection is marked close-on-exec, the listener is not.
    scene.server.exec().unwrap();
    let mut next = scene.connect();
    assert_eq!(next.fd, fd);
    let second = next.exchange(&mut scene.server, 3);
    // And one that the new program inherits goes on.
    let mut kept = scene.connect_by("accept");
    scene.server.exec().unwrap();
    let third = kept.exchange(&mut scene.server, 4);
    scene.saw(&[first, second, third]);
}

#[test]
fn edge_06_a_forked_child_answers_what_its_parent_accepted() {
    or_skip!();
    let mut scene = Scene::start();
    let mut exchanges = Vec::new();
    for tokens in 1..=3 {
        let mut link = scene.connect();
        let mut child = scene.server.fork().unwrap();
        // The parent's copy of the descriptor goes first, as in every forking server.
        scene.server.call(&format!("close {}", link.fd)).unwrap();
        exchanges.push(link.exchange(&mut child, tokens));
        link.close(&mut child);
        let pid = child.pid();
        child.tell("exit 0").unwrap();
        scene.server.call(&format!("wait {pid}")).unwrap();
    }
    scene.saw(&exchanges);
}

#[test]
fn edge_06_parent_and_child_share_a_connection() {
    or_skip!();
    let mut scene = Scene::start();
    let mut link = scene.connect();
    let first = Exchange::new(4);
    link.ask(&mut scene.server, &first.request(), READ);
    let mut child = scene.server.fork().unwrap();
    // Both write, in turn; then the child's end leaves the parent's descriptor as it is.
    for (number, piece) in first.stream().iter().enumerate() {
        match number % 2 {
            0 => link.answer(&mut scene.server, piece, WRITE),
            _ => link.answer(&mut child, piece, WRITE),
        }
    }
    let pid = child.pid();
    child.tell("exit 0").unwrap();
    scene.server.call(&format!("wait {pid}")).unwrap();
    let second = link.exchange(&mut scene.server, 5);
    scene.saw(&[first, second]);
}

#[test]
fn edge_06_close_range_closes_connections() {
    or_skip!();
    // A few descriptors, and many of them: copies of the connection.
    for copies in [0, 1000] {
        let mut scene = Scene::start();
        let listener = scene.server.call(&format!("fcntl_dup {} 1010", scene.listener)).unwrap();
        let mut link = scene.connect();
        let whole_one = link.exchange(&mut scene.server, 2);
        let cut = Exchange::new(9);
        link.ask(&mut scene.server, &cut.request(), READ);
        link.answer_in_pieces(&mut scene.server, &cut.stream()[..3], WRITE);
        if copies > 0 {
            scene.server.call(&format!("repeat {copies} dup {}", link.fd)).unwrap();
        }
        // To mark them does not close them.
        scene.server.call("close_range 3 1009 4").unwrap();
        link.answer_in_pieces(&mut scene.server, &cut.stream()[3..4], WRITE);
        scene.server.call("close_range 3 1009 0").unwrap();
        scene.listener = listener;
        let mut next = scene.connect();
        assert!(next.fd <= link.fd, "a number of before");
        let after = next.exchange(&mut scene.server, 3);
        let report = scene.report();
        whole(&report, &[whole_one, after]);
        let expected = outcomes(&[("completed", 2), ("error", 1)]);
        assert_eq!(report.summary.requests.by_outcome, expected, "closed in the middle of its answer");
        nothing_lost(&report.summary);
    }
}
