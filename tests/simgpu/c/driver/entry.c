// Entry points by name, and error texts. In: names, versions and flags as cuGetProcAddress documents them. Out:
// exactly the exported addresses, as the real driver hands out (measured on 535 and 550). Absent: private tables.
#define _GNU_SOURCE
#include "entry.h"
#include "sim.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *name, const void *entry) {
    return strcmp(name, ((const struct entry *)entry)->name);
}
static const struct entry *find(const char *name) {
    return bsearch(name, driver_entries, driver_entry_count, sizeof *driver_entries, compare);
}

// The newest form of a function that the asked-for version knows. Flag 2 prefers per-thread default streams.
static const struct entry *resolve(const char *symbol, int version, uint64_t flags) {
    static const char *const forms[] = {"_v4", "_v3", "_v2", ""}, *const threads[] = {"_ptsz", "_ptds", ""};
    for (int f = 0; f < 4; f++)
        for (int t = flags & 2 ? 0 : 2; t < 3; t++) {
            char name[160];
            snprintf(name, sizeof name, "%s%s%s", symbol, forms[f], threads[t]);
            const struct entry *entry = find(name);
            if (entry && entry->version <= version)
                return entry;
        }
    return NULL;
}

// Status: 0 found, 1 no such symbol, 2 the version is too low.
static CUresult get(const char *symbol, void **out, int version, uint64_t flags, int *status) {
    if (!symbol || !out)
        return INVALID_VALUE;
    const struct entry *entry = resolve(symbol, version, flags);
    *out = entry ? (void *)entry->address : NULL;
    if (status)
        *status = entry ? 0 : resolve(symbol, 1 << 30, flags) ? 2 : 1;
    return entry ? CUDA_SUCCESS : NOT_FOUND;
}
API(cuGetProcAddress, (const char *symbol, void **out, int version, uint64_t flags),
    { return get(symbol, out, version, flags, NULL); })
API(cuGetProcAddress_v2, (const char *symbol, void **out, int version, uint64_t flags, int *status), {
    CUresult result = get(symbol, out, version, flags, status);
    return status ? CUDA_SUCCESS : result;
})

static const struct {
    CUresult code;
    const char *name, *text;
} errors[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {301, "CUDA_ERROR_FILE_NOT_FOUND", "file not found"},
    {400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {401, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
    {500, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {600, "CUDA_ERROR_NOT_READY", "device not ready"},
    {712, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "part or all of the requested memory range is already mapped"},
    {713, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "pointer does not correspond to a registered memory region"},
    {801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {903, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "attempt to terminate a thread-local capture sequence from another thread"},
    {904, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED", "capturing stream has unjoined work"},
    {905, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "dependency created on uncaptured work in another stream"},
    {906, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "operation would make the legacy stream depend on a capturing blocking stream"},
    {907, "CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a capturing stream"},
    {910, "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE", "the graph update was not performed because it included changes which violated constraints specific to instantiated graph update"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};
static CUresult error_text(CUresult error, const char **out, bool name) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == error) {
            *out = name ? errors[i].name : errors[i].text;
            return CUDA_SUCCESS;
        }
    *out = NULL;
    return INVALID_VALUE;
}
API(cuGetErrorName, (CUresult error, const char **out), { return error_text(error, out, true); })
API(cuGetErrorString, (CUresult error, const char **out), { return error_text(error, out, false); })

API(cuProfilerStart, (void), {
    READY();
    return CUDA_SUCCESS;
})
API(cuProfilerStop, (void), {
    READY();
    return CUDA_SUCCESS;
})
