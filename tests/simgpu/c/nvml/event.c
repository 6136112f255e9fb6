// Events. In: `<device>.xids=<how many so far>` and `<device>.xid=<code of the last>`. Out: one event each. Absent: all
// other kinds.
#define _GNU_SOURCE
#include "nvml.h"
#include <stdlib.h>
#include <time.h>

enum { XID = 8 };
struct event_set {
    struct device *devices[MAX_DEVICES];
    uint64_t delivered[MAX_DEVICES];
    unsigned count;
};
struct event {
    void *device;
    uint64_t type, data;
    unsigned gpu_instance, compute_instance;
};

API(nvmlEventSetCreate, (struct event_set **out), {
    if (!started())
        return UNINITIALIZED;
    *out = calloc(1, sizeof **out);
    return *out ? OK : 20;
})
API(nvmlEventSetFree, (struct event_set *set), {
    free(set);
    return OK;
})
API(nvmlDeviceGetSupportedEventTypes, (void *device, uint64_t *out), {
    DEVICE(device);
    *out = XID;
    return OK;
})
API(nvmlDeviceRegisterEvents, (void *device, uint64_t types, struct event_set *set), {
    DEVICE(device);
    if (types & ~(uint64_t)XID || set->count == MAX_DEVICES)
        return NOT_SUPPORTED;
    told_number(d, "xids", &set->delivered[set->count]);
    set->devices[set->count++] = d;
    return OK;
})

static bool next(struct event_set *set, struct event *out) {
    for (unsigned i = 0; i < set->count; i++) {
        uint64_t posted = 0;
        uint64_t code = 999;
        if (!told_number(set->devices[i], "xids", &posted) || posted <= set->delivered[i])
            continue;
        told_number(set->devices[i], "xid", &code);
        set->delivered[i]++;
        *out = (struct event){set->devices[i], XID, code, ~0u, ~0u};
        return true;
    }
    return false;
}
API(nvmlEventSetWait_v2, (struct event_set *set, struct event *out, unsigned timeout_ms), {
    uint64_t end = now_ns() + timeout_ms * 1000000ull;
    for (;;) {
        if (next(set, out))
            return OK;
        if (now_ns() >= end)
            return TIMEOUT;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
})
