//! Observations made of events, recorded and replayed: the same comes out (`same`), whatever happens to the file
//! something comes out (`broken`).

mod broken;
mod same;

use super::*;
use crate::attach::Learnt;
use crate::correlate::KernelKey;
use crate::decode::{
    Body, Burst, CallData, Change, Direction, End as Ended, Event, GpuCall, Launch, Socket, Tie,
};
use crate::decode::{ServerCall, ServerData, Way};
use crate::export::Ledger;
use crate::facts::{Called, Ending, Facts};
use crate::metric::Registry;
use crate::probe;
use crate::session::{Input, Session};
use crate::span::model::{Resource, Span, Value};
use crate::summary;
use crate::target::Address;
use flate2::read::GzDecoder;
use std::collections::VecDeque;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

const PID: u32 = 10;
const SEED: u64 = 7;
const OFFSET_NS: i64 = 1_700_000_000_000_000_000;

/// Words that stand in what clients and servers say, and nowhere else.
const SECRETS: [&str; 6] = [
    "the-prompt-is-secret",
    "the-answer-is-secret",
    "secret-tool-argument",
    "secret-header",
    "90125, 90126",
    "secret-query",
];

fn event(time_ns: u64, body: Body) -> Event {
    Event { pid: PID, tid: 30, time_ns, body }
}

fn number(symbol: &str) -> u16 {
    u16::try_from(probe::CATALOG.iter().position(|api| api.symbol == symbol).unwrap()).unwrap()
}

fn launch(time_ns: u64, function: u64) -> Event {
    let launch = Launch { function, stream: 1, caller: 0, grid: [1; 3], block: [1; 3], shared_bytes: 0 };
    event(time_ns, Body::Gpu(GpuCall { api: number("cudaLaunchKernel"), data: CallData::Launch(launch) }))
}

fn wait(entered_ns: u64, time_ns: u64) -> Event {
    let data = CallData::Returned { entered_ns, caller: 0, args: [1, 0, 0, 0, 0, 0], result: 0, out: [0; 2] };
    event(time_ns, Body::Gpu(GpuCall { api: number("cudaStreamSynchronize"), data }))
}

fn socket(time_ns: u64, socket: Socket) -> Event {
    event(time_ns, Body::Socket(socket))
}

/// One direction of a connection, whose bytes come in pieces.
struct Pipe {
    connection: u64,
    direction: Direction,
    position: u64,
}

impl Pipe {
    fn new(connection: u64, direction: Direction) -> Self {
        Self { connection, direction, position: 0 }
    }

    fn data(&mut self, time_ns: u64, bytes: &[u8]) -> Event {
        let (connection, direction, position) = (self.connection, self.direction, self.position);
        self.position += bytes.len() as u64;
        socket(
            time_ns,
            Socket::Data { connection, direction, position, bytes: bytes.to_vec(), lost_after: 0 },
        )
    }
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A streamed exchange with a secret wherever there is text, and work on the GPU under way.
fn exchange(connection: u64, from_ns: u64) -> Vec<Event> {
    let [prompt, answer, argument, header, ids, query] = SECRETS;
    let body = format!(
        r#"{{"model":"m","stream":true,"prompt_ids":[{ids}],"messages":[{{"role":"user","content":"{prompt}"}}],"tools":[{{"x":"{argument}"}}]}}"#
    );
    let request = format!(
        "POST /v1/chat/completions?key={query} HTTP/1.1\r\nhost: a\r\nauthorization: {header}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let delta = |id: u32| {
        chunk(&format!(
            "data: {{\"id\":\"r{connection}\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{answer}\"}},\"token_ids\":[{id}]}}]}}\n\n"
        ))
    };
    let last = chunk("data: [DONE]\n\n") + "0\r\n\r\n";
    let (mut there, mut back) =
        (Pipe::new(connection, Direction::Received), Pipe::new(connection, Direction::Sent));
    let (start, rest) = request.split_at(60);
    vec![
        there.data(from_ns, start.as_bytes()),
        there.data(from_ns + 1_000, rest.as_bytes()),
        launch(from_ns + 2_000, 7),
        launch(from_ns + 3_000, 8),
        wait(from_ns + 3_500, from_ns + 50_000),
        back.data(from_ns + 60_000, head.as_bytes()),
        back.data(from_ns + 70_000, delta(90125).as_bytes()),
        launch(from_ns + 80_000, 7),
        wait(from_ns + 80_500, from_ns + 90_000),
        back.data(from_ns + 100_000, delta(90126).as_bytes()),
        back.data(from_ns + 110_000, last.as_bytes()),
    ]
}

fn opened(connection: u64, time_ns: u64) -> Event {
    socket(time_ns, Socket::Opened { connection, fd: 5, listener_fd: 3 })
}

fn tick(now_ns: u64) -> Input {
    Input::Tick { now_ns, unix_offset_ns: OFFSET_NS }
}

fn learnt(pid: u32) -> Input {
    let learnt = Learnt {
        pid,
        runtime: vec![(0x1000, 0x2000)],
        from_start: false,
        surprised: false,
        ahead: false,
        looked_ns: 1,
        connections: vec![(99, Address::Unix("/run/x".into()))],
        listeners: vec![(3, Address::Tcp(8000))],
    };
    Input::Learnt(learnt, resource())
}

fn resource() -> Arc<Resource> {
    Arc::new(Resource { attributes: vec![("service.name".into(), Value::Str("s".into()))] })
}

/// What an observation came to: everything that is told of it.
#[derive(Debug, PartialEq)]
struct Told {
    spans: Vec<Span>,
    metrics: String,
    summary: serde_json::Value,
}

/// Tells what a session came to.
fn told(session: &Session, registry: &Registry, spans: Vec<Span>, ending: &Ending) -> Told {
    let loss =
        summary::loss(summary::correlated(session), &ending.counters(), &ending.arrived, &Ledger::default());
    let summary = summary::gather(&facts(), session, loss, ending);
    Told {
        spans,
        metrics: format!("{:?}", registry.snapshot(5)),
        summary: serde_json::to_value(summary).unwrap(),
    }
}

fn facts() -> Facts {
    let called = Called { name: Some(("k".to_owned(), "_Z1kv".to_owned())), evidence: "symtab" };
    Facts { kernels: [(KernelKey { pid: PID, function: 7 }, called)].into(), ..Facts::default() }
}

fn header() -> Header {
    Header {
        gpuspan: "0".to_owned(),
        seed: SEED,
        unix_offset_ns: OFFSET_NS,
        resource: resource().as_ref().clone(),
        functions: Catalogue::names(),
        ..Header::default()
    }
}

/// Observes and records.
fn record(path: &Path, inputs: Vec<Input>) -> Told {
    let registry = Arc::new(Registry::default());
    let mut session = Session::new(Arc::clone(&registry), resource(), SEED, 0, OFFSET_NS);
    let lost = Arc::new(Lost::default());
    let writer = Writer::create(path, header(), Arc::clone(&lost)).unwrap();
    let (send, receive) = sync_channel(1000);
    session.record(Tape::new(send.clone(), lost));
    let events = |input: &Input| if let Input::Events(events) = input { events.len() as u64 } else { 0 };
    let decoded = inputs.iter().map(events).sum();
    let mut spans = Vec::new();
    for input in inputs {
        spans.extend(session.take(input, &mut |_| {}));
    }
    let ending = Ending {
        counters: vec![[decoded, decoded, 0, 0, 0, 0]],
        arrived: facts::arrived(decoded),
        window_ns: 9,
        ..Ending::default()
    };
    let end = End { ending: ending.clone(), ..End::default() };
    send.send(Message::End(Box::new(facts()), Box::new(end))).unwrap();
    writer.run(&receive).unwrap();
    told(&session, &registry, spans, &ending)
}

mod facts {
    pub fn arrived(decoded: u64) -> crate::facts::Arrived {
        crate::facts::Arrived { records: decoded, decoded, rejected: Vec::new() }
    }
}

/// Replays; what was told, and how many words of parsers nobody asked for.
fn replay(path: &Path) -> (Told, u64) {
    let (mut reader, header) = Reader::open(path).unwrap();
    let catalogue = Catalogue::of(&header.functions);
    let registry = Arc::new(Registry::default());
    let root = Arc::new(header.resource);
    let mut session =
        Session::new(Arc::clone(&registry), root, header.seed, header.unix_ns, header.unix_offset_ns);
    let (mut spans, mut ending) = (Vec::new(), Ending::default());
    while let Some(record) = reader.next().unwrap() {
        match record {
            Record::Entry(entry) => {
                let Again { input, parsed, unknown } = entry.again(&catalogue);
                assert_eq!(unknown, 0);
                spans.extend(session.retake(input, parsed));
            }
            Record::End(end) => ending = end.ending,
            Record::Header(_) | Record::Kernels(_) | Record::Facts(_) => {}
        }
    }
    // The last words are counted with the next input.
    session.retake(Input::Counting, VecDeque::from([crate::correlate::Parsed::default()]));
    (told(&session, &registry, spans, &ending), session.unasked)
}

/// What is in the file.
fn unpacked(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

fn holds(bytes: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find(bytes, word).is_some()
}

/// An observation with a bit of everything.
fn inputs() -> Vec<Input> {
    let named = vec![(KernelKey { pid: PID, function: 7 }, Some("k".into()))];
    let mut one = vec![opened(1, 900)];
    one.extend(exchange(1, 1_000));
    let mut two = vec![opened(2, 400_000), socket(400_100, Socket::Secured { connection: 20, new: true })];
    two.push(socket(400_200, Socket::Carried { connection: 20, carrier: 2, tie: Tie::Nested }));
    let end = Ended::Closed;
    two.extend(exchange(20, 500_000));
    two.push(socket(900_000, Socket::Ended { connection: 2, fd: 5, end, received: 0, sent: 0 }));
    // One whose response never ends, and bytes that run ahead of others.
    let mut three = vec![opened(3, 1_000_000)];
    three.extend(exchange(3, 1_000_100).into_iter().take(7));
    let mut late = Pipe { connection: 4, direction: Direction::Received, position: 30 };
    three.extend([opened(4, 1_100_000), late.data(1_100_001, SECRETS[0].as_bytes())]);
    three.push(event(1_200_000, Body::Process(Change::Mapped)));
    three.push(event(1_200_001, Body::Burst(Burst { last_ns: 1_200_001, launches: 3, ..Burst::default() })));
    vec![
        learnt(PID),
        Input::Serves("generic"),
        Input::Events(one),
        Input::Named(named),
        tick(300_000),
        Input::Events(two),
        Input::Listener { pid: PID, fd: 9, address: Address::Tcp(9) },
        tick(950_000),
        Input::Events(three),
        tick(900_000_000),
        Input::Gone { pid: PID, time_ns: 900_000_001 },
        Input::Finish,
    ]
}
