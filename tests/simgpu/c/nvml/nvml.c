// The management library's devices. In: what the processes of the log directory report of themselves, and what the file
// `SIMGPU_NVML` tells. Out: device, memory, utilisation, power and energy values. Absent: processes, fields, events, GPM
// (files of their own), and everything else, which answers "not supported"; work of several devices is shown on device 0.
#define _GNU_SOURCE
#include "nvml.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IDLE_MILLIWATTS = 25000, FULL_MILLIWATTS = 300000, LIMIT_MILLIWATTS = 300000 };
enum { RESERVED_BYTES = 256 << 20 };

static struct device devices[MAX_DEVICES];
static struct device instances[MAX_DEVICES][MAX_INSTANCES];
static _Atomic int references;
_Thread_local const char *calling;

bool started(void) { return atomic_load(&references) > 0; }

unsigned device_count(void) {
    uint64_t count = env_number("SIMGPU_DEVICES", 1);
    return count > MAX_DEVICES ? MAX_DEVICES : (unsigned)count;
}
static uint64_t memory_bytes(void) { return env_number("SIMGPU_MEMORY_MIB", 24576) << 20; }
static const char *device_name(void) {
    const char *name = getenv("SIMGPU_NAME");
    return name && *name ? name : "Simulated GPU 24GB";
}

static bool valid(const struct device *device) {
    const struct device *parent = device && device->parent ? device->parent : device;
    return parent >= devices && parent < devices + device_count() && parent->index == (unsigned)(parent - devices);
}

// What an instance of a GPU answers besides memory: power, temperature and utilisation are its parent's.
static bool instance_knows(const char *function) {
    static const char *const known[] = {"nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetMemoryInfo",
                                        "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeRunningProcesses_v2",
                                        "nvmlDeviceGetComputeRunningProcesses_v3",
                                        "nvmlDeviceGetDeviceHandleFromMigDeviceHandle",
                                        "nvmlDeviceIsMigDeviceHandle"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i], function) == 0)
            return true;
    return false;
}

// Takes the CPU time that the function is told to take, as a real driver's would.
void spend(const struct device *device) {
    char key[128];
    uint64_t microseconds = 0;
    snprintf(key, sizeof key, "cost.%s", calling);
    told_number(device, key, &microseconds);
    for (uint64_t end = now_ns() + microseconds * 1000; microseconds && now_ns() < end;)
        ;
}

int check_device(struct device *device) {
    if (!started())
        return UNINITIALIZED;
    if (!valid(device))
        return INVALID_ARGUMENT;
    char key[128];
    uint64_t code;
    snprintf(key, sizeof key, "error.%s", calling);
    const struct device *whole = device->parent ? device->parent : device;
    if (told_number(whole, "lost", &code) && code)
        return GPU_IS_LOST;
    if (told_number(device, key, &code))
        return (int)code;
    spend(device);
    return device->parent && !instance_knows(calling) ? NOT_SUPPORTED : OK;
}

unsigned instance_count(const struct device *device) {
    uint64_t count = 0;
    told_number(device, "mig", &count);
    return count > MAX_INSTANCES ? MAX_INSTANCES : (unsigned)count;
}
struct device *instance(struct device *device, unsigned index) { return &instances[device->index][index]; }

static int start(void) {
    double code;
    char key[128];
    snprintf(key, sizeof key, "error.%s", calling);
    if (told_globally(key, &code))
        return (int)code;
    for (unsigned i = 0; i < MAX_DEVICES; i++) {
        devices[i].index = i;
        for (unsigned j = 0; j < MAX_INSTANCES; j++)
            instances[i][j] = (struct device){i, &devices[i], j};
    }
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
    if (!started())
        return UNINITIALIZED;
    *out = device_count();
    return OK;
})
static int by_index(unsigned index, void **out) {
    if (!started())
        return UNINITIALIZED;
    if (index >= device_count())
        return INVALID_ARGUMENT;
    *out = &devices[index];
    return OK;
}
API(nvmlDeviceGetHandleByIndex_v2, (unsigned index, void **out), { return by_index(index, out); })

static void uuid_text(const struct device *device, char *out, size_t size) {
    if (device->parent) {
        snprintf(out, size, "MIG-53494d47-5055-0000-%04x-%012x", device->index, device->instance);
        return;
    }
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
    char own[128];
    snprintf(own, sizeof own, "%s%s", device_name(), d->parent ? " MIG 1g.3gb" : "");
    return text(out, size, own);
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
static struct memory_v2 memory_of(const struct device *d) {
    uint64_t total = memory_bytes() / (d->parent ? MAX_INSTANCES : 1);
    uint64_t used = d->index == 0 && !d->parent ? totals().live_bytes : 0;
    uint64_t reserved = d->parent ? 0 : RESERVED_BYTES;
    told_number(d, "memory_total", &total);
    told_number(d, "memory_used", &used);
    return (struct memory_v2){0, total, reserved, total - used - reserved, used};
}
API(nvmlDeviceGetMemoryInfo, (void *device, struct memory *out), {
    DEVICE(device);
    struct memory_v2 all = memory_of(d);
    *out = (struct memory){all.total, all.available, all.used + all.reserved};
    return OK;
})
API(nvmlDeviceGetMemoryInfo_v2, (void *device, struct memory_v2 *out), {
    DEVICE(device);
    unsigned version = out->version;
    *out = memory_of(d);
    out->version = version;
    return OK;
})

struct utilization {
    unsigned gpu, memory;
};
API(nvmlDeviceGetUtilizationRates, (void *device, struct utilization *out), {
    DEVICE(device);
    uint64_t percent = d->index == 0 ? utilization() : 0, memory = percent / 2;
    told_number(d, "utilization", &percent);
    told_number(d, "memory_utilization", &memory);
    *out = (struct utilization){(unsigned)percent, (unsigned)memory};
    return OK;
})
static int told_or(void *device, const char *key, uint64_t otherwise, unsigned *out) {
    DEVICE(device);
    if (!out)
        return INVALID_ARGUMENT;
    told_number(d, key, &otherwise);
    *out = (unsigned)otherwise;
    return OK;
}
unsigned power_milliwatts(const struct device *d) {
    unsigned percent = d->index == 0 ? utilization() : 0;
    uint64_t power = IDLE_MILLIWATTS + (FULL_MILLIWATTS - IDLE_MILLIWATTS) * percent / 100;
    told_number(d, "power", &power);
    return (unsigned)power;
}
// Idle power over all time since boot, plus the difference to full power while anything ran: exact, so a test can
// work out what a request's share must be.
uint64_t energy_millijoules(const struct device *d) {
    uint64_t busy = d->index == 0 ? totals().busy_ns : 0;
    double joules = (double)now_ns() * IDLE_MILLIWATTS + (double)busy * (FULL_MILLIWATTS - IDLE_MILLIWATTS);
    uint64_t energy = (uint64_t)(joules / 1e9);
    told_number(d, "energy", &energy);
    return energy;
}
API(nvmlDeviceGetPowerUsage, (void *device, unsigned *out), {
    DEVICE(device);
    *out = power_milliwatts(d);
    return OK;
})
API(nvmlDeviceGetTotalEnergyConsumption, (void *device, uint64_t *out), {
    DEVICE(device);
    *out = energy_millijoules(d);
    return OK;
})
API(nvmlDeviceGetEnforcedPowerLimit, (void *device, unsigned *out),
    { return told_or(device, "power_limit", LIMIT_MILLIWATTS, out); })
API(nvmlDeviceGetPowerManagementLimit, (void *device, unsigned *out),
    { return told_or(device, "power_limit", LIMIT_MILLIWATTS, out); })
API(nvmlDeviceGetPowerManagementDefaultLimit, (void *device, unsigned *out),
    { return told_or(device, "power_limit", LIMIT_MILLIWATTS, out); })
API(nvmlDeviceGetTemperature, (void *device, int sensor, unsigned *out),
    { return told_or(device, "temperature", 40 + utilization() * 4 / 10, out); })
API(nvmlDeviceGetTemperatureThreshold, (void *device, int threshold, unsigned *out), {
    static const char *const names[] = {"limit.shutdown", "limit.slowdown"};
    if (threshold < 0 || threshold > 1)
        return NOT_SUPPORTED;
    return told_or(device, names[threshold], threshold == 0 ? 95 : 90, out);
})
static int clock_of(void *device, int type, unsigned *out) {
    static const char *const names[] = {"clock.graphics", "clock.sm", "clock.memory", "clock.video"};
    if (type < 0 || type > 3)
        return INVALID_ARGUMENT;
    return told_or(device, names[type], type == 2 ? 6251 : 1695, out);
}
API(nvmlDeviceGetClockInfo, (void *device, int type, unsigned *out), { return clock_of(device, type, out); })
API(nvmlDeviceGetMaxClockInfo, (void *device, int type, unsigned *out),
    { return told_or(device, "", type == 2 ? 6251 : 1695, out); })
API(nvmlDeviceGetFanSpeed, (void *device, unsigned *out), { return told_or(device, "fan", 30, out); })
API(nvmlDeviceGetPerformanceState, (void *device, unsigned *out), { return told_or(device, "", 0, out); })
API(nvmlDeviceGetPersistenceMode, (void *device, unsigned *out), { return told_or(device, "", 1, out); })
API(nvmlDeviceGetNumGpuCores, (void *device, unsigned *out),
    { return told_or(device, "", 128 * env_number("SIMGPU_MULTIPROCESSORS", 80), out); })
API(nvmlDeviceGetPcieReplayCounter, (void *device, unsigned *out), { return told_or(device, "pcie_replays", 0, out); })
static int coder(void *device, const char *key, unsigned *percent, unsigned *period) {
    *period = 167000;
    return told_or(device, key, 0, percent);
}
API(nvmlDeviceGetEncoderUtilization, (void *device, unsigned *percent, unsigned *period),
    { return coder(device, "encoder", percent, period); })
API(nvmlDeviceGetDecoderUtilization, (void *device, unsigned *percent, unsigned *period),
    { return coder(device, "decoder", percent, period); })
static int throttling(void *device, uint64_t *out) {
    DEVICE(device);
    *out = 0;
    told_number(d, "reasons", out);
    return OK;
}
API(nvmlDeviceGetCurrentClocksThrottleReasons, (void *device, uint64_t *out), { return throttling(device, out); })
API(nvmlDeviceGetCurrentClocksEventReasons, (void *device, uint64_t *out), { return throttling(device, out); })
struct violation_time {
    uint64_t reference_us, violation_ns;
};
API(nvmlDeviceGetViolationStatus, (void *device, int policy, struct violation_time *out), {
    DEVICE(device);
    char key[32];
    snprintf(key, sizeof key, "violation.%d", policy);
    out->reference_us = wall_us();
    return told_number(d, key, &out->violation_ns) ? OK : NOT_SUPPORTED;
})
API(nvmlDeviceGetTotalEccErrors, (void *device, int error, int counter, uint64_t *out), {
    DEVICE(device);
    return told_number(d, error == 0 ? "ecc.corrected" : "ecc.uncorrected", out) ? OK : NOT_SUPPORTED;
})
