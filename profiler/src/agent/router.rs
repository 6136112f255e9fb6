//! What the correlating thread of an agent holds: a session for each target, and who belongs to which.
//!
//! In: [`Message`]s in order. Out: spans, [`Report`]s with the target that they are about, and sums over all targets, past
//! ones included. Targets share the power of devices and nothing else: what one of them makes of its events changes nothing
//! for another. No I/O: time comes with each tick.

use crate::account::CorrelateTerms;
use crate::clock;
use crate::correlate::{Forgotten, Power};
use crate::decode::{Body, Change, Event};
use crate::device::Reading;
use crate::metric::{self, Registry};
use crate::session::{Input, Report, Session};
use crate::span::TraceCounts;
use crate::span::model::{Resource, Span};
use crate::summary;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// Why events are told to nobody: their target has just been let go.
const NO_TARGET: &str = "no_target";

/// Processes that a target may be looked up for; one costs a few bytes, and those of past targets go with them.
const MOST_PROCESSES: usize = 65_536;

/// How long records of a process that is gone may be under way, nanoseconds.
const UNDER_WAY_NS: u64 = 5_000_000_000;

/// What reaches the correlating thread of an agent.
#[derive(Debug)]
pub enum Message {
    /// Decoded events of any target.
    Events(Vec<Event>),
    /// What concerns one target.
    Of(u8, Input),
    /// A target begins; nothing of it comes before.
    Begin(u8, Box<Session>),
    /// A target ends; nothing of it comes behind.
    End(u8),
    /// More is known of a process: its resource from now on.
    Renamed(u8, u32, Arc<Resource>),
    /// Time passed: `CLOCK_MONOTONIC`, and what Unix time is ahead of it, nanoseconds.
    Tick(u64, i64),
    /// What devices said.
    Devices(Box<Reading>),
    /// Nothing more comes.
    Finish,
}

/// Sums over targets.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// What became of events.
    pub correlate: CorrelateTerms,
    /// What tables had to forget.
    pub forgotten: Forgotten,
    /// What became of traces.
    pub traces: TraceCounts,
    /// Finished requests.
    pub requests: u64,
}

/// All sessions, by target group.
#[derive(Debug)]
pub struct Router {
    sessions: BTreeMap<u8, Session>,
    owners: HashMap<u32, u8>,
    /// Processes that are gone, and when: their last records may be under way.
    gone: VecDeque<(u64, u32)>,
    past: Sums,
    unowned: u64,
    devices: metric::Devices,
    /// Of the devices: targets may share one.
    power: Power,
    /// Devices that have been told so far, and where processes stand on them: a target that begins has heard none of it.
    known: Reading,
    unix_offset_ns: i64,
}

impl Router {
    /// Without a target. Metrics of devices are told under the machine of `own`.
    #[must_use]
    pub fn new(registry: &Arc<Registry>, own: &Resource) -> Self {
        Self {
            sessions: BTreeMap::new(),
            owners: HashMap::new(),
            gone: VecDeque::new(),
            past: Sums::default(),
            unowned: 0,
            devices: metric::Devices::new(Arc::clone(registry), own),
            power: Power::default(),
            known: Reading::default(),
            unix_offset_ns: clock::unix_offset_ns(),
        }
    }

    /// Takes a message; returns the spans that are finished with it, and calls `report` for what wants a look.
    pub fn take(&mut self, message: Message, report: &mut dyn FnMut(u8, Report)) -> Vec<Span> {
        match message {
            Message::Events(events) => self.events(events, report),
            Message::Of(group, input) => {
                match &input {
                    Input::Learnt(learnt, _) => self.own(learnt.pid, group),
                    Input::Gone { pid, time_ns } => self.gone.push_back((*time_ns, *pid)),
                    _ => {}
                }
                self.session(group, input, report)
            }
            Message::Begin(group, mut session) => {
                session.engine.share_power(&self.power);
                self.sessions.insert(group, *session);
                self.session(group, Input::Devices(Box::new(self.known.clone())), report)
            }
            Message::End(group) => self.end(group, report),
            Message::Renamed(group, pid, resource) => {
                if let Some(session) = self.sessions.get_mut(&group) {
                    session.rename(pid, resource);
                }
                Vec::new()
            }
            Message::Tick(now_ns, unix_offset_ns) => {
                self.unix_offset_ns = unix_offset_ns;
                self.disown(now_ns);
                self.each(report, || Input::Tick { now_ns, unix_offset_ns })
            }
            Message::Devices(reading) => {
                let sessions = &self.sessions;
                let resource = |pid| sessions.values().find_map(|session| session.resource(pid).cloned());
                let now_ns = reading.time_ns.saturating_add_signed(self.unix_offset_ns);
                self.devices.take(&reading, now_ns, resource);
                self.known.devices.extend(reading.devices.iter().cloned());
                self.known.places = reading.places.clone().or(self.known.places.take());
                self.known.time_ns = reading.time_ns;
                self.each(report, || Input::Devices(reading.clone()))
            }
            Message::Finish => {
                let groups: Vec<u8> = self.sessions.keys().copied().collect();
                groups.into_iter().flat_map(|group| self.end(group, report)).collect()
            }
        }
    }

    /// The session of a target, while there is one.
    pub fn session_mut(&mut self, group: u8) -> Option<&mut Session> {
        self.sessions.get_mut(&group)
    }

    /// All sessions.
    pub fn sessions(&self) -> impl Iterator<Item = (u8, &Session)> {
        self.sessions.iter().map(|(group, session)| (*group, session))
    }

    /// As all targets stand, with what past ones came to.
    #[must_use]
    pub fn sums(&self) -> Sums {
        let mut sums = self.past.clone();
        self.sessions.values().for_each(|session| sums.add(session));
        sums.correlate.ignored.insert(NO_TARGET, self.unowned);
        sums.correlate.decoded += self.unowned;
        sums
    }

    /// Events go to their targets in runs, as they came.
    fn events(&mut self, events: Vec<Event>, report: &mut dyn FnMut(u8, Report)) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut run: (Option<u8>, Vec<Event>) = (None, Vec::new());
        for event in events {
            let owner = self.owners.get(&event.pid).copied();
            if let (Some(group), Body::Process(Change::Forked { task })) = (owner, &event.body) {
                self.own(*task, group);
            }
            if owner != run.0 {
                spans.extend(self.run(std::mem::replace(&mut run, (owner, Vec::new())), report));
            }
            run.1.push(event);
        }
        spans.extend(self.run(run, report));
        spans
    }

    fn run(
        &mut self,
        (owner, events): (Option<u8>, Vec<Event>),
        report: &mut dyn FnMut(u8, Report),
    ) -> Vec<Span> {
        match owner.filter(|group| self.sessions.contains_key(group)) {
            Some(group) if !events.is_empty() => self.session(group, Input::Events(events), report),
            Some(_) => Vec::new(),
            None => {
                self.unowned += events.len() as u64;
                Vec::new()
            }
        }
    }

    fn own(&mut self, pid: u32, group: u8) {
        // Another process may have got the number.
        self.gone.retain(|(_, gone)| *gone != pid);
        if self.owners.len() < MOST_PROCESSES || self.owners.contains_key(&pid) {
            self.owners.insert(pid, group);
        }
    }

    /// Forgets processes that have been gone for long.
    fn disown(&mut self, now_ns: u64) {
        while let Some((_, pid)) =
            self.gone.pop_front_if(|(time_ns, _)| time_ns.saturating_add(UNDER_WAY_NS) <= now_ns)
        {
            self.owners.remove(&pid);
        }
    }

    fn session(&mut self, group: u8, input: Input, report: &mut dyn FnMut(u8, Report)) -> Vec<Span> {
        let Some(session) = self.sessions.get_mut(&group) else { return Vec::new() };
        session.take(input, &mut |told| report(group, told))
    }

    fn each(&mut self, report: &mut dyn FnMut(u8, Report), input: impl Fn() -> Input) -> Vec<Span> {
        let take =
            |(group, session): (&u8, &mut Session)| session.take(input(), &mut |told| report(*group, told));
        self.sessions.iter_mut().flat_map(take).collect()
    }

    fn end(&mut self, group: u8, report: &mut dyn FnMut(u8, Report)) -> Vec<Span> {
        let spans = self.session(group, Input::Finish, report);
        if let Some(mut session) = self.sessions.remove(&group) {
            self.past.add(&session);
            session.retire();
        }
        let devices = &mut self.devices;
        self.owners.retain(|pid, owner| {
            let stays = *owner != group;
            if !stays {
                devices.forget(*pid);
            }
            stays
        });
        spans
    }
}

impl Sums {
    fn add(&mut self, session: &Session) {
        let CorrelateTerms { decoded, joined, pending, expired, ignored } = summary::correlated(session);
        let sum = &mut self.correlate;
        sum.decoded += decoded;
        sum.joined += joined;
        sum.pending += pending;
        for (sums, terms) in [(&mut sum.expired, expired), (&mut sum.ignored, ignored)] {
            terms.into_iter().for_each(|(reason, count)| *sums.entry(reason).or_default() += count);
        }
        self.forgotten.add(&session.engine.forgotten());
        self.traces.add(&session.traces());
        self.requests += session.requests.total;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::Learnt;
    use crate::span::model::text;

    fn resource(name: &str) -> Arc<Resource> {
        Arc::new(Resource { attributes: vec![("service.name".into(), text(name))] })
    }

    fn event(pid: u32, body: Body) -> Event {
        Event { pid, tid: pid, time_ns: 1, body }
    }

    fn router() -> Router {
        let registry = Arc::new(Registry::default());
        let mut router = Router::new(&registry, &resource("own"));
        for (group, pid) in [(0, 10), (1, 20)] {
            let session = Session::new(Arc::clone(&registry), resource("a"), 1, 1, 0).beside_others();
            let send = [
                Message::Begin(group, Box::new(session)),
                Message::Of(group, Input::Learnt(Learnt::nothing(pid), resource(&format!("{pid}")))),
            ];
            send.into_iter().for_each(|message| drop(router.take(message, &mut |_, _| {})));
        }
        router
    }

    #[test]
    fn events_go_to_whom_they_are_of_and_children_to_whom_their_parents_are() {
        let mut router = router();
        let mapped = || Body::Process(Change::Mapped);
        let events = vec![
            event(10, Body::Process(Change::Forked { task: 11 })),
            event(20, mapped()),
            event(11, mapped()),
            event(10, mapped()),
            event(99, mapped()),
        ];
        let mut told = Vec::new();
        router.take(Message::Events(events), &mut |group, report| told.push((group, report)));
        let mapped = |pid| Report::Changed(pid, Change::Mapped);
        let forked = Report::Changed(10, Change::Forked { task: 11 });
        assert_eq!(told, [(0, forked), (1, mapped(20)), (0, mapped(11)), (0, mapped(10))]);
        let sums = router.sums().correlate;
        assert_eq!((sums.decoded, sums.ignored[NO_TARGET]), (5, 1));
    }

    #[test]
    fn what_a_target_came_to_outlasts_it_and_its_events_have_no_target_then() {
        let mut router = router();
        let fork = || vec![event(10, Body::Process(Change::Forked { task: 12 }))];
        router.take(Message::Events(fork()), &mut |_, _| {});
        let before = router.sums().correlate;
        router.take(Message::End(0), &mut |_, _| {});
        assert_eq!(router.sums().correlate, before);
        assert!(router.session_mut(0).is_none() && router.session_mut(1).is_some());
        for pid in [10, 12] {
            router.take(Message::Events(vec![event(pid, Body::Process(Change::Mapped))]), &mut |_, _| {
                panic!("nobody is told");
            });
        }
        let after = router.sums().correlate;
        assert_eq!((after.decoded, after.ignored[NO_TARGET]), (before.decoded + 2, 2));
        assert_eq!(after.joined, before.joined);
    }

    #[test]
    fn processes_that_are_gone_for_long_are_forgotten_and_their_numbers_are_free() {
        let mut router = router();
        let send = |router: &mut Router, message| drop(router.take(message, &mut |_, _| {}));
        let gone = |pid| Input::Gone { pid, time_ns: 1 };
        send(&mut router, Message::Of(0, gone(10)));
        send(&mut router, Message::Of(1, gone(20)));
        // The number is another's at once.
        send(&mut router, Message::Of(1, Input::Learnt(Learnt::nothing(20), resource("again"))));
        send(&mut router, Message::Tick(UNDER_WAY_NS, 0));
        assert_eq!((router.owners.get(&10), router.owners.get(&20)), (Some(&0), Some(&1)));
        send(&mut router, Message::Tick(UNDER_WAY_NS + 1, 0));
        assert_eq!((router.owners.get(&10), router.owners.get(&20)), (None, Some(&1)));
    }

    #[test]
    fn what_is_learnt_later_renames_what_was_told_before() {
        let mut router = router();
        let known = router.session_mut(0).unwrap().resource(10).cloned().unwrap();
        let named = resource("pod");
        router.take(Message::Renamed(0, 10, Arc::clone(&named)), &mut |_, _| {});
        router.take(Message::Renamed(7, 10, known), &mut |_, _| {});
        assert_eq!(router.session_mut(0).unwrap().resource(10), Some(&named));
    }
}
