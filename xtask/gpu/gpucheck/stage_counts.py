"""Stages 5 and 7: gpuspan against torch.profiler on the same work at the same time. In: phases of a PyTorch program.
Out: kernels, copies and calls counted by both, their names, and GPU time inferred against GPU time measured by CUPTI.
"""

import os
import subprocess
import sys

from .compare import evidence, kernels, match, median, quantile, runs, within
from .context import FAILURES
from .demangle import demangler
from .report import DIFFERS, FACT, OK
from .worker import end_with_parent

STAGE, TIME = "counts", "GPU time"
#: Shorter waits add nothing to gpuspan's lower bound.
LONG_NS = 50_000
#: `long` while twice as many processes as there are CPUs keep these busy.
LOADED = "long, busy CPUs"
#: Phase and rounds: long enough for a second or so of a fast GPU's time to be worth measuring.
PHASES = [
    ("eager", 300),
    ("queued", 300),
    ("long", 100),
    (LOADED, 100),
    ("streams", 100),
    ("threads", 50),
    ("copies", 50),
    ("allocations", 20),
    ("record_and_replay", 300),
    ("triton", 300),
]
#: Calls that torch.profiler records, too; those it leaves out are not compared.
CALLS = (
    "cudaLaunchKernel",
    "cudaLaunchKernelExC",
    "cudaGraphLaunch",
    "cudaMemcpyAsync",
    "cudaMemsetAsync",
    "cudaMalloc",
    "cudaFree",
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
)

#: What these ask of the driver.
BELOW = {
    "cudaLaunchKernel": "cuLaunchKernel",
    "cudaLaunchKernelExC": "cuLaunchKernelEx",
    "cudaMemsetAsync": "cuMemsetD8Async",
}


def run(context, deadline):
    if context.blind:
        context.report.skip(STAGE, "against torch.profiler", context.blind)
    for name, rounds in PHASES:
        try:
            phase(context, deadline, name, context.settings.times(rounds))
        except FAILURES as error:
            context.report.skip(STAGE, name, error)


def phase(context, deadline, name, rounds):
    what = name.split(",")[0]

    def work(worker):
        with Busy(2 * os.cpu_count() if name == LOADED else 0):
            return worker.ask(deadline, "phase", name=what, rounds=rounds, profile=True)

    context.workload(deadline).ask(deadline, "phase", name=what, rounds=2, profile=False)
    if context.blind:
        return alone(context, name, work(context.workload(deadline)))
    summary, answer = context.observed(deadline, "counts-" + name, work)
    trace = answer["trace"]
    context.report.keep("counts " + name, answer)
    if summary["loss"]["lost"] or not summary["loss"]["balanced"]:
        context.report.add(STAGE, name, f"gpuspan lost {summary['loss']['lost']} records", DIFFERS)
    if not any(trace[part] for part in ("kernels", "copies", "runtime")):
        why = "torch.profiler recorded nothing on the device"
        return context.report.skip(STAGE, name, f"{why}; gpuspan: {runs(summary)} kernels, {copied(summary)}")
    compare(context, name, summary, trace)
    gpu_time(context, name, summary, trace, answer["wall_ns"])


class Busy:
    """Processes that do nothing, all the time; `with` ends them."""

    def __init__(self, count):
        command = [sys.executable, "-S", "-c", "while True: pass"]
        self.children = [subprocess.Popen(command, preexec_fn=end_with_parent) for _ in range(count)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in self.children:
            child.kill()
        for child in self.children:
            child.wait()


def alone(context, name, answer):
    """What torch.profiler says where gpuspan cannot look."""
    trace = answer["trace"]
    context.report.keep("counts " + name, answer)
    text = f"torch.profiler alone: {sum(trace['kernels'].values())} kernels, copies {trace['copies']}"
    context.report.add(STAGE, name, text)


def source(context):
    """Whose account gpuspan is compared with."""
    return "the stand-ins" if context.settings.standins else "CUPTI"


def copied(summary):
    found = {way: copy["count"] for way, copy in summary["copies"].items() if copy["count"]}
    return "copies " + (", ".join(f"{way} {count}" for way, count in found.items()) or "none")


def compare(context, name, summary, trace):
    report = context.report
    report.equal(STAGE, f"{name}: kernels", runs(summary), sum(trace["kernels"].values()), source(context))
    if trace["kernels"]:
        names(context, name, summary, trace)
    ways = {way: copy["count"] for way, copy in summary["copies"].items() if copy["count"]}
    if ways or trace["copies"]:
        report.equal(
            STAGE, f"{name}: copies", dict(sorted(ways.items())), dict(sorted(trace["copies"].items())), source(context)
        )
    sets = summary.get("sets", {}).get("count")
    if trace["sets"] and sets is not None:
        report.equal(STAGE, f"{name}: sets", sets, trace["sets"], source(context))
    calls = {call: (summary["calls"].get(call, 0), trace["runtime"].get(call, 0)) for call in CALLS}
    odd = {call: pair for call, pair in calls.items() if pair[0] != pair[1]}
    # CUPTI hears runtimes that are linked into libraries; gpuspan sees what they ask of the driver.
    linked = [call for call, (_, theirs) in odd.items() if summary["calls"].get(BELOW.get(call), 0) == theirs]
    if odd and len(linked) == len(odd):
        below = ", ".join(f"{call} {odd[call][1]} as {BELOW[call]}" for call in linked)
        return report.add(STAGE, f"{name}: calls", f"of runtimes that are linked in: {below}", OK)
    text = ", ".join(f"{call} {ours} ({source(context)} {theirs})" for call, (ours, theirs) in odd.items())
    same = ", ".join(f"{call} {pair[0]}" for call, pair in calls.items() if call not in odd and pair[0])
    report.add(STAGE, f"{name}: calls", f"differ: {text}; equal: {same}" if odd else same, DIFFERS if odd else OK)


def names(context, name, summary, trace):
    """Runs by kernel name on both sides."""
    found = match(kernels(summary, demangler()), trace["kernels"])
    context.report.keep("names " + name, found)
    left = sum(found["only_gpuspan"].values())
    text = f"{found['by_name']} runs by full name, {found['by_base_name']} by base name, {left} not"
    text += ": " + ", ".join(list(found["only_gpuspan"])[:3]) if left else ""
    # Handles that are older than the attach; as many runs as the other side has of kernels that we do not name.
    old = evidence(summary).get("opaque_handle", 0)
    if left and left == old == sum(found["only_other"].values()):
        return context.report.add(STAGE, f"{name}: names", f"{text} (driver handles older than the attach)", FACT)
    context.report.add(STAGE, f"{name}: names", text, DIFFERS if left else OK)


def gpu_time(context, name, summary, trace, wall_ns):
    """The inferred bounds against the union of what CUPTI saw on the device."""
    if not trace["busy_ns"]:
        return
    time_ = summary["steps"]["gpu_ns"]
    low, high, busy = time_["bounded_lo"], time_["bounded_hi"], trace["busy_ns"]
    ms = [f"{figure / 1e6:.1f}" for figure in (low, high, busy, wall_ns)]
    text = "gpuspan {} to {} ms, {} {} ms busy of {} ms; ".format(*ms[:2], source(context), *ms[2:])
    text += f"bounds at {low / busy:.2f} and {high / busy:.2f} of it, the best guess at {time_['estimated'] / busy:.2f}"
    if trace["sum_ns"] > busy * 1.001:
        text += f"; the sum of all kernels and copies is {trace['sum_ns'] / 1e6:.1f} ms"
    context.report.add(TIME, name, text, OK if within(low, busy, high) else DIFFERS)
    if trace.get("waits"):
        context.report.add(TIME, f"{name}: waits", waits(trace["waits"]))


def waits(found):
    """What a lower bound by waits may rest on: how long the device is idle while the CPU waits for it."""
    idle = [idle / 1e3 for _, idle in found]
    long = [idle / 1e3 for duration, idle in found if duration >= LONG_NS]
    text = f"{len(found)} waits by CUPTI, {sum(duration for duration, _ in found) / 1e6:.1f} ms, device idle in them: "
    text += f"median {median(idle):.1f} µs, 90 % {quantile(idle, 0.9):.1f}, 99 % {quantile(idle, 0.99):.1f}, "
    text += f"most {max(idle):.1f}"
    return text + (f"; of {len(long)} that last {LONG_NS / 1e3:.0f} µs: most {max(long):.1f}" if long else "")
