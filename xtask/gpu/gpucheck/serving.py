"""Servers to load. In: a model's shape. Out: one that answers on loopback: `transformers serve` where it can be
imported, else our own on PyTorch alone, and why. Absent: load.
"""

import http.client
import importlib.machinery
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time

from .worker import Died, end_with_parent, environment

NEEDED = ("transformers", "fastapi", "uvicorn", "openai")
#: Asked for where this version of transformers has them (5.23 has all); blocks of 32 tokens for 32 streams.
WISHES = [
    ["--continuous-batching"],
    ["--device", "cuda:0"],
    ["--dtype", "bfloat16"],
    ["--cb-block-size", "32"],
    ["--cb-num-blocks", "512"],
    ["--cb-max-batch-tokens", "512"],
]
#: Runs `transformers` under that name, by which gpuspan recognises the server. What was packed along comes first, since
#: it fits together; it is used only where something is missing.
COMMAND = """import sys
sys.path[:0] = {site!r}
from transformers.cli.transformers import main
sys.exit(main())
"""


def lacking(site=None):
    """What `transformers serve` would need and is not here, nor in the folder of what was packed along."""
    packed = [site] if site else []
    return [
        name
        for name in NEEDED
        if importlib.util.find_spec(name) is None and importlib.machinery.PathFinder.find_spec(name, packed) is None
    ]


class Server:
    """A running server; `with` ends it."""

    def __init__(self, settings, shape, name, deadline, own=False):
        self.settings, self.name = settings, name
        self.log = os.path.join(settings.raw, f"server-{name}.log")
        self.folder = self.child = None
        self.port = free_port()
        own = "asked for" if own or settings.own_server else ", ".join(f"no {name}" for name in lacking(settings.site))
        self.kind = f"own server on PyTorch ({own})" if own else "transformers serve"
        try:
            command = self.own(shape) if own else self.transformers(shape, deadline)
            self.start(command)
            self.wait(deadline)
        except BaseException:
            self.stop()
            raise

    def own(self, shape):
        self.model = "random"
        return [sys.executable, "-B", "-m", "gpucheck.work_server", json.dumps(shape), str(self.port)]

    def transformers(self, shape, deadline):
        self.folder = roomy_folder(self.name)
        self.model = os.path.join(self.folder, "random")
        self.finish([sys.executable, "-B", "-m", "gpucheck.work_model", json.dumps(shape), self.model], deadline)
        script = os.path.join(self.folder, "transformers")
        with open(script, "w") as file:
            file.write(COMMAND.format(site=[self.settings.site] if lacking() else []))
        serve = [sys.executable, script, "serve"]
        known = self.finish([*serve, "--help"], deadline)
        wishes = [word for wish in WISHES if wish[0] in known for word in wish]
        return [*serve, self.model, "--host", "127.0.0.1", "--port", str(self.port), *wishes]

    def environment(self):
        # A wide terminal, so that the help does not cut flags short.
        folder = self.folder or self.settings.raw
        return {**environment(self.settings), "HF_HUB_OFFLINE": "1", "HF_HOME": folder, "COLUMNS": "200"}

    def finish(self, command, deadline):
        with open(self.log, "a") as log:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=self.environment(), timeout=deadline.left()
            )
        if done.returncode:
            raise Died(f"{' '.join(command[-4:-1])}: {self.last_words()}")
        return done.stdout

    def start(self, command):
        with open(self.log, "a") as log:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                preexec_fn=end_with_parent,
            )

    def wait(self, deadline):
        while not healthy(self.port):
            if self.child.poll() is not None:
                raise Died(f"the server ended with {self.child.returncode}: {self.last_words()}")
            deadline.left()
            time.sleep(0.2)

    def last_words(self):
        with open(self.log, errors="replace") as file:
            lines = file.read().strip().splitlines()
        return lines[-1] if lines else "no word"

    def stop(self):
        if self.child and self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def roomy_folder(name):
    """Two gigabytes of weights go to memory where it has room, else to the disk."""
    import tempfile

    shared = "/dev/shm"
    room = os.path.isdir(shared) and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 6 << 30
    return tempfile.mkdtemp(prefix=f"gpuspan-{name}-", dir=shared if room else None)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def healthy(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
