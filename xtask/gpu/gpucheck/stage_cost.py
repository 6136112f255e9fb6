"""Stage 4: where the real libraries can be probed, and what a probe costs. In: their first instructions, timed calls.
Out: tallies, and nanoseconds with gpuspan, with an empty uprobe, and without. Absent: instructions after the first.
"""

import os

from . import check
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
ROUNDS = 7
#: A round of one call with and without, attach included.
ROUND_S = 1.5


def run(context, deadline):
    worker = context.workload(deadline)
    paths = {name: found[0] for name, found in worker.ask(deadline, "start")["libraries"].items() if found}
    first_instructions(context, paths)
    sites = choice(context, worker, deadline)
    for call, library, function in TIMED:
        try:
            path = paths.get(library)
            one(context, deadline, call, path, places(path, function, sites))
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
    """Which sites gpuspan chose: in its own words, and where they are."""
    if context.blind == BINARY_FAILS:
        return {}
    _, text, _ = context.gpuspan.run("check", "--pid", str(worker.pid), timeout=deadline.left())
    _, machine_text, _ = context.gpuspan.run("check", "--pid", str(worker.pid), "--json", timeout=deadline.left())
    context.report.keep("check --pid", text)
    context.report.keep("check --pid --json", machine_text)
    for line in text.splitlines():
        if "libcu" in line and ("probed" in line or "single" in line):
            context.report.add(STAGE, "gpuspan check --pid", line.strip())
    libraries = check.libraries(machine_text)
    for path, (probed, found) in libraries.items():
        if found:
            context.report.add(STAGE, f"sites in {os.path.basename(path)}", listed(probed, "{}"))
    if check.price(machine_text):
        context.report.add(STAGE, "a probe by gpuspan check", listed(check.price(machine_text), "{:.0f} ns"))
    return {path: offsets for path, (_, offsets) in libraries.items()}


def listed(figures, form):
    return ", ".join(f"{name} {form.format(figure)}" for name, figure in figures.items())


def places(path, function, sites):
    """Offsets in the file at which an empty uprobe is tried, by what they are."""
    if path is None:
        return {}
    elf = Elf(path)
    address = elf.exported_functions().get(function)
    found = {"the first instruction": elf.file_offset(address)} if address else {}
    chosen = sites.get(path, {}).get(function)
    if chosen is not None and chosen not in found.values():
        found["gpuspan's site"] = chosen
    return found


def one(context, deadline, call, path, places_):
    """Rounds in turn: bare, an empty uprobe at each place, gpuspan."""

    def time_(worker):
        return worker.ask(deadline, "cost", name=call, times=context.settings.times(CALLS, 400))["ns"]

    rounds = {"bare": [], **{place: [] for place in places_}, "gpuspan": []}
    worker = context.workload(deadline)
    time_(worker)
    refused = set() if places_ else {"the function is not exported"}
    while len(rounds["bare"]) < ROUNDS and (not rounds["bare"] or deadline.has(ROUND_S * 3)):
        rounds["bare"].append(time_(worker))
        for place, offset in places_.items():
            try:
                with Uprobe(path, offset, worker.pid):
                    rounds[place].append(time_(worker))
            except Impossible as error:
                refused.add(str(error))
        if not context.blind:
            rounds["gpuspan"].append(context.observed(deadline, "cost-" + call.replace(" ", "-"), time_)[1])
    show(context, call, rounds, refused | ({context.blind} if context.blind else set()))


def show(context, call, rounds, refused):
    context.report.keep("cost " + call, rounds)
    bare = rounds.pop("bare")
    words = [f"{median(bare):.0f} ns bare (Python's part in it)"]
    for place, found in rounds.items():
        what = "gpuspan, all probes it hits" if place == "gpuspan" else f"an empty uprobe at {place}"
        if found:
            words.append(f"{what} {median([b - a for a, b in zip(bare, found)]):+.0f} ns")
    context.report.add(STAGE, call, "; ".join(words + sorted(refused)))
