//! What engines do, iteration by iteration: whether batches are full, what fills them, what holds them up.

use super::super::grafana::{Board, Look, Panel, Row};
use super::super::series::{Series, sum};
use super::{INSTANCE, SERVICE};
use profiler::metric::catalog;

pub fn board() -> Board {
    Board {
        uid: "gpuspan-engine",
        title: "gpuspan / Engine steps",
        help: "Iterations of engines: how long they take, how full they are, what they wait for.",
        variables: vec![SERVICE, INSTANCE],
        rows: vec![
            Row { title: "Iterations", panels: iterations() },
            Row { title: "Queue and cache", panels: queue() },
            Row { title: "What is known of the inside", panels: adapters() },
        ],
        since: "now-30m",
        refresh: "10s",
    }
}

fn iterations() -> Vec<Panel> {
    let duration = Series::shown(&catalog::ENGINE_STEP_DURATION.info);
    let members = Series::shown(&catalog::ENGINE_STEP_MEMBERS.info);
    let fill = Series::shown(&catalog::ENGINE_FILL.info);
    let processed = Series::shown(&catalog::ENGINE_PROCESSED.info);
    vec![
        Panel::new(Look::Lines, "Duration", "s", "Of iterations, by what they did. Decoding requests wait for each other's prompts in `mixed` ones.")
            .ask(duration.quantile(0.5, "gpuspan_step_phase"), "{{gpuspan_step_phase}} p50")
            .ask(duration.quantile(0.95, "gpuspan_step_phase"), "{{gpuspan_step_phase}} p95"),
        Panel::new(Look::Lines, "Iterations", "iops", "Iterations a second, by what they did.")
            .ask(duration.part("count").rates("gpuspan_step_phase"), "{{gpuspan_step_phase}}"),
        Panel::new(Look::Lines, "Batch fill", "percentunit", "Tokens of an iteration as a share of the most that one may have. Low while requests wait: something else than the token limit holds them.")
            .ask(fill.quantile(0.5, ""), "p50")
            .ask(fill.quantile(0.95, ""), "p95")
            .ask(fill.mean(""), "mean"),
        Panel::new(Look::Lines, "Batch size", "short", "Sequences in each iteration.")
            .ask(members.mean("gpuspan_adapter"), "{{gpuspan_adapter}} mean")
            .ask(members.quantile(0.95, "gpuspan_adapter"), "{{gpuspan_adapter}} p95"),
        Panel::new(Look::Stack, "Tokens processed", "short", "Tokens a second that iterations processed, of prompts and while decoding.")
            .ask(processed.rates("gpuspan_part"), "{{gpuspan_part}}"),
        Panel::new(Look::Lines, "Decode tokens a prefill token", "short", "Below 0.1 prompts crowd answers out; above 10 there is room for more prompts.")
            .ask(Series::shown(&catalog::ENGINE_RATIO.info).now(), "{{service_instance_id}}"),
        Panel::new(Look::Lines, "Tokens an iteration", "short", "Tokens that one iteration computed, where the server says it.")
            .ask(Series::shown(&catalog::ENGINE_STEP_TOKENS.info).quantile(0.5, "gpuspan_adapter"), "{{gpuspan_adapter}} p50")
            .ask(Series::shown(&catalog::ENGINE_STEP_TOKENS.info).quantile(0.95, "gpuspan_adapter"), "{{gpuspan_adapter}} p95"),
        Panel::new(Look::Lines, "GPU steps", "s", "Duration of the GPU's work between two waits for it, p95: an iteration has one or several.")
            .ask(Series::shown(&catalog::STEP_DURATIONS.info).quantile(0.95, "service_instance_id"), "{{service_instance_id}}"),
    ]
}

fn queue() -> Vec<Panel> {
    let running = Series::shown(&catalog::ENGINE_RUNNING.info);
    let waiting = Series::shown(&catalog::ENGINE_WAITING.info);
    let delay = Series::shown(&catalog::ENGINE_QUEUE_DURATION.info);
    let memory = Series::shown(&catalog::ENGINE_KV_MEMORY.info);
    vec![
        Panel::new(
            Look::Lines,
            "Running and waiting",
            "short",
            "Requests that engines run, and those that wait for room.",
        )
        .ask(sum("service_instance_id", &running.now()), "running {{service_instance_id}}")
        .ask(sum("service_instance_id", &waiting.now()), "waiting {{service_instance_id}}"),
        Panel::new(
            Look::Lines,
            "Time in the queue",
            "s",
            "From the engine's queue to the first iteration, as the server says it.",
        )
        .ask(delay.quantile(0.5, "gpuspan_adapter"), "{{gpuspan_adapter}} p50")
        .ask(delay.quantile(0.95, "gpuspan_adapter"), "{{gpuspan_adapter}} p95"),
        Panel::new(
            Look::Lines,
            "KV cache in use",
            "percentunit",
            "Near 1 the engine preempts requests or lets them wait.",
        )
        .ask(
            Series::shown(&catalog::ENGINE_KV_USAGE.info).now(),
            "{{service_instance_id}} engine {{gpuspan_engine_index}}",
        )
        .most(1.0),
        Panel::new(Look::Stack, "KV cache", "bytes", "Memory that requests' tokens fill, and what is free.")
            .ask(sum("gpuspan_kv_cache_state", &memory.now()), "{{gpuspan_kv_cache_state}}"),
        Panel::new(
            Look::Lines,
            "Preemptions",
            "ops",
            "Requests a second that lost their place and start again: the KV cache is too small.",
        )
        .ask(
            Series::shown(&catalog::ENGINE_PREEMPTIONS.info).rates("service_instance_id"),
            "{{service_instance_id}}",
        ),
        Panel::new(
            Look::Lines,
            "Tokens out",
            "short",
            "Tokens a second that engines put out, as they say it.",
        )
        .ask(
            Series::shown(&catalog::ENGINE_TOKENS.info).rates("service_instance_id"),
            "{{service_instance_id}}",
        ),
    ]
}

fn adapters() -> Vec<Panel> {
    let joined = Series::shown(&catalog::ENGINE_JOINED.info);
    let heard = Series::shown(&catalog::ADAPTER_OBSERVATIONS.info);
    let state = Series::shown(&catalog::ADAPTERS.info);
    vec![
        Panel::new(Look::Lines, "Requests joined", "reqps", "Requests tied to what their server said of them inside: E0 by the same id, E1 by the same message, E2 as the only candidate.")
            .ask(joined.rates("gpuspan_adapter, gpuspan_evidence"), "{{gpuspan_adapter}} {{gpuspan_evidence}}"),
        Panel::new(Look::Lines, "Heard", "ops", "Messages and calls inside servers. `failed` ones did not pass the adapter's checks; too many and it is demoted.")
            .ask(heard.rates("gpuspan_adapter, gpuspan_adapter_state"), "{{gpuspan_adapter}} {{gpuspan_adapter_state}}"),
        Panel::new(Look::Bars, "Adapters", "short", "What a demoted one says is not used: queues and steps are inferred from the outside then.")
            .ask(sum("gpuspan_adapter, gpuspan_adapter_state", &state.now()), "{{gpuspan_adapter}} {{gpuspan_adapter_state}}"),
    ]
}
