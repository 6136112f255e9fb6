//! Many requests: each is seen once, whoever counts.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use e2e::{Observation, Sockets, or_skip};
use workload::ClientOptions;
use workload::client::Range;

use crate::checks::{client, nothing_lost, observe, options};
use crate::sockets::{self, Scene, outcomes};

const CONNECTIONS: u32 = 16;
/// Requests a second, all connections together.
const RATE: u32 = 2000;
const SECONDS: u32 = 30;

/// Two thousand short requests a second for 30 s on keep-alive connections: client, server and profiler agree on each.
#[test]
fn no_short_request_is_missed_or_doubled() {
    or_skip!();
    let mut scene = Scene::bare();
    // Half of the connections are there before the profiler is.
    let mut served: Vec<_> = (0..CONNECTIONS / 2).map(|_| Served::start(&mut scene)).collect();
    let threads_of_later: Vec<_> =
        (CONNECTIONS / 2..CONNECTIONS).map(|_| scene.server.thread().unwrap()).collect();
    let observation = Observation::start(scene.server.pid(), &[]).unwrap();
    served.extend(threads_of_later.into_iter().map(|thread| Served::on(&mut scene, thread)));
    let began = Instant::now();
    let clients: Vec<_> = served
        .iter()
        .zip(0..)
        .map(|(served, number)| {
            let stream = served.client.try_clone().unwrap();
            std::thread::spawn(move || ask_at_its_pace(stream, number))
        })
        .collect();
    let asked: Vec<Vec<String>> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let took = began.elapsed();
    let answered: u64 = served.into_iter().map(Served::end).sum();
    let report = observation.stop().unwrap();

    let total = u64::from(RATE * SECONDS);
    let sent: u64 = asked.iter().map(|ids| ids.len() as u64).sum();
    let (cpu, memory) = (report.summary.own.cpu_s, report.summary.own.max_rss_bytes >> 20);
    println!("{total} requests in {took:.1?}, gpuspan used {cpu:.1} s of CPU and {memory} MiB");
    assert_eq!((sent, answered), (total, total));
    assert_eq!(report.summary.requests.total, total);
    assert_eq!(report.summary.requests.by_outcome, outcomes(&[("completed", total as usize)]));
    assert_eq!(report.summary.requests.violations, 0);
    let mut seen: HashMap<&str, u32> = HashMap::new();
    for span in report.spans.iter().filter(|span| span.is_server()) {
        *seen.entry(span.text("gen_ai.response.id").unwrap()).or_default() += 1;
    }
    assert!(asked.iter().flatten().all(|id| seen.get(id.as_str()) == Some(&1)), "each once");
    assert_eq!(seen.len() as u64, total);
    nothing_lost(&report.summary);
}

/// A connection that a thread of the server answers on.
struct Served {
    client: TcpStream,
    thread: Sockets,
}

impl Served {
    fn start(scene: &mut Scene) -> Self {
        let thread = scene.server.thread().unwrap();
        Self::on(scene, thread)
    }

    fn on(scene: &mut Scene, mut thread: Sockets) -> Self {
        let client = sockets::client(scene.port);
        let fd = thread.call(&format!("accept4 {}", scene.listener)).unwrap();
        thread.tell(&format!("answer {fd}")).unwrap();
        Self { client, thread }
    }

    /// How many were answered.
    fn end(mut self) -> u64 {
        self.client.shutdown(Shutdown::Write).unwrap();
        self.thread.result().unwrap().unwrap()
    }
}

/// Asks as often as this connection's part of the rate says, one request at a time; late ones follow at once. Returns
/// the ids whose answers came.
fn ask_at_its_pace(mut stream: TcpStream, connection: u32) -> Vec<String> {
    let start = Instant::now();
    let pause = Duration::from_secs(1) * CONNECTIONS / RATE;
    let mut answer = [0; 1024];
    (0..RATE * SECONDS / CONNECTIONS)
        .map(|number| {
            std::thread::sleep((start + pause * number).saturating_duration_since(Instant::now()));
            let id = format!("cmpl-{connection}-{number}");
            let body = r#"{"model":"m","prompt":"a b","max_tokens":1}"#;
            let length = body.len();
            let request = format!(
                "POST /v1/completions HTTP/1.1\r\nhost: h\r\nx-request-id: {id}\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            stream.write_all(request.as_bytes()).unwrap();
            let length = stream.read(&mut answer).unwrap();
            assert!(String::from_utf8_lossy(&answer[..length]).contains(&format!("\"{id}\"")), "{id}");
            id
        })
        .collect()
}

#[test]
fn edge_39_many_long_streams_break_no_rule() {
    or_skip!();
    let client = ClientOptions { max_tokens: Range { min: 1000, max: 1000 }, ..client(32, 32) };
    let observed = observe(options(), client, &[]);
    observed.check();
    assert_eq!(observed.report.summary.requests.violations, 0);
}
