"""gpuspan as a process: attached, ended, read. In: the binary, a pid, flags. Out: its summary and what it printed."""

import json
import os
import signal
import subprocess
import time

#: Attaching takes 0.2 s; names of a large library and a cold disk some seconds more.
ATTACH_S = 30
#: Ending reads symbol tables of the launched kernels.
END_S = 30


class Refused(Exception):
    """gpuspan did not attach or did not end well; the words are its own."""


class Gpuspan:
    """The program, and the folder in which everything that it writes is kept."""

    def __init__(self, binary, folder):
        self.binary = binary
        self.folder = folder
        self.count = 0

    def run(self, *arguments, timeout=60):
        """Its output, for commands that end by themselves; the exit code is the first part."""
        done = subprocess.run([self.binary, *arguments], capture_output=True, text=True, timeout=timeout)
        return done.returncode, done.stdout, done.stderr

    def flags(self):
        """The flags of `attach` that this build has."""
        return set(self.run("attach", "--help")[1].split())

    def attach(self, pid, name, *flags):
        """Observes `pid`; `name` names the files."""
        self.count += 1
        return Observation(self.binary, pid, os.path.join(self.folder, f"{self.count:02}-{name}"), flags)


class Observation:
    """An attached gpuspan; `with` ends it whatever happens."""

    def __init__(self, binary, pid, path, flags):
        self.path = path
        command = [binary, "attach", "--pid", str(pid), "--summary", path + ".json", "--ready-file", path + ".ready"]
        if "--output" not in flags:
            command += ["--output", "none"]
        with open(path + ".out", "w") as out, open(path + ".err", "w") as err:
            self.child = subprocess.Popen([*command, *flags], stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise

    def wait_ready(self):
        deadline = time.monotonic() + ATTACH_S
        while not os.path.exists(self.path + ".ready"):
            if self.child.poll() is not None:
                raise Refused(self.words() or f"gpuspan ended with {self.child.returncode}")
            if time.monotonic() > deadline:
                raise Refused(f"not attached within {ATTACH_S} s")
            time.sleep(0.01)

    def stop(self):
        """Ends it as Ctrl-C does; its summary."""
        self.child.send_signal(signal.SIGINT)
        try:
            code = self.child.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Refused(f"not ended within {END_S} s") from None
        if code:
            raise Refused(self.words())
        with open(self.path + ".json") as file:
            return json.load(file)

    def printed(self):
        """The objects of `--output json`."""
        with open(self.path + ".out") as file:
            return [json.loads(line) for line in file if line.startswith("{")]

    def words(self):
        with open(self.path + ".err") as file:
            return " ".join(file.read().split())[-300:]

    def kill(self):
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
