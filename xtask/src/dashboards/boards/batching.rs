//! The board that Hugging Face transformers' continuous batching had: its ten panels and their queries, to the letter, for
//! `--compat transformers`. The layout is ours; units are given where the original left them out.
//!
//! Absent: variables, which the original has none of: it shows everything that the data source holds.

use super::super::grafana::{Board, Look, Panel, Row};
use super::super::series::Series;
use profiler::metric::Info;
use profiler::metric::catalog::compat;

/// The scale and the steps of its KV cache: 10 GiB, of which 5 and 8 are marked.
const KV_MOST: f64 = 10_737_418_240.0;
const KV_HIGH: f64 = 5_368_709_120.0;
const KV_FULL: f64 = 8_589_934_592.0;

pub fn board() -> Board {
    Board {
        uid: "gpuspan-continuous-batching",
        title: "gpuspan / Continuous batching (transformers)",
        help: "The questions of transformers' own board, answered by gpuspan with --compat transformers.",
        variables: Vec::new(),
        rows: vec![Row { title: "", panels: panels() }],
        since: "now-15m",
        refresh: "5s",
    }
}

fn panels() -> Vec<Panel> {
    let now = |info: &Info| Series::all(info).now();
    let rate = |info: &Info| Series::all(info).rate();
    let stat = |title, unit, help| Panel::new(Look::Stat, title, unit, help).size(6, 8);
    let lines = |title, unit, help| Panel::new(Look::Lines, title, unit, help);
    vec![
        Panel::new(
            Look::Gauge,
            "KV Cache Memory Usage",
            "bytes",
            "Memory of the KV cache that requests' tokens fill.",
        )
        .ask(now(&compat::KV_USED.info), "used")
        .size(6, 8)
        .most(KV_MOST)
        .from(KV_HIGH, "yellow")
        .from(KV_FULL, "red"),
        stat("Active Requests", "none", "Requests that the engine works on.")
            .ask(now(&compat::ACTIVE.info), "active"),
        stat("Waiting Requests", "none", "Requests that wait to be scheduled.")
            .ask(now(&compat::WAITING.info), "waiting"),
        stat(
            "Decode/Prefill Ratio",
            "none",
            "Decode tokens a prefill token in the newest batch with a prompt.",
        )
        .ask(now(&compat::RATIO.info), "ratio"),
        lines("Decode tokens throughput", "short", "Tokens a second.")
            .ask(rate(&compat::DECODE_TOKENS.info), "tok/s"),
        lines("Prefill rate", "short", "Tokens a second.").ask(rate(&compat::PREFILL_TOKENS.info), "tok/s"),
        quantiles(
            lines("Batch fill percentiles", "percent", "Tokens of a batch as a share of the most."),
            &compat::FILL_PERCENT.info,
        ),
        lines("KV Cache Memory Usage Over Time", "bytes", "Used and free.")
            .ask(now(&compat::KV_USED.info), "Used memory")
            .ask(now(&compat::KV_FREE.info), "free memory"),
        quantiles(
            Panel::new(Look::Bars, "Time to First Token (TTFT)", "ms", "Once per request.").from(80.0, "red"),
            &compat::TTFT_MS.info,
        ),
        quantiles(
            lines("Request latency percentiles", "ms", "Finished and failed requests."),
            &compat::LATENCY_MS.info,
        ),
    ]
}

/// As the original writes them.
fn quantiles(panel: Panel, info: &Info) -> Panel {
    let buckets = Series::all(info).part("bucket").rate();
    let quantile = |q: f64| format!("histogram_quantile({q}, sum by(le)({buckets}))");
    panel.ask(quantile(0.95), "p95").ask(quantile(0.99), "p99").ask(quantile(0.5), "p50")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queries_are_the_originals() {
        let board = board();
        let queries: Vec<_> =
            board.panels().flat_map(|panel| &panel.queries).map(|query| query.expression.as_str()).collect();
        assert_eq!(board.panels().count(), 10);
        for original in [
            "kv_cache_memory_bytes",
            "kv_cache_free_memory_bytes",
            "active_requests_count",
            "waiting_requests_count",
            "decode_prefill_ratio",
            "rate(decode_tokens_processed_total[$__rate_interval])",
            "rate(prefill_tokens_processed_total[$__rate_interval])",
            "histogram_quantile(0.95, sum by(le)(rate(batch_fill_percentage_percent_bucket[$__rate_interval])))",
            "histogram_quantile(0.5, sum by(le)(rate(ttft_milliseconds_bucket[$__rate_interval])))",
            "histogram_quantile(0.99, sum by(le)(rate(request_latency_milliseconds_bucket[$__rate_interval])))",
        ] {
            assert!(queries.contains(&original), "{original}");
        }
    }
}
