//! Metrics of an OTLP/JSON lines file, as they were told last.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// All points of the last snapshot.
#[derive(Clone, Debug, Default)]
pub struct Metrics(pub Vec<Point>);

/// A metric's value for one attribute set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    /// Name of the metric.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// By name; numbers as text.
    pub attributes: BTreeMap<String, String>,
    /// Of the process, likewise.
    pub resource: BTreeMap<String, String>,
    /// The value; of a histogram its sum.
    pub value: f64,
    /// Values of a histogram.
    pub count: u64,
    /// Upper bounds of its buckets but the last.
    pub bounds: Vec<f64>,
    /// Values in each bucket.
    pub buckets: Vec<u64>,
    /// Traces of its exemplars.
    pub traces: Vec<String>,
}

impl Metrics {
    /// The snapshot with the newest time.
    ///
    /// # Errors
    /// When a line is no JSON, or not as OTLP has it, or there is no metric.
    pub fn last(otlp: &str) -> Result<Self> {
        Self::all(otlp)?.pop().context("no metrics were told")
    }

    /// All snapshots, in the order of their times.
    ///
    /// # Errors
    /// When a line is no JSON, or not as OTLP has it.
    pub fn all(otlp: &str) -> Result<Vec<Self>> {
        let mut all: BTreeMap<u64, Vec<Point>> = BTreeMap::new();
        for line in otlp.lines().filter(|line| line.contains("resourceMetrics")) {
            let line: Value = serde_json::from_str(line)?;
            for metrics in items(&line, "resourceMetrics") {
                let resource = attributes(metrics.get("resource").unwrap_or(&Value::Null));
                for metric in items(metrics, "scopeMetrics").flat_map(|scope| items(scope, "metrics")) {
                    for (time_ns, point) in points(metric)? {
                        let of_then = all.entry(time_ns).or_default();
                        of_then.push(Point { resource: resource.clone(), ..point });
                    }
                }
            }
        }
        Ok(all.into_values().map(Self).collect())
    }

    /// The points of a metric whose attributes have these values.
    pub fn of<'a>(&'a self, name: &'a str, having: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Point> {
        let has = |point: &&Point| {
            having.iter().all(|(name, value)| point.attributes.get(*name).is_some_and(|of| of == value))
        };
        self.0.iter().filter(move |point| point.name == name).filter(has)
    }

    /// The sum of their values.
    #[must_use]
    pub fn sum(&self, name: &str, having: &[(&str, &str)]) -> f64 {
        self.of(name, having).map(|point| point.value).sum()
    }

    /// How many values their histograms have.
    #[must_use]
    pub fn count(&self, name: &str, having: &[(&str, &str)]) -> u64 {
        self.of(name, having).map(|point| point.count).sum()
    }

    /// Asserts that a histogram has these values of requests that did not fail, each at most `tolerance` off.
    ///
    /// # Errors
    /// Says at which bound it has not.
    pub fn has_values(&self, name: &str, values: &[f64], tolerance: f64) -> Result<()> {
        let points = || self.of(name, &[]).filter(|point| !point.attributes.contains_key("error.type"));
        let count = points().map(|point| point.count).sum::<u64>();
        ensure!(count == values.len() as u64, "{name} has {count} values and not {}", values.len());
        let Some(first) = points().next() else { return Ok(()) };
        for (index, bound) in first.bounds.iter().enumerate() {
            let upto = |point: &Point| point.buckets.iter().take(index + 1).sum::<u64>();
            let ours: u64 = points().map(upto).sum();
            let theirs = |bound: f64| values.iter().filter(|value| **value <= bound).count() as u64;
            let (least, most) = (theirs(bound - tolerance), theirs(bound + tolerance));
            ensure!(
                (least..=most).contains(&ours),
                "{name} has {ours} values up to {bound} and not {least} to {most} of {values:?}"
            );
        }
        Ok(())
    }
}

fn items<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn points(metric: &Value) -> Result<Vec<(u64, Point)>> {
    let text = |name: &str| metric.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let kinds = ["sum", "gauge", "histogram", "exponentialHistogram"];
    let data = kinds.iter().find_map(|kind| metric.get(*kind)).context("a metric of no kind")?;
    let of = |point: &Value| {
        let number = |name: &str| point.get(name).and_then(number);
        let list = |name: &str| items(point, name).filter_map(self::number).collect::<Vec<f64>>();
        let time_ns = point.get("timeUnixNano").and_then(Value::as_str).context("a point without a time")?;
        let point = Point {
            name: text("name"),
            unit: text("unit"),
            attributes: attributes(point),
            resource: BTreeMap::new(),
            value: number("asInt").or(number("asDouble")).or(number("sum")).unwrap_or_default(),
            count: number("count").unwrap_or_default() as u64,
            bounds: list("explicitBounds"),
            buckets: list("bucketCounts").into_iter().map(|count| count as u64).collect(),
            traces: items(point, "exemplars").filter_map(trace).collect(),
        };
        Ok((time_ns.parse()?, point))
    };
    items(data, "dataPoints").map(of).collect()
}

fn trace(exemplar: &Value) -> Option<String> {
    Some(exemplar.get("traceId")?.as_str()?.to_owned())
}

/// OTLP/JSON writes 64 bits as text.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

fn attributes(of: &Value) -> BTreeMap<String, String> {
    let pair = |attribute: &Value| {
        let value = attribute.get("value")?.as_object()?.values().next()?;
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some((attribute.get("key")?.as_str()?.to_owned(), value))
    };
    items(of, "attributes").filter_map(pair).collect()
}
