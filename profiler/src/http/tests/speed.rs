//! What reading costs, in CPU time of this thread, so that other work on the machine does not count. The bounds are
//! loose: they catch a wrong order of growth, not a slow machine. Figures that are told are those of a release build:
//! `cargo test --release -p profiler --lib http::tests::speed -- --nocapture`.

use std::io::Write;
use std::time::Duration;

use super::*;

/// A chat event of 200 bytes, as vLLM writes it.
const EVENT: &str = r#"data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1700000000,"model":"org/model","choices":[{"index":0,"delta":{"content":" tok"},"logprobs":null,"finish_reason":null}]}"#;

/// CPU time of this thread so far (proc(5): the first number of schedstat).
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// Nanoseconds that each of the writes takes behind the head of a stream, of which at least so many signals tell. Signals are dropped as they come, as their
/// user does it.
fn per_write(head: &str, writes: &[Vec<u8>], least: usize, step: impl Fn(&mut Driver, &[u8])) -> u128 {
    let mut driver = Driver::new(false);
    driver.step(&req(post("/", "{}")));
    driver.step(&resp(head));
    driver.out.clear();
    let mut told = 0;
    let start = cpu();
    for write in writes {
        driver.step += 1;
        step(&mut driver, write);
        told += driver.out.len();
        driver.out.clear();
    }
    let took = (cpu() - start).as_nanos() / writes.len() as u128;
    assert!(told >= least, "{told} signals");
    took
}

#[test]
fn an_event_costs_microseconds() {
    let framed = chunk(&format!("{EVENT}\n\n")).into_bytes();
    let writes = vec![framed.clone(); 50_000];
    let whole =
        per_write(STREAM, &writes, 50_000, |driver, write| driver.bytes(Direction::Response, write, 0));
    let brief = per_write(STREAM, &writes, 1, |driver, write| driver.cut(Direction::Response, write, 96, 32));
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let packed: Vec<Vec<u8>> = (0..20_000)
        .map(|_| {
            encoder.write_all(format!("{EVENT}\n\n").as_bytes()).unwrap();
            encoder.flush().unwrap();
            let part = std::mem::take(encoder.get_mut());
            [format!("{:x}\r\n", part.len()).as_bytes(), &part, b"\r\n"].concat()
        })
        .collect();
    let head = STREAM.replace("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n");
    let gzip = per_write(&head, &packed, 20_000, |driver, write| driver.bytes(Direction::Response, write, 0));
    println!("a chunk of {} bytes: {whole} ns whole, {brief} ns cut, {gzip} ns in gzip", framed.len());
    assert!(whole < 50_000 && brief < 50_000 && gzip < 200_000);
}

#[test]
fn bodies_are_read_faster_than_they_come() {
    let megabytes = |body: &str| {
        let start = cpu();
        assert!(request_facts(body).whole);
        body.len() as f64 / (cpu() - start).as_secs_f64() / 1e6
    };
    let image = megabytes(&format!(r#"{{"model":"m","image":"{}"}}"#, "A".repeat(8 << 20)));
    let message = r#"{"role":"user","content":"a few words of text"},"#.repeat(100_000);
    let messages = megabytes(&format!(r#"{{"messages":[{message}{{}}]}}"#));
    println!("base64 {image:.0} MB/s, messages {messages:.0} MB/s");
    assert!(image > 20.0 && messages > 5.0);
}
