//! gRPC with Python's grpcio on both sides: 64 streams at once on four connections, calls without a stream, and calls that
//! fail. The client's own lines are the truth.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use e2e::{Observation, Report, Span};
use serde::Deserialize;

use crate::agree::{self, Distances};
use crate::server;

const STREAMS: usize = 64;
const TOKENS: u64 = 200;
const PACE_MS: usize = 25;
/// One stream, one call without, and one that fails.
const CALLS: usize = 3 * STREAMS;
const ATTEMPTS: usize = 3;

/// What the client recorded of one call; times are Unix time.
#[derive(Debug, Deserialize)]
struct Call {
    trace_id: String,
    method: String,
    /// The status by its name: `OK`, `NOT_FOUND`.
    code: String,
    messages: u64,
    message_bytes: u64,
    /// When the first response was there.
    first_ns: Option<u64>,
    /// Made on a connection from before the attach.
    old: bool,
}

#[test]
fn grpcio_on_both_sides() {
    or_skip_servers!();
    let mut server = match server::grpc() {
        Ok(server) => server,
        Err(error) => {
            println!("skipped: grpcio: {error:#}");
            return;
        }
    };
    for attempt in 1.. {
        let (calls, report) = observe(server.pid, server.port);
        assert!(server.alive(), "{}", server.log());
        let distances = check(&calls, &report);
        println!("grpcio: {} calls; first responses {distances}", calls.len());
        if distances.are_close() {
            break;
        }
        assert!(attempt < ATTEMPTS, "first responses are {distances} from the client's");
    }
}

/// The client; ended when dropped.
struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        // Both fail only when it has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn observe(pid: u32, port: u16) -> (Vec<Call>, Report) {
    let mut command = server::grpc_client().unwrap();
    command.args([port.to_string(), STREAMS.to_string(), TOKENS.to_string(), PACE_MS.to_string()]);
    let mut client = Client(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(client.0.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let observation = Observation::start(pid, &[]).unwrap();
    client.0.stdin.take().unwrap().write_all(b"\n").unwrap();
    let calls = read(lines);
    // What is still in the ring.
    std::thread::sleep(Duration::from_millis(200));
    (calls, observation.stop().unwrap())
}

fn read(lines: std::io::Lines<BufReader<ChildStdout>>) -> Vec<Call> {
    lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

fn check(calls: &[Call], report: &Report) -> Distances {
    let mut by_trace: HashMap<&str, Vec<&Span>> = HashMap::new();
    let mut unnamed = Vec::new();
    for span in report.spans.iter().filter(|span| span.is_server()) {
        if span.text("rpc.method").is_some() {
            by_trace.entry(&span.trace_id).or_default().push(span);
        } else {
            unnamed.push(span);
        }
    }
    let (old, new): (Vec<&Call>, Vec<&Call>) = calls.iter().partition(|call| call.old);
    assert_eq!(new.len(), CALLS, "{calls:?}");
    let mut distances = Vec::new();
    for call in new {
        let found = by_trace.remove(call.trace_id.as_str()).unwrap_or_default();
        assert_eq!(found.len(), 1, "one SERVER span for {call:?}: {found:#?}");
        distances.extend(call_agrees(call, found[0], report));
    }
    // What the header tables of an older connection held is not known: the call is counted, and never named wrongly.
    for span in by_trace.into_values().flatten() {
        assert!(old.iter().any(|call| call.trace_id == span.trace_id), "nobody made {span:#?}");
    }
    assert!(unnamed.len() <= old.len(), "{unnamed:#?}");
    for span in &unnamed {
        assert_eq!(span.text("gpuspan.outcome"), Some("partial"), "{span:#?}");
    }
    let requests = &report.summary.requests;
    assert_eq!(requests.total, calls.len() as u64, "{requests:?}");
    agree::nothing_lost(&report.summary);
    Distances::of(distances)
}

/// The distance of the first response's times, of streams.
fn call_agrees(call: &Call, span: &Span, report: &Report) -> Option<u64> {
    let method = format!("inference.GRPCInferenceService/{}", call.method);
    assert_eq!(span.text("rpc.system.name"), Some("grpc"), "{span:?}");
    assert_eq!(span.text("rpc.method"), Some(method.as_str()), "{span:?}");
    assert_eq!(span.text("rpc.response.status_code"), Some(call.code.as_str()), "{call:?}\n{span:?}");
    let (outcome, messages) = match (call.code.as_str(), call.method.as_str()) {
        ("OK", "ModelStreamInfer") => ("completed", TOKENS),
        ("OK", _) => ("completed", 1),
        _ => ("rejected", 0),
    };
    assert_eq!(span.text("gpuspan.outcome"), Some(outcome), "{span:?}");
    assert_eq!(call.messages, messages, "{call:?}");
    // A flag and a length go before each message (gRPC over HTTP/2, "Length-Prefixed-Message").
    let bytes = call.message_bytes + 5 * call.messages;
    assert_eq!(span.int("http.response.body.size"), Some(bytes), "{span:?}");
    let streamed = messages == TOKENS;
    if !streamed {
        return None;
    }
    let decode = report.spans.iter().find(|child| child.parent == span.span_id && child.name == "decode");
    let decode = decode.unwrap_or_else(|| panic!("no first token of {call:?} in {span:?}"));
    assert_eq!(decode.events, call.messages, "{decode:?}");
    Some(call.first_ns.unwrap().abs_diff(decode.start_ns))
}
