// Performance metrics of Hopper and later. In: what ran between two samples, and `<device>.gpm.<metric>=<value>`. Out:
// means between the samples. Absent: streaming mode.
#define _GNU_SOURCE
#include "nvml.h"
#include <stdio.h>
#include <stdlib.h>

struct sample {
    const struct device *device;
    uint64_t taken_ns, busy_ns;
};
struct metric {
    unsigned id;
    int code;
    double value;
    const char *short_name, *long_name, *unit;
};
struct metrics {
    unsigned version, count;
    struct sample *first, *second;
    struct metric metrics[210];
};
struct support {
    unsigned version, is_supported;
};
enum { GRAPHICS = 1, SM = 2, FIRST_RATE = 20, LAST_RATE = 21, FIRST_LINK = 60 };

API(nvmlGpmQueryDeviceSupport, (void *device, struct support *out), {
    DEVICE(device);
    uint64_t supported = env_number("SIMGPU_COMPUTE_CAPABILITY", 86) >= 90;
    told_number(d, "gpm", &supported);
    out->is_supported = supported != 0;
    return OK;
})
API(nvmlGpmSampleAlloc, (struct sample **out), {
    *out = calloc(1, sizeof **out);
    return *out ? OK : 20;
})
API(nvmlGpmSampleFree, (struct sample *sample), {
    free(sample);
    return OK;
})
static int take(const struct device *d, struct sample *out) {
    *out = (struct sample){d, now_ns(), d->index == 0 ? totals().busy_ns : 0};
    return OK;
}
API(nvmlGpmSampleGet, (void *device, struct sample *out), {
    DEVICE(device);
    return take(d, out);
})
API(nvmlGpmMigSampleGet, (void *device, unsigned gpu_instance, struct sample *out), {
    DEVICE(device);
    if (gpu_instance == 0 || gpu_instance > instance_count(d))
        return INVALID_ARGUMENT;
    return take(instance(d, gpu_instance - 1), out);
})
static double between(const struct metrics *m, unsigned id) {
    double span = (double)(m->second->taken_ns - m->first->taken_ns);
    double busy = span > 0 ? 100.0 * (double)(m->second->busy_ns - m->first->busy_ns) / span : 0;
    return id == GRAPHICS || id == SM ? (busy > 100 ? 100 : busy) : 0;
}
API(nvmlGpmMetricsGet, (struct metrics *m), {
    if (!m->first || !m->second || m->first->device != m->second->device)
        return INVALID_ARGUMENT;
    spend(m->second->device);
    for (unsigned i = 0; i < m->count; i++) {
        struct metric *metric = &m->metrics[i];
        bool rate = metric->id >= FIRST_LINK || metric->id == FIRST_RATE || metric->id == LAST_RATE;
        char key[32];
        snprintf(key, sizeof key, "gpm.%u", metric->id);
        if (!told(m->second->device, key, &metric->value))
            metric->value = between(m, metric->id);
        metric->code = OK;
        metric->short_name = metric->long_name = key[0] ? "metric" : "";
        metric->unit = rate ? "MiB/s" : "%";
    }
    return OK;
})
