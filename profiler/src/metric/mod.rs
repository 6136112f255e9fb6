//! Metrics before any exporter has seen them. In: what was counted and measured, with the time as an argument.
//! Out: a `Snapshot`, plain data. Absent: clocks, I/O, and any protocol's types.

pub mod catalog;
mod kernels;
mod observe;
mod own;
mod registry;
mod series;
mod snapshot;

pub use catalog::{Counter, Gauge, Histogram, Info, Kind, Metric, Sum, UpDownCounter};
pub use kernels::{KernelLaunches, MOST_NAMES};
pub use observe::{Observer, request, time_per_output_token_s};
pub use own::own;
pub use registry::{POINTS_PER_METRIC, Registry, Target};
pub use series::{Context, Handle};
pub use snapshot::{Distribution, Exemplar, MetricPoints, Point, PointValue, Snapshot, TargetMetrics};
