//! Metrics of engines' iterations, and of what servers say inside.

use super::attribute::{
    GPUSPAN_ADAPTER, GPUSPAN_ADAPTER_STATE, GPUSPAN_CAPACITY, GPUSPAN_ENGINE_INDEX, GPUSPAN_EVIDENCE,
    GPUSPAN_KV_CACHE_STATE, GPUSPAN_PART, GPUSPAN_STEP_PHASE, PROCESS_PID,
};
use super::request::{FIRST_TOKEN, TOKENS};
use super::{Counter, Gauge, Histogram, Info, Kind, Metric, Origin, Stability, UpDownCounter, metrics};

/// 250 µs to 8 s: decode steps of small models take under a millisecond, long prefills take seconds.
const STEP_DURATION: &[f64] = &[
    0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048,
    4.096, 8.192,
];
/// Batch sizes: servers are run with limits that are powers of two.
const MEMBERS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
/// Shares of a batch, close together where it is full: the difference between 95 and 100 % is whether there is room.
const FILL: &[f64] = &[0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0];

metrics! {
    STEP_DURATIONS: Histogram {
        name: "gpuspan.step.duration", unit: "s", origin: Gpuspan, stability: Development,
        bounds: STEP_DURATION, attributes: &[GPUSPAN_STEP_PHASE],
        help: "Duration of engine steps.",
    }
    ENGINE_QUEUE_DURATION: Histogram {
        name: "gpuspan.engine.queue.duration", unit: "s", origin: Gpuspan, stability: Development,
        bounds: FIRST_TOKEN, attributes: &[GPUSPAN_ADAPTER, GPUSPAN_EVIDENCE],
        help: "Time from the engine's queue to the first step, as the server says it.",
    }
    ENGINE_STEP_MEMBERS: Histogram {
        name: "gpuspan.engine.step.members", unit: "{request}", origin: Gpuspan, stability: Development,
        bounds: MEMBERS, attributes: &[GPUSPAN_ADAPTER],
        help: "Sequences in each iteration of an engine: the batch size.",
    }
    ENGINE_STEP_TOKENS: Histogram {
        name: "gpuspan.engine.step.tokens", unit: "{token}", origin: Gpuspan, stability: Development,
        bounds: TOKENS, attributes: &[GPUSPAN_ADAPTER],
        help: "Tokens computed in each iteration of an engine, where the server says it.",
    }
    ENGINE_TOKENS: Counter {
        name: "gpuspan.engine.tokens", unit: "{token}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[],
        help: "Tokens that engines put out.",
    }
    ENGINE_PREEMPTIONS: Counter {
        name: "gpuspan.engine.preemptions", unit: "{preemption}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[],
        help: "Requests that lost their place in an engine.",
    }
    ENGINE_JOINED: Counter {
        name: "gpuspan.engine.joined", unit: "{request}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_ADAPTER, GPUSPAN_EVIDENCE],
        help: "Requests tied to what their server said of them inside, by evidence.",
    }
    ENGINE_RUNNING: UpDownCounter {
        name: "gpuspan.engine.requests.running", unit: "{request}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[PROCESS_PID, GPUSPAN_ENGINE_INDEX, GPUSPAN_EVIDENCE],
        help: "Requests that an engine runs: as it reports it (`E0`), else as its calls or its work show it.",
    }
    ENGINE_WAITING: UpDownCounter {
        name: "gpuspan.engine.requests.waiting", unit: "{request}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[PROCESS_PID, GPUSPAN_ENGINE_INDEX, GPUSPAN_EVIDENCE],
        help: "Requests that wait for an engine: as it reports it (`E0`), else those under way that it does not run.",
    }
    ENGINE_KV_USAGE: Gauge {
        name: "gpuspan.engine.kv_cache.usage", unit: "1", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[PROCESS_PID, GPUSPAN_ENGINE_INDEX],
        help: "Share of an engine's KV cache in use, as it reports it.",
    }
    ADAPTER_OBSERVATIONS: Counter {
        name: "gpuspan.adapter.observations", unit: "{observation}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_ADAPTER, GPUSPAN_ADAPTER_STATE],
        help: "Messages and calls inside servers, by whether they passed the adapter's checks.",
    }
    ADAPTERS: UpDownCounter {
        name: "gpuspan.adapters", unit: "{adapter}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_ADAPTER, GPUSPAN_ADAPTER_STATE],
        help: "Adapters by state: what a demoted one says is not used.",
    }
    ENGINE_STEP_DURATION: Histogram {
        name: "gpuspan.engine.step.duration", unit: "s", origin: Gpuspan, stability: Development,
        bounds: STEP_DURATION, attributes: &[GPUSPAN_ADAPTER, GPUSPAN_STEP_PHASE],
        help: "Duration of iterations of an engine, by what they did.",
    }
    ENGINE_PROCESSED: Counter {
        name: "gpuspan.engine.tokens.processed", unit: "{token}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_PART, GPUSPAN_ADAPTER],
        help: "Tokens that iterations processed: of prompts (`prefill`), and those whose successors were made (`decode`).",
    }
    ENGINE_RATIO: Gauge {
        name: "gpuspan.engine.decode_prefill_ratio", unit: "1", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_ADAPTER],
        help: "Decode tokens a prefill token in the newest iteration that had any of a prompt.",
    }
    ENGINE_FILL: Histogram {
        name: "gpuspan.engine.batch.fill", unit: "1", origin: Gpuspan, stability: Development,
        bounds: FILL, attributes: &[GPUSPAN_ADAPTER, GPUSPAN_CAPACITY],
        help: "Tokens of an iteration as a share of the most that one may have; where the engine's command line does not say how many that are, of the most seen so far.",
    }
    ENGINE_KV_MEMORY: UpDownCounter {
        name: "gpuspan.engine.kv_cache.memory", unit: "By", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_KV_CACHE_STATE, GPUSPAN_EVIDENCE],
        help: "Memory of the KV cache that requests' tokens fill, by the model's shape.",
    }
}
