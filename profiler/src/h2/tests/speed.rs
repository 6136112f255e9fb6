//! What reading costs. The bounds are loose: they catch a wrong order of growth, not a slow machine.

use std::time::Instant;

use super::*;

/// Runs `step` so often and says what one costs, nanoseconds.
fn cost(what: &str, count: u32, mut step: impl FnMut(u32)) -> u128 {
    let start = Instant::now();
    (0..count).for_each(&mut step);
    let each = start.elapsed().as_nanos() / u128::from(count);
    println!("{what}: {each} ns");
    each
}

#[test]
fn frames_cost_microseconds() {
    // 200 bytes, as vLLM writes an event.
    let event = r#"data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1700000000,"model":"org/model","choices":[{"index":0,"delta":{"content":" tok"},"logprobs":null,"finish_reason":null}]}"#;
    let event = event.to_owned() + "\n\n";
    let mut driver = Driver::new(false);
    driver.step(&req(opening()));
    driver.step(&resp(greeting()));
    for stream in 0..64 {
        driver.step(&req(post(stream * 2 + 1, "/v1/chat/completions", "{}")));
        driver.step(&resp(answer(stream * 2 + 1, "text/event-stream")));
    }
    let frames: Vec<Vec<u8>> = (0..64).map(|stream| data(stream * 2 + 1, 0, &event)).collect();
    driver.out.clear();
    let each = cost("DATA with an event, one of 64 streams", 50_000, |n| {
        driver.bytes(Direction::Response, &frames[n as usize % 64], 0);
    });
    assert_eq!(tokens(&driver.out), 50_000);
    assert!(each < 50_000);

    let grpc = [("content-type", "application/grpc")];
    let path = "/inference.GRPCInferenceService/ModelStreamInfer";
    driver.step(&req(headers(201, 0, &[&ask("POST", path)[..], &grpc].concat())));
    driver.step(&resp(headers(201, 0, &[(":status", "200"), grpc[0]])));
    let content = [&b"\x12\x45\x0a\x01m\x1a\x01r\x2a\x09\x0a\x07OUTPUT0\x32\x32"[..], &[b'x'; 50]].concat();
    let message = [&[0, 0, 0, 0, content.len() as u8][..], &content].concat();
    let frame = data(201, 0, message);
    driver.out.clear();
    let each = cost("DATA with a gRPC message", 50_000, |_| driver.bytes(Direction::Response, &frame, 0));
    assert_eq!(tokens(&driver.out), 50_000);
    assert!(each < 50_000);

    let fields = [
        &ask("POST", "/v1/chat/completions")[..],
        &[
            ("user-agent", "python-httpx/0.28"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ],
        &[("authorization", "Bearer 0123456789abcdef0123456789abcdef"), ("accept", "*/*")],
    ];
    let fields = fields.concat();
    let mut stream = 1001;
    let each = cost("a whole exchange: HEADERS with 8 fields, HEADERS, two DATA", 20_000, |_| {
        let asked = [headers(stream, 0, &fields), data(stream, END_STREAM, "{}")].concat();
        driver.bytes(Direction::Request, &asked, 0);
        driver.bytes(Direction::Response, &json(stream, "{}"), 0);
        driver.out.clear();
        stream += 2;
    });
    assert!(each < 200_000);
}
