//! Everything that the run emitted, against the catalogue: name, unit, kind, buckets, help and attributes.

use std::collections::BTreeSet;

use profiler::metric::catalog::attribute;
use profiler::metric::{Info, Kind, catalog};
use serde_json::Value;

/// What is wrong with the metrics of these requests.
pub fn complaints(requests: &[Value]) -> Vec<String> {
    let of = |value: &Value, list: &str| value[list].as_array().cloned().unwrap_or_default();
    let scopes = requests
        .iter()
        .flat_map(|request| of(request, "resourceMetrics"))
        .flat_map(|one| of(&one, "scopeMetrics"));
    let found: BTreeSet<String> =
        scopes.flat_map(|scope| of(&scope, "metrics")).flat_map(|metric| wrong(&metric)).collect();
    found.into_iter().collect()
}

fn wrong(metric: &Value) -> Vec<String> {
    let name = metric["name"].as_str().unwrap_or_default();
    let Some(info) = catalog::all().find(|info| info.name == name) else {
        return vec![format!("{name} is not in the catalogue")];
    };
    let mut wrong = Vec::new();
    for (field, told) in [("unit", info.unit), ("description", info.help)] {
        if metric[field] != told {
            wrong.push(format!("{name}: its {field} is {}", metric[field]));
        }
    }
    let (kind, points) = kind(metric);
    if kind != expected(info) {
        wrong.push(format!("{name}: is {kind:?}"));
    }
    for point in points {
        wrong.extend(wrong_point(info, point));
    }
    wrong
}

/// How OTLP says it, and the points. A whole number tells a counter from a sum.
fn kind(metric: &Value) -> (&'static str, &[Value]) {
    let points = |data: &'static str| metric[data]["dataPoints"].as_array().map_or(&[][..], Vec::as_slice);
    for (data, kind) in
        [("gauge", "gauge"), ("histogram", "histogram"), ("exponentialHistogram", "histogram")]
    {
        if metric.get(data).is_some() {
            return (kind, points(data));
        }
    }
    let grows = metric["sum"]["isMonotonic"] == true;
    let whole = points("sum").iter().all(|point| point.get("asInt").is_some());
    let kind = match (grows, whole) {
        (true, true) => "counter",
        (true, false) => "sum",
        (false, _) => "level",
    };
    (kind, points("sum"))
}

fn expected(info: &Info) -> &'static str {
    match info.kind {
        Kind::Counter => "counter",
        Kind::Sum => "sum",
        Kind::UpDownCounter => "level",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

fn wrong_point(info: &Info, point: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let attributes = point["attributes"].as_array().map_or(&[][..], Vec::as_slice);
    for key in attributes.iter().filter_map(|attribute| attribute["key"].as_str()) {
        if !info.attributes.contains(&key) && key != attribute::OTEL_METRIC_OVERFLOW {
            wrong.push(format!("{}: has the attribute {key}", info.name));
        }
    }
    if let Some(bounds) = point.get("explicitBounds").and_then(Value::as_array) {
        let bounds: Vec<_> = bounds.iter().filter_map(Value::as_f64).collect();
        if bounds != info.bounds {
            wrong.push(format!("{}: its bounds are {bounds:?}", info.name));
        }
    }
    wrong
}
