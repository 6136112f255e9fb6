//! What a token costs, and shares that many boards ask for, kept as series of their own.

use super::super::series::Series;
use super::{Group, Record, Rule};
use profiler::metric::{Info, catalog};

/// A server.
const EACH: &str = "service_name, service_instance_id";

pub fn group() -> Group {
    let over = |info: &Info| Series::over("5m", info);
    let output =
        over(&catalog::GEN_AI_TOKEN_USAGE.info).part("sum").with(r#"gen_ai_token_type="output""#).rates(EACH);
    let processed = over(&catalog::ENGINE_PROCESSED.info).rates(&format!("{EACH}, gpuspan_part"));
    let busy = over(&catalog::GPU_BUSY.info);
    let energy = over(&catalog::GPU_ENERGY.info);
    let ended = over(&catalog::GEN_AI_REQUEST_DURATION.info).part("count").rates(EACH);
    let parts = format!("{EACH}, gpuspan_part");
    let record = |name: &str, expression: String| {
        Rule::Record(Record { name: format!("gpuspan:{name}:rate5m"), expression })
    };
    Group {
        name: "gpuspan-per-token",
        help: "What tokens and requests cost, over five minutes.",
        rules: vec![
            record("output_tokens", output.clone()),
            record("gpu_seconds_per_output_token", format!("{} / {output}", busy.rates(EACH))),
            record("joules_per_output_token", format!("{} / {output}", energy.rates(EACH))),
            record("gpu_seconds_per_token", format!("{} / {processed}", busy.rates(&parts))),
            record("joules_per_token", format!("{} / {processed}", energy.rates(&parts))),
            record("gpu_seconds_per_request", format!("{} / {ended}", busy.rates(EACH))),
            record("gpu_busy", busy.rates(EACH)),
        ],
    }
}
