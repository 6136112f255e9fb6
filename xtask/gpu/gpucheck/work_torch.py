"""The workload: PyTorch on the GPU, led by requests (`worker`). In: which work, how often, profiled or not. Out: what
was made, and torch.profiler's account of it. Absent: gpuspan; this process does not know that it is observed.
"""

import json
import os
import re
import tempfile
import threading
import time

from . import rehearsal, trace
from .cuda import Cuda, mapped
from .elf import OBJECT, SHT_SYMTAB, Elf
from .worker import serve

SIDE = 1024
#: A product of this side takes a large GPU a few hundred microseconds; so many of them go before a wait.
BIG, LONG = 4096, 10
#: The variable of a launch stub that keeps a kernel's handle (nvcc 13); the kernel's name is the length-prefixed part.
SLOT = re.compile(r"^_ZZL?\d+__device_stub_(_Z.*)E8__handle$")


class State:
    """What is made once."""

    torch = None
    cuda = None
    work = None


def start():
    """Imports PyTorch and makes a context; nothing is launched."""
    import torch

    State.torch = torch
    begin = time.monotonic()
    torch.cuda.init()
    torch.cuda.synchronize()
    return {
        "device": torch.cuda.get_device_name(0),
        "capability": ".".join(map(str, torch.cuda.get_device_capability(0))),
        "context_s": round(time.monotonic() - begin, 1),
        "libraries": libraries(),
    }


def libraries():
    return {
        name: list(mapped(pattern))
        for name, pattern in [
            ("libcudart", r"^libcudart"),
            ("libcuda", r"^libcuda\.so"),
            ("libtorch_cuda", r"^libtorch_cuda\.so"),
        ]
    }


def direct():
    """The libraries that are called without PyTorch."""
    State.cuda = State.cuda or Cuda()
    return {}


def make(name, times):
    if name == "torch add_":
        return {"made": adds(times)}
    direct()
    return {"made": State.cuda.make(name, times)}


def adds(times):
    """One kernel each, by the launch that nvcc compiles."""
    torch = State.torch
    tensor = Work.of(torch).small
    for _ in range(times):
        tensor.add_(1)
    return times


def settle():
    direct()
    State.cuda.settle()
    return {}


def cost(name, times):
    direct()
    return {"ns": State.cuda.cost_ns(name, times)}


class Work:
    """Tensors and a graph for the phases."""

    @staticmethod
    def of(torch):
        State.work = State.work or Work(torch)
        return State.work

    def __init__(self, torch):
        self.torch = torch
        self.small = torch.zeros(1000, device="cuda")
        self.x = torch.randn(SIDE, SIDE, device="cuda", dtype=torch.float16)
        self.w = torch.randn(SIDE, SIDE, device="cuda", dtype=torch.float16)
        self.host = torch.empty(SIDE, SIDE, dtype=torch.float16, pin_memory=True)
        self.big = torch.randn(BIG, BIG, device="cuda", dtype=torch.float16)
        self.product, self.other_product = torch.empty_like(self.big), torch.empty_like(self.big)
        self.side_streams = [torch.cuda.Stream(), torch.cuda.Stream()]
        self.graph = None

    def step(self):
        """As a layer does it: a product by cuBLAS, then kernels of PyTorch."""
        functional = self.torch.nn.functional
        y = self.x @ self.w
        y = self.torch.softmax(y.float(), -1)
        y = functional.layer_norm(y, (SIDE,))
        y = functional.gelu(y)
        y.add_(1)
        return y.sum()

    def eager(self, rounds):
        """A wait after each step, as greedy decoding has it."""
        for _ in range(rounds):
            self.step().item()

    def queued(self, rounds):
        """One wait at the end."""
        for _ in range(rounds):
            self.step()
        self.torch.cuda.synchronize()

    def long(self, rounds):
        """Milliseconds of the GPU's time before each wait, as a large model has it."""
        for _ in range(rounds):
            for _ in range(LONG):
                self.torch.mm(self.big, self.big, out=self.product)
            self.product[0, 0].item()

    def streams(self, rounds):
        """Two streams, waited for with the device."""
        for _ in range(rounds):
            for stream, out in self.pairs():
                with self.torch.cuda.stream(stream):
                    self.torch.mm(self.big, self.big, out=out)
            self.torch.cuda.synchronize()

    def threads(self, rounds):
        """Two threads, each with a stream and waits of its own."""

        def one(stream, out):
            with self.torch.cuda.stream(stream):
                for _ in range(rounds):
                    for _ in range(LONG // 2):
                        self.torch.mm(self.big, self.big, out=out)
                    stream.synchronize()

        both = [threading.Thread(target=one, args=pair) for pair in self.pairs()]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()

    def pairs(self):
        return zip(self.side_streams, (self.product, self.other_product))

    def copies(self, rounds):
        for _ in range(rounds):
            self.host.copy_(self.x, non_blocking=True)
            self.x.copy_(self.host, non_blocking=True)
            self.w.copy_(self.x)
            self.small.cpu()
        self.torch.cuda.synchronize()

    def allocations(self, rounds):
        """Too large for the pools of the caching allocator, which is emptied each time."""
        for _ in range(rounds):
            tensor = self.torch.empty(64 << 20, device="cuda", dtype=self.torch.uint8)
            del tensor
            self.torch.cuda.empty_cache()

    def record(self, _):
        """Captures a step into a graph."""
        torch = self.torch
        torch.cuda.synchronize()
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            self.step()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.result = self.step()

    def replay(self, rounds):
        if self.graph is None:
            self.record(1)
        for _ in range(rounds):
            self.graph.replay()
            self.torch.cuda.current_stream().synchronize()

    def record_and_replay(self, rounds):
        self.record(1)
        self.replay(rounds)

    def triton(self, rounds):
        from .work_triton import add_one

        for _ in range(rounds):
            add_one(self.small)
        self.torch.cuda.synchronize()


def burn(kind, seconds):
    """Keeps the device busy in one way for so long; how much of it was done, for those who measure the device."""
    torch = State.torch
    side = 64 if rehearsal.expected() else 8192
    x = torch.randn(side, side, device="cuda", dtype=torch.bfloat16)
    y = torch.empty_like(x)
    once = {
        "products": (lambda: torch.mm(x, x, out=y), 2 * side**3, "flop/s"),
        "memory": (lambda: y.copy_(x), 2 * x.nbytes, "B/s"),
        "small": (lambda: y[0].add_(1), 1, "kernels/s"),
    }[kind]
    done, begin = 0, time.monotonic()
    while time.monotonic() - begin < seconds:
        for _ in range(50):
            once[0]()
        torch.cuda.synchronize()
        done += 50
    end = time.monotonic()
    return {"begin_s": begin, "end_s": end, once[2]: done * once[1] / (end - begin)}


def phase(name, rounds, profile):
    """Runs a phase; with `profile`, under torch.profiler."""
    torch = State.torch
    run = getattr(Work.of(torch), name)
    begin = time.monotonic_ns()
    if not profile:
        run(rounds)
        return {"wall_ns": time.monotonic_ns() - begin}
    if rehearsal.expected():
        # CUPTI does not work on stand-ins, which know themselves what they ran.
        before = rehearsal.Account()
        run(rounds)
        torch.cuda.synchronize()
        return {"wall_ns": time.monotonic_ns() - begin, "trace": rehearsal.Account().since(before)}
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CPU, activity.CUDA]) as profiler:
        begin = time.monotonic_ns()
        run(rounds)
        torch.cuda.synchronize()
        wall = time.monotonic_ns() - begin
    return {"wall_ns": wall, "trace": recorded(profiler)}


def recorded(profiler):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "trace.json")
        profiler.export_chrome_trace(path)
        with open(path) as file:
            return trace.digest(json.load(file))


def slots():
    """CUDA 13's handles: the value in each launch stub's variable, and what the driver says its kernel is called."""
    import ctypes

    driver = ctypes.CDLL(next(iter(mapped(r"^libcuda\.so"))))
    counts = {"variables": 0, "filled": 0, "same_name": 0, "same_base": 0, "other_name": 0, "refused": 0, "spelt": []}
    for path, maps in mapped(r"^libtorch_cuda\.so").items():
        elf = Elf(path)
        base = elf.base(maps)
        for symbol, address in elf.symbols(SHT_SYMTAB, OBJECT):
            found = SLOT.match(symbol)
            if found and base is not None:
                look(driver, ctypes.c_void_p.from_address(base + address).value, found.group(1), counts)
    return counts


def look(driver, handle, rest, counts):
    import ctypes

    from .compare import base

    counts["variables"] += 1
    if not handle:
        return
    counts["filled"] += 1
    name = ctypes.c_char_p()
    if driver.cuKernelGetName(ctypes.byref(name), ctypes.c_void_p(handle)):
        counts["refused"] += 1
    else:
        # The stub's own name is its kernel's name and the kernel's parameters once more. Lambdas and anonymous
        # namespaces in it are spelt otherwise on the device.
        said = (name.value or b"?").decode()
        same = "same_name" if rest.startswith(said) else "same_base" if base(rest) == base(said) else "other_name"
        counts[same] += 1
        if same != "same_name":
            counts["spelt"].append((rest, said))


if __name__ == "__main__":
    serve(
        {
            "start": start,
            "make": make,
            "settle": settle,
            "cost": cost,
            "burn": burn,
            "phase": phase,
            "slots": slots,
        }
    )
