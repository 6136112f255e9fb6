"""The run: flags → stages, one after the other, each with its time → a table on standard output and files.

Without a GPU it says so in one line and ends well. A stage that fails or is late keeps the rows that it has.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import traceback

from . import stage_calls, stage_cost, stage_counts, stage_device, stage_handles, stage_machine, stage_serving
from .budget import Budget, Late
from .context import Context
from .report import Report
from .settings import Settings

#: Name, function, most seconds, fewest seconds with which it is worth beginning.
STAGES = [
    ("machine", stage_machine.run, 60, 5),
    ("calls", stage_calls.run, 90, 15),
    ("names", stage_handles.run, 60, 10),
    ("cost", stage_cost.run, 70, 10),
    ("counts", stage_counts.run, 110, 15),
    ("device", stage_device.run, 40, 20),
    ("server own", stage_serving.run("own", stage_serving.LARGE, own=True), 110, 40),
    ("server tiny", stage_serving.run("tiny", stage_serving.TINY), 70, 40),
    ("server 1b", stage_serving.run("1b", stage_serving.LARGE), 90, 45),
]
BUDGET_S = 450
#: Ending servers and writing files comes after that; a run that hangs is then ended by force, with what it has found.
GRACE_S = 30
IMPORTS = "import torch, sys; sys.exit(0 if torch.cuda.is_available() else 3)"


def arguments():
    parser = argparse.ArgumentParser(prog="gpuspan-gpu.sh", description="Tries gpuspan on this machine's GPU.")
    parser.add_argument("--unpacked", required=True, help=argparse.SUPPRESS)
    parser.add_argument(
        "--out", help="folder for report.json, table.md and raw.tar.gz (default: $OUT, else ./gpuspan-gpu-TIME)"
    )
    parser.add_argument("--budget", type=int, default=BUDGET_S, help=f"seconds in all (default {BUDGET_S})")
    parser.add_argument("--only", help="stages, separated by commas: " + ", ".join(name for name, *_ in STAGES))
    parser.add_argument(
        "--simulate", metavar="FOLDER", help="rehearse on the stand-in CUDA libraries in this folder; nothing measured"
    )
    parser.add_argument(
        "--own-server", action="store_true", help="load our own small server even where `transformers serve` is there"
    )
    return parser.parse_args()


def main():
    args = arguments()
    wanted = chosen(args.only)
    # Importing PyTorch from a cold disk takes long, and counts.
    budget = Budget(args.budget)
    why = why_not(args.simulate)
    if why:
        print(f"skipped: {why}")
        return 0
    out = os.path.abspath(args.out or os.environ.get("OUT") or time.strftime("gpuspan-gpu-%Y%m%d-%H%M%S"))
    settings = Settings(os.path.join(args.unpacked, "gpuspan"), out, args.simulate, args.own_server)
    os.makedirs(settings.raw, exist_ok=True)
    report = Report(heading(settings))
    context = Context(settings, report)
    watchdog = threading.Timer(budget.left() + GRACE_S, end_by_force, (report, settings))
    watchdog.daemon = True
    watchdog.start()
    try:
        run(context, budget, wanted)
    finally:
        context.close()
    write(report, settings)
    return 0


def why_not(standins):
    """Why there is nothing to do here; None where there is."""
    if not standins and not any(os.path.exists(path) for path in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")):
        return "no NVIDIA GPU here (no /dev/nvidiactl)"
    if standins:
        return None
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True)
    if done.returncode == 3:
        return f"PyTorch of {sys.executable} finds no CUDA device"
    if done.returncode:
        words = done.stderr.strip().splitlines()
        last = words[-1] if words else done.returncode
        return f"{sys.executable} has no PyTorch that works ({last}); set GPUSPAN_PYTHON"
    return None


def heading(settings):
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    if settings.standins:
        return f"REHEARSAL on stand-in libraries, {when}: no GPU was used, no figure below says anything about one."
    return f"gpuspan on a GPU, {when}"


def chosen(only):
    """Names of the stages that are wanted: all, or those of a list; a first word stands for all that begin with it."""
    names = [name for name, *_ in STAGES]
    asked = only.split(",") if only else names
    unknown = [ask for ask in asked if not any(ask in (name, name.split()[0]) for name in names)]
    if unknown:
        sys.exit(f"no such stage: {', '.join(unknown)}; there are: {', '.join(names)}")
    return [name for name in names if name in asked or name.split()[0] in asked]


def run(context, budget, wanted):
    for name, stage, limit, least in STAGES:
        if name not in wanted:
            continue
        begin = time.monotonic()
        try:
            stage(context, budget.stage(limit, least))
        except (Late, subprocess.TimeoutExpired) as error:
            context.report.skip(name, "the rest of this stage", f"out of time: {error}")
        except Exception as error:  # One stage's surprise must not cost the others.
            traceback.print_exc()
            context.report.skip(name, "the rest of this stage", f"{type(error).__name__}: {error}")
        print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
        context.report.keep(f"seconds {name}", round(time.monotonic() - begin, 1))


def write(report, settings):
    """Few files, so that they are easily carried away."""
    with open(os.path.join(settings.out, "report.json"), "w") as file:
        file.write(report.json())
    table = report.markdown()
    with open(os.path.join(settings.out, "table.md"), "w") as file:
        file.write(table)
    with tarfile.open(settings.raw + ".tar.gz", "w:gz") as archive:
        archive.add(settings.raw, "raw")
    shutil.rmtree(settings.raw, ignore_errors=True)
    print(table, end="")
    print(f"\nin files: {settings.out}/table.md, report.json, raw.tar.gz", flush=True)


def end_by_force(report, settings):
    report.skip("run", "everything else", "the run did not end within its budget")
    write(report, settings)
    # Children are ended with this process.
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
