//! Series as Prometheus names them. In: rows of the catalogue. Out: names and expressions of PromQL.
//! Absent: values, and any name that the catalogue lacks.
//!
//! The names are those of the default translation of OTLP to Prometheus: words joined by underscores, the unit spelt
//! out, `_total` behind what only grows, `_ratio` behind gauges without a unit.

use profiler::metric::{Info, Kind};

/// Labels that choose the observed servers; the variables of every board.
const SERVERS: &str = r#"service_name=~"$service",service_instance_id=~"$instance""#;
/// The step that Grafana chooses for rates.
const STEP: &str = "$__rate_interval";

/// One metric with matchers: what a query selects.
#[derive(Clone, Debug)]
pub struct Series {
    name: String,
    matchers: Vec<String>,
    window: &'static str,
}

impl Series {
    /// Of the servers that the board's variables choose.
    pub fn shown(info: &Info) -> Self {
        Self { name: name(info), matchers: vec![SERVERS.to_owned()], window: STEP }
    }

    /// Of everything: of devices and of gpuspan itself, which belong to no server.
    pub fn all(info: &Info) -> Self {
        Self { name: name(info), matchers: Vec::new(), window: STEP }
    }

    /// Of everything over a fixed time, for rules.
    pub fn over(window: &'static str, info: &Info) -> Self {
        Self { window, ..Self::all(info) }
    }

    /// Only those with a label.
    pub fn with(mut self, matcher: &str) -> Self {
        self.matchers.push(matcher.to_owned());
        self
    }

    /// One of a histogram's: `bucket`, `sum` or `count`.
    pub fn part(mut self, part: &str) -> Self {
        self.name = format!("{}_{part}", self.name);
        self
    }

    /// As it stands.
    pub fn now(&self) -> String {
        match self.matchers.as_slice() {
            [] => self.name.clone(),
            matchers => format!("{}{{{}}}", self.name, matchers.join(",")),
        }
    }

    /// Growth a second.
    pub fn rate(&self) -> String {
        format!("rate({}[{}])", self.now(), self.window)
    }

    /// Growth over the window.
    pub fn increase(&self) -> String {
        format!("increase({}[{}])", self.now(), self.window)
    }

    /// The sum of the rates, by labels if any are named.
    pub fn rates(&self, by: &str) -> String {
        sum(by, &self.rate())
    }

    /// A quantile of a histogram, by labels if any are named.
    pub fn quantile(&self, q: f64, by: &str) -> String {
        let by = if by.is_empty() { "le".to_owned() } else { format!("le, {by}") };
        format!("histogram_quantile({q}, {})", sum(&by, &self.clone().part("bucket").rate()))
    }

    /// The mean of a histogram's values, by labels if any are named.
    pub fn mean(&self, by: &str) -> String {
        let [sums, counts] = ["sum", "count"].map(|part| self.clone().part(part).rates(by));
        format!("{sums} / {counts}")
    }
}

/// A sum by labels if any are named.
pub fn sum(by: &str, expression: &str) -> String {
    match by {
        "" => format!("sum({expression})"),
        by => format!("sum by ({by}) ({expression})"),
    }
}

/// The name of a metric in Prometheus; histograms have three more words behind it.
pub fn name(info: &Info) -> String {
    let words = info.name.split(|c: char| !c.is_ascii_alphanumeric());
    let mut words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let unit = unit(info.unit);
    if !unit.is_empty() && !words.contains(&unit) {
        words.push(unit);
    }
    let last = match info.kind {
        Kind::Counter | Kind::Sum => "total",
        Kind::Gauge if info.unit == "1" => "ratio",
        _ => return words.join("_"),
    };
    words.retain(|word| *word != last);
    words.push(last);
    words.join("_")
}

/// The names under which a metric's series are stored.
pub fn stored(info: &Info) -> Vec<String> {
    let name = name(info);
    match info.kind {
        Kind::Histogram => ["bucket", "sum", "count"].map(|part| format!("{name}_{part}")).into(),
        _ => vec![name],
    }
}

/// The word for a unit; what stands in braces says what is counted and is none.
fn unit(unit: &str) -> &str {
    match unit {
        "s" => "seconds",
        "ms" => "milliseconds",
        "By" => "bytes",
        "J" => "joules",
        "W" => "watts",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "1" => "",
        unit if unit.starts_with('{') => "",
        unit => unit,
    }
}

/// The label of an attribute.
pub fn label(attribute: &str) -> String {
    attribute.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use profiler::metric::catalog::{self, compat};

    #[test]
    fn names_are_prometheus_own() {
        for (info, expected) in [
            (&catalog::GEN_AI_REQUEST_DURATION.info, "gen_ai_server_request_duration_seconds"),
            (&catalog::CUDA_ALLOCATED.info, "gpu_cuda_memory_allocations_bytes_total"),
            (&catalog::CUDA_FREED.info, "gpu_cuda_memory_free_bytes_total"),
            (&catalog::ENGINE_KV_USAGE.info, "gpuspan_engine_kv_cache_usage_ratio"),
            (&catalog::ENGINE_RATIO.info, "gpuspan_engine_decode_prefill_ratio"),
            (&catalog::ENGINE_FILL.info, "gpuspan_engine_batch_fill"),
            (&catalog::HTTP_ACTIVE_REQUESTS.info, "http_server_active_requests"),
            (&compat::TTFT_MS.info, "ttft_milliseconds"),
            (&compat::FILL_PERCENT.info, "batch_fill_percentage_percent"),
            (&compat::PREFILL_TOKENS.info, "prefill_tokens_processed_total"),
            (&compat::ACTIVE.info, "active_requests_count"),
            (&compat::KV_FREE.info, "kv_cache_free_memory_bytes"),
        ] {
            assert_eq!(name(info), expected);
        }
    }

    #[test]
    fn expressions() {
        let series = Series::over("5m", &catalog::GEN_AI_REQUEST_DURATION.info).with(r#"error_type="""#);
        assert_eq!(
            series.quantile(0.95, "service_name"),
            "histogram_quantile(0.95, sum by (le, service_name) \
             (rate(gen_ai_server_request_duration_seconds_bucket{error_type=\"\"}[5m])))"
        );
        assert_eq!(Series::all(&compat::ACTIVE.info).now(), "active_requests_count");
    }
}
