//! Alerts on devices, and on servers that do not use them.

use super::super::series::Series;
use super::{Alert, Group, Rule};
use profiler::metric::{Info, catalog};

pub fn group() -> Group {
    Group {
        name: "gpuspan-gpu",
        help: "Devices: heat, power, faults, and servers that leave them idle.",
        rules: faults().into_iter().chain(slow()).map(Rule::Alert).collect(),
    }
}

fn over(window: &'static str, info: &Info) -> Series {
    Series::over(window, info)
}

fn faults() -> [Alert; 3] {
    let errors = over("1h", &catalog::HW_ERRORS.info).with(r#"error_type="uncorrected""#);
    [
        Alert {
            name: "GpuXid",
            value: over("10m", &catalog::GPU_XIDS.info).increase(),
            condition: "> 0",
            wait: "0m",
            severity: "critical",
            summary: "{{ $labels.hw_name }} reports Xid {{ $labels.gpuspan_gpu_xid_code }}",
            help: "A fault of the device or of a program on it, by NVIDIA's list of Xid codes. 79: it has fallen off the bus.",
            example: vec![(
                r#"gpuspan_gpu_xid_total{hw_id="g",hw_name="n",gpuspan_gpu_xid_code="79"}"#,
                "0x54 1x6",
            )],
        },
        Alert {
            name: "GpuMemoryErrors",
            value: errors.increase(),
            condition: "> 0",
            wait: "0m",
            severity: "critical",
            summary: "{{ $labels.hw_name }} had memory errors that could not be corrected",
            help: "What was computed with that memory is wrong. Drain and reset the device; replace it if they come back.",
            example: vec![(r#"hw_errors_total{hw_id="g",error_type="uncorrected"}"#, "0x30 1x30")],
        },
        Alert {
            name: "GpuNotWell",
            value: Series::all(&catalog::HW_STATUS.info).with(r#"hw_state!="ok""#).now(),
            condition: "> 0",
            wait: "5m",
            severity: "critical",
            summary: "{{ $labels.hw_name }} is {{ $labels.hw_state }}",
            help: "Its driver says so, or no longer answers for it.",
            example: vec![(r#"hw_status{hw_id="g",hw_state="failed"}"#, "1x60")],
        },
    ]
}

fn slow() -> [Alert; 3] {
    let throttled = over("5m", &catalog::GPU_THROTTLE_TIME.info)
        .with(r#"gpuspan_gpu_throttle_reason=~"thermal|board_limit|reliability""#);
    let idle = over("10m", &catalog::GPU_IDLE.info).with(r#"gpuspan_idle_reason="cpu_late""#);
    let [used, limit] = [&catalog::HW_GPU_MEMORY_USAGE.info, &catalog::HW_GPU_MEMORY_LIMIT.info]
        .map(|info| Series::all(info).now());
    [
        Alert {
            name: "GpuThrottled",
            value: throttled.rates("hw_id, hw_name, gpuspan_gpu_throttle_reason"),
            condition: "> 0.1",
            wait: "5m",
            severity: "warning",
            summary: "{{ $labels.hw_name }} is slowed down {{ $value | humanizePercentage }} of the time ({{ $labels.gpuspan_gpu_throttle_reason }})",
            help: "Heat: look at its cooling. The board's limit: at its supply. A device that is held down by its power limit alone works as bought.",
            example: vec![(
                r#"gpuspan_gpu_throttle_time_seconds_total{hw_id="g",gpuspan_gpu_throttle_reason="thermal"}"#,
                "0+30x60",
            )],
        },
        Alert {
            name: "GpuMemoryFull",
            value: format!("max by (hw_id) ({used}) / max by (hw_id) ({limit})"),
            condition: "> 0.98",
            wait: "10m",
            severity: "info",
            summary: "The memory of {{ $labels.hw_id }} is {{ $value | humanizePercentage }} full",
            help: "Servers reserve most of it at their start; beyond that little is left for another process or a larger batch.",
            example: vec![
                (r#"hw_gpu_memory_usage_bytes{hw_id="g"}"#, "99x60"),
                (r#"hw_gpu_memory_limit_bytes{hw_id="g"}"#, "100x60"),
            ],
        },
        Alert {
            name: "EngineBoundByCpu",
            value: idle.rates("service_name, service_instance_id"),
            condition: "> 0.3",
            wait: "10m",
            severity: "info",
            summary: "The GPU of {{ $labels.service_instance_id }} waits {{ $value | humanizePercentage }} of the time for the CPU",
            help: "Requests are there, work is not: asynchronous scheduling, CUDA graphs or a faster core help.",
            example: vec![(
                r#"gpuspan_gpu_idle_time_seconds_total{service_name="s",service_instance_id="i",gpuspan_idle_reason="cpu_late"}"#,
                "0+30x60",
            )],
        },
    ]
}
