//! What is replayed is what was observed, and nothing that anybody said is in the file.

use super::*;
use crate::server::codec::zmtp;

/// A recorded frame of a real engine: time, process, thread, socket, sent, more, bytes.
type Line = (u64, u32, u32, u64, bool, bool, Vec<u8>);

fn frames(name: &str) -> Vec<Line> {
    let path = format!("{}/tests/fixtures/vllm/{name}.frames.gz", env!("CARGO_MANIFEST_DIR"));
    let text = String::from_utf8(unpacked(Path::new(&path))).unwrap();
    let line = |line: &str| {
        let fields: Vec<_> = line.split(' ').collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let bytes = fields[7].as_bytes().chunks(2).map(byte).collect();
        let socket = u64::from_str_radix(fields[3], 16).unwrap();
        let number = |index: usize| fields[index].parse::<u64>().unwrap();
        let id = |index: usize| u32::try_from(number(index)).unwrap();
        (number(0), id(1), id(2), socket, fields[4] == "S", fields[5] == "1", bytes)
    };
    text.lines().map(line).collect()
}

/// No twelve bytes of a frame are in the file, but for text, since ids of requests are, and the share of the cache in use,
/// which both write as `usage` and a number.
fn holds_no_bytes_of(file: &[u8], frames: &[Line]) {
    let mut looked_for = 0;
    for (.., bytes) in frames {
        for window in bytes.windows(12).step_by(3) {
            let strange = window.iter().filter(|byte| !byte.is_ascii_graphic()).count();
            let kinds: std::collections::BTreeSet<_> = window.iter().collect();
            if strange >= 4 && kinds.len() >= 6 && !holds(window, b"age\xcb") && !holds(window, b"ge\xcb") {
                looked_for += 1;
                assert!(!holds(file, window), "{window:02x?} of a frame is in the recording");
            }
        }
    }
    assert!(looked_for > 1_000, "{looked_for} windows tell");
}

#[test]
fn http_is_told_again_without_a_word_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r");
    let live = record(&path, inputs());
    assert!(live.spans.iter().filter(|span| span.parent.is_none()).count() >= 2, "{:?}", live.spans);
    assert!(live.summary["requests"]["output_tokens"].is_u64());
    assert!(live.metrics.contains("gen_ai"));
    for _ in 0..2 {
        let (again, unasked) = replay(&path);
        assert_eq!(again, live);
        assert_eq!(unasked, 0);
    }
    let file = unpacked(&path);
    for secret in SECRETS {
        assert!(!holds(&file, secret.as_bytes()), "{secret}");
    }
    for id in [90_125u32, 90_126] {
        let bytes = id.to_be_bytes();
        assert!(!holds(&file, &[&[0xce], &bytes[..]].concat()), "token {id}");
    }
    assert!(holds(&file, b"/v1/chat/completions") && holds(&file, b"cudaLaunchKernel libcudart"));
}

#[test]
fn an_engines_messages_are_told_again_without_a_byte_of_them() {
    for (name, server) in [("basic", "vllm"), ("chunked", "vllm"), ("two-servers", "generic")] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r");
        let lines = frames(name);
        let api = number("zmq_msg_send");
        let event = |(time_ns, pid, tid, socket, sent, more, bytes): &Line| {
            let way = if *sent { Way::Sent } else { Way::Received };
            let (size, bytes) = (bytes.len() as u64, bytes.clone());
            let data = ServerData::Frame { way, socket: *socket, more: *more, size, bytes };
            Event { pid: *pid, tid: *tid, time_ns: *time_ns, body: Body::Server(ServerCall { api, data }) }
        };
        let mut inputs = vec![Input::Serves(server)];
        for batch in lines.chunks(200) {
            let last_ns = batch.last().unwrap().0;
            inputs.push(Input::Events(batch.iter().map(event).collect()));
            inputs.push(tick(last_ns + 1));
        }
        let (last_ns, pid, ..) = *lines.last().unwrap();
        inputs.extend([
            Input::Gone { pid, time_ns: last_ns + 5 },
            tick(last_ns + 1_000_000_000),
            Input::Finish,
        ]);
        let live = record(&path, inputs);
        assert!(live.summary["engines"]["steps"].as_u64().unwrap() > 10, "{}", live.summary["engines"]);
        let (again, unasked) = replay(&path);
        assert_eq!((again, unasked), (live, 0), "{name}");
        holds_no_bytes_of(&unpacked(&path), &lines);
    }
}

#[test]
fn messages_on_sockets_are_told_again_without_a_byte_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r");
    let lines = frames("basic");
    let greeting = |server: u8| {
        let mut greeting = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01NULL".to_vec();
        greeting.resize(64, 0);
        greeting[32] = server;
        [&greeting[..], b"\x04\x06\x05READY"].concat()
    };
    let frame = |more: bool, bytes: &[u8]| {
        let head = [vec![2 | u8::from(more)], (bytes.len() as u64).to_be_bytes().to_vec()].concat();
        [&head, bytes].concat()
    };
    let (mut there, mut back) = (Pipe::new(1, Direction::Received), Pipe::new(1, Direction::Sent));
    let mut events = vec![opened(1, 1), there.data(2, &greeting(0)), back.data(3, &greeting(1))];
    for (time_ns, _, _, _, sent, more, bytes) in &lines {
        let pipe = if *sent { &mut back } else { &mut there };
        events.push(pipe.data(*time_ns, &frame(*more, bytes)));
    }
    assert!(zmtp::looks_like(&greeting(0)) == Some(true));
    let last_ns = lines.last().unwrap().0;
    let mut inputs = vec![learnt(PID), Input::Serves("vllm")];
    inputs.extend(events.chunks(500).map(|events| Input::Events(events.to_vec())));
    inputs.extend([tick(last_ns + 1_000_000_000), Input::Finish]);
    let live = record(&path, inputs);
    assert!(live.summary["engines"]["steps"].as_u64().unwrap() > 10, "{}", live.summary["engines"]);
    let (again, unasked) = replay(&path);
    assert_eq!((again, unasked), (live, 0));
    holds_no_bytes_of(&unpacked(&path), &lines);
}

#[test]
fn what_finds_no_room_is_counted_and_the_rest_is_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r");
    let registry = Arc::new(Registry::default());
    let mut session = Session::new(registry, resource(), SEED, 0, OFFSET_NS);
    let lost = Arc::new(Lost::default());
    let writer = Writer::create(&path, header(), Arc::clone(&lost)).unwrap();
    let (send, receive) = sync_channel(4);
    session.record(Tape::new(send.clone(), lost));
    for input in inputs() {
        session.take(input, &mut |_| {});
    }
    let writing = std::thread::spawn(move || writer.run(&receive));
    send.send(Message::End(Box::new(facts()), Box::default())).unwrap();
    writing.join().unwrap().unwrap();
    let (mut reader, _) = Reader::open(&path).unwrap();
    let mut records = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        records.push(record);
    }
    let Some(Record::End(end)) = records.last() else { panic!("no end: {records:?}") };
    assert_eq!((end.entries, end.lost_entries), (4, inputs().len() as u64 - 4));
    assert!(end.events > 0 && end.lost_events > 0);
}
