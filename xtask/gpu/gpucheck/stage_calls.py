"""Stage 2: what the real runtime calls in the driver. In: exact numbers of runtime calls. Out: gpuspan's counts of
them and of the driver calls below, and whether a launch or copy that crosses both counts once.
"""

from .compare import nesting
from .context import FAILURES
from .report import DIFFERS, OK

STAGE = "calls"
TIMES = 200
REPLAYS = 50
#: Name of the work, the runtime call it makes, whether each is a launch or a copy that must count once.
WORK = [
    ("torch add_", "cudaLaunchKernel", "launch"),
    ("cudaLaunchKernel", "cudaLaunchKernel", "launch"),
    ("cudaLaunchKernelExC", "cudaLaunchKernelExC", "launch"),
    ("cuLaunchKernel", None, "launch"),
    ("cudaMemcpyAsync HtoD pinned", "cudaMemcpyAsync", "copy"),
    ("cudaMemcpyAsync HtoD pageable", "cudaMemcpyAsync", "copy"),
    ("cudaMemcpyAsync DtoH pinned", "cudaMemcpyAsync", "copy"),
    ("cudaMemcpyAsync DtoD", "cudaMemcpyAsync", "copy"),
    ("cudaMemcpy HtoD", "cudaMemcpy", "copy"),
    ("cudaMemsetAsync", "cudaMemsetAsync", None),
    ("cudaMemset", "cudaMemset", None),
    ("cudaMalloc+cudaFree", "cudaMalloc", None),
    ("cudaMallocAsync+cudaFreeAsync", "cudaMallocAsync", None),
    ("cudaMallocHost+cudaFreeHost", "cudaMallocHost", None),
    ("cudaEventRecord", "cudaEventRecord", None),
    ("cudaEventSynchronize", "cudaEventSynchronize", None),
    ("cudaStreamWaitEvent", "cudaStreamWaitEvent", None),
    ("cudaStreamSynchronize", "cudaStreamSynchronize", None),
    ("cudaDeviceSynchronize", "cudaDeviceSynchronize", None),
]


def run(context, deadline):
    if context.blind:
        return context.report.skip(STAGE, "driver calls under runtime calls", context.blind)
    for name, call, once in WORK:
        try:
            # Unobserved first: what a call does only the first time is not what is asked.
            made = context.workload(deadline).ask(deadline, "make", name=name, times=2)["made"]
            context.workload(deadline).ask(deadline, "settle")
            if made:
                one(context, deadline, name, call, once)
            else:
                context.report.skip(STAGE, name, "the call fails here")
        except FAILURES as error:
            context.report.skip(STAGE, name, error)
    graphs(context, deadline)


def one(context, deadline, name, call, once):
    def work(worker):
        return worker.ask(deadline, "make", name=name, times=TIMES)["made"]

    summary, made = context.observed(deadline, "calls-" + name.replace(" ", "-"), work)
    found = nesting(call, made, summary["calls"])
    counted = {"launch": launches, "copy": copies}.get(once, lambda _: None)(summary)
    text = f"made {made}"
    text += f", seen {found['seen']}" if call else ""
    text += f", counted {counted} times" if once else ""
    good = (call is None or found["seen"] == made) and (once is None or counted == made)
    # A call that is not in the catalogue says nothing about the runtime.
    verdict = OK if good else DIFFERS if call is None or probed(summary, call) else ""
    context.report.add(STAGE, name, f"{text}; below: {found['text']}", verdict)


def probed(summary, call):
    """Whether the call was seen, or launches of its kind are always probed."""
    return call in summary["calls"] or "Launch" in call or "Memcpy" in call


def launches(summary):
    return summary["launches"]["total"]


def copies(summary):
    return sum(copy["count"] for copy in summary["copies"].values())


def graphs(context, deadline):
    """Capture and replay: recorded launches are no launches, replays are."""
    for name, expected in [("record_and_replay", "known"), ("replay", "unknown: recorded before the attach")]:
        try:
            graph(context, deadline, name, expected)
        except FAILURES as error:
            context.report.skip(STAGE, name, error)


def graph(context, deadline, name, expected):
    def work(worker):
        return worker.ask(deadline, "phase", name=name, rounds=REPLAYS, profile=False)

    summary, _ = context.observed(deadline, "calls-" + name, work)
    found = summary["launches"]
    seen = {api: count for api, count in sorted(summary["calls"].items()) if "Graph" in api or "Capture" in api}
    text = (
        f"graph launches {found['graph_launches']} of {REPLAYS}, nodes run {found['graph_nodes']} ({expected}), "
        f"recorded {found['captured']}; " + ", ".join(f"{api} {count}" for api, count in seen.items())
    )
    context.report.add(STAGE, name, text, OK if found["graph_launches"] == REPLAYS else DIFFERS)
