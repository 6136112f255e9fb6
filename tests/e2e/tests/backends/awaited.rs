//! Which metrics of the catalogue this run does not emit: those that are still awaited, and those that another run
//! emits. Both lists are checked in both directions, so that neither outlives its reason.

use std::collections::BTreeSet;

use profiler::metric::{Info, catalog};
use xtask::dashboards::series;

/// In the catalogue, and not emitted yet.
const AWAITED: &[&str] = &[];

/// Emitted where this run does not get to, and where that is seen.
const ELSEWHERE: &[(&str, &str)] = &[
    ("gpuspan.engine.step.tokens", "SGLang does not say it; llama.cpp does (target `engines`, llama_edges)"),
    (
        "gpuspan.engine.queue.duration",
        "SGLang says nothing of its queue; llama-server and vLLM do (target `servers`)",
    ),
    ("gpuspan.agent.targets", "no agent runs here (target `kernel`, agent)"),
    ("gpuspan.agent.step_downs", "no agent runs here (target `kernel`, agent)"),
    ("gpuspan.agent.off", "no agent runs here (target `kernel`, agent)"),
    ("gpuspan.target.cost", "no agent runs here (target `kernel`, agent)"),
    ("gpuspan.gpu.xid", "no device reports a fault (target `kernel`, devices)"),
    ("gpuspan.self.spans.dropped", "no trace here is beyond its budget (target `kernel`, traces)"),
    ("gpuspan.self.span_parts.dropped", "no span here is beyond its budget (target `kernel`, traces)"),
    ("gpuspan.self.export.dropped", "nothing is dropped while the backend is well (`export` and faults)"),
    ("gpuspan.self.metric.overflows", "no metric here has too many attribute sets (`metric::registry`)"),
    ("gpuspan.self.kernels_beyond", "the server has fewer kernels than the limit (`metric::kernels`)"),
];

/// Whether queries may ask for it without an answer.
pub fn is_awaited(info: &Info) -> bool {
    AWAITED.contains(&info.name)
}

/// Names of series that nothing has yet.
pub fn series() -> BTreeSet<String> {
    let all = catalog::all();
    let elsewhere = |info: &Info| ELSEWHERE.iter().any(|(name, _)| *name == info.name);
    all.filter(|info| is_awaited(info) || elsewhere(info)).flat_map(series::stored).collect()
}

/// What is stored against what is expected.
pub fn complaints(stored: &BTreeSet<String>) -> Vec<String> {
    let is_stored = |info: &Info| series::stored(info).iter().all(|name| stored.contains(name));
    let all = catalog::all;
    let mut complaints = Vec::new();
    for info in all() {
        let elsewhere = ELSEWHERE.iter().find(|(name, _)| *name == info.name);
        match (is_stored(info), is_awaited(info), elsewhere) {
            (true, true, _) => complaints.push(format!("{} has come: it is no longer awaited", info.name)),
            (true, false, Some((_, why))) => complaints.push(format!("{} is here, though {why}", info.name)),
            (false, false, None) => complaints.push(format!("{} has no series", info.name)),
            _ => {}
        }
    }
    let known = |name: &&str| all().any(|info| info.name == *name);
    let names = AWAITED.iter().copied().chain(ELSEWHERE.iter().map(|(name, _)| *name));
    complaints.extend(names.filter(|name| !known(name)).map(|name| format!("{name} is in no catalogue")));
    complaints
}
