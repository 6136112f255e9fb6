//! Series as SGLang (0.5.23) names them, for boards that people have. As in the file for vLLM.
//!
//! Absent: what only the engine knows (hit rates, stages, speculation), and the latency between each two tokens.

use super::super::series::{Series, sum};
use super::vllm::{by_model, histogram, part, tokens};
use super::{Group, Record, Rule};
use profiler::metric::{Info, catalog};

const EACH: &str = "job, instance, service_name, service_instance_id";

pub fn group() -> Group {
    Group {
        name: "gpuspan-as-sglang",
        help: "For boards made for SGLang: its names over gpuspan's numbers, for any server.",
        rules: histograms().into_iter().chain(levels()).map(Rule::Record).collect(),
    }
}

fn histograms() -> Vec<Record> {
    [
        ("time_to_first_token_seconds", Series::all(&catalog::GEN_AI_TIME_TO_FIRST_TOKEN.info)),
        ("request_time_per_output_token_seconds", Series::all(&catalog::GEN_AI_TIME_PER_OUTPUT_TOKEN.info)),
        ("e2e_request_latency_seconds", Series::all(&catalog::GEN_AI_REQUEST_DURATION.info)),
        ("queue_time_seconds", part("queue")),
    ]
    .into_iter()
    .flat_map(|(name, series)| histogram(&format!("sglang:{name}"), &series))
    .collect()
}

fn levels() -> Vec<Record> {
    let record = |name: &str, expression| Record { name: format!("sglang:{name}"), expression };
    let level = |info: &Info| sum(EACH, &Series::all(info).now());
    let by = format!("model_name, {EACH}");
    let counted = |series: Series| sum(&by, &by_model(&series.now()));
    let throughput = Series::over("1m", &catalog::GEN_AI_TOKEN_USAGE.info)
        .part("sum")
        .with(r#"gen_ai_token_type="output""#);
    let ended = Series::all(&catalog::GEN_AI_REQUEST_DURATION.info).part("count");
    vec![
        record("num_running_reqs", level(&catalog::ENGINE_RUNNING.info)),
        record("num_queue_reqs", level(&catalog::ENGINE_WAITING.info)),
        record(
            "token_usage",
            format!("max by ({EACH}) ({})", Series::all(&catalog::ENGINE_KV_USAGE.info).now()),
        ),
        record("prompt_tokens_total", counted(tokens("input").part("sum"))),
        record("generation_tokens_total", counted(tokens("output").part("sum"))),
        record("num_requests_total", counted(ended)),
        record("gen_throughput", sum(&by, &by_model(&throughput.rate()))),
    ]
}
