// Processes of a device. In: those of the log directory, or `<device>.process.<pid>=<bytes>` and
// `<device>.process_utilization.<pid>=<percent>` in their place. Out: their memory and utilisation.
#include "nvml.h"
#include <string.h>

struct process_info {
    unsigned pid;
    uint64_t used_bytes;
    unsigned gpu_instance, compute_instance;
};
static int compute_processes(void *device, unsigned *count, struct process_info *out) {
    DEVICE(device);
    struct process list[MAX_PROCESSES];
    struct told_pair pairs[MAX_PROCESSES];
    unsigned alive = told_pairs(d, "process", pairs, MAX_PROCESSES);
    for (unsigned i = 0; i < alive; i++)
        list[i] = (struct process){.pid = (uint32_t)pairs[i].number, .live_bytes = (uint64_t)pairs[i].value};
    unsigned found = d->index == 0 && !alive ? read_processes(list, MAX_PROCESSES) : 0;
    for (unsigned i = 0; i < found; i++)
        if (list[i].alive)
            list[alive++] = list[i];
    unsigned room = *count;
    *count = alive;
    if (room < alive || (alive && !out))
        return TOO_SMALL;
    for (unsigned i = 0; i < alive; i++)
        out[i] = (struct process_info){list[i].pid, list[i].live_bytes, ~0u, ~0u};
    return OK;
}
API(nvmlDeviceGetComputeRunningProcesses_v2, (void *device, unsigned *count, struct process_info *out),
    { return compute_processes(device, count, out); })
API(nvmlDeviceGetComputeRunningProcesses_v3, (void *device, unsigned *count, struct process_info *out),
    { return compute_processes(device, count, out); })
static int no_processes(void *device, unsigned *count) {
    DEVICE(device);
    *count = 0;
    return OK;
}
API(nvmlDeviceGetGraphicsRunningProcesses_v3, (void *device, unsigned *count, void *out),
    { return no_processes(device, count); })
API(nvmlDeviceGetMPSComputeRunningProcesses_v3, (void *device, unsigned *count, void *out),
    { return no_processes(device, count); })

struct process_sample {
    unsigned pid;
    uint64_t timestamp_us;
    unsigned sm, memory, encoder, decoder;
};
// One sample per process: its share since the library's last call that returned samples.
API(nvmlDeviceGetProcessUtilization, (void *device, struct process_sample *out, unsigned *count, uint64_t since), {
    DEVICE(device);
    struct told_pair pairs[MAX_PROCESSES];
    unsigned said = told_pairs(d, "process_utilization", pairs, MAX_PROCESSES);
    if (said) {
        unsigned space = *count;
        *count = said;
        if (!out || space < said)
            return TOO_SMALL;
        for (unsigned i = 0; i < said; i++)
            out[i] = (struct process_sample){(unsigned)pairs[i].number, wall_us(), (unsigned)pairs[i].value, 0, 0, 0};
        return OK;
    }
    static struct process before[MAX_PROCESSES];
    static unsigned before_count;
    static uint64_t before_ns;
    struct process list[MAX_PROCESSES];
    unsigned found = d->index == 0 ? read_processes(list, MAX_PROCESSES) : 0;
    unsigned room = *count;
    *count = found;
    if (!out || room < found)
        return TOO_SMALL;
    if (found == 0)
        return NOT_FOUND;
    uint64_t now = now_ns();
    for (unsigned i = 0; i < found; i++) {
        uint64_t earlier = 0;
        for (unsigned j = 0; j < before_count; j++)
            if (before[j].pid == list[i].pid)
                earlier = before[j].busy_ns;
        uint64_t span = now - before_ns ? now - before_ns : 1;
        uint64_t percent = before_ns ? (list[i].busy_ns - earlier) * 100 / span : 0;
        out[i] = (struct process_sample){list[i].pid, wall_us(), percent > 100 ? 100 : (unsigned)percent, 0, 0, 0};
    }
    memcpy(before, list, sizeof list);
    before_count = found, before_ns = now;
    return OK;
})
