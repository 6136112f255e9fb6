// The simulated device's properties. In: SIMGPU_* variables. Out: `config`. Absent: changes after the start.
#define _GNU_SOURCE
#include "sim.h"
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

struct config config;

struct pattern {
    char *glob;
    uint64_t ns;
};
static struct pattern patterns[256];
static size_t pattern_count;

// SIMGPU_KERNELS=`glob=ns,glob=ns`: the first glob that matches decides. A word without wildcard matches a part.
static void load_patterns(const char *text) {
    char *copy = strdup(text ? text : ""), *rest = copy, *entry;
    while ((entry = strsep(&rest, ",")) && pattern_count < 256) {
        char *equals = strrchr(entry, '=');
        if (!equals)
            continue;
        *equals = 0;
        patterns[pattern_count++] = (struct pattern){strdup(entry), strtoull(equals + 1, NULL, 10)};
    }
    free(copy);
}

uint64_t kernel_duration_ns(const char *name) {
    for (size_t i = 0; i < pattern_count; i++) {
        bool wild = strpbrk(patterns[i].glob, "*?[") != NULL;
        if (wild ? fnmatch(patterns[i].glob, name, 0) == 0 : strstr(name, patterns[i].glob) != NULL)
            return patterns[i].ns;
    }
    return config.kernel_ns;
}

void config_load(void) {
    uint64_t capability = env_number("SIMGPU_COMPUTE_CAPABILITY", 86); // 8.6: the newest without clusters
    const char *name = getenv("SIMGPU_NAME");
    config = (struct config){
        .devices = (uint32_t)env_number("SIMGPU_DEVICES", 1),
        .major = (uint32_t)(capability / 10),
        .minor = (uint32_t)(capability % 10),
        .multiprocessors = (uint32_t)env_number("SIMGPU_MULTIPROCESSORS", 80),
        .memory_bytes = env_number("SIMGPU_MEMORY_MIB", 24576) << 20,
        .kernel_ns = env_number("SIMGPU_KERNEL_NS", 20000),
        .copy_ns_per_kib = env_number("SIMGPU_COPY_NS_PER_KIB", 80),
        .fill_ns_per_kib = env_number("SIMGPU_FILL_NS_PER_KIB", 4),
        .name = name && *name ? name : "Simulated GPU 24GB",
    };
    if (config.devices > MAX_DEVICES)
        config.devices = MAX_DEVICES;
    load_patterns(getenv("SIMGPU_KERNELS"));
}
