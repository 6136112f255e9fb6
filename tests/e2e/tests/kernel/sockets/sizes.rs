//! Sizes at which buffers, masks and classes of records have their edges, and what is larger than any of them.

use e2e::or_skip;

use super::{Exchange, READ, Scene, WRITE, span_of};

/// Around a kilobyte and a page, around the largest record, and around 64 KiB.
const SIZES: [usize; 12] = [1023, 1024, 1025, 4095, 4096, 4097, 16335, 16336, 16337, 65535, 65536, 65537];

/// The same bytes with something put into their text so that they are as many as wanted.
fn padded(wanted: usize, of: impl Fn(&str) -> Vec<u8>) -> Vec<u8> {
    let mut room = wanted - of("").len();
    // The length of the body is text itself: a digit more may have to be given back.
    while of(&"x".repeat(room)).len() > wanted {
        room -= 1;
    }
    let bytes = of(&"x".repeat(room));
    assert!(bytes.len() == wanted || bytes.len() + 1 == wanted, "{} of {wanted}", bytes.len());
    bytes
}

fn every_size(read: &str, write: &str) {
    let mut scene = Scene::start();
    let mut link = scene.connect();
    let mut exchanges = Vec::new();
    for (tokens, size) in (1..).zip(SIZES) {
        let exchange = Exchange::new(tokens);
        let request = padded(size, |prompt| exchange.request_with("", prompt));
        // In one call: it waits until the client has sent all.
        link.ask(&mut scene.server, &request, read);
        link.answer(&mut scene.server, &padded(size, |text| exchange.answer(text)), write);
        exchanges.push(exchange);
    }
    scene.saw(&exchanges);
}

#[test]
fn edge_11_sizes_of_plain_calls() {
    or_skip!();
    every_size(READ, WRITE);
    every_size("recv {fd} {len} 0x100", "send {fd} {at} {len} 0");
}

#[test]
fn edge_11_sizes_of_vectors() {
    or_skip!();
    for pieces in [1, 3, 17] {
        every_size(
            &format!("readv {{fd}} {{len}} {pieces}"),
            &format!("writev {{fd}} {{at}} {{len}} {pieces}"),
        );
    }
}

#[test]
fn edge_11_sizes_of_messages() {
    or_skip!();
    for pieces in [1, 3] {
        every_size(
            &format!("recvmsg {{fd}} {{len}} {pieces} 0x100"),
            &format!("sendmsg {{fd}} {{at}} {{len}} {pieces}"),
        );
    }
}

#[test]
fn edge_11_a_vector_of_very_many_pieces() {
    or_skip!();
    let mut scene = Scene::start();
    let mut link = scene.connect();
    let exchange = Exchange::new(5);
    let request = padded(9000, |prompt| exchange.request_with("", prompt));
    link.ask(&mut scene.server, &request, "readv {fd} {len} 60");
    link.answer(&mut scene.server, &padded(9000, |text| exchange.answer(text)), "writev {fd} {at} {len} 60");
    // More pieces than any observer follows: the bytes are counted, and the connection goes on.
    let beyond = Exchange::new(6);
    link.ask(&mut scene.server, &beyond.request(), READ);
    let answer = padded(9000, |text| beyond.answer(text));
    link.answer(&mut scene.server, &answer, "writev {fd} {at} {len} 1000");
    let last = link.exchange(&mut scene.server, 7);
    let report = scene.report();
    assert_eq!(report.summary.requests.total, 3);
    super::whole(&report, &[exchange, last]);
    crate::checks::nothing_lost(&report.summary);
}

#[test]
fn edge_11_two_megabytes_of_json() {
    or_skip!();
    for read in [READ, "recv {fd} 65536 0", "recv {fd} {len} 0x100"] {
        let mut scene = Scene::start();
        let mut link = scene.connect();
        let exchange = Exchange::new(40);
        // As an image in base64 comes.
        let request = exchange.request_with("", &"aGVsbG8gd29ybGQ".repeat(140_000));
        assert!(request.len() > 2 << 20);
        let mut client = link.client.try_clone().unwrap();
        let sending = std::thread::spawn(move || {
            std::io::Write::write_all(&mut client, &request).map(|()| request.len())
        });
        let mut got = 0;
        let total = exchange.request_with("", &"aGVsbG8gd29ybGQ".repeat(140_000)).len();
        while got < total {
            let command = super::fill(read, link.fd, 0, total - got);
            got += scene.server.call(&command).unwrap() as usize;
        }
        assert_eq!(sending.join().unwrap().unwrap(), total);
        link.answer_in_pieces(&mut scene.server, &exchange.stream(), WRITE);
        let next = link.exchange(&mut scene.server, 3);
        let report = scene.report();
        // What lies in the middle of it need not be known, but where it ends must be.
        let requests = &report.summary.requests;
        assert_eq!((requests.total, requests.by_outcome["completed"]), (2, 2), "{requests:?}");
        super::whole(&report, &[next]);
        let span = span_of(&report, &exchange);
        assert_eq!(span.int("gen_ai.usage.output_tokens"), Some(40), "{span:?}");
        assert!(span.int("gen_ai.request.max_tokens").is_none_or(|tokens| tokens == 40), "{span:?}");
        crate::checks::nothing_lost(&report.summary);
    }
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

#[test]
fn edge_11_a_head_of_many_kilobytes() {
    or_skip!();
    let mut scene = Scene::start();
    let mut link = scene.connect();
    let mut exchanges = Vec::new();
    for (tokens, (cookies, read)) in (1..).zip([
        (6 << 10, READ),
        (6 << 10, "recv {fd} 700 0"),
        (12 << 10, READ),
        (12 << 10, "read {fd} 1000"),
        (30 << 10, READ),
    ]) {
        let exchange = Exchange::new(tokens);
        let headers = format!("cookie: {}\r\ntraceparent: 00-{TRACE}-{PARENT}-01\r\n", "c".repeat(cookies));
        link.ask(&mut scene.server, &exchange.request_with(&headers, ""), read);
        link.answer_in_pieces(&mut scene.server, &exchange.stream(), WRITE);
        exchanges.push(exchange);
    }
    let report = scene.saw(&exchanges);
    for exchange in &exchanges {
        let span = span_of(&report, exchange);
        assert_eq!((span.trace_id.as_str(), span.parent.as_str()), (TRACE, PARENT), "{span:?}");
    }
}
