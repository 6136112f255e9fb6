//! `docs/metrics.md` from the catalogue. In: the tables. Out: Markdown. Absent: writing the file, which a test does.

use std::fmt::Write;

use super::{Info, Kind, Origin, Stability, all, attribute};

const ORIGINS: [(Origin, &str); 7] = [
    (Origin::GenAi, "Generative AI, after OpenTelemetry's conventions"),
    (Origin::Http, "HTTP, after OpenTelemetry's conventions"),
    (Origin::Obi, "CUDA, with the names of OpenTelemetry eBPF Instrumentation"),
    (Origin::Hardware, "Devices, after OpenTelemetry's conventions"),
    (Origin::Process, "Processes, after OpenTelemetry's conventions"),
    (Origin::Gpuspan, "gpuspan's own"),
    (Origin::Transformers, "transformers' own names, with `--compat transformers`"),
];

/// The reference page of every metric and attribute.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Metrics and attributes\n\n\
         Written by `UPDATE=1 cargo test -p profiler metrics_page` from `profiler/src/metric/catalog`; \
         edit there, not here.\n\n\
         All sums and histograms are cumulative since the target was first seen. Histogram points carry \
         exemplars that lead to the trace of a request in that bucket.\n",
    );
    for (origin, title) in ORIGINS {
        let _ = write!(page, "\n## {title}\n");
        for info in all().filter(|info| info.origin == origin) {
            metric(&mut page, info);
        }
    }
    attributes(&mut page);
    page
}

fn metric(page: &mut String, info: &Info) {
    let _ = write!(page, "\n### `{}`\n\n{}\n\n", info.name, info.help);
    let _ = writeln!(page, "* {}, unit `{}`, {}", kind(info.kind), info.unit, stability(info.stability));
    if !info.attributes.is_empty() {
        let names: Vec<_> = info.attributes.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(page, "* attributes: {}", names.join(", "));
    }
    if !info.bounds.is_empty() {
        let bounds: Vec<_> = info.bounds.iter().map(f64::to_string).collect();
        let _ = writeln!(page, "* bucket bounds: {}", bounds.join(", "));
    }
}

fn attributes(page: &mut String) {
    page.push_str("\n## Attributes\n\nOf spans, metric points and resources.\n\n");
    page.push_str("| attribute | type | meaning |\n|---|---|---|\n");
    for entry in attribute::ALL {
        let _ = writeln!(page, "| `{}` | {} | {} |", entry.name, entry.kind, entry.help);
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Sum => "counter with a fraction",
        Kind::UpDownCounter => "up-down counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

fn stability(stability: Stability) -> &'static str {
    match stability {
        Stability::Stable => "stable",
        Stability::Development => "in development",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn metrics_page_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        let page = super::markdown();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(stored == page, "{} is out of date: run the test again with UPDATE=1", path.display());
    }
}
