//! The controlling thread of an agent: what it sleeps on, and what it does when.
//!
//! In: reports, hints of the kernel, words from outside, the clock. Out: looks, targets begun and let go, pages. With
//! nobody to observe it wakes once a look.

use super::super::{Every, SWEEP, TICK, levels};
use super::{REPORTS, limits, lock, memory};
use crate::agent::config::{Config, Effect, Resolved, changes};
use crate::agent::{Level, Message, Node, Off, Report, Router, Status, Whereabouts};
use crate::bell::{self, Bell};
use crate::clock;
use crate::device::{Running, Targets};
use crate::discover::{Discovery, Look};
use crate::export::{Batch, Ledger, Pace};
use crate::metric::{self, Registry, catalog};
use crate::pipeline::AgentWishes;
use crate::pipeline::export_thread::ExportThread;
use crate::receive::{Happened, Hints, Orders, Received};
use crate::session;
use crate::span::model::Resource;
use crate::summary;
use crate::target;
use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How much rarer looks at everything are where nothing is young, and hints tell of the rest.
const QUIET: u32 = 5;
/// The longest sleep, also for what is due more often while somebody is observed.
const LONGEST: Duration = Duration::from_secs(1);
/// Between two looks when a process has just mapped files.
const SHORT_LOOK: Duration = Duration::from_millis(5);
/// Between two looks at words from outside, where nothing tells that there is one.
const OFF: Duration = Duration::from_millis(250);
const COUNT: Duration = Duration::from_secs(1);
/// From a snapshot until its memory is given back: exporters have taken it by then, or keep it for longer.
const GIVE_BACK: Duration = Duration::from_secs(5);
const REFRESH: Duration = Duration::from_secs(1);
/// Between two questions to drivers who is on their GPUs: each is a system call or more for a device.
const DRIVERS: Duration = Duration::from_secs(5);

/// The controlling thread's own.
pub(super) struct Agent<'a> {
    pub node: Node,
    pub discovery: Discovery,
    pub off: Off,
    pub hints: Hints,
    pub hears_hints: bool,
    /// Whom drivers have on their GPUs, as they said last.
    pub gpu_pids: BTreeSet<u32>,
    /// By a signal.
    pub switched_off: bool,
    pub whereabouts: Whereabouts,
    /// What was known of places when processes were last told.
    pub places: u64,
    pub ends: Ends<'a>,
    pub interval: Duration,
    pub pace: Arc<Pace>,
}

/// What is done again and again.
struct Moments {
    discover: Every,
    drivers: Every,
    off: Every,
    tick: Every,
    sweep: Every,
    count: Every,
    snapshot: Every,
    refresh: Every,
    give_back: Option<Instant>,
}

impl Moments {
    fn new(discover: Duration, snapshot: Duration, asks_off: bool) -> Self {
        Self {
            discover: Every::new(discover).at_once(),
            drivers: Every::new(DRIVERS).at_once(),
            off: Every::new(if asks_off { OFF } else { LONGEST }).at_once(),
            tick: Every::new(TICK),
            sweep: Every::new(SWEEP),
            count: Every::new(COUNT),
            snapshot: Every::new(snapshot),
            refresh: Every::new(REFRESH),
            give_back: None,
        }
    }

    /// When something is due. While nobody is observed all else goes along with the looks.
    fn next(&self, is_idle: bool, asks_off: bool) -> Instant {
        let often = [&self.tick, &self.sweep, &self.count, &self.snapshot, &self.refresh];
        let often = often.into_iter().filter(|_| !is_idle).chain(asks_off.then_some(&self.off));
        often.map(|every| every.next).fold(self.discover.next, Instant::min)
    }
}

impl Agent<'_> {
    /// The controlling thread's loop.
    pub fn observe(
        &mut self,
        config: &mut Config,
        read: &mut dyn FnMut() -> Option<(Config, Resolved)>,
        wishes: AgentWishes,
        send: &mut dyn FnMut(Message),
    ) {
        let mut at = Moments::new(config.discover.interval.0, self.interval, self.off.changes().is_none());
        self.listen_to_hints(true);
        let mut waits = false;
        while !wishes.stop.load(Ordering::Acquire) {
            self.sleep(&at, waits);
            if !self.take_reports(send) {
                return;
            }
            waits = self.node.look_at_mapped(send);
            if self.ends.missed.swap(false, Ordering::AcqRel) {
                self.node.rescan(send);
            }
            let signalled = wishes.change_off.swap(false, Ordering::AcqRel);
            self.switched_off ^= signalled;
            if self.off.has_changed() || signalled || at.off.is_due() {
                self.look_off(&mut at.discover, send);
            }
            if wishes.reload.swap(false, Ordering::AcqRel)
                && let Some((new, resolved)) = read()
            {
                self.reload(config, new, resolved);
                at.discover = Every::new(config.discover.interval.0).at_once();
                at.snapshot = Every::new(self.interval);
            }
            if at.drivers.is_due() {
                self.gpu_pids = self.ends.running.pids();
            }
            self.take_hints();
            self.look(&mut at.discover, send);
            self.node.stop_watching(Instant::now(), false);
            self.ends.orders.rest(self.node.is_idle());
            self.keep_up(&mut at, send);
        }
    }

    /// Sleeps until something is due, or something happens.
    fn sleep(&self, at: &Moments, waits: bool) {
        let now = Instant::now();
        let rests = self.discovery.rests_until().filter(|until| now < *until);
        let mut on = vec![self.ends.bell.as_fd()];
        on.extend(rests.is_none().then(|| self.hints.as_fd()));
        on.extend(self.off.changes());
        let next = at.next(self.node.is_idle(), self.off.changes().is_none());
        let next = rests.into_iter().chain(self.discovery.next_hinted()).fold(next, Instant::min);
        let longest = if waits { SHORT_LOOK } else { LONGEST };
        if let Err(error) = bell::sleep(&on, next.saturating_duration_since(now).min(longest)) {
            tracing::debug!(%error, "a sleep failed");
            std::thread::sleep(SHORT_LOOK);
        }
        self.ends.bell.heard();
    }

    /// Acts upon what the correlating thread has reported; false when that thread is gone.
    fn take_reports(&mut self, send: &mut dyn FnMut(Message)) -> bool {
        for _ in 0..=REPORTS {
            match self.ends.reports.try_recv() {
                Ok((group, report)) => self.node.act(group, report, send),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        // The rest comes at once.
        self.ends.bell.ring();
        true
    }

    /// What is done again and again.
    fn keep_up(&mut self, at: &mut Moments, send: &mut dyn FnMut(Message)) {
        if at.tick.is_due() {
            send(Message::Tick(clock::monotonic_ns(), clock::unix_offset_ns()));
            self.node.bury(Instant::now(), send);
            self.ends.status.alive();
        }
        if at.count.is_due() {
            self.node.count(send);
        }
        if at.sweep.is_due() {
            self.ends.targets.set(self.node.pids().into_iter());
            self.node.sweep(self.ends.router, send);
            let own = levels::own_use();
            self.node.measure(Instant::now(), own.0, own.1, send);
        }
        if at.snapshot.is_due() {
            self.ends.snapshot(&self.node, clock::unix_ns());
            at.give_back = Some(Instant::now() + GIVE_BACK);
        } else if at.refresh.is_due() {
            self.ends.refresh(&self.node, clock::unix_ns());
            self.tell();
        }
        if at.give_back.take_if(|moment| *moment <= Instant::now()).is_some() {
            memory::give_back();
        }
    }

    /// Hints come from here on, or no longer.
    fn listen_to_hints(&mut self, on: bool) {
        let heard = self.node.kernel().hint(on);
        self.hears_hints = on && heard.is_ok();
        if let Err(error) = heard {
            let error = crate::chain(&error);
            tracing::info!(error, "nothing hastens the looks for servers but their interval");
        }
    }

    fn take_hints(&mut self) {
        let now = Instant::now();
        if self.discovery.rests_until().is_none_or(|until| until <= now) {
            self.hints.take(|pid, happened: Happened| self.discovery.hint(pid, happened, now));
        }
    }

    /// Looks for targets: at everything if it is time for that, or at those that something happened to.
    fn look(&mut self, everything: &mut Every, send: &mut dyn FnMut(Message)) {
        let was_quiet = self.is_quiet();
        if everything.is_due() {
            self.discover(send);
            if self.is_quiet() {
                everything.next += everything.period * (QUIET - 1);
            }
            return;
        }
        self.discover_hinted(send);
        if was_quiet && !self.is_quiet() {
            everything.next = everything.next.min(Instant::now() + everything.period);
        }
    }

    /// Whether what may happen now is told by hints.
    fn is_quiet(&self) -> bool {
        self.hears_hints && self.discovery.is_quiet()
    }

    /// Looks at everything.
    fn discover(&mut self, send: &mut dyn FnMut(Message)) {
        let places = self.whereabouts.generation();
        if std::mem::replace(&mut self.places, places) != places {
            self.node.rename(self.ends.router, send);
        }
        let facts = |pid| self.whereabouts.facts(pid);
        let look = self.discovery.look(Instant::now(), &self.gpu_pids, &facts);
        self.follow(look, send);
    }

    /// Looks at those that something happened to, if it is time.
    fn discover_hinted(&mut self, send: &mut dyn FnMut(Message)) {
        let now = Instant::now();
        if self.node.off.is_some() || self.discovery.next_hinted().is_none_or(|next| now < next) {
            return;
        }
        let facts = |pid| self.whereabouts.facts(pid);
        if let Some(look) = self.discovery.look_at_hinted(now, &self.gpu_pids, &facts) {
            self.follow(look, send);
        }
    }

    fn follow(&mut self, look: Look, send: &mut dyn FnMut(Message)) {
        if !look.found.is_empty() {
            self.ends.orders.rest(false);
        }
        self.node.follow(look, send);
        self.tell();
    }

    /// Lets go of everything where somebody says so.
    fn look_off(&mut self, everything: &mut Every, send: &mut dyn FnMut(Message)) {
        let signal = self.switched_off.then(|| "it was switched off by SIGUSR2".to_owned());
        let why = signal.or_else(|| self.off.why());
        if why == self.node.off {
            return;
        }
        match &why {
            Some(why) => tracing::warn!(why, "everything is let go of"),
            None => tracing::warn!("observing goes on"),
        }
        self.node.off = why;
        let is_off = self.node.off.is_some();
        if is_off {
            self.node.let_all_go(send);
            self.node.stop_watching(Instant::now(), true);
        }
        self.listen_to_hints(!is_off);
        everything.next = Instant::now();
        self.tell();
    }

    /// Brings the pages up to date.
    fn tell(&self) {
        let kubernetes = self.whereabouts.status();
        self.ends.status.tell(Report { kubernetes, ..self.node.status(self.ends.router) });
    }

    /// Takes what can be changed without losing a target.
    fn reload(&mut self, config: &mut Config, new: Config, resolved: Resolved) {
        for change in changes(config, &new) {
            match change.effect {
                Effect::Now => tracing::info!(key = change.key, "changed"),
                Effect::Restart => {
                    tracing::warn!(key = change.key, "a change takes effect at the next start")
                }
            }
        }
        *config = new;
        self.discovery.set(resolved.rules, resolved.discover);
        self.node.set_limits(limits(config));
        self.node.set_detail(resolved.kernel.detail);
        self.interval = resolved.export.metric_interval;
        self.pace.set(resolved.export.pace.limit());
    }
}

/// What the controlling thread shares with the others.
pub(super) struct Ends<'a> {
    pub reports: &'a Receiver<(u8, session::Report)>,
    pub bell: &'a Bell,
    pub orders: &'a Orders,
    pub missed: &'a AtomicBool,
    pub exporter: &'a ExportThread,
    pub registry: &'a Registry,
    pub router: &'a Mutex<Router>,
    pub received: &'a Received,
    pub ledger: &'a Ledger,
    pub own: &'a Arc<Resource>,
    pub targets: &'a Targets,
    pub status: &'a Status,
    pub running: &'a Running,
}

impl Ends<'_> {
    pub fn snapshot(&self, node: &Node, now_ns: u64) {
        self.refresh(node, now_ns);
        self.exporter.sender.offer(Batch::Metrics(self.registry.snapshot(now_ns)));
    }

    /// Brings the agent's own metrics and pages up to date.
    fn refresh(&self, node: &Node, now_ns: u64) {
        let counters = node.kernel().counters();
        let sums = lock(self.router).sums();
        let loss = summary::loss(sums.correlate, &counters, &self.received.arrived(), self.ledger);
        let own = self.registry.target(self.own, now_ns);
        let (bpf_run_ns, bpf_run_count) = node.kernel().run_statistics();
        let cost = crate::account::Own { bpf_run_ns, bpf_run_count, ..crate::account::Own::usage() };
        metric::own(&own, &loss, &sums.forgotten, &cost, node.coverage());
        levels::itself(&own);
        metric::traces(&own, &sums.traces);
        metric::agent(&own, node.levels().map(Level::name), node.stepped_down, node.off.is_some());
        for (resource, cost) in node.costs() {
            self.registry.target(resource, now_ns).handle(&catalog::TARGET_COST, &[]).set(cost);
        }
        self.processes(node, now_ns);
        self.ledger.report(&own);
    }

    fn processes(&self, node: &Node, now_ns: u64) {
        for (group, pid) in node.processes() {
            let Some(used) = target::usage(pid) else { continue };
            let resource =
                lock(self.router).session_mut(group).and_then(|session| session.resource(pid).cloned());
            if let Some(resource) = resource {
                metric::process(&self.registry.target(&resource, now_ns), &used);
            }
        }
    }
}
