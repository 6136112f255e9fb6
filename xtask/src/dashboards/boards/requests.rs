//! What users of the server notice, and why it is so.

use super::super::grafana::{Board, Look, Panel, Row};
use super::super::series::{Series, sum};
use super::{INSTANCE, MODEL, OF_MODEL, SERVICE};
use profiler::metric::{Info, catalog};

pub fn board() -> Board {
    Board {
        uid: "gpuspan-requests",
        title: "gpuspan / Requests",
        help: "How long requests take, what they wait for, and how many tokens the servers make.",
        variables: vec![SERVICE, INSTANCE, MODEL],
        rows: vec![
            Row { title: "Now", panels: now() },
            Row { title: "How long", panels: times() },
            Row { title: "Why", panels: reasons() },
            Row { title: "How much", panels: amounts() },
        ],
        since: "now-30m",
        refresh: "10s",
    }
}

fn of_model(info: &Info) -> Series {
    Series::shown(info).with(OF_MODEL)
}

fn now() -> Vec<Panel> {
    let requests = Series::shown(&catalog::HTTP_REQUEST_DURATION.info).part("count");
    let first = of_model(&catalog::GEN_AI_TIME_TO_FIRST_TOKEN.info);
    let each = of_model(&catalog::GEN_AI_TIME_PER_OUTPUT_TOKEN.info);
    let whole = of_model(&catalog::GEN_AI_REQUEST_DURATION.info);
    vec![
        Panel::new(Look::Stat, "Requests", "reqps", "Requests that ended, a second.")
            .ask(requests.rates(""), "requests"),
        Panel::new(Look::Stat, "In flight", "short", "Requests that the servers are answering.")
            .ask(sum("", &Series::shown(&catalog::HTTP_ACTIVE_REQUESTS.info).now()), "requests"),
        Panel::new(
            Look::Stat,
            "First token, p95",
            "s",
            "From the last byte of a request to its first token.",
        )
        .ask(first.quantile(0.95, ""), "p95")
        .from(0.5, "red"),
        Panel::new(Look::Stat, "Each token, p50", "s", "Time per output token after the first.")
            .ask(each.quantile(0.5, ""), "p50"),
        Panel::new(
            Look::Stat,
            "Latency, p95",
            "s",
            "From the first byte of a request to the last of its answer.",
        )
        .ask(whole.quantile(0.95, ""), "p95")
        .from(2.0, "red"),
        Panel::new(Look::Stat, "Output", "short", "Tokens of answers, a second.")
            .ask(tokens("output").rates(""), "tokens/s"),
    ]
}

fn tokens(kind: &str) -> Series {
    of_model(&catalog::GEN_AI_TOKEN_USAGE.info).part("sum").with(&format!(r#"gen_ai_token_type="{kind}""#))
}

/// Three quantiles of a histogram.
fn quantiles(panel: Panel, series: &Series) -> Panel {
    panel
        .ask(series.quantile(0.5, ""), "p50")
        .ask(series.quantile(0.95, ""), "p95")
        .ask(series.quantile(0.99, ""), "p99")
}

fn times() -> Vec<Panel> {
    let first = of_model(&catalog::GEN_AI_TIME_TO_FIRST_TOKEN.info);
    let each = of_model(&catalog::GEN_AI_TIME_PER_OUTPUT_TOKEN.info);
    let whole = of_model(&catalog::GEN_AI_REQUEST_DURATION.info);
    let lines = |title, help| Panel::new(Look::Lines, title, "s", help);
    let by_model = "gen_ai_request_model";
    vec![
        quantiles(lines("Time to first token", "Once per request. Points lead to traces."), &first),
        quantiles(
            lines("Time per output token", "Once per successful request, after its first token."),
            &each,
        ),
        quantiles(
            lines("Latency", "From the first byte of a request to the last byte of its answer."),
            &whole,
        ),
        lines("Time to first token by model, p95", "One slow model hides behind many fast ones.")
            .ask(first.quantile(0.95, by_model), "{{gen_ai_request_model}}"),
        Panel::new(
            Look::Heat,
            "Time to first token, all",
            "s",
            "Two heaps say that two kinds of requests share the server.",
        )
        .ask(sum("le", &first.clone().part("bucket").increase()), "{{le}}"),
        Panel::new(
            Look::Heat,
            "Latency, all",
            "s",
            "Two heaps say that two kinds of requests share the server.",
        )
        .ask(sum("le", &whole.clone().part("bucket").increase()), "{{le}}"),
    ]
}

fn reasons() -> Vec<Panel> {
    let parts = of_model(&catalog::REQUEST_PARTS.info);
    let ended = of_model(&catalog::GEN_AI_REQUEST_DURATION.info).part("count").rates("");
    let queue = parts.clone().with(r#"gpuspan_part="queue""#);
    let mean = format!("{} / on () group_left () {ended}", parts.clone().part("sum").rates("gpuspan_part"));
    vec![
        Panel::new(Look::Stack, "Why requests take their time", "s", "The mean request's duration, divided by what it waited for or was at. `blocked_by_prefill`: its tokens waited for prompts of others. `cpu_gap`: the GPU waited for the CPU.")
            .ask(mean, "{{gpuspan_part}}"),
        Panel::new(Look::Lines, "Parts, p95", "s", "What the slowest requests spend their time on.")
            .ask(parts.quantile(0.95, "gpuspan_part"), "{{gpuspan_part}}"),
        quantiles(Panel::new(Look::Lines, "Queue", "s", "From a request's arrival in the engine to its first iteration."), &queue),
        Panel::new(Look::Lines, "Failures", "reqps", "Requests that failed, a second, by why.")
            .ask(
                Series::shown(&catalog::HTTP_REQUEST_DURATION.info)
                    .part("count")
                    .with(r#"error_type!="""#)
                    .rates("error_type"),
                "{{error_type}}",
            )
            .quiet("no request fails"),
    ]
}

fn amounts() -> Vec<Panel> {
    let requests = Series::shown(&catalog::HTTP_REQUEST_DURATION.info).part("count");
    let usage = of_model(&catalog::GEN_AI_TOKEN_USAGE.info);
    let gpu = of_model(&catalog::REQUEST_GPU_TIME.info);
    let energy = of_model(&catalog::REQUEST_ENERGY.info);
    vec![
        Panel::new(Look::Stack, "Requests by route and status", "reqps", "Requests that ended, a second.")
            .ask(
                requests.rates("http_route, http_response_status_code"),
                "{{http_route}} {{http_response_status_code}}",
            ),
        Panel::new(
            Look::Lines,
            "Tokens",
            "short",
            "Tokens a second, of prompts and of answers, as the servers tell them.",
        )
        .ask(usage.clone().part("sum").rates("gen_ai_token_type"), "{{gen_ai_token_type}}"),
        Panel::new(
            Look::Lines,
            "Tokens of a request",
            "short",
            "Half of the requests have fewer; one in twenty has more than p95.",
        )
        .ask(usage.quantile(0.5, "gen_ai_token_type"), "{{gen_ai_token_type}} p50")
        .ask(usage.quantile(0.95, "gen_ai_token_type"), "{{gen_ai_token_type}} p95"),
        Panel::new(Look::Lines, "In flight", "short", "Requests that each server is answering.").ask(
            sum("service_instance_id", &Series::shown(&catalog::HTTP_ACTIVE_REQUESTS.info).now()),
            "{{service_instance_id}}",
        ),
        quantiles(
            Panel::new(
                Look::Lines,
                "GPU time of a request",
                "s",
                "Its share of the iterations that it rode in.",
            ),
            &gpu,
        ),
        quantiles(
            Panel::new(
                Look::Lines,
                "Energy of a request",
                "joule",
                "Its share of the energy of the iterations that it rode in.",
            ),
            &energy,
        ),
    ]
}
