"""Stage 4: where the real libraries can be probed, and what a probe costs. In: their first instructions, timed calls.
Out: tallies, and nanoseconds with gpuspan, with an empty uprobe, and without. Absent: instructions after the first.
"""

from .compare import median
from .context import FAILURES
from .elf import Elf, tally
from .stage_machine import BINARY_FAILS
from .uprobe import Impossible, Uprobe

STAGE = "cost"
PREFIXES = {"libcudart": "cuda", "libcuda": "cu"}
#: What is timed: the call, and the library and function at which an empty probe stands beside it.
TIMED = [
    ("cuLaunchKernel", "libcuda", "cuLaunchKernel"),
    ("cudaLaunchKernel", "libcudart", "cudaLaunchKernel"),
    ("cudaMemcpyAsync DtoD", "libcudart", "cudaMemcpyAsync"),
    ("cudaStreamSynchronize", "libcudart", "cudaStreamSynchronize"),
]
CALLS = 4000
ROUNDS = 5
#: A round of one call with and without, attach included.
ROUND_S = 1.5


def run(context, deadline):
    worker = context.workload(deadline)
    paths = {name: found[0] for name, found in worker.ask(deadline, "start")["libraries"].items() if found}
    first_instructions(context, paths)
    choice(context, worker, deadline)
    for call, library, function in TIMED:
        try:
            one(context, deadline, call, entry(paths.get(library), function))
        except FAILURES as error:
            context.report.skip(STAGE, call, error)


def first_instructions(context, paths):
    for name, prefix in PREFIXES.items():
        if name not in paths:
            context.report.skip(STAGE, f"first instructions of {name}", "not loaded")
            continue
        counts = tally(Elf(paths[name]), prefix)
        text = ", ".join(f"{kind} {count}" for kind, count in counts.items())
        context.report.add(STAGE, f"first instructions of {name}", text or "no exported function")
        context.report.keep(f"first instructions of {name}", {"path": paths[name], "counts": counts})


def choice(context, worker, deadline):
    """Which sites gpuspan chose, in its own words."""
    if context.blind == BINARY_FAILS:
        return
    for form in (["--json"], []):
        _, out, _ = context.gpuspan.run("check", "--pid", str(worker.pid), *form, timeout=deadline.left())
        context.report.keep("check --pid " + " ".join(form), out)
    for line in out.splitlines():
        if "libcu" in line and ("probed" in line or "single" in line):
            context.report.add(STAGE, "gpuspan check --pid", line.strip())


def one(context, deadline, call, place):
    """Rounds in turn: bare, an empty uprobe at the first instruction, gpuspan."""
    rounds = {"bare": [], "empty": [], "gpuspan": []}

    def time_(worker):
        return worker.ask(deadline, "cost", name=call, times=context.settings.times(CALLS, 400))["ns"]

    worker = context.workload(deadline)
    time_(worker)
    refused = None if place else "the function is not exported"
    for _ in range(ROUNDS):
        if rounds["bare"] and not deadline.has(ROUND_S * 3):
            break
        rounds["bare"].append(time_(worker))
        try:
            if place:
                with Uprobe(*place, worker.pid):
                    rounds["empty"].append(time_(worker))
        except Impossible as error:
            refused = error
        if not context.blind:
            rounds["gpuspan"].append(context.observed(deadline, "cost-" + call.replace(" ", "-"), time_)[1])
    show(context, call, rounds, refused or context.blind)


def entry(path, function):
    """The file and where in it the function begins; None where there is none."""
    elf = Elf(path) if path else None
    address = elf and elf.exported_functions().get(function)
    return (path, elf.file_offset(address)) if address else None


def show(context, call, rounds, refused):
    context.report.keep("cost " + call, rounds)
    bare = median(rounds["bare"])
    text = f"{bare:.0f} ns bare (Python's part in it)"
    for name, label in [
        ("empty", "an empty uprobe at its first instruction"),
        ("gpuspan", "gpuspan, all probes it hits"),
    ]:
        if rounds[name]:
            text += f"; {label} {median([b - a for a, b in zip(rounds['bare'], rounds[name])]):+.0f} ns"
    if refused:
        text += f"; {refused}"
    context.report.add(STAGE, call, text)
