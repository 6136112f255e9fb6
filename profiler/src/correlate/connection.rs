//! Socket events → requests: one HTTP observer per connection, and the requests under way on it.

use super::Outcomes;
use super::request::{Evidence, Outcome, Request};
use super::share::Share;
use super::step::Step;
use crate::decode::{self, Socket};
use crate::http::{self, Signal, Verdict};
use crate::target::Address;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

/// Connections watched at once. Beyond it new ones are left alone and counted: a server with this many open
/// connections holds more memory for them than we do.
const MOST_CONNECTIONS: usize = 65_536;

/// The connections of a target group.
#[derive(Debug, Default)]
pub struct Connections {
    open: HashMap<u64, Connection>,
    /// Connections with requests under way.
    busy: BTreeSet<u64>,
    /// What each listening descriptor listens on, if somebody has looked and found it.
    listeners: HashMap<(u32, u32), Option<Address>>,
    /// Listening descriptors that nobody has been asked to look at.
    unasked: Vec<(u32, u32)>,
    signals: Vec<Signal>,
    counts: ConnectionCounts,
}

/// What became of the connections since the attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ConnectionCounts {
    /// Seen.
    pub total: u64,
    /// Open before the attach.
    pub found_open: u64,
    /// TLS: what they carry is not readable on the socket.
    pub tls: u64,
    /// HTTP/2.
    pub http2: u64,
    /// No protocol we know.
    pub other: u64,
    /// Left alone because too many were open.
    pub not_watched: u64,
}

#[derive(Debug)]
struct Connection {
    pid: u32,
    listener: Listener,
    /// Gone once the connection has turned out to be of no interest.
    observer: Option<http::Connection>,
    requests: Vec<Request>,
}

#[derive(Clone, Debug)]
enum Listener {
    Descriptor(u32),
    Address(Address),
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
        self.counts
    }

    pub(super) fn found_open(&mut self, pid: u32, id: u64, address: Address) {
        self.counts.found_open += 1;
        self.insert(id, pid, Listener::Address(address), true);
    }

    pub(super) fn set_listener(&mut self, pid: u32, fd: u32, address: Address) {
        self.listeners.insert((pid, fd), Some(address));
    }

    pub(super) fn unknown_listeners(&mut self) -> Vec<(u32, u32)> {
        // Asked once: an address that cannot be found now will not be found later.
        std::mem::take(&mut self.unasked)
    }

    pub(super) fn event(&mut self, pid: u32, time_ns: u64, socket: Socket, out: &mut Outcomes) {
        match socket {
            Socket::Opened { connection, listener_fd, .. } => {
                if let Entry::Vacant(unknown) = self.listeners.entry((pid, listener_fd)) {
                    unknown.insert(None);
                    self.unasked.push((pid, listener_fd));
                }
                self.insert(connection, pid, Listener::Descriptor(listener_fd), false);
            }
            Socket::Data { connection, direction, position, bytes, lost_after } => {
                let direction = match direction {
                    decode::Direction::Received => http::Direction::Request,
                    decode::Direction::Sent => http::Direction::Response,
                };
                self.observe(connection, out, |observer, signals| {
                    observer.on_bytes(direction, position, time_ns, &bytes, lost_after, signals);
                });
                self.judge(connection, out);
            }
            Socket::Ended { connection, end, received, sent, .. } => {
                let (end, last) = match end {
                    decode::End::Closed => (http::End::Closed, true),
                    decode::End::EndOfInput => (http::End::EndOfInput, false),
                    decode::End::Failed(_) => (http::End::Failed, false),
                };
                self.observe(connection, out, |observer, signals| {
                    // Records that were lost before a close show in its totals alone. At other ends another thread
                    // may still be between its write and its record.
                    if last {
                        observer.on_bytes(http::Direction::Request, received, time_ns, &[], 0, signals);
                        observer.on_bytes(http::Direction::Response, sent, time_ns, &[], 0, signals);
                    }
                    observer.on_end(end, time_ns, signals);
                });
                if last {
                    self.open.remove(&connection);
                    self.busy.remove(&connection);
                }
            }
        }
    }

    pub(super) fn process_gone(&mut self, pid: u32, time_ns: u64, out: &mut Outcomes) {
        let gone = self.open.extract_if(|_, connection| connection.pid == pid);
        for (id, connection) in gone {
            self.busy.remove(&id);
            for mut request in connection.requests {
                request.finish(time_ns, Outcome::Lost);
                out.requests.push(request);
            }
        }
        self.listeners.retain(|(of, _), _| *of != pid);
    }

    /// Gives a closed step to the requests that may have ridden in it; returns how many they are.
    ///
    /// A request may have: it was there, whole, before the step's first operation, it asks a model to run, and it
    /// is not over yet.
    pub(super) fn ride(&mut self, step: &Step, rotation: u64) -> u64 {
        let may_ride = |request: &Request| {
            request.is_inference() && request.arrived_ns.is_some_and(|at| at <= step.start_ns)
        };
        let members = self.under_way().filter(|request| may_ride(request)).count() as u64;
        if members == 0 {
            return 0;
        }
        let evidence = if members == 1 { Evidence::E2 } else { Evidence::E3 };
        let whole = Share::whole(step);
        let mut turn = rotation % members;
        for id in &self.busy {
            let Some(connection) = self.open.get_mut(id) else { continue };
            for request in connection.requests.iter_mut().filter(|request| may_ride(request)) {
                request.ride(step, &whole.part(turn, members), evidence);
                turn = (turn + 1) % members;
            }
        }
        members
    }

    fn insert(&mut self, id: u64, pid: u32, listener: Listener, mid_stream: bool) {
        self.counts.total += 1;
        if self.open.len() >= MOST_CONNECTIONS {
            self.counts.not_watched += 1;
            return;
        }
        let observer = Some(http::Connection::new(mid_stream));
        self.open.insert(id, Connection { pid, listener, observer, requests: Vec::new() });
    }

    /// Lets the observer of a connection see something, and its requests take the signals.
    fn observe(
        &mut self,
        id: u64,
        out: &mut Outcomes,
        see: impl FnOnce(&mut http::Connection, &mut Vec<Signal>),
    ) {
        let Some(connection) = self.open.get_mut(&id) else { return };
        let Some(observer) = &mut connection.observer else { return };
        see(observer, &mut self.signals);
        if self.signals.is_empty() {
            return;
        }
        for signal in self.signals.drain(..) {
            connection.take(id, &self.listeners, signal, &mut out.requests);
        }
        if connection.requests.is_empty() {
            self.busy.remove(&id);
        } else {
            self.busy.insert(id);
        }
    }

    /// A connection that speaks nothing we read is dropped as soon as that is clear.
    fn judge(&mut self, id: u64, out: &mut Outcomes) {
        let Some(connection) = self.open.get_mut(&id) else { return };
        let Some(Verdict::NotHttp(reason)) = connection.observer.as_ref().map(http::Connection::verdict)
        else {
            return;
        };
        match reason {
            http::NotHttp::Tls => self.counts.tls += 1,
            http::NotHttp::Http2 => self.counts.http2 += 1,
            http::NotHttp::Unknown => self.counts.other += 1,
        }
        connection.observer = None;
        out.uninteresting.push(id);
    }
}

impl Listener {
    fn address(&self, pid: u32, listeners: &HashMap<(u32, u32), Option<Address>>) -> Option<Address> {
        match self {
            Self::Address(address) => Some(address.clone()),
            Self::Descriptor(fd) => listeners.get(&(pid, *fd))?.clone(),
        }
    }
}

impl Connection {
    fn take(
        &mut self,
        id: u64,
        listeners: &HashMap<(u32, u32), Option<Address>>,
        signal: Signal,
        finished: &mut Vec<Request>,
    ) {
        let exchange = signal.exchange;
        let index =
            self.requests.iter().position(|request| request.exchange == exchange).unwrap_or_else(|| {
                self.requests.push(Request::new(self.pid, id, exchange, signal.time_ns));
                self.requests.len() - 1
            });
        let Some(request) = self.requests.get_mut(index) else { return };
        if request.take(signal) {
            let mut request = self.requests.remove(index);
            request.server = self.listener.address(self.pid, listeners);
            finished.push(request);
        }
    }
}

impl Request {
    /// Takes its part of a step that it may have ridden in.
    fn ride(&mut self, step: &Step, part: &Share, evidence: Evidence) {
        self.evidence = match self.first_step_ns {
            None => evidence,
            Some(_) => self.evidence.max(evidence),
        };
        self.first_step_ns.get_or_insert(step.start_ns);
        match self.first_token_ns {
            None => self.prefill.add(part),
            Some(_) => self.decode.add(part),
        }
    }
}
