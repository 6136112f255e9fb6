//! What reading costs. The bounds are loose: they catch a wrong order of growth, not a slow machine.

use std::time::Instant;

use super::*;

/// A chat event of 200 bytes, as vLLM writes it.
const EVENT: &str = r#"data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1700000000,"model":"org/model","choices":[{"index":0,"delta":{"content":" tok"},"logprobs":null,"finish_reason":null}]}"#;

#[test]
fn an_event_costs_microseconds_and_memory_stays_flat() {
    let framed = chunk(&format!("{EVENT}\n\n"));
    let mut driver = Driver::new(false);
    driver.step(&req(post("/", "{}")));
    driver.step(&resp(STREAM));
    let count = 50_000;
    let start = Instant::now();
    for _ in 0..count {
        driver.bytes(Direction::Response, framed.as_bytes(), 0);
    }
    let took = start.elapsed();
    assert_eq!(tokens(&driver.out).len(), count);
    println!("event: {} bytes, {} ns", framed.len(), took.as_nanos() / count as u128);
    assert!(took.as_micros() / (count as u128) < 50);

    let body = format!(r#"{{"model":"m","image":"{}"}}"#, "A".repeat(8 << 20));
    let start = Instant::now();
    assert!(request_facts(&body).whole);
    let took = start.elapsed();
    println!("base64 body: {:.0} MB/s", body.len() as f64 / took.as_secs_f64() / 1e6);
    let messages = format!(
        r#"{{"messages":[{}{{}}]}}"#,
        r#"{"role":"user","content":"a few words of text"},"#.repeat(100_000)
    );
    let start = Instant::now();
    assert_eq!(request_facts(&messages).messages_count, Some(100_001));
    println!("messages body: {:.0} MB/s", messages.len() as f64 / start.elapsed().as_secs_f64() / 1e6);
}
