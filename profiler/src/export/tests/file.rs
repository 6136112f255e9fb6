//! The file, field by field.

use serde_json::{Value as Json, json};

use super::*;

#[tokio::test]
async fn lines_are_otlp_json() {
    let path = temporary("lines.json", "old content");
    let settings = Settings { file: Some(path.clone()), ..settings() };
    let ledger = export(settings, vec![Batch::Spans(vec![span(1)]), Batch::Metrics(snapshot())]).await;
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line =
        |key: &str| lines.iter().find(|line| line.get(key).is_some()).unwrap_or_else(|| panic!("{text}"));
    check_spans(line("resourceSpans"));
    check_metrics(line("resourceMetrics"));
    assert_eq!((ledger.file.traces.tally().exported, ledger.file.metrics.tally().exported), (1, 2));
}

fn check_spans(line: &Json) {
    let name = json!({"key": "service.name", "value": {"stringValue": "vllm"}});
    assert_eq!(line["resourceSpans"][0]["resource"]["attributes"][0], name);
    let scope = &line["resourceSpans"][0]["scopeSpans"][0];
    assert_eq!(scope["scope"]["name"], "gpuspan");
    let span = &scope["spans"][0];
    for (key, value) in [
        ("traceId", json!("01010101010101010101010101010101")),
        ("spanId", json!("0101010101010101")),
        ("parentSpanId", json!("0909090909090909")),
        ("traceState", json!("a=b")),
        ("flags", json!(0x301)),
        ("kind", json!(2)),
        ("name", json!("POST /v1/completions")),
        ("startTimeUnixNano", json!("1700000000000000001")),
        ("endTimeUnixNano", json!("1700000001000000002")),
        ("droppedAttributesCount", json!(1)),
    ] {
        assert_eq!(span[key], value, "{key}");
    }
    let attributes = json!([
        {"key": "url.path", "value": {"stringValue": "/v1/completions"}},
        {"key": "server.port", "value": {"intValue": "8000"}},
        {"key": "gpuspan.time_to_first_token", "value": {"doubleValue": 0.25}},
        {"key": "gen_ai.request.stream", "value": {"boolValue": true}},
        {"key": "gen_ai.response.finish_reasons",
         "value": {"arrayValue": {"values": [{"stringValue": "stop"}]}}},
    ]);
    assert_eq!(span["attributes"], attributes);
    assert_eq!(span["events"][0]["timeUnixNano"], "1700000000250000000");
    assert_eq!(span["links"][0]["traceId"], "07".repeat(16));
    assert_eq!((&span["status"]["code"], &span["status"]["message"]), (&json!(2), &json!("500")));
}

fn check_metrics(line: &Json) {
    let metrics = &line["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
    assert_eq!(metrics[0]["name"], "gpu.cuda.kernel.launch.calls");
    assert_eq!(metrics[0]["sum"]["isMonotonic"], true);
    assert_eq!(metrics[0]["sum"]["aggregationTemporality"], 2);
    assert_eq!(metrics[0]["sum"]["dataPoints"][0]["asInt"], "42");
    let histogram = &metrics[1];
    assert_eq!(histogram["unit"], "s");
    let point = &histogram["histogram"]["dataPoints"][0];
    assert_eq!(point["count"], "1");
    assert_eq!(point["bucketCounts"][8], "1");
    assert_eq!(point["explicitBounds"][8], 0.25);
    assert_eq!(point["timeUnixNano"], "1700000060000000000");
    let exemplar = &point["exemplars"][0];
    assert_eq!(exemplar["traceId"], "01".repeat(16));
    assert_eq!((&exemplar["spanId"], &exemplar["asDouble"]), (&json!("02".repeat(8)), &json!(0.25)));
}
