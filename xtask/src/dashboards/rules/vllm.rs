//! Series as vLLM (0.33) names them, for boards that people have. Where gpuspan measures the same quantity, at the
//! server's edge or as its adapter heard it; buckets are gpuspan's, of which vLLM's have more at the long end.
//!
//! Absent: what only the engine knows (cache queries, tokens by source), the latency between each two tokens, and reasons
//! why requests finished.

use super::super::series::{Series, sum};
use super::{Group, Record, Rule};
use profiler::metric::{Info, catalog};

/// What tells servers apart, beside the model.
const EACH: &str = "job, instance, service_name, service_instance_id";

pub fn group() -> Group {
    Group {
        name: "gpuspan-as-vllm",
        help: "For boards made for vLLM: its names over gpuspan's numbers, for any server.",
        rules: histograms().into_iter().chain(levels()).map(Rule::Record).collect(),
    }
}

/// The same series with the model in the label where others look for it.
pub(super) fn by_model(expression: &str) -> String {
    format!(r#"label_replace({expression}, "model_name", "$1", "gen_ai_request_model", "(.*)")"#)
}

/// A histogram's three series under another name.
pub(super) fn histogram(name: &str, series: &Series) -> Vec<Record> {
    let record = |part: &str, by: &str| {
        let sums = sum(by, &by_model(&series.clone().part(part).now()));
        Record { name: format!("{name}_{part}"), expression: sums }
    };
    let labels = format!("model_name, {EACH}");
    vec![record("bucket", &format!("le, {labels}")), record("sum", &labels), record("count", &labels)]
}

pub(super) fn part(part: &str) -> Series {
    Series::all(&catalog::REQUEST_PARTS.info).with(&format!(r#"gpuspan_part="{part}""#))
}

pub(super) fn tokens(kind: &str) -> Series {
    Series::all(&catalog::GEN_AI_TOKEN_USAGE.info).with(&format!(r#"gen_ai_token_type="{kind}""#))
}

fn histograms() -> Vec<Record> {
    let all = |info: &Info| Series::all(info);
    [
        ("time_to_first_token_seconds", all(&catalog::GEN_AI_TIME_TO_FIRST_TOKEN.info)),
        ("request_time_per_output_token_seconds", all(&catalog::GEN_AI_TIME_PER_OUTPUT_TOKEN.info)),
        ("e2e_request_latency_seconds", all(&catalog::GEN_AI_REQUEST_DURATION.info)),
        ("request_queue_time_seconds", part("queue")),
        ("request_prefill_time_seconds", part("prefill")),
        ("request_decode_time_seconds", part("decode")),
        ("request_prompt_tokens", tokens("input")),
        ("request_generation_tokens", tokens("output")),
    ]
    .into_iter()
    .flat_map(|(name, series)| histogram(&format!("vllm:{name}"), &series))
    .collect()
}

fn levels() -> Vec<Record> {
    let record = |name: &str, expression| Record { name: format!("vllm:{name}"), expression };
    let level = |info: &Info| sum(EACH, &Series::all(info).now());
    let counted = |series: Series| sum(&format!("model_name, {EACH}"), &by_model(&series.now()));
    let succeeded =
        Series::all(&catalog::GEN_AI_REQUEST_DURATION.info).part("count").with(r#"error_type="""#);
    vec![
        record("num_requests_running", level(&catalog::ENGINE_RUNNING.info)),
        record("num_requests_waiting", level(&catalog::ENGINE_WAITING.info)),
        record(
            "kv_cache_usage_perc",
            format!("max by ({EACH}) ({})", Series::all(&catalog::ENGINE_KV_USAGE.info).now()),
        ),
        record("prompt_tokens_total", counted(tokens("input").part("sum"))),
        record("generation_tokens_total", counted(tokens("output").part("sum"))),
        record("num_preemptions_total", level(&catalog::ENGINE_PREEMPTIONS.info)),
        record("request_success_total", counted(succeeded)),
    ]
}
