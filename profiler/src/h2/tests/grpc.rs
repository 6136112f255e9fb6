//! gRPC calls as streams.

use super::*;
use crate::http::{Messages, RpcEnd};

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

fn call(stream: u32, path: &str) -> Vec<u8> {
    let grpc = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "5S")];
    headers(stream, 0, &[&ask("POST", path)[..], &grpc].concat())
}

fn message(content: &[u8]) -> Vec<u8> {
    [&[0][..], &(content.len() as u32).to_be_bytes(), content].concat()
}

/// A `ModelInferRequest` for model `m` with id `r`.
fn request() -> Vec<u8> {
    message(b"\x0a\x01m\x1a\x01r")
}

/// A `ModelStreamInferResponse` with an output.
fn token() -> Vec<u8> {
    message(b"\x12\x07\x0a\x01m\x2a\x02\x0a\x00")
}

fn started(stream: u32) -> Vec<u8> {
    headers(stream, 0, &[(":status", "200"), ("content-type", "application/grpc")])
}

fn trailers(stream: u32, status: &str) -> Vec<u8> {
    headers(stream, END_STREAM, &[("grpc-status", status), ("grpc-message", "secret")])
}

fn rpc_ends(signals: &[Signal]) -> Vec<RpcEnd> {
    let ends = signals.iter().filter_map(|signal| match &signal.kind {
        SignalKind::RpcEnd(end) => Some((**end).clone()),
        _ => None,
    });
    ends.collect()
}

#[test]
fn a_unary_call() {
    let asked = request();
    let signals = run(&[
        // One message over two frames.
        req([call(1, INFER), data(1, 0, &asked[..3]), data(1, END_STREAM, &asked[3..])].concat()),
        resp(started(1)),
        resp([data(1, 0, message(b"\x0a\x01m")), trailers(1, "0")].concat()),
    ]);
    let told = lines(&signals);
    assert_eq!(told[1], format!("1@1 POST {INFER}"));
    assert_eq!(
        told[2],
        r#"1@1 RpcStart(Rpc { method: "inference.GRPCInferenceService/ModelInfer", timeout_ns: Some(5000000000) })"#
    );
    assert!(told[3].starts_with("1@1 RpcRequest"));
    assert_eq!(told[4..7], ["1@1 asked 11 model=m", "1@2 answering", "1@2 200 None"]);
    assert_eq!(outcomes(&signals), [(1, Outcome::Complete)]);
    let [end] = &rpc_ends(&signals)[..] else { panic!("{told:?}") };
    assert_eq!((end.status, end.first_response_ns), (Some(0), Some(3)));
    assert_eq!(end.request, Messages { count: 1, bytes: 6, lost: false });
    assert_eq!(end.response, Messages { count: 1, bytes: 3, lost: false });
}

#[test]
fn a_stream_of_answers_counts_its_tokens_while_the_client_stays() {
    let mut script = vec![req([call(1, STREAM), data(1, 0, request())].concat()), resp(started(1))];
    let answer = token();
    script.extend([
        resp(data(1, 0, [&answer[..], &answer, &answer[..4]].concat())),
        resp(data(1, 0, &answer[4..])),
    ]);
    script.extend([resp(data(1, 0, message(b"\x12\x03\x0a\x01m"))), resp(trailers(1, "0"))]);
    let signals = run(&script);
    let told = lines(&signals);
    assert_eq!(tokens(&signals), 3);
    assert_eq!(told.iter().filter(|line| *line == "1@3 token").count(), 2);
    assert_eq!(told.iter().filter(|line| *line == "1@4 token").count(), 1);
    assert!(told.contains(&"1@6 asked 11 cut model=m".to_owned()), "{told:?}");
    assert_eq!(rpc_ends(&signals)[0].response.count, 4);
    assert_eq!(outcomes(&signals), [(1, Outcome::Complete)]);
}

#[test]
fn an_answer_of_trailers_alone() {
    let only = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "12")];
    let signals = run(&[
        req([call(1, "/x.Y/Z"), data(1, END_STREAM, request())].concat()),
        resp(headers(1, END_STREAM, &only)),
    ]);
    assert_eq!(rpc_ends(&signals)[0].status, Some(12));
    assert_eq!(outcomes(&signals), [(1, Outcome::Complete)]);
}

#[test]
fn edge_9_a_call_that_is_cancelled() {
    let signals = run(&[
        req([call(1, STREAM), data(1, 0, request())].concat()),
        resp([started(1), data(1, 0, token())].concat()),
        req(frame(RESET, 0, 1, &[0, 0, 0, 8])),
    ]);
    assert_eq!(outcomes(&signals), [(1, Outcome::Truncated(End::EndOfInput))]);
    assert_eq!((rpc_ends(&signals)[0].status, tokens(&signals)), (None, 1));
}

#[test]
fn edge_36_a_status_in_the_unseen_table_is_not_guessed() {
    let signals = join(&[
        req([call(1, INFER), data(1, END_STREAM, request())].concat()),
        resp(
            [started(1), data(1, 0, message(b"")), frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xbe])]
                .concat(),
        ),
    ]);
    assert_eq!(rpc_ends(&signals)[0].status, None);
    assert_eq!(outcomes(&signals), [(1, Outcome::Partial)]);
}

#[test]
fn edge_36_large_messages_of_two_streams_interleaved() {
    // 40,000 bytes of a tensor (field 7), 16 KiB a frame.
    let tensor = [&[0x0a, 1, b'm', 0x3a][..], &[0xc0, 0xb8, 0x02], &[5; 40_000]].concat();
    let asked = message(&tensor);
    let mut bytes = [call(1, INFER), call(3, INFER)].concat();
    for part in asked.chunks(16_384) {
        bytes.extend([data(1, 0, part), data(3, 0, part)].concat());
    }
    bytes.extend([data(1, END_STREAM, ""), data(3, END_STREAM, "")].concat());
    let script: Vec<Do> = bytes.chunks(4096).map(req).collect();
    let signals = run(&script);
    let models = lines(&signals).iter().filter(|line| line.ends_with("asked 40012 model=m")).count();
    assert_eq!(models, 2, "{:?}", lines(&signals));
}

#[test]
fn no_text_of_a_message_is_kept() {
    let marker = "ZebraQuokkaMarker";
    let text = |field: u8| [&[field << 3 | 2, marker.len() as u8][..], marker.as_bytes()].concat();
    let secret = [text(4), text(5), text(7), text(9)].concat();
    let asked = [&b"\x0a\x01m"[..], &secret].concat();
    let mut driver = Driver::new(false);
    let mut head = call(1, INFER);
    head.extend(headers(3, END_STREAM, &[("authorization", marker), ("x-token", marker)]));
    let bytes = [opening(), head, data(1, END_STREAM, message(&asked))].concat();
    for part in bytes.chunks(3) {
        driver.step(&req(part));
        let seen = format!("{:?} {:?}", driver.connection, driver.out);
        assert!(!seen.contains(marker), "{seen}");
        assert!(!seen.contains("90, 101, 98, 114, 97"), "{seen}");
    }
    assert!(lines(&driver.out).iter().any(|line| line.ends_with("model=m")));
}
