//! Socket events → requests: one observer per stream of bytes, and the requests under way on it.
//!
//! A stream is an accepted connection, or what a TLS library deciphers of one. The latter has an id of its own, and is
//! tied to its carrier as soon as that is known: from then on it ends with it, and listens where it listens.

mod listener;
mod observed;
mod observer;
mod order;

use super::Outcomes;
use super::inside::{ShardFact, WireFrame};
use super::request::Request;
use super::tap::{Seen, Tap};
use crate::decode::{self, Socket, SpanContext, Tie};
use crate::http::{End, Fact, Signal, SignalKind};
use crate::target::Address;
use listener::{ListenerId, Listeners};
use observed::Connection;
use observer::Observer;
pub(super) use observer::Turn;
use order::{Chunk, Order};
use std::collections::{BTreeMap, BTreeSet};

/// Connections watched at once. Beyond it new ones are left alone and counted: a server with this many open
/// connections holds more memory for them than we do.
const MOST_CONNECTIONS: usize = 65_536;

/// How long bytes wait for those before them. Records are late by the time between a system call and its record:
/// microseconds, and a scheduler's turn on a full machine.
const LATE_NS: u64 = 200_000_000;

/// The connections of a target group.
#[derive(Debug, Default)]
pub struct Connections {
    /// In an order that does not change from run to run.
    open: BTreeMap<u64, Connection>,
    /// Connections with requests under way.
    busy: BTreeSet<u64>,
    /// Connections with bytes that run ahead.
    ahead: BTreeSet<u64>,
    listeners: Listeners,
    /// Finished requests whose listener's address may still come.
    unplaced: Vec<(ListenerId, Request)>,
    signals: Vec<Signal>,
    counts: ConnectionCounts,
    /// What the thread works for that moved the bytes which are being taken, and whether they answer.
    context: Option<(SpanContext, bool)>,
    /// Where what is made of bytes passes by.
    pub(super) tap: Tap<Seen>,
}

/// What became of the connections since the attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ConnectionCounts {
    /// Seen.
    pub total: u64,
    /// Open before the attach.
    pub found_open: u64,
    /// TLS, whether what they carry was read or not.
    pub tls: u64,
    /// TLS of which nothing was read: the library is not probed.
    pub tls_unread: u64,
    /// Ties of TLS sessions to their connections that turned out wrong.
    pub tls_doubts: u64,
    /// HTTP/2.
    pub http2: u64,
    /// ZMTP, ZeroMQ's protocol.
    pub zmtp: u64,
    /// No protocol we know.
    pub other: u64,
    /// Left alone because too many were open.
    pub not_watched: u64,
}

/// How much of a connection's payload is of use from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// None.
    Nothing,
    /// All of it, however much.
    Whole,
    /// What the target sends needs no contents, as long as it has read no more than this.
    BriefWhile(u64),
}

/// Where a stream comes from.
#[derive(Clone, Debug)]
enum Origin {
    /// Accepted on this listener.
    Listener(ListenerId),
    /// Found open, and what it was accepted on.
    Address(Address),
    /// Deciphered from this connection, once that is known.
    Carrier(Option<u64>),
}

impl Connections {
    /// Requests under way.
    #[must_use]
    pub fn active(&self) -> usize {
        self.under_way().count()
    }

    /// The requests under way.
    pub fn under_way(&self) -> impl Iterator<Item = &Request> {
        self.busy.iter().filter_map(|id| self.open.get(id)).flat_map(|connection| &connection.requests)
    }

    /// What became of the connections.
    #[must_use]
    pub fn counts(&self) -> ConnectionCounts {
        let unread = self.open.values().filter(|connection| connection.is_unread()).count() as u64;
        ConnectionCounts { tls_unread: self.counts.tls_unread + unread, ..self.counts }
    }

    /// Listeners whose address found no room.
    pub(super) fn forgotten_listeners(&self) -> u64 {
        self.listeners.forgotten
    }

    pub(super) fn found_open(&mut self, pid: u32, id: u64, address: Address) {
        self.counts.found_open += 1;
        self.counts.total += 1;
        self.insert(id, pid, Origin::Address(address), true);
    }

    pub(super) fn set_listener(&mut self, pid: u32, fd: u32, address: Address) {
        self.listeners.set(pid, fd, address);
    }

    pub(super) fn unknown_listeners(&mut self) -> Vec<(u32, u32)> {
        self.listeners.take_unasked()
    }

    /// Takes what a thread did that works for a span.
    pub(super) fn event_for(
        &mut self,
        context: Option<SpanContext>,
        at: (u32, u32, u64),
        socket: Socket,
        out: &mut Outcomes,
    ) {
        self.context = match &socket {
            Socket::Data { direction, .. } => context.zip(Some(*direction == decode::Direction::Sent)),
            _ => None,
        };
        self.event(at, socket, out);
        self.context = None;
    }

    pub(super) fn event(&mut self, at: (u32, u32, u64), socket: Socket, out: &mut Outcomes) {
        let (pid, tid, time_ns) = at;
        match socket {
            Socket::Opened { connection, listener_fd, .. } => {
                let listener = self.listeners.on(pid, listener_fd);
                self.counts.total += 1;
                self.insert(connection, pid, Origin::Listener(listener), false);
            }
            Socket::Secured { connection, new } => self.insert(connection, pid, Origin::Carrier(None), !new),
            Socket::Carried { connection, carrier, tie } => self.tie(connection, carrier, tie),
            Socket::Data { connection, direction, position, bytes, lost_after } => {
                if let (decode::Direction::Received, Some(open)) = (direction, self.open.get_mut(&connection))
                {
                    open.reader = tid;
                }
                self.data(connection, direction, Chunk { position, time_ns, bytes, lost_after }, out);
            }
            Socket::Ended { connection, end, received, sent, .. } => {
                self.ended(connection, end, time_ns, [received, sent], out);
            }
        }
    }

    /// The process listens anew on a descriptor.
    pub(super) fn listens(&mut self, pid: u32, fd: u32) {
        self.listeners.listens(pid, fd);
    }

    /// Time passed: bytes before those that wait are lost, and addresses that have not come do not.
    pub(super) fn tick(&mut self, now_ns: u64, out: &mut Outcomes) {
        let late = now_ns.saturating_sub(LATE_NS);
        for id in self.tap.connections().unwrap_or_else(|| self.ahead.iter().copied().collect()) {
            self.observe(id, out, |connection, signals| connection.give_up_before(late, signals));
        }
        for (listener, mut request) in self.unplaced.drain(..) {
            request.server = self.listeners.address(listener);
            out.requests.push(request);
        }
        self.listeners.give_up();
    }

    pub(super) fn process_gone(&mut self, pid: u32, time_ns: u64, out: &mut Outcomes) {
        let gone = self.open.extract_if(.., |_, connection| connection.pid == pid);
        for (id, connection) in gone {
            self.busy.remove(&id);
            self.ahead.remove(&id);
            self.counts.tls_unread += u64::from(connection.is_unread());
            for mut request in connection.requests {
                request.lose(time_ns);
                out.requests.push(request);
            }
        }
        self.listeners.forget(pid);
    }

    /// Whether any request is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    /// The requests under way, to be changed.
    pub(super) fn under_way_mut(&mut self) -> impl Iterator<Item = &mut Request> {
        let busy = &self.busy;
        let open = self.open.iter_mut().filter(|(id, _)| busy.contains(id));
        open.flat_map(|(_, connection)| &mut connection.requests)
    }

    fn insert(&mut self, id: u64, pid: u32, origin: Origin, mid_stream: bool) {
        if self.open.len() >= MOST_CONNECTIONS {
            self.counts.not_watched += 1;
            return;
        }
        let connection = Connection {
            pid,
            origin,
            observer: Observer::new(mid_stream),
            received: Order::default(),
            sent: Order::default(),
            requests: Vec::new(),
            reader: 0,
            context: None,
            is_tls: false,
            session: None,
        };
        self.open.insert(id, connection);
    }

    /// A session is tied to its carrier, or cut loose.
    fn tie(&mut self, session: u64, carrier: u64, tie: Tie) {
        let Some(Connection { origin: Origin::Carrier(known), .. }) = self.open.get_mut(&session) else {
            return;
        };
        let before = std::mem::replace(known, (tie != Tie::Dropped).then_some(carrier));
        self.counts.tls_doubts += u64::from(tie == Tie::Dropped);
        if let Some(loose) = before.and_then(|before| self.open.get_mut(&before)) {
            loose.session = None;
        }
        if let (true, Some(carrier)) = (tie != Tie::Dropped, self.open.get_mut(&carrier)) {
            carrier.session = Some(session);
        }
    }

    fn data(&mut self, id: u64, direction: decode::Direction, chunk: Chunk, out: &mut Outcomes) {
        self.observe(id, out, |connection, signals| connection.take_chunk(direction, chunk, signals));
    }

    fn ended(&mut self, id: u64, end: decode::End, time_ns: u64, totals: [u64; 2], out: &mut Outcomes) {
        let (end, last) = match end {
            decode::End::Closed => (End::Closed, true),
            decode::End::ProcessExited => (End::ProcessExited, true),
            decode::End::EndOfInput => (End::EndOfInput, false),
            decode::End::EndOfOutput => (End::SentAll, false),
            decode::End::Failed(_) => (End::Failed, false),
        };
        let session = self.open.get(&id).and_then(|connection| connection.session);
        self.observe(id, out, |connection, signals| {
            connection.end(end, time_ns, last.then_some(totals), signals);
            None
        });
        if let Some(session) = session {
            self.observe(session, out, |connection, signals| {
                connection.end(end, time_ns, None, signals);
                None
            });
        }
        if last {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: u64) {
        self.busy.remove(&id);
        self.ahead.remove(&id);
        let Some(connection) = self.open.remove(&id) else { return };
        self.counts.tls_unread += u64::from(connection.is_unread());
        // A session goes with its carrier. Without one it has been freed first.
        if let Some(session) = connection.session {
            self.forget(session);
        }
    }

    /// Lets the observer of a connection see something, and its requests take the signals.
    fn observe(
        &mut self,
        id: u64,
        out: &mut Outcomes,
        see: impl FnOnce(&mut Connection, &mut Vec<Signal>) -> Option<Turn>,
    ) {
        let Some(connection) = self.open.get_mut(&id) else { return };
        let turn = self.tap.look(id, &mut self.signals, |signals| see(connection, signals));
        let (pid, tid) = (connection.pid, connection.reader);
        let frames = connection.observer.take_frames().into_iter();
        out.frames.extend(frames.map(|(time_ns, frame)| WireFrame {
            pid,
            tid,
            time_ns,
            connection: id,
            frame,
        }));
        if connection.received.waits() || connection.sent.waits() {
            self.ahead.insert(id);
        } else {
            self.ahead.remove(&id);
        }
        self.settle(id, out);
        if let Some(turn) = turn {
            self.turned(id, turn, out);
        }
    }

    /// Requests take the signals.
    fn settle(&mut self, id: u64, out: &mut Outcomes) {
        if self.signals.is_empty() {
            return;
        }
        let (server, pending) = self.server(id);
        let before = out.requests.len();
        let Some(connection) = self.open.get_mut(&id) else { return };
        // Bytes that waited for others were moved by whoever, and those of several exchanges are of none of them.
        let waits = connection.received.waits() || connection.sent.waits();
        let first = self.signals.first().map(|signal| signal.exchange);
        let is_one = self.signals.iter().all(|signal| Some(signal.exchange) == first);
        connection.context = self.context.filter(|_| is_one && !waits);
        for signal in self.signals.drain(..) {
            if connection.needs_no_contents(&signal) {
                out.payload.push((id, Payload::BriefWhile(connection.received.position())));
            }
            match shard_fact(connection.pid, id, signal) {
                Ok(fact) => out.shards.push(fact),
                Err(signal) => connection.take(id, &server, signal, &mut out.requests),
            }
        }
        if connection.requests.is_empty() {
            self.busy.remove(&id);
        } else {
            self.busy.insert(id);
        }
        if let Some(listener) = pending {
            self.unplaced.extend(out.requests.drain(before..).map(|request| (listener, request)));
        }
    }

    /// A connection that speaks nothing we read is left alone as soon as that is clear; HTTP/2 is wanted whole.
    fn turned(&mut self, id: u64, turn: Turn, out: &mut Outcomes) {
        let (count, payload) = match turn {
            Turn::Tls => (&mut self.counts.tls, Payload::Nothing),
            Turn::Http2 => (&mut self.counts.http2, Payload::Whole),
            Turn::Zmtp => (&mut self.counts.zmtp, Payload::Whole),
            Turn::Unknown => (&mut self.counts.other, Payload::Nothing),
        };
        if let Some(connection) = self.open.get_mut(&id) {
            // What the target says to others over TLS is a session too, and on no connection of ours.
            *count += u64::from(!matches!(connection.origin, Origin::Carrier(None)));
            connection.is_tls |= turn == Turn::Tls;
        }
        out.payload.push((id, payload));
    }

    /// What the connection was accepted on, or its carrier; and the listener, if its address may still come.
    fn server(&self, id: u64) -> (Option<Address>, Option<ListenerId>) {
        match self.open.get(&id).map(|connection| &connection.origin) {
            Some(Origin::Address(address)) => (Some(address.clone()), None),
            Some(Origin::Listener(id)) => {
                (self.listeners.address(*id), Some(*id).filter(|id| self.listeners.is_pending(*id)))
            }
            // What carries a session is no session, so this ends.
            Some(Origin::Carrier(Some(carrier))) => self.server(*carrier),
            Some(Origin::Carrier(None)) | None => (None, None),
        }
    }
}

/// What a shard of TGI was asked or answered: of a batch, and of no request of its own.
fn shard_fact(pid: u32, connection: u64, signal: Signal) -> Result<ShardFact, Signal> {
    match signal.kind {
        SignalKind::Fact(fact @ (Fact::ShardBatches(_) | Fact::ShardStep(_))) => {
            let call = connection << 32 | u64::from(signal.exchange);
            Ok(ShardFact { pid, time_ns: signal.time_ns, call, fact })
        }
        kind => Err(Signal { kind, ..signal }),
    }
}

#[cfg(test)]
mod tests;
