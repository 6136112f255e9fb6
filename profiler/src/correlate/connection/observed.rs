//! One stream of bytes: its observer, its two orders, and the requests under way on it.

use super::Origin;
use super::observer::{Observer, Turn};
use super::order::{Chunk, Order};
use crate::correlate::life::Hook;
use crate::correlate::request::Request;
use crate::decode::{self, SpanContext};
use crate::http::{Direction, End, Signal, SignalKind};
use crate::target::Address;

/// A connection, or what a TLS library deciphers of one.
#[derive(Debug)]
pub struct Connection {
    pub pid: u32,
    pub origin: Origin,
    pub observer: Observer,
    pub received: Order,
    pub sent: Order,
    pub requests: Vec<Request>,
    /// The thread that read it last.
    pub reader: u32,
    /// What the thread worked for that moved the bytes which are being taken, and whether they answer.
    pub context: Option<(SpanContext, bool)>,
    /// It opened like TLS.
    pub is_tls: bool,
    /// The stream of what a TLS library deciphers of it.
    pub session: Option<u64>,
}

impl Connection {
    pub fn is_unread(&self) -> bool {
        self.is_tls && self.session.is_none()
    }

    /// Takes bytes as they come and shows them to the observer as they went.
    pub fn take_chunk(
        &mut self,
        direction: decode::Direction,
        chunk: Chunk,
        signals: &mut Vec<Signal>,
    ) -> Option<Turn> {
        let Self { observer, received, sent, .. } = self;
        let (direction, order, other, opposite) = match direction {
            decode::Direction::Received => (Direction::Request, received, sent, Direction::Response),
            decode::Direction::Sent => (Direction::Response, sent, received, Direction::Request),
        };
        let mut turn = None;
        // The other side's turn came after what waits there.
        other.give_up(&mut |chunk| turn = turn.or(observer.on_chunk(opposite, chunk, signals)));
        order.take(chunk, &mut |chunk| {
            turn = turn.or(observer.on_chunk(direction, chunk, signals));
        });
        turn
    }

    pub fn give_up_before(&mut self, late_ns: u64, signals: &mut Vec<Signal>) -> Option<Turn> {
        let mut turn = None;
        for (order, direction) in
            [(&mut self.received, Direction::Request), (&mut self.sent, Direction::Response)]
        {
            order.give_up_before(late_ns, &mut |chunk| {
                turn = turn.or(self.observer.on_chunk(direction, chunk, signals));
            });
        }
        turn
    }

    /// Records that were lost before a close show in its totals alone. At other ends another thread may still be between
    /// its write and its record.
    pub fn end(&mut self, end: End, time_ns: u64, totals: Option<[u64; 2]>, signals: &mut Vec<Signal>) {
        self.give_up_before(u64::MAX, signals);
        if let Some([received, sent]) = totals {
            self.observer.on_total(Direction::Request, received, time_ns, signals);
            self.observer.on_total(Direction::Response, sent, time_ns, signals);
        }
        self.observer.on_end(end, time_ns, signals);
    }

    /// Whether the response that begins here has contents that are not read, and an end that is known without them.
    pub fn needs_no_contents(&self, signal: &Signal) -> bool {
        let SignalKind::ResponseHead(head) = &signal.kind else { return false };
        self.observer.has_turns() && head.opaque && head.content_length.is_some()
    }

    pub fn take(&mut self, id: u64, server: &Option<Address>, signal: Signal, finished: &mut Vec<Request>) {
        let exchange = signal.exchange;
        let index =
            self.requests.iter().position(|request| request.exchange == exchange).unwrap_or_else(|| {
                let hook = if matches!(self.origin, Origin::Carrier(_)) { Hook::Tls } else { Hook::Socket };
                self.requests.push(Request::new(self.pid, id, exchange, signal.time_ns, hook));
                self.requests.len() - 1
            });
        let Some(request) = self.requests.get_mut(index) else { return };
        let ended = request.take(signal);
        if let Some((context, answers)) = self.context {
            request.hear(context, answers);
        }
        if request.arrived_ns.is_some() {
            request.thread.get_or_insert(self.reader);
        }
        if ended {
            let mut request = self.requests.remove(index);
            request.server.clone_from(server);
            finished.push(request);
        }
    }
}
