//! One metric's value for one attribute set. In: `add`, `record`, from any thread. Out: its part of a snapshot.
//! Absent: names and attribute sets, which the registry resolves once per handle.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::catalog::{Counter, Gauge, Histogram, Info, Sum, UpDownCounter};
use super::exponential::Exponential;
use super::snapshot::{Distribution, Exemplar, PointValue};
use crate::span::model::{SpanId, TraceId};

/// A metric with its attribute set already looked up: the cheap way to record.
#[derive(Debug)]
pub struct Handle<K: Instrument>(pub(super) Arc<K::Cell>);

impl<K: Instrument> Clone for Handle<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The span that a recorded value came from, and when: it becomes the bucket's exemplar.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Trace of the span.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// Unix time, nanoseconds.
    pub time_ns: u64,
}

impl Handle<Counter> {
    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Takes over a total that is counted elsewhere, such as in a kernel map. A smaller total than before is
    /// ignored: a counter never goes back.
    pub fn observe(&self, total: u64) {
        self.0.fetch_max(total, Relaxed);
    }
}

impl Handle<Sum> {
    /// Adds to it; less than nothing, or no number, is ignored.
    pub fn add(&self, more: f64) {
        if more.is_finite() && more >= 0.0 {
            let add = |bits| Some((f64::from_bits(bits) + more).to_bits());
            // The closure always has an answer.
            let _ = self.0.0.fetch_update(Relaxed, Relaxed, add);
        }
    }

    /// Takes over a total that is counted elsewhere; a smaller one than before, or no number, is ignored.
    pub fn observe(&self, total: f64) {
        // The bit patterns of non-negative doubles ascend with their values.
        if total.is_finite() && total >= 0.0 {
            self.0.0.fetch_max(total.to_bits(), Relaxed);
        }
    }
}

impl Handle<UpDownCounter> {
    /// Counts up or down.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Takes over a level that is known elsewhere.
    pub fn set(&self, level: i64) {
        self.0.store(level, Relaxed);
    }
}

impl Handle<Gauge> {
    /// The value of this moment.
    pub fn set(&self, value: f64) {
        self.0.0.store(value.to_bits(), Relaxed);
    }
}

impl Handle<Histogram> {
    /// Records a value; one that is no number is ignored, since it would spoil the sum for ever.
    pub fn record(&self, value: f64, context: Option<Context>) {
        if value.is_finite() {
            self.0.lock().record(value, context);
        }
    }
}

/// A kind of metric and where its values live.
pub trait Instrument: Sized {
    /// Where a value lives.
    type Cell: std::fmt::Debug;
    /// A fresh cell, for a histogram with exponential buckets besides its own if so asked.
    #[doc(hidden)]
    fn cell(info: &'static Info, exponential: bool) -> Self::Cell;
    /// The cell as the registry stores it.
    #[doc(hidden)]
    fn store(cell: Arc<Self::Cell>) -> Series;
    /// The reverse of `store`.
    #[doc(hidden)]
    fn load(series: &Series) -> Option<&Arc<Self::Cell>>;
}

/// Any cell.
#[derive(Debug)]
pub enum Series {
    /// Of a counter.
    Counter(Arc<AtomicU64>),
    /// Of a fractional counter.
    Sum(Arc<Double<0>>),
    /// Of an up-down counter.
    UpDownCounter(Arc<AtomicI64>),
    /// Of a gauge.
    Gauge(Arc<Double<{ UNSET }>>),
    /// Of a histogram.
    Histogram(Arc<Buckets>),
}

/// Bits of a quiet NaN: a gauge that nobody has set.
const UNSET: u64 = 0x7ff8_0000_0000_0000;

/// A double that starts with the given bits.
#[derive(Debug)]
pub struct Double<const START: u64>(AtomicU64);

/// For whom a value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// For the exporters, to whom each exemplar goes once.
    Export,
    /// For a scrape, of which there may be any number: each sees each bucket's newest exemplar.
    Scrape,
}

impl Series {
    /// The value now, or nothing for a gauge that was never set.
    pub(super) fn read(&self, reading: Reading) -> Option<PointValue> {
        match self {
            Self::Counter(cell) => {
                Some(PointValue::Int(i64::try_from(cell.load(Relaxed)).unwrap_or(i64::MAX)))
            }
            Self::UpDownCounter(cell) => Some(PointValue::Int(cell.load(Relaxed))),
            Self::Sum(cell) => Some(PointValue::Double(f64::from_bits(cell.0.load(Relaxed)))),
            Self::Gauge(cell) => {
                let value = f64::from_bits(cell.0.load(Relaxed));
                value.is_finite().then_some(PointValue::Double(value))
            }
            Self::Histogram(cell) => Some(PointValue::Distribution(cell.lock().read(reading))),
        }
    }
}

/// A histogram's cell.
#[derive(Debug)]
pub struct Buckets(Mutex<State>);

#[derive(Debug)]
struct State {
    bounds: &'static [f64],
    counts: Box<[u64]>,
    /// Few buckets have one.
    exemplars: Vec<Kept>,
    sum: f64,
    min: f64,
    max: f64,
    exponential: Option<Exponential>,
}

/// A bucket's newest exemplar.
#[derive(Clone, Copy, Debug)]
struct Kept {
    bucket: usize,
    exemplar: Exemplar,
    /// The exporters have not had it.
    is_fresh: bool,
}

impl Buckets {
    fn new(bounds: &'static [f64], exponential: bool) -> Self {
        Self(Mutex::new(State {
            bounds,
            counts: vec![0; bounds.len() + 1].into(),
            exemplars: Vec::new(),
            sum: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            exponential: exponential.then(Exponential::default),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic half-way, so a poisoned state is a whole one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn record(&mut self, value: f64, context: Option<Context>) {
        // A bound belongs to the bucket below it (OTLP: `(lower, upper]`).
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if let Some(exponential) = &mut self.exponential {
            exponential.record(value);
        }
        if let Some(Context { trace_id, span_id, time_ns }) = context {
            let exemplar = Exemplar { trace_id, span_id, value, time_ns };
            let newest = Kept { bucket, exemplar, is_fresh: true };
            let place = self.exemplars.partition_point(|kept| kept.bucket < bucket);
            match self.exemplars.get_mut(place).filter(|kept| kept.bucket == bucket) {
                Some(kept) => *kept = newest,
                None => self.exemplars.insert(place, newest),
            }
        }
    }

    fn read(&mut self, reading: Reading) -> Distribution {
        let count = self.counts.iter().sum();
        let exemplars = self.exemplars.iter_mut();
        let exemplars = exemplars.filter_map(|kept| match reading {
            Reading::Scrape => Some(kept.exemplar),
            Reading::Export => std::mem::take(&mut kept.is_fresh).then_some(kept.exemplar),
        });
        Distribution {
            count,
            sum: self.sum,
            min: (count > 0).then_some(self.min),
            max: (count > 0).then_some(self.max),
            buckets: self.counts.to_vec(),
            exemplars: exemplars.collect(),
            exponential: self.exponential.clone(),
        }
    }
}

macro_rules! instrument {
    ($kind:ident, $cell:ty, $info:pat, $exponential:pat => $new:expr) => {
        impl Instrument for $kind {
            type Cell = $cell;
            fn cell($info: &'static Info, $exponential: bool) -> Self::Cell {
                $new
            }
            fn store(cell: Arc<Self::Cell>) -> Series {
                Series::$kind(cell)
            }
            fn load(series: &Series) -> Option<&Arc<Self::Cell>> {
                if let Series::$kind(cell) = series { Some(cell) } else { None }
            }
        }
    };
}

instrument!(Counter, AtomicU64, _, _ => AtomicU64::new(0));
instrument!(UpDownCounter, AtomicI64, _, _ => AtomicI64::new(0));
instrument!(Sum, Double<0>, _, _ => Double(AtomicU64::new(0)));
instrument!(Gauge, Double<{ UNSET }>, _, _ => Double(AtomicU64::new(UNSET)));
instrument!(Histogram, Buckets, info, exponential => Buckets::new(info.bounds, exponential));

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram() -> Handle<Histogram> {
        Handle(Arc::new(Buckets::new(&[1.0, 2.0], false)))
    }

    fn read(handle: &Handle<Histogram>) -> Distribution {
        handle.0.lock().read(Reading::Export)
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        let handle = histogram();
        for value in [0.5, 1.0, 1.5, 2.0, 2.5] {
            handle.record(value, None);
        }
        let state = read(&handle);
        assert_eq!((state.buckets, state.count, state.sum), (vec![2, 2, 1], 5, 7.5));
        assert_eq!((state.min, state.max), (Some(0.5), Some(2.5)));
    }

    #[test]
    fn no_number_changes_nothing() {
        let handle = histogram();
        handle.record(f64::NAN, None);
        handle.record(f64::INFINITY, None);
        assert_eq!(read(&handle), Distribution { buckets: vec![0; 3], ..Distribution::default() });
    }

    #[test]
    fn each_bucket_gives_its_newest_exemplar_once_to_exporters_and_to_every_scrape() {
        let handle = histogram();
        let context = |n| Some(Context { trace_id: [n; 16], span_id: [n; 8], time_ns: u64::from(n) });
        handle.record(0.1, context(1));
        handle.record(0.2, context(2));
        handle.record(0.3, None);
        handle.record(9.0, context(3));
        let exemplars = |reading| -> Vec<_> {
            let exemplars = handle.0.lock().read(reading).exemplars;
            exemplars.iter().map(|e| (e.value, e.time_ns)).collect()
        };
        for _ in 0..2 {
            assert_eq!(exemplars(Reading::Scrape), [(0.2, 2), (9.0, 3)]);
        }
        assert_eq!(exemplars(Reading::Export), [(0.2, 2), (9.0, 3)]);
        assert_eq!(exemplars(Reading::Export), []);
        handle.record(0.4, context(4));
        assert_eq!(exemplars(Reading::Scrape), [(0.4, 4), (9.0, 3)]);
        assert_eq!(exemplars(Reading::Export), [(0.4, 4)]);
        assert_eq!(read(&handle).count, 5);
    }

    #[test]
    fn exponential_buckets_come_besides_the_explicit_ones() {
        let handle = Handle(Arc::new(Buckets::new(&[1.0, 2.0], true)));
        [0.5, 1.5, 0.0].into_iter().for_each(|value| handle.record(value, None));
        let state = read(&handle);
        let exponential = state.exponential.unwrap();
        assert_eq!(state.buckets, [2, 1, 0]);
        assert_eq!((exponential.zeros, exponential.positive.counts.iter().sum::<u64>()), (1, 2));
    }

    #[test]
    fn observed_totals_never_go_back() {
        let count = Handle::<Counter>(Arc::new(AtomicU64::new(0)));
        count.observe(7);
        count.observe(3);
        assert_eq!(count.0.load(Relaxed), 7);
        let sum = Handle::<Sum>(Arc::new(Double(AtomicU64::new(0))));
        for total in [0.5, 1.5, 0.25, f64::NAN, -4.0] {
            sum.observe(total);
        }
        assert_eq!(f64::from_bits(sum.0.0.load(Relaxed)), 1.5);
    }
}
