// What the parts of the management library share: codes, devices, what is told from outside, and what ran.
#pragma once
#include "../log/log.h"
#include <stdbool.h>

enum {
    OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, TOO_SMALL = 7,
    TIMEOUT = 10, GPU_IS_LOST = 15
};
enum { MAX_DEVICES = 8, MAX_INSTANCES = 7, MAX_PROCESSES = 64 };

// A GPU, or an instance of one (MIG).
struct device {
    unsigned index;
    struct device *parent;
    unsigned instance;
};

// The function that the thread is in: what is told may make it fail.
extern _Thread_local const char *calling;

#define API(name, params, ...)                                                                                 \
    EXPORT int name params {                                                                                   \
        COUNT(#name);                                                                                          \
        calling = #name;                                                                                       \
        __VA_ARGS__                                                                                            \
    }

// The device of a handle; ends the function when there is none, or when it is told to fail.
#define DEVICE(handle)                                                                                         \
    struct device *d = handle;                                                                                 \
    do {                                                                                                       \
        int code = check_device(d);                                                                            \
        if (code != OK)                                                                                        \
            return code;                                                                                       \
    } while (0)

int check_device(struct device *device);
void spend(const struct device *device);
bool started(void);
unsigned device_count(void);
unsigned instance_count(const struct device *device);
struct device *instance(struct device *device, unsigned index);

// What the file `SIMGPU_NVML` says of a device; false where it says nothing.
bool told(const struct device *device, const char *key, double *value);
bool told_number(const struct device *device, const char *key, uint64_t *value);
// The same of no device.
bool told_globally(const char *key, double *value);
// Every `<key>.<number>=<value>` of a device, as many as there is room for.
struct told_pair {
    uint64_t number;
    double value;
};
unsigned told_pairs(const struct device *device, const char *key, struct told_pair *out, unsigned room);

struct process {
    uint32_t pid;
    uint64_t live_bytes, busy_ns, received_bytes, sent_bytes;
    int alive;
};
// Every process of the log directory that has done device work, ended ones included.
unsigned read_processes(struct process *out, unsigned room);

struct totals {
    uint64_t live_bytes, busy_ns, received_bytes, sent_bytes;
};
// What all processes of the log directory have done.
struct totals totals(void);
// The share of time in which anything ran since the last sample, percent.
unsigned utilization(void);
uint64_t wall_us(void);
// Milliwatts, and millijoules since boot.
unsigned power_milliwatts(const struct device *device);
uint64_t energy_millijoules(const struct device *device);
