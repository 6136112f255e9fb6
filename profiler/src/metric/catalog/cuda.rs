//! Metrics of CUDA calls and of the GPU time of targets.

use super::attribute::{
    CUDA_DEVICE_INDEX, CUDA_KERNEL_NAME, CUDA_MEMCPY_KIND, GPUSPAN_IDLE_REASON, GPUSPAN_PART,
};
use super::{Counter, Histogram, Info, Kind, Metric, Origin, Stability, Sum, UpDownCounter, metrics};

/// 64 B to 1 GiB: a token id or a logit row on one end, a layer's weights on the other.
const COPY_BYTES: &[f64] = &[
    64.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262144.0,
    1048576.0,
    4194304.0,
    16777216.0,
    67108864.0,
    268435456.0,
    1073741824.0,
];

metrics! {
    CUDA_KERNEL_LAUNCHES: Counter {
        name: "gpu.cuda.kernel.launch.calls", unit: "{call}", origin: Obi, stability: Development,
        bounds: &[], attributes: &[],
        help: "Kernel launches, each counted once whichever layers it crossed.",
    }
    KERNEL_LAUNCHES: Counter {
        name: "gpuspan.kernel.launches", unit: "{launch}", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[CUDA_KERNEL_NAME],
        help: "Runs of each kernel, launched or as a node of a graph; without a name where none could be learnt.",
    }
    CUDA_GRAPH_LAUNCHES: Counter {
        name: "gpu.cuda.graph.launch.calls", unit: "{call}", origin: Obi, stability: Development,
        bounds: &[], attributes: &[],
        help: "Launches of CUDA graphs, each counted once however many nodes it has.",
    }
    CUDA_COPY_SIZES: Histogram {
        name: "gpu.cuda.memory.copies", unit: "By", origin: Obi, stability: Development,
        bounds: COPY_BYTES, attributes: &[CUDA_MEMCPY_KIND],
        help: "Sizes of memory copies by direction.",
    }
    CUDA_ALLOCATED: Counter {
        name: "gpu.cuda.memory.allocations", unit: "By", origin: Obi, stability: Development,
        bounds: &[], attributes: &[],
        help: "Bytes of device memory allocated.",
    }
    CUDA_FREED: Counter {
        name: "gpu.cuda.memory.free.bytes", unit: "By", origin: Obi, stability: Development,
        bounds: &[], attributes: &[],
        help: "Bytes of device memory freed.",
    }
    CUDA_STREAM_SYNCHRONIZES: Counter {
        name: "gpu.cuda.stream.synchronize.calls", unit: "{call}", origin: Obi, stability: Development,
        bounds: &[], attributes: &[],
        help: "Calls that waited for a stream.",
    }
    CUDA_DEVICE_SYNCHRONIZES: Counter {
        name: "gpu.cuda.device.synchronize.calls", unit: "{call}", origin: Obi, stability: Development,
        bounds: &[], attributes: &[],
        help: "Calls that waited for a device or context.",
    }
    CUDA_EVENT_SYNCHRONIZES: Counter {
        name: "gpu.cuda.event.synchronize.calls", unit: "{call}", origin: Obi, stability: Development,
        bounds: &[], attributes: &[],
        help: "Calls that waited for an event.",
    }
    COPIED_BYTES: Counter {
        name: "gpuspan.memory.copied", unit: "By", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[CUDA_MEMCPY_KIND],
        help: "Bytes copied by direction, exactly, where the histogram's sum is a rounded double.",
    }
    CUDA_SET_BYTES: Counter {
        name: "gpu.cuda.memset.bytes", unit: "By", origin: Obi, stability: Development,
        bounds: &[], attributes: &[],
        help: "Bytes of device memory that were set.",
    }
    CUDA_STREAM_CREATES: Counter {
        name: "gpu.cuda.stream.create.calls", unit: "{call}", origin: Obi, stability: Development,
        bounds: &[], attributes: &[],
        help: "Streams created.",
    }
    CUDA_STREAM_DESTROYS: Counter {
        name: "gpu.cuda.stream.destroy.calls", unit: "{call}", origin: Obi, stability: Development,
        bounds: &[], attributes: &[],
        help: "Streams destroyed.",
    }
    CUDA_EVENT_RECORDS: Counter {
        name: "gpu.cuda.event.record.calls", unit: "{call}", origin: Obi, stability: Development,
        bounds: &[], attributes: &[],
        help: "Events recorded in streams.",
    }
    MEMORY_LIVE: UpDownCounter {
        name: "gpuspan.memory.live", unit: "By", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[],
        help: "Device memory that the target has allocated since gpuspan attached, and not freed.",
    }
    GPU_BUSY: Sum {
        name: "gpuspan.gpu.busy.time", unit: "s", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_PART, CUDA_DEVICE_INDEX],
        help: "GPU time of engines' iterations, by what it was for: `prefill`, `decode`, or `unattributed` where that is not known. The parts are the whole.",
    }
    GPU_IDLE: Sum {
        name: "gpuspan.gpu.idle.time", unit: "s", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[GPUSPAN_IDLE_REASON, CUDA_DEVICE_INDEX],
        help: "Time in which the GPU did nothing between a process's first work and its last.",
    }
    KERNEL_GPU_TIME: Sum {
        name: "gpuspan.kernel.gpu.time", unit: "s", origin: Gpuspan, stability: Development,
        bounds: &[], attributes: &[CUDA_KERNEL_NAME],
        help: "GPU time by kernel, where launches of different mixes tell kernels apart; without a name for the rest. Estimated.",
    }
}
