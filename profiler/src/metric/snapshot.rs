//! What every metric said at one moment. Plain data: exporters read it, tests compare it. Absent: a protocol's types.

use std::sync::Arc;

use super::catalog::Info;
use super::exponential::Exponential;
use crate::span::model::{Attribute, Resource, SpanId, TraceId};

/// All metrics of all targets at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Unix time, nanoseconds.
    pub time_ns: u64,
    /// One per observed process, and one for gpuspan itself.
    pub targets: Vec<TargetMetrics>,
}

/// The metrics of one target.
#[derive(Clone, Debug)]
pub struct TargetMetrics {
    /// Whose they are.
    pub resource: Arc<Resource>,
    /// Since when its sums count, Unix time, nanoseconds.
    pub start_ns: u64,
    /// In the order in which they were first recorded.
    pub metrics: Vec<MetricPoints>,
}

/// One metric's points.
#[derive(Clone, Debug)]
pub struct MetricPoints {
    /// Name, unit, kind and bounds.
    pub info: &'static Info,
    /// One per attribute set.
    pub points: Vec<Point>,
}

/// One metric's value for one attribute set.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Sorted by name.
    pub attributes: Arc<[Attribute]>,
    /// The value.
    pub value: PointValue,
}

/// A value; which it is follows from the metric's kind.
#[derive(Clone, Debug, PartialEq)]
pub enum PointValue {
    /// Of counters and up-down counters.
    Int(i64),
    /// Of fractional counters and gauges.
    Double(f64),
    /// Of histograms.
    Distribution(Distribution),
}

/// A histogram's state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// Values recorded.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The smallest, if there is one.
    pub min: Option<f64>,
    /// The largest, if there is one.
    pub max: Option<f64>,
    /// Values per bucket, one more than the bounds.
    pub buckets: Vec<u64>,
    /// At most one per bucket: for exporters those of the time since the last snapshot, for scrapes the newest.
    pub exemplars: Vec<Exemplar>,
    /// The same values in exponential buckets, where that was asked for.
    pub exponential: Option<Exponential>,
}

/// One recorded value and the span it came from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// Trace of the span.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// The value.
    pub value: f64,
    /// When it was recorded, Unix time, nanoseconds.
    pub time_ns: u64,
}

impl Snapshot {
    /// Points in all metrics: what a loss of this snapshot would lose.
    pub fn points(&self) -> u64 {
        let metrics = self.targets.iter().flat_map(|target| &target.metrics);
        metrics.map(|metric| metric.points.len() as u64).sum()
    }

    /// The points of the metric `name` over all targets.
    pub fn find<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Point> {
        let metrics = self.targets.iter().flat_map(|target| &target.metrics);
        metrics.filter(move |metric| metric.info.name == name).flat_map(|metric| &metric.points)
    }
}
