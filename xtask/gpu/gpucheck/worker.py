"""A workload process, led by lines of JSON. In: a module to run and requests. Out: its answers. Also used for servers.

The process is a child that is killed with this one; its standard error is kept in a file.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys

from .budget import Late


class Died(Exception):
    """The process ended or answered with an error; the words say which."""


def end_with_parent():
    """In the child, between fork and exec: a workload must not outlive the run."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def environment(settings):
    """This process's environment, with the stand-in libraries where they were asked for."""
    return {**os.environ, **settings.child_environment, "PYTHONUNBUFFERED": "1"}


class Worker:
    """A running workload."""

    def __init__(self, settings, module, name):
        self.log = os.path.join(settings.raw, name + ".log")
        with open(self.log, "w") as err:
            self.child = subprocess.Popen(
                [sys.executable, "-B", "-m", "gpucheck." + module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                env=environment(settings),
                preexec_fn=end_with_parent,
            )
        self.pid = self.child.pid
        self.buffer = b""

    def ask(self, deadline, do, **arguments):
        """One request and its answer; an error of the workload becomes `Died`."""
        line = json.dumps({"do": do, **arguments}) + "\n"
        try:
            self.child.stdin.write(line.encode())
            self.child.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise Died(self.last_words()) from None
        try:
            answer = json.loads(self.line(deadline))
        except Late:
            # Its answer would be taken for that to the next request.
            self.stop()
            raise
        if "error" in answer:
            raise Died(answer["error"])
        return answer

    def line(self, deadline):
        descriptor = self.child.stdout.fileno()
        while b"\n" not in self.buffer:
            if not select.select([descriptor], [], [], deadline.left())[0]:
                raise Late("the workload did not answer in time")
            read = os.read(descriptor, 65536)
            if not read:
                raise Died(self.last_words())
            self.buffer += read
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line

    def last_words(self):
        self.child.wait(10)
        with open(self.log, errors="replace") as file:
            lines = file.read().strip().splitlines()
        return f"ended with {self.child.returncode}: " + (lines[-1] if lines else "without a word")

    def stop(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout):
            # What was not sent any more has nobody to read it.
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def serve(commands):
    """The workload's side: answers requests with the function of that name until its input ends."""
    # What libraries print must not be taken for answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = commands[request.pop("do")](**request)
        except Exception as error:  # The run goes on with what else can be learnt.
            import traceback

            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        answers.write(json.dumps(answer) + "\n")
