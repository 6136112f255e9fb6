//! How connections end in the middle of an answer, and how they do not.

use std::io::Write as _;
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;

use e2e::{Sockets, or_skip};

use super::{Exchange, Link, READ, Scene, WRITE, outcomes, whole};
use crate::checks::nothing_lost;

/// A stream that has been answered in part.
fn begin(scene: &mut Scene, exchange: &Exchange) -> Link {
    let mut link = scene.connect();
    link.ask(&mut scene.server, &exchange.request(), READ);
    link.answer_in_pieces(&mut scene.server, &exchange.stream()[..4], WRITE);
    link
}

/// One exchange ended in this way, the next one is whole.
fn ended(mut scene: Scene, exchange: &Exchange, outcome: &str) {
    let next = scene.connect().exchange(&mut scene.server, 3);
    let report = scene.report();
    assert_eq!(report.summary.requests.by_outcome, outcomes(&[("completed", 1), (outcome, 1)]));
    whole(&report, &[next]);
    let span = super::span_of(&report, exchange);
    assert_eq!(span.text("gpuspan.outcome"), Some(outcome), "{span:?}");
    assert_eq!(span.int("gen_ai.request.max_tokens"), Some(exchange.tokens), "{span:?}");
    nothing_lost(&report.summary);
}

#[test]
fn edge_09_the_client_leaves_and_the_server_reads_its_end() {
    or_skip!();
    let mut scene = Scene::start();
    let exchange = Exchange::new(9);
    let link = begin(&mut scene, &exchange);
    let fd = link.fd;
    drop(link.client);
    assert_eq!(scene.server.call(&format!("read {fd} 100")).unwrap(), 0);
    scene.server.call(&format!("close {fd}")).unwrap();
    ended(scene, &exchange, "aborted");
}

#[test]
fn edge_09_the_client_leaves_and_the_servers_write_fails() {
    or_skip!();
    let mut scene = Scene::start();
    let exchange = Exchange::new(9);
    let link = begin(&mut scene, &exchange);
    let fd = link.fd;
    drop(link.client);
    // The first write reaches a closed socket, which answers with a reset; a later one fails.
    let chunk = &exchange.stream()[4];
    scene.server.load(chunk).unwrap();
    let refused = fail(&mut scene.server, &format!("send {fd} 0 {} 0", chunk.len()));
    assert!([libc::EPIPE, libc::ECONNRESET].contains(&refused), "{refused}");
    scene.server.call(&format!("close {fd}")).unwrap();
    ended(scene, &exchange, "aborted");
}

/// Makes a call until it fails.
fn fail(server: &mut Sockets, command: &str) -> i32 {
    e2e::wait::until("a failure", || Ok(server.attempt(command)?.err())).unwrap()
}

#[test]
fn edge_09_the_client_resets_the_connection() {
    or_skip!();
    let mut scene = Scene::start();
    let exchange = Exchange::new(9);
    let link = begin(&mut scene, &exchange);
    let fd = link.fd;
    reset(&link);
    drop(link.client);
    assert_eq!(scene.server.attempt(&format!("read {fd} 100")).unwrap(), Err(libc::ECONNRESET));
    scene.server.call(&format!("close {fd}")).unwrap();
    ended(scene, &exchange, "aborted");
}

/// Closing will send a reset.
fn reset(link: &Link) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the value lives through the call, and its size is told.
    let set = unsafe {
        libc::setsockopt(
            link.client.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of_val(&linger) as u32,
        )
    };
    assert_eq!(set, 0);
}

#[test]
fn edge_09_the_server_resets_the_connection() {
    or_skip!();
    let mut scene = Scene::start();
    let exchange = Exchange::new(9);
    let link = begin(&mut scene, &exchange);
    scene.server.call(&format!("reset_on_close {}", link.fd)).unwrap();
    link.close(&mut scene.server);
    ended(scene, &exchange, "error");
}

#[test]
fn edge_09_a_client_that_has_said_all_still_listens() {
    or_skip!();
    let mut scene = Scene::start();
    let mut link = scene.connect();
    let exchange = Exchange::new(9);
    link.ask(&mut scene.server, &exchange.request(), READ);
    link.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(scene.server.call(&format!("read {} 100", link.fd)).unwrap(), 0);
    link.answer_in_pieces(&mut scene.server, &exchange.stream(), WRITE);
    link.close(&mut scene.server);
    scene.saw(&[exchange]);
}

#[test]
fn edge_09_many_leave_at_once() {
    or_skip!();
    let mut scene = Scene::start();
    let exchanges: Vec<_> = (20..30).map(Exchange::new).collect();
    let mut links: Vec<_> = exchanges.iter().map(|exchange| begin(&mut scene, exchange)).collect();
    // Every second one leaves, by turns with an end and with a reset.
    for (number, exchange) in exchanges.iter().enumerate() {
        let stream = exchange.stream();
        let link = links.remove(0);
        if number % 2 == 0 {
            let fd = link.fd;
            if number % 4 == 0 {
                reset(&link);
            }
            drop(link.client);
            let read = scene.server.attempt(&format!("read {fd} 100")).unwrap();
            assert_eq!(read, if number % 4 == 0 { Err(libc::ECONNRESET) } else { Ok(0) });
            scene.server.call(&format!("close {fd}")).unwrap();
        } else {
            let mut link = link;
            link.answer_in_pieces(&mut scene.server, &stream[4..], WRITE);
            link.client.flush().unwrap();
            links.push(link);
        }
    }
    let report = scene.report();
    assert_eq!(report.summary.requests.by_outcome, outcomes(&[("completed", 5), ("aborted", 5)]));
    let stayed: Vec<_> = exchanges.into_iter().skip(1).step_by(2).collect();
    whole(&report, &stayed);
    nothing_lost(&report.summary);
}

#[test]
fn edge_09_the_servers_shutdown_ends_an_answer_without_a_length() {
    or_skip!();
    let mut scene = Scene::start();
    let mut link = scene.connect();
    let exchange = Exchange::new(9);
    link.ask(&mut scene.server, &exchange.request(), READ);
    let answer = String::from_utf8(exchange.answer("until the end")).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let lines = head.lines().filter(|line| !line.starts_with("content-length"));
    let head: String = lines.map(|line| format!("{line}\r\n")).collect();
    link.answer(&mut scene.server, format!("{head}\r\n").as_bytes(), WRITE);
    link.answer(&mut scene.server, body.as_bytes(), WRITE);
    // The socket stays open for as long as the client takes to read.
    scene.server.call(&format!("shutdown {} {}", link.fd, libc::SHUT_WR)).unwrap();
    assert_eq!(std::io::Read::read(&mut link.client, &mut [0; 10]).unwrap(), 0);
    let next = scene.connect().exchange(&mut scene.server, 3);
    scene.saw(&[exchange, next]);
}
