// Instances of a GPU. In: `<device>.mig=<how many>`. Out: their handles. Absent: making and removing them.
#include "nvml.h"

API(nvmlDeviceGetMigMode, (void *device, unsigned *current, unsigned *pending), {
    DEVICE(device);
    *current = instance_count(d) > 0;
    if (pending)
        *pending = *current;
    return OK;
})
API(nvmlDeviceGetMaxMigDeviceCount, (void *device, unsigned *out), {
    DEVICE(device);
    *out = instance_count(d) > 0 ? MAX_INSTANCES : 0;
    return OK;
})
API(nvmlDeviceGetMigDeviceHandleByIndex, (void *device, unsigned index, void **out), {
    DEVICE(device);
    if (index >= instance_count(d))
        return NOT_FOUND;
    *out = instance(d, index);
    return OK;
})
API(nvmlDeviceGetDeviceHandleFromMigDeviceHandle, (void *device, void **out), {
    DEVICE(device);
    *out = d->parent;
    return d->parent ? OK : INVALID_ARGUMENT;
})
API(nvmlDeviceIsMigDeviceHandle, (void *device, unsigned *out), {
    DEVICE(device);
    *out = d->parent != NULL;
    return OK;
})
API(nvmlDeviceGetGpuInstanceId, (void *device, unsigned *out), {
    DEVICE(device);
    *out = d->instance + 1;
    return d->parent ? OK : NOT_SUPPORTED;
})
