//! The wiring of an observation: the only file that spawns threads, makes channels and orders the shutdown.
//!
//! ```text
//! ring ─► receive+decode ──events_to_correlate──► correlate ──spans_to_export──► export
//!             thread                               thread │                      thread (tokio)
//!                        control (this thread) ◄──reports─┘
//!                          attach, names, view
//! devices (thread) ──events_to_correlate──► correlate
//! ```
//! Shutdown goes with the data: probes out, ring drained, engine finished, exporters flushed, summary made.

mod agent;
mod device_thread;
mod every;
mod export_thread;
mod levels;
mod recorder;
mod replay;

pub use agent::{AgentWishes, agent};
pub use replay::{Replayed, replay};

use crate::account::{Own, Summary};
use crate::attach::{Attacher, Kernel, KernelError};
use crate::bell::Bell;
use crate::clock;
use crate::config::Config;
use crate::control::Control;
use crate::device::Targets;
use crate::export::{self, Batch, Ledger};
use crate::facts::{Ending, Facts};
use crate::metric::{self, Registry};
use crate::receive::{self, Received};
use crate::record::{self, RecordError};
use crate::session::{Input, Report, Session};
use crate::span::model::Resource;
use crate::summary;
use crate::target::{self, ProcessError};
use crate::view::View;
use device_thread::DeviceThread;
use every::Every;
use export_thread::ExportThread;
use recorder::{Recorder, header};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Batches between receiving and correlating: 64 of 4,096 events each hold a second at 250,000 events a second.
/// When they are full the ring holds on, and when that is full the kernel side counts.
const EVENTS_TO_CORRELATE: usize = 64;
/// Reports to the controlling thread. Beyond it they are dropped and everything is looked at anew.
const REPORTS: usize = 4096;
/// Between two looks of the controlling thread when nothing reports.
const LOOK: Duration = Duration::from_millis(50);
/// Between two looks when a process has just mapped files.
const SHORT_LOOK: Duration = Duration::from_millis(5);
/// Between two ticks of the engine.
const TICK: Duration = Duration::from_millis(200);
/// Between two looks at what is counted in the kernel: reading a few thousand kernels takes milliseconds.
const COUNT: Duration = Duration::from_secs(1);
/// Between two sweeps over processes and names.
const SWEEP: Duration = Duration::from_millis(500);
/// Between two looks at what gpuspan tells of itself, where scrapes may ask for it at any time.
const REFRESH: Duration = Duration::from_secs(1);

/// Why an observation could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The pid is no target.
    #[error(transparent)]
    Target(#[from] ProcessError),
    /// The kernel side could not be put in place or used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// An exporter could not be set up.
    #[error(transparent)]
    Export(#[from] export::OpenError),
    /// Pods cannot be asked for.
    #[error(transparent)]
    Pods(#[from] crate::kubernetes::StartError),
    /// A recording could not be made.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A recording could not be read at all.
    #[error(transparent)]
    Read(#[from] record::ReadError),
    /// A thread could not be started, or a file not written.
    #[error("failed to {0}")]
    System(&'static str, #[source] std::io::Error),
    /// A thread panicked, which is a bug.
    #[error("the {0} thread panicked: this is a bug in gpuspan")]
    Panicked(&'static str),
}

/// What whoever started the observation may wish while it goes on; each is taken back once it is fulfilled.
#[derive(Clone, Copy, Debug)]
pub struct Wishes<'a> {
    /// End the observation.
    pub stop: &'a AtomicBool,
    /// Change the detail level.
    pub change_detail: &'a AtomicBool,
}

/// What an observation came to.
#[derive(Debug)]
pub struct Observed {
    /// All that was counted.
    pub summary: Summary,
    /// Whether the recording is whole, if one was asked for.
    pub recorded: Result<(), RunError>,
}

/// Observes until the duration is over, `stop` is set, or the target is gone.
///
/// # Errors
/// See [`RunError`]. Once probes are in place, trouble degrades the observation instead of ending it.
pub fn run(config: &Config, wishes: Wishes, view: &mut dyn View) -> Result<Observed, RunError> {
    target::require(config.pid)?;
    let mut kernel = Kernel::load(&config.kernel)?;
    let ring = kernel.take_ring().ok_or(KernelError::Incomplete("EVENTS"))?;
    let mut control = Control::new(config.pid, Attacher::new(kernel), config.given.clone());

    let registry = Arc::new(Registry::new(config.export.readers()));
    let root = control.resource(config.pid);
    let header = record::Header {
        seed: seed(),
        unix_ns: clock::unix_ns(),
        unix_offset_ns: clock::unix_offset_ns(),
        pid: config.pid,
        resource: root.as_ref().clone(),
        ..header()
    };
    let mut session =
        Session::new(Arc::clone(&registry), root, header.seed, header.unix_ns, header.unix_offset_ns)
            .with_traces(config.traces)
            .with_compat(config.compat);
    let recorder =
        config.record.as_deref().map(|path| Recorder::start(path, header, &mut session)).transpose()?;
    let session = Arc::new(Mutex::new(session));

    let ledger = Arc::new(Ledger::default());
    let exporter = ExportThread::start(&config.export, &ledger, &registry, None)?;
    let (events_to_correlate, inputs) = sync_channel(EVENTS_TO_CORRELATE);
    let (reports_to_control, reports) = sync_channel(REPORTS);
    let missed = Arc::new(AtomicBool::new(false));
    let correlate = spawn("correlate", {
        let (session, missed) = (Arc::clone(&session), Arc::clone(&missed));
        let spans_to_export = exporter.sender.clone();
        move || correlate(&session, &inputs, &reports_to_control, &missed, &spans_to_export)
    })?;
    let received = Arc::new(Received::default());
    let orders = Arc::new(orders()?);
    let receive = spawn("receive", {
        let (received, orders) = (Arc::clone(&received), Arc::clone(&orders));
        let events_to_correlate = events_to_correlate.clone();
        move || {
            // A closed channel means that correlation panicked; the ring is drained all the same.
            receive::drain(ring, &received, &orders, |events| {
                drop(events_to_correlate.send(Input::Events(events)))
            })
        }
    })?;

    let start = Instant::now();
    let mut send = |input| drop(events_to_correlate.send(input));
    control.set_detail(config.kernel.detail, &mut send)?;
    let attached = control.attach_tree(&mut send);
    let targets = Arc::new(Targets::default());
    targets.set(control.attacher.pids());
    let to_devices = events_to_correlate.clone();
    let devices = DeviceThread::start(&config.devices, &targets, move |reading| {
        to_devices.send(Input::Devices(reading)).is_ok()
    })?;
    let ends = Ends {
        reports: &reports,
        missed: &missed,
        exporter: &exporter,
        registry: &registry,
        session: &session,
        received: &received,
        ledger: &ledger,
        own: &levels::own_resource(),
        targets: &targets,
    };
    if attached.is_ok() {
        ends.refresh(&control, clock::unix_ns());
        ready(config, exporter.scraped_at)?;
        observe(config, wishes, &mut control, &mut send, &ends, view);
    }
    let window = start.elapsed();

    devices.finish()?;
    // Probes out; what they sent is still in the ring.
    let detached = control.attacher.detach();
    let (bpf_run_ns, bpf_run_count) = control.attacher.kernel().run_statistics();
    orders.stop();
    let drained = join("receive", receive)?;
    control.count(&mut |input| drop(events_to_correlate.send(input)));
    // Whoever ended in the last moment has requests that end with it.
    control.let_go(&mut |input| drop(events_to_correlate.send(input)));
    drop(events_to_correlate.send(Input::Finish));
    drop(events_to_correlate);
    join("correlate", correlate)?;
    // Changes that were reported while shutting down want no action, kernels still want names.
    let mut nowhere = |_| {};
    look(&mut control, &session, &mut nowhere);
    for report in reports.try_iter() {
        if matches!(report, Report::Kernel(_)) {
            control.act(report, &mut nowhere)?;
        }
    }
    control.sweep(&mut nowhere);
    let unix_ns = clock::unix_ns();
    ends.snapshot(&control, unix_ns);
    exporter.finish()?;
    attached?;
    drained.map_err(|error| RunError::System("wait for the ring buffer", error))?;

    let session = lock(&session);
    let counters = control.attacher.kernel().counters();
    let own = Own {
        attach_ms: control.attacher.attach_time.as_secs_f64() * 1e3,
        detach_ms: detached.as_secs_f64() * 1e3,
        bpf_run_ns,
        bpf_run_count,
        ..Own::usage()
    };
    let arrived = received.arrived();
    let loss = summary::loss(summary::correlated(&session), &counters, &arrived, &ledger);
    let window_ns = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
    let ending = Ending { counters: Ending::numbers(&counters), arrived, window_ns, unix_ns, own };
    let facts = Facts::of(&control, &session);
    let summary = summary::gather(&facts, &session, loss, &ending);
    view.finish(&summary, &session);
    let recorded = recorder.map_or(Ok(()), |recorder| recorder.finish(facts, ending));
    Ok(Observed { summary, recorded })
}

/// What the controlling thread shares with the others.
struct Ends<'a> {
    reports: &'a Receiver<Report>,
    missed: &'a AtomicBool,
    exporter: &'a ExportThread,
    registry: &'a Registry,
    session: &'a Mutex<Session>,
    received: &'a Received,
    ledger: &'a Ledger,
    own: &'a Arc<Resource>,
    targets: &'a Targets,
}

impl Ends<'_> {
    /// Hands a snapshot of all metrics to the exporters, gpuspan's own among them.
    fn snapshot(&self, control: &Control, now_ns: u64) {
        self.refresh(control, now_ns);
        self.exporter.sender.offer(Batch::Metrics(self.registry.snapshot(now_ns)));
    }

    /// Brings gpuspan's own metrics up to date.
    fn refresh(&self, control: &Control, now_ns: u64) {
        let counters = control.attacher.kernel().counters();
        let (loss, traces, beyond) = {
            let session = lock(self.session);
            let loss = summary::loss(
                summary::correlated(&session),
                &counters,
                &self.received.arrived(),
                self.ledger,
            );
            (loss, session.traces(), session.engine.forgotten())
        };
        let own = self.registry.target(self.own, now_ns);
        metric::own(&own, &loss, &beyond, &levels::cost(control), control.attacher.coverage());
        levels::itself(&own);
        levels::processes(self.registry, control, self.session, now_ns);
        metric::traces(&own, &traces);
        self.ledger.report(&own);
    }
}

/// Nothing under the lock can panic half-way, so a poisoned session is a whole one.
fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The controlling thread's loop.
fn observe(
    config: &Config,
    wishes: Wishes,
    control: &mut Control,
    send: &mut dyn FnMut(Input),
    ends: &Ends,
    view: &mut dyn View,
) {
    let start = Instant::now();
    let end = config.duration.map(|duration| start + duration);
    let mut tick = Every::new(TICK);
    let mut sweep = Every::new(SWEEP);
    let mut snapshot = Every::new(config.export.metric_interval);
    let mut count = Every::new(COUNT);
    let mut refresh = Every::new(REFRESH);
    while !wishes.stop.load(Ordering::Acquire)
        && end.is_none_or(|end| Instant::now() < end)
        && !control.is_over()
    {
        let longest = if control.has_mapped() { SHORT_LOOK } else { LOOK };
        let wait = end.map_or(longest, |end| end.saturating_duration_since(Instant::now()).min(longest));
        match ends.reports.recv_timeout(wait) {
            Ok(report) => act(control, report, send),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        ends.reports.try_iter().take(REPORTS).for_each(|report| act(control, report, send));
        control.look_at_mapped(send);
        if ends.missed.swap(false, Ordering::AcqRel)
            && let Err(error) = control.rescan_all(send)
        {
            tracing::warn!(error = %crate::chain(&error), "the target group is not followed any more");
        }
        if tick.is_due() {
            send(Input::Tick { now_ns: clock::monotonic_ns(), unix_offset_ns: clock::unix_offset_ns() });
            let session = lock(ends.session);
            view.show(&control.whom(), &session, start.elapsed());
        }
        if sweep.is_due() {
            ends.targets.set(control.attacher.pids());
            look(control, ends.session, send);
            control.sweep(send);
        }
        if count.is_due() {
            control.count(send);
        }
        if wishes.change_detail.swap(false, Ordering::AcqRel)
            && let Err(error) = control.set_detail(control.detail.other(), send)
        {
            tracing::warn!(error = %crate::chain(&error), "the detail level stays as it was");
        }
        if snapshot.is_due() {
            ends.snapshot(control, clock::unix_ns());
        } else if ends.exporter.scraped_at.is_some() && refresh.is_due() {
            ends.refresh(control, clock::unix_ns());
        }
    }
}

/// Lets the controlling thread look at the system for what correlation wants to know of it.
fn look(control: &mut Control, session: &Mutex<Session>, send: &mut dyn FnMut(Input)) {
    let (wants, stacks) = {
        let mut session = lock(session);
        (session.wants.fetch(), session.stacks.take_fresh())
    };
    control.look(wants, stacks, send);
}

fn act(control: &mut Control, report: Report, send: &mut dyn FnMut(Input)) {
    if let Err(error) = control.act(report, send) {
        tracing::warn!(error = %crate::chain(&error), "a change in the target group could not be followed");
    }
}

/// The correlating thread's loop.
fn correlate(
    session: &Mutex<Session>,
    inputs: &Receiver<Input>,
    reports: &SyncSender<Report>,
    missed: &AtomicBool,
    spans_to_export: &export::Sender,
) {
    for input in inputs {
        let last = matches!(input, Input::Finish);
        let mut report = |report| {
            // A full channel means that the controlling thread is behind: it will look at everything anew.
            if let Err(TrySendError::Full(_)) = reports.try_send(report) {
                missed.store(true, Ordering::Release);
            }
        };
        let spans = lock(session).take(input, &mut report);
        if !spans.is_empty() {
            spans_to_export.offer(Batch::Spans(spans));
        }
        if last {
            return;
        }
    }
}

fn bell() -> Result<Bell, RunError> {
    Bell::new().map_err(|error| RunError::System("make an event counter", error))
}

fn orders() -> Result<receive::Orders, RunError> {
    receive::Orders::new().map_err(|error| RunError::System("make an event counter", error))
}

fn spawn<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, RunError> {
    thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(|error| RunError::System("start a thread", error))
}

fn join<T>(name: &'static str, thread: JoinHandle<T>) -> Result<T, RunError> {
    thread.join().map_err(|_| RunError::Panicked(name))
}

/// Tells whoever waits for it that the probes are in place, and where scrapes are answered.
fn ready(config: &Config, scraped_at: Option<SocketAddr>) -> Result<(), RunError> {
    let url = scraped_at.map(|address| format!("http://{address}/metrics"));
    if let Some(url) = &url {
        tracing::info!(url, "metrics can be scraped");
    }
    let Some(path) = &config.ready_file else { return Ok(()) };
    let line = url.map_or_else(String::new, |url| format!("prometheus {url}\n"));
    std::fs::write(path, format!("ready\n{line}"))
        .map_err(|error| RunError::System("write the ready file", error))
}

/// Random for each run: ids of different runs and machines must differ.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    let read = std::fs::File::open("/dev/urandom")
        .and_then(|mut random| std::io::Read::read_exact(&mut random, &mut bytes));
    match read {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => clock::unix_ns() ^ u64::from(std::process::id()) << 48,
    }
}
