//! The wiring of an agent: many targets on one kernel side.
//!
//! ```text
//! ring ─► receive+decode ──to_route──► correlate (a session a target) ──spans_to_export──► export, pages
//!             thread                      thread │                                          thread (tokio)
//!       control (this thread): discovery, targets, budgets ◄──reports─┘
//! devices, pods (threads) ──► correlate, control
//! ```

use super::device_thread::DeviceThread;
use super::export_thread::ExportThread;
use super::{Every, RunError, SWEEP, TICK, join, levels, seed, spawn};
use crate::agent::config::{Config, Effect, Resolved, changes};
use crate::agent::{Level, Limits, Manner, Message, Node, Off, Report, Router, Status, Whereabouts};
use crate::attach::{Kernel, KernelError, Price, measure_price};
use crate::clock;
use crate::device::{Running, Targets};
use crate::discover::Discovery;
use crate::export::{self, Batch, Ledger};
use crate::metric::{self, Registry, catalog};
use crate::receive::{self, Received};
use crate::session;
use crate::span::model::Resource;
use crate::summary;
use crate::target;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// As in an observation: 64 batches of 4,096 events each.
const TO_ROUTE: usize = 64;
/// Reports to the controlling thread; beyond it everything is looked at anew.
const REPORTS: usize = 8192;
/// Between two looks of the controlling thread when nothing reports, with and without a target.
const LOOK: Duration = Duration::from_millis(50);
const IDLE_LOOK: Duration = Duration::from_millis(200);
/// Between two looks when a process has just mapped files.
const SHORT_LOOK: Duration = Duration::from_millis(5);
/// Between two looks at words from outside that everything must be let go of.
const OFF: Duration = Duration::from_millis(250);
const COUNT: Duration = Duration::from_secs(1);
const REFRESH: Duration = Duration::from_secs(1);
/// What a probe is taken to cost where it cannot be measured: more than in docs/overhead.md, where it is 580 ns.
const PRICE: Price = Price { emulated_ns: 1000.0, single_stepped_ns: None };

/// What whoever started the agent may wish while it runs; all but the first are taken back once they are fulfilled.
#[derive(Clone, Copy, Debug)]
pub struct AgentWishes<'a> {
    /// End.
    pub stop: &'a AtomicBool,
    /// Read the configuration again.
    pub reload: &'a AtomicBool,
    /// Let go of everything, or go on.
    pub change_off: &'a AtomicBool,
}

/// Runs until `stop` is set. `read` reads the configuration again.
///
/// # Errors
/// See [`RunError`]. Once the kernel side is in place, trouble with a target costs that target alone.
pub fn agent(
    mut config: Config,
    resolved: Resolved,
    read: &mut dyn FnMut() -> Option<(Config, Resolved)>,
    wishes: AgentWishes,
    started: &mut dyn FnMut(Option<SocketAddr>),
) -> Result<(), RunError> {
    let mut kernel = Kernel::load(&resolved.kernel)?;
    let ring = kernel.take_ring().ok_or(KernelError::Incomplete("EVENTS"))?;
    let kernel = Arc::new(Mutex::new(kernel));
    let price = measure_price().unwrap_or(PRICE);
    give_memory_back();
    let registry = Arc::new(Registry::new(resolved.export.readers()));
    let own = levels::own_resource();
    let router = Arc::new(Mutex::new(Router::new(&registry, &own)));
    let ledger = Arc::new(Ledger::default());
    let status = Arc::new(Status::default());
    let pages: Arc<dyn export::Pages> = Arc::<Status>::clone(&status);
    let exporter = ExportThread::start(&resolved.export, &ledger, &registry, Some(pages))?;

    let (to_route, messages) = sync_channel(TO_ROUTE);
    let (reports_to_control, reports) = sync_channel(REPORTS);
    let missed = Arc::new(AtomicBool::new(false));
    let correlate = spawn("correlate", {
        let (router, missed) = (Arc::clone(&router), Arc::clone(&missed));
        let spans_to_export = exporter.sender.clone();
        move || correlate(&router, &messages, &reports_to_control, &missed, &spans_to_export)
    })?;
    let received = Arc::new(Received::default());
    let stop_receive = Arc::new(AtomicBool::new(false));
    let receive = spawn("receive", {
        let (received, stop) = (Arc::clone(&received), Arc::clone(&stop_receive));
        let to_route = to_route.clone();
        move || receive::drain(ring, &received, &stop, |events| drop(to_route.send(Message::Events(events))))
    })?;
    let targets = Arc::new(Targets::default());
    let to_devices = to_route.clone();
    let devices = DeviceThread::start(&resolved.devices, &targets, move |reading| {
        to_devices.send(Message::Devices(reading)).is_ok()
    })?;

    let manner = Manner {
        detail: resolved.kernel.detail,
        traces: resolved.traces,
        compat: resolved.compat,
        given: export::identity(|name| {
            (name == "OTEL_RESOURCE_ATTRIBUTES").then(|| std::env::var(name).ok())?
        }),
    };
    let running = Running::new(&resolved.devices);
    let whereabouts = Whereabouts::new(&config.kubernetes)?;
    let around = {
        let whereabouts = whereabouts.clone();
        Arc::new(move |pid| whereabouts.attributes(pid))
    };
    let node = Node::new(&kernel, &registry, manner, around, (limits(&config), price), seed());
    let mut agent = Agent {
        node,
        discovery: Discovery::new(resolved.rules, resolved.discover),
        off: Off::new(&config.budget.off_file),
        switched_off: false,
        places: whereabouts.generation(),
        whereabouts,
        ends: Ends {
            reports: &reports,
            missed: &missed,
            exporter: &exporter,
            registry: &registry,
            router: &router,
            received: &received,
            ledger: &ledger,
            own: &own,
            targets: &targets,
            status: &status,
            running: &running,
        },
        interval: resolved.export.metric_interval,
        pace: Arc::clone(&resolved.export.pace),
    };
    started(exporter.scraped_at);
    let mut send = |message| drop(to_route.send(message));
    agent.observe(&mut config, read, wishes, &mut send);
    agent.node.let_all_go(&mut send);
    let Agent { node, ends, .. } = agent;

    devices.finish()?;
    stop_receive.store(true, Ordering::Release);
    let drained = join("receive", receive)?;
    drop(to_route.send(Message::Finish));
    drop(to_route);
    join("correlate", correlate)?;
    ends.snapshot(&node, clock::unix_ns());
    exporter.finish()?;
    drained.map_err(|error| RunError::System("wait for the ring buffer", error))
}

/// What the controlling thread shares with the others.
struct Ends<'a> {
    reports: &'a Receiver<(u8, session::Report)>,
    missed: &'a AtomicBool,
    exporter: &'a ExportThread,
    registry: &'a Registry,
    router: &'a Mutex<Router>,
    received: &'a Received,
    ledger: &'a Ledger,
    own: &'a Arc<Resource>,
    targets: &'a Targets,
    status: &'a Status,
    running: &'a Running,
}

/// The controlling thread's own.
struct Agent<'a> {
    node: Node,
    discovery: Discovery,
    off: Off,
    /// By a signal.
    switched_off: bool,
    whereabouts: Whereabouts,
    /// What was known of places when processes were last told.
    places: u64,
    ends: Ends<'a>,
    interval: Duration,
    pace: Arc<export::Pace>,
}

impl Agent<'_> {
    /// The controlling thread's loop.
    fn observe(
        &mut self,
        config: &mut Config,
        read: &mut dyn FnMut() -> Option<(Config, Resolved)>,
        wishes: AgentWishes,
        send: &mut dyn FnMut(Message),
    ) {
        let mut discover = Every::new(config.discover.interval.0).at_once();
        let mut off = Every::new(OFF).at_once();
        let (mut tick, mut sweep, mut count) = (Every::new(TICK), Every::new(SWEEP), Every::new(COUNT));
        let (mut snapshot, mut refresh) = (Every::new(self.interval), Every::new(REFRESH));
        let mut waits = false;
        while !wishes.stop.load(Ordering::Acquire) {
            let idle = if self.node.levels().next().is_none() { IDLE_LOOK } else { LOOK };
            match self.ends.reports.recv_timeout(if waits { SHORT_LOOK } else { idle }) {
                Ok((group, report)) => self.node.act(group, report, send),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            for (group, report) in self.ends.reports.try_iter().take(REPORTS) {
                self.node.act(group, report, send);
            }
            waits = self.node.look_at_mapped(send);
            if self.ends.missed.swap(false, Ordering::AcqRel) {
                self.node.rescan(send);
            }
            if wishes.change_off.swap(false, Ordering::AcqRel) {
                self.switched_off = !self.switched_off;
            }
            if off.is_due() {
                self.look_off(send);
            }
            if wishes.reload.swap(false, Ordering::AcqRel)
                && let Some((new, resolved)) = read()
            {
                self.reload(config, new, resolved);
                discover = Every::new(config.discover.interval.0).at_once();
                snapshot = Every::new(self.interval);
            }
            if discover.is_due() {
                self.discover(send);
            }
            if tick.is_due() {
                send(Message::Tick(clock::monotonic_ns(), clock::unix_offset_ns()));
                self.node.bury(Instant::now(), send);
                self.ends.status.alive();
            }
            if count.is_due() {
                self.node.count(send);
            }
            if sweep.is_due() {
                self.ends.targets.set(self.node.pids().into_iter());
                self.node.sweep(self.ends.router, send);
                let own = levels::own_use();
                self.node.measure(Instant::now(), own.0, own.1, send);
            }
            if snapshot.is_due() {
                self.ends.snapshot(&self.node, clock::unix_ns());
            } else if refresh.is_due() {
                self.ends.refresh(&self.node, clock::unix_ns());
                self.tell();
            }
        }
    }

    /// Looks for targets.
    fn discover(&mut self, send: &mut dyn FnMut(Message)) {
        let gpu_pids = self.ends.running.pids();
        let places = self.whereabouts.generation();
        if std::mem::replace(&mut self.places, places) != places {
            self.node.rename(self.ends.router, send);
        }
        let facts = |pid| self.whereabouts.facts(pid);
        let look = self.discovery.look(Instant::now(), &gpu_pids, &facts);
        self.node.follow(look, send);
        self.tell();
    }

    /// Lets go of everything where somebody says so.
    fn look_off(&mut self, send: &mut dyn FnMut(Message)) {
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
        if self.node.off.is_some() {
            self.node.let_all_go(send);
        }
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

impl Ends<'_> {
    fn snapshot(&self, node: &Node, now_ns: u64) {
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

/// Nothing under the lock can panic half-way, so a poisoned router is a whole one.
fn lock(router: &Mutex<Router>) -> MutexGuard<'_, Router> {
    router.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The correlating thread's loop.
fn correlate(
    router: &Mutex<Router>,
    messages: &Receiver<Message>,
    reports: &SyncSender<(u8, session::Report)>,
    missed: &AtomicBool,
    spans_to_export: &export::Sender,
) {
    for message in messages {
        let last = matches!(message, Message::Finish);
        let mut report = |group, report| {
            if let Err(TrySendError::Full(_)) = reports.try_send((group, report)) {
                missed.store(true, Ordering::Release);
            }
        };
        let spans = lock(router).take(message, &mut report);
        if !spans.is_empty() {
            spans_to_export.offer(Batch::Spans(spans));
        }
        if last {
            return;
        }
    }
}

/// Loading reads the kernel's types, 20 MB that are not needed again.
fn give_memory_back() {
    // SAFETY: no preconditions.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

fn limits(config: &Config) -> Limits {
    Limits {
        target: config.budget.target.0,
        node: config.budget.node.0,
        canary: config.budget.canary.0,
        own_cpu: config.limits.cpu.0,
        own_memory: config.limits.memory.0,
    }
}
