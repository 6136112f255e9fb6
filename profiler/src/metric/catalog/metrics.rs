//! Every metric, once. Out: one typed constant each, and `ALL`. Absent: whatever no convention and no reader asked for.

use super::attribute::{
    CUDA_KERNEL_NAME, CUDA_MEMCPY_KIND, ERROR_TYPE, GEN_AI_OPERATION_NAME, GEN_AI_PROVIDER_NAME,
    GEN_AI_REQUEST_MODEL, GEN_AI_RESPONSE_MODEL, GEN_AI_TOKEN_TYPE, GPUSPAN_DESTINATION, GPUSPAN_LOSS_REASON,
    GPUSPAN_METRIC_NAME, GPUSPAN_PROBE_STATE, GPUSPAN_SIGNAL, GPUSPAN_STEP_PHASE, HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE, NETWORK_PROTOCOL_VERSION, SERVER_PORT, URL_SCHEME,
};
use super::{Counter, Histogram, Info, Kind, Metric, Origin, Stability, Sum, UpDownCounter};

/// 10 ms to 82 s, as `gen_ai.server.request.duration` prescribes.
const GEN_AI_DURATION: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
/// As `gen_ai.server.time_to_first_token` prescribes.
const FIRST_TOKEN: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// As `gen_ai.server.time_per_output_token` prescribes.
const OUTPUT_TOKEN: &[f64] = &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
/// Powers of four, as `gen_ai.client.token.usage` prescribes.
const TOKENS: &[f64] = &[
    1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0,
    16777216.0, 67108864.0,
];
/// As `http.server.request.duration` prescribes.
const HTTP_DURATION: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// 64 B to 1 GiB: a token id or a logit row on one end, a layer's weights on the other.
const COPY_BYTES: &[f64] = &[
    64.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262144.0,
    1048576.0,
    4194304.0,
    16777216.0,
    67108864.0,
    268435456.0,
    1073741824.0,
];
/// 250 µs to 8 s: decode steps of small models take under a millisecond, long prefills take seconds.
const STEP_DURATION: &[f64] = &[
    0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048,
    4.096, 8.192,
];

const GEN_AI_ATTRIBUTES: &[&str] =
    &[GEN_AI_OPERATION_NAME, GEN_AI_PROVIDER_NAME, GEN_AI_REQUEST_MODEL, GEN_AI_RESPONSE_MODEL, SERVER_PORT];

macro_rules! metrics {
    ($($id:ident: $kind:ident {
        name: $name:literal, unit: $unit:literal, origin: $origin:ident, stability: $stability:ident,
        bounds: $bounds:expr, attributes: $attributes:expr, help: $help:literal,
    })*) => {
        $(#[doc = $help] pub static $id: Metric<$kind> = Metric::new(Info {
            name: $name, unit: $unit, kind: Kind::$kind, bounds: $bounds, origin: Origin::$origin,
            stability: Stability::$stability, attributes: $attributes, help: $help,
        });)*
        /// Every metric, in the order of this file.
        pub static ALL: &[&Info] = &[$(&$id.info),*];
    };
}

metrics! {
    GEN_AI_REQUEST_DURATION: Histogram {
        name: "gen_ai.server.request.duration", unit: "s", origin: GenAi, stability: Development,
        bounds: GEN_AI_DURATION,
        attributes: &[
            GEN_AI_OPERATION_NAME, GEN_AI_PROVIDER_NAME, GEN_AI_REQUEST_MODEL, GEN_AI_RESPONSE_MODEL,
            SERVER_PORT, ERROR_TYPE,
        ],
        help: "Time from the first byte of a request to the last byte of its answer.",
    }
    GEN_AI_TIME_TO_FIRST_TOKEN: Histogram {
        name: "gen_ai.server.time_to_first_token", unit: "s", origin: GenAi, stability: Development,
        bounds: FIRST_TOKEN, attributes: GEN_AI_ATTRIBUTES,
        help: "Time from the last byte of a request to its first non-empty token, once per request.",
    }
    GEN_AI_TIME_PER_OUTPUT_TOKEN: Histogram {
        name: "gen_ai.server.time_per_output_token", unit: "s", origin: GenAi, stability: Development,
        bounds: OUTPUT_TOKEN, attributes: GEN_AI_ATTRIBUTES,
        help: "Time per output token after the first, once per successful request.",
    }
    GEN_AI_TOKEN_USAGE: Histogram {
        name: "gen_ai.client.token.usage", unit: "{token}", origin: GenAi, stability: Development,
        bounds: TOKENS,
        attributes: &[
            GEN_AI_TOKEN_TYPE, GEN_AI_OPERATION_NAME, GEN_AI_PROVIDER_NAME, GEN_AI_REQUEST_MODEL,
            GEN_AI_RESPONSE_MODEL, SERVER_PORT,
        ],
        help: "Tokens of a request by type, when the server said them or they could be counted.",
    }
    HTTP_REQUEST_DURATION: Histogram {
        name: "http.server.request.duration", unit: "s", origin: Http, stability: Stable,
        bounds: HTTP_DURATION,
        attributes: &[
            HTTP_REQUEST_METHOD, HTTP_ROUTE, HTTP_RESPONSE_STATUS_CODE, URL_SCHEME, NETWORK_PROTOCOL_VERSION,
            SERVER_PORT, ERROR_TYPE,
        ],
        help: "Duration of HTTP requests that the target served.",
    }
    HTTP_ACTIVE_REQUESTS: UpDownCounter {
        name: "http.server.active_requests", unit: "{request}", origin: Http, stability: Development,
        bounds: &[], attributes: &[HTTP_REQUEST_METHOD, URL_SCHEME, SERVER_PORT],
        help: "HTTP requests that the target is serving.",
    }
    CUDA_KERNEL_LAUNCHES: Counter {
        name: "gpu.cuda.kernel.launch.calls", unit: "{call}", origin: Obi, stability: Development,
        bounds: &[], attributes: &[],
        help: "Kernel launches, each counted once whichever layers it crossed.",
    }
    KERNEL_LAUNCHES: Counter {
        name: "gpuspan.kernel.launches", unit: "{launch}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[CUDA_KERNEL_NAME],
        help: "Runs of each kernel, launched or as a node of a graph; without a name where none could be learnt.",
    }
    CUDA_GRAPH_LAUNCHES: Counter {
        name: "gpu.cuda.graph.launch.calls", unit: "{call}", origin: Obi, stability: Development,
        bounds: &[], attributes: &[],
        help: "Launches of CUDA graphs, each counted once however many nodes it has.",
    }
    CUDA_COPY_SIZES: Histogram {
        name: "gpu.cuda.memory.copies", unit: "By", origin: Obi, stability: Development,
        bounds: COPY_BYTES, attributes: &[CUDA_MEMCPY_KIND],
        help: "Sizes of memory copies by direction.",
    }
    CUDA_ALLOCATED: Counter {
        name: "gpu.cuda.memory.allocations", unit: "By", origin: Obi, stability: Development,
        bounds: &[], attributes: &[],
        help: "Bytes of device memory allocated.",
    }
    CUDA_FREED: Counter {
        name: "gpu.cuda.memory.free.bytes", unit: "By", origin: Obi, stability: Development,
        bounds: &[], attributes: &[],
        help: "Bytes of device memory freed.",
    }
    CUDA_STREAM_SYNCHRONIZES: Counter {
        name: "gpu.cuda.stream.synchronize.calls", unit: "{call}", origin: Obi, stability: Development,
        bounds: &[], attributes: &[],
        help: "Calls that waited for a stream.",
    }
    CUDA_DEVICE_SYNCHRONIZES: Counter {
        name: "gpu.cuda.device.synchronize.calls", unit: "{call}", origin: Obi, stability: Development,
        bounds: &[], attributes: &[],
        help: "Calls that waited for a device or context.",
    }
    CUDA_EVENT_SYNCHRONIZES: Counter {
        name: "gpu.cuda.event.synchronize.calls", unit: "{call}", origin: Obi, stability: Development,
        bounds: &[], attributes: &[],
        help: "Calls that waited for an event.",
    }
    COPIED_BYTES: Counter {
        name: "gpuspan.memory.copied", unit: "By", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[CUDA_MEMCPY_KIND],
        help: "Bytes copied by direction, exactly, where the histogram's sum is a rounded double.",
    }
    STEP_DURATIONS: Histogram {
        name: "gpuspan.step.duration", unit: "s", origin: Gpuspan, stability: Development,
        bounds: STEP_DURATION, attributes: &[GPUSPAN_STEP_PHASE],
        help: "Duration of engine steps.",
    }
    SELF_RECORDS_LOST: Counter {
        name: "gpuspan.self.records.lost", unit: "{record}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_LOSS_REASON],
        help: "Kernel records that were lost or not understood.",
    }
    SELF_SPANS_DROPPED: Counter {
        name: "gpuspan.self.spans.dropped", unit: "{span}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_LOSS_REASON],
        help: "Spans that a budget left out before they reached an exporter.",
    }
    SELF_EXPORT_PRODUCED: Counter {
        name: "gpuspan.self.export.produced", unit: "{item}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_DESTINATION, GPUSPAN_SIGNAL],
        help: "Spans and metric points given to an exporter: exported, dropped or still queued.",
    }
    SELF_EXPORT_EXPORTED: Counter {
        name: "gpuspan.self.export.exported", unit: "{item}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_DESTINATION, GPUSPAN_SIGNAL],
        help: "Spans and metric points that their destination took.",
    }
    SELF_EXPORT_DROPPED: Counter {
        name: "gpuspan.self.export.dropped", unit: "{item}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_DESTINATION, GPUSPAN_SIGNAL, GPUSPAN_LOSS_REASON],
        help: "Spans and metric points that never reached their destination.",
    }
    SELF_EXPORT_FAILURES: Counter {
        name: "gpuspan.self.export.failures", unit: "{attempt}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_DESTINATION, GPUSPAN_SIGNAL],
        help: "Attempts to export that failed, whether or not a later one succeeded.",
    }
    SELF_METRIC_OVERFLOWS: Counter {
        name: "gpuspan.self.metric.overflows", unit: "{record}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_METRIC_NAME],
        help: "Lookups of an attribute set beyond the limit of its metric; their values are in the overflow point.",
    }
    SELF_KERNELS_BEYOND: Counter {
        name: "gpuspan.self.kernels_beyond", unit: "{kernel}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[],
        help: "Kernels whose launches are in the point `other`, because others had come before.",
    }
    SELF_CPU_TIME: Sum {
        name: "gpuspan.self.cpu.time", unit: "s", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[],
        help: "CPU time that gpuspan used in user space.",
    }
    SELF_PROBES: UpDownCounter {
        name: "gpuspan.self.probes", unit: "{probe}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_PROBE_STATE],
        help: "Probes of a target by state.",
    }
}
