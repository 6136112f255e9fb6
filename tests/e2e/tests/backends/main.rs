//! Real backends: what gpuspan sends while it is attached to servers, asked back by every query that the repository
//! ships. VictoriaMetrics takes it over OTLP, Debian's Prometheus scrapes it; the configuration of the stack is read by
//! the programs that will read it.
//!
//! Absent: how OTLP looks field by field (the target `collector`); values against a client's own (`servers`).
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]
#![expect(clippy::print_stdout, reason = "a test says why it cannot run here")]

mod ask;
mod awaited;
mod catalogue;
mod config;
mod exemplars;
mod faults;
mod panels;
mod program;
mod scene;

use ask::Source;
use program::{VictoriaMetrics, backend};
use scene::Scene;
use xtask::backend::Name;

#[test]
fn every_query_has_an_answer() {
    e2e::or_skip!();
    let Some(binary) = backend(Name::VictoriaMetrics) else { return };
    let victoria = VictoriaMetrics::start(&binary);
    let Some(scene) = Scene::play(&victoria) else { return };
    let source = Source::victoria(victoria.port, scene.window);
    let stored = source.names();
    let mut complaints = awaited::complaints(&stored);
    complaints.extend(catalogue::complaints(&scene.metrics));
    complaints.extend(panels::complaints(&source));
    complaints.extend(panels::rules(&source));
    complaints.extend(config::read_as_text(&scene.scrape));
    if let Some(prometheus) = &scene.prometheus {
        let scraped = Source::new(prometheus.port, scene.window);
        let of_scrapes = panels::complaints(&scraped).into_iter().chain(panels::rules(&scraped));
        complaints
            .extend(of_scrapes.chain(panels::recorded(&scraped)).map(|what| format!("scraped: {what}")));
        complaints.extend(exemplars::complaints(&scraped, &scene));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
