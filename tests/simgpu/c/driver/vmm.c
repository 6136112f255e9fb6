// Virtual memory management: reserve, create, map. In: address ranges and physical handles. Out: mappings of memory
// files, so that one physical allocation can be seen at several addresses. Absent: access rights per device.
#define _GNU_SOURCE
#include "sim.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GRANULARITY = 2 << 20 };

struct physical {
    int fd;
    size_t size;
    CUdevice device;
    _Atomic uint32_t references;
};

// Rounds up to the granularity that cuMemGetAllocationGranularity reports.
API(cuMemGetAllocationGranularity, (size_t * out, const void *prop, int option), {
    READY();
    if (!out)
        return INVALID_VALUE;
    *out = GRANULARITY;
    return CUDA_SUCCESS;
})
API(cuMemAddressReserve, (CUdeviceptr * out, size_t size, size_t alignment, CUdeviceptr wanted, uint64_t flags), {
    READY();
    if (!out || !size || size % GRANULARITY)
        return INVALID_VALUE;
    size_t padded = size + GRANULARITY;
    char *mapped = mmap(NULL, padded, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED)
        return OUT_OF_MEMORY;
    uintptr_t base = ((uintptr_t)mapped + GRANULARITY - 1) & ~(uintptr_t)(GRANULARITY - 1);
    if (base > (uintptr_t)mapped)
        munmap(mapped, base - (uintptr_t)mapped);
    munmap((void *)(base + size), (uintptr_t)mapped + padded - base - size);
    account_memory(MEMORY_RESERVED, 0, (int64_t)size);
    *out = base;
    return CUDA_SUCCESS;
})
API(cuMemAddressFree, (CUdeviceptr pointer, size_t size), {
    READY();
    if (!size || munmap((void *)pointer, size))
        return INVALID_VALUE;
    account_memory(MEMORY_RESERVED, 0, -(int64_t)size);
    return CUDA_SUCCESS;
})

// CUmemAllocationProp: type, requestedHandleTypes, location {type, id}.
API(cuMemCreate, (struct physical * *out, size_t size, const int *prop, uint64_t flags), {
    READY();
    if (!out || !prop || !size || size % GRANULARITY)
        return INVALID_VALUE;
    CUdevice device = prop[3];
    if (device < 0 || device >= (int)config.devices)
        return INVALID_DEVICE;
    if (memory_used(device) + size > config.memory_bytes)
        return OUT_OF_MEMORY;
    struct physical *physical = calloc(1, sizeof *physical);
    int fd = memfd_create("simgpu-memory", MFD_CLOEXEC);
    if (!physical || fd < 0 || ftruncate(fd, (off_t)size))
        return OUT_OF_MEMORY;
    *physical = (struct physical){.fd = fd, .size = size, .device = device};
    atomic_store(&physical->references, 1);
    account_memory(MEMORY_DEVICE, device, (int64_t)size);
    *out = physical;
    return CUDA_SUCCESS;
})
static void release(struct physical *physical) {
    if (atomic_fetch_sub(&physical->references, 1) != 1)
        return;
    account_memory(MEMORY_DEVICE, physical->device, -(int64_t)physical->size);
    close(physical->fd);
    free(physical);
}
API(cuMemRelease, (struct physical * physical), {
    READY();
    if (!physical)
        return INVALID_VALUE;
    release(physical);
    return CUDA_SUCCESS;
})

// Which physical memory stands where; a mapping keeps it alive after its handle is released.
struct mapping {
    CUdeviceptr base;
    struct physical *physical;
    struct mapping *next;
};
static struct mapping *mappings;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

API(cuMemMap, (CUdeviceptr pointer, size_t size, size_t offset, struct physical *physical, uint64_t flags), {
    READY();
    struct mapping *mapping = malloc(sizeof *mapping);
    if (!physical || !mapping || offset + size > physical->size)
        return INVALID_VALUE;
    // Readable at once: the stand-in's own copies never fault; the device would want cuMemSetAccess first.
    if (mmap((void *)pointer, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, physical->fd, (off_t)offset) ==
        MAP_FAILED)
        return INVALID_VALUE;
    atomic_fetch_add(&physical->references, 1);
    pthread_mutex_lock(&lock);
    *mapping = (struct mapping){pointer, physical, mappings};
    mappings = mapping;
    pthread_mutex_unlock(&lock);
    return range_add(
        (struct range){.base = pointer, .size = size, .kind = RANGE_MAPPED, .device = physical->device});
})
static void unmap_one(CUdeviceptr base) {
    pthread_mutex_lock(&lock);
    for (struct mapping **at = &mappings; *at; at = &(*at)->next)
        if ((*at)->base == base) {
            struct mapping *gone = *at;
            *at = gone->next;
            release(gone->physical);
            free(gone);
            break;
        }
    pthread_mutex_unlock(&lock);
}
// A range may cover several mappings made one after the other.
API(cuMemUnmap, (CUdeviceptr pointer, size_t size), {
    READY();
    if (current_context())
        wait_context(current_context());
    struct range range;
    for (CUdeviceptr at = pointer; at < pointer + size && range_find(at, &range); at = range.base + range.size) {
        range_remove(range.base, &range);
        unmap_one(range.base);
    }
    void *kept = mmap((void *)pointer, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return kept == MAP_FAILED ? INVALID_VALUE : CUDA_SUCCESS;
})
API(cuMemSetAccess, (CUdeviceptr pointer, size_t size, const void *descriptions, size_t count), {
    READY();
    return is_pageable(pointer) ? INVALID_VALUE : CUDA_SUCCESS;
})
API(cuMemGetAccess, (uint64_t * flags, const void *location, CUdeviceptr pointer), {
    READY();
    *flags = 3;
    return CUDA_SUCCESS;
})
API(cuMemExportToShareableHandle, (int *out, struct physical *physical, int type, uint64_t flags), {
    READY();
    if (!out || !physical || type != 1) // 1: POSIX file descriptor
        return NOT_SUPPORTED;
    *out = dup(physical->fd);
    return *out < 0 ? INVALID_VALUE : CUDA_SUCCESS;
})
API(cuMemImportFromShareableHandle, (struct physical * *out, void *handle, int type), {
    READY();
    off_t size = type == 1 ? lseek((int)(intptr_t)handle, 0, SEEK_END) : -1;
    struct physical *physical = size > 0 ? calloc(1, sizeof *physical) : NULL;
    if (!physical || !out)
        return NOT_SUPPORTED;
    *physical = (struct physical){.fd = dup((int)(intptr_t)handle), .size = (size_t)size};
    atomic_store(&physical->references, 1);
    account_memory(MEMORY_DEVICE, 0, size);
    *out = physical;
    return CUDA_SUCCESS;
})
