"""What torch.profiler recorded. In: its Chrome trace. Out: counts by kernel, copy and call, and GPU time. Pure.

Categories are Kineto's (libkineto, `ActivityType.cpp`): `kernel`, `gpu_memcpy`, `gpu_memset`, `cuda_runtime`,
`cuda_driver`. Times in the trace are microseconds.
"""

from .compare import busy_ns, idle_within

#: Calls that return when the device has done what was asked before.
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")


def digest(trace):
    """The parts that gpuspan is compared with."""
    counts = {category: {} for category in DEVICE + ("cuda_runtime", "cuda_driver")}
    intervals, waits = [], []
    for event in trace.get("traceEvents", []):
        category = event.get("cat")
        if event.get("ph") != "X" or category not in counts:
            continue
        counts[category][event["name"]] = counts[category].get(event["name"], 0) + 1
        span = (round(event["ts"] * 1000), round(event["dur"] * 1000))
        if category in DEVICE:
            intervals.append(span)
        if category == "cuda_runtime" and event["name"] in WAITS:
            waits.append(span)
    return {
        "kernels": counts["kernel"],
        "copies": directions(counts["gpu_memcpy"]),
        "sets": sum(counts["gpu_memset"].values()),
        "runtime": counts["cuda_runtime"],
        "driver": counts["cuda_driver"],
        "busy_ns": busy_ns(intervals),
        "sum_ns": sum(duration for _, duration in intervals),
        "waits": idle_within(waits, intervals),
    }


def directions(copies):
    """`Memcpy HtoD (Pageable -> Device)` → `HtoD`."""
    out = {}
    for name, count in copies.items():
        words = name.split()
        direction = words[1] if len(words) > 1 else "unknown"
        out[direction] = out.get(direction, 0) + count
    return out
