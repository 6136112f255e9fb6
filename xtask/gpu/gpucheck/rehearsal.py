"""The stand-in libraries' own account, which takes the place of torch.profiler's in a rehearsal. In: the account's
file of this process. Out: the same digest as `trace` makes. Layout: the README of gpuspan's `tests/simgpu`.
"""

import glob
import os
import struct

from .demangle import demangler

FOLDER = "SIMGPU_LOG_DIR"


class Account:
    """One reading."""

    def __init__(self):
        paths = glob.glob(os.path.join(os.environ[FOLDER], f"*{os.getpid()}.counts"))
        with open(paths[0], "rb") as file:
            self.data = file.read()
        words = struct.unpack_from("<9Q", self.data, 24)
        self.calls = self.table(words[0], words[1], 120)
        self.facts = self.table(words[2], words[3], 56)
        self.kernels = self.kernel_table(words[4], words[6], words[7])

    def table(self, offset, slots, room):
        """Names and counts of fixed slots."""
        found = {}
        for at in range(offset, offset + slots * (room + 8), room + 8):
            name = self.data[at : at + room].split(b"\0", 1)[0].decode()
            if name:
                found[name] = struct.unpack_from("<Q", self.data, at + room)[0]
        return found

    def kernel_table(self, offset, count, heap):
        """Runs by name: launched, and as nodes of graphs; not what was only recorded."""
        found = {}
        for at in range(offset, offset + count * 40, 40):
            launched, _, in_graphs, _, name, length = struct.unpack_from("<QQQQII", self.data, at)
            symbol = self.data[heap + name : heap + name + length].decode("utf-8", "replace")
            found[symbol] = found.get(symbol, 0) + launched + in_graphs
        return found

    def since(self, before):
        """What happened after another reading, as torch.profiler would tell it."""
        calls = difference(self.calls, before.calls)
        facts = difference(self.facts, before.facts)
        demangle = demangler() or (lambda symbol: None)
        kernels = {}
        for symbol, count in difference(self.kernels, before.kernels).items():
            name = demangle(symbol) or symbol
            kernels[name] = kernels.get(name, 0) + count
        ways = {"HtoD": "copies_htod", "DtoH": "copies_dtoh", "DtoD": "copies_dtod"}
        return {
            "kernels": kernels,
            "copies": {way: facts[fact] for way, fact in ways.items() if fact in facts},
            "sets": facts.get("memsets", 0) + facts.get("graph_memsets", 0),
            "runtime": {name: count for name, count in calls.items() if name.startswith("cuda")},
            "driver": {name: count for name, count in calls.items() if not name.startswith("cuda")},
            "busy_ns": facts.get("busy_ns", 0),
            "sum_ns": facts.get("kernel_ns", 0),
        }


def difference(now, before):
    counts = {name: count - before.get(name, 0) for name, count in now.items()}
    return {name: count for name, count in counts.items() if count}


def expected():
    """Whether this process runs on stand-ins that keep an account."""
    return FOLDER in os.environ
