"""How this run is set up. In: flags. Out: paths and the environment of workloads. Absent: running anything."""

import os

#: What PyTorch links to or loads by name; a library that is already loaded under the same name comes first.
STAND_INS = ("libcuda.so.1", "libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libnvidia-ml.so.1")


class Settings:
    """Paths, and whether this is a rehearsal on stand-in libraries."""

    def __init__(self, binary, out, standins=None, own_server=False):
        self.binary = binary
        #: Packages that were packed along; they come after those of this machine.
        self.site = os.path.join(os.path.dirname(binary), "site")
        self.out = out
        self.standins = standins
        #: Do not look for `transformers serve`.
        self.own_server = own_server
        #: Everything behind the table; packed into one file at the end.
        self.raw = os.path.join(out, "raw")
        self.child_environment = {}
        #: A rehearsal shows that stages work; little is enough.
        self.scale = 1.0
        if standins:
            self.scale = 0.2
            preloaded = ":".join(os.path.join(standins, name) for name in STAND_INS)
            path = os.pathsep.join(filter(None, [standins, os.environ.get("LD_LIBRARY_PATH")]))
            # Where they write what they ran (`rehearsal`).
            self.child_environment = {"LD_PRELOAD": preloaded, "LD_LIBRARY_PATH": path, "SIMGPU_LOG_DIR": self.raw}

    def times(self, count, least=1):
        return max(int(count * self.scale), least)
