//! A snapshot as OTLP metric requests. In: all targets' metrics. Out: messages with all resources, split only when one
//! would be too large. Absent: delta temporality, which Prometheus refuses.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar as ProtoExemplar, ExponentialHistogram, ExponentialHistogramDataPoint,
    Gauge, Histogram, HistogramDataPoint, Metric as ProtoMetric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, exemplar, exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
};
use prost::Message;

use super::{attributes, resource, scope};
use crate::metric::{
    Distribution, Exemplar, Exponential, Info, Kind, MetricPoints, Point, PointValue, Side, Snapshot,
    TargetMetrics,
};

/// Beyond this many bytes the next request begins. A node with hundreds of targets has megabytes, and ten times as much
/// while it is encoded.
const ENOUGH_BYTES: usize = 1 << 20;

/// Requests with everything in `snapshot`, and how many points each has. Mostly one. Each is made when it is asked for.
pub fn requests(snapshot: &Snapshot) -> impl Iterator<Item = (ExportMetricsServiceRequest, u64)> {
    let mut parts = snapshot.targets.iter().flat_map(|target| parts(target, snapshot.time_ns)).peekable();
    std::iter::from_fn(move || {
        let (first, mut points) = parts.next()?;
        let mut bytes = first.encoded_len();
        let mut resource_metrics = vec![first];
        while let Some((part, more)) = parts.next_if(|(part, _)| bytes + part.encoded_len() <= ENOUGH_BYTES) {
            bytes += part.encoded_len();
            points += more;
            resource_metrics.push(part);
        }
        Some((ExportMetricsServiceRequest { resource_metrics }, points))
    })
}

/// One target's metrics, in several parts if they are too large for one. A single metric is never too large: the
/// registry bounds its points.
fn parts(target: &TargetMetrics, time_ns: u64) -> Vec<(ResourceMetrics, u64)> {
    let mut parts = Vec::new();
    let (mut open, mut bytes, mut points) = (Vec::new(), 0, 0);
    for group in &target.metrics {
        let part = metric(group, target.start_ns, time_ns);
        let size = part.encoded_len();
        if bytes + size > ENOUGH_BYTES && !open.is_empty() {
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
            let points = group.points.iter();
            let exponential: Vec<_> =
                points.clone().filter_map(|p| exponential(p, start_ns, time_ns)).collect();
            // All points of a metric have exponential buckets, or none has.
            if !exponential.is_empty() {
                let data_points = exponential;
                return Data::ExponentialHistogram(ExponentialHistogram {
                    data_points,
                    aggregation_temporality,
                });
            }
            let data_points = points.filter_map(|p| distribution(group.info, p, start_ns, time_ns)).collect();
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
    let PointValue::Distribution(value) = &point.value else { return None };
    Some(HistogramDataPoint {
        attributes: attributes(&point.attributes),
        start_time_unix_nano: start_ns,
        time_unix_nano: time_ns,
        count: value.count,
        sum: Some(value.sum),
        bucket_counts: value.buckets.clone(),
        explicit_bounds: info.bounds.to_vec(),
        exemplars: value.exemplars.iter().map(exemplar).collect(),
        min: value.min,
        max: value.max,
        ..HistogramDataPoint::default()
    })
}

fn exponential(point: &Point, start_ns: u64, time_ns: u64) -> Option<ExponentialHistogramDataPoint> {
    let PointValue::Distribution(value) = &point.value else { return None };
    let Distribution { exponential: Some(Exponential { scale, zeros, positive, negative }), .. } = value
    else {
        return None;
    };
    let buckets =
        |side: &Side| Buckets { offset: side.offset, bucket_counts: side.counts.iter().copied().collect() };
    Some(ExponentialHistogramDataPoint {
        attributes: attributes(&point.attributes),
        start_time_unix_nano: start_ns,
        time_unix_nano: time_ns,
        count: value.count,
        sum: Some(value.sum),
        scale: *scale,
        zero_count: *zeros,
        positive: Some(buckets(positive)),
        negative: Some(buckets(negative)),
        exemplars: value.exemplars.iter().map(exemplar).collect(),
        min: value.min,
        max: value.max,
        ..ExponentialHistogramDataPoint::default()
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

    use super::super::MOST_BYTES;
    use super::*;
    use crate::metric::catalog::{COPIED_BYTES, GEN_AI_TIME_TO_FIRST_TOKEN};
    use crate::metric::{Context, Readers, Registry};
    use crate::span::model::{Resource, Value};

    #[test]
    fn histograms_go_out_with_exponential_buckets_where_that_is_asked_for() {
        let registry = Registry::new(Readers { exponential: true, ..Readers::default() });
        let target = registry.target(&Arc::new(Resource::default()), 5);
        for value in [0.0, 1.0, 4.0] {
            let context = Context { trace_id: [1; 16], span_id: [2; 8], time_ns: 7 };
            target.record(&GEN_AI_TIME_TO_FIRST_TOKEN, &[], value, Some(context));
        }
        let (request, _) = requests(&registry.snapshot(9)).next().unwrap();
        let metric = &request.resource_metrics[0].scope_metrics[0].metrics[0];
        let Some(Data::ExponentialHistogram(histogram)) = &metric.data else { panic!("{metric:?}") };
        assert_eq!(histogram.aggregation_temporality, AggregationTemporality::Cumulative as i32);
        let point = &histogram.data_points[0];
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano, point.zero_threshold), (5, 9, 0.0));
        assert_eq!((point.count, point.zero_count, point.sum), (3, 1, Some(5.0)));
        assert_eq!((point.min, point.max), (Some(0.0), Some(4.0)));
        // 1 and 4 are upper bounds, and 2 * 2^6 buckets apart; twice as many would be more than 160.
        let positive = point.positive.as_ref().unwrap();
        assert_eq!((point.scale, positive.offset, positive.bucket_counts.len()), (6, -1, 129));
        assert_eq!((positive.bucket_counts[0], positive.bucket_counts[128]), (1, 1));
        assert!(point.negative.as_ref().unwrap().bucket_counts.is_empty());
        assert_eq!(point.exemplars.len(), 3);
    }

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
        let requests: Vec<_> = requests(&snapshot).collect();
        assert!(requests.len() > 1);
        assert!(requests.iter().all(|(request, _)| request.encoded_len() <= MOST_BYTES));
        assert_eq!(requests.iter().map(|(_, points)| points).sum::<u64>(), 20_000);
        assert_eq!(snapshot.points(), 20_000);
    }
}
