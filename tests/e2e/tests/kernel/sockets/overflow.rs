//! Records that are lost in the middle of a stream: said, bounded, and over with the stream.

use e2e::or_skip;

use super::{Exchange, READ, Scene, WRITE, outcomes, whole};
use crate::checks::equations_hold;

#[test]
fn edge_13_records_that_are_lost_in_a_stream() {
    or_skip!();
    let mut scene = Scene::bare();
    scene.attach(&["--ring-bytes", "4096"]);
    let mut link = scene.connect();
    let first = link.exchange(&mut scene.server, 3);
    let exchange = Exchange::new(5000);
    link.ask(&mut scene.server, &exchange.request(), READ);
    let stream = exchange.stream();
    link.answer(&mut scene.server, &stream[0], WRITE);
    // Far more than a ring of one page holds until it is read again; the client reads at the same time.
    let chunk = stream[1].clone();
    scene.server.load(&chunk).unwrap();
    scene.server.tell(&format!("repeat 5000 write {} 0 {}", link.fd, chunk.len())).unwrap();
    for _ in 0..5000 {
        link.got(&chunk);
    }
    scene.server.result().unwrap().unwrap();
    settle();
    link.answer_in_pieces(&mut scene.server, &stream[5001..], WRITE);
    let second = link.exchange(&mut scene.server, 4);
    let report = scene.report();
    equations_hold(&report.summary);
    let socket = report.summary.loss.kernel["socket"];
    assert!(socket.lost() > 0, "a ring of one page cannot hold this: {socket:?}");
    assert_eq!(report.summary.loss.lost, socket.lost());
    // What came before and after is whole; the one in between is known in part, or whole as far as its frame goes, and
    // what it says is true.
    whole(&report, &[first, second]);
    let requests = &report.summary.requests;
    assert_eq!(requests.total, 3, "{requests:?}");
    let span = super::span_of(&report, &exchange);
    assert_eq!(span.int("gen_ai.request.max_tokens"), Some(5000), "{span:?}");
    assert!(span.int("gen_ai.usage.output_tokens").is_none_or(|tokens| tokens == 5000), "{span:?}");
    assert_eq!(span.text("gpuspan.outcome"), Some("partial"), "the gap is said: {span:?}");
    assert_eq!(requests.by_outcome, outcomes(&[("completed", 2), ("partial", 1)]));
}

/// The ring is empty again after one of its readings.
fn settle() {
    std::thread::sleep(std::time::Duration::from_millis(100));
}

#[test]
fn edge_13_records_that_are_lost_between_requests() {
    or_skip!();
    let mut scene = Scene::bare();
    scene.attach(&["--ring-bytes", "4096"]);
    let mut link = scene.connect();
    let mut noisy = scene.connect();
    let first = link.exchange(&mut scene.server, 3);
    // Another connection fills the ring while a whole exchange goes by on this one.
    let mut thread = scene.server.thread().unwrap();
    let noise = Exchange::new(1).stream()[1].clone();
    thread.load(&noise).unwrap();
    thread.tell(&format!("repeat 20000 write {} 0 {}", noisy.fd, noise.len())).unwrap();
    let reader = std::thread::spawn(move || {
        for _ in 0..20_000 {
            noisy.got(&noise);
        }
    });
    let unseen = link.exchange(&mut scene.server, 30);
    reader.join().unwrap();
    thread.result().unwrap().unwrap();
    settle();
    let second = link.exchange(&mut scene.server, 4);
    let report = scene.report();
    equations_hold(&report.summary);
    whole(&report, &[first, second]);
    let requests = &report.summary.requests;
    assert_eq!(requests.by_outcome["completed"] + requests.partial, requests.total, "{requests:?}");
    assert!((2..=4).contains(&requests.total), "nothing is made up: {requests:?}");
    let known = report.spans.iter().filter(|span| span.text("gen_ai.response.id") == Some(&unseen.id));
    for span in known.filter(|span| span.text("gpuspan.outcome") == Some("completed")) {
        assert_eq!(span.int("gen_ai.request.max_tokens"), Some(30), "{span:?}");
    }
}
