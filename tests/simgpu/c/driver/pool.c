// Stream-ordered allocation and its pools. In: sizes and streams. Out: memory at once; freeing takes its place in the
// stream. Absent: reuse inside a pool; every allocation is a mapping of its own.
#define _GNU_SOURCE
#include "sim.h"
#include <stdlib.h>
#include <string.h>

struct pool {
    CUdevice device;
    uint64_t attributes[16];
};
static struct pool defaults[MAX_DEVICES];
static struct pool *current[MAX_DEVICES];

static bool valid(CUdevice device) { return device >= 0 && device < (int)config.devices; }

static struct pool *pool_of(CUdevice device) {
    defaults[device].device = device;
    return current[device] ? current[device] : &defaults[device];
}

API(cuDeviceGetDefaultMemPool, (struct pool * *out, CUdevice device), {
    READY();
    if (!out || !valid(device))
        return INVALID_DEVICE;
    defaults[device].device = device;
    *out = &defaults[device];
    return CUDA_SUCCESS;
})
API(cuDeviceGetMemPool, (struct pool * *out, CUdevice device), {
    READY();
    if (!out || !valid(device))
        return INVALID_DEVICE;
    *out = pool_of(device);
    return CUDA_SUCCESS;
})
API(cuDeviceSetMemPool, (CUdevice device, struct pool *pool), {
    READY();
    if (!pool || !valid(device))
        return INVALID_DEVICE;
    current[device] = pool;
    return CUDA_SUCCESS;
})
API(cuMemPoolCreate, (struct pool * *out, const int *props), {
    READY();
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool || !out || !props)
        return INVALID_VALUE;
    pool->device = props[3]; // CUmemPoolProps: allocType, handleTypes, location {type, id}
    *out = pool;
    return CUDA_SUCCESS;
})
API(cuMemPoolDestroy, (struct pool * pool), {
    READY();
    if (!pool)
        return INVALID_VALUE;
    for (int i = 0; i < MAX_DEVICES; i++)
        if (current[i] == pool)
            current[i] = NULL;
    return CUDA_SUCCESS;
})
API(cuMemPoolTrimTo, (struct pool * pool, size_t keep), {
    READY();
    return pool ? CUDA_SUCCESS : INVALID_VALUE;
})
API(cuMemPoolSetAccess, (struct pool * pool, const void *descriptions, size_t count), {
    READY();
    return pool ? CUDA_SUCCESS : INVALID_VALUE;
})
API(cuMemPoolGetAccess, (int *flags, struct pool *pool, void *location), {
    READY();
    *flags = 3; // read and write
    return CUDA_SUCCESS;
})
// Numbers of CUmemPool_attribute: 1 to 3 are ints, the others 64-bit; 5 to 8 are what is in use.
API(cuMemPoolGetAttribute, (struct pool * pool, int attribute, void *value), {
    READY();
    if (!pool || !value || attribute < 1 || attribute > 8)
        return INVALID_VALUE;
    if (attribute <= 3)
        *(int *)value = 1;
    else
        *(uint64_t *)value = attribute == 4 ? pool->attributes[4] : memory_used(pool->device);
    return CUDA_SUCCESS;
})
API(cuMemPoolSetAttribute, (struct pool * pool, int attribute, void *value), {
    READY();
    if (!pool || !value || attribute < 1 || attribute > 8)
        return INVALID_VALUE;
    if (attribute == 4)
        pool->attributes[4] = *(uint64_t *)value;
    return CUDA_SUCCESS;
})

API2(_ptsz, cuMemAllocAsync, (CUdeviceptr * out, size_t bytes, void *stream), {
    STREAM(stream);
    return device_alloc_on(pool_of(s->context->device)->device, out, bytes, RANGE_DEVICE, 0);
})
API2(_ptsz, cuMemAllocFromPoolAsync, (CUdeviceptr * out, size_t bytes, struct pool *pool, void *stream), {
    STREAM(stream);
    (void)s;
    return pool ? device_alloc_on(pool->device, out, bytes, RANGE_DEVICE, 0) : INVALID_VALUE;
})
API2(_ptsz, cuMemFreeAsync, (CUdeviceptr pointer, void *stream), {
    STREAM(stream);
    if (!pointer)
        return CUDA_SUCCESS;
    if (is_pageable(pointer))
        return INVALID_VALUE;
    // A graph keeps what it allocated: it may run again.
    struct work work = {.kind = s->capture ? OP_EMPTY : OP_FREE, .pointer = pointer};
    return submit(s, &work, NULL);
})
