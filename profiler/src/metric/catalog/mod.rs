//! The single source of metric, span and attribute names, with units, kinds, bucket bounds and help.
//! Out: constants for whoever records, and the reference page `docs/metrics.md`. Absent: values.

pub mod attribute;
pub mod compat;
mod cuda;
mod device;
mod engine;
mod markdown;
mod own;
mod process;
mod request;

use std::marker::PhantomData;

pub use cuda::*;
pub use device::*;
pub use engine::*;
pub use markdown::markdown;
pub use own::*;
pub use process::*;
pub use request::*;

/// Metrics as a table: a typed constant each, and `ALL` with those of the file in its order.
macro_rules! metrics {
    ($($id:ident: $kind:ident {
        name: $name:literal, unit: $unit:literal, origin: $origin:ident, stability: $stability:ident,
        bounds: $bounds:expr, attributes: $attributes:expr, help: $help:literal,
    })*) => {
        $(#[doc = $help] pub static $id: Metric<$kind> = Metric::new(Info {
            name: $name, unit: $unit, kind: Kind::$kind, bounds: $bounds, origin: Origin::$origin,
            stability: Stability::$stability, attributes: $attributes, help: $help,
        });)*
        pub(super) static ALL: &[&Info] = &[$(&$id.info),*];
    };
}
use metrics;

/// Every metric, in the order of the files.
pub fn all() -> impl Iterator<Item = &'static Info> {
    [request::ALL, engine::ALL, cuda::ALL, device::ALL, process::ALL, own::ALL, compat::ALL]
        .into_iter()
        .flatten()
        .copied()
}

/// How a metric's values add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, in whole numbers.
    Counter,
    /// Only grows, with a fraction.
    Sum,
    /// Grows and shrinks.
    UpDownCounter,
    /// The value of this moment.
    Gauge,
    /// Counts per range of values.
    Histogram,
}

/// Where a name comes from; a name of others is used exactly as they define it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// OpenTelemetry semantic conventions, HTTP (v1.44).
    Http,
    /// OpenTelemetry semantic conventions, generative AI (v1.41).
    GenAi,
    /// OpenTelemetry eBPF Instrumentation, which counts CUDA calls too.
    Obi,
    /// OpenTelemetry semantic conventions, hardware (v1.44).
    Hardware,
    /// OpenTelemetry semantic conventions, processes (v1.44).
    Process,
    /// Ours: no convention has it.
    Gpuspan,
    /// Hugging Face transformers 4.57, whose dashboards people have (`--compat transformers`).
    Transformers,
}

/// How far a name can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// Will not change.
    Stable,
    /// Follows its convention, which may still change.
    Development,
}

/// Everything that is fixed about a metric.
#[derive(Debug)]
pub struct Info {
    /// Name, as exported.
    pub name: &'static str,
    /// Unit in UCUM.
    pub unit: &'static str,
    /// How its values add up.
    pub kind: Kind,
    /// Upper bounds of a histogram's buckets, in its unit, ascending; the last bucket is open.
    pub bounds: &'static [f64],
    /// Where the name comes from.
    pub origin: Origin,
    /// How far it can be relied on.
    pub stability: Stability,
    /// Attributes its points may carry.
    pub attributes: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

/// A metric whose kind the compiler knows, so that nobody adds to a histogram.
#[derive(Debug)]
pub struct Metric<K> {
    /// What is fixed about it.
    pub info: Info,
    kind: PhantomData<K>,
}

impl<K> Metric<K> {
    const fn new(info: Info) -> Self {
        Self { info, kind: PhantomData }
    }
}

/// Marks `Kind::Counter`.
#[derive(Debug)]
pub struct Counter;
/// Marks `Kind::Sum`.
#[derive(Debug)]
pub struct Sum;
/// Marks `Kind::UpDownCounter`.
#[derive(Debug)]
pub struct UpDownCounter;
/// Marks `Kind::Gauge`.
#[derive(Debug)]
pub struct Gauge;
/// Marks `Kind::Histogram`.
#[derive(Debug)]
pub struct Histogram;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_well_formed() {
        let mut seen = HashSet::new();
        for info in all() {
            assert!(seen.insert(info.name), "{} stands twice", info.name);
            let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '_';
            assert!(info.name.chars().all(ok), "{} has a character that OpenTelemetry forbids", info.name);
            assert!(info.help.ends_with('.'), "the help of {} is a sentence", info.name);
        }
    }

    #[test]
    fn only_histograms_have_bounds_and_they_ascend() {
        for info in all() {
            assert_eq!(info.kind == Kind::Histogram, !info.bounds.is_empty(), "{}", info.name);
            assert!(info.bounds.windows(2).all(|pair| pair[0] < pair[1]), "{}", info.name);
        }
    }

    #[test]
    fn every_attribute_of_a_metric_is_catalogued() {
        let known: HashSet<_> = attribute::ALL.iter().map(|a| a.name).collect();
        assert_eq!(known.len(), attribute::ALL.len(), "an attribute stands twice");
        for info in all() {
            for name in info.attributes {
                assert!(known.contains(name), "{} of {} is not in attribute.rs", name, info.name);
            }
        }
    }
}
