//! The wiring of an agent: many targets on one kernel side.
//!
//! ```text
//! ring ─► receive+decode ──to_route──► correlate (a session a target) ──spans_to_export──► export, pages
//!             thread                      thread │                                          thread (tokio)
//! hints ─► control (this thread, `observe.rs`): discovery, targets, budgets ◄──reports─┘
//! devices, pods (threads) ──► correlate, control
//! ```

mod memory;
mod observe;

use super::device_thread::DeviceThread;
use super::export_thread::ExportThread;
use super::{RunError, bell, join, levels, orders, seed, spawn};
use crate::agent::config::{Config, Resolved};
use crate::agent::{Limits, Manner, Message, Node, Off, Router, Status, Whereabouts};
use crate::attach::{Kernel, KernelError, Price, measure_price};
use crate::bell::Bell;
use crate::clock;
use crate::device::{Running, Targets};
use crate::discover::Discovery;
use crate::export::{self, Batch, Ledger};
use crate::metric::Registry;
use crate::receive::{self, Hints, Received};
use crate::session;
use observe::{Agent, Ends};
use profiler_common::stream::map;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// As in an observation: 64 batches of 4,096 events each.
const TO_ROUTE: usize = 64;
/// Reports to the controlling thread; beyond it everything is looked at anew.
const REPORTS: usize = 8192;
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
    memory::spare();
    let mut kernel = Kernel::load(&resolved.kernel)?;
    let ring = kernel.take_ring().ok_or(KernelError::Incomplete(map::EVENTS))?;
    let hints = kernel.take_hints().ok_or(KernelError::Incomplete(map::HINTS))?;
    let kernel = Arc::new(Mutex::new(kernel));
    let price = measure_price().unwrap_or(PRICE);
    memory::give_back();
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
    let bell = Arc::new(bell()?);
    let correlate = spawn("correlate", {
        let (router, missed, bell) = (Arc::clone(&router), Arc::clone(&missed), Arc::clone(&bell));
        let spans_to_export = exporter.sender.clone();
        move || correlate(&router, &messages, (&reports_to_control, &bell), &missed, &spans_to_export)
    })?;
    let received = Arc::new(Received::default());
    let orders = Arc::new(orders()?);
    let receive = spawn("receive", {
        let (received, orders) = (Arc::clone(&received), Arc::clone(&orders));
        let to_route = to_route.clone();
        move || {
            receive::drain(ring, &received, &orders, |events| drop(to_route.send(Message::Events(events))))
        }
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
        hints: Hints::new(hints),
        hears_hints: false,
        gpu_pids: BTreeSet::new(),
        switched_off: false,
        places: whereabouts.generation(),
        whereabouts,
        ends: Ends {
            reports: &reports,
            bell: &bell,
            orders: &orders,
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
    orders.stop();
    let drained = join("receive", receive)?;
    drop(to_route.send(Message::Finish));
    drop(to_route);
    join("correlate", correlate)?;
    ends.snapshot(&node, clock::unix_ns());
    exporter.finish()?;
    drained.map_err(|error| RunError::System("wait for the ring buffer", error))
}

/// Nothing under the lock can panic half-way, so a poisoned router is a whole one.
fn lock(router: &Mutex<Router>) -> MutexGuard<'_, Router> {
    router.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The correlating thread's loop.
fn correlate(
    router: &Mutex<Router>,
    messages: &Receiver<Message>,
    (reports, bell): (&SyncSender<(u8, session::Report)>, &Bell),
    missed: &AtomicBool,
    spans_to_export: &export::Sender,
) {
    for message in messages {
        let last = matches!(message, Message::Finish);
        let mut report = |group, report| {
            if let Err(TrySendError::Full(_)) = reports.try_send((group, report)) {
                missed.store(true, Ordering::Release);
            }
            bell.ring();
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

fn limits(config: &Config) -> Limits {
    Limits {
        target: config.budget.target.0,
        node: config.budget.node.0,
        canary: config.budget.canary.0,
        linger: config.budget.linger.0,
        own_cpu: config.limits.cpu.0,
        own_memory: config.limits.memory.0,
    }
}
