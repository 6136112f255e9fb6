"""The CUDA libraries that PyTorch has loaded, called directly. In: this process's mappings. Out: exact numbers of
calls, and what one costs. Runs inside a workload. Absent: other libraries than those the process uses anyway.
"""

import ctypes
import itertools
import re
import time

#: A kernel that does nothing, as text: the driver compiles it, so neither nvcc nor NVRTC is needed.
PTX = """.version 6.3
.target sm_{target}
.address_size 64
.visible .entry gpuspan_empty() {{ ret; }}
"""
#: The first that the driver takes; drivers for CUDA 13 begin at 75.
TARGETS = (75, 50)
#: Launches in flight; a full queue (about 1,000) would make a launch wait.
BURST = 200
HTOD, DTOH, DTOD = 1, 2, 3


class CudaError(Exception):
    """A call failed."""


def mapped(pattern):
    """Paths of mapped files whose name matches, with (start, offset in the file) of each mapping."""
    found = {}
    with open("/proc/self/maps") as maps:
        for line in maps:
            fields = line.split(None, 5)
            if len(fields) == 6 and re.search(pattern, fields[5].strip().rsplit("/", 1)[-1]):
                start = int(fields[0].split("-")[0], 16)
                found.setdefault(fields[5].strip(), []).append((start, int(fields[2], 16)))
    return found


class Library:
    """A mapped library whose calls are checked."""

    def __init__(self, pattern):
        paths = list(mapped(pattern))
        if not paths:
            raise CudaError(f"no library {pattern} is loaded")
        self.path = paths[0]
        self.library = ctypes.CDLL(self.path)

    def call(self, name, *arguments):
        code = getattr(self.library, name)(*arguments)
        if code:
            raise CudaError(f"{name} answered {code}")

    def function(self, name):
        return getattr(self.library, name)


class Cuda:
    """Runtime and driver with an empty kernel, a stream and some memory."""

    def __init__(self, bytes_=1 << 20):
        self.runtime, self.driver = Library(r"^libcudart"), Library(r"^libcuda\.so")
        self.bytes = bytes_
        self.stream, self.event = ctypes.c_void_p(), ctypes.c_void_p()
        self.device, self.other, self.pinned = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        self.pageable = ctypes.create_string_buffer(bytes_)
        call = self.runtime.call
        call("cudaStreamCreate", ctypes.byref(self.stream))
        call("cudaEventCreate", ctypes.byref(self.event))
        for where in (self.device, self.other):
            call("cudaMalloc", ctypes.byref(where), ctypes.c_size_t(bytes_))
        call("cudaMallocHost", ctypes.byref(self.pinned), ctypes.c_size_t(bytes_))
        self.image = self.compiled()
        self.functions = {}

    def compiled(self):
        """The empty kernel's source in a form that this driver takes, loaded as a module."""
        self.module, self.driver_kernel = ctypes.c_void_p(), ctypes.c_void_p()
        for target in TARGETS:
            image = ctypes.create_string_buffer(PTX.format(target=target).encode())
            if not self.driver.function("cuModuleLoadData")(ctypes.byref(self.module), image):
                self.driver.call("cuModuleGetFunction", ctypes.byref(self.driver_kernel), self.module, b"gpuspan_empty")
                return image
        raise CudaError("the driver compiles no PTX for " + ", ".join(map(str, TARGETS)))

    def runtime_kernel(self):
        """The empty kernel as the runtime launches it (`cudaKernel_t`, runtime 12.8 and later)."""
        if "runtime" not in self.functions:
            library, kernel, none = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
            zero = ctypes.c_uint(0)
            self.runtime.call(
                "cudaLibraryLoadData", ctypes.byref(library), self.image, none, none, zero, none, none, zero
            )
            self.runtime.call("cudaLibraryGetKernel", ctypes.byref(kernel), library, b"gpuspan_empty")
            self.functions["runtime"] = kernel
        return self.functions["runtime"]

    def calls(self):
        """Calls by name, each as (function, arguments). Those that allocate are made in pairs, see `make`."""
        size, stream, none = ctypes.c_size_t(self.bytes), self.stream, ctypes.c_void_p()

        def copy(to, from_, way):
            return (to, from_, size, ctypes.c_int(way), stream)

        runtime = {
            "cudaMemcpyAsync HtoD pinned": ("cudaMemcpyAsync", copy(self.device, self.pinned, HTOD)),
            "cudaMemcpyAsync HtoD pageable": ("cudaMemcpyAsync", copy(self.device, self.pageable, HTOD)),
            "cudaMemcpyAsync DtoH pinned": ("cudaMemcpyAsync", copy(self.pinned, self.device, DTOH)),
            "cudaMemcpyAsync DtoD": ("cudaMemcpyAsync", copy(self.other, self.device, DTOD)),
            "cudaMemcpy HtoD": ("cudaMemcpy", (self.device, self.pageable, size, ctypes.c_int(HTOD))),
            "cudaMemsetAsync": ("cudaMemsetAsync", (self.device, ctypes.c_int(0), size, stream)),
            "cudaMemset": ("cudaMemset", (self.device, ctypes.c_int(0), size)),
            "cudaStreamSynchronize": ("cudaStreamSynchronize", (stream,)),
            "cudaDeviceSynchronize": ("cudaDeviceSynchronize", ()),
            "cudaEventRecord": ("cudaEventRecord", (self.event, stream)),
            "cudaEventSynchronize": ("cudaEventSynchronize", (self.event,)),
            "cudaStreamWaitEvent": ("cudaStreamWaitEvent", (stream, self.event, ctypes.c_uint(0))),
        }
        out = {name: (self.runtime.function(function), arguments) for name, (function, arguments) in runtime.items()}
        out["cuLaunchKernel"] = (self.driver.function("cuLaunchKernel"), self.driver_launch(none))
        return out

    def driver_launch(self, none):
        one = ctypes.c_uint(1)
        return (self.driver_kernel, one, one, one, one, one, one, ctypes.c_uint(0), self.stream, none, none)

    def runtime_launch(self, ex=False):
        """`cudaLaunchKernel` takes its two dim3 by value, `cudaLaunchKernelExC` a configuration."""
        none = ctypes.c_void_p()
        if ex:
            config = LaunchConfig(Dim3(1, 1, 1), Dim3(1, 1, 1), 0, self.stream.value, None, 0)
            return (self.runtime.function("cudaLaunchKernelExC"), (ctypes.byref(config), self.runtime_kernel(), none))
        arguments = (self.runtime_kernel(), Dim3(1, 1, 1), Dim3(1, 1, 1), none, ctypes.c_size_t(0), self.stream)
        return (self.runtime.function("cudaLaunchKernel"), arguments)

    def named(self, name):
        if name == "cudaLaunchKernel":
            return self.runtime_launch()
        if name == "cudaLaunchKernelExC":
            return self.runtime_launch(ex=True)
        return self.calls()[name]

    def make(self, name, times):
        """Calls `name` so often; how many succeeded. Pairs such as `cudaMalloc+cudaFree` make both."""
        if "+" in name:
            return self.pair(*name.split("+"), times)
        function, arguments = self.named(name)
        failed = sum(function(*arguments) != 0 for _ in range(times))
        return times - failed

    def settle(self):
        """Waits for what was made; apart, because it is a call itself."""
        self.runtime.call("cudaDeviceSynchronize")

    def pair(self, take, give, times):
        made = 0
        size, where = ctypes.c_size_t(self.bytes), ctypes.c_void_p()
        stream = (self.stream,) if take.endswith("Async") else ()
        for _ in range(times):
            code = self.runtime.function(take)(ctypes.byref(where), size, *stream)
            made += not code and not self.runtime.function(give)(where, *stream)
        return made

    def cost_ns(self, name, times):
        """This thread's CPU time of one call, Python's part included; waits are outside of it."""
        function, arguments = self.named(name)
        total = 0
        for _ in range(max(times // BURST, 1)):
            begin = time.thread_time_ns()
            for _ in itertools.repeat(None, BURST):
                function(*arguments)
            total += time.thread_time_ns() - begin
            self.runtime.call("cudaStreamSynchronize", self.stream)
        return total / (max(times // BURST, 1) * BURST)


class Dim3(ctypes.Structure):
    _fields_ = [("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint)]


class LaunchConfig(ctypes.Structure):
    """`cudaLaunchConfig_t` (driver_types.h)."""

    _fields_ = [
        ("grid", Dim3),
        ("block", Dim3),
        ("shared", ctypes.c_size_t),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("count", ctypes.c_uint),
    ]
