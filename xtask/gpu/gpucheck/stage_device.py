"""Stage 8: what NVML answers here, how often it changes and what asking costs. In: three loads of known work. Out: which
figures are readable, their update intervals, process samples, and Hopper's GPM metrics beside the known work.

By `pynvml` (nvidia-ml-py on PyPI), which is skipped where it is not installed. Everything is read, nothing is set.
"""

import threading
import time

from .compare import median, quantile
from .context import FAILURES

STAGE = "device"
#: Loads and what each is known to do: matrix products, copies on the device, many small kernels.
LOADS = ("products", "memory", "small")
LOAD_S, IDLE_S = 3.0, 1.2
#: Between two looks at all figures.
PAUSE_S = 0.001
#: GPM compares two samples; NVIDIA asks for 100 ms between them (nvml.h, `nvmlGpmMetricsGet`).
GPM_INTERVALS_S = (0.01, 0.1, 1.0)
#: What GPM says of the whole device, by number (nvml.h, `nvmlGpmMetricId_t`).
GPM = {
    1: "graphics %",
    2: "SM %",
    3: "occupancy %",
    4: "integer %",
    5: "tensor %",
    7: "HMMA %",
    9: "IMMA %",
    10: "DRAM %",
    11: "fp64 %",
    12: "fp32 %",
    13: "fp16 %",
    20: "PCIe out MiB/s",
    21: "PCIe in MiB/s",
    60: "NVLink in MiB/s",
    61: "NVLink out MiB/s",
}
SAMPLE_KINDS = {0: "power", 1: "GPU utilisation", 2: "memory utilisation", 5: "SM clock", 6: "memory clock"}


def run(context, deadline):
    try:
        import pynvml as library

        library.nvmlInit()
        device = library.nvmlDeviceGetHandleByIndex(0)
    except Exception as error:  # No package, no library, no device: each is the reason.
        return context.report.skip(STAGE, "NVML", f"{type(error).__name__}: {error}")
    readings = answered(context, library, device)
    worker = context.workload(deadline)
    try:
        for kind in LOADS:
            worker.ask(deadline, "burn", kind=kind, seconds=0.3)
        changes(context, deadline, worker, library, device, readings)
        for kind in LOADS:
            gpm(context, deadline, worker, library, device, kind)
    except FAILURES as error:
        context.report.skip(STAGE, "under load", error)


def figures(library, device):
    """Name → how it is read."""

    def field(number):
        def read():
            value = library.nvmlDeviceGetFieldValues(device, [number])[0]
            if value.nvmlReturn:
                raise library.NVMLError(value.nvmlReturn)
            name = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal"}[value.valueType]
            return getattr(value.value, name)

        return read

    get = library
    return {
        "energy mJ": lambda: get.nvmlDeviceGetTotalEnergyConsumption(device),
        "power mW": lambda: get.nvmlDeviceGetPowerUsage(device),
        "power average mW (field 185)": field(185),
        "power instant mW (field 186)": field(186),
        "energy mJ (field 83)": field(83),
        "power limit mW": lambda: get.nvmlDeviceGetEnforcedPowerLimit(device),
        "GPU utilisation %": lambda: get.nvmlDeviceGetUtilizationRates(device).gpu,
        "memory utilisation %": lambda: get.nvmlDeviceGetUtilizationRates(device).memory,
        "memory used B": lambda: get.nvmlDeviceGetMemoryInfo(device).used,
        "SM clock MHz": lambda: get.nvmlDeviceGetClockInfo(device, get.NVML_CLOCK_SM),
        "memory clock MHz": lambda: get.nvmlDeviceGetClockInfo(device, get.NVML_CLOCK_MEM),
        "temperature °C": lambda: get.nvmlDeviceGetTemperature(device, get.NVML_TEMPERATURE_GPU),
        "clock reasons": lambda: get.nvmlDeviceGetCurrentClocksEventReasons(device),
        "PCIe out KB/s": lambda: get.nvmlDeviceGetPcieThroughput(device, get.NVML_PCIE_UTIL_TX_BYTES),
        "ECC errors": lambda: get.nvmlDeviceGetTotalEccErrors(
            device, get.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, get.NVML_VOLATILE_ECC
        ),
        "MIG mode": lambda: get.nvmlDeviceGetMigMode(device)[0],
        "accounting mode": lambda: get.nvmlDeviceGetAccountingMode(device),
        "persistence mode": lambda: get.nvmlDeviceGetPersistenceMode(device),
        "processes": lambda: len(get.nvmlDeviceGetComputeRunningProcesses(device)),
        "GPM supported": lambda: get.nvmlGpmQueryDeviceSupport(device).isSupportedDevice,
        "GPM streaming": lambda: get.nvmlGpmQueryIfStreamingEnabled(device),
        "UUID": lambda: get.nvmlDeviceGetUUID(device),
        "PCI bus": lambda: get.nvmlDeviceGetPciInfo(device).busId,
        "serial": lambda: get.nvmlDeviceGetSerial(device) and "readable",
    }


def answered(context, library, device):
    """Each figure asked ten times: its value and what asking costs."""
    found, refused, cost = {}, {}, {}
    for name, read in figures(library, device).items():
        try:
            times = []
            for _ in range(10):
                begin = time.perf_counter_ns()
                found[name] = read()
                times.append(time.perf_counter_ns() - begin)
            cost[name] = (median(times), max(times))
        except Exception as error:  # NVML's errors, and functions that this library lacks.
            refused[name] = str(error)
    context.report.keep("nvml answers", {"values": {k: str(v) for k, v in found.items()}, "refused": refused})
    context.report.keep("nvml cost ns", cost)
    values = ", ".join(f"{name} {value} ({cost[name][0] / 1e3:.0f} µs)" for name, value in found.items())
    context.report.add(STAGE, "figures, and what one costs to read", values)
    if refused:
        context.report.add(STAGE, "refused", ", ".join(f"{name}: {why}" for name, why in refused.items()))
    return found


#: Figures whose changes are followed.
FOLLOWED = (
    "energy mJ",
    "power mW",
    "power average mW (field 185)",
    "power instant mW (field 186)",
    "GPU utilisation %",
    "SM clock MHz",
)


class Follower(threading.Thread):
    """Looks at all followed figures again and again, and keeps each change with its time."""

    def __init__(self, reads):
        super().__init__(daemon=True)
        self.reads, self.done = reads, threading.Event()
        self.changes = {name: [] for name in reads}
        self.looks = 0

    def run(self):
        while not self.done.wait(PAUSE_S):
            self.looks += 1
            for name, read in self.reads.items():
                value = read()
                at = time.monotonic()
                kept = self.changes[name]
                if not kept or kept[-1][1] != value:
                    kept.append((at, value))


def changes(context, deadline, worker, library, device, readings):
    reads = {name: read for name, read in figures(library, device).items() if name in FOLLOWED and name in readings}
    follower = Follower(reads)
    since_us = int(time.time() * 1e6)
    follower.start()
    time.sleep(IDLE_S)
    burnt = worker.ask(deadline, "burn", kind="products", seconds=LOAD_S)
    time.sleep(IDLE_S)
    follower.done.set()
    follower.join()
    context.report.keep("nvml changes", {"load": burnt, "changes": follower.changes, "looks": follower.looks})
    for name, kept in follower.changes.items():
        context.report.add(STAGE, f"{name}: changes", interval_words(kept, burnt["begin_s"], burnt["end_s"]))
    samples(context, worker, library, device, since_us)


def interval_words(kept, begin, end):
    """How far apart changes are under load, how large a step is, and how long after the load begins half of it shows."""
    inside = [(at, value) for at, value in kept if begin <= at <= end]
    gaps = [(b[0] - a[0]) * 1e3 for a, b in zip(inside, inside[1:])]
    steps = [abs(b[1] - a[1]) for a, b in zip(inside, inside[1:])]
    if not gaps:
        return f"{len(inside)} changes under load"
    before = [value for at, value in kept if at < begin]
    top = max(value for _, value in inside)
    half = (before[-1] + top) / 2 if before else top
    lag = next(((at - begin) * 1e3 for at, value in inside if value >= half), float("nan"))
    text = f"{len(gaps)} under {end - begin:.1f} s of load, {median(gaps):.1f} ms apart (10 % {quantile(gaps, 0.1):.1f}, "
    text += f"90 % {quantile(gaps, 0.9):.1f}, most {max(gaps):.1f}), step {median(steps):.0f}; "
    return text + f"from {before[-1] if before else '?'} to at most {top}, half of it {lag:.0f} ms after the load began"


def samples(context, worker, library, device, since_us):
    """What NVML kept meanwhile: buffers of samples, and utilisation by process."""
    for kind, name in SAMPLE_KINDS.items():
        try:
            kept = library.nvmlDeviceGetSamples(device, kind, since_us)[1]
            context.report.add(STAGE, f"samples of {name}", spacing([sample.timeStamp for sample in kept]))
        except Exception as error:
            context.report.skip(STAGE, f"samples of {name}", error)
    for ask in ("nvmlDeviceGetProcessUtilization", "nvmlDeviceGetProcessesUtilizationInfo"):
        try:
            kept = getattr(library, ask)(device, since_us)
        except Exception as error:
            context.report.skip(STAGE, ask, f"{type(error).__name__}: {error}")
            continue
        own = [sample for sample in kept if sample.pid == worker.pid]
        values = [sample.smUtil for sample in own]
        text = f"{len(kept)} samples, {len(own)} of the workload: SM % {values}; "
        context.report.add(STAGE, ask, text + spacing([sample.timeStamp for sample in own]))
    try:
        found = library.nvmlDeviceGetComputeRunningProcesses(device)
        text = ", ".join(f"pid {process.pid} {process.usedGpuMemory} B" for process in found)
        context.report.add(STAGE, "processes", f"{text} (the workload is {worker.pid})")
    except Exception as error:
        context.report.skip(STAGE, "processes", error)


def spacing(stamps):
    gaps = [(b - a) / 1e3 for a, b in zip(stamps, stamps[1:]) if b > a]
    if not gaps:
        return f"{len(stamps)} samples"
    return f"{len(stamps)} samples over {(stamps[-1] - stamps[0]) / 1e6:.1f} s, {median(gaps):.1f} ms apart"


def gpm(context, deadline, worker, library, device, kind):
    """GPM over the middle of a load, by three intervals, and beside it what the load did."""
    found, failure = {}, []

    def look():
        try:
            time.sleep(0.5)
            for seconds in GPM_INTERVALS_S:
                found[seconds] = between(library, device, seconds)
        except Exception as error:
            failure.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    done = worker.ask(deadline, "burn", kind=kind, seconds=0.5 + sum(GPM_INTERVALS_S) + 0.4)
    thread.join()
    if failure:
        return context.report.skip(STAGE, f"GPM, {kind}", failure[0])
    context.report.keep(f"gpm {kind}", {"load": done, "by interval": {str(k): v for k, v in found.items()}})
    for seconds, (values, refused, costs) in found.items():
        text = ", ".join(f"{name} {value:.1f}" for name, value in values.items())
        text += f"; refused: {', '.join(refused)}" if refused else ""
        text += f" (a sample {costs[0]:.0f} µs, the metrics {costs[1]:.0f} µs)"
        context.report.add(STAGE, f"GPM, {kind}, {seconds * 1e3:.0f} ms", text)
    context.report.add(STAGE, f"{kind}: what ran", ", ".join(f"{k} {v:.4g}" for k, v in done.items()))


def between(library, device, seconds):
    """Values and refusals of the metrics between two samples, and what a sample and the metrics cost to get."""
    one, two = library.nvmlGpmSampleAlloc(), library.nvmlGpmSampleAlloc()
    try:
        begin = time.perf_counter_ns()
        library.nvmlGpmSampleGet(device, one)
        sample_us = (time.perf_counter_ns() - begin) / 1e3
        time.sleep(seconds)
        library.nvmlGpmSampleGet(device, two)
        asked = library.c_nvmlGpmMetricsGet_t()
        asked.version, asked.numMetrics = library.NVML_GPM_METRICS_GET_VERSION, len(GPM)
        asked.sample1, asked.sample2 = one, two
        for at, number in enumerate(GPM):
            asked.metrics[at].metricId = number
        begin = time.perf_counter_ns()
        library.nvmlGpmMetricsGet(asked)
        metrics_us = (time.perf_counter_ns() - begin) / 1e3
    finally:
        library.nvmlGpmSampleFree(one)
        library.nvmlGpmSampleFree(two)
    answers = [(name, asked.metrics[at]) for at, name in enumerate(GPM.values())]
    values = {name: metric.value for name, metric in answers if not metric.nvmlReturn}
    return values, [name for name, metric in answers if metric.nvmlReturn], (sample_us, metrics_us)
