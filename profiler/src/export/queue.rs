//! The way from the pipeline to the exporters. In: batches. Out: the same, per destination, or a counted drop: offering
//! never waits. Absent: any memory without a bound.

use std::sync::Arc;

use tokio::sync::mpsc::{self, error::TrySendError};

use super::ledger::{Account, Claim, Ledger, Reason};
use super::settings::Settings;
use crate::metric::Snapshot;
use crate::span::model::Span;

/// Spans in one request at most: with 1 KB each it stays far below the 4 MiB that gRPC servers take by default.
pub(super) const SPANS_PER_REQUEST: usize = 512;
/// Spans waiting for one destination at most. At a kilobyte each this is 16 MB, and a minute of 250 spans a second.
pub(super) const SPANS_QUEUED: u64 = 16_384;
/// A batch is mostly one request's spans, so the limit on spans is reached first unless requests have fewer than four.
const SPANS: Room = Room { batches: 4096, items: SPANS_QUEUED };
/// A newer snapshot replaces the older anyway. The registry bounds the points in each.
const SNAPSHOTS: Room = Room { batches: 4, items: u64::MAX };

/// How much may wait for one destination.
#[derive(Clone, Copy, Debug)]
struct Room {
    batches: usize,
    items: u64,
}

/// What the pipeline hands over.
#[derive(Debug)]
pub enum Batch {
    /// Finished spans.
    Spans(Vec<Span>),
    /// All metrics at one moment.
    Metrics(Snapshot),
}

/// Something on its way to one destination.
#[derive(Debug)]
pub(super) struct Parcel<T: ?Sized> {
    pub(super) content: Arc<T>,
    pub(super) claim: Claim,
}

/// Creates the queues of all destinations in `settings`.
pub fn queue(settings: &Settings, ledger: &Ledger) -> (Sender, Receiver) {
    let file = settings.file.is_some();
    let (otlp_spans, from_otlp_spans) = lane(settings.traces.is_some(), &ledger.otlp.traces, SPANS);
    let (otlp_metrics, from_otlp_metrics) = lane(settings.metrics.is_some(), &ledger.otlp.metrics, SNAPSHOTS);
    let (file_spans, from_file_spans) = lane(file, &ledger.file.traces, SPANS);
    let (file_metrics, from_file_metrics) = lane(file, &ledger.file.metrics, SNAPSHOTS);
    (
        Sender { spans: [otlp_spans, file_spans], metrics: [otlp_metrics, file_metrics] },
        Receiver {
            otlp_spans: from_otlp_spans,
            otlp_metrics: from_otlp_metrics,
            file_spans: from_file_spans,
            file_metrics: from_file_metrics,
        },
    )
}

/// The pipeline's end of the queues.
#[derive(Clone, Debug)]
pub struct Sender {
    spans: [Option<Lane<[Span]>>; 2],
    metrics: [Option<Lane<Snapshot>>; 2],
}

/// The exporters' end of the queues.
#[derive(Debug)]
pub struct Receiver {
    pub(super) otlp_spans: Option<mpsc::Receiver<Parcel<[Span]>>>,
    pub(super) otlp_metrics: Option<mpsc::Receiver<Parcel<Snapshot>>>,
    pub(super) file_spans: Option<mpsc::Receiver<Parcel<[Span]>>>,
    pub(super) file_metrics: Option<mpsc::Receiver<Parcel<Snapshot>>>,
}

impl Sender {
    /// Hands a batch to every destination that has room for it, and counts it as dropped for the others. Never waits.
    pub fn offer(&self, batch: Batch) {
        match batch {
            Batch::Spans(spans) => self.offer_spans(spans),
            Batch::Metrics(snapshot) => {
                let points = snapshot.points();
                let snapshot = Arc::new(snapshot);
                for lane in self.metrics.iter().flatten() {
                    lane.offer(&snapshot, points);
                }
            }
        }
    }

    /// Whether what is offered now finds room, for those who can wait.
    pub fn has_room(&self) -> bool {
        self.spans.iter().flatten().all(Lane::has_room)
    }

    /// Spans and points under way.
    pub fn queued(&self) -> u64 {
        let [otlp, file] = [0, 1].map(|destination| self.queued_for(destination));
        otlp + file
    }

    /// Whether the file has all that was offered.
    pub fn is_written(&self) -> bool {
        self.queued_for(1) == 0
    }

    fn queued_for(&self, destination: usize) -> u64 {
        let spans = self.spans.get(destination).and_then(Option::as_ref).map(|lane| lane.account.queued());
        let points = self.metrics.get(destination).and_then(Option::as_ref).map(|lane| lane.account.queued());
        spans.unwrap_or(0) + points.unwrap_or(0)
    }

    fn offer_spans(&self, mut spans: Vec<Span>) {
        while !spans.is_empty() {
            let rest = spans.split_off(spans.len().min(SPANS_PER_REQUEST));
            let part: Arc<[Span]> = spans.into();
            for lane in self.spans.iter().flatten() {
                lane.offer(&part, part.len() as u64);
            }
            spans = rest;
        }
    }
}

/// One destination's queue of one signal.
#[derive(Debug)]
struct Lane<T: ?Sized> {
    account: Arc<Account>,
    queue: mpsc::Sender<Parcel<T>>,
    items: u64,
}

impl<T: ?Sized> Clone for Lane<T> {
    fn clone(&self) -> Self {
        Self { account: Arc::clone(&self.account), queue: self.queue.clone(), items: self.items }
    }
}

type Ends<T> = (Option<Lane<T>>, Option<mpsc::Receiver<Parcel<T>>>);

fn lane<T: ?Sized>(wanted: bool, account: &Arc<Account>, room: Room) -> Ends<T> {
    if !wanted {
        return (None, None);
    }
    let (queue, receiver) = mpsc::channel(room.batches);
    (Some(Lane { account: Arc::clone(account), queue, items: room.items }), Some(receiver))
}

impl<T: ?Sized> Lane<T> {
    /// Half of the room is left to what is offered at once.
    fn has_room(&self) -> bool {
        self.account.queued() <= self.items / 2 && self.queue.capacity() * 2 > self.queue.max_capacity()
    }

    fn offer(&self, content: &Arc<T>, items: u64) {
        let claim = Claim::new(&self.account, items);
        if self.account.queued() > self.items {
            return claim.dropped(Reason::QueueFull);
        }
        match self.queue.try_send(Parcel { content: Arc::clone(content), claim }) {
            Ok(()) => {}
            Err(TrySendError::Full(parcel)) => parcel.claim.dropped(Reason::QueueFull),
            Err(TrySendError::Closed(parcel)) => parcel.claim.dropped(Reason::Shutdown),
        }
    }
}
