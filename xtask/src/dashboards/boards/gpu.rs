//! The devices, as their driver tells, and what the observed servers do with them.

use super::super::grafana::{Board, Look, Panel, Row};
use super::super::series::Series;
use super::{GPU, INSTANCE, SERVICE};
use profiler::metric::{Info, catalog};

pub fn board() -> Board {
    Board {
        uid: "gpuspan-gpu",
        title: "gpuspan / GPU",
        help: "Whether the GPUs work, for what, at what cost, and why not.",
        variables: vec![SERVICE, INSTANCE, GPU],
        rows: vec![
            Row { title: "What servers do", panels: work() },
            Row { title: "Why the GPU waits, and what it costs", panels: waste() },
            Row { title: "Devices", panels: devices() },
            Row { title: "Health", panels: health() },
            Row { title: "Calls and memory of servers", panels: calls() },
        ],
        since: "now-30m",
        refresh: "10s",
    }
}

/// Of the chosen devices.
fn device(info: &Info) -> Series {
    Series::all(info).with(r#"hw_id=~"$gpu""#)
}

fn work() -> Vec<Panel> {
    let busy = Series::shown(&catalog::GPU_BUSY.info);
    let kernels = Series::shown(&catalog::KERNEL_GPU_TIME.info);
    let launches = Series::shown(&catalog::KERNEL_LAUNCHES.info);
    vec![
        Panel::new(Look::Stack, "Busy, by what for", "percentunit", "Seconds of GPU time a second, for prompts and for answers. `unattributed` is of no known request.")
            .ask(busy.rates("gpuspan_part"), "{{gpuspan_part}}"),
        Panel::new(Look::Stack, "Busy, by kernel", "percentunit", "The ten kernels with the most GPU time. Estimated from launches of different mixes; without a name: not told apart.")
            .ask(format!("topk(10, {})", kernels.rates("cuda_kernel_name")), "{{cuda_kernel_name}}"),
        Panel::new(Look::Stack, "Launches, by kernel", "ops", "The ten kernels that run most often, as launches or nodes of graphs.")
            .ask(format!("topk(10, {})", launches.rates("cuda_kernel_name")), "{{cuda_kernel_name}}"),
        Panel::new(Look::Lines, "Busy, by device", "percentunit", "Devices that wait for the slowest of their group show less.")
            .ask(busy.rates("service_instance_id, cuda_device_index"), "{{service_instance_id}} device {{cuda_device_index}}"),
    ]
}

fn waste() -> Vec<Panel> {
    let idle = Series::shown(&catalog::GPU_IDLE.info);
    let busy = Series::shown(&catalog::GPU_BUSY.info);
    let energy = Series::shown(&catalog::GPU_ENERGY.info);
    let tokens = Series::shown(&catalog::GEN_AI_TOKEN_USAGE.info)
        .part("sum")
        .with(r#"gen_ai_token_type="output""#)
        .rates("");
    vec![
        Panel::new(Look::Stack, "Idle, by reason", "percentunit", "`no_request`: nothing to do. `cpu_late`: the engine's CPU thread did not have the next work ready. `launch_bound`: kernels end faster than they are launched.")
            .ask(idle.rates("gpuspan_idle_reason"), "{{gpuspan_idle_reason}}"),
        Panel::new(Look::Lines, "GPU time an output token", "s", "All GPU time of the servers, over the tokens of their answers.")
            .ask(format!("{} / {tokens}", busy.rates("")), "GPU time"),
        Panel::new(Look::Lines, "Energy an output token", "joule", "Energy while the servers' work ran, over the tokens of their answers.")
            .ask(format!("{} / {tokens}", energy.rates("")), "energy"),
        Panel::new(Look::Stack, "Power of work", "watt", "By what it was for. Idle power is not in it.")
            .ask(energy.rates("gpuspan_part"), "{{gpuspan_part}}"),
    ]
}

fn devices() -> Vec<Panel> {
    let [memory_used, memory_limit] =
        [&catalog::HW_GPU_MEMORY_USAGE.info, &catalog::HW_GPU_MEMORY_LIMIT.info]
            .map(|info| device(info).now());
    vec![
        Panel::new(
            Look::Lines,
            "Utilisation",
            "percentunit",
            "Share of time in which any kernel was resident: 1 says busy, not well used.",
        )
        .ask(device(&catalog::HW_GPU_UTILIZATION.info).now(), "{{hw_name}} {{hw_gpu_task}}")
        .most(1.0),
        Panel::new(
            Look::Lines,
            "Activity of units",
            "percentunit",
            "From Hopper on: streaming multiprocessors, tensor cores, memory.",
        )
        .ask(device(&catalog::GPU_ACTIVITY.info).now(), "{{hw_name}} {{gpuspan_gpu_unit}}")
        .most(1.0),
        Panel::new(Look::Lines, "Memory", "bytes", "In use and in all.")
            .ask(memory_used, "{{hw_name}}")
            .ask(memory_limit, "{{hw_name}} limit"),
        Panel::new(Look::Lines, "Memory by process", "bytes", "Of every process on the device, ours or not.")
            .ask(device(&catalog::PROCESS_GPU_MEMORY.info).now(), "{{process_pid}}"),
        Panel::new(
            Look::Lines,
            "Utilisation by process",
            "percentunit",
            "Share of time in which a process had a kernel resident.",
        )
        .ask(device(&catalog::PROCESS_GPU_UTILIZATION.info).now(), "{{process_pid}}"),
        Panel::new(Look::Lines, "Power", "watt", "Drawn by the board.")
            .ask(device(&catalog::HW_POWER.info).now(), "{{hw_name}}"),
        Panel::new(
            Look::Lines,
            "Energy",
            "watt",
            "Growth of the energy counter: power without gaps between samples.",
        )
        .ask(device(&catalog::HW_ENERGY.info).rate(), "{{hw_name}}"),
        Panel::new(Look::Lines, "PCIe and NVLink", "Bps", "Into and out of the device.").ask(
            device(&catalog::HW_GPU_IO.info).rate(),
            "{{hw_name}} {{gpuspan_gpu_link}} {{network_io_direction}}",
        ),
        Panel::new(Look::Lines, "Clocks", "hertz", "They fall under throttling, and while idle.")
            .ask(device(&catalog::GPU_CLOCK.info).now(), "{{hw_name}} {{gpuspan_gpu_clock_domain}}"),
    ]
}

fn health() -> Vec<Panel> {
    vec![
        Panel::new(
            Look::Lines,
            "Temperature",
            "celsius",
            "And the limits at which the device slows down or stops.",
        )
        .ask(device(&catalog::HW_TEMPERATURE.info).now(), "{{hw_name}} {{hw_sensor_location}}")
        .ask(device(&catalog::HW_TEMPERATURE_LIMIT.info).now(), "{{hw_name}} {{hw_limit_type}}"),
        Panel::new(
            Look::Lines,
            "Throttled, by reason",
            "percentunit",
            "Share of time. `low_utilization` is no trouble; heat and the board's limit are.",
        )
        .ask(device(&catalog::GPU_THROTTLE_TIME.info).rate(), "{{hw_name}} {{gpuspan_gpu_throttle_reason}}"),
        Panel::new(Look::Bars, "Throttled now", "short", "Reasons that hold at this moment.")
            .ask(device(&catalog::GPU_THROTTLED.info).now(), "{{hw_name}} {{gpuspan_gpu_throttle_reason}}"),
        Panel::new(Look::Bars, "State", "short", "One for the state that the device is in.")
            .ask(device(&catalog::HW_STATUS.info).now(), "{{hw_name}} {{hw_state}}"),
        Panel::new(
            Look::Lines,
            "Errors",
            "short",
            "Memory errors that were and were not corrected, since the driver was loaded.",
        )
        .ask(device(&catalog::HW_ERRORS.info).now(), "{{hw_name}} {{error_type}}"),
        Panel::new(
            Look::Lines,
            "Remapped rows",
            "short",
            "A failure to remap means that the device has to be replaced.",
        )
        .ask(device(&catalog::GPU_REMAPPED_ROWS.info).now(), "{{hw_name}} {{gpuspan_gpu_rows}}"),
        Panel::new(Look::Lines, "Xid events", "short", "Faults that the driver reports, by code.")
            .ask(device(&catalog::GPU_XIDS.info).increase(), "{{hw_name}} {{gpuspan_gpu_xid_code}}")
            .quiet("the device reports no fault"),
    ]
}

fn calls() -> Vec<Panel> {
    let rates = |info: &Info, by: &str| Series::shown(info).rates(by);
    vec![
        Panel::new(
            Look::Lines,
            "Launches",
            "ops",
            "Each counted once, whichever layers it crossed; a graph is one, however many nodes it has.",
        )
        .ask(rates(&catalog::CUDA_KERNEL_LAUNCHES.info, ""), "kernels")
        .ask(rates(&catalog::CUDA_GRAPH_LAUNCHES.info, ""), "graphs"),
        Panel::new(Look::Lines, "Waits", "ops", "Calls that wait for the GPU.")
            .ask(rates(&catalog::CUDA_STREAM_SYNCHRONIZES.info, ""), "stream")
            .ask(rates(&catalog::CUDA_DEVICE_SYNCHRONIZES.info, ""), "device")
            .ask(rates(&catalog::CUDA_EVENT_SYNCHRONIZES.info, ""), "event"),
        Panel::new(Look::Lines, "Copies", "Bps", "Bytes a second, by direction.")
            .ask(rates(&catalog::COPIED_BYTES.info, "cuda_memcpy_kind"), "{{cuda_memcpy_kind}}"),
        Panel::new(
            Look::Lines,
            "Sizes of copies, p95",
            "bytes",
            "Small copies cost their latency, not their size.",
        )
        .ask(
            Series::shown(&catalog::CUDA_COPY_SIZES.info).quantile(0.95, "cuda_memcpy_kind"),
            "{{cuda_memcpy_kind}}",
        ),
        Panel::new(
            Look::Lines,
            "Device memory of servers",
            "bytes",
            "Allocated since gpuspan attached, and not freed.",
        )
        .ask(Series::shown(&catalog::MEMORY_LIVE.info).now(), "{{service_instance_id}}"),
        Panel::new(
            Look::Lines,
            "Allocated and freed",
            "Bps",
            "A serving engine allocates at its start; later calls are stalls.",
        )
        .ask(rates(&catalog::CUDA_ALLOCATED.info, ""), "allocated")
        .ask(rates(&catalog::CUDA_FREED.info, ""), "freed"),
        Panel::new(Look::Lines, "Streams and events", "ops", "Calls a second.")
            .ask(rates(&catalog::CUDA_STREAM_CREATES.info, ""), "streams created")
            .ask(rates(&catalog::CUDA_STREAM_DESTROYS.info, ""), "streams destroyed")
            .ask(rates(&catalog::CUDA_EVENT_RECORDS.info, ""), "events recorded"),
        Panel::new(Look::Lines, "Memory sets", "Bps", "Bytes of device memory that were set.")
            .ask(rates(&catalog::CUDA_SET_BYTES.info, ""), "set"),
    ]
}
