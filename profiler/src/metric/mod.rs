//! Metrics before any exporter has seen them. In: what was counted and measured, with the time as an argument.
//! Out: a `Snapshot`, plain data. Absent: clocks, I/O, and any protocol's types.

pub mod catalog;
mod compat;
mod device;
mod exponential;
mod gpu;
mod inside;
mod iteration;
mod kernels;
mod load;
mod observe;
mod own;
mod process;
mod registry;
mod request;
mod series;
mod snapshot;
#[cfg(test)]
mod tests;
mod traces;

pub use catalog::{Counter, Gauge, Histogram, Info, Kind, Metric, Sum, UpDownCounter};
pub use compat::Compat;
pub use device::Devices;
pub use exponential::{Exponential, Side};
pub use gpu::idle;
pub use iteration::Iterations;
pub use kernels::{KernelLaunches, MOST_NAMES};
pub use load::Load;
pub use observe::Observer;
pub use own::{agent, own};
pub use process::process;
pub use registry::{POINTS_PER_METRIC, Readers, Registry, Target};
pub use request::{request, time_per_output_token_s};
pub use series::{Context, Handle};
pub use snapshot::{Distribution, Exemplar, MetricPoints, Point, PointValue, Snapshot, TargetMetrics};
pub use traces::traces;

/// Nanoseconds as seconds.
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// A count as a level.
fn level(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
