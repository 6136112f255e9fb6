//! `produced = exported + dropped + queued`, whatever the other end does.

use std::time::Instant;

use super::server::{Reply, Server, reply};
use super::*;
use crate::export::queue::SPANS_QUEUED;

/// Nothing listens there: the port is taken and given back.
async fn dead() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn many(n: usize) -> Batch {
    Batch::Spans(vec![Span { attributes: vec![], ..span(1) }; n])
}

#[tokio::test]
async fn a_dead_endpoint_loses_spans_and_says_how_many() {
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let tally =
            export(traces_to(endpoint(&dead().await, protocol)), vec![many(1000)]).await.otlp.traces.tally();
        assert!(tally.failures > 2, "{tally:?}");
        assert_eq!((tally.produced, tally.dropped), (1000, vec![("unreachable", 1000)]), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_refusing_endpoint_loses_each_batch_at_once() {
    let server = Server::start(vec![reply(400)]).await;
    let to = endpoint(&format!("http://{}", server.address), Protocol::HttpProtobuf);
    let tally = export(traces_to(to), vec![many(1000)]).await.otlp.traces.tally();
    assert_eq!((tally.dropped, tally.failures), (vec![("refused", 1000)], 2));
}

#[tokio::test]
async fn a_dead_endpoint_does_not_hold_up_the_others() {
    let server = Server::start(vec![reply(200)]).await;
    let metrics = endpoint(&format!("http://{}", server.address), Protocol::HttpProtobuf);
    let path = temporary("others.json", "");
    let mut settings = traces_to(endpoint(&dead().await, Protocol::Grpc));
    settings.retry.patience = Duration::from_secs(60);
    settings.flush_timeout = Duration::from_millis(200);
    let settings = Settings { metrics: Some(metrics), file: Some(path.clone()), ..settings };
    let ledger = Ledger::default();
    let (sender, receiver) = queue(&settings, &ledger);
    let exporter = Exporter::open(settings).await.unwrap();
    sender.offer(many(10));
    sender.offer(Batch::Metrics(snapshot()));
    exporter.run(receiver, tokio::time::sleep(Duration::from_millis(1500))).await;
    assert_balanced(&ledger);
    assert_eq!(ledger.otlp.traces.tally().dropped, [("shutdown", 10)]);
    assert_eq!(ledger.otlp.metrics.tally().exported, 2);
    assert_eq!((ledger.file.traces.tally().exported, ledger.file.metrics.tally().exported), (10, 2));
    assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 2);
}

#[tokio::test]
async fn a_slow_endpoint_fills_the_queue_and_offering_never_waits() {
    let server = Server::start(vec![Reply { delay: Duration::from_millis(50), ..reply(200) }]).await;
    let settings = traces_to(endpoint(&format!("http://{}", server.address), Protocol::HttpProtobuf));
    let ledger = Ledger::default();
    let (sender, receiver) = queue(&settings, &ledger);
    let exporter = Exporter::open(settings).await.unwrap();
    let begin = Instant::now();
    for _ in 0..3 * SPANS_QUEUED / 100 {
        sender.offer(many(100));
    }
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    drop(sender);
    exporter.run(receiver, std::future::pending()).await;
    assert_balanced(&ledger);
    let tally = ledger.otlp.traces.tally();
    assert!(tally.exported + 100 > SPANS_QUEUED, "{tally:?}");
    assert_eq!(tally.dropped, [("queue_full", tally.produced - tally.exported)]);
}

#[tokio::test]
async fn a_newer_snapshot_replaces_one_that_waits() {
    let server = Server::start(vec![reply(200)]).await;
    let metrics = endpoint(&format!("http://{}", server.address), Protocol::HttpProtobuf);
    let batches = (0..3).map(|_| Batch::Metrics(snapshot())).collect();
    let tally = export(Settings { metrics: Some(metrics), ..settings() }, batches).await.otlp.metrics.tally();
    assert_eq!((tally.exported, tally.dropped), (2, vec![("superseded", 4)]));
}

#[tokio::test]
async fn the_end_comes_in_time_and_counts_what_it_cuts_off() {
    let server = Server::start(vec![Reply { delay: Duration::from_secs(60), ..reply(200) }]).await;
    let mut settings = traces_to(endpoint(&format!("http://{}", server.address), Protocol::HttpProtobuf));
    settings.flush_timeout = Duration::from_millis(300);
    let ledger = Ledger::default();
    let (sender, receiver) = queue(&settings, &ledger);
    let exporter = Exporter::open(settings).await.unwrap();
    sender.offer(many(700));
    let begin = Instant::now();
    exporter.run(receiver, tokio::time::sleep(Duration::from_millis(100))).await;
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    sender.offer(many(5));
    assert_balanced(&ledger);
    assert_eq!(ledger.otlp.traces.tally().dropped, [("shutdown", 705)]);
}

#[tokio::test]
async fn the_end_flushes_what_is_queued() {
    let server = Server::start(vec![reply(200)]).await;
    let settings = traces_to(endpoint(&format!("http://{}", server.address), Protocol::HttpProtobuf));
    let ledger = Ledger::default();
    let (sender, receiver) = queue(&settings, &ledger);
    let exporter = Exporter::open(settings).await.unwrap();
    sender.offer(many(700));
    exporter.run(receiver, std::future::ready(())).await;
    assert_balanced(&ledger);
    assert_eq!(ledger.otlp.traces.tally().exported, 700);
}

#[tokio::test]
async fn requests_leave_no_faster_than_they_may() {
    const LIMIT: u64 = 128 << 10;
    let server = Server::start(vec![reply(200)]).await;
    let settings = traces_to(endpoint(&format!("http://{}", server.address), Protocol::HttpProtobuf));
    settings.pace.set(Some(LIMIT));
    let begin = Instant::now();
    let tally = export(settings, (0..8).map(|_| many(512)).collect()).await.otlp.traces.tally();
    let took = begin.elapsed().as_secs_f64();
    assert_eq!(tally.exported, 8 * 512);
    let sizes: Vec<usize> = server.received().iter().map(|request| request.body.len()).collect();
    let [before @ .., _] = sizes.as_slice() else { panic!("{sizes:?}") };
    // A second's share goes at once, and the last need not have gone.
    let least = before.iter().sum::<usize>() as f64 / LIMIT as f64 - 1.0;
    assert!(least > 0.5 && took >= least, "{took} s for {sizes:?}");
}
