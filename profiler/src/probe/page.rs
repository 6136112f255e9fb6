//! The catalogue as a page of documentation (`docs/probes.md`).

use super::CATALOG;
use super::row::{Api, Layer, Only};
use profiler_common::cookie::report;

/// The page.
#[must_use]
pub fn markdown() -> String {
    let mut page = format!(
        "# Probed functions\n\nGenerated from `profiler/src/probe`; do not edit. {} functions. \"At return\" means that \
         a return probe reports the call once, with its result and duration; all others are reported at entry, and \
         with `--results all` at return again if they fail. A query that is answered \"not ready\" is counted and \
         not sent.\n",
        CATALOG.len()
    );
    for layer in Layer::ALL {
        page.push_str(&format!(
            "\n## {}\n\n| function | reported | meaning |\n|---|---|---|\n",
            layer.library()
        ));
        let rows = CATALOG.iter().filter(|api| api.layer == layer);
        rows.for_each(|api| page.push_str(&line(api)));
    }
    page
}

fn line(api: &Api) -> String {
    let when = match api.cookie.report {
        report::RETURN => "at return",
        report::RETURN_UNLESS_NOT_READY => "at return, when done",
        _ => "at entry",
    };
    let only = match api.only {
        Only::Any => "",
        Only::Before13 => " (CUDA 12)",
        Only::From13 => " (CUDA 13)",
    };
    format!("| `{}`{only} | {when} | {} |\n", api.symbol, api.meaning.sentence())
}
