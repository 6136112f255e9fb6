//! Connections however they are accepted, on whatever is listened on, and those from before the attach.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{SocketAddr, UnixStream};

use e2e::{Report, or_skip, wait};

use super::{Exchange, READ, Scene, WRITE, client, outcomes, span_of, whole};
use crate::checks::nothing_lost;

#[test]
fn edge_07_an_idle_connection_from_before_the_attach_is_followed() {
    or_skip!();
    let mut scene = Scene::bare();
    let mut fresh = scene.connect();
    let mut used = scene.connect();
    used.exchange(&mut scene.server, 99);
    scene.attach(&[]);
    let first = fresh.exchange(&mut scene.server, 2);
    let second = used.exchange(&mut scene.server, 3);
    let third = used.exchange(&mut scene.server, 4);
    let report = scene.saw(&[first, second, third]);
    assert_eq!(report.summary.connections.found_open, 2);
}

#[test]
fn edge_07_a_request_that_began_before_the_attach_is_partial() {
    or_skip!();
    let request = Exchange::new(5).request();
    let head = request.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    // In its first line, between two header fields, between head and body, in the body, and behind its last byte.
    for before in [10, head - 20, head, head + 10, request.len()] {
        let mut scene = Scene::bare();
        let mut link = scene.connect();
        let exchange = Exchange::new(5);
        link.ask(&mut scene.server, &request[..before], READ);
        scene.attach(&[]);
        if before < request.len() {
            link.ask(&mut scene.server, &request[before..], READ);
        }
        link.answer_in_pieces(&mut scene.server, &exchange.stream(), WRITE);
        let next = link.exchange(&mut scene.server, 6);
        partial_then(&scene.report(), &next);
    }
}

#[test]
fn edge_07_an_answer_that_began_before_the_attach_is_partial() {
    or_skip!();
    let stream = Exchange::new(8).stream();
    // Behind its head, between two events, in the middle of an event, and before its very end.
    for (pieces, bytes) in [(1, 0), (4, 0), (4, 25), (stream.len() - 1, 0)] {
        let mut scene = Scene::bare();
        let mut link = scene.connect();
        let exchange = Exchange::new(8);
        link.ask(&mut scene.server, &exchange.request(), READ);
        link.answer_in_pieces(&mut scene.server, &stream[..pieces], WRITE);
        link.answer(&mut scene.server, &stream[pieces][..bytes], WRITE);
        scene.attach(&[]);
        link.answer(&mut scene.server, &stream[pieces][bytes..], WRITE);
        link.answer_in_pieces(&mut scene.server, &stream[pieces + 1..], WRITE);
        let next = link.exchange(&mut scene.server, 6);
        partial_then(&scene.report(), &next);
    }
}

/// At most one request that is known in part, nothing that is made up, and the next one whole.
fn partial_then(report: &Report, next: &Exchange) {
    whole(report, std::slice::from_ref(next));
    let requests = &report.summary.requests;
    assert!(requests.partial <= 1, "{requests:?}");
    assert_eq!(requests.by_outcome, outcomes(&[("completed", 1), ("partial", requests.partial as usize)]));
    for span in report.spans.iter().filter(|span| span.text("gpuspan.outcome") == Some("partial")) {
        assert!(span.int("http.response.status_code").is_none_or(|status| status == 200), "{span:?}");
        assert!(span.text("http.route").is_none_or(|route| route == "/v1/chat/completions"), "{span:?}");
    }
    assert_eq!(report.summary.connections.found_open, 1);
    nothing_lost(&report.summary);
}

#[test]
fn edge_08_every_accept() {
    or_skip!();
    let mut scene = Scene::start();
    let mut exchanges = Vec::new();
    for (tokens, accept) in (1..).zip(["accept", "accept4", "accept_null"]) {
        let mut link = scene.connect_by(accept);
        exchanges.push(link.exchange(&mut scene.server, tokens));
    }
    let port = scene.port;
    let report = scene.saw(&exchanges);
    for exchange in &exchanges {
        assert_eq!(span_of(&report, exchange).int("server.port"), Some(u64::from(port)));
    }
}

/// A server that changes its port, and gets the same number for its new listener.
#[test]
fn edge_08_listeners_that_follow_each_other_on_one_descriptor() {
    or_skip!();
    let mut scene = Scene::start();
    let (first_listener, first_port) = (scene.listener, scene.port);
    let mut old = scene.connect();
    scene.server.call(&format!("close {first_listener}")).unwrap();
    scene.listener = scene.server.call("listen4 0").unwrap();
    assert_eq!(scene.listener, first_listener, "the lowest number that is free");
    scene.port = scene.server.call(&format!("port {}", scene.listener)).unwrap() as u16;
    let mut new = scene.connect();
    let exchanges = [new.exchange(&mut scene.server, 2), old.exchange(&mut scene.server, 3)];
    let ports = [scene.port, first_port];
    let report = scene.saw(&exchanges);
    for (exchange, port) in exchanges.iter().zip(ports) {
        assert_eq!(span_of(&report, exchange).int("server.port"), Some(u64::from(port)));
    }
}

#[test]
fn edge_08_ipv4_on_an_ipv6_listener() {
    or_skip!();
    let mut scene = Scene::bare();
    scene.listener = scene.server.call("listen6 0").unwrap();
    scene.port = scene.server.call(&format!("port {}", scene.listener)).unwrap() as u16;
    let mut early = scene.connect();
    scene.attach(&[]);
    let mut late = scene.connect();
    let exchanges = [early.exchange(&mut scene.server, 2), late.exchange(&mut scene.server, 3)];
    let port = scene.port;
    let report = scene.saw(&exchanges);
    for exchange in &exchanges {
        assert_eq!(span_of(&report, exchange).int("server.port"), Some(u64::from(port)));
    }
}

/// An exchange on a unix socket.
fn unix_exchange(scene: &mut Scene, client: &mut UnixStream, fd: u64, tokens: u64) -> Exchange {
    let exchange = Exchange::new(tokens);
    client.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    client.write_all(&exchange.request()).unwrap();
    let length = exchange.request().len();
    assert_eq!(scene.server.call(&format!("read {fd} {length}")).unwrap(), length as u64);
    let answer = exchange.stream().concat();
    scene.server.load(&answer).unwrap();
    assert_eq!(scene.server.call(&format!("write {fd} 0 {}", answer.len())).unwrap(), answer.len() as u64);
    let mut got = vec![0; answer.len()];
    client.read_exact(&mut got).unwrap();
    assert!(got == answer);
    exchange
}

#[test]
fn edge_08_unix_sockets_are_told_by_their_path() {
    use std::os::linux::net::SocketAddrExt as _;
    or_skip!();
    let mut scene = Scene::bare();
    let path = scene.server.folder().join("api.sock").display().to_string();
    let name = format!("@gpuspan-{}", scene.server.pid());
    let abstract_one = SocketAddr::from_abstract_name(&name[1..]).unwrap();
    let addresses = [(SocketAddr::from_pathname(&path).unwrap(), path), (abstract_one, name)];
    let mut links = Vec::new();
    for (address, text) in &addresses {
        let listener = scene.server.call(&format!("listen_unix {text}")).unwrap();
        let client = UnixStream::connect_addr(address).unwrap();
        let fd = scene.server.call(&format!("accept4 {listener}")).unwrap();
        links.push((listener, client, fd));
    }
    scene.attach(&[]);
    let mut exchanges = Vec::new();
    for (index, (listener, mut early, fd)) in links.into_iter().enumerate() {
        let mut late = UnixStream::connect_addr(&addresses[index].0).unwrap();
        let late_fd = scene.server.call(&format!("accept_null {listener}")).unwrap();
        let tokens = 10 * (1 + index as u64);
        exchanges.push((index, unix_exchange(&mut scene, &mut early, fd, tokens)));
        exchanges.push((index, unix_exchange(&mut scene, &mut late, late_fd, tokens + 1)));
        drop((early, late));
        for fd in [fd, late_fd] {
            assert_eq!(scene.server.call(&format!("read {fd} 10")).unwrap(), 0);
            scene.server.call(&format!("close {fd}")).unwrap();
        }
    }
    let all: Vec<_> = exchanges.iter().map(|(_, exchange)| exchange.clone()).collect();
    let report = scene.saw(&all);
    assert_eq!(report.summary.connections.found_open, 2);
    for (index, exchange) in &exchanges {
        let span = span_of(&report, exchange);
        assert_eq!(span.text("server.address"), Some(addresses[*index].1.as_str()), "{span:?}");
        assert_eq!((span.text("network.transport"), span.int("server.port")), (Some("unix"), None));
    }
}

#[test]
fn edge_08_processes_that_listen_on_one_port() {
    or_skip!();
    let mut scene = Scene::bare();
    let mut workers: Vec<_> = (0..2).map(|_| scene.server.fork().unwrap()).collect();
    scene.server.call(&format!("close {}", scene.listener)).unwrap();
    let first = workers[0].call("listen4 0 reuseport").unwrap();
    let port = workers[0].call(&format!("port {first}")).unwrap();
    let second = workers[1].call(&format!("listen4 {port} reuseport")).unwrap();
    scene.attach(&[]);
    let mut exchanges = Vec::new();
    let mut turns = [0, 0];
    // The kernel chooses who gets a connection.
    for (worker, listener) in workers.iter_mut().zip([first, second]) {
        worker.call(&format!("nonblock {listener}")).unwrap();
    }
    for tokens in 1..=24 {
        let client = client(port as u16);
        let (index, fd) = wait::until("an accept", || {
            for (index, listener) in [first, second].into_iter().enumerate() {
                if let Ok(fd) = workers[index].attempt(&format!("accept4 {listener}"))? {
                    return Ok(Some((index, fd)));
                }
            }
            Ok(None)
        })
        .unwrap();
        turns[index] += 1;
        let mut link = super::Link { client, fd };
        exchanges.push(link.exchange(&mut workers[index], tokens));
        link.close(&mut workers[index]);
    }
    assert!(turns.iter().all(|turns| *turns > 0), "{turns:?}");
    let report = scene.saw(&exchanges);
    for exchange in &exchanges {
        assert_eq!(span_of(&report, exchange).int("server.port"), Some(port));
    }
}

#[test]
fn edge_08_a_listener_that_a_new_program_inherits() {
    or_skip!();
    // Exec before the attach, after it, and in a forked child, as servers start their front end.
    let mut scene = Scene::bare();
    scene.server.exec().unwrap();
    scene.attach(&[]);
    let mut exchanges = vec![scene.connect().exchange(&mut scene.server, 2)];
    scene.server.exec().unwrap();
    exchanges.push(scene.connect().exchange(&mut scene.server, 3));
    let mut child = scene.server.fork().unwrap();
    child.exec().unwrap();
    let client = client(scene.port);
    let fd = child.call(&format!("accept_null {}", scene.listener)).unwrap();
    exchanges.push(super::Link { client, fd }.exchange(&mut child, 4));
    let port = scene.port;
    let report = scene.saw(&exchanges);
    for exchange in &exchanges {
        assert_eq!(span_of(&report, exchange).int("server.port"), Some(u64::from(port)));
    }
}
