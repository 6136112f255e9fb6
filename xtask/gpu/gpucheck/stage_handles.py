"""Stage 3: CUDA 13's kernel handles. In: PyTorch's launches. Out: the share of them that gpuspan names, attached
after and before the first launch; and, without gpuspan, what the driver says about the values in the handle
variables.
"""

from .compare import evidence, named_share, nesting
from .context import FAILURES
from .report import DIFFERS, FACT, OK

STAGE = "names"
#: Of the issue: this share of launches has a name.
GOAL = 0.999
ROUNDS = 20


def run(context, deadline):
    for name, fresh in [("attached after the first launch", False), ("attached before the first launch", True)]:
        try:
            named(context, deadline, name, fresh)
        except FAILURES as error:
            context.report.skip(STAGE, name, error)
    try:
        worker = context.workload(deadline)
        # Variables are filled by the first launch of each kernel.
        worker.ask(deadline, "phase", name="eager", rounds=1, profile=False)
        slots(context, worker.ask(deadline, "slots"))
    except FAILURES as error:
        context.report.skip(STAGE, "handle variables against the driver", error)


def named(context, deadline, name, fresh):
    def work(worker):
        return worker.ask(deadline, "phase", name="eager", rounds=ROUNDS, profile=False)

    if fresh:
        context.close()
    else:
        work(context.workload(deadline))
    summary, _ = context.observed(deadline, name.replace(" ", "-"), work)
    share = named_share(summary)
    if share is None:
        return context.report.skip(STAGE, name, "no launch was seen")
    # A driver handle that was made before the attach has no name that could be learnt (docs/kernel-names.md).
    opaque = evidence(summary).get("opaque_handle", 0)
    total = sum(evidence(summary).values())
    good = (total - summary["launches"]["unnamed"]) >= GOAL * (total - (0 if fresh else opaque))
    sources = ", ".join(f"{source} {count}" for source, count in sorted(evidence(summary).items()))
    verdict = OK if good else DIFFERS
    context.report.add(
        STAGE, name, f"{share:.2%} of {summary['launches']['total']} launches named; by: {sources}", verdict
    )
    context.report.add(STAGE, f"{name}: driver calls", nesting("cudaLaunchKernel", ROUNDS, summary["calls"])["text"])


def slots(context, counts):
    context.report.keep("slots", counts)
    if not counts["variables"]:
        return context.report.skip(
            STAGE, "handle variables", "libtorch_cuda has none: built before CUDA 13, or stripped"
        )
    verdict = DIFFERS if counts["other_name"] else OK if counts["same_name"] or counts["same_base"] else FACT
    text = (
        f"{counts['variables']} variables, {counts['filled']} filled; cuKernelGetName of the value: same kernel "
        f"{counts['same_name']}, but for spelling {counts['same_base']}, another {counts['other_name']}, "
        f"refused {counts['refused']}"
    )
    context.report.add(STAGE, "handle variables against the driver", text, verdict)
