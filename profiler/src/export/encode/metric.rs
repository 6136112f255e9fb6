//! A snapshot as OTLP metric requests. In: all targets' metrics. Out: messages with all resources, split only when one
//! would be too large. Absent: delta temporality, which Prometheus refuses.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar as ProtoExemplar, Gauge, Histogram, HistogramDataPoint,
    Metric as ProtoMetric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exemplar, metric::Data,
    number_data_point,
};
use prost::Message;

use super::{MOST_BYTES, attributes, resource, scope};
use crate::metric::{
    Distribution, Exemplar, Info, Kind, MetricPoints, Point, PointValue, Snapshot, TargetMetrics,
};

/// Requests with everything in `snapshot`, and how many points each has. Mostly one.
pub fn requests(snapshot: &Snapshot) -> Vec<(ExportMetricsServiceRequest, u64)> {
    let mut requests = Vec::new();
    let (mut open, mut bytes, mut points) = (Vec::new(), 0, 0);
    for target in &snapshot.targets {
        for (part, part_points) in parts(target, snapshot.time_ns) {
            let size = part.encoded_len();
            if bytes + size > MOST_BYTES && !open.is_empty() {
                requests.push((request(std::mem::take(&mut open)), std::mem::take(&mut points)));
                bytes = 0;
            }
            bytes += size;
            points += part_points;
            open.push(part);
        }
    }
    if !open.is_empty() {
        requests.push((request(open), points));
    }
    requests
}

fn request(resource_metrics: Vec<ResourceMetrics>) -> ExportMetricsServiceRequest {
    ExportMetricsServiceRequest { resource_metrics }
}

/// One target's metrics, in several parts if they are too large for one. A single metric is never too large: the
/// registry bounds its points.
fn parts(target: &TargetMetrics, time_ns: u64) -> Vec<(ResourceMetrics, u64)> {
    let mut parts = Vec::new();
    let (mut open, mut bytes, mut points) = (Vec::new(), 0, 0);
    for group in &target.metrics {
        let part = metric(group, target.start_ns, time_ns);
        let size = part.encoded_len();
        if bytes + size > MOST_BYTES && !open.is_empty() {
            parts.push((resource_metrics(target, std::mem::take(&mut open)), std::mem::take(&mut points)));
            bytes = 0;
        }
        bytes += size;
        points += group.points.len() as u64;
        open.push(part);
    }
    if !open.is_empty() {
        parts.push((resource_metrics(target, open), points));
    }
    parts
}

fn resource_metrics(target: &TargetMetrics, metrics: Vec<ProtoMetric>) -> ResourceMetrics {
    ResourceMetrics {
        resource: Some(resource(&target.resource)),
        scope_metrics: vec![ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() }],
        ..ResourceMetrics::default()
    }
}

fn metric(group: &MetricPoints, start_ns: u64, time_ns: u64) -> ProtoMetric {
    ProtoMetric {
        name: group.info.name.to_owned(),
        description: group.info.help.to_owned(),
        unit: group.info.unit.to_owned(),
        data: Some(data(group, start_ns, time_ns)),
        ..ProtoMetric::default()
    }
}

fn data(group: &MetricPoints, start_ns: u64, time_ns: u64) -> Data {
    let numbers = |start_ns| group.points.iter().map(|point| number(point, start_ns, time_ns)).collect();
    let aggregation_temporality = AggregationTemporality::Cumulative as i32;
    match group.info.kind {
        // A gauge has no beginning.
        Kind::Gauge => Data::Gauge(Gauge { data_points: numbers(0) }),
        Kind::Counter | Kind::Sum | Kind::UpDownCounter => Data::Sum(Sum {
            data_points: numbers(start_ns),
            aggregation_temporality,
            is_monotonic: group.info.kind != Kind::UpDownCounter,
        }),
        Kind::Histogram => {
            let point = |point| distribution(group.info, point, start_ns, time_ns);
            let data_points = group.points.iter().filter_map(point).collect();
            Data::Histogram(Histogram { data_points, aggregation_temporality })
        }
    }
}

fn number(point: &Point, start_ns: u64, time_ns: u64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(&point.attributes),
        start_time_unix_nano: start_ns,
        time_unix_nano: time_ns,
        value: match point.value {
            PointValue::Int(value) => Some(number_data_point::Value::AsInt(value)),
            PointValue::Double(value) => Some(number_data_point::Value::AsDouble(value)),
            PointValue::Distribution(_) => None,
        },
        ..NumberDataPoint::default()
    }
}

fn distribution(info: &Info, point: &Point, start_ns: u64, time_ns: u64) -> Option<HistogramDataPoint> {
    let PointValue::Distribution(Distribution { count, sum, min, max, buckets, exemplars }) = &point.value
    else {
        return None;
    };
    Some(HistogramDataPoint {
        attributes: attributes(&point.attributes),
        start_time_unix_nano: start_ns,
        time_unix_nano: time_ns,
        count: *count,
        sum: Some(*sum),
        bucket_counts: buckets.clone(),
        explicit_bounds: info.bounds.to_vec(),
        exemplars: exemplars.iter().map(exemplar).collect(),
        min: *min,
        max: *max,
        ..HistogramDataPoint::default()
    })
}

fn exemplar(exemplar: &Exemplar) -> ProtoExemplar {
    ProtoExemplar {
        time_unix_nano: exemplar.time_ns,
        trace_id: exemplar.trace_id.to_vec(),
        span_id: exemplar.span_id.to_vec(),
        value: Some(exemplar::Value::AsDouble(exemplar.value)),
        ..ProtoExemplar::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metric::Registry;
    use crate::metric::catalog::COPIED_BYTES;
    use crate::span::model::{Resource, Value};

    #[test]
    fn large_snapshots_are_split_without_losing_a_point() {
        let registry = Registry::default();
        for target in 0..20 {
            let resource = Resource { attributes: vec![("n".into(), Value::Int(target))] };
            let target = registry.target(&Arc::new(resource), 0);
            for n in 0..1000 {
                target.add(&COPIED_BYTES, &[("x", Value::Str(format!("{n:0>200}").into()))], 1);
            }
        }
        let snapshot = registry.snapshot(1);
        let requests = requests(&snapshot);
        assert!(requests.len() > 1);
        assert!(requests.iter().all(|(request, _)| request.encoded_len() <= MOST_BYTES));
        assert_eq!(requests.iter().map(|(_, points)| points).sum::<u64>(), 20_000);
        assert_eq!(snapshot.points(), 20_000);
    }
}
