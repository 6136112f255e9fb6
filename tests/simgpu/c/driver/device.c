// Devices: how many, what they are. In: attribute numbers. Out: plausible constants of a 24 GB card, from `config`
// where tests may want to vary them. Absent: textures and surfaces (reported as 0).
#define _GNU_SOURCE
#include "sim.h"
#include <stdio.h>
#include <string.h>

static bool valid(CUdevice device) { return device >= 0 && device < (int)config.devices; }
#define DEVICE(device)                                                                                         \
    READY();                                                                                                   \
    if (!valid(device))                                                                                        \
    return INVALID_DEVICE

API(cuDriverGetVersion, (int *out), {
    if (!out)
        return INVALID_VALUE;
    *out = 13020;
    return CUDA_SUCCESS;
})
API(cuDeviceGetCount, (int *out), {
    READY();
    *out = (int)config.devices;
    return CUDA_SUCCESS;
})
API(cuDeviceGet, (CUdevice * out, int ordinal), {
    DEVICE(ordinal);
    *out = ordinal;
    return CUDA_SUCCESS;
})
API(cuDeviceGetName, (char *out, int size, CUdevice device), {
    DEVICE(device);
    snprintf(out, (size_t)size, "%s", config.name);
    return CUDA_SUCCESS;
})
// The same bytes as NVML's `GPU-…` text (nvml.c): 53494d47-5055-0000-0000-0000000000NN.
static CUresult uuid(unsigned char *out, CUdevice device) {
    DEVICE(device);
    memset(out, 0, 16);
    memcpy(out, "SIMGPU", 6);
    out[15] = (unsigned char)device;
    return CUDA_SUCCESS;
}
API(cuDeviceGetUuid, (unsigned char *out, CUdevice device), { return uuid(out, device); })
API(cuDeviceGetUuid_v2, (unsigned char *out, CUdevice device), { return uuid(out, device); })
API(cuDeviceGetLuid, (char *out, unsigned *mask, CUdevice device), {
    DEVICE(device);
    memset(out, 0, 8);
    *mask = 0;
    return CUDA_SUCCESS;
})
static CUresult total(size_t *out, CUdevice device) {
    DEVICE(device);
    *out = config.memory_bytes;
    return CUDA_SUCCESS;
}
API(cuDeviceTotalMem_v2, (size_t * out, CUdevice device), { return total(out, device); })
API(cuDeviceComputeCapability, (int *major, int *minor, CUdevice device), {
    DEVICE(device);
    *major = (int)config.major, *minor = (int)config.minor;
    return CUDA_SUCCESS;
})
API(cuDeviceGetPCIBusId, (char *out, int size, CUdevice device), {
    DEVICE(device);
    snprintf(out, (size_t)size, "0000:%02X:00.0", device + 1);
    return CUDA_SUCCESS;
})
API(cuDeviceGetByPCIBusId, (CUdevice * out, const char *id), {
    READY();
    unsigned domain, bus;
    if (sscanf(id, "%x:%x", &domain, &bus) != 2 || !valid((int)bus - 1))
        return INVALID_DEVICE;
    *out = (int)bus - 1;
    return CUDA_SUCCESS;
})
API(cuDeviceCanAccessPeer, (int *out, CUdevice device, CUdevice peer), {
    DEVICE(device);
    *out = device != peer && valid(peer);
    return CUDA_SUCCESS;
})
API(cuDeviceGetP2PAttribute, (int *out, int attribute, CUdevice device, CUdevice peer), {
    DEVICE(device);
    *out = 0;
    return CUDA_SUCCESS;
})
API(cuDeviceGetGraphMemAttribute, (CUdevice device, int attribute, uint64_t *out), {
    DEVICE(device);
    *out = 0;
    return CUDA_SUCCESS;
})
API(cuDeviceGraphMemTrim, (CUdevice device), {
    DEVICE(device);
    return CUDA_SUCCESS;
})

// Numbers of CUdevice_attribute (cuda.h). What is not listed answers 0.
static const int fixed[192] = {
    [1] = 1024, [2] = 1024, [3] = 1024, [4] = 64, [5] = 2147483647, [6] = 65535, [7] = 65535, // block and grid
    [8] = 49152, [9] = 65536, [10] = 32, [11] = 2147483647, [12] = 65536, [13] = 1695000,      // memory, warp, clock
    [14] = 512, [15] = 1, [19] = 1, [31] = 1,                                                  // alignment, overlap
    [36] = 6251000, [37] = 384, [38] = 6291456, [39] = 1536, [40] = 2, [41] = 1, [51] = 32,    // memory clock, L2
    [78] = 1, [79] = 1, [80] = 1, [81] = 102400, [82] = 65536, [83] = 1, [87] = 32, [89] = 1, [90] = 1,
    [92] = 1, [93] = 1, [94] = 1, [95] = 1, [97] = 101376, [99] = 1, [102] = 1, [103] = 1, [106] = 16,
    [108] = 4325376, [109] = 134213632, [111] = 1024, [115] = 1, [119] = 1, [122] = 1, [123] = 1,
    [126] = 1, [133] = 0,
};
API(cuDeviceGetAttribute, (int *out, int attribute, CUdevice device), {
    DEVICE(device);
    if (!out || attribute < 1 || attribute >= 192)
        return INVALID_VALUE;
    switch (attribute) {
    case 16: *out = (int)config.multiprocessors; break;
    case 33: *out = device + 1; break; // PCI bus
    case 75: *out = (int)config.major; break;
    case 76: *out = (int)config.minor; break;
    case 120: *out = config.major >= 9; break; // cluster launch
    default: *out = fixed[attribute];
    }
    return CUDA_SUCCESS;
})
API(cuDeviceGetExecAffinitySupport, (int *out, int type, CUdevice device), {
    DEVICE(device);
    *out = 0;
    return CUDA_SUCCESS;
})
