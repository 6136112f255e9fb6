"""Figures of the GPU from NVML. In: libnvidia-ml.so.1. Out: name, driver, memory, power, energy, utilisation of the
first device; what a device does not report is absent. Nothing is set. Signatures: nvml.h (CUDA 12 and 13).
"""

import ctypes
import os

DRIVER_MODEL = 96


class Nvml:
    """The library, initialised; None of its figures is a reason to fail."""

    def __init__(self, path="libnvidia-ml.so.1"):
        self.library = ctypes.CDLL(path)
        self.device = ctypes.c_void_p()
        for name, arguments in [
            ("nvmlInit_v2", ()),
            ("nvmlDeviceGetHandleByIndex_v2", (ctypes.c_uint(0), ctypes.byref(self.device))),
        ]:
            code = getattr(self.library, name)(*arguments)
            if code:
                raise OSError(f"{name} answered {code}")

    def text(self, name, *before):
        out = ctypes.create_string_buffer(DRIVER_MODEL)
        code = getattr(self.library, name)(*before, out, ctypes.c_uint(DRIVER_MODEL))
        return None if code else out.value.decode()

    def number(self, name, kind):
        out = kind()
        return None if getattr(self.library, name)(self.device, ctypes.byref(out)) else out.value

    def facts(self):
        version = ctypes.c_int()
        self.library.nvmlSystemGetCudaDriverVersion(ctypes.byref(version))
        return {
            "driver": self.text("nvmlSystemGetDriverVersion"),
            "cuda of the driver": f"{version.value // 1000}.{version.value % 1000 // 10}",
            "gpu": self.text("nvmlDeviceGetName", self.device),
        }

    def energy_mj(self):
        """Millijoules since the driver was loaded (Volta and later)."""
        return self.number("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong)

    def power_mw(self):
        return self.number("nvmlDeviceGetPowerUsage", ctypes.c_uint)

    def utilisation(self):
        """Percent of the last sample period (1/6 to 1 s) in which a kernel ran."""
        out = (ctypes.c_uint * 2)()
        return None if self.library.nvmlDeviceGetUtilizationRates(self.device, out) else out[0]


def opened(settings):
    """NVML, or why not."""
    try:
        return Nvml(
            os.path.join(settings.standins, "libnvidia-ml.so.1") if settings.standins else "libnvidia-ml.so.1"
        ), None
    except OSError as error:
        return None, str(error)
