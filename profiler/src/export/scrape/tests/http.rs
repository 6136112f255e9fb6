//! The server over real connections: what is refused, who is cut off, how many at a time.

use std::io::Read as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::Server;
use super::*;
use crate::export::{Exporter, Flags, Ledger, OpenError, Settings, queue};

const ANY: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

/// A server in a task of this test's runtime.
async fn start(registry: Registry) -> SocketAddr {
    let server = Server::bind(ANY.into(), Arc::new(registry), None).await.unwrap();
    let address = server.address();
    tokio::spawn(server.with_scrape_time(Duration::from_millis(700)).serve());
    address
}

/// Everything that comes back for these bytes, until the server closes.
async fn exchange(address: SocketAddr, request: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is an end as well.
    let _ = stream.read_to_end(&mut answer).await;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let body = answer.split_off(end);
    (String::from_utf8(answer).unwrap().to_lowercase(), body)
}

async fn get(address: SocketAddr, headers: &str) -> (String, Vec<u8>) {
    exchange(address, &format!("GET /metrics HTTP/1.1\r\nhost: x\r\n{headers}\r\n")).await
}

#[tokio::test]
async fn a_scrape_gets_what_it_asks_for() {
    let address = start(registry(Readers::default())).await;
    let (head, classic) = get(address, "").await;
    assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    assert!(head.contains(&format!("content-length: {}\r\n", classic.len())), "{head}");
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert!(!head.contains("content-encoding"), "{head}");
    let (head, open) =
        get(address, "accept: text/plain;q=0.5\r\nAccept: application/openmetrics-text\r\n").await;
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
        "{head}"
    );
    assert!(open.ends_with(b"\n# EOF\n"));
    let (head, zipped) = get(address, "accept-encoding: gzip\r\n").await;
    assert!(head.contains("content-encoding: gzip\r\n"), "{head}");
    let mut unzipped = Vec::new();
    flate2::read::GzDecoder::new(zipped.as_slice()).read_to_end(&mut unzipped).unwrap();
    assert_eq!(unzipped, classic);
    // A query changes nothing.
    let (_, queried) = exchange(address, "GET /metrics?x=y HTTP/1.0\r\n\r\n").await;
    assert_eq!(queried, classic);
}

#[tokio::test]
async fn a_head_is_an_answer_without_its_body() {
    let address = start(registry(Readers::default())).await;
    let (_, classic) = get(address, "").await;
    let (head, body) = exchange(address, "HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(head.starts_with("http/1.1 200 ok\r\n") && body.is_empty(), "{head}");
    assert!(head.contains(&format!("content-length: {}\r\n", classic.len())), "{head}");
}

#[tokio::test]
async fn everything_else_is_refused() {
    let address = start(registry(Readers::default())).await;
    let long = format!("GET /metrics HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(20_000));
    let cases = [
        ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
        ("GET /metrics/ HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
        ("GET /etc/passwd HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", "405"),
        ("DELETE /metrics HTTP/1.1\r\nhost: x\r\n\r\n", "405"),
        ("nonsense\r\n\r\n", "400"),
        (long.as_str(), "431"),
    ];
    for (request, status) in cases {
        let (head, _) = exchange(address, request).await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{status}: {head}");
        assert_eq!(head.contains("allow: get, head\r\n"), status == "405", "{head}");
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_is_cut_off_and_its_place_is_free() {
    let address = start(registry(Readers::default())).await;
    // More than there are places.
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let start = Instant::now();
    let (head, _) = get(address, "").await;
    assert!(head.starts_with("http/1.1 200 ok"), "{head}");
    let waited = start.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_secs(10)).contains(&waited), "{waited:?}");
    assert_eq!(silent[0].read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let registry = registry(Readers::default());
    let target = registry.target(&resource("vllm", "h.1"), START_NS);
    for n in 0..2000 {
        // 40 MB: more than sockets hold.
        let name = format!("{n:0>20000}");
        target.add(&CUDA_KERNEL_LAUNCHES, &model(&name), 1);
    }
    let address = start(registry).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got).await;
    assert!(!got.is_empty() && got.len() < 40_000_000, "{}", got.len());
}

#[tokio::test]
async fn a_hundred_scrapes_at_once_all_get_the_same() {
    let address = start(registry(Readers::default())).await;
    let (_, expected) = get(address, "").await;
    let scrapes: Vec<_> = (0..100).map(|_| tokio::spawn(get(address, ""))).collect();
    for scrape in scrapes {
        let (head, body) = scrape.await.unwrap();
        assert!(head.starts_with("http/1.1 200 ok"), "{head}");
        assert!(body == expected);
    }
}

/// Settings in which nothing but scrapes is asked for.
fn only_scrapes(address: &str) -> Settings {
    let flags = Flags { prometheus_listen: Some(address.to_owned()), ..Flags::default() };
    Settings::resolve(&flags, |_| None).unwrap()
}

#[tokio::test]
async fn the_exporter_answers_until_its_end_and_closes_the_port() {
    let settings = only_scrapes("127.0.0.1:0");
    let (sender, receiver) = queue(&settings, &Ledger::default());
    let registry = Arc::new(registry(settings.readers()));
    let exporter = Exporter::open(settings).await.unwrap().with_scrapes(&registry, None).await.unwrap();
    let address = exporter.scraped_at().unwrap();
    assert_ne!(address.port(), 0);
    let (shutdown, asked) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(exporter.run(receiver, async {
        let _ = asked.await;
    }));
    drop(sender);
    // Nothing is to be delivered, and it answers all the same, with what is recorded meanwhile.
    for launches in [41, 42] {
        registry.target(&resource("vllm", "h.1"), 0).add(&CUDA_KERNEL_LAUNCHES, &[], 1);
        let (_, body) = get(address, "").await;
        let body = String::from_utf8(body).unwrap();
        let start = r#"gpu_cuda_kernel_launch_calls_total{instance="h.1","#;
        let line = body.lines().find(|line| line.starts_with(start)).unwrap();
        assert!(line.ends_with(&format!("}} {launches}")), "{line}");
    }
    shutdown.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(5), running).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_says_what_to_do() {
    let taken = Server::bind(ANY.into(), Arc::default(), None).await.unwrap();
    let address = taken.address().to_string();
    let exporter = Exporter::open(only_scrapes(&address)).await.unwrap();
    let error = exporter.with_scrapes(&Arc::default(), None).await.unwrap_err();
    assert!(matches!(error, OpenError::Listen { .. }));
    let text = error.to_string();
    assert!(text.contains(&address) && text.contains("--prometheus-listen"), "{text}");
}
