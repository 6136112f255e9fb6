//! Streams and what carries them: ties of TLS sessions, order, ends, protocols.

use super::*;
use crate::correlate::{Hook, Outcome};
use decode::Direction::{Received, Sent};

const PID: u32 = 10;
const CARRIER: u64 = 1;
const SESSION: u64 = 2;

#[derive(Default)]
struct Rig {
    connections: Connections,
    out: Outcomes,
    time_ns: u64,
}

impl Rig {
    fn event(&mut self, socket: Socket) {
        self.time_ns += 10;
        self.connections.event((PID, PID, self.time_ns), socket, &mut self.out);
    }

    fn accept(&mut self, connection: u64) {
        self.connections.set_listener(PID, 3, Address::Tcp(8443));
        self.event(Socket::Opened { connection, fd: 5, listener_fd: 3 });
    }

    fn data(&mut self, connection: u64, direction: decode::Direction, position: u64, bytes: &[u8]) {
        let bytes = bytes.to_vec();
        self.event(Socket::Data { connection, direction, position, bytes, lost_after: 0 });
    }

    fn tie(&mut self, tie: Tie) {
        self.event(Socket::Carried { connection: SESSION, carrier: CARRIER, tie });
    }

    fn end(&mut self, connection: u64, end: decode::End) {
        self.event(Socket::Ended { connection, fd: 5, end, received: 0, sent: 0 });
    }

    /// A connection that opened like TLS, and a session that is not tied to it yet.
    fn secured() -> Self {
        let mut rig = Self::default();
        rig.accept(CARRIER);
        rig.data(CARRIER, Received, 0, &[0x16, 3, 1, 2, 0, 1, 0]);
        rig.event(Socket::Secured { connection: SESSION, new: true });
        rig
    }

    fn ask(&mut self, connection: u64) {
        self.data(connection, Received, 0, REQUEST);
    }

    fn only(&self) -> &Request {
        assert_eq!(self.out.requests.len(), 1, "{:?}", self.out.requests);
        &self.out.requests[0]
    }
}

const REQUEST: &[u8] = b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n";
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n";

#[test]
fn edge_16_what_a_session_says_is_a_request_of_its_carrier() {
    let mut rig = Rig::secured();
    rig.ask(SESSION);
    rig.tie(Tie::Order);
    rig.data(SESSION, Sent, 0, &[HEAD, b"1234"].concat());
    let request = rig.only();
    assert_eq!((request.outcome, request.is_encrypted), (Outcome::Completed, true));
    assert_eq!(request.server, Some(Address::Tcp(8443)));
    assert!(request.life.transitions().iter().all(|transition| transition.hook == Hook::Tls));
    assert_eq!(request.life.violations, 0);
    rig.end(CARRIER, decode::End::Closed);
    let counts = rig.connections.counts();
    assert_eq!((counts.total, counts.tls, counts.tls_unread, counts.other), (1, 1, 0, 0));
    assert!(rig.connections.open.is_empty(), "a session goes with its carrier");
}

#[test]
fn a_request_waits_a_moment_for_its_listeners_address() {
    let mut rig = Rig::default();
    let serve = |rig: &mut Rig, connection| {
        rig.event(Socket::Opened { connection, fd: 5, listener_fd: 3 });
        rig.ask(connection);
        rig.data(connection, Sent, 0, &[HEAD, b"1234"].concat());
    };
    serve(&mut rig, 1);
    assert!(rig.out.requests.is_empty());
    rig.connections.set_listener(PID, 3, Address::Tcp(80));
    rig.connections.tick(rig.time_ns, &mut rig.out);
    assert_eq!(rig.only().server, Some(Address::Tcp(80)));
    // Nobody finds out: only the first moment is waited for.
    rig.connections.listens(PID, 3);
    serve(&mut rig, 2);
    rig.connections.tick(rig.time_ns, &mut rig.out);
    serve(&mut rig, 3);
    let servers: Vec<_> = rig.out.requests.iter().map(|request| request.server.clone()).collect();
    assert_eq!(servers, [Some(Address::Tcp(80)), None, None]);
}

#[test]
fn edge_16_a_session_ends_with_its_carrier() {
    let mut rig = Rig::secured();
    rig.tie(Tie::Nested);
    rig.ask(SESSION);
    rig.data(SESSION, Sent, 0, &[HEAD, b"12"].concat());
    rig.end(CARRIER, decode::End::Failed(104));
    rig.end(CARRIER, decode::End::Closed);
    assert_eq!(rig.only().outcome, Outcome::Aborted);
    assert_eq!(rig.connections.active(), 0);
}

#[test]
fn a_session_without_a_carrier_is_read_and_ends_by_itself() {
    let mut rig = Rig::secured();
    rig.ask(SESSION);
    rig.data(SESSION, Sent, 0, HEAD);
    rig.end(SESSION, decode::End::Closed);
    let request = rig.only();
    assert_eq!((request.outcome, &request.server), (Outcome::Error, &None));
    assert_eq!(rig.connections.counts().tls_unread, 1, "what the connection carried is not known");
}

#[test]
fn a_tie_that_is_dropped_holds_no_more() {
    let mut rig = Rig::secured();
    rig.tie(Tie::Order);
    rig.tie(Tie::Dropped);
    rig.ask(SESSION);
    rig.end(CARRIER, decode::End::Closed);
    assert_eq!((rig.out.requests.len(), rig.connections.active()), (0, 1));
    let counts = rig.connections.counts();
    assert_eq!((counts.tls_doubts, counts.tls_unread), (1, 1));
}

#[test]
fn what_the_server_asks_others_is_no_request_of_its_own() {
    let mut rig = Rig::default();
    rig.event(Socket::Secured { connection: SESSION, new: true });
    rig.data(SESSION, Sent, 0, b"GET /models HTTP/1.1\r\nhost: hub\r\n\r\n");
    rig.data(SESSION, Received, 0, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    rig.end(SESSION, decode::End::Closed);
    assert!(rig.out.requests.is_empty());
    assert_eq!(rig.connections.counts(), ConnectionCounts::default());
}

#[test]
fn edge_17_tls_that_nobody_deciphers_is_counted() {
    let mut rig = Rig::default();
    rig.accept(CARRIER);
    rig.data(CARRIER, Received, 0, &[0x16, 3, 1, 2, 0, 1, 0]);
    assert_eq!(rig.connections.counts().tls_unread, 1, "as long as it is open");
    rig.end(CARRIER, decode::End::Closed);
    let counts = rig.connections.counts();
    assert_eq!((counts.tls, counts.tls_unread), (1, 1));
    assert_eq!(rig.out.payload, [(CARRIER, Payload::Nothing)]);
}

#[test]
fn edge_15_writes_of_several_threads_are_put_in_order() {
    let mut rig = Rig::default();
    rig.accept(CARRIER);
    rig.ask(CARRIER);
    let head = HEAD.len() as u64;
    rig.data(CARRIER, Sent, head, b"12");
    rig.data(CARRIER, Sent, head + 2, b"34");
    assert!(rig.out.requests.is_empty());
    rig.data(CARRIER, Sent, 0, HEAD);
    let request = rig.only();
    assert_eq!((request.outcome, request.life.violations), (Outcome::Completed, 0));
}

#[test]
fn bytes_that_never_come_are_given_up() {
    let mut rig = Rig::default();
    rig.accept(CARRIER);
    rig.ask(CARRIER);
    rig.data(CARRIER, Sent, HEAD.len() as u64, b"1234");
    rig.connections.tick(rig.time_ns + LATE_NS - 1, &mut rig.out);
    assert!(rig.connections.ahead.contains(&CARRIER));
    rig.connections.tick(rig.time_ns + LATE_NS, &mut rig.out);
    assert!(rig.connections.ahead.is_empty());
    rig.end(CARRIER, decode::End::Closed);
    assert_eq!(rig.only().outcome, Outcome::Partial);
}

#[test]
fn contents_that_are_not_read_need_not_travel() {
    let mut rig = Rig::default();
    rig.accept(CARRIER);
    rig.ask(CARRIER);
    rig.data(
        CARRIER,
        Sent,
        0,
        b"HTTP/1.1 200 OK\r\ncontent-type: audio/wav\r\ncontent-length: 900000\r\n\r\n",
    );
    assert_eq!(rig.out.payload, [(CARRIER, Payload::BriefWhile(REQUEST.len() as u64))]);
    let mut rig = Rig::default();
    rig.accept(CARRIER);
    rig.ask(CARRIER);
    rig.data(
        CARRIER,
        Sent,
        0,
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    assert!(rig.out.payload.is_empty(), "where it ends is not known without its chunks");
}

#[test]
fn http_2_is_wanted_whole() {
    let mut rig = Rig::default();
    rig.accept(CARRIER);
    rig.data(CARRIER, Received, 0, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(rig.out.payload, [(CARRIER, Payload::Whole)]);
    assert_eq!(rig.connections.counts().http2, 1);
}

#[test]
fn a_process_that_ends_takes_its_sessions_with_it() {
    let mut rig = Rig::secured();
    rig.tie(Tie::Descriptor);
    rig.ask(SESSION);
    rig.connections.process_gone(PID, 900, &mut rig.out);
    let request = rig.only();
    let last = request.life.last().unwrap();
    assert_eq!(
        (request.outcome, last.state, last.hook),
        (Outcome::Lost, crate::correlate::State::Lost, Hook::Process)
    );
    assert!(rig.connections.open.is_empty() && rig.connections.busy.is_empty());
}
