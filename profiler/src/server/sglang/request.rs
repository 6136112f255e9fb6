//! Requests that are under way.

use std::collections::{HashMap, VecDeque};

use super::message::Times;
use crate::evidence::Evidence;
use crate::server::said::{Inner, Moment, Said, Saying, Tie};

/// Requests that are followed; the oldest go first.
const MOST: usize = 65_536;

/// Which engine: the process of a scheduler, and its data-parallel rank.
pub(super) type Engine = (u32, u64);

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) inner: Inner,
    /// When the front end sent it, or when it was first seen otherwise.
    pub(super) met_ns: u64,
    /// When the scheduler took it from its socket.
    pub(super) received_ns: Option<u64>,
    /// It was heard of before the engine said anything of it: its first tokens are its first.
    pub(super) from_start: bool,
    pub(super) prompt: Option<u64>,
    pub(super) streams: Option<bool>,
    pub(super) engine: Option<Engine>,
    /// Tokens that the engine said it had, as a total; none before it said anything.
    pub(super) generated: Option<u64>,
    /// The engine left the count out: the next total may be of several messages.
    pub(super) is_behind: bool,
    pub(super) retractions: u64,
    /// End of the first step of others that it should have been in, and was not.
    pub(super) missed_ns: Option<u64>,
    /// Its moments in the queue were told.
    pub(super) is_told: bool,
    /// The front end wants it to be given up.
    pub(super) is_unwanted: bool,
}

impl Request {
    /// Its moments in the queue, told once, as well as they will ever be known.
    pub(super) fn tell_queue(&mut self, times: Option<Times>, voice: &mut Voice<'_>) {
        if std::mem::replace(&mut self.is_told, true) {
            return;
        }
        let stamp = |at: fn(&Times) -> u64| times.as_ref().map(at).filter(|at| *at > 0);
        let heard = self.received_ns.map(|at| (at, Evidence::E1));
        // The way through the socket is a fraction of a millisecond; the scheduler takes it when its step is over.
        let sent = self.from_start.then_some((self.met_ns, Evidence::E2));
        if let Some((at_ns, evidence)) =
            stamp(|times| times.queued).map(|at| (at, Evidence::E0)).or(heard).or(sent)
        {
            voice.reached(self.inner, Moment::Enqueued, at_ns, evidence);
        }
        if let Some(at_ns) = stamp(|times| times.scheduled) {
            voice.reached(self.inner, Moment::Scheduled, at_ns, Evidence::E0);
            voice.reached(self.inner, Moment::Prefilling, at_ns, Evidence::E0);
        }
    }
}

/// Who says something, when, and to whom.
pub(super) struct Voice<'o> {
    pub(super) pid: u32,
    pub(super) time_ns: u64,
    pub(super) out: &'o mut Vec<Said>,
}

impl Voice<'_> {
    pub(super) fn say(&mut self, saying: Saying) {
        self.out.push(Said { pid: self.pid, time_ns: self.time_ns, saying });
    }

    pub(super) fn reached(&mut self, inner: Inner, moment: Moment, at_ns: u64, evidence: Evidence) {
        self.say(Saying::Reached { inner, moment, at_ns, evidence });
    }

    pub(super) fn tokens(&mut self, inner: Inner, count: u64, at_ns: u64) {
        if count > 0 {
            self.say(Saying::Tokens { inner, count: u32::try_from(count).unwrap_or(u32::MAX), at_ns });
        }
    }
}

/// All of them, by id.
#[derive(Debug, Default)]
pub(super) struct Requests {
    live: HashMap<Box<str>, Request>,
    /// In the order in which they came; those that are gone stay until they are first.
    order: VecDeque<(Box<str>, Inner)>,
    last: u64,
}

/// What is known of a request that is new.
pub(super) struct New {
    pub(super) prompt: Option<u64>,
    pub(super) streams: Option<bool>,
    pub(super) generates: bool,
    /// Nothing was said of it before.
    pub(super) from_start: bool,
}

impl Requests {
    pub(super) fn get(&self, rid: &str) -> Option<&Request> {
        self.live.get(rid)
    }

    pub(super) fn get_mut(&mut self, rid: &str) -> Option<&mut Request> {
        self.live.get_mut(rid)
    }

    pub(super) fn remove(&mut self, rid: &str) -> Option<Request> {
        self.live.remove(rid)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &Request)> {
        self.live.iter().map(|(rid, request)| (&**rid, request))
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = (&str, &mut Request)> {
        self.live.iter_mut().map(|(rid, request)| (&**rid, request))
    }

    /// Takes out those that something holds for, oldest first.
    pub(super) fn take(&mut self, is: impl Fn(&Request) -> bool) -> Vec<Request> {
        let mut taken: Vec<_> =
            self.live.extract_if(|_, request| is(request)).map(|(_, request)| request).collect();
        taken.sort_by_key(|request| request.inner);
        taken
    }

    /// Meets a request, and says so.
    pub(super) fn meet(&mut self, rid: &str, new: New, voice: &mut Voice<'_>) {
        self.make_room();
        self.last += 1;
        let inner = Inner(self.last);
        // One thread of the front end reads and sends all requests: it ties none of them.
        let tie = Tie { outer_id: Some(rid.into()), part: None, thread: None, prompt_tokens: new.prompt };
        voice.say(Saying::Met { inner, tie, generates: new.generates });
        let request = Request {
            inner,
            met_ns: voice.time_ns,
            received_ns: None,
            from_start: new.from_start,
            prompt: new.prompt,
            streams: new.streams,
            engine: None,
            generated: None,
            is_behind: false,
            retractions: 0,
            missed_ns: None,
            is_told: false,
            is_unwanted: false,
        };
        self.live.insert(rid.into(), request);
        self.order.push_back((rid.into(), inner));
    }

    fn make_room(&mut self) {
        // Ids that are gone are dropped here too, so that the queue is never much longer than the table.
        while self.order.len() >= MOST
            || self.order.front().is_some_and(|(rid, inner)| !self.is_live(rid, *inner))
        {
            let Some((rid, inner)) = self.order.pop_front() else { return };
            if self.is_live(&rid, inner) {
                self.live.remove(&rid);
            }
        }
    }

    fn is_live(&self, rid: &str, inner: Inner) -> bool {
        self.live.get(rid).is_some_and(|request| request.inner == inner)
    }
}
