//! The ZMTP reader held against libzmq: what it puts on TCP and unix sockets, and the messages that it means.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends at its first surprise")]
#![expect(clippy::print_stdout, reason = "a test says what it compared, or why it cannot")]

use std::process::Command;

use profiler::server::codec::zmtp::{Command as Said, Connection, Event, MOST_KEPT, Unread, Way, looks_like};
use serde_json::Value;

#[path = "../python/mod.rs"]
mod environment;

/// As in `sglang_frames`, with which it shares them.
const PACKAGES: &[&str] = &["pyzmq==27.1.0", "msgspec==0.20.0"];

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn ask(seed: u64) -> Option<Vec<Value>> {
    let python = environment::interpreter("sglang-wire", PACKAGES)?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/zmtp_oracle/oracle.py");
    let output = environment::run(Command::new(python).arg(script).arg(seed.to_string())).unwrap();
    Some(String::from_utf8(output).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// A message: its frames, of which only the kept part is compared, with their sizes.
type Message = Vec<(Vec<u8>, u64)>;

/// What one direction of a connection said.
#[derive(Default)]
struct Stream {
    messages: Vec<Message>,
    open: Message,
    commands: Vec<Said>,
}

impl Stream {
    fn take(&mut self, event: Event) {
        match event {
            Event::Command(command) => self.commands.push(command),
            Event::Frame(frame) => {
                self.open.push((frame.bytes, frame.size));
                if !frame.more {
                    self.messages.push(std::mem::take(&mut self.open));
                }
            }
        }
    }
}

/// Reads a direction in pieces: as they came, or each at another size.
fn read(connection: &mut Connection, way: Way, pieces: &Value, size: Option<usize>) -> Stream {
    let pieces: Vec<_> =
        pieces.as_array().unwrap().iter().map(|piece| unhex(piece.as_str().unwrap())).collect();
    let whole = pieces.concat();
    assert_ne!(looks_like(&whole), Some(false));
    let pieces = match size {
        None => pieces,
        Some(size) => whole.chunks(size).map(<[u8]>::to_vec).collect(),
    };
    let (mut stream, mut position) = (Stream::default(), 0);
    for piece in pieces {
        connection.feed(way, position, &piece, 0, &mut |event| stream.take(event));
        position += piece.len() as u64;
    }
    assert!(stream.open.is_empty());
    stream
}

fn wanted(messages: &Value) -> Vec<Message> {
    let frame = |frame: &Value| {
        let bytes = unhex(frame.as_str().unwrap());
        let size = bytes.len() as u64;
        (bytes[..bytes.len().min(MOST_KEPT)].to_vec(), size)
    };
    let messages = messages.as_array().unwrap().iter();
    messages.map(|message| message.as_array().unwrap().iter().map(frame).collect()).collect()
}

#[test]
fn edge_26_streams_of_libzmq_hold_the_messages_that_it_means() {
    let Some(said) = ask(1) else { return };
    for said in &said {
        let name = said["scenario"].as_str().unwrap();
        for size in [None, Some(1), Some(11), Some(4096), Some(1 << 20)] {
            let (mut received, mut sent, mut commands) = (Vec::new(), Vec::new(), Vec::new());
            let connections = said["connections"].as_array().unwrap();
            for pieces in connections {
                let mut connection = Connection::default();
                let to = read(&mut connection, Way::Received, &pieces["received"], size);
                let from = read(&mut connection, Way::Sent, &pieces["sent"], size);
                let unread = (connection.unread(Way::Received), connection.unread(Way::Sent));
                let secret = Some(Unread::Curve);
                assert_eq!(unread, if name == "curve" { (secret, secret) } else { (None, None) }, "{name}");
                received.extend(to.messages);
                sent.extend(from.messages);
                commands.extend(to.commands.into_iter().chain(from.commands));
            }
            if name == "curve" {
                assert!(received.is_empty() && commands.is_empty());
                continue;
            }
            assert!(received == wanted(&said["to_bound"]), "{name} by {size:?}");
            assert!(sent == wanted(&said["from_bound"]), "{name} by {size:?}");
            let count = |command| commands.iter().filter(|said| **said == command).count();
            assert_eq!(count(Said::Ready), 2 * connections.len());
            match name {
                "heartbeats" => assert!(count(Said::Ping) > 0 && count(Said::Pong) > 0),
                "subscriptions" => assert_eq!((count(Said::Subscribe), count(Said::Cancel)), (2, 1)),
                "reconnects" => assert_eq!(connections.len(), 3),
                _ => {}
            }
        }
        println!(
            "{name} over {}: {} connections",
            said["transport"],
            said["connections"].as_array().unwrap().len()
        );
    }
}

#[test]
fn with_bytes_missing_what_is_said_is_still_true() {
    let Some(said) = ask(2) else { return };
    let (mut told, mut all) = (0, 0);
    for said in said.iter().filter(|said| said["scenario"] == "push_pull") {
        let pieces = &said["connections"][0]["received"];
        let pieces: Vec<_> =
            pieces.as_array().unwrap().iter().map(|piece| unhex(piece.as_str().unwrap())).collect();
        let wanted: Vec<_> = wanted(&said["to_bound"]).into_iter().flatten().collect();
        let whole = pieces.concat();
        for seed in 0..200_usize {
            // One piece is not there.
            let (from, length) = (100 + seed * 7919 % whole.len(), seed * 31 % 5000);
            let to = (from + length).min(whole.len());
            if from >= whole.len() {
                continue;
            }
            let (mut connection, mut frames) = (Connection::default(), Vec::new());
            let mut take = |event| {
                if let Event::Frame(frame) = event {
                    frames.push((frame.bytes, frame.size));
                }
            };
            connection.feed(Way::Received, 0, &whole[..from], (to - from) as u64, &mut take);
            connection.feed(Way::Received, to as u64, &whole[to..], 0, &mut take);
            assert!(frames.len() <= wanted.len());
            for (frame, wanted) in frames.iter().zip(&wanted) {
                assert!(wanted.0.starts_with(&frame.0) && wanted.1 == frame.1);
            }
            assert!(connection.unread(Way::Received).is_some() || frames.len() == wanted.len());
            (told, all) = (told + frames.len(), all + wanted.len());
        }
    }
    println!("{told} of {all} frames behind a gap in each stream");
}
