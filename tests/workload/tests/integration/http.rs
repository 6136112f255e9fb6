//! The server's sockets without a GPU runtime: counts from both ends, errors, aborts and odd clients.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{Scratch, check_client_against_truth};
use workload::client::{Api, Range, StreamMode};
use workload::options::Runtime;
use workload::{ClientOptions, ServerOptions, ServerProcess, ServerTruth, load};

fn options() -> ServerOptions {
    ServerOptions { runtime: Runtime::None, kernel_ns: 20_000, ..ServerOptions::default() }
}

/// Sends raw bytes and reads until the server closes.
fn raw(server: &ServerProcess, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn post(body: &str, headers: &str) -> String {
    format!("POST /v1/chat/completions HTTP/1.1\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

fn chat(max_tokens: usize, stream: bool) -> String {
    format!(
        r#"{{"model":"workload-1","messages":[{{"role":"user","content":"a b c"}}],"max_tokens":{max_tokens},"stream":{stream}}}"#
    )
}

/// Waits until the live log shows what `ready` asks for.
fn wait_for(scratch: &Scratch, ready: impl Fn(&ServerTruth) -> bool) -> ServerTruth {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let truth = scratch.truth();
        if ready(&truth) {
            return truth;
        }
        assert!(Instant::now() < deadline, "the truth log never showed it: {truth:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a load against a fresh server and compares both ends.
fn check(name: &str, client: impl FnOnce(String) -> ClientOptions) {
    let scratch = Scratch::new(name);
    let server = ServerProcess::start(&scratch.options(options()), &[]).unwrap();
    let records = load(&client(server.url())).unwrap();
    server.stop().unwrap();
    let truth = scratch.truth();
    check_client_against_truth(&records, &truth);
    let totals = truth.totals.unwrap();
    assert_eq!(totals.by_status, [("200".to_owned(), records.len() as u64)].into());
    assert_eq!((totals.steps, totals.requests), (truth.steps.len() as u64, records.len() as u64));
}

#[test]
fn four_streams() {
    check("four", |url| ClientOptions { stream: StreamMode::Mix, ..ClientOptions::new(url) });
}

#[test]
fn thirty_two_streams_with_chunked_prefill() {
    check("thirty-two", |url| ClientOptions {
        concurrency: 32,
        requests: 64,
        prompt_words: Range { min: 100, max: 900 },
        api: Api::Completions,
        ..ClientOptions::new(url)
    });
}

#[test]
fn every_write_style_is_understood() {
    for style in ["plain", "split", "joined", "vector", "utf8split"] {
        check(style, |url| ClientOptions {
            writes: Some(style.to_owned()),
            stream: StreamMode::Mix,
            ..ClientOptions::new(url)
        });
    }
}

#[test]
fn ollama_counts_agree() {
    let scratch = Scratch::new("ollama");
    let server = ServerProcess::start(&scratch.options(options()), &[]).unwrap();
    let client =
        ClientOptions { api: Api::Ollama, stream: StreamMode::Mix, ..ClientOptions::new(server.url()) };
    let records = load(&client).unwrap();
    server.stop().unwrap();
    let truth = scratch.truth();
    for record in &records {
        assert!(record.is_ok(), "{record:?}");
        // There is no id on this wire: both ends know the exchange by port and ordinal.
        let same = |request: &&workload::truth::RequestLine| {
            (request.peer_port, request.ordinal) == (record.local_port, record.ordinal)
        };
        let request = truth.requests.iter().find(same).unwrap();
        assert_eq!(record.usage.unwrap().completion_tokens, request.completion_tokens);
    }
}

#[test]
fn errors_have_their_status() {
    let scratch = Scratch::new("errors");
    let server = ServerProcess::start(&scratch.options(options()), &[]).unwrap();
    let status = |request: &str| raw(&server, request)[9..12].to_owned();
    let close = "connection: close\r\n";
    assert_eq!(status(&post("{", close)), "400");
    assert_eq!(status(&post(&chat(5000, true), close)), "400");
    assert_eq!(status(&post(&chat(5, true).replace("workload-1", "other"), close)), "404");
    assert_eq!(status("GET /nothing HTTP/1.1\r\nconnection: close\r\n\r\n"), "404");
    assert_eq!(status("GET /health HTTP/1.1\r\nconnection: close\r\n\r\n"), "200");
    assert_eq!(status("no request at all\r\n\r\n"), "400");
    server.stop().unwrap();
    let by_status = scratch.truth().totals.unwrap().by_status;
    assert_eq!(
        by_status,
        [("200", 1), ("400", 2), ("404", 2)].map(|(status, count)| (status.to_owned(), count)).into()
    );
}

#[test]
fn a_full_queue_is_answered_429() {
    let scratch = Scratch::new("full");
    let slow = ServerOptions { max_batch: 1, max_queue: 1, kernel_ns: 500_000, ..options() };
    let server = ServerProcess::start(&scratch.options(slow), &[]).unwrap();
    let client = ClientOptions {
        concurrency: 8,
        requests: 8,
        max_tokens: Range { min: 8, max: 8 },
        ..ClientOptions::new(server.url())
    };
    let records = load(&client).unwrap();
    let refused = records.iter().filter(|record| record.status == 429).count();
    assert!((1..8).contains(&refused), "{records:?}");
    assert_eq!(records.iter().filter(|record| record.is_ok()).count(), 8 - refused);
    server.stop().unwrap();
    assert_eq!(scratch.truth().totals.unwrap().by_status.get("429"), Some(&(refused as u64)));
}

#[test]
fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let scratch = Scratch::new("pipelined");
    let server = ServerProcess::start(&scratch.options(options()), &[]).unwrap();
    let close = "connection: close\r\n";
    let answer = raw(
        &server,
        &[post(&chat(2, true), ""), post(&chat(3, false), ""), post(&chat(4, true), close)].concat(),
    );
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3);
    assert_eq!(answer.matches("[DONE]").count(), 2);
    server.stop().unwrap();
    let truth = scratch.truth();
    let lines: Vec<_> = truth
        .requests
        .iter()
        .map(|request| (request.connection, request.ordinal, request.completion_tokens))
        .collect();
    assert_eq!(lines, [(0, 0, 2), (0, 1, 3), (0, 2, 4)]);
}

#[test]
fn http_1_0_gets_no_chunks() {
    let scratch = Scratch::new("http10");
    let server = ServerProcess::start(&scratch.options(options()), &[]).unwrap();
    let answer = raw(&server, &post(&chat(2, true), "").replace("HTTP/1.1", "HTTP/1.0"));
    assert!(answer.ends_with("\n\ndata: [DONE]\n\n") && !answer.contains("transfer-encoding"), "{answer}");
}

#[test]
fn a_client_that_leaves_ends_its_request() {
    let scratch = Scratch::new("leaves");
    let server = ServerProcess::start(&scratch.options(options()), &[]).unwrap();
    for stream in [true, false] {
        let mut client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        client.write_all(post(&chat(4000, stream), "").as_bytes()).unwrap();
        wait_for(&scratch, |truth| truth.steps.last().is_some_and(|step| !step.members.is_empty()));
        drop(client);
        let truth = wait_for(&scratch, |truth| truth.requests.len() == 2 - usize::from(stream));
        let request = truth.requests.last().unwrap();
        assert!(request.aborted && request.completion_tokens < 4000, "{request:?}");
        assert_eq!(request.status, if stream { 200 } else { 0 });
    }
    // The engine is idle again, not still decoding for nobody.
    let steps = scratch.truth().steps.len();
    std::thread::sleep(Duration::from_millis(100));
    assert!(scratch.truth().steps.len() <= steps + 2);
}

#[test]
fn a_slow_first_token_is_bridged_by_pings() {
    let scratch = Scratch::new("pings");
    // 45 kernels of 10 ms: the first token takes 450 ms.
    let slow = ServerOptions { kernel_ns: 10_000_000, ping_ms: 50, ..options() };
    let server = ServerProcess::start(&scratch.options(slow), &[]).unwrap();
    let client = ClientOptions {
        concurrency: 1,
        requests: 1,
        max_tokens: Range { min: 1, max: 1 },
        ..ClientOptions::new(server.url())
    };
    let records = load(&client).unwrap();
    assert!(records[0].is_ok() && records[0].comments >= 3, "{records:?}");
    assert!(records[0].first_byte_ns.unwrap() + 400_000_000 < records[0].first_delta_ns.unwrap());
    server.stop().unwrap();
    assert_eq!(scratch.truth().requests[0].pings, records[0].comments);
}

#[test]
fn the_end_of_the_server_ends_streams_with_an_error_event() {
    let scratch = Scratch::new("end");
    let server = ServerProcess::start(&scratch.options(options()), &[]).unwrap();
    let mut client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    client.write_all(post(&chat(4000, true), "").as_bytes()).unwrap();
    wait_for(&scratch, |truth| truth.steps.len() > 3);
    server.stop().unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(r#"data: {"error":"#) && !answer.contains("[DONE]"), "{answer}");
    assert_eq!(scratch.truth().totals.unwrap().requests, 1);
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    let scratch = Scratch::new("address");
    let first = ServerProcess::start(&scratch.options(options()), &[]).unwrap();
    let taken = ServerOptions { listen: format!("127.0.0.1:{}", first.port()).parse().unwrap(), ..options() };
    let error = ServerProcess::start(&taken, &[]).unwrap_err();
    assert!(format!("{error:#}").contains("ended before it listened"), "{error:#}");
}
