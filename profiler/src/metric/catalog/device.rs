//! Metrics of devices, and of processes and requests on them.

use super::attribute::{
    CUDA_DEVICE_INDEX, ERROR_TYPE, GPUSPAN_ENERGY_SOURCE, GPUSPAN_GPU_CLOCK_DOMAIN, GPUSPAN_GPU_LINK,
    GPUSPAN_GPU_ROWS, GPUSPAN_GPU_THROTTLE_REASON, GPUSPAN_GPU_UNIT, GPUSPAN_GPU_XID_CODE, GPUSPAN_PART,
    HW_GPU_TASK, HW_ID, HW_LIMIT_TYPE, HW_MODEL, HW_NAME, HW_PARENT, HW_SENSOR_LOCATION, HW_STATE, HW_TYPE,
    HW_VENDOR, NETWORK_IO_DIRECTION, PROCESS_PID,
};
use super::metrics;
use super::{Counter, Gauge, Info, Kind, Metric, Origin, Stability, Sum, UpDownCounter};

/// What every point of a device carries, and one more name or two.
macro_rules! of_device {
    ($($more:expr),*) => {
        &[HW_ID, HW_TYPE, HW_NAME, HW_MODEL, HW_VENDOR, HW_PARENT, $($more),*]
    };
}

metrics! {
    HW_GPU_UTILIZATION: Gauge {
        name: "hw.gpu.utilization", unit: "1", origin: Hardware, stability: Development,
        bounds: &[], attributes: of_device!(HW_GPU_TASK),
        help: "Share of time in which the device had any kernel to run, or its encoder or decoder anything to do. It says nothing of how much of the device that took: `gpuspan.gpu.activity` does.",
    }
    HW_GPU_MEMORY_USAGE: UpDownCounter {
        name: "hw.gpu.memory.usage", unit: "By", origin: Hardware, stability: Development,
        bounds: &[], attributes: of_device!(),
        help: "Memory of the device in use.",
    }
    HW_GPU_MEMORY_LIMIT: UpDownCounter {
        name: "hw.gpu.memory.limit", unit: "By", origin: Hardware, stability: Development,
        bounds: &[], attributes: of_device!(),
        help: "Memory of the device.",
    }
    HW_GPU_MEMORY_UTILIZATION: Gauge {
        name: "hw.gpu.memory.utilization", unit: "1", origin: Hardware, stability: Development,
        bounds: &[], attributes: of_device!(),
        help: "Share of the device's memory in use.",
    }
    HW_GPU_IO: Counter {
        name: "hw.gpu.io", unit: "By", origin: Hardware, stability: Development,
        bounds: &[], attributes: of_device!(NETWORK_IO_DIRECTION, GPUSPAN_GPU_LINK),
        help: "Bytes over the device's links, since it was first read.",
    }
    HW_ERRORS: Counter {
        name: "hw.errors", unit: "{error}", origin: Hardware, stability: Development,
        bounds: &[], attributes: of_device!(ERROR_TYPE),
        help: "Errors since the driver was loaded: `corrected` and `uncorrected` of memory, `pcie_replay` of the link.",
    }
    HW_STATUS: UpDownCounter {
        name: "hw.status", unit: "1", origin: Hardware, stability: Development,
        bounds: &[], attributes: of_device!(HW_STATE),
        help: "1 for the state that the device is in, 0 for the others.",
    }
    HW_POWER: Gauge {
        name: "hw.power", unit: "W", origin: Hardware, stability: Development,
        bounds: &[], attributes: of_device!(),
        help: "Power that the device takes: of the last 100 ms where it says that.",
    }
    HW_ENERGY: Sum {
        name: "hw.energy", unit: "J", origin: Hardware, stability: Development,
        bounds: &[], attributes: of_device!(GPUSPAN_ENERGY_SOURCE),
        help: "Energy that the device took, since it was first read.",
    }
    HW_TEMPERATURE: Gauge {
        name: "hw.temperature", unit: "Cel", origin: Hardware, stability: Development,
        bounds: &[], attributes: of_device!(HW_SENSOR_LOCATION),
        help: "Temperature of the device.",
    }
    HW_TEMPERATURE_LIMIT: Gauge {
        name: "hw.temperature.limit", unit: "Cel", origin: Hardware, stability: Development,
        bounds: &[], attributes: of_device!(HW_LIMIT_TYPE),
        help: "Temperature at which the device does something about it.",
    }
    GPU_CLOCK: Gauge {
        name: "gpuspan.gpu.clock", unit: "Hz", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: of_device!(GPUSPAN_GPU_CLOCK_DOMAIN),
        help: "Clocks of the device.",
    }
    GPU_THROTTLED: UpDownCounter {
        name: "gpuspan.gpu.throttled", unit: "1", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: of_device!(GPUSPAN_GPU_THROTTLE_REASON),
        help: "1 for each thing that holds the device's clock down now.",
    }
    GPU_THROTTLE_TIME: Sum {
        name: "gpuspan.gpu.throttle.time", unit: "s", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: of_device!(GPUSPAN_GPU_THROTTLE_REASON),
        help: "How long something held the device's clock down, since it was first read.",
    }
    GPU_ACTIVITY: Gauge {
        name: "gpuspan.gpu.activity", unit: "1", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: of_device!(GPUSPAN_GPU_UNIT),
        help: "Share of a unit of the device that was at work since the last reading, by the performance counters of Hopper and later.",
    }
    GPU_XIDS: Counter {
        name: "gpuspan.gpu.xid", unit: "{event}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: of_device!(GPUSPAN_GPU_XID_CODE),
        help: "Xid events: serious trouble with the device, the driver or a program on it.",
    }
    GPU_REMAPPED_ROWS: UpDownCounter {
        name: "gpuspan.gpu.remapped_rows", unit: "{row}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: of_device!(GPUSPAN_GPU_ROWS),
        help: "Rows of the device's memory that were replaced.",
    }
    PROCESS_GPU_MEMORY: UpDownCounter {
        name: "gpuspan.process.gpu.memory.usage", unit: "By", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[PROCESS_PID, HW_ID],
        help: "Memory of a device that a process of the target holds, as the driver says it.",
    }
    PROCESS_GPU_UTILIZATION: Gauge {
        name: "gpuspan.process.gpu.utilization", unit: "1", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[PROCESS_PID, HW_ID],
        help: "Share of time in which a process of the target had a kernel on the device (NVIDIA), or share of the compute units that it held (AMD).",
    }
    GPU_ENERGY: Sum {
        name: "gpuspan.gpu.energy", unit: "J", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_PART, CUDA_DEVICE_INDEX],
        help: "Energy of a device during the target's iterations, by what these did for their requests; what it took between them is not in it.",
    }
}
