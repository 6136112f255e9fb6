//! Bytes that go by unusual ways: in parts, in many messages, through pipes, from several threads.

use std::io::Write as _;

use e2e::or_skip;

use super::{Exchange, Link, READ, Scene, WRITE};

const EAGAIN: i32 = libc::EAGAIN;
const EINTR: i32 = libc::EINTR;

/// An answer that fills any socket's buffers.
fn long_answer(exchange: &Exchange) -> Vec<u8> {
    exchange.answer(&"x".repeat(3 << 20))
}

/// Takes what the server has sent so far off the socket, until `wanted` bytes have come.
fn drain(link: &mut Link, answer: &[u8], from: usize, wanted: usize) {
    link.got(&answer[from..from + wanted]);
}

#[test]
fn edge_04_what_a_full_buffer_refuses_is_counted_once() {
    or_skip!();
    let mut scene = Scene::start();
    let mut link = scene.connect();
    let exchange = Exchange::new(11);
    link.ask(&mut scene.server, &exchange.request(), READ);
    let answer = long_answer(&exchange);
    let fd = link.fd;
    scene.server.call(&format!("send_buffer {fd} 4096")).unwrap();
    scene.server.call(&format!("nonblock {fd}")).unwrap();
    scene.server.load(&answer).unwrap();
    let (mut sent, mut got, mut partial, mut refused) = (0, 0, 0, 0);
    while sent < answer.len() {
        match scene.server.attempt(&format!("write {fd} {sent} {}", answer.len() - sent)).unwrap() {
            Ok(bytes) => {
                sent += bytes as usize;
                partial += usize::from(sent < answer.len());
            }
            Err(errno) => {
                assert_eq!(errno, EAGAIN);
                refused += 1;
                drain(&mut link, &answer, got, sent - got);
                got = sent;
            }
        }
    }
    drain(&mut link, &answer, got, sent - got);
    assert!(partial > 0 && refused > 0, "{partial} writes in part, {refused} refused");
    let next = link.exchange(&mut scene.server, 3);
    scene.saw(&[exchange, next]);
}

#[test]
fn edge_04_what_a_signal_interrupts_is_counted_once() {
    or_skip!();
    let mut scene = Scene::start();
    let mut link = scene.connect();
    let exchange = Exchange::new(12);
    // A read that is interrupted before there is anything.
    scene.server.call("alarm 50").unwrap();
    assert_eq!(scene.server.attempt(&format!("read {} 100", link.fd)).unwrap(), Err(EINTR));
    link.ask(&mut scene.server, &exchange.request(), READ);
    let answer = long_answer(&exchange);
    scene.server.call(&format!("send_buffer {} 4096", link.fd)).unwrap();
    scene.server.load(&answer).unwrap();
    // Writes that are interrupted when the buffers are full, and at last one that is before it has sent anything.
    let fd = link.fd;
    let write = |sent: usize| format!("write {fd} {sent} {}", answer.len() - sent);
    let mut sent = 0;
    loop {
        scene.server.call("alarm 100").unwrap();
        match scene.server.attempt(&write(sent)).unwrap() {
            Ok(bytes) => sent += bytes as usize,
            Err(errno) => break assert_eq!(errno, EINTR),
        }
        assert!(sent > 0 && sent < answer.len(), "{sent} bytes");
    }
    scene.server.tell(&write(sent)).unwrap();
    drain(&mut link, &answer, 0, answer.len());
    assert_eq!(scene.server.result().unwrap(), Ok((answer.len() - sent) as u64));
    let next = link.exchange(&mut scene.server, 4);
    let report = scene.report();
    let requests = &report.summary.requests;
    assert_eq!((requests.total, requests.by_outcome["completed"]), (2, 2), "{requests:?}");
    super::whole(&report, &[next]);
    // So long a write is not copied whole: what stands in it need not be known, but where it ends must be.
    let span = super::span_of(&report, &exchange);
    assert!(span.int("gen_ai.usage.output_tokens").is_none_or(|tokens| tokens == 12), "{span:?}");
    crate::checks::nothing_lost(&report.summary);
}

#[test]
fn edge_05_bytes_that_are_peeked_at_are_not_read() {
    or_skip!();
    let mut scene = Scene::start();
    let mut link = scene.connect();
    let (first, second) = (Exchange::new(20), Exchange::new(21));
    let peek = libc::MSG_PEEK;
    let fd = link.fd;
    link.client.write_all(&first.request()).unwrap();
    // The whole request is looked at before it is read.
    assert!(scene.server.call(&format!("recv {fd} 65536 {peek}")).unwrap() > 0);
    assert!(scene.server.call(&format!("recvmsg {fd} 65536 3 {peek}")).unwrap() > 0);
    scene.server.call(&format!("recv {fd} {} {}", first.request().len(), libc::MSG_WAITALL)).unwrap();
    for (number, piece) in first.stream().iter().enumerate() {
        // As cpp-httplib asks between its writes whether the client is still there. From the middle on the next request waits.
        if number == 10 {
            link.client.write_all(&second.request()).unwrap();
            scene.server.call(&format!("recv {fd} 1 {peek}")).unwrap();
        }
        let seen = scene.server.attempt(&format!("recv {fd} 1 {}", peek | libc::MSG_DONTWAIT)).unwrap();
        assert_eq!(seen, if number < 10 { Err(EAGAIN) } else { Ok(1) });
        link.answer(&mut scene.server, piece, WRITE);
    }
    let mut missing = second.request().len() as u64;
    while missing > 0 {
        missing -= scene.server.call(&format!("recv {fd} {missing} 0")).unwrap();
    }
    link.answer(&mut scene.server, &second.answer("done"), WRITE);
    scene.saw(&[first, second]);
}

#[test]
fn edge_15_threads_take_turns_on_one_connection() {
    or_skip!();
    let mut scene = Scene::bare();
    let mut threads: Vec<_> = (0..3).map(|_| scene.server.thread().unwrap()).collect();
    scene.attach(&[]);
    // Accepted by one, read and answered by whoever is next.
    let port = scene.port;
    let client = super::client(port);
    let fd = threads[0].call(&format!("accept4 {}", scene.listener)).unwrap();
    let mut link = Link { client, fd };
    let mut exchanges = Vec::new();
    for tokens in [30, 31, 32] {
        let exchange = Exchange::new(tokens);
        link.ask(&mut threads[tokens as usize % 3], &exchange.request(), READ);
        for (number, piece) in exchange.stream().iter().enumerate() {
            link.answer(&mut threads[number % 3], piece, WRITE);
        }
        exchanges.push(exchange);
    }
    link.close(&mut threads[2]);
    scene.saw(&exchanges);
}

#[test]
fn edge_15_threads_write_at_the_same_time() {
    or_skip!();
    let mut scene = Scene::bare();
    let mut threads: Vec<_> = (0..4).map(|_| scene.server.thread().unwrap()).collect();
    scene.attach(&[]);
    let mut link = scene.connect();
    let exchange = Exchange::new(4 * 250);
    link.ask(&mut scene.server, &exchange.request(), READ);
    let stream = exchange.stream();
    link.answer(&mut scene.server, &stream[0], WRITE);
    // A token's chunk is the same, whoever writes it; a short write is whole, so their order does not matter.
    let chunk = &stream[1];
    for thread in &mut threads {
        thread.load(chunk).unwrap();
        thread.tell(&format!("repeat 250 write {} 0 {}", link.fd, chunk.len())).unwrap();
    }
    for thread in &mut threads {
        assert_eq!(thread.result().unwrap(), Ok(250 * chunk.len() as u64));
    }
    for _ in 0..exchange.tokens {
        link.got(chunk);
    }
    link.answer_in_pieces(&mut scene.server, &stream[1001..], WRITE);
    let next = link.exchange(&mut scene.server, 5);
    scene.saw(&[exchange, next]);
}

#[test]
fn edge_14_every_way_to_read_and_to_write() {
    or_skip!();
    let mut scene = Scene::start();
    let mut link = scene.connect();
    let reads = [
        READ,
        "recv {fd} {len} 0",
        "readv {fd} {len} 3",
        "preadv2 {fd} {len} 3",
        "recvmsg {fd} {len} 3 0",
        "recvmmsg {fd} {len} 3",
        "splice_in {fd} {len}",
    ];
    let writes = [
        WRITE,
        "send {fd} {at} {len} 0",
        "writev {fd} {at} {len} 3",
        "pwritev2 {fd} {at} {len} 3",
        "sendmsg {fd} {at} {len} 3",
        "sendmmsg {fd} {at} {len} 3",
        "sendfile {fd} {at} {len}",
        "splice {fd} {at} {len}",
    ];
    // Each way in turn with a plain one on the other side, and a plain exchange behind each: what a way does not tell
    // must not spoil the connection.
    let ways = reads.map(|read| (read, WRITE)).into_iter().chain(writes.map(|write| (READ, write)));
    let (mut exchanges, mut hidden) = (Vec::new(), Vec::new());
    for (tokens, (read, write)) in (10..).step_by(2).zip(ways) {
        let exchange = Exchange::new(tokens);
        link.ask(&mut scene.server, &exchange.request(), read);
        link.answer(&mut scene.server, &exchange.answer("a few words"), write);
        // What goes through a pipe or from a file is in nobody's memory: its bytes are counted, and what they say is
        // not known.
        let is_hidden =
            [read, write].iter().any(|way| way.starts_with("splice") || way.starts_with("sendfile"));
        if is_hidden { &mut hidden } else { &mut exchanges }.push(exchange);
        exchanges.push(link.exchange(&mut scene.server, tokens + 1));
    }
    let report = scene.report();
    super::whole(&report, &exchanges);
    let requests = &report.summary.requests;
    assert_eq!(requests.total, (exchanges.len() + hidden.len()) as u64, "{requests:?}");
    let completed = requests.by_outcome["completed"];
    assert!(completed >= exchanges.len() as u64, "{requests:?}");
    assert_eq!(completed + requests.partial, requests.total, "{requests:?}");
    crate::checks::nothing_lost(&report.summary);
}

#[test]
fn edge_14_a_body_from_a_file_completes_its_answer() {
    or_skip!();
    let mut scene = Scene::start();
    let mut link = scene.connect();
    for (tokens, send) in [(31, "sendfile {fd} {at} {len}"), (32, "splice {fd} {at} {len}")] {
        let exchange = Exchange::new(tokens);
        link.ask(&mut scene.server, &exchange.request(), READ);
        let answer = exchange.answer(&"y".repeat(50_000));
        let body = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        // As static files go out: the head by a write, the body by the kernel.
        link.answer(&mut scene.server, &answer[..body], WRITE);
        link.answer(&mut scene.server, &answer[body..], send);
    }
    let last = link.exchange(&mut scene.server, 33);
    let report = scene.report();
    let requests = &report.summary.requests;
    assert_eq!(requests.total, 3, "{requests:?}");
    assert_eq!(requests.by_status["200"], 3, "{requests:?}");
    super::whole(&report, &[last]);
    crate::checks::nothing_lost(&report.summary);
}
