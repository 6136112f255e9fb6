//! Metrics of gpuspan itself: what it lost, left out, sent, and costs.

use super::attribute::{
    GPUSPAN_DESTINATION, GPUSPAN_DETAIL_LEVEL, GPUSPAN_LOSS_REASON, GPUSPAN_METRIC_NAME, GPUSPAN_PROBE_STATE,
    GPUSPAN_SAMPLING, GPUSPAN_SIGNAL, GPUSPAN_TABLE,
};
use super::{Counter, Gauge, Info, Kind, Metric, Origin, Stability, Sum, UpDownCounter, metrics};

metrics! {
    SELF_RECORDS_LOST: Counter {
        name: "gpuspan.self.records.lost", unit: "{record}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_LOSS_REASON],
        help: "Kernel records that were lost or not understood.",
    }
    SELF_SPANS_DROPPED: Counter {
        name: "gpuspan.self.spans.dropped", unit: "{span}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_LOSS_REASON],
        help: "Spans that a budget left out before they reached an exporter.",
    }
    SELF_SPAN_PARTS_DROPPED: Counter {
        name: "gpuspan.self.span_parts.dropped", unit: "{part}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_LOSS_REASON],
        help: "Parts of spans that a budget left out: `links`, `events`, `attributes`, and `values` that lost their end.",
    }
    SELF_TRACES: Counter {
        name: "gpuspan.self.requests", unit: "{request}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_SAMPLING],
        help: "Finished requests by whether and why they have a trace; metrics have all of them.",
    }
    SELF_STEPS_SHOWN: Counter {
        name: "gpuspan.self.steps.shown", unit: "{step}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[],
        help: "Iterations of engines that have a span.",
    }
    SELF_STEPS_LET_GO: Counter {
        name: "gpuspan.self.steps.let_go", unit: "{step}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[],
        help: "Spans of iterations that went before all of their members' requests had finished, and lack their links.",
    }
    SELF_EXPORT_PRODUCED: Counter {
        name: "gpuspan.self.export.produced", unit: "{item}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_DESTINATION, GPUSPAN_SIGNAL],
        help: "Spans and metric points given to an exporter: exported, dropped or still queued.",
    }
    SELF_EXPORT_EXPORTED: Counter {
        name: "gpuspan.self.export.exported", unit: "{item}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_DESTINATION, GPUSPAN_SIGNAL],
        help: "Spans and metric points that their destination took.",
    }
    SELF_EXPORT_DROPPED: Counter {
        name: "gpuspan.self.export.dropped", unit: "{item}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_DESTINATION, GPUSPAN_SIGNAL, GPUSPAN_LOSS_REASON],
        help: "Spans and metric points that never reached their destination.",
    }
    SELF_EXPORT_FAILURES: Counter {
        name: "gpuspan.self.export.failures", unit: "{attempt}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_DESTINATION, GPUSPAN_SIGNAL],
        help: "Attempts to export that failed, whether or not a later one succeeded.",
    }
    SELF_METRIC_OVERFLOWS: Counter {
        name: "gpuspan.self.metric.overflows", unit: "{record}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_METRIC_NAME],
        help: "Lookups of an attribute set beyond the limit of its metric; their values are in the overflow point.",
    }
    SELF_KERNELS_BEYOND: Counter {
        name: "gpuspan.self.kernels_beyond", unit: "{kernel}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[],
        help: "Kernels whose launches are in the point `other`, because others had come before.",
    }
    SELF_CPU_TIME: Sum {
        name: "gpuspan.self.cpu.time", unit: "s", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[],
        help: "CPU time that gpuspan used in user space.",
    }
    SELF_PROBES: UpDownCounter {
        name: "gpuspan.self.probes", unit: "{probe}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_PROBE_STATE],
        help: "Probes of a target by state.",
    }
    SELF_MEMORY: UpDownCounter {
        name: "gpuspan.self.memory.usage", unit: "By", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[],
        help: "Memory of gpuspan that is in RAM.",
    }
    SELF_RECORDS: Counter {
        name: "gpuspan.self.records.received", unit: "{record}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[],
        help: "Records that the kernel side sent and that arrived.",
    }
    SELF_BPF_TIME: Sum {
        name: "gpuspan.self.bpf.time", unit: "s", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[],
        help: "Time that gpuspan's probes ran in the threads of targets, where the kernel measures it (`kernel.bpf_stats_enabled`).",
    }
    SELF_BPF_RUNS: Counter {
        name: "gpuspan.self.bpf.runs", unit: "{run}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[],
        help: "How often gpuspan's probes ran, where the kernel counts it.",
    }
    SELF_BEYOND: Counter {
        name: "gpuspan.self.beyond", unit: "{item}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_TABLE],
        help: "What found no room in a table (`docs/limits.md`), by table.",
    }
    AGENT_TARGETS: UpDownCounter {
        name: "gpuspan.agent.targets", unit: "{target}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_DETAIL_LEVEL],
        help: "Targets of an agent by how much of them is observed.",
    }
    AGENT_STEP_DOWNS: Counter {
        name: "gpuspan.agent.step_downs", unit: "{step}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[],
        help: "Times that less of a target was observed because a budget or a limit was used up.",
    }
    AGENT_OFF: UpDownCounter {
        name: "gpuspan.agent.off", unit: "1", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[],
        help: "1 while an agent observes nothing because somebody said so, or because a newer one runs on its node.",
    }
    TARGET_COST: Gauge {
        name: "gpuspan.target.cost", unit: "1", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[],
        help: "What probes slow a target down by, as a share of one core, reckoned from how often they run and what one costs.",
    }
}
