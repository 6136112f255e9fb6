//! Exemplars as Prometheus keeps them: each leads to a trace that gpuspan told.

use crate::ask::Source;
use crate::scene::Scene;

/// Histograms that have them.
const FAMILIES: [&str; 3] = [
    "gen_ai_server_time_to_first_token_seconds_bucket",
    "gen_ai_server_request_duration_seconds_bucket",
    "http_server_request_duration_seconds_bucket",
];

/// Families without an exemplar, and exemplars that lead nowhere.
pub fn complaints(source: &Source, scene: &Scene) -> Vec<String> {
    FAMILIES.iter().flat_map(|family| wrong(source, scene, family)).collect()
}

fn wrong(source: &Source, scene: &Scene, family: &str) -> Vec<String> {
    let (start, end) = scene.window;
    let query = [("query", family), ("start", &start.to_string()), ("end", &end.to_string())];
    let answer = source.get("/api/v1/query_exemplars", &query).unwrap();
    let series = answer.as_array().cloned().unwrap_or_default();
    let all: Vec<_> =
        series.iter().flat_map(|one| one["exemplars"].as_array().cloned().unwrap_or_default()).collect();
    let traces = all.iter().filter_map(|one| one["labels"]["trace_id"].as_str());
    let unknown =
        traces.filter(|id| !scene.traces.contains(*id)).map(|id| format!("{family}: no trace {id}"));
    let none = all.is_empty().then(|| format!("{family} has no exemplars"));
    unknown.chain(none).collect()
}
