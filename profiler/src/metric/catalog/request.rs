//! Metrics of requests: the conventions of HTTP and of generative AI, and what no convention has.

use super::attribute::{
    ERROR_TYPE, GEN_AI_OPERATION_NAME, GEN_AI_PROVIDER_NAME, GEN_AI_REQUEST_MODEL, GEN_AI_RESPONSE_MODEL,
    GEN_AI_TOKEN_TYPE, GPUSPAN_GPU_TIME_CLASS, GPUSPAN_PART, HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE, NETWORK_PROTOCOL_VERSION, SERVER_PORT, URL_SCHEME,
};
use super::{Histogram, Info, Kind, Metric, Origin, Stability, UpDownCounter, metrics};

/// 10 ms to 82 s, as `gen_ai.server.request.duration` prescribes.
const GEN_AI_DURATION: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
/// As `gen_ai.server.time_to_first_token` prescribes.
pub(super) const FIRST_TOKEN: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// As `gen_ai.server.time_per_output_token` prescribes.
const OUTPUT_TOKEN: &[f64] = &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
/// Powers of four, as `gen_ai.client.token.usage` prescribes.
pub(super) const TOKENS: &[f64] = &[
    1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0,
    16777216.0, 67108864.0,
];
/// As `http.server.request.duration` prescribes.
const HTTP_DURATION: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// 100 µs to 2 min: a request of one token on a small model, and a long answer of a large one that is alone.
const GPU_TIME: &[f64] = &[
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0,
    60.0, 120.0,
];
/// 10 mJ to 50 kJ: the same times at 100 W to 700 W.
const ENERGY: &[f64] =
    &[0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 50_000.0];

const GEN_AI_ATTRIBUTES: &[&str] =
    &[GEN_AI_OPERATION_NAME, GEN_AI_PROVIDER_NAME, GEN_AI_REQUEST_MODEL, GEN_AI_RESPONSE_MODEL, SERVER_PORT];

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
    REQUEST_PARTS: Histogram {
        name: "gpuspan.request.part.duration", unit: "s", origin: Gpuspan, stability: Development,
        bounds: FIRST_TOKEN, attributes: &[GPUSPAN_PART, GEN_AI_REQUEST_MODEL],
        help: "Why a request took its time: parts that add up to its duration, one value a request and part.",
    }
    REQUEST_GPU_TIME: Histogram {
        name: "gpuspan.request.gpu.time", unit: "s", origin: Gpuspan, stability: Development,
        bounds: GPU_TIME, attributes: &[GEN_AI_REQUEST_MODEL, GPUSPAN_GPU_TIME_CLASS],
        help: "A request's share of the GPU time of the iterations that it rode in.",
    }
    REQUEST_ENERGY: Histogram {
        name: "gpuspan.request.energy", unit: "J", origin: Gpuspan, stability: Development,
        bounds: ENERGY, attributes: &[GEN_AI_REQUEST_MODEL],
        help: "A request's share of the energy of the iterations that it rode in.",
    }
}
