//! gpuspan itself and the processes that it observes: what it costs, what it lost, what it sent.

use super::super::grafana::{Board, Look, Panel, Row};
use super::super::series::{Series, sum};
use super::{INSTANCE, SERVICE};
use profiler::metric::{Info, catalog};

pub fn board() -> Board {
    Board {
        uid: "gpuspan-own",
        title: "gpuspan / Itself",
        help: "What gpuspan costs, what it lost, and what became of what it sent.",
        variables: vec![SERVICE, INSTANCE],
        rows: vec![
            Row { title: "Cost", panels: cost() },
            Row { title: "Loss", panels: loss() },
            Row { title: "Export", panels: export() },
            Row { title: "Agents", panels: agents() },
            Row { title: "Observed processes", panels: processes() },
        ],
        since: "now-1h",
        refresh: "30s",
    }
}

/// Instances of gpuspan, one for each server it observes.
const EACH: &str = "service_instance_id";

fn rates(info: &Info, by: &str) -> String {
    Series::all(info).rates(by)
}

fn cost() -> Vec<Panel> {
    vec![
        Panel::new(Look::Lines, "CPU", "percentunit", "Of one core, in user space.")
            .ask(rates(&catalog::SELF_CPU_TIME.info, EACH), "{{service_instance_id}}"),
        Panel::new(Look::Lines, "Memory", "bytes", "In RAM. Tables are bounded, so it levels off.")
            .ask(Series::all(&catalog::SELF_MEMORY.info).now(), "{{service_instance_id}}"),
        Panel::new(Look::Lines, "Time in probes", "percentunit", "Of one core, in the threads of the observed processes. Measured where `kernel.bpf_stats_enabled` is 1.")
            .ask(rates(&catalog::SELF_BPF_TIME.info, EACH), "{{service_instance_id}}")
            .quiet("the kernel measures it only while `kernel.bpf_stats_enabled` is 1"),
        Panel::new(Look::Lines, "Probe runs", "ops", "How often probes ran, a second, where the kernel counts it.")
            .ask(rates(&catalog::SELF_BPF_RUNS.info, EACH), "{{service_instance_id}}")
            .quiet("the kernel counts it only while `kernel.bpf_stats_enabled` is 1"),
        Panel::new(Look::Lines, "Records", "ops", "Records that the kernel side sent, a second.")
            .ask(rates(&catalog::SELF_RECORDS.info, EACH), "{{service_instance_id}}"),
        Panel::new(Look::Bars, "Probes", "short", "`missing` ones leave something unseen: `gpuspan check` says what.")
            .ask(sum("gpuspan_probe_state", &Series::all(&catalog::SELF_PROBES.info).now()), "{{gpuspan_probe_state}}"),
    ]
}

fn agents() -> Vec<Panel> {
    const NONE: &str = "no agent runs";
    vec![
        Panel::new(
            Look::Bars,
            "Targets",
            "short",
            "By how much of them is observed: `aggregate`, `requests` and `off` are what a budget has come to.",
        )
        .ask(sum("gpuspan_detail_level", &Series::all(&catalog::AGENT_TARGETS.info).now()), "{{gpuspan_detail_level}}")
        .quiet(NONE),
        Panel::new(
            Look::Lines,
            "Cost of probes in targets",
            "percentunit",
            "Of one core, reckoned from how often probes run and what one costs on the machine. `budget.target` limits it.",
        )
        .ask(format!("topk(10, {})", Series::all(&catalog::TARGET_COST.info).now()), "{{service_name}} {{service_instance_id}}")
        .quiet(NONE),
        Panel::new(Look::Lines, "Stepped down", "ops", "Times that less was observed because a budget was used up.")
            .ask(rates(&catalog::AGENT_STEP_DOWNS.info, EACH), "{{service_instance_id}}")
            .quiet(NONE),
        Panel::new(Look::Lines, "Off", "short", "Agents that observe nothing because somebody said so, or because a newer one runs.")
            .ask(Series::all(&catalog::AGENT_OFF.info).now(), "{{service_instance_id}}")
            .quiet(NONE),
    ]
}

fn loss() -> Vec<Panel> {
    vec![
        Panel::new(
            Look::Lines,
            "Records lost",
            "ops",
            "Anything above zero means that counts are too low: raise --ring-bytes or lower --detail.",
        )
        .ask(rates(&catalog::SELF_RECORDS_LOST.info, "gpuspan_loss_reason"), "{{gpuspan_loss_reason}}"),
        Panel::new(
            Look::Lines,
            "Found no room",
            "ops",
            "What bounded tables (docs/limits.md) turned away or forgot.",
        )
        .ask(rates(&catalog::SELF_BEYOND.info, "gpuspan_table"), "{{gpuspan_table}}")
        .quiet("tables have room"),
        Panel::new(Look::Lines, "Spans left out", "ops", "A trace has a budget: 256 spans and 256 KB.")
            .ask(rates(&catalog::SELF_SPANS_DROPPED.info, "gpuspan_loss_reason"), "{{gpuspan_loss_reason}}")
            .quiet("every span fits its trace's budget"),
        Panel::new(
            Look::Lines,
            "Parts of spans left out",
            "ops",
            "Links, events, attributes and ends of values beyond the budget.",
        )
        .ask(rates(&catalog::SELF_SPAN_PARTS_DROPPED.info, "gpuspan_loss_reason"), "{{gpuspan_loss_reason}}")
        .quiet("every part fits its span's budget"),
        Panel::new(
            Look::Lines,
            "Attribute sets beyond the limit",
            "ops",
            "Their values are in the point with `otel_metric_overflow`.",
        )
        .ask(rates(&catalog::SELF_METRIC_OVERFLOWS.info, "gpuspan_metric_name"), "{{gpuspan_metric_name}}")
        .quiet("no metric has too many attribute sets"),
        Panel::new(
            Look::Lines,
            "Kernels beyond the limit",
            "ops",
            "Their launches are in the point `other`.",
        )
        .ask(rates(&catalog::SELF_KERNELS_BEYOND.info, EACH), "{{service_instance_id}}")
        .quiet("the target has fewer kernels than the limit"),
    ]
}

fn export() -> Vec<Panel> {
    let by = "gpuspan_destination, gpuspan_signal";
    let name = "{{gpuspan_destination}} {{gpuspan_signal}}";
    vec![
        Panel::new(Look::Lines, "Produced", "ops", "Spans and points given to exporters, a second.")
            .ask(rates(&catalog::SELF_EXPORT_PRODUCED.info, by), name),
        Panel::new(Look::Lines, "Exported", "ops", "Spans and points that their destination took, a second.")
            .ask(rates(&catalog::SELF_EXPORT_EXPORTED.info, by), name),
        Panel::new(
            Look::Lines,
            "Dropped",
            "ops",
            "Spans and points that never reached their destination, by why.",
        )
        .ask(
            rates(
                &catalog::SELF_EXPORT_DROPPED.info,
                "gpuspan_destination, gpuspan_signal, gpuspan_loss_reason",
            ),
            "{{gpuspan_destination}} {{gpuspan_signal}} {{gpuspan_loss_reason}}",
        )
        .quiet("nothing was ever dropped"),
        Panel::new(
            Look::Lines,
            "Failed attempts",
            "ops",
            "Attempts to export that failed, whether or not a later one succeeded.",
        )
        .ask(rates(&catalog::SELF_EXPORT_FAILURES.info, by), name),
        Panel::new(
            Look::Lines,
            "Requests by trace",
            "reqps",
            "Finished requests by whether and why they have a trace; metrics have all of them.",
        )
        .ask(rates(&catalog::SELF_TRACES.info, "gpuspan_sampling"), "{{gpuspan_sampling}}"),
        Panel::new(
            Look::Lines,
            "Steps with a span",
            "ops",
            "Iterations that are shown in a trace of their own, and those whose span lacks links.",
        )
        .ask(rates(&catalog::SELF_STEPS_SHOWN.info, ""), "shown")
        .ask(rates(&catalog::SELF_STEPS_LET_GO.info, ""), "without all links"),
    ]
}

fn processes() -> Vec<Panel> {
    let shown = |info| Series::shown(info);
    vec![
        Panel::new(
            Look::Lines,
            "CPU",
            "percentunit",
            "Of one core. An engine at 1 is bound by its CPU thread.",
        )
        .ask(
            shown(&catalog::PROCESS_CPU_TIME.info).rates("service_instance_id, cpu_mode"),
            "{{service_instance_id}} {{cpu_mode}}",
        ),
        Panel::new(Look::Lines, "Memory", "bytes", "In RAM, and mapped.")
            .ask(shown(&catalog::PROCESS_MEMORY.info).now(), "{{service_instance_id}}")
            .ask(shown(&catalog::PROCESS_VIRTUAL_MEMORY.info).now(), "{{service_instance_id}} mapped"),
        Panel::new(
            Look::Lines,
            "Threads and descriptors",
            "short",
            "A leak of either ends a server in days.",
        )
        .ask(shown(&catalog::PROCESS_THREADS.info).now(), "threads {{service_instance_id}}")
        .ask(shown(&catalog::PROCESS_DESCRIPTORS.info).now(), "descriptors {{service_instance_id}}"),
        Panel::new(Look::Lines, "Up", "s", "Falls to zero at a restart.")
            .ask(shown(&catalog::PROCESS_UPTIME.info).now(), "{{service_instance_id}}"),
    ]
}
