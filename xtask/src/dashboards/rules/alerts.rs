//! Alerts on requests and on gpuspan itself. The thresholds of the first ones are those that the monitoring of
//! transformers' continuous batching recommended; they are defaults to be changed, not truths.

use super::super::series::{Series, sum};
use super::{Alert, Group, Rule};
use profiler::metric::{Info, catalog};

const EACH: &str = "service_name, service_instance_id";

fn over(info: &Info) -> Series {
    Series::over("5m", info)
}

pub fn requests() -> Group {
    Group {
        name: "gpuspan-requests",
        help: "Requests and engines. The numbers are defaults: a chat that must feel alive and a nightly batch differ.",
        rules: times().into_iter().chain(levels()).chain(service()).map(Rule::Alert).collect(),
    }
}

fn times() -> [Alert; 2] {
    let by = "service_name, gen_ai_request_model";
    [
        Alert {
            name: "TimeToFirstTokenHigh",
            value: over(&catalog::GEN_AI_TIME_TO_FIRST_TOKEN.info).quantile(0.95, by),
            condition: "> 0.5",
            wait: "5m",
            severity: "warning",
            summary: "{{ $labels.gen_ai_request_model }} on {{ $labels.service_name }}: first tokens take {{ $value | humanizeDuration }} (p95)",
            help: "Look at gpuspan / Requests, Why: long queues need more replicas, long prefills shorter prompts or chunks, blocked_by_prefill smaller chunks.",
            example: vec![
                (
                    r#"gen_ai_server_time_to_first_token_seconds_bucket{service_name="s",gen_ai_request_model="m",le="0.25"}"#,
                    "0+1x60",
                ),
                (
                    r#"gen_ai_server_time_to_first_token_seconds_bucket{service_name="s",gen_ai_request_model="m",le="1"}"#,
                    "0+9x60",
                ),
                (
                    r#"gen_ai_server_time_to_first_token_seconds_bucket{service_name="s",gen_ai_request_model="m",le="+Inf"}"#,
                    "0+9x60",
                ),
            ],
        },
        Alert {
            name: "RequestLatencyHigh",
            value: over(&catalog::GEN_AI_REQUEST_DURATION.info).quantile(0.95, by),
            condition: "> 2",
            wait: "5m",
            severity: "warning",
            summary: "{{ $labels.gen_ai_request_model }} on {{ $labels.service_name }}: requests take {{ $value | humanizeDuration }} (p95)",
            help: "Long answers take long: set the threshold by what callers ask for. gpuspan / Requests, Why, shows which part grows.",
            example: vec![
                (
                    r#"gen_ai_server_request_duration_seconds_bucket{service_name="s",gen_ai_request_model="m",le="1.28"}"#,
                    "0+1x60",
                ),
                (
                    r#"gen_ai_server_request_duration_seconds_bucket{service_name="s",gen_ai_request_model="m",le="5.12"}"#,
                    "0+9x60",
                ),
                (
                    r#"gen_ai_server_request_duration_seconds_bucket{service_name="s",gen_ai_request_model="m",le="+Inf"}"#,
                    "0+9x60",
                ),
            ],
        },
    ]
}

fn levels() -> [Alert; 5] {
    let ratio = Series::all(&catalog::ENGINE_RATIO.info).now();
    let used = Series::all(&catalog::ENGINE_KV_MEMORY.info).with(r#"gpuspan_kv_cache_state="used""#).now();
    let memory = Series::all(&catalog::ENGINE_KV_MEMORY.info).now();
    let told = Series::all(&catalog::ENGINE_KV_USAGE.info).now();
    let kv = format!("(max by ({EACH}) ({told}) or {} / {})", sum(EACH, &used), sum(EACH, &memory));
    let level = |name, value, condition, summary, help, example| Alert {
        name,
        value,
        condition,
        wait: "5m",
        severity: "warning",
        summary,
        help,
        example,
    };
    [
        level(
            "ActiveRequestsHigh",
            sum(EACH, &Series::all(&catalog::HTTP_ACTIVE_REQUESTS.info).now()),
            "> 1000",
            "{{ $labels.service_instance_id }} has {{ $value }} requests in flight",
            "More than it can batch: the rest waits. Add replicas, or limit what the balancer sends to one.",
            vec![(r#"http_server_active_requests{service_name="s",service_instance_id="i"}"#, "1001x60")],
        ),
        level(
            "WaitingRequestsHigh",
            sum(EACH, &Series::all(&catalog::ENGINE_WAITING.info).now()),
            "> 500",
            "{{ $value }} requests wait in {{ $labels.service_instance_id }}",
            "The engine has no room for them: look at batch fill and KV cache in gpuspan / Engine steps.",
            vec![(r#"gpuspan_engine_requests_waiting{service_name="s",service_instance_id="i"}"#, "501x60")],
        ),
        level(
            "KvCacheFull",
            kv,
            "> 0.8",
            "The KV cache of {{ $labels.service_instance_id }} is {{ $value | humanizePercentage }} full",
            "8 of 10 GiB in transformers' own board, where 5 of 10 is yellow. Near the top engines preempt: shorten contexts, or give the cache more memory.",
            vec![
                (
                    r#"gpuspan_engine_kv_cache_memory_bytes{service_name="s",service_instance_id="i",gpuspan_kv_cache_state="used"}"#,
                    "9x60",
                ),
                (
                    r#"gpuspan_engine_kv_cache_memory_bytes{service_name="s",service_instance_id="i",gpuspan_kv_cache_state="free"}"#,
                    "1x60",
                ),
            ],
        ),
        level(
            "DecodePrefillRatioLow",
            ratio.clone(),
            "< 0.1",
            "{{ $labels.service_instance_id }} decodes {{ $value }} tokens a prefill token",
            "Prompts crowd answers out: smaller prefill chunks, or a replica for long prompts.",
            vec![(r#"gpuspan_engine_decode_prefill_ratio{service_instance_id="i"}"#, "0.05x60")],
        ),
        level(
            "DecodePrefillRatioHigh",
            ratio,
            "> 10",
            "{{ $labels.service_instance_id }} decodes {{ $value }} tokens a prefill token",
            "Batches with a prompt are nearly all answers: if requests wait meanwhile, the limit of sequences is too low.",
            vec![(r#"gpuspan_engine_decode_prefill_ratio{service_instance_id="i"}"#, "11x60")],
        ),
    ]
}

fn service() -> [Alert; 4] {
    let ended = Series::over("10m", &catalog::HTTP_REQUEST_DURATION.info).part("count");
    let failed = ended.clone().with(r#"http_response_status_code=~"5..""#);
    let active = sum(EACH, &Series::all(&catalog::HTTP_ACTIVE_REQUESTS.info).now());
    let up = format!("max by ({EACH}) ({})", Series::all(&catalog::PROCESS_UPTIME.info).now());
    [
        Alert {
            name: "RequestsStuck",
            value: format!("{active} unless on ({EACH}) ({} > 0)", ended.rates(EACH)),
            condition: "> 0",
            wait: "5m",
            severity: "critical",
            summary: "{{ $value }} requests are in flight in {{ $labels.service_instance_id }}, and none has ended for 10 minutes",
            help: "The engine hangs, or answers are very long. gpuspan / GPU shows whether it still launches.",
            example: vec![
                (r#"http_server_active_requests{service_name="s",service_instance_id="i"}"#, "3x60"),
                (
                    r#"http_server_request_duration_seconds_count{service_name="s",service_instance_id="i"}"#,
                    "7x60",
                ),
            ],
        },
        Alert {
            name: "NoRequests",
            value: format!("{up} unless on ({EACH}) ({} > 0)", ended.rates(EACH)),
            condition: "> 600",
            wait: "10m",
            severity: "info",
            summary: "{{ $labels.service_instance_id }} is up and gets no requests",
            help: "It holds its GPU for nothing: a balancer that forgot it, or a replica too many.",
            example: vec![(r#"process_uptime_seconds{service_name="s",service_instance_id="i"}"#, "0+60x60")],
        },
        Alert {
            name: "RequestsFail",
            value: format!("{} / {}", failed.rates(EACH), ended.rates(EACH)),
            condition: "> 0.05",
            wait: "5m",
            severity: "critical",
            summary: "{{ $value | humanizePercentage }} of the requests to {{ $labels.service_instance_id }} fail",
            help: "Their traces are always kept: `{ status = error }` in Tempo.",
            example: vec![
                (
                    r#"http_server_request_duration_seconds_count{service_name="s",service_instance_id="i",http_response_status_code="500"}"#,
                    "0+1x60",
                ),
                (
                    r#"http_server_request_duration_seconds_count{service_name="s",service_instance_id="i",http_response_status_code="200"}"#,
                    "0+9x60",
                ),
            ],
        },
        Alert {
            name: "EnginePreempts",
            value: over(&catalog::ENGINE_PREEMPTIONS.info).rates(EACH),
            condition: "> 0.1",
            wait: "10m",
            severity: "warning",
            summary: "{{ $labels.service_instance_id }} takes requests back out of the batch",
            help: "What they had computed is thrown away. The KV cache is too small for so many, or so long, requests.",
            example: vec![(
                r#"gpuspan_engine_preemptions_total{service_name="s",service_instance_id="i"}"#,
                "0+12x60",
            )],
        },
    ]
}

pub fn itself() -> Group {
    Group {
        name: "gpuspan-itself",
        help: "gpuspan itself: what it lost, cannot send, or no longer understands.",
        rules: losses().into_iter().chain(states()).map(Rule::Alert).collect(),
    }
}

fn losses() -> [Alert; 3] {
    let by = "service_instance_id";
    let dropped = over(&catalog::SELF_EXPORT_DROPPED.info).with(r#"gpuspan_loss_reason!="superseded""#);
    [
        Alert {
            name: "GpuspanLosesRecords",
            value: sum(
                &format!("{by}, gpuspan_loss_reason"),
                &over(&catalog::SELF_RECORDS_LOST.info).increase(),
            ),
            condition: "> 0",
            wait: "0m",
            severity: "warning",
            summary: "{{ $labels.service_instance_id }} lost {{ $value }} records ({{ $labels.gpuspan_loss_reason }})",
            help: "Counts are too low by as many. A larger --ring-bytes outlasts longer stalls; --detail aggregate sends less.",
            example: vec![(
                r#"gpuspan_self_records_lost_total{service_instance_id="i",gpuspan_loss_reason="r"}"#,
                "0+1x60",
            )],
        },
        Alert {
            name: "GpuspanExportDrops",
            value: sum(&format!("{by}, gpuspan_signal, gpuspan_loss_reason"), &dropped.increase()),
            condition: "> 0",
            wait: "0m",
            severity: "warning",
            summary: "{{ $labels.service_instance_id }} dropped {{ $value }} items of {{ $labels.gpuspan_signal }} ({{ $labels.gpuspan_loss_reason }})",
            help: "The destination was away for longer than the queue lasts, or refuses. Snapshots that a newer one replaced do not count.",
            example: vec![(
                r#"gpuspan_self_export_dropped_total{service_instance_id="i",gpuspan_signal="traces",gpuspan_loss_reason="queue_full"}"#,
                "0+1x60",
            )],
        },
        Alert {
            name: "GpuspanExportFails",
            value: over(&catalog::SELF_EXPORT_FAILURES.info).rates(&format!("{by}, gpuspan_signal")),
            condition: "> 0",
            wait: "10m",
            severity: "info",
            summary: "{{ $labels.service_instance_id }} cannot deliver its {{ $labels.gpuspan_signal }}",
            help: "It tries again; nothing is lost before GpuspanExportDrops says so.",
            example: vec![(
                r#"gpuspan_self_export_failures_total{service_instance_id="i",gpuspan_signal="traces"}"#,
                "0+1x60",
            )],
        },
    ]
}

fn states() -> [Alert; 4] {
    let cpu = &catalog::SELF_CPU_TIME.info;
    let by = "service_instance_id";
    let demoted = Series::all(&catalog::ADAPTERS.info).with(r#"gpuspan_adapter_state="demoted""#).now();
    let overflow = over(&catalog::SELF_METRIC_OVERFLOWS.info).increase();
    let now = format!("count by ({by}) ({})", Series::all(cpu).now());
    [
        Alert {
            name: "GpuspanAdapterDemoted",
            value: format!("max by ({EACH}, gpuspan_adapter) ({demoted})"),
            condition: "> 0",
            wait: "0m",
            severity: "warning",
            summary: "The adapter {{ $labels.gpuspan_adapter }} does not understand {{ $labels.service_instance_id }}",
            help: "Queues, steps and tokens are inferred from the outside until gpuspan knows this version: `gpuspan check` says what failed.",
            example: vec![(
                r#"gpuspan_adapters{service_name="s",service_instance_id="i",gpuspan_adapter="vllm",gpuspan_adapter_state="demoted"}"#,
                "1x60",
            )],
        },
        Alert {
            name: "GpuspanCostsMuch",
            value: over(cpu).rates(by),
            condition: "> 0.5",
            wait: "10m",
            severity: "warning",
            summary: "{{ $labels.service_instance_id }} uses {{ $value | humanizePercentage }} of a core",
            help: "--detail aggregate, a smaller share of traces (OTEL_TRACES_SAMPLER_ARG) and fewer step spans (--step-sample) cost less.",
            example: vec![(r#"gpuspan_self_cpu_time_seconds_total{service_instance_id="i"}"#, "0+36x60")],
        },
        Alert {
            name: "GpuspanMetricOverflows",
            value: sum(&format!("{by}, gpuspan_metric_name"), &overflow),
            condition: "> 0",
            wait: "0m",
            severity: "info",
            summary: "{{ $labels.gpuspan_metric_name }} has too many attribute sets",
            help: "Their values are added up in the point with otel_metric_overflow; nothing is lost but who it was.",
            example: vec![(
                r#"gpuspan_self_metric_overflows_total{service_instance_id="i",gpuspan_metric_name="m"}"#,
                "0+1x60",
            )],
        },
        Alert {
            name: "GpuspanGone",
            value: format!("count by ({by}) (last_over_time({}[1h])) unless {now}", Series::all(cpu).now()),
            condition: "> 0",
            wait: "5m",
            severity: "info",
            summary: "{{ $labels.service_instance_id }} has said nothing for minutes",
            help: "It ended, or cannot be reached. The server that it observed does not depend on it.",
            example: vec![(r#"gpuspan_self_cpu_time_seconds_total{service_instance_id="i"}"#, "0+1x30 _x30")],
        },
    ]
}
