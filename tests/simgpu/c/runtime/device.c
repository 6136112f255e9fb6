// Devices, versions, error texts and entry points. In: public calls. Out: the driver's answers in the runtime's
// layouts. Absent: the OpenGL, EGL and VDPAU parts.
#define _GNU_SOURCE
#include "runtime.h"
#include <string.h>

API(cudaDriverGetVersion, (int *out), {
    *out = 0; // no driver is no error here
    return loaded() == INSUFFICIENT_DRIVER ? SUCCESS : remember(driver.cuDriverGetVersion(out));
})
API(cudaRuntimeGetVersion, (int *out), {
    *out = SIMGPU_CUDA == 13 ? 13020 : 12090;
    return SUCCESS;
})
API(cudaDeviceSynchronize, (void), { CALL(cuCtxSynchronize); })
#if SIMGPU_CUDA == 12
API(cudaThreadSynchronize, (void), { CALL(cuCtxSynchronize); })
#endif
API(cudaDeviceReset, (void), {
    READY();
    int device = 0;
    driver.cuCtxGetDevice(&device);
    CALL(cuDevicePrimaryCtxReset_v2, device);
})
API(cudaDeviceGetAttribute, (int *out, int attribute, int device), { CALL(cuDeviceGetAttribute, out, attribute, device); })
API(cudaDeviceGetPCIBusId, (char *out, int size, int device), { CALL(cuDeviceGetPCIBusId, out, size, device); })
API(cudaDeviceGetByPCIBusId, (int *out, const char *id), { CALL(cuDeviceGetByPCIBusId, out, id); })
API(cudaDeviceCanAccessPeer, (int *out, int device, int peer), { CALL(cuDeviceCanAccessPeer, out, device, peer); })
API(cudaDeviceEnablePeerAccess, (int peer, unsigned flags), { CALL(cuCtxEnablePeerAccess, (void *)NULL, flags); })
API(cudaDeviceDisablePeerAccess, (int peer), { READY(); return SUCCESS; })
API(cudaDeviceGetP2PAttribute, (int *out, int attribute, int device, int peer),
    { CALL(cuDeviceGetP2PAttribute, out, attribute, device, peer); })
API(cudaDeviceGetStreamPriorityRange, (int *least, int *greatest), { CALL(cuCtxGetStreamPriorityRange, least, greatest); })
API(cudaDeviceGetLimit, (size_t * out, int limit), { CALL(cuCtxGetLimit, out, limit); })
API(cudaDeviceSetLimit, (int limit, size_t value), { CALL(cuCtxSetLimit, limit, value); })
API(cudaDeviceGetCacheConfig, (int *out), {
    READY();
    *out = 0;
    return SUCCESS;
})
API(cudaDeviceSetCacheConfig, (int value), { READY(); return SUCCESS; })
API(cudaDeviceGetSharedMemConfig, (int *out), {
    READY();
    *out = 1;
    return SUCCESS;
})
API(cudaDeviceSetSharedMemConfig, (int value), { READY(); return SUCCESS; })
API(cudaCtxResetPersistingL2Cache, (void), { CALL(cuCtxResetPersistingL2Cache); })
API(cudaGetDeviceFlags, (unsigned *out), {
    READY();
    int device = 0, active = 0;
    driver.cuCtxGetDevice(&device);
    CALL(cuDevicePrimaryCtxGetState, device, out, &active);
})
API(cudaSetDeviceFlags, (unsigned flags), {
    READY();
    int device = 0;
    driver.cuCtxGetDevice(&device);
    CALL(cuDevicePrimaryCtxSetFlags_v2, device, flags);
})
API(cudaSetValidDevices, (int *devices, int count), { READY(); return SUCCESS; })
API(cudaProfilerStart, (void), { CALL(cuProfilerStart); })
API(cudaProfilerStop, (void), { CALL(cuProfilerStop); })

// Where cudaDeviceProp keeps a device attribute: byte offset in CUDA 12.9 and 13.5 (0: not there), width, number of
// the attribute. From the field lists of both versions' driver_types.h.
static const struct {
    uint16_t at12, at13, width, attribute;
} fields[] = {
    {296, 296, 8, 8}, {304, 304, 4, 12}, {308, 308, 4, 10}, {312, 312, 8, 11}, {320, 320, 4, 1}, {324, 324, 4, 2},
    {328, 328, 4, 3}, {332, 332, 4, 4}, {336, 336, 4, 5}, {340, 340, 4, 6}, {344, 344, 4, 7}, {348, 0, 4, 13},
    {352, 352, 8, 9}, {360, 360, 4, 75}, {364, 364, 4, 76}, {368, 368, 8, 14}, {376, 376, 8, 51}, {384, 0, 4, 15},
    {388, 384, 4, 16}, {400, 392, 4, 19}, {576, 560, 4, 31}, {584, 568, 4, 33}, {600, 584, 4, 40}, {604, 588, 4, 41},
    {608, 0, 4, 36}, {612, 592, 4, 37}, {616, 596, 4, 38}, {620, 600, 4, 108}, {624, 604, 4, 39}, {628, 608, 4, 78},
    {632, 612, 4, 79}, {636, 616, 4, 80}, {640, 624, 8, 81}, {648, 632, 4, 82}, {652, 636, 4, 83}, {668, 0, 4, 87},
    {676, 656, 4, 89}, {680, 660, 4, 90}, {688, 668, 4, 95}, {696, 672, 8, 97}, {712, 688, 4, 106}, {716, 692, 4, 109},
    {720, 696, 8, 111}, {728, 704, 4, 99}, {744, 720, 4, 115}, {760, 736, 4, 119}, {772, 748, 4, 120},
};
enum { NAME_BYTES = 256, UUID_AT = 256, TOTAL_AT = 288, BYTES_12 = 1032, BYTES_13 = 1008, BYTES_OLD = 728 };

// `limit` keeps the old layout of CUDA 11, a prefix of the 12 one, inside its smaller structure.
static error_t_ properties(char *out, int device, size_t limit) {
    READY();
    int count = 0;
    driver.cuDeviceGetCount(&count);
    if (!out || device < 0 || device >= count)
        return remember(out ? INVALID_DEVICE : INVALID_VALUE);
    memset(out, 0, limit);
    driver.cuDeviceGetName(out, NAME_BYTES, device);
    driver.cuDeviceGetUuid(out + UUID_AT, device);
    driver.cuDeviceTotalMem_v2(out + TOTAL_AT, device);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        int value = 0;
        size_t at = SIMGPU_CUDA >= 13 ? fields[i].at13 : fields[i].at12;
        if (at == 0 || at + fields[i].width > limit)
            continue;
        driver.cuDeviceGetAttribute(&value, (int)fields[i].attribute, device);
        int64_t wide = value;
        memcpy(out + at, &wide, fields[i].width);
    }
    return SUCCESS;
}
#if SIMGPU_CUDA >= 13
API(cudaGetDeviceProperties, (char *out, int device), { return properties(out, device, BYTES_13); })
#else
API(cudaGetDeviceProperties, (char *out, int device), { return properties(out, device, BYTES_OLD); })
API(cudaGetDeviceProperties_v2, (char *out, int device), { return properties(out, device, BYTES_12); })
#endif
API(cudaChooseDevice, (int *out, const void *wanted), {
    READY();
    *out = 0;
    return SUCCESS;
})

static error_t_ entry_point(const char *symbol, void **out, unsigned version, uint64_t flags, int *status, int per_thread) {
    READY();
    int found = 1;
    uint64_t wanted = flags ? flags : per_thread ? 2 : 1;
    error_t_ error = driver.cuGetProcAddress_v2(symbol, out, (int)version, wanted, &found);
    if (status)
        *status = found;
    return remember(error);
}
enum { OWN_VERSION = SIMGPU_CUDA == 13 ? 13020 : 12090 };
API2(_ptsz, cudaGetDriverEntryPoint, (const char *symbol, void **out, uint64_t flags, int *status),
     { return entry_point(symbol, out, OWN_VERSION, flags, status, per_thread); })
API2(_ptsz, cudaGetDriverEntryPointByVersion,
     (const char *symbol, void **out, unsigned version, uint64_t flags, int *status),
     { return entry_point(symbol, out, version, flags, status, per_thread); })

static const struct {
    error_t_ code;
    const char *name, *text;
} errors[] = {
    {0, "cudaSuccess", "no error"},
    {1, "cudaErrorInvalidValue", "invalid argument"},
    {2, "cudaErrorMemoryAllocation", "out of memory"},
    {3, "cudaErrorInitializationError", "initialization error"},
    {9, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {13, "cudaErrorInvalidSymbol", "invalid device symbol"},
    {21, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {35, "cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"},
    {52, "cudaErrorMissingConfiguration", "__global__ function call is not configured"},
    {98, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {100, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {101, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {400, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {401, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
    {500, "cudaErrorSymbolNotFound", "named symbol not found"},
    {600, "cudaErrorNotReady", "device not ready"},
    {712, "cudaErrorHostMemoryAlreadyRegistered", "part or all of the requested memory range is already mapped"},
    {713, "cudaErrorHostMemoryNotRegistered", "pointer does not correspond to a registered memory region"},
    {801, "cudaErrorNotSupported", "operation not supported"},
    {900, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {901, "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"},
    {903, "cudaErrorStreamCaptureUnmatched", "attempt to terminate a thread-local capture sequence from another thread"},
    {904, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"},
    {905, "cudaErrorStreamCaptureIsolation", "dependency created on uncaptured work in another stream"},
    {906, "cudaErrorStreamCaptureImplicit", "operation would make the legacy stream depend on a capturing blocking stream"},
    {907, "cudaErrorCapturedEvent", "operation not permitted on an event last recorded in a capturing stream"},
    {910, "cudaErrorGraphExecUpdateFailure", "the graph update was not performed because it included changes which violated constraints specific to instantiated graph update"},
    {999, "cudaErrorUnknown", "unknown error"},
};
static const char *error_text(error_t_ error, int name) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == error)
            return name ? errors[i].name : errors[i].text;
    return "unrecognized error code";
}
EXPORT const char *cudaGetErrorString(error_t_ error) {
    COUNT("cudaGetErrorString");
    return error_text(error, 0);
}
EXPORT const char *cudaGetErrorName(error_t_ error) {
    COUNT("cudaGetErrorName");
    return error_text(error, 1);
}
