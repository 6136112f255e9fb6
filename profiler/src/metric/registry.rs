//! Aggregates metrics per target and attribute set. In: counts and measurements with their target. Out: snapshots.
//! Absent: a clock (times are arguments) and exporters.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indexmap::{Equivalent, IndexMap};

use super::catalog::attribute::{GPUSPAN_METRIC_NAME, OTEL_METRIC_OVERFLOW};
use super::catalog::{self, Counter, Histogram, Info, Metric, UpDownCounter};
use super::series::{Context, Handle, Instrument, Reading, Series};
use super::snapshot::{MetricPoints, Point, Snapshot, TargetMetrics};
use crate::span::model::{Attribute, Resource, Value};

/// Attribute sets per metric and target before the rest share one overflow point: the limit that OpenTelemetry's
/// SDK specification recommends. It bounds memory when a caller invents model names.
pub const POINTS_PER_METRIC: usize = 2000;

/// How long a scrape still sees a target that is gone: twice the longest interval between scrapes that is usual.
const LINGER_NS: u64 = 120_000_000_000;

/// Who will read, which says what must be kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Readers {
    /// Histograms are wanted with exponential buckets, too.
    pub exponential: bool,
    /// Scrapes come at times of their own, so that what is gone must be kept for them.
    pub scraped: bool,
}

/// All metrics of all targets. Shared by reference; every method may be called from any thread.
#[derive(Debug, Default)]
pub struct Registry {
    readers: Readers,
    targets: Mutex<Vec<Target>>,
}

impl Registry {
    /// For those readers.
    #[must_use]
    pub fn new(readers: Readers) -> Self {
        Self { readers, targets: Mutex::default() }
    }

    /// The metrics of `resource`, whose sums count from `now_ns` (Unix time) if it is new.
    pub fn target(&self, resource: &Arc<Resource>, now_ns: u64) -> Target {
        let mut targets = lock(&self.targets);
        let same = |target: &&Target| !target.0.retired.load(Relaxed) && target.is_of(resource);
        if let Some(target) = targets.iter().find(same) {
            return target.clone();
        }
        let target = Target::new(Arc::clone(resource), now_ns, self.readers.exponential);
        targets.push(target.clone());
        target
    }

    /// More is known of a resource now: its metrics go on under the new one.
    pub fn rename(&self, known: &Arc<Resource>, resource: &Arc<Resource>) {
        let targets = lock(&self.targets);
        let renamed: Vec<_> = targets.iter().filter(|target| target.is_of(known)).collect();
        if renamed.is_empty() {
            return;
        }
        // Whoever heard of the new one first has begun metrics under it: no two may have one name.
        targets.iter().filter(|target| target.is_of(resource)).for_each(Target::retire);
        for target in renamed {
            *lock(&target.0.resource) = Arc::clone(resource);
        }
    }

    /// What every metric says at `now_ns` (Unix time). Retired targets are in it for the last time. A histogram's
    /// exemplars are in one snapshot only, so there is one reader of snapshots, which feeds every exporter.
    pub fn snapshot(&self, now_ns: u64) -> Snapshot {
        let present: Vec<Target> = {
            let mut targets = lock(&self.targets);
            let present = targets.iter().filter(|target| target.left_ns().is_none()).cloned().collect();
            // What retires from here on stays for one more snapshot.
            targets
                .iter()
                .filter(|target| target.0.retired.load(Relaxed))
                .for_each(|target| target.leave(now_ns));
            targets.retain(|target| self.is_kept(target, now_ns));
            present
        };
        Snapshot::of(&present, Reading::Export, now_ns)
    }

    /// What every metric says at `now_ns` (Unix time), for a scrape: any number of readers see the same. Retired targets
    /// are in it for [`LINGER_NS`] after their last snapshot, unless their resource has come back.
    pub fn peek(&self, now_ns: u64) -> Snapshot {
        let targets = lock(&self.targets).clone();
        let kept = targets.iter().enumerate().filter(|(index, target)| {
            let newer = targets.get(index + 1..).unwrap_or_default();
            self.is_kept(target, now_ns) && !newer.iter().any(|other| other.is_of(&target.resource()))
        });
        let kept: Vec<Target> = kept.map(|(_, target)| target.clone()).collect();
        Snapshot::of(&kept, Reading::Scrape, now_ns)
    }

    fn is_kept(&self, target: &Target, now_ns: u64) -> bool {
        let lingers = |left_ns| self.readers.scraped && now_ns.saturating_sub(left_ns) < LINGER_NS;
        target.left_ns().is_none_or(lingers)
    }
}

impl Snapshot {
    fn of(targets: &[Target], reading: Reading, time_ns: u64) -> Self {
        let targets = targets.iter().map(|target| target.read(reading));
        Self { time_ns, targets: targets.filter(|target| !target.metrics.is_empty()).collect() }
    }
}

/// The metrics of one resource. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Target(Arc<State>);

#[derive(Debug)]
struct State {
    resource: Mutex<Arc<Resource>>,
    start_ns: u64,
    exponential: bool,
    retired: AtomicBool,
    /// When it was in a snapshot for the last time, Unix time, nanoseconds; 0 as long as there will be another.
    left_ns: AtomicU64,
    families: Mutex<Families>,
}

/// By name.
type Families = IndexMap<&'static str, Family>;

/// One metric's points.
#[derive(Debug)]
struct Family {
    info: &'static Info,
    exponential: bool,
    points: IndexMap<Attributes, Series>,
}

impl Target {
    fn new(resource: Arc<Resource>, start_ns: u64, exponential: bool) -> Self {
        Self(Arc::new(State {
            resource: Mutex::new(resource),
            start_ns,
            exponential,
            retired: AtomicBool::new(false),
            left_ns: AtomicU64::new(0),
            families: Mutex::default(),
        }))
    }

    /// Whose metrics these are.
    pub fn resource(&self) -> Arc<Resource> {
        Arc::clone(&lock(&self.0.resource))
    }

    fn is_of(&self, resource: &Arc<Resource>) -> bool {
        let own = lock(&self.0.resource);
        Arc::ptr_eq(&own, resource) || *own == *resource
    }

    /// The metric with these attributes, looked up once, for those who record often.
    pub fn handle<K: Instrument>(&self, metric: &'static Metric<K>, attributes: &[Attribute]) -> Handle<K> {
        let mut families = lock(&self.0.families);
        let (handle, overflowed) = self.family(&mut families, &metric.info).handle::<K>(attributes);
        if overflowed {
            let name = [(GPUSPAN_METRIC_NAME, Value::Str(metric.info.name.into()))];
            let overflows = self.family(&mut families, &catalog::SELF_METRIC_OVERFLOWS.info);
            overflows.handle::<Counter>(&name).0.add(1);
        }
        handle
    }

    /// Counts `n` more.
    pub fn add(&self, metric: &'static Metric<Counter>, attributes: &[Attribute], n: u64) {
        self.handle(metric, attributes).add(n);
    }

    /// Counts up or down.
    pub fn up_down(&self, metric: &'static Metric<UpDownCounter>, attributes: &[Attribute], n: i64) {
        self.handle(metric, attributes).add(n);
    }

    /// Records a value, with the span it came from.
    pub fn record(
        &self,
        metric: &'static Metric<Histogram>,
        attributes: &[Attribute],
        value: f64,
        context: Option<Context>,
    ) {
        self.handle(metric, attributes).record(value, context);
    }

    /// The target is gone: its metrics leave after the next snapshot, and scrapes see them a while longer.
    pub fn retire(&self) {
        self.0.retired.store(true, Relaxed);
    }

    fn leave(&self, now_ns: u64) {
        // A second snapshot does not prolong its stay.
        let _ = self.0.left_ns.compare_exchange(0, now_ns.max(1), Relaxed, Relaxed);
    }

    fn left_ns(&self) -> Option<u64> {
        Some(self.0.left_ns.load(Relaxed)).filter(|left_ns| *left_ns > 0)
    }

    fn family<'a>(&self, families: &'a mut Families, info: &'static Info) -> &'a mut Family {
        let exponential = self.0.exponential;
        families.entry(info.name).or_insert_with(|| Family { info, exponential, points: IndexMap::new() })
    }

    fn read(&self, reading: Reading) -> TargetMetrics {
        let families = lock(&self.0.families);
        let metrics = families.values().map(|family| family.read(reading));
        let metrics = metrics.filter(|metric| !metric.points.is_empty());
        TargetMetrics { resource: self.resource(), start_ns: self.0.start_ns, metrics: metrics.collect() }
    }
}

impl Family {
    /// The handle, and whether it is the overflow point's.
    fn handle<K: Instrument>(&mut self, attributes: &[Attribute]) -> (Handle<K>, bool) {
        if !attributes.is_sorted_by_key(|attribute| attribute.0) {
            let mut sorted = attributes.to_vec();
            sorted.sort_by_key(|attribute| attribute.0);
            return self.handle(&sorted);
        }
        if let Some(cell) = self.points.get(&Lookup(attributes)).and_then(K::load) {
            return (Handle(Arc::clone(cell)), false);
        }
        if self.points.len() < POINTS_PER_METRIC {
            return (self.insert::<K>(attributes), false);
        }
        let overflow = [(OTEL_METRIC_OVERFLOW, Value::Bool(true))];
        let known =
            self.points.get(&Lookup(&overflow)).and_then(K::load).map(|cell| Handle(Arc::clone(cell)));
        (known.unwrap_or_else(|| self.insert::<K>(&overflow)), true)
    }

    fn insert<K: Instrument>(&mut self, attributes: &[Attribute]) -> Handle<K> {
        let cell = Arc::new(K::cell(self.info, self.exponential));
        self.points.insert(Attributes(attributes.into()), K::store(Arc::clone(&cell)));
        Handle(cell)
    }

    fn read(&self, reading: Reading) -> MetricPoints {
        let points = self.points.iter().filter_map(|(attributes, series)| {
            Some(Point { attributes: Arc::clone(&attributes.0), value: series.read(reading)? })
        });
        MetricPoints { info: self.info, points: points.collect() }
    }
}

/// A sorted attribute set as a key.
#[derive(Debug)]
struct Attributes(Arc<[Attribute]>);

/// The same, borrowed, so that looking up a known set allocates nothing.
struct Lookup<'a>(&'a [Attribute]);

impl Hash for Attributes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Lookup(&self.0).hash(state);
    }
}

impl PartialEq for Attributes {
    fn eq(&self, other: &Self) -> bool {
        same(&self.0, &other.0)
    }
}

impl Eq for Attributes {}

impl Equivalent<Attributes> for Lookup<'_> {
    fn equivalent(&self, key: &Attributes) -> bool {
        same(self.0, &key.0)
    }
}

impl Hash for Lookup<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for (name, value) in self.0 {
            name.hash(state);
            match value {
                Value::Str(text) => text.hash(state),
                Value::Int(number) => number.hash(state),
                Value::Double(number) => number.to_bits().hash(state),
                Value::Bool(truth) => truth.hash(state),
                Value::Strs(texts) => texts.hash(state),
            }
        }
    }
}

/// Equality that holds for a NaN too, or its set would be inserted again and again.
fn same(left: &[Attribute], right: &[Attribute]) -> bool {
    let value = |left: &Value, right: &Value| match (left, right) {
        (Value::Double(left), Value::Double(right)) => left.to_bits() == right.to_bits(),
        _ => left == right,
    };
    left.len() == right.len() && left.iter().zip(right).all(|(l, r)| l.0 == r.0 && value(&l.1, &r.1))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can panic half-way, so a poisoned table is a whole one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::catalog::attribute::{CUDA_MEMCPY_KIND, HTTP_ROUTE};
    use super::super::snapshot::PointValue;
    use super::*;

    fn resource(name: &'static str) -> Arc<Resource> {
        Arc::new(Resource { attributes: vec![("service.name".into(), Value::Str(name.into()))] })
    }

    fn kind(name: &'static str) -> [Attribute; 1] {
        [(CUDA_MEMCPY_KIND, Value::Str(name.into()))]
    }

    fn ints(snapshot: &Snapshot, name: &str) -> Vec<i64> {
        let int = |point: &Point| if let PointValue::Int(n) = point.value { n } else { panic!("{point:?}") };
        snapshot.find(name).map(int).collect()
    }

    #[test]
    fn the_same_attributes_are_one_point_in_any_order() {
        let target = Registry::default().target(&resource("a"), 1);
        let route = (HTTP_ROUTE, Value::Str("/v1/models".into()));
        let nan = ("x", Value::Double(f64::NAN));
        target.add(&catalog::COPIED_BYTES, &[route.clone(), nan.clone()], 1);
        target.add(&catalog::COPIED_BYTES, &[nan, route], 2);
        assert_eq!(lock(&target.0.families)["gpuspan.memory.copied"].points.len(), 1);
    }

    #[test]
    fn metrics_go_on_under_another_name_and_nobody_else_has_it() {
        let registry = Registry::default();
        let target = registry.target(&resource("pid"), 1);
        target.add(&catalog::CUDA_SET_BYTES, &[], 1);
        // Somebody has heard of the new name already.
        registry.target(&resource("pod"), 1).add(&catalog::CUDA_SET_BYTES, &[], 7);
        registry.rename(&resource("pid"), &resource("pod"));
        // Said twice, by two processes of one name: nothing is left to rename.
        registry.rename(&resource("pid"), &resource("pod"));
        target.add(&catalog::CUDA_SET_BYTES, &[], 1);
        let once_more = registry.snapshot(2);
        assert_eq!(once_more.targets.len(), 2);
        assert!(once_more.targets.iter().all(|target| target.resource == resource("pod")));
        assert_eq!(ints(&registry.snapshot(3), catalog::CUDA_SET_BYTES.info.name), [2]);
        assert!(Arc::ptr_eq(&registry.target(&resource("pod"), 1).0, &target.0));
    }

    #[test]
    fn targets_are_kept_apart_and_keep_their_start() {
        let registry = Registry::default();
        registry.target(&resource("a"), 10).add(&catalog::COPIED_BYTES, &kind("HtoD"), 3);
        registry.target(&resource("b"), 20).add(&catalog::COPIED_BYTES, &kind("HtoD"), 4);
        registry.target(&resource("a"), 30).add(&catalog::COPIED_BYTES, &kind("HtoD"), 5);
        let snapshot = registry.snapshot(40);
        assert_eq!(snapshot.targets.iter().map(|t| t.start_ns).collect::<Vec<_>>(), [10, 20]);
        assert_eq!(ints(&snapshot, "gpuspan.memory.copied"), [8, 4]);
    }

    #[test]
    fn sums_stay_from_snapshot_to_snapshot() {
        let registry = Registry::default();
        let handle = registry.target(&resource("a"), 0).handle(&catalog::CUDA_KERNEL_LAUNCHES, &[]);
        handle.add(2);
        registry.snapshot(1);
        handle.add(3);
        assert_eq!(ints(&registry.snapshot(2), "gpu.cuda.kernel.launch.calls"), [5]);
    }

    #[test]
    fn a_retired_target_is_seen_once_more() {
        let registry = Registry::default();
        let target = registry.target(&resource("a"), 0);
        target.add(&catalog::COPIED_BYTES, &[], 1);
        target.retire();
        assert_eq!(registry.snapshot(1).points(), 1);
        assert_eq!(registry.snapshot(2).points(), 0);
        let reborn = registry.target(&resource("a"), 3);
        reborn.add(&catalog::COPIED_BYTES, &[], 1);
        assert_eq!(registry.snapshot(4).targets[0].start_ns, 3);
    }

    #[test]
    fn scrapes_see_a_retired_target_for_a_while_and_its_successor_instead() {
        let registry = Registry::new(Readers { scraped: true, ..Readers::default() });
        let target = registry.target(&resource("a"), 0);
        target.add(&catalog::COPIED_BYTES, &[], 1);
        target.retire();
        // However long there is no snapshot.
        assert_eq!(registry.peek(LINGER_NS * 2).points(), 1);
        let left = LINGER_NS * 3;
        assert_eq!([registry.snapshot(left), registry.snapshot(left + 1)].map(|s| s.points()), [1, 0]);
        assert_eq!(
            [left, left + LINGER_NS - 1, left + LINGER_NS].map(|now| registry.peek(now).points()),
            [1, 1, 0]
        );
        registry.target(&resource("a"), 3).add(&catalog::COPIED_BYTES, &[], 7);
        assert_eq!(ints(&registry.peek(left + 1), "gpuspan.memory.copied"), [7]);
        registry.snapshot(left + LINGER_NS);
        assert_eq!(lock(&registry.targets).len(), 1);
    }

    #[test]
    fn nobody_keeps_retired_targets_for_scrapes_that_never_come() {
        let registry = Registry::default();
        registry.target(&resource("a"), 0).retire();
        registry.snapshot(1);
        assert!(lock(&registry.targets).is_empty());
    }

    #[test]
    fn beyond_the_limit_one_point_takes_the_rest_and_it_is_counted() {
        let registry = Registry::default();
        let target = registry.target(&resource("a"), 0);
        for n in 0..POINTS_PER_METRIC as i64 + 7 {
            target.add(&catalog::COPIED_BYTES, &[("n", Value::Int(n))], 1);
        }
        target.add(&catalog::COPIED_BYTES, &[("n", Value::Int(0))], 1);
        let snapshot = registry.snapshot(1);
        let values = ints(&snapshot, "gpuspan.memory.copied");
        assert_eq!(values.len(), POINTS_PER_METRIC + 1);
        assert_eq!((values[0], values[POINTS_PER_METRIC]), (2, 7));
        let last = snapshot.find("gpuspan.memory.copied").last().unwrap();
        assert_eq!(*last.attributes, [(OTEL_METRIC_OVERFLOW, Value::Bool(true))]);
        assert_eq!(ints(&snapshot, "gpuspan.self.metric.overflows"), [7]);
    }

    #[test]
    fn a_gauge_is_absent_until_it_is_set() {
        let registry = Registry::default();
        let handle = registry.target(&resource("a"), 0).handle(&catalog::PROCESS_UPTIME, &[]);
        assert_eq!(registry.snapshot(1).points(), 0);
        handle.set(0.5);
        assert_eq!(
            registry.snapshot(2).find("process.uptime").next().unwrap().value,
            PointValue::Double(0.5)
        );
    }
}
