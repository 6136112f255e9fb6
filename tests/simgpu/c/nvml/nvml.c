// The management library. In: what the processes of the log directory report of themselves. Out: device, memory,
// utilisation, power, energy and process values that follow from it. Absent: everything else, which answers "not
// supported"; work of several devices is shown on device 0.
#define _GNU_SOURCE
#include "../log/log.h"
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7 };
enum { MAX_DEVICES = 8, MAX_PROCESSES = 64 };
enum { IDLE_MILLIWATTS = 25000, FULL_MILLIWATTS = 300000, LIMIT_MILLIWATTS = 300000 };
enum { RESERVED_BYTES = 256 << 20 };

#define API(name, params, ...)                                                                                 \
    EXPORT int name params {                                                                                   \
        COUNT(#name);                                                                                          \
        __VA_ARGS__                                                                                            \
    }

struct device {
    unsigned index;
};
static struct device devices[MAX_DEVICES];
static _Atomic int references;

static unsigned device_count(void) {
    uint64_t count = env_number("SIMGPU_DEVICES", 1);
    return count > MAX_DEVICES ? MAX_DEVICES : (unsigned)count;
}
static uint64_t memory_bytes(void) { return env_number("SIMGPU_MEMORY_MIB", 24576) << 20; }
static const char *device_name(void) {
    const char *name = getenv("SIMGPU_NAME");
    return name && *name ? name : "Simulated GPU 24GB";
}

struct process {
    uint32_t pid;
    uint64_t live_bytes, busy_ns;
    int alive;
};

static int read_process(const char *path, struct process *out) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    off_t size = lseek(fd, 0, SEEK_END);
    struct counts_file *file = size > 0 ? mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    close(fd);
    if (file == MAP_FAILED)
        return 0;
    int good = atomic_load(&file->magic) == SIMGPU_COUNTS_MAGIC;
    if (good) {
        const struct truth_slot *truth = (const struct truth_slot *)((const char *)file + file->truth_offset);
        *out = (struct process){.pid = file->pid, .live_bytes = atomic_load(&truth[TRUTH_live_bytes].value),
                                .busy_ns = atomic_load(&truth[TRUTH_busy_ns].value)};
        out->alive = kill((pid_t)out->pid, 0) == 0;
    }
    munmap(file, (size_t)size);
    return good;
}

// Every process of the log directory that has done device work, ended ones included.
static unsigned read_processes(struct process *out, unsigned room) {
    unsigned count = 0;
    DIR *directory = log_directory()[0] ? opendir(log_directory()) : NULL;
    for (struct dirent *entry; directory && count < room && (entry = readdir(directory));) {
        char path[4096];
        if (!strstr(entry->d_name, ".counts"))
            continue;
        snprintf(path, sizeof path, "%s/%s", log_directory(), entry->d_name);
        if (read_process(path, &out[count]) && (out[count].busy_ns || out[count].live_bytes))
            count++;
    }
    if (directory)
        closedir(directory);
    return count;
}

struct totals {
    uint64_t live_bytes, busy_ns;
};
static struct totals totals(void) {
    struct process list[MAX_PROCESSES];
    unsigned count = read_processes(list, MAX_PROCESSES);
    struct totals sum = {0};
    for (unsigned i = 0; i < count; i++) {
        sum.busy_ns += list[i].busy_ns;
        if (list[i].alive)
            sum.live_bytes += list[i].live_bytes;
    }
    return sum;
}

static uint64_t wall_us(void) {
    struct timeval now;
    gettimeofday(&now, NULL);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_usec;
}

// The share of time in which anything ran since the last sample; samples are at least 20 ms apart.
static unsigned utilization(void) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static uint64_t last_ns, last_busy;
    static unsigned percent;
    pthread_mutex_lock(&lock);
    uint64_t now = now_ns();
    if (now - last_ns > 20000000) {
        uint64_t busy = totals().busy_ns;
        if (last_ns && busy >= last_busy)
            percent = (unsigned)((busy - last_busy) * 100 / (now - last_ns));
        last_ns = now, last_busy = busy;
    }
    unsigned result = percent > 100 ? 100 : percent;
    pthread_mutex_unlock(&lock);
    return result;
}

static struct device *valid(void *handle) {
    struct device *device = handle;
    return device >= devices && device < devices + device_count() ? device : NULL;
}
#define DEVICE(handle)                                                                                         \
    if (atomic_load(&references) <= 0)                                                                         \
        return UNINITIALIZED;                                                                                  \
    if (!valid(handle))                                                                                        \
        return INVALID_ARGUMENT;                                                                               \
    struct device *d = handle;                                                                                 \
    (void)d

static int start(void) {
    for (unsigned i = 0; i < MAX_DEVICES; i++)
        devices[i].index = i;
    atomic_fetch_add(&references, 1);
    return OK;
}
API(nvmlInit_v2, (void), { return start(); })
API(nvmlInitWithFlags, (unsigned flags), { return start(); })
API(nvmlShutdown, (void), {
    if (atomic_load(&references) <= 0)
        return UNINITIALIZED;
    atomic_fetch_sub(&references, 1);
    return OK;
})
EXPORT const char *nvmlErrorString(int code) {
    COUNT("nvmlErrorString");
    static const char *const texts[] = {"Success", "Uninitialized", "Invalid Argument", "Not Supported",
                                        "Insufficient Permissions", "Already Initialized", "Not Found",
                                        "Insufficient Size"};
    return code >= 0 && code < 8 ? texts[code] : "Unknown Error";
}

static int text(char *out, unsigned size, const char *value) {
    if (!out || strlen(value) >= size)
        return out ? TOO_SMALL : INVALID_ARGUMENT;
    strcpy(out, value);
    return OK;
}
API(nvmlSystemGetDriverVersion, (char *out, unsigned size), { return text(out, size, "580.00.simgpu"); })
API(nvmlSystemGetNVMLVersion, (char *out, unsigned size), { return text(out, size, "13.580.00.simgpu"); })
static int cuda_version(int *out) {
    *out = 13020;
    return OK;
}
API(nvmlSystemGetCudaDriverVersion, (int *out), { return cuda_version(out); })
API(nvmlSystemGetCudaDriverVersion_v2, (int *out), { return cuda_version(out); })
API(nvmlSystemGetProcessName, (unsigned pid, char *out, unsigned size), {
    char path[64];
    char name[256] = "";
    snprintf(path, sizeof path, "/proc/%u/comm", pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return NOT_FOUND;
    if (fgets(name, sizeof name, file))
        name[strcspn(name, "\n")] = 0;
    fclose(file);
    return text(out, size, name);
})

API(nvmlDeviceGetCount_v2, (unsigned *out), {
    if (atomic_load(&references) <= 0)
        return UNINITIALIZED;
    *out = device_count();
    return OK;
})
static int by_index(unsigned index, void **out) {
    if (atomic_load(&references) <= 0)
        return UNINITIALIZED;
    if (index >= device_count())
        return INVALID_ARGUMENT;
    *out = &devices[index];
    return OK;
}
API(nvmlDeviceGetHandleByIndex_v2, (unsigned index, void **out), { return by_index(index, out); })

static void uuid_text(const struct device *device, char *out, size_t size) {
    // The same bytes as cuDeviceGetUuid's.
    snprintf(out, size, "GPU-53494d47-5055-0000-0000-%012x", device->index);
}
API(nvmlDeviceGetHandleByUUID, (const char *uuid, void **out), {
    for (unsigned i = 0; i < device_count(); i++) {
        char own[64];
        uuid_text(&devices[i], own, sizeof own);
        if (strcmp(own, uuid) == 0)
            return by_index(i, out);
    }
    return NOT_FOUND;
})
API(nvmlDeviceGetHandleByPciBusId_v2, (const char *id, void **out), {
    unsigned domain, bus;
    if (sscanf(id, "%x:%x", &domain, &bus) != 2 || bus == 0)
        return INVALID_ARGUMENT;
    return by_index(bus - 1, out);
})
API(nvmlDeviceGetIndex, (void *device, unsigned *out), {
    DEVICE(device);
    *out = d->index;
    return OK;
})
API(nvmlDeviceGetMinorNumber, (void *device, unsigned *out), {
    DEVICE(device);
    *out = d->index;
    return OK;
})
API(nvmlDeviceGetName, (void *device, char *out, unsigned size), {
    DEVICE(device);
    return text(out, size, device_name());
})
API(nvmlDeviceGetUUID, (void *device, char *out, unsigned size), {
    DEVICE(device);
    char own[64];
    uuid_text(d, own, sizeof own);
    return text(out, size, own);
})
API(nvmlDeviceGetCudaComputeCapability, (void *device, int *major, int *minor), {
    DEVICE(device);
    uint64_t capability = env_number("SIMGPU_COMPUTE_CAPABILITY", 86);
    *major = (int)(capability / 10), *minor = (int)(capability % 10);
    return OK;
})
API(nvmlDeviceGetArchitecture, (void *device, unsigned *out), {
    DEVICE(device);
    *out = env_number("SIMGPU_COMPUTE_CAPABILITY", 86) >= 90 ? 9 : 7; // Hopper, Ampere
    return OK;
})

struct pci_info {
    char legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char id[32];
};
API(nvmlDeviceGetPciInfo_v3, (void *device, struct pci_info *out), {
    DEVICE(device);
    *out = (struct pci_info){.bus = d->index + 1};
    snprintf(out->legacy, sizeof out->legacy, "0000:%02X:00.0", d->index + 1);
    snprintf(out->id, sizeof out->id, "00000000:%02X:00.0", d->index + 1);
    return OK;
})

struct memory {
    uint64_t total, available, used;
};
struct memory_v2 {
    unsigned version;
    uint64_t total, reserved, available, used;
};
API(nvmlDeviceGetMemoryInfo, (void *device, struct memory *out), {
    DEVICE(device);
    uint64_t used = d->index == 0 ? totals().live_bytes : 0;
    *out = (struct memory){memory_bytes(), memory_bytes() - used - RESERVED_BYTES, used + RESERVED_BYTES};
    return OK;
})
API(nvmlDeviceGetMemoryInfo_v2, (void *device, struct memory_v2 *out), {
    DEVICE(device);
    uint64_t used = d->index == 0 ? totals().live_bytes : 0;
    *out = (struct memory_v2){out->version, memory_bytes(), RESERVED_BYTES, memory_bytes() - used - RESERVED_BYTES, used};
    return OK;
})

struct utilization {
    unsigned gpu, memory;
};
API(nvmlDeviceGetUtilizationRates, (void *device, struct utilization *out), {
    DEVICE(device);
    unsigned percent = d->index == 0 ? utilization() : 0;
    *out = (struct utilization){percent, percent / 2};
    return OK;
})
API(nvmlDeviceGetPowerUsage, (void *device, unsigned *out), {
    DEVICE(device);
    unsigned percent = d->index == 0 ? utilization() : 0;
    *out = IDLE_MILLIWATTS + (FULL_MILLIWATTS - IDLE_MILLIWATTS) * percent / 100;
    return OK;
})
// Idle power over all time since boot, plus the difference to full power while anything ran: exact, so a test can
// work out what a request's share must be.
API(nvmlDeviceGetTotalEnergyConsumption, (void *device, uint64_t *out), {
    DEVICE(device);
    uint64_t busy = d->index == 0 ? totals().busy_ns : 0;
    double joules = (double)now_ns() * IDLE_MILLIWATTS + (double)busy * (FULL_MILLIWATTS - IDLE_MILLIWATTS);
    *out = (uint64_t)(joules / 1e9); // millijoules
    return OK;
})
static int constant(void *device, unsigned *out, unsigned value) {
    DEVICE(device);
    if (!out)
        return INVALID_ARGUMENT;
    *out = value;
    return OK;
}
API(nvmlDeviceGetEnforcedPowerLimit, (void *device, unsigned *out), { return constant(device, out, LIMIT_MILLIWATTS); })
API(nvmlDeviceGetPowerManagementLimit, (void *device, unsigned *out), { return constant(device, out, LIMIT_MILLIWATTS); })
API(nvmlDeviceGetPowerManagementDefaultLimit, (void *device, unsigned *out),
    { return constant(device, out, LIMIT_MILLIWATTS); })
API(nvmlDeviceGetTemperature, (void *device, int sensor, unsigned *out),
    { return constant(device, out, 40 + utilization() * 4 / 10); })
API(nvmlDeviceGetClockInfo, (void *device, int type, unsigned *out),
    { return constant(device, out, type == 2 ? 6251 : 1695); })
API(nvmlDeviceGetMaxClockInfo, (void *device, int type, unsigned *out),
    { return constant(device, out, type == 2 ? 6251 : 1695); })
API(nvmlDeviceGetFanSpeed, (void *device, unsigned *out), { return constant(device, out, 30); })
API(nvmlDeviceGetPerformanceState, (void *device, unsigned *out), { return constant(device, out, 0); })
API(nvmlDeviceGetPersistenceMode, (void *device, unsigned *out), { return constant(device, out, 1); })
API(nvmlDeviceGetNumGpuCores, (void *device, unsigned *out),
    { return constant(device, out, 128 * (unsigned)env_number("SIMGPU_MULTIPROCESSORS", 80)); })
static int no_throttling(void *device, uint64_t *out) {
    DEVICE(device);
    *out = 0;
    return OK;
}
API(nvmlDeviceGetCurrentClocksThrottleReasons, (void *device, uint64_t *out), { return no_throttling(device, out); })
API(nvmlDeviceGetCurrentClocksEventReasons, (void *device, uint64_t *out), { return no_throttling(device, out); })

struct process_info {
    unsigned pid;
    uint64_t used_bytes;
    unsigned gpu_instance, compute_instance;
};
static int compute_processes(void *device, unsigned *count, struct process_info *out) {
    DEVICE(device);
    struct process list[MAX_PROCESSES];
    unsigned found = d->index == 0 ? read_processes(list, MAX_PROCESSES) : 0, alive = 0;
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
API(nvmlDeviceGetMigMode, (void *device, unsigned *current, unsigned *pending), {
    if (pending)
        *pending = 0;
    return constant(device, current, 0);
})
API(nvmlDeviceGetMaxMigDeviceCount, (void *device, unsigned *out), { return constant(device, out, 0); })
