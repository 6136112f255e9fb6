//! What servers say inside → requests with exact moments, steps with members, gauges.
//!
//! In: calls and messages of a server's own functions, and finished requests. Out: the same requests with what the
//! server said of them, and [`Iteration`]s. An adapter that fails its checks, or whose counts contradict the responses,
//! is demoted: nothing of it is used any more, and everybody is told.
//!
//! ```text
//! frames, batches, calls ─► speaker (adapter, checks) ─► guests (requests inside) ─┐
//!                                                   └─► iterations, gauges         ├─► join ─► request
//! finished requests ─────────────────────────────────────────────────► waiting ────┘
//! ```

mod guest;
mod join;
mod merge;
mod speaker;
#[cfg(test)]
mod tests;

pub use guest::Sequence;
pub use merge::Served;
pub use speaker::{Speaker, SpeakerState};

use super::request::Request;
use super::ride::{Guestbook, Iteration, Ride, Seat, Share};
use super::tap::{Occasion, Spoke, Tap};
use crate::decode::{self, ServerCall};
use crate::evidence::Evidence;
use crate::server::adapter::{Frame, Heard, What};
use crate::server::codec::zmtp;
use crate::server::registry::Source;
use crate::server::said::{EngineStep, Gauges, Inner, Said, Saying};
use guest::{Guest, Guests, Key};
use join::Waiting;
use speaker::heard_call;
use std::collections::BTreeMap;

/// A fact of TGI's router and shards, out of a gRPC call.
#[derive(Debug)]
pub struct ShardFact {
    /// Process that served the call: a shard.
    pub pid: u32,
    /// When.
    pub time_ns: u64,
    /// Names the call among those under way.
    pub call: u64,
    /// What.
    pub fact: crate::http::Fact,
}

/// A frame of a message that went over a connection.
#[derive(Debug)]
pub struct WireFrame {
    /// Process that accepted the connection.
    pub pid: u32,
    /// The thread that read it last.
    pub tid: u32,
    /// When the frame was whole.
    pub time_ns: u64,
    /// Which connection.
    pub connection: u64,
    /// What.
    pub frame: zmtp::Frame,
}

/// Speakers that a recording may have: more than there are adapters and sources.
const MOST_SPEAKERS: usize = 63;

/// Engines whose gauges are kept.
const MOST_GAUGES: usize = 1024;

/// Sums over what servers said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InsideCounts {
    /// Iterations.
    pub steps: u64,
    /// Of these, those that failed and were made again.
    pub failed_steps: u64,
    /// Members of iterations, all together.
    pub members: u64,
    /// Tokens that came out.
    pub tokens: u64,
    /// Preemptions.
    pub preemptions: u64,
    /// Requests that were joined with what was said inside, by evidence.
    pub joined: BTreeMap<Evidence, u64>,
    /// Inference requests of which nothing was said inside although an adapter listens.
    pub unjoined: u64,
    /// Requests whose counts agree on both sides, and requests whose counts do not.
    pub agreed: u64,
    /// The latter.
    pub disagreed: u64,
}

/// What is known of the inside of the servers of a target group.
#[derive(Debug, Default)]
pub struct Inside {
    server: &'static str,
    speakers: Vec<Speaker>,
    guests: Guests,
    waiting: Waiting,
    gauges: BTreeMap<(u32, u64), Gauges>,
    /// Gauges of engines that found no room.
    lost_gauges: u64,
    counts: InsideCounts,
    /// A message queue's library is probed: what goes over its sockets has been heard there.
    hears_library: bool,
    said: Vec<Said>,
    /// Where what adapters say passes by.
    pub(super) tap: Tap<Spoke>,
}

impl Inside {
    /// Which server the group is, if it has been recognised.
    pub fn set_server(&mut self, server: &'static str) {
        self.server = server;
    }

    /// Sums so far.
    #[must_use]
    pub fn counts(&self) -> &InsideCounts {
        &self.counts
    }

    /// The newest gauges of each engine: by process and engine.
    pub fn gauges(&self) -> impl Iterator<Item = (u32, &Gauges)> {
        self.gauges.iter().map(|((pid, _), gauges)| (*pid, gauges))
    }

    /// The adapters that have heard something, and how they are.
    pub fn speakers(&self) -> impl Iterator<Item = SpeakerState> {
        self.speakers.iter().filter_map(Speaker::state)
    }

    /// A function of a server was called.
    pub fn call(&mut self, at: (u32, u32, u64), call: &ServerCall, out: &mut Vec<Iteration>) {
        let Some(source) = Source::of_api(call.api) else { return };
        self.hears_library |= source == Source::Frames;
        heard_call(call, &mut |what| self.hear(source, at, what, out));
    }

    /// A frame went over a socket. False where the library is probed: its frames are heard there, and nobody needs the
    /// connection's bytes.
    pub fn frame(&mut self, heard: &WireFrame, out: &mut Vec<Iteration>) -> bool {
        let WireFrame { pid, tid, time_ns, connection, frame } = heard;
        if self.hears_library {
            return false;
        }
        let what = What::Frame(Frame {
            sent: frame.way == zmtp::Way::Sent,
            socket: *connection,
            more: frame.more,
            bytes: &frame.bytes,
            size: frame.size,
        });
        self.hear(Source::Wire, (*pid, *tid, *time_ns), what, out);
        true
    }

    /// A router and a shard of TGI talked.
    pub fn shard(&mut self, fact: &ShardFact, out: &mut Vec<Iteration>) {
        let what = match &fact.fact {
            crate::http::Fact::ShardBatches(batches) => What::ShardBatches { call: fact.call, batches },
            crate::http::Fact::ShardStep(step) => What::ShardStep { call: fact.call, step },
            _ => return,
        };
        self.hear(Source::Shards, (fact.pid, 0, fact.time_ns), what, out);
    }

    /// A snapshot that a server publishes was read.
    pub fn snapshot(&mut self, pid: u32, time_ns: u64, bytes: &[u8], out: &mut Vec<Iteration>) {
        self.hear(Source::Frames, (pid, 0, time_ns), What::Snapshot(bytes), out);
    }

    /// Takes finished requests from `from` on; those that a server may still speak of wait.
    pub fn screen(&mut self, requests: &mut Vec<Request>, from: usize, now_ns: u64) {
        if self.speakers.iter().all(|speaker| speaker.state().is_none()) {
            return;
        }
        for request in requests.drain(from..).collect::<Vec<_>>() {
            if request.is_inference() {
                self.waiting.add(request);
            } else {
                requests.push(request);
            }
        }
        self.settle(now_ns, requests);
    }

    /// Finished requests that wait for what their server says of them.
    pub(super) fn waiting_mut(&mut self) -> impl Iterator<Item = &mut Request> {
        self.waiting.requests_mut()
    }

    /// Time passed.
    pub fn tick(&mut self, now_ns: u64, out: &mut Vec<Request>, steps: &mut Vec<Iteration>) {
        let mut said = std::mem::take(&mut self.said);
        for index in 0..self.speakers.len() {
            if let Some(speaker) = self.speakers.get_mut(index) {
                let before = speaker.standing();
                speaker.tick(now_ns, &mut said);
                self.tap.spoke(index, speaker, before, (Occasion::Ticked, 0), &said);
            }
            self.take(index, &mut said, steps);
        }
        self.said = said;
        self.answer(Occasion::Ticked, steps);
        self.settle(now_ns, out);
        self.guests.expire(now_ns);
    }

    /// A process is gone.
    pub fn process_gone(&mut self, pid: u32, time_ns: u64, out: &mut Vec<Iteration>) {
        let mut said = std::mem::take(&mut self.said);
        for index in 0..self.speakers.len() {
            if let Some(speaker) = self.speakers.get_mut(index) {
                let before = speaker.standing();
                speaker.process_gone(pid, time_ns, &mut said);
                self.tap.spoke(index, speaker, before, (Occasion::Gone, pid), &said);
            }
            self.take(index, &mut said, out);
        }
        self.said = said;
        self.answer(Occasion::Gone, out);
        self.gauges.retain(|(of, _), _| *of != pid);
    }

    fn hear(&mut self, source: Source, at: (u32, u32, u64), what: What<'_>, out: &mut Vec<Iteration>) {
        if self.tap.is_replay() {
            return self.answer(Occasion::Heard, out);
        }
        if !self.speakers.iter().any(|speaker| speaker.source == source) {
            self.speakers.extend(Speaker::of(source, self.server));
        }
        let (pid, tid, time_ns) = at;
        let heard = Heard { pid, tid, time_ns, what };
        let mut said = std::mem::take(&mut self.said);
        for index in 0..self.speakers.len() {
            let Some(speaker) = self.speakers.get_mut(index).filter(|speaker| speaker.source == source)
            else {
                continue;
            };
            let before = speaker.standing();
            let is_believed = speaker.hear(&heard, &mut said);
            self.tap.spoke(index, speaker, before, (Occasion::Heard, pid), &said);
            if is_believed {
                self.take(index, &mut said, out);
            } else {
                said.clear();
                self.guests.forget(index);
            }
        }
        self.said = said;
    }

    /// Lets the speakers say what they said on this occasion when a recording was made.
    pub fn answer(&mut self, occasion: Occasion, out: &mut Vec<Iteration>) {
        while let Some(spoke) = self.tap.next(occasion) {
            let index = spoke.speaker;
            while self.speakers.len() <= index.min(MOST_SPEAKERS) {
                self.speakers.push(Speaker::silent());
            }
            let Some(speaker) = self.speakers.get_mut(index) else { continue };
            let mut said = Vec::new();
            if speaker.repeat(spoke, &mut said) {
                self.take(index, &mut said, out);
            } else {
                self.guests.forget(index);
            }
        }
    }

    /// Takes what a speaker said.
    fn take(&mut self, speaker: usize, said: &mut Vec<Said>, out: &mut Vec<Iteration>) {
        let Some(adapter) = self.speakers.get(speaker).map(Speaker::name) else { return said.clear() };
        for Said { pid, time_ns, saying } in said.drain(..) {
            match saying {
                Saying::Met { inner, tie, generates } => {
                    self.guests.add(Key { speaker, inner }, Guest::new(pid, time_ns, tie, generates));
                }
                Saying::Step(step) => out.push(self.step(adapter, speaker, pid, *step)),
                Saying::Gauges(gauges) => self.gauge(pid, gauges),
                Saying::EngineDead => self.guests.engine_died(speaker, pid, time_ns),
                Saying::Reached { inner, moment, at_ns, evidence } => {
                    let preempted = moment == crate::server::said::Moment::Preempted;
                    self.counts.preemptions += u64::from(preempted);
                    self.guests.with(Key { speaker, inner }, |guest| guest.reach(moment, at_ns, evidence));
                }
                Saying::Tokens { inner, count, at_ns } => {
                    self.counts.tokens += u64::from(count);
                    self.guests.with(Key { speaker, inner }, |guest| guest.token(count, at_ns));
                }
                Saying::Counts { inner, counts } => {
                    self.guests.with(Key { speaker, inner }, |guest| guest.count(counts));
                }
                Saying::Ended { inner, reason, at_ns } => {
                    self.guests.with(Key { speaker, inner }, |guest| guest.end(reason, at_ns));
                }
            }
        }
    }

    fn step(&mut self, adapter: &'static str, speaker: usize, pid: u32, step: EngineStep) -> Iteration {
        let end_ns = step.end_ns;
        self.counts.steps += 1;
        self.counts.failed_steps += u64::from(step.failed);
        self.counts.members += step.members.len() as u64;
        for member in step.members.iter().filter(|_| !step.failed) {
            self.guests.with(Key { speaker, inner: member.inner }, |guest| guest.ride(member, end_ns));
        }
        Iteration {
            id: 0,
            adapter,
            speaker,
            pid,
            step,
            gpu: None,
            riders: Vec::new(),
            unattributed: Share::default(),
        }
    }

    /// Some adapter hears its engine and is believed.
    #[must_use]
    pub fn is_believed(&self) -> bool {
        self.speakers.iter().any(|speaker| speaker.state().is_some_and(|state| state.state == "ok"))
    }

    /// What the tables had to forget: requests that wait, guests, gauges.
    #[must_use]
    pub(super) fn forgotten(&self) -> (u64, u64, u64) {
        (self.waiting.forgotten, self.guests.forgotten, self.lost_gauges)
    }

    fn gauge(&mut self, pid: u32, new: Gauges) {
        if self.gauges.len() >= MOST_GAUGES && !self.gauges.contains_key(&(pid, new.engine)) {
            self.lost_gauges += 1;
            return;
        }
        let gauges = self.gauges.entry((pid, new.engine)).or_default();
        *gauges = Gauges {
            engine: new.engine,
            running: new.running.or(gauges.running),
            waiting: new.waiting.or(gauges.waiting),
            kv_usage: new.kv_usage.or(gauges.kv_usage),
        };
    }

    /// Joins requests whose guests are known and done, or that have waited long enough.
    fn settle(&mut self, now_ns: u64, out: &mut Vec<Request>) {
        for mut request in self.waiting.due(&self.guests, now_ns) {
            self.serve(&mut request);
            out.push(request);
        }
    }

    /// Gives a request what was said of it.
    fn serve(&mut self, request: &mut Request) {
        let rivals = self.waiting.requests();
        let Some(found) = join::find(&self.guests, request, rivals) else {
            self.counts.unjoined += 1;
            return;
        };
        let Some(speaker) = found.keys.first().and_then(|key| self.speakers.get_mut(key.speaker)) else {
            return;
        };
        *self.counts.joined.entry(found.evidence).or_default() += 1;
        let owner = request.owner();
        let guests: Vec<_> = found.keys.iter().filter_map(|key| self.guests.own(*key, owner)).collect();
        match merge::agreement(request, &guests) {
            Some(true) => self.counts.agreed += 1,
            // Where the tie is no id, it may be the tie that is wrong.
            Some(false) if found.evidence == Evidence::E0 => {
                self.counts.disagreed += 1;
                if speaker.disagreed(self.counts.agreed) {
                    self.guests.forget(found.keys.first().map_or(usize::MAX, |key| key.speaker));
                    return;
                }
            }
            _ => {}
        }
        merge::merge(request, &guests, (speaker.name(), speaker.schema(), found.evidence));
    }
}

impl Guestbook for Inside {
    fn with(
        &mut self,
        (speaker, inner): (usize, Inner),
        end_ns: u64,
        change: &mut dyn FnMut(&mut Ride, Seat),
    ) -> bool {
        let mut seated = false;
        self.guests.with(Key { speaker, inner }, |guest| {
            // What was joined with its request is over.
            if guest.owner.is_none() {
                let seat = guest.seat(end_ns);
                change(&mut guest.ride, seat);
                seated = true;
            }
        });
        seated
    }
}

/// The way of a frame, for the adapters.
pub(super) fn is_sent(way: decode::Way) -> bool {
    way != decode::Way::Received
}
