"""Stage 1: the machine. In: /proc, Python's packages, gpuspan check, NVML. Out: facts, and whether it can attach."""

import json
import os
import platform
import subprocess
import sys

from . import nvml
from .elf import Elf
from .observe import Refused
from .report import DIFFERS, OK, SKIPPED
from .uprobe import Impossible, Uprobe

STAGE = "machine"
PACKAGES = ["torch", "transformers", "triton", "fastapi", "uvicorn"]
VERSIONS = """
import importlib.metadata as m, json
def version(name):
    try: return m.version(name)
    except Exception: return None
print(json.dumps({name: version(name) for name in %r}))
""" % (PACKAGES,)
#: How often a function of our own is called to see whether a uprobe counts each call.
HITS = 1000


#: Said of everything that would need it.
BINARY_FAILS = "the packed gpuspan does not run here"


def run(context, deadline):
    system(context)
    packages(context, deadline)
    gpu(context)
    uprobes(context)
    binary(context, deadline)
    attaches(context, deadline)


def system(context):
    facts = {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "C library": "-".join(platform.libc_ver()),
        "cpus": os.cpu_count(),
        "user": "root" if os.geteuid() == 0 else f"uid {os.geteuid()}",
        "hypervisor": "yes" if " hypervisor" in read("/proc/cpuinfo") else "no",
    }
    context.report.keep("machine", facts)
    context.report.add(STAGE, "system", ", ".join(f"{name} {value}" for name, value in facts.items()))


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def packages(context, deadline):
    done = subprocess.run([sys.executable, "-c", VERSIONS], capture_output=True, text=True, timeout=deadline.left())
    versions = {"python": platform.python_version(), **json.loads(done.stdout or "{}")}
    context.report.keep("packages", versions)
    context.report.add(STAGE, "Python", ", ".join(f"{name} {version or 'none'}" for name, version in versions.items()))


def gpu(context):
    library, why = nvml.opened(context.settings)
    if library is None:
        return context.report.skip(STAGE, "NVML", why)
    facts = library.facts()
    context.report.keep("nvml", facts)
    context.report.add(STAGE, "GPU by NVML", ", ".join(f"{name} {value}" for name, value in facts.items()))
    now = {"utilisation %": library.utilisation(), "power mW": library.power_mw(), "energy mJ": library.energy_mj()}
    context.report.add(STAGE, "NVML now", ", ".join(f"{name} {value}" for name, value in now.items()))


def uprobes(context):
    """By the kernel alone, so that a refusal of BPF and one of uprobes are told apart."""
    try:
        hits = own_uprobe()
        context.report.add(
            STAGE, "uprobes without BPF", f"{hits} of {HITS} calls counted", OK if hits == HITS else DIFFERS
        )
    except Impossible as error:
        context.report.add(STAGE, "uprobes without BPF", error, SKIPPED)


def own_uprobe():
    """Counts calls of the C library's `abs` in this process."""
    import ctypes

    from .cuda import mapped

    libc = ctypes.CDLL(None)
    path = next(iter(mapped(r"^libc\.so\.6|^libc-|^ld-musl")), None)
    if path is None:
        raise Impossible("no C library in the mappings")
    elf = Elf(path)
    offset = elf.file_offset(elf.exported_functions()["abs"])
    with Uprobe(path, offset, 0) as probe:
        for _ in range(HITS):
            libc.abs(-1)
        return probe.hits()


def binary(context, deadline):
    """Whether the packed program runs here at all, and what its own check says."""
    try:
        code, out, err = context.gpuspan.run("--version", timeout=deadline.left())
    except OSError as error:
        code, out, err = 1, "", str(error)
    if code:
        context.blind = BINARY_FAILS
        return context.report.skip(STAGE, "gpuspan", f"{BINARY_FAILS}: {err.strip()[-200:]}")
    context.report.add(STAGE, "gpuspan", out.strip())
    code, out, _ = context.gpuspan.run("check", timeout=deadline.left())
    context.report.keep("check", out)
    bad = [" ".join(line.split()) for line in out.splitlines() if "FAIL" in line or "note" in line]
    context.report.add(STAGE, "gpuspan check", "; ".join(bad) or "nothing stands in the way", DIFFERS if code else OK)


def attaches(context, deadline):
    """The proof: attached to this process and ended again."""
    if context.blind:
        return
    try:
        with context.gpuspan.attach(os.getpid(), "self") as observation:
            observation.stop()
        context.report.add(STAGE, "BPF loads and attaches", "yes, to this process", OK)
    except Refused as error:
        context.blind = "gpuspan cannot attach here, see the stage `machine`"
        context.report.skip(STAGE, "BPF loads and attaches", error)
