//! The wiring of a replay: a recording's entries through the same session, at full speed, on the recording's own clock.
//!
//! ```text
//! file ─► read ─► session (this thread) ──spans_to_export──► export (thread)
//! ```
//! Nothing of this machine is looked at: names, resources, moments and the seed of ids come from the file.

use super::RunError;
use super::export_thread::ExportThread;
use crate::account::{Summary, Target};
use crate::attach::Detail;
use crate::config::Replay;
use crate::export::{self, Batch, Ledger};
use crate::facts::{Arrived, Ending, Facts};
use crate::metric::Registry;
use crate::record::{Account, Again, Catalogue, End, Entry, Header, ReadError, Reader, Record};
use crate::session::{Input, Session};
use crate::span::model::Span;
use crate::summary;
use crate::view::{View, Whom};
use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Between two looks at exporters that have no room.
const WAIT: Duration = Duration::from_millis(1);
/// How long exporters may take nothing before they are taken for dead.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a replay came to.
#[derive(Debug)]
pub struct Replayed {
    /// As at the end of the observation, or of what could be read of it.
    pub summary: Summary,
    /// Why it could not be read to its end.
    pub broken: Option<ReadError>,
}

/// Replays a recording, or as much of it as can be read, or until `stop` is set.
///
/// # Errors
/// When it is no recording, or an exporter cannot be set up.
pub fn replay(config: &Replay, stop: &AtomicBool, view: &mut dyn View) -> Result<Replayed, RunError> {
    let (reader, header) = Reader::open(&config.recording)?;
    let ledger = Ledger::default();
    let registry = Arc::new(Registry::new(config.export.readers()));
    let exporter = ExportThread::start(&config.export, &ledger, &registry, None)?;
    let mut player = Player::new(header, exporter.sender.clone(), registry, config);
    let broken = player.play(reader, stop, view);
    player.end(stop);
    exporter.finish()?;
    let summary = player.summary(broken.as_ref(), &ledger);
    view.finish(&summary, &player.session);
    Ok(Replayed { summary, broken })
}

/// A session that takes what was taken.
struct Player {
    session: Session,
    registry: Arc<Registry>,
    catalogue: Catalogue,
    spans_to_export: export::Sender,
    whom: Whom,
    account: Account,
    facts: Facts,
    end: Option<End>,
    clock: Clock,
    finished: bool,
    /// False once nothing has been taken for a while: then nobody is waited for.
    exporters_take: bool,
}

/// The recording's time, nanoseconds.
struct Clock {
    /// Its first tick, `CLOCK_MONOTONIC`.
    first_ns: Option<u64>,
    /// Its last one.
    last_ns: u64,
    /// The same as Unix time.
    unix_ns: u64,
    /// When metrics are told next, Unix time, and how often.
    metrics_ns: u64,
    period_ns: u64,
}

impl Player {
    fn new(
        header: Header,
        spans_to_export: export::Sender,
        registry: Arc<Registry>,
        config: &Replay,
    ) -> Self {
        let catalogue = Catalogue::of(&header.functions);
        let root = Arc::new(header.resource);
        let session =
            Session::new(Arc::clone(&registry), root, header.seed, header.unix_ns, header.unix_offset_ns)
                .with_traces(config.traces)
                .with_compat(config.compat);
        let period_ns = u64::try_from(config.export.metric_interval.as_nanos()).unwrap_or(u64::MAX);
        let metrics_ns = header.unix_ns.saturating_add(period_ns);
        Self {
            session,
            registry,
            catalogue,
            spans_to_export,
            whom: Whom { pid: header.pid, server: "generic", detail: Detail::Events, members: Vec::new() },
            account: Account { made_by: header.gpuspan, ..Account::default() },
            facts: Facts { target: Target { pid: header.pid, ..Target::default() }, ..Facts::default() },
            end: None,
            clock: Clock { first_ns: None, last_ns: 0, unix_ns: header.unix_ns, metrics_ns, period_ns },
            finished: false,
            exporters_take: true,
        }
    }

    /// Takes all that can be read.
    fn play(
        &mut self,
        mut reader: Reader<impl Read>,
        stop: &AtomicBool,
        view: &mut dyn View,
    ) -> Option<ReadError> {
        while !stop.load(Ordering::Acquire) {
            match reader.next() {
                Ok(Some(Record::Entry(entry))) => self.entry(entry, stop, view),
                Ok(Some(Record::Kernels(kernels))) => self.facts.kernels.extend(kernels),
                Ok(Some(Record::Facts(facts))) => {
                    let kernels = std::mem::take(&mut self.facts.kernels);
                    self.facts = Facts { kernels, ..*facts };
                }
                Ok(Some(Record::End(end))) => self.end = Some(*end),
                // A second one says nothing new.
                Ok(Some(Record::Header(_))) => {}
                Ok(None) => return None,
                Err(error) => return Some(error),
            }
        }
        None
    }

    fn entry(&mut self, entry: Entry, stop: &AtomicBool, view: &mut dyn View) {
        self.account.entries += 1;
        self.account.events += entry.events();
        let Again { input, parsed, unknown } = entry.again(&self.catalogue);
        self.account.unknown_functions += unknown;
        let tick = match input {
            Input::Tick { now_ns, unix_offset_ns } => Some((now_ns, unix_offset_ns)),
            Input::Serves(server) => {
                self.whom.server = server;
                self.facts.target.server = server;
                None
            }
            Input::Counting => {
                self.whom.detail = Detail::Aggregate;
                None
            }
            Input::Finish => {
                self.finished = true;
                None
            }
            _ => None,
        };
        let spans = self.session.retake(input, parsed);
        self.export(spans, stop);
        if let Some((now_ns, unix_offset_ns)) = tick {
            self.tick(now_ns, unix_offset_ns, stop, view);
        }
    }

    fn tick(&mut self, now_ns: u64, unix_offset_ns: i64, stop: &AtomicBool, view: &mut dyn View) {
        let clock = &mut self.clock;
        let first_ns = *clock.first_ns.get_or_insert(now_ns);
        clock.last_ns = now_ns;
        clock.unix_ns = now_ns.saturating_add_signed(unix_offset_ns);
        // What waits for a look at the system waits for nobody here.
        self.session.wants.fetch();
        self.session.stacks.take_fresh();
        view.show(&self.whom, &self.session, Duration::from_nanos(now_ns.saturating_sub(first_ns)));
        if self.clock.unix_ns >= self.clock.metrics_ns {
            self.clock.metrics_ns = self.clock.unix_ns.saturating_add(self.clock.period_ns);
            self.tell_metrics(self.clock.unix_ns, stop);
        }
    }

    fn export(&mut self, spans: Vec<Span>, stop: &AtomicBool) {
        if !spans.is_empty() {
            self.wait_until(export::Sender::has_room, stop);
            self.spans_to_export.offer(Batch::Spans(spans));
        }
    }

    /// Between the spans before and behind: to the file they take another way, and would come out in any order.
    fn tell_metrics(&mut self, unix_ns: u64, stop: &AtomicBool) {
        self.wait_for_file(stop);
        self.spans_to_export.offer(Batch::Metrics(self.registry.snapshot(unix_ns)));
        self.wait_for_file(stop);
    }

    fn wait_for_file(&self, stop: &AtomicBool) {
        while !self.spans_to_export.is_written() && !stop.load(Ordering::Acquire) {
            thread::sleep(WAIT);
        }
    }

    /// An observation drops what its exporters cannot take. A replay has time, as long as they take anything.
    fn wait_until(&mut self, is_ready: impl Fn(&export::Sender) -> bool, stop: &AtomicBool) {
        let (mut queued, mut left) = (self.spans_to_export.queued(), PATIENCE);
        while self.exporters_take && !is_ready(&self.spans_to_export) && !stop.load(Ordering::Acquire) {
            thread::sleep(WAIT);
            let now = self.spans_to_export.queued();
            left = if now == queued { left.saturating_sub(WAIT) } else { PATIENCE };
            queued = now;
            self.exporters_take = !left.is_zero();
        }
    }

    /// Ends what the recording does not end, and tells all metrics for the last time.
    fn end(&mut self, stop: &AtomicBool) {
        if !self.finished {
            let spans = self.session.retake(Input::Finish, VecDeque::new());
            self.export(spans, stop);
        }
        let unix_ns = self.end.as_ref().map_or(self.clock.unix_ns, |end| end.ending.unix_ns);
        self.tell_metrics(unix_ns, stop);
        self.wait_until(|sender| sender.queued() == 0, stop);
    }

    fn summary(&mut self, broken: Option<&ReadError>, ledger: &Ledger) -> Summary {
        let window_ns = self.clock.last_ns.saturating_sub(self.clock.first_ns.unwrap_or(0));
        let events = self.account.events;
        // Without its end nobody knows what the kernel side counted: the equations say that they do not hold.
        let cut = Ending {
            window_ns,
            arrived: Arrived { records: events, decoded: events, ..Arrived::default() },
            ..Ending::default()
        };
        let end = self.end.take();
        let lost = end.as_ref().map_or((0, 0), |end| (end.lost_entries, end.lost_events));
        let is_whole = end.is_some() && broken.is_none() && lost == (0, 0);
        let ending = end.map_or(cut, |end| end.ending);
        let counters = ending.counters();
        let loss = summary::loss(summary::correlated(&self.session), &counters, &ending.arrived, ledger);
        let mut summary = summary::gather(&self.facts, &self.session, loss, &ending);
        summary.recording = Some(Account {
            complete: is_whole && self.account.unknown_functions == 0,
            lost_entries: lost.0,
            lost_events: lost.1,
            unasked: self.session.unasked,
            broken: broken.map(|error| error.kind.to_string()),
            ..self.account.clone()
        });
        summary
    }
}
