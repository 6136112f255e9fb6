"""Stages 5 and 7: gpuspan against torch.profiler on the same work at the same time. In: phases of a PyTorch program.
Out: kernels, copies and calls counted by both, their names, and GPU time inferred against GPU time measured by CUPTI.
"""

from .compare import kernels, match, runs, within
from .context import FAILURES
from .demangle import demangler
from .report import DIFFERS, OK

STAGE, TIME = "counts", "GPU time"
#: Phase and rounds: long enough for a second or so of a fast GPU's time to be worth measuring.
PHASES = [
    ("eager", 300),
    ("queued", 300),
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


def run(context, deadline):
    if context.blind:
        context.report.skip(STAGE, "against torch.profiler", context.blind)
    for name, rounds in PHASES:
        try:
            phase(context, deadline, name, context.settings.times(rounds))
        except FAILURES as error:
            context.report.skip(STAGE, name, error)


def phase(context, deadline, name, rounds):
    def work(worker):
        return worker.ask(deadline, "phase", name=name, rounds=rounds, profile=True)

    context.workload(deadline).ask(deadline, "phase", name=name, rounds=2, profile=False)
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
    context.report.add(STAGE, f"{name}: names", text, DIFFERS if left else OK)


def gpu_time(context, name, summary, trace, wall_ns):
    """The inferred bounds against the union of what CUPTI saw on the device."""
    if not trace["busy_ns"]:
        return
    time_ = summary["steps"]["gpu_ns"]
    low, high, busy = time_["bounded_lo"], time_["bounded_hi"], trace["busy_ns"]
    ms = [f"{figure / 1e6:.1f}" for figure in (low, high, busy, wall_ns)]
    text = "gpuspan {} to {} ms, {} {} ms busy of {} ms; ".format(*ms[:2], source(context), *ms[2:])
    text += f"bounds at {low / busy:.2f} and {high / busy:.2f} of it"
    context.report.add(TIME, name, text, OK if within(low, busy, high) else DIFFERS)
