//! The export side of the loss equation, `produced = exported + dropped + queued`, per destination and signal.
//! In: claims, one per batch and destination. Out: tallies and gpuspan's own metrics. Absent: any way to lose a claim
//! uncounted, since a claim that is thrown away counts itself as dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::settings::Signal;
use crate::metric::Target;
use crate::metric::catalog::{
    SELF_EXPORT_DROPPED, SELF_EXPORT_EXPORTED, SELF_EXPORT_FAILURES, SELF_EXPORT_PRODUCED,
    attribute::{GPUSPAN_DESTINATION, GPUSPAN_LOSS_REASON, GPUSPAN_SIGNAL},
};
use crate::span::model::{Attribute, Value};

/// Why something did not reach its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The destination was slower than the source for too long.
    QueueFull,
    /// A newer snapshot was ready before this one was sent; sums are cumulative, so only its exemplars are lost.
    Superseded,
    /// The destination answered that it will not take it.
    Refused,
    /// The destination did not answer, or asked to wait longer than we keep things.
    Unreachable,
    /// It could not be written down, or not to disk.
    Encoding,
    /// The program ended first.
    Shutdown,
}

impl Reason {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 6] =
        [Self::QueueFull, Self::Superseded, Self::Refused, Self::Unreachable, Self::Encoding, Self::Shutdown];

    /// As attributes and the summary spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Superseded => "superseded",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Encoding => "encoding",
            Self::Shutdown => "shutdown",
        }
    }
}

/// The accounts of all destinations.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Of the OTLP endpoints.
    pub otlp: Destination,
    /// Of the OTLP file.
    pub file: Destination,
}

/// One destination's accounts.
#[derive(Debug, Default)]
pub struct Destination {
    /// Of spans.
    pub traces: Arc<Account>,
    /// Of metric points.
    pub metrics: Arc<Account>,
}

/// Counts of one signal at one destination.
#[derive(Debug, Default)]
pub struct Account {
    produced: AtomicU64,
    exported: AtomicU64,
    dropped: [AtomicU64; Reason::ALL.len()],
    failures: AtomicU64,
}

/// An account at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Given to the exporter.
    pub produced: u64,
    /// Taken by the destination.
    pub exported: u64,
    /// Lost, by reason, without reasons that lost nothing.
    pub dropped: Vec<(&'static str, u64)>,
    /// Neither yet.
    pub queued: u64,
    /// Attempts that failed, whether or not a later one succeeded.
    pub failures: u64,
}

impl Tally {
    /// Lost for any reason.
    pub fn lost(&self) -> u64 {
        self.dropped.iter().map(|(_, count)| count).sum()
    }
}

impl Ledger {
    /// Every account with the names of its destination and signal.
    pub fn accounts(&self) -> [(&'static str, Signal, &Arc<Account>); 4] {
        [
            ("otlp", Signal::Traces, &self.otlp.traces),
            ("otlp", Signal::Metrics, &self.otlp.metrics),
            ("file", Signal::Traces, &self.file.traces),
            ("file", Signal::Metrics, &self.file.metrics),
        ]
    }

    /// Writes all accounts that were ever used into gpuspan's own metrics.
    pub fn report(&self, own: &Target) {
        for (destination, signal, account) in self.accounts() {
            let tally = account.tally();
            if tally.produced > 0 {
                report(own, destination, signal, &tally);
            }
        }
    }
}

fn report(own: &Target, destination: &'static str, signal: Signal, tally: &Tally) {
    let text = |text: &'static str| Value::Str(text.into());
    let base: [Attribute; 2] =
        [(GPUSPAN_DESTINATION, text(destination)), (GPUSPAN_SIGNAL, text(signal.name()))];
    own.handle(&SELF_EXPORT_PRODUCED, &base).observe(tally.produced);
    own.handle(&SELF_EXPORT_EXPORTED, &base).observe(tally.exported);
    own.handle(&SELF_EXPORT_FAILURES, &base).observe(tally.failures);
    for (reason, count) in &tally.dropped {
        let [destination, signal] = base.clone();
        let attributes = [destination, (GPUSPAN_LOSS_REASON, text(reason)), signal];
        own.handle(&SELF_EXPORT_DROPPED, &attributes).observe(*count);
    }
}

impl Account {
    /// The counts now. What moves while they are read shows as queued.
    pub fn tally(&self) -> Tally {
        let exported = self.exported.load(SeqCst);
        let all: Vec<_> =
            Reason::ALL.iter().zip(&self.dropped).map(|(r, n)| (r.name(), n.load(SeqCst))).collect();
        let lost: u64 = all.iter().map(|(_, count)| count).sum();
        let produced = self.produced.load(SeqCst);
        Tally {
            produced,
            exported,
            dropped: all.into_iter().filter(|(_, count)| *count > 0).collect(),
            queued: produced.saturating_sub(exported + lost),
            failures: self.failures.load(SeqCst),
        }
    }

    /// Items given to the exporter that are neither exported nor dropped yet.
    pub fn queued(&self) -> u64 {
        let settled = self.exported.load(SeqCst) + self.dropped.iter().map(|n| n.load(SeqCst)).sum::<u64>();
        self.produced.load(SeqCst).saturating_sub(settled)
    }

    /// An attempt to export failed; the claim is still open.
    pub fn failed(&self) {
        self.failures.fetch_add(1, SeqCst);
    }

    fn lose(&self, reason: Reason, count: u64) {
        // The array has one slot per reason, in the order of their declaration.
        if let Some(slot) = self.dropped.get(reason as usize) {
            slot.fetch_add(count, SeqCst);
        }
    }
}

/// Some items on their way to one destination. Each is settled once; what is left when the claim is thrown away
/// counts as dropped by the end of the program, because nothing else throws one away.
#[derive(Debug)]
pub struct Claim {
    account: Arc<Account>,
    open: u64,
}

impl Claim {
    /// Counts `items` as produced.
    pub fn new(account: &Arc<Account>, items: u64) -> Self {
        account.produced.fetch_add(items, SeqCst);
        Self { account: Arc::clone(account), open: items }
    }

    /// The account that it is settled on.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Adds another claim on the same account.
    pub fn join(&mut self, mut other: Self) {
        self.open += std::mem::take(&mut other.open);
    }

    /// Splits off a claim on `items`, or on all that are left.
    pub fn split(&mut self, items: u64) -> Self {
        let open = items.min(self.open);
        self.open -= open;
        Self { account: Arc::clone(&self.account), open }
    }

    /// The destination took all but `refused`.
    pub fn exported(mut self, refused: u64) {
        let refused = refused.min(self.open);
        self.account.lose(Reason::Refused, refused);
        self.account.exported.fetch_add(self.open - refused, SeqCst);
        self.open = 0;
    }

    /// All of it is lost.
    pub fn dropped(mut self, reason: Reason) {
        self.account.lose(reason, std::mem::take(&mut self.open));
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.account.lose(Reason::Shutdown, self.open);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::{PointValue, Registry};

    #[test]
    fn every_reason_has_its_slot() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }

    #[test]
    fn a_claim_is_settled_once_whatever_happens_to_it() {
        let account = Arc::new(Account::default());
        let mut claim = Claim::new(&account, 10);
        claim.join(Claim::new(&account, 5));
        assert_eq!(account.tally(), Tally { produced: 15, queued: 15, ..Tally::default() });
        claim.split(4).exported(1);
        claim.split(2).dropped(Reason::QueueFull);
        let expected = Tally {
            produced: 15,
            exported: 3,
            dropped: vec![("queue_full", 2), ("refused", 1)],
            queued: 9,
            failures: 0,
        };
        assert_eq!(account.tally(), expected);
        drop(claim);
        let end = account.tally();
        assert_eq!((end.queued, end.lost(), end.dropped.last()), (0, 12, Some(&("shutdown", 9))));
    }

    #[test]
    fn the_accounts_become_metrics() {
        let ledger = Ledger::default();
        Claim::new(&ledger.otlp.traces, 3).exported(1);
        let registry = Registry::default();
        ledger.report(&registry.target(&Arc::default(), 0));
        let snapshot = registry.snapshot(1);
        let value = |name| snapshot.find(name).map(|p| p.value.clone()).collect::<Vec<_>>();
        assert_eq!(value("gpuspan.self.export.exported"), [PointValue::Int(2)]);
        assert_eq!(value("gpuspan.self.export.dropped"), [PointValue::Int(1)]);
    }
}
