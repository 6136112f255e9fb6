//! The instruments of Hugging Face transformers' continuous batching (`generation/continuous_batching`, 4.57), with its
//! names, units and bounds, for dashboards that people have. The values are computed as their descriptions promise: the
//! original recorded the time to first token at every token, and token counters that never moved.

use super::{Counter, Gauge, Histogram, Info, Kind, Metric, Origin, Stability, metrics};

const TTFT: &[f64] =
    &[10.0, 25.0, 50.0, 75.0, 100.0, 150.0, 200.0, 300.0, 500.0, 750.0, 1000.0, 2000.0, 5000.0, 10_000.0];
const LATENCY: &[f64] =
    &[50.0, 100.0, 250.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0, 30_000.0, 60_000.0];
const FILL: &[f64] = &[5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 98.0, 100.0];

metrics! {
    TTFT_MS: Histogram {
        name: "ttft_milliseconds", unit: "ms", origin: Transformers, stability: Development,
        bounds: TTFT, attributes: &[],
        help: "Time to first token, once per request.",
    }
    LATENCY_MS: Histogram {
        name: "request_latency_milliseconds", unit: "ms", origin: Transformers, stability: Development,
        bounds: LATENCY, attributes: &[],
        help: "End-to-end latency of requests that finished or failed.",
    }
    ACTIVE: Gauge {
        name: "active_requests_count", unit: "requests", origin: Transformers, stability: Development,
        bounds: &[], attributes: &[],
        help: "Requests that the engine works on.",
    }
    WAITING: Gauge {
        name: "waiting_requests_count", unit: "requests", origin: Transformers, stability: Development,
        bounds: &[], attributes: &[],
        help: "Requests that wait to be scheduled.",
    }
    PREFILL_TOKENS: Counter {
        name: "prefill_tokens_processed", unit: "tokens", origin: Transformers, stability: Development,
        bounds: &[], attributes: &[],
        help: "Tokens of prompts that iterations processed.",
    }
    DECODE_TOKENS: Counter {
        name: "decode_tokens_processed", unit: "tokens", origin: Transformers, stability: Development,
        bounds: &[], attributes: &[],
        help: "Tokens that iterations processed for requests that were decoding.",
    }
    RATIO: Gauge {
        name: "decode_prefill_ratio", unit: "ratio", origin: Transformers, stability: Development,
        bounds: &[], attributes: &[],
        help: "Decode tokens a prefill token in the newest iteration that had any of a prompt.",
    }
    FILL_PERCENT: Histogram {
        name: "batch_fill_percentage", unit: "percent", origin: Transformers, stability: Development,
        bounds: FILL, attributes: &[],
        help: "Tokens of an iteration as a share of the most that one may have.",
    }
    KV_USED: Gauge {
        name: "kv_cache_memory_bytes", unit: "bytes", origin: Transformers, stability: Development,
        bounds: &[], attributes: &[],
        help: "Memory of the KV cache that requests' tokens fill.",
    }
    KV_FREE: Gauge {
        name: "kv_cache_free_memory_bytes", unit: "bytes", origin: Transformers, stability: Development,
        bounds: &[], attributes: &[],
        help: "Memory of the KV cache that is free.",
    }
}
