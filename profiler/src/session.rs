//! What the correlating thread holds: engine, resources, metrics and spans of one target group.
//!
//! In: [`Input`]s in order. Out: batches for the exporters, [`Report`]s for the controlling thread, and the totals
//! that the summary is made of. No I/O of its own: time comes with each tick.

use crate::account::Requests;
use crate::attach::Learnt;
use crate::correlate::{Engine, KernelKey, Naming, Outcomes, Payload, Request, Reservation};
use crate::decode::{Burst, Change, Event};
use crate::hold::Holds;
use crate::metric::{self, Observer, Registry};
use crate::span::model::{Resource, Span};
use crate::span::{self, Ids};
use crate::stack::Stacks;
use crate::target::Address;
use profiler_common::event::{Count, CountKey};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// What reaches the correlating thread, in the order in which it must see it.
#[derive(Debug)]
pub enum Input {
    /// Decoded events.
    Events(Vec<Event>),
    /// What `attach` learnt of a process, before its first event.
    Learnt(Learnt, Arc<Resource>),
    /// What a descriptor listens on.
    Listener {
        /// Process.
        pid: u32,
        /// Descriptor.
        fd: u32,
        /// Port or path.
        address: Address,
    },
    /// A process is gone.
    Gone {
        /// Process.
        pid: u32,
        /// When, `CLOCK_MONOTONIC` nanoseconds.
        time_ns: u64,
    },
    /// Time passed.
    Tick {
        /// `CLOCK_MONOTONIC`, nanoseconds.
        now_ns: u64,
        /// What Unix time is ahead of it, nanoseconds.
        unix_offset_ns: i64,
    },
    /// Launches and copies are counted in the kernel from here on.
    Counting,
    /// The kernel side's sums as they stand: by kernel, and by process and thread.
    Counted {
        /// By kernel.
        sums: Vec<(CountKey, Count)>,
        /// By process and thread.
        threads: Vec<(u32, u32, Burst)>,
    },
    /// What kernels are called for short; none where no name could be learnt.
    Named(Vec<(KernelKey, Option<Arc<str>>)>),
    /// Nothing more comes.
    Finish,
}

/// What the controlling thread must act upon: each wants a look at the system, which is not done here.
#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    /// A process changed.
    Changed(u32, Change),
    /// Not all of a connection's payload is of use any more.
    Payload(u64, Payload),
    /// A listening descriptor whose address is not known.
    Listener(u32, u32),
    /// A kernel that was launched for the first time.
    Kernel(KernelKey),
}

/// A finished request as the live view and the JSON lines show it.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The request.
    pub request: Arc<Request>,
    /// Its spans, none when its caller did not sample it.
    pub spans: Arc<[Span]>,
}

/// What correlation learnt that wants a look at the system and has time until the next sweep: the controlling thread
/// fetches it.
#[derive(Debug, Default)]
pub struct Wants {
    /// What calls told about kernels' names, with their process.
    pub names: Vec<(u32, Naming)>,
    /// Large pieces of device memory.
    pub reservations: Vec<Reservation>,
    /// Of either, what found no room.
    pub beyond: u64,
}

/// A program registers its kernels all at once: PyTorch 2.15 has 24,114.
const MOST_WANTS: usize = 131_072;

impl Wants {
    /// Hands over what waits. What found no room stays counted.
    pub fn fetch(&mut self) -> Self {
        let names = std::mem::take(&mut self.names);
        Self { names, reservations: std::mem::take(&mut self.reservations), beyond: 0 }
    }

    fn add(&mut self, out: &mut Outcomes) {
        let room = MOST_WANTS.saturating_sub(self.names.len());
        self.beyond += out.names.len().saturating_sub(room) as u64;
        self.names.extend(out.names.drain(..).take(room));
        let room = MOST_WANTS.saturating_sub(self.reservations.len());
        self.beyond += out.reservations.len().saturating_sub(room) as u64;
        self.reservations.extend(out.reservations.drain(..).take(room));
    }
}

/// Finished requests that a view can look back at.
const RECENT: usize = 512;

/// The correlating thread's state.
#[derive(Debug)]
pub struct Session {
    /// Events → requests.
    pub engine: Engine,
    /// Sums over finished requests.
    pub requests: Requests,
    /// The newest finished requests.
    pub recent: VecDeque<Finished>,
    registry: Arc<Registry>,
    observer: Observer,
    root: Arc<Resource>,
    holds: Holds,
    resources: HashMap<u32, Arc<Resource>>,
    ids: Ids,
    unix_offset_ns: i64,
    kernels: HashSet<KernelKey>,
    /// Stacks of launches.
    pub stacks: Stacks,
    /// What waits for a look at the system.
    pub wants: Wants,
    out: Outcomes,
}

impl Session {
    /// For the group of `root`. `seed` makes the ids.
    #[must_use]
    pub fn new(
        registry: Arc<Registry>,
        root: Arc<Resource>,
        seed: u64,
        now_unix_ns: u64,
        offset_ns: i64,
    ) -> Self {
        Self {
            engine: Engine::default(),
            requests: Requests::default(),
            recent: VecDeque::new(),
            observer: Observer::new(&registry, &root, now_unix_ns),
            registry,
            root,
            holds: Holds::default(),
            resources: HashMap::new(),
            ids: Ids::new(seed),
            unix_offset_ns: offset_ns,
            kernels: HashSet::new(),
            stacks: Stacks::default(),
            wants: Wants::default(),
            out: Outcomes::default(),
        }
    }

    /// Takes one input; returns the spans that are finished with it, and calls `report` for what wants a look.
    pub fn take(&mut self, input: Input, report: &mut dyn FnMut(Report)) -> Vec<Span> {
        let mut out = std::mem::take(&mut self.out);
        match input {
            Input::Events(events) => {
                for event in events {
                    if let Some(event) = self.holds.pass(event) {
                        self.engine.event(event, &mut out);
                    }
                }
            }
            Input::Learnt(learnt, resource) => self.learn(learnt, resource, &mut out),
            Input::Listener { pid, fd, address } => self.engine.set_listener(pid, fd, address),
            Input::Gone { pid, time_ns } => {
                let held = self.holds.gone(pid);
                self.go_on(held, &mut out);
                self.engine.process_gone(pid, time_ns, &mut out);
            }
            Input::Tick { now_ns, unix_offset_ns } => {
                self.unix_offset_ns = unix_offset_ns;
                let held = self.holds.overdue(now_ns);
                self.go_on(held, &mut out);
                self.engine.tick(now_ns, &mut out);
                self.observer.totals(&self.engine, false);
            }
            Input::Counting => self.engine.set_counting(),
            Input::Counted { sums, threads } => {
                self.engine.counted(&sums, &mut out);
                for (pid, tid, burst) in threads {
                    self.engine.burst(pid, tid, burst, &mut out);
                }
            }
            Input::Named(kernels) => {
                kernels.into_iter().for_each(|(kernel, name)| self.observer.named(kernel, name));
            }
            Input::Finish => {
                let held = self.holds.overdue(u64::MAX);
                self.go_on(held, &mut out);
                self.engine.finish(&mut out);
                self.observer.totals(&self.engine, true);
                self.requests.in_flight = self.engine.active_requests() as u64;
            }
        }
        let spans = self.settle(&mut out, report);
        self.out = out;
        spans
    }

    fn learn(&mut self, learnt: Learnt, resource: Arc<Resource>, out: &mut Outcomes) {
        if learnt.from_start || learnt.surprised {
            self.engine.set_from_start(learnt.pid, !learnt.surprised);
        }
        if !learnt.runtime.is_empty() {
            self.engine.set_runtime(learnt.pid, learnt.runtime);
        }
        for (connection, address) in learnt.connections {
            self.engine.found_open(learnt.pid, connection, address);
        }
        for (fd, address) in learnt.listeners {
            self.engine.set_listener(learnt.pid, fd, address);
        }
        self.resources.insert(learnt.pid, resource);
        if learnt.ahead {
            let held = self.holds.looked(learnt.pid, learnt.looked_ns);
            self.go_on(held, out);
        }
    }

    /// Events that have waited for a look at their process.
    fn go_on(&mut self, held: Vec<Event>, out: &mut Outcomes) {
        for event in held {
            self.engine.event(event, out);
        }
    }

    /// Turns what correlation brought into spans, metrics and reports.
    fn settle(&mut self, out: &mut Outcomes, report: &mut dyn FnMut(Report)) -> Vec<Span> {
        for (direction, bytes) in out.copies.drain(..) {
            self.observer.copy(direction, bytes);
        }
        for (direction, bytes) in out.counted_copies.drain(..) {
            self.observer.counted_copies(direction, bytes);
        }
        self.wants.add(out);
        out.stacks.drain(..).for_each(|(pid, stack)| self.stacks.add(pid, stack));
        for kernel in out.kernels.drain(..) {
            self.first_launch(kernel, report);
        }
        for step in out.steps.drain(..) {
            self.observer.step(&step);
            for kernel in step.work.kernels.keys() {
                self.first_launch(*kernel, report);
            }
        }
        out.payload.drain(..).for_each(|(connection, payload)| report(Report::Payload(connection, payload)));
        out.changes.drain(..).for_each(|(pid, change)| report(Report::Changed(pid, change)));
        for (pid, fd) in self.engine.unknown_listeners() {
            report(Report::Listener(pid, fd));
        }
        let finished: Vec<_> = out.requests.drain(..).collect();
        finished.into_iter().flat_map(|request| self.finish(request)).collect()
    }

    fn first_launch(&mut self, kernel: KernelKey, report: &mut dyn FnMut(Report)) {
        if self.kernels.len() < crate::correlate::MOST_KERNELS && self.kernels.insert(kernel) {
            report(Report::Kernel(kernel));
        }
    }

    fn finish(&mut self, request: Request) -> Vec<Span> {
        let resource = self.resources.get(&request.pid).unwrap_or(&self.root);
        let spans = span::trace(&request, resource, self.ids, self.unix_offset_ns);
        let end_unix_ns = request.ended_ns.saturating_add_signed(self.unix_offset_ns);
        metric::request(&self.registry, resource, &request, spans.first(), end_unix_ns);
        self.requests.add(&request);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(Finished { request: Arc::new(request), spans: spans.clone().into() });
        spans
    }
}

impl Requests {
    fn add(&mut self, request: &Request) {
        let status = request.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        self.total += 1;
        *self.by_status.entry(status).or_default() += 1;
        *self.by_outcome.entry(request.outcome.name()).or_default() += 1;
        self.violations += request.life.violations;
        self.streaming += u64::from(request.streaming != crate::http::Streaming::None);
        self.partial += u64::from(request.outcome == crate::correlate::Outcome::Partial);
        self.input_tokens += request.usage.input.unwrap_or(0);
        self.output_tokens += request.usage.output.unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_stays_counted() {
        let mut wants = Wants::default();
        for _ in 0..2 {
            let alias = |handle| (7, Naming::Alias { handle, of: 1 });
            let mut out =
                Outcomes { names: (0..MOST_WANTS as u64).map(alias).collect(), ..Outcomes::default() };
            wants.add(&mut out);
            assert!(out.names.is_empty());
        }
        assert_eq!((wants.fetch().names.len(), wants.names.len()), (MOST_WANTS, 0));
        assert_eq!(wants.beyond, MOST_WANTS as u64);
    }
}
