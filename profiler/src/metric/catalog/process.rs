//! Metrics of the processes of targets, as the kernel counts them.

use super::attribute::CPU_MODE;
use super::{Gauge, Info, Kind, Metric, Origin, Stability, Sum, UpDownCounter, metrics};

metrics! {
    PROCESS_CPU_TIME: Sum {
        name: "process.cpu.time", unit: "s", origin: Process, stability: Development,
        bounds: &[], attributes: &[CPU_MODE],
        help: "CPU time of the process, since it started.",
    }
    PROCESS_MEMORY: UpDownCounter {
        name: "process.memory.usage", unit: "By", origin: Process, stability: Development,
        bounds: &[], attributes: &[],
        help: "Memory of the process that is in RAM.",
    }
    PROCESS_VIRTUAL_MEMORY: UpDownCounter {
        name: "process.memory.virtual", unit: "By", origin: Process, stability: Development,
        bounds: &[], attributes: &[],
        help: "Address space that the process has mapped.",
    }
    PROCESS_THREADS: UpDownCounter {
        name: "process.thread.count", unit: "{thread}", origin: Process, stability: Development,
        bounds: &[], attributes: &[],
        help: "Threads of the process.",
    }
    PROCESS_DESCRIPTORS: UpDownCounter {
        name: "process.unix.file_descriptor.count", unit: "{file_descriptor}", origin: Process, stability: Development,
        bounds: &[], attributes: &[],
        help: "File descriptors that the process has open.",
    }
    PROCESS_UPTIME: Gauge {
        name: "process.uptime", unit: "s", origin: Process, stability: Development,
        bounds: &[], attributes: &[],
        help: "Time since the process started.",
    }
}
