//! What the documents say: a golden one in each format, and that they agree with OTLP point for point.

use std::collections::BTreeMap;
use std::path::Path;

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data, number_data_point};

use super::super::accept::Format;
use super::super::text::document;
use super::*;
use crate::export::encode::metric::requests;
use crate::metric::POINTS_PER_METRIC;
use crate::metric::catalog::COPIED_BYTES;

/// Compares with a file beside this one, which `GPUSPAN_GOLDEN=1` renews.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/export/scrape/tests").join(name);
    if std::env::var_os("GPUSPAN_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    for (line, (found, expected)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "line {} of {}", line + 1, path.display());
    }
    assert_eq!(text, expected, "{}", path.display());
}

#[test]
fn open_metrics() {
    golden("open_metrics.txt", &document(&registry(Readers::default()).peek(1), Format::OpenMetrics));
}

#[test]
fn classic() {
    golden("classic.txt", &document(&registry(Readers::default()).peek(1), Format::Classic));
}

#[test]
fn nothing_is_a_document_too() {
    let snapshot = Registry::default().peek(1);
    assert_eq!(document(&snapshot, Format::OpenMetrics), "# EOF\n");
    assert_eq!(document(&snapshot, Format::Classic), "");
}

#[test]
fn processes_of_one_identity_are_one_series() {
    let registry = Registry::default();
    for pid in [1, 2] {
        let mut resource = resource("vllm", "pod-1").as_ref().clone();
        resource.attributes.push(("x.pid".into(), Value::Int(pid)));
        let target = registry.target(&Arc::new(resource), START_NS + pid.unsigned_abs());
        target.add(&CUDA_KERNEL_LAUNCHES, &[], 5);
        target.handle(&ENGINE_KV_USAGE, &[]).set(pid as f64 / 10.0);
        first_token(&target, 0.002, pid as u8);
    }
    let text = document(&registry.peek(1), Format::OpenMetrics);
    let only = |name: &str| {
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(name)).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].to_owned()
    };
    assert!(only("gpu_cuda_kernel_launch_calls_total").ends_with(" 10"));
    assert!(only("gpu_cuda_kernel_launch_calls_created").ends_with(" 1700000000.500"));
    assert!(only("gpuspan_engine_kv_cache_usage").ends_with(" 0.2"));
    assert!(only("gen_ai_server_time_to_first_token_seconds_count").ends_with(" 2"));
    let bucket = text.lines().find(|line| line.contains("trace_id")).unwrap();
    assert!(bucket.contains(" 2 # {trace_id=\"0202"), "{bucket}");
    // Each process still says who it is.
    assert_eq!(text.matches("\ntarget_info{").count(), 2);
}

/// Every series of a document by what stands before its value, exemplars and start times left out.
fn scraped(text: &str) -> BTreeMap<String, f64> {
    let mut series = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let sample = line.split(" # {").next().unwrap();
        let (name, value) = sample.rsplit_once(' ').unwrap();
        if name.contains("_created") || name.starts_with("target_info") {
            continue;
        }
        let value = value.parse().unwrap();
        assert_eq!(series.insert(name.to_owned(), value), None, "{name} stands twice");
    }
    series
}

/// The same from OTLP, put together by hand with Prometheus' names.
fn exported(registry: &Registry) -> BTreeMap<String, f64> {
    let names = BTreeMap::from([
        ("gpu.cuda.kernel.launch.calls", "gpu_cuda_kernel_launch_calls_total"),
        ("process.cpu.time", "process_cpu_time_seconds_total"),
        ("gpuspan.engine.kv_cache.usage", "gpuspan_engine_kv_cache_usage_ratio"),
        ("gen_ai.server.time_to_first_token", "gen_ai_server_time_to_first_token_seconds"),
        ("gpuspan.self.probes", "gpuspan_self_probes"),
        ("gpuspan.self.cpu.time", "gpuspan_self_cpu_time_seconds_total"),
        ("gpuspan.self.records.lost", "gpuspan_self_records_lost_total"),
        ("gpuspan.self.metric.overflows", "gpuspan_self_metric_overflows_total"),
        ("gpuspan.memory.copied", "gpuspan_memory_copied_bytes_total"),
    ]);
    let mut series = BTreeMap::new();
    for (request, _) in requests(&registry.snapshot(START_NS)) {
        for of_resource in request.resource_metrics {
            let attributes = of_resource.resource.unwrap().attributes;
            let find = |key: &str| {
                let found = attributes.iter().find(|pair| pair.key == key)?;
                match found.value.clone()?.value? {
                    Any::StringValue(text) => Some(text),
                    other => panic!("{other:?}"),
                }
            };
            let mut identity = Vec::new();
            if let Some(instance) = find("service.instance.id") {
                identity.push(("instance".to_owned(), instance.clone()));
                identity.push(("service_instance_id".to_owned(), instance));
            }
            let service = find("service.name").unwrap();
            let namespace = find("service.namespace").map_or_else(String::new, |name| name + "/");
            identity.push(("job".to_owned(), namespace + &service));
            identity.push(("service_name".to_owned(), service));
            for metric in of_resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                points(names[metric.name.as_str()], &identity, metric, &mut series);
            }
        }
    }
    series
}

fn points(name: &str, identity: &[(String, String)], metric: Metric, series: &mut BTreeMap<String, f64>) {
    let mut add =
        |suffix: &str, attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], le, value| {
            let mut labels = identity.to_vec();
            for pair in attributes {
                let value = match pair.value.clone().unwrap().value.unwrap() {
                    Any::StringValue(text) => text,
                    Any::IntValue(number) => number.to_string(),
                    Any::BoolValue(truth) => truth.to_string(),
                    other => panic!("{other:?}"),
                };
                labels.push((pair.key.replace('.', "_"), value));
            }
            labels.sort();
            labels.extend(Option::<String>::map(le, |le| ("le".to_owned(), le)));
            // Rust escapes these values as Prometheus does.
            let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
            let former = series.insert(format!("{name}{suffix}{{{}}}", labels.join(",")), value);
            assert_eq!(former, None, "{name}{labels:?}");
        };
    match metric.data.unwrap() {
        Data::Gauge(opentelemetry_proto::tonic::metrics::v1::Gauge { data_points })
        | Data::Sum(opentelemetry_proto::tonic::metrics::v1::Sum { data_points, .. }) => {
            for point in data_points {
                let value = match point.value.unwrap() {
                    number_data_point::Value::AsInt(number) => number as f64,
                    number_data_point::Value::AsDouble(number) => number,
                };
                add("", &point.attributes, None, value);
            }
        }
        Data::Histogram(histogram) => {
            for point in histogram.data_points {
                let mut below = 0;
                let bounds = point.explicit_bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
                for (bound, count) in bounds.zip(&point.bucket_counts) {
                    below += count;
                    add("_bucket", &point.attributes, Some(bound), below as f64);
                }
                add("_count", &point.attributes, None, point.count as f64);
                add("_sum", &point.attributes, None, point.sum.unwrap());
            }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_scrape_agrees_with_otlp_point_for_point() {
    let registry = registry(Readers::default());
    let target = registry.target(&resource("vllm", "h.1"), START_NS);
    for n in 0..POINTS_PER_METRIC as i64 + 7 {
        target.add(&COPIED_BYTES, &[("n", Value::Int(n))], 3);
    }
    let scraped = scraped(&document(&registry.peek(1), Format::Classic));
    let exported = exported(&registry);
    assert!(scraped.len() > POINTS_PER_METRIC + 40);
    for (series, value) in &exported {
        assert_eq!(scraped.get(series), Some(value), "{series}");
    }
    assert_eq!(scraped.len(), exported.len());
    let overflow = concat!(
        r#"gpuspan_memory_copied_bytes_total{instance="h.1",job="prod/vllm",otel_metric_overflow="true","#,
        r#"service_instance_id="h.1",service_name="vllm"}"#
    );
    assert_eq!(scraped[overflow], 21.0);
}

#[test]
fn scrapes_have_explicit_buckets_also_where_otlp_has_exponential_ones() {
    let both = registry(Readers { exponential: true, scraped: true });
    let text = |registry: &Registry| document(&registry.peek(1), Format::OpenMetrics);
    assert_eq!(text(&both), text(&registry(Readers::default())));
    let (request, _) = requests(&both.snapshot(2)).next().unwrap();
    let metrics = request.resource_metrics.into_iter().flat_map(|r| r.scope_metrics).flat_map(|s| s.metrics);
    assert_eq!(
        metrics.filter(|metric| matches!(metric.data, Some(Data::ExponentialHistogram(_)))).count(),
        2
    );
}
