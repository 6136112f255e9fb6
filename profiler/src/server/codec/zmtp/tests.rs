//! Streams written by hand; those of libzmq itself are in `tests/zmtp_oracle`.

use proptest::prelude::*;

use super::{Command, Connection, Event, Frame, MOST_KEPT, Unread, Way, looks_like};

fn greeting(minor: u8, mechanism: &[u8]) -> Vec<u8> {
    let mut greeting = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03".to_vec();
    greeting.push(minor);
    greeting.extend(mechanism);
    greeting.resize(64, 0);
    greeting
}

fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = if body.len() < 256 { vec![flags, body.len() as u8] } else { vec![flags | 2] };
    if body.len() >= 256 {
        frame.extend((body.len() as u64).to_be_bytes());
    }
    frame.extend(body);
    frame
}

fn ready(kind: &[u8]) -> Vec<u8> {
    let body = [&b"\x05READY\x0bSocket-Type\0\0\0"[..], &[kind.len() as u8], kind].concat();
    frame(4, &body)
}

/// Feeds a stream in pieces.
fn events(pieces: &[&[u8]]) -> (Vec<Event>, Option<Unread>) {
    let (mut connection, mut out, mut position) = (Connection::default(), Vec::new(), 0);
    for piece in pieces {
        connection.feed(Way::Received, position, piece, 0, &mut |event| out.push(event));
        position += piece.len() as u64;
    }
    (out, connection.unread(Way::Received))
}

fn bodies(events: &[Event]) -> Vec<(Vec<u8>, bool)> {
    let frames = events.iter().filter_map(|event| match event {
        Event::Frame(frame) => Some((frame.bytes.clone(), frame.more)),
        Event::Command(_) => None,
    });
    frames.collect()
}

fn commands(events: &[Event]) -> Vec<Command> {
    let commands = events.iter().filter_map(|event| match event {
        Event::Command(command) => Some(*command),
        Event::Frame(_) => None,
    });
    commands.collect()
}

#[test]
fn edge_26_frames_are_found_however_the_stream_is_cut() {
    let large = vec![7; 1000];
    let stream = [
        greeting(1, b"NULL"),
        ready(b"PUSH"),
        frame(1, b""),
        frame(0, b"one"),
        frame(4, b"\x04PING\0\x64"),
        frame(1, &large),
        frame(0, b""),
        frame(4, b"\x04PONG"),
        frame(0, b"two"),
    ]
    .concat();
    let expected: Vec<_> = [(&b""[..], true), (b"one", false), (&large, true), (b"", false), (b"two", false)]
        .map(|(b, m)| (b.to_vec(), m))
        .into();
    for size in [1, 2, 3, 7, 10, 11, 64, 65, 500, stream.len()] {
        let (events, unread) = events(&stream.chunks(size).collect::<Vec<_>>());
        assert_eq!((bodies(&events), unread), (expected.clone(), None), "{size}");
        assert_eq!(commands(&events), [Command::Ready, Command::Ping, Command::Pong]);
    }
}

#[test]
fn edge_26_subscriptions_are_no_messages() {
    let old = [greeting(0, b"NULL"), ready(b"SUB"), frame(0, b"\x01topic"), frame(0, b"\0topic")].concat();
    let (events_of_old, _) = events(&[&old]);
    assert_eq!(commands(&events_of_old), [Command::Ready, Command::Subscribe, Command::Cancel]);
    assert!(bodies(&events_of_old).is_empty());
    let new =
        [greeting(1, b"NULL"), ready(b"SUB"), frame(4, b"\x09SUBSCRIBEtopic"), frame(4, b"\x06CANCELtopic")]
            .concat();
    assert_eq!(commands(&events(&[&new]).0), [Command::Ready, Command::Subscribe, Command::Cancel]);
    // What a publisher of 3.0 sends may begin with anything.
    let publisher = [greeting(0, b"NULL"), ready(b"PUB"), frame(0, b"\x01topic")].concat();
    assert_eq!(bodies(&events(&[&publisher]).0).len(), 1);
}

#[test]
fn what_cannot_be_read_is_named() {
    for (stream, why) in [
        (greeting(1, b"PLAIN"), Unread::Plain),
        (greeting(1, b"CURVE"), Unread::Curve),
        (greeting(1, b"GSSAPI"), Unread::Mechanism),
        (b"\xff\0\0\0\0\0\0\0\x01\x7f\x01\x08".to_vec(), Unread::OldVersion),
        ([greeting(1, b"NULL"), vec![0x80, 1, 1]].concat(), Unread::Malformed),
        ([greeting(1, b"NULL"), vec![5, 1, 1]].concat(), Unread::Malformed),
        ([greeting(1, b"NULL"), vec![2, 0xff, 0, 0, 0, 0, 0, 0, 0]].concat(), Unread::Malformed),
        (b"GET / HTTP/1.1\r\n".to_vec(), Unread::Malformed),
    ] {
        assert_eq!(events(&[&stream]).1, Some(why), "{stream:?}");
    }
}

#[test]
fn a_gap_inside_a_frame_cuts_it_and_any_other_ends_the_direction() {
    let (mut connection, mut out) = (Connection::default(), Vec::new());
    let start = [greeting(1, b"NULL"), ready(b"PUSH"), vec![0, 100, 1, 2, 3]].concat();
    let at = start.len() as u64;
    connection.feed(Way::Sent, 0, &start, 90, &mut |event| out.push(event));
    connection.feed(Way::Sent, at + 90, &[9; 7], 0, &mut |event| out.push(event));
    connection.feed(Way::Sent, at + 97, &frame(0, b"next"), 0, &mut |event| out.push(event));
    let cut = Event::Frame(Frame { way: Way::Sent, more: false, bytes: vec![1, 2, 3], size: 100 });
    assert_eq!(out.get(1..2), Some(&[cut][..]));
    assert_eq!(bodies(&out)[1].0, b"next");
    // The header of the next frame is gone.
    connection.feed(Way::Sent, at + 200, b"", 0, &mut |event| out.push(event));
    assert_eq!(connection.unread(Way::Sent), Some(Unread::Gap));
    assert_eq!((connection.unread(Way::Received), connection.is_over()), (None, false));
}

#[test]
fn large_frames_are_kept_in_part() {
    let body = vec![3; MOST_KEPT * 3];
    let stream = [greeting(1, b"NULL"), ready(b"PUSH"), frame(0, &body), frame(0, b"next")].concat();
    let (events, _) = events(&stream.chunks(8192).collect::<Vec<_>>());
    let Event::Frame(large) = &events[1] else { panic!("{:?}", events[1]) };
    assert_eq!((large.bytes.len(), large.size), (MOST_KEPT, body.len() as u64));
    assert_eq!(bodies(&events)[1].0, b"next");
}

#[test]
fn other_protocols_do_not_look_like_it() {
    assert_eq!(looks_like(b""), None);
    assert_eq!(looks_like(b"\xff\0\0"), None);
    assert_eq!(looks_like(b"\xff\0\0\0\0\0\0\0\x01\x7f"), Some(true));
    assert_eq!(looks_like(b"\xff\0\0\0\0\0\0\0\x01\x7e"), Some(false));
    for other in [&b"GET / HTTP/1.1\r\n"[..], b"PRI * HTTP/2.0", b"\x16\x03\x01", b"\0\0\0\x04"] {
        assert_eq!(looks_like(other), Some(false));
    }
}

proptest! {
    #[test]
    fn any_bytes_end(head: bool, pieces in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..60), 0..200_u64), 0..20)) {
        let (mut connection, mut position, mut kept) = (Connection::default(), 0, 0);
        if head {
            connection.feed(Way::Received, 0, &greeting(1, b"NULL"), 0, &mut |_| {});
            position = 64;
        }
        for (piece, lost) in &pieces {
            connection.feed(Way::Received, position, piece, *lost, &mut |event| {
                if let Event::Frame(frame) = event {
                    kept += frame.bytes.len();
                }
            });
            position += piece.len() as u64 + lost;
        }
        prop_assert!(kept <= pieces.iter().map(|(piece, _)| piece.len()).sum());
    }
}

#[test]
fn edge_26_an_older_connection_is_read_from_where_whole_frames_come() {
    let mut connection = Connection::resuming();
    let mut frames = Vec::new();
    let mut feed = |position, bytes: &[u8]| {
        connection.feed(Way::Received, position, bytes, 0, &mut |event| {
            if let Event::Frame(frame) = event {
                frames.push(frame.bytes);
            }
        });
    };
    // The end of a large frame, then whole ones, then one in two pieces.
    feed(0, b"the end of what was under way");
    feed(29, b"\x01\x01\0\0\x03abc");
    feed(37, b"\0\x04de");
    feed(41, b"fg");
    assert_eq!(frames, [&b"\0"[..], b"abc", b"defg"]);
    for other in
        [&b"GET / HTTP/1.1\r\n"[..], b"\x17\x03\x03\0\x05hello", b"", b"\0\0", b"\0\x05abc", b"\x05\x01a"]
    {
        assert!(!super::continues(other), "{other:?}");
    }
    assert!(super::continues(b"\x02\0\0\0\0\0\0\0\x01x\x04\x01P"));
}
