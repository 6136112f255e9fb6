"""A uprobe of the kernel's own, without any BPF program. In: a file, an offset in it, a thread. Out: how often it was
hit. It tells whether uprobes are possible where BPF is refused, and what an empty probe costs.

By `perf_event_open` on the `uprobe` device (Linux 4.17; include/uapi/linux/perf_event.h). Absent: return probes.
"""

import ctypes
import os
import platform
import struct

TYPE = "/sys/bus/event_source/devices/uprobe/type"
#: perf_event_open (asm/unistd.h).
NUMBER = {"x86_64": 298, "aarch64": 241}
SIZE = 112


class Impossible(Exception):
    """The kernel refuses; the words say what."""


class Uprobe:
    """A probe in place; `with` takes it out."""

    def __init__(self, path, offset, tid):
        try:
            with open(TYPE) as file:
                kind = int(file.read())
        except OSError:
            raise Impossible("the kernel has no uprobe device (CONFIG_UPROBE_EVENTS), or sysfs is hidden") from None
        self.name = ctypes.create_string_buffer(os.fsencode(path))
        self.fd = perf_event_open(kind, ctypes.addressof(self.name), offset, tid)

    def hits(self):
        return struct.unpack("<Q", os.read(self.fd, 8))[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)


def perf_event_open(kind, path, offset, tid):
    number = NUMBER.get(platform.machine())
    if number is None:
        raise Impossible(f"perf_event_open has no known number on {platform.machine()}")
    attributes = ctypes.create_string_buffer(SIZE)
    # type, size, config; the path and offset are config1 and config2, at bytes 56 and 64.
    struct.pack_into("<IIQ", attributes, 0, kind, SIZE, 0)
    struct.pack_into("<QQ", attributes, 56, path, offset)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(
        ctypes.c_long(number), attributes, ctypes.c_int(tid), ctypes.c_int(-1), ctypes.c_int(-1), ctypes.c_ulong(8)
    )
    if fd < 0:
        raise Impossible(os.strerror(ctypes.get_errno()) + " (perf_event_open of a uprobe)")
    return fd
