// Device memory. In: sizes and pointers. Out: host memory that stands for device memory, and an ordered list of
// ranges that answers what a pointer is. Absent: a device address space; a device pointer is a host address.
#define _GNU_SOURCE
#include "sim.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct range *ranges; // ordered by base, never overlapping
static size_t count, room;
static uint64_t used[MAX_DEVICES], next_id = 1;

// The first range that ends after the pointer.
static size_t position(CUdeviceptr pointer) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (ranges[middle].base + ranges[middle].size <= pointer)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool range_find(CUdeviceptr pointer, struct range *out) {
    pthread_mutex_lock(&lock);
    size_t i = position(pointer);
    bool found = i < count && ranges[i].base <= pointer;
    if (found && out)
        *out = ranges[i];
    pthread_mutex_unlock(&lock);
    return found;
}

CUresult range_add(struct range range) {
    pthread_mutex_lock(&lock);
    if (count == room) {
        size_t grown_room = room ? room * 2 : 256;
        struct range *grown = realloc(ranges, grown_room * sizeof *grown);
        if (!grown) {
            pthread_mutex_unlock(&lock);
            return OUT_OF_MEMORY;
        }
        ranges = grown, room = grown_room;
    }
    size_t i = position(range.base);
    bool overlaps = i < count && ranges[i].base < range.base + range.size;
    if (!overlaps) {
        memmove(ranges + i + 1, ranges + i, (count - i) * sizeof *ranges);
        range.id = next_id++;
        ranges[i] = range;
        count++;
    }
    pthread_mutex_unlock(&lock);
    return overlaps ? HOST_MEMORY_ALREADY_REGISTERED : CUDA_SUCCESS;
}

bool range_remove(CUdeviceptr base, struct range *out) {
    pthread_mutex_lock(&lock);
    size_t i = position(base);
    bool found = i < count && ranges[i].base == base;
    if (found) {
        *out = ranges[i];
        count--;
        memmove(ranges + i, ranges + i + 1, (count - i) * sizeof *ranges);
    }
    pthread_mutex_unlock(&lock);
    return found;
}

bool is_device_pointer(CUdeviceptr pointer) {
    struct range range;
    return range_find(pointer, &range) &&
           (range.kind == RANGE_DEVICE || range.kind >= RANGE_MAPPED);
}
bool is_pageable(CUdeviceptr pointer) { return !range_find(pointer, NULL); }

uint64_t memory_used(CUdevice device) { return __atomic_load_n(&used[device], __ATOMIC_RELAXED); }

static enum truth_field fields_of(enum memory_kind kind, CUdevice device) {
    switch (kind) {
    case MEMORY_MANAGED: return TRUTH_managed_allocations;
    case MEMORY_ARRAY: return TRUTH_array_allocations;
    case MEMORY_PINNED: return TRUTH_pinned_allocations;
    case MEMORY_REGISTERED: return TRUTH_registered_allocations;
    case MEMORY_RESERVED: return TRUTH_reserved_allocations;
    default: return (enum truth_field)(TRUTH_device0_allocations + MEMORY_FIELD_COUNT * device);
    }
}

// The order of MEMORY_FIELDS, and of the facts of a process. Returns what is live now.
static uint64_t account_fields(enum truth_field first, int64_t bytes) {
    enum { ALLOCATIONS, FREES, ALLOCATED, FREED, LIVE };
    bool handed_out = bytes >= 0;
    uint64_t size = (uint64_t)(handed_out ? bytes : -bytes);
    truth_add(first + (handed_out ? ALLOCATIONS : FREES), 1);
    truth_add(first + (handed_out ? ALLOCATED : FREED), size);
    return truth_sum(first + LIVE, (uint64_t)bytes);
}

void account_memory(enum memory_kind kind, CUdevice device, int64_t bytes) {
    enum truth_field fields = fields_of(kind, device), peak = fields + MEMORY_FIELD_COUNT - 1;
    uint64_t live = account_fields(fields, bytes);
    if (bytes >= 0)
        truth_max(peak, live);
    if (kind == MEMORY_PINNED || kind == MEMORY_REGISTERED)
        truth_add(TRUTH_pinned_bytes, (uint64_t)bytes);
    if (kind != MEMORY_DEVICE && kind != MEMORY_MANAGED && kind != MEMORY_ARRAY)
        return;
    uint64_t now = __atomic_add_fetch(&used[device], (uint64_t)bytes, __ATOMIC_RELAXED);
    account_fields(TRUTH_allocations, bytes);
    if (bytes >= 0)
        truth_max(TRUTH_peak_bytes, now);
}

static CUdeviceptr map(size_t bytes) {
    void *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return mapped == MAP_FAILED ? 0 : (CUdeviceptr)mapped;
}

static bool on_device(enum range_kind kind) { return kind != RANGE_PINNED && kind != RANGE_REGISTERED; }

// Memory of modules is part of no allocation: a program asks for it by loading code.
static void account_range(const struct range *range, bool handed_out) {
    static const enum memory_kind kinds[] = {[RANGE_DEVICE] = MEMORY_DEVICE, [RANGE_PINNED] = MEMORY_PINNED,
                                             [RANGE_REGISTERED] = MEMORY_REGISTERED, [RANGE_MANAGED] = MEMORY_MANAGED,
                                             [RANGE_ARRAY] = MEMORY_ARRAY};
    int64_t bytes = handed_out ? (int64_t)range->size : -(int64_t)range->size;
    if (range->kind == RANGE_MODULE) {
        truth_add(TRUTH_module_bytes, (uint64_t)bytes);
        __atomic_add_fetch(&used[range->device], (uint64_t)bytes, __ATOMIC_RELAXED);
    } else {
        account_memory(kinds[range->kind], range->device, bytes);
    }
}

CUresult device_alloc_on(CUdevice device, CUdeviceptr *out, size_t bytes, enum range_kind kind, unsigned flags) {
    if (!out || bytes == 0)
        return INVALID_VALUE;
    if (on_device(kind) && (bytes > config.memory_bytes || memory_used(device) + bytes > config.memory_bytes))
        return OUT_OF_MEMORY;
    CUdeviceptr base = map(bytes);
    if (!base)
        return OUT_OF_MEMORY;
    struct range range = {.base = base, .size = bytes, .kind = kind, .device = device, .flags = flags};
    CUresult result = range_add(range);
    if (result)
        return result;
    account_range(&range, true);
    *out = base;
    return CUDA_SUCCESS;
}

CUresult device_alloc(CUdeviceptr *out, size_t bytes, enum range_kind kind, unsigned flags) {
    struct context *context = current_context();
    return context ? device_alloc_on(context->device, out, bytes, kind, flags) : INVALID_CONTEXT;
}

CUresult device_free(CUdeviceptr pointer) {
    struct range range;
    if (!range_remove(pointer, &range))
        return INVALID_VALUE;
    munmap((void *)range.base, range.size);
    account_range(&range, false);
    return CUDA_SUCCESS;
}

static CUresult alloc(CUdeviceptr *out, size_t bytes) {
    READY();
    return device_alloc(out, bytes, RANGE_DEVICE, 0);
}
API(cuMemAlloc_v2, (CUdeviceptr * out, size_t bytes), { return alloc(out, bytes); })
API(cuMemAllocManaged, (CUdeviceptr * out, size_t bytes, unsigned flags), {
    READY();
    return device_alloc(out, bytes, RANGE_MANAGED, flags);
})
API(cuMemAllocPitch_v2, (CUdeviceptr * out, size_t *pitch, size_t width, size_t height, unsigned element), {
    READY();
    if (!pitch)
        return INVALID_VALUE;
    *pitch = (width + 511) & ~(size_t)511;
    return device_alloc(out, *pitch * height, RANGE_DEVICE, 0);
})

// Freeing waits for everything, as the real call does.
static CUresult free_now(CUdeviceptr pointer) {
    READY();
    if (!pointer)
        return CUDA_SUCCESS;
    if (current_context() && !current_context()->capturing)
        wait_context(current_context());
    return device_free(pointer);
}
API(cuMemFree_v2, (CUdeviceptr pointer), { return free_now(pointer); })

static CUresult host_alloc(void **out, size_t bytes, unsigned flags) {
    READY();
    return device_alloc((CUdeviceptr *)out, bytes, RANGE_PINNED, flags);
}
API(cuMemAllocHost_v2, (void **out, size_t bytes), { return host_alloc(out, bytes, 0); })
API(cuMemHostAlloc, (void **out, size_t bytes, unsigned flags), { return host_alloc(out, bytes, flags); })
API(cuMemFreeHost, (void *pointer), { return free_now((CUdeviceptr)pointer); })

static CUresult host_register(void *pointer, size_t bytes, unsigned flags) {
    READY();
    if (!pointer || !bytes)
        return INVALID_VALUE;
    struct range range = {.base = (CUdeviceptr)pointer, .size = bytes, .kind = RANGE_REGISTERED, .flags = flags};
    CUresult result = range_add(range);
    if (!result)
        account_range(&range, true);
    return result;
}
API(cuMemHostRegister_v2, (void *pointer, size_t bytes, unsigned flags),
    { return host_register(pointer, bytes, flags); })
API(cuMemHostUnregister, (void *pointer), {
    READY();
    struct range range;
    if (!range_find((CUdeviceptr)pointer, &range) || range.kind != RANGE_REGISTERED)
        return HOST_MEMORY_NOT_REGISTERED;
    range_remove((CUdeviceptr)pointer, &range);
    account_range(&range, false);
    return CUDA_SUCCESS;
})
API(cuMemHostGetDevicePointer_v2, (CUdeviceptr * out, void *pointer, unsigned flags), {
    READY();
    if (is_pageable((CUdeviceptr)pointer))
        return INVALID_VALUE;
    *out = (CUdeviceptr)pointer;
    return CUDA_SUCCESS;
})
API(cuMemHostGetFlags, (unsigned *out, void *pointer), {
    READY();
    struct range range;
    if (!range_find((CUdeviceptr)pointer, &range))
        return INVALID_VALUE;
    *out = range.flags;
    return CUDA_SUCCESS;
})
API(cuMemGetInfo_v2, (size_t * available, size_t *total), {
    READY();
    struct context *context = current_context();
    if (!context)
        return INVALID_CONTEXT;
    *total = config.memory_bytes;
    *available = config.memory_bytes - memory_used(context->device);
    return CUDA_SUCCESS;
})
API(cuMemGetAddressRange_v2, (CUdeviceptr * base, size_t *size, CUdeviceptr pointer), {
    READY();
    struct range range;
    if (!range_find(pointer, &range))
        return NOT_FOUND;
    if (base)
        *base = range.base;
    if (size)
        *size = range.size;
    return CUDA_SUCCESS;
})
API(cuMemAdvise, (CUdeviceptr pointer, size_t bytes, int advice, CUdevice device), {
    READY();
    return CUDA_SUCCESS;
})
API(cuMemAdvise_v2, (CUdeviceptr pointer, size_t bytes, int advice, uint64_t location), {
    READY();
    return CUDA_SUCCESS;
})
API2(_ptsz, cuMemPrefetchAsync, (CUdeviceptr pointer, size_t bytes, CUdevice device, void *stream), {
    STREAM(stream);
    (void)s;
    return CUDA_SUCCESS;
})
API2(_ptsz, cuMemPrefetchAsync_v2,
     (CUdeviceptr pointer, size_t bytes, uint64_t location, unsigned flags, void *stream), {
         STREAM(stream);
         (void)s;
         return CUDA_SUCCESS;
     })

// Numbers of CUpointer_attribute (cuda.h).
static CUresult pointer_attribute(void *data, int attribute, const struct range *range, CUdeviceptr pointer) {
    bool host = range->kind == RANGE_PINNED || range->kind == RANGE_REGISTERED;
    switch (attribute) {
    case 1: *(void **)data = primary_context(range->device); return CUDA_SUCCESS;
    case 2: *(uint32_t *)data = host ? 1 : 2; return CUDA_SUCCESS;
    case 3: *(CUdeviceptr *)data = pointer; return CUDA_SUCCESS;
    case 4: *(void **)data = (void *)pointer; return host || range->kind == RANGE_MANAGED ? CUDA_SUCCESS : INVALID_VALUE;
    case 6: *(uint32_t *)data = 0; return CUDA_SUCCESS;
    case 7: *(uint64_t *)data = range->id; return CUDA_SUCCESS;
    case 8: *(uint32_t *)data = range->kind == RANGE_MANAGED; return CUDA_SUCCESS;
    case 9: *(int *)data = range->device; return CUDA_SUCCESS;
    case 10: *(uint32_t *)data = 0; return CUDA_SUCCESS;
    case 11: *(CUdeviceptr *)data = range->base; return CUDA_SUCCESS;
    case 12: *(size_t *)data = range->size; return CUDA_SUCCESS;
    case 13: *(uint32_t *)data = 1; return CUDA_SUCCESS;
    case 14: *(uint64_t *)data = range->kind == RANGE_MAPPED ? 1 : 0; return CUDA_SUCCESS;
    case 15: *(uint32_t *)data = 0; return CUDA_SUCCESS;
    case 16: *(uint32_t *)data = 3; return CUDA_SUCCESS;
    case 17: *(void **)data = NULL; return CUDA_SUCCESS;
    default: return INVALID_VALUE;
    }
}
API(cuPointerGetAttribute, (void *data, int attribute, CUdeviceptr pointer), {
    READY();
    struct range range;
    if (!data || !range_find(pointer, &range))
        return INVALID_VALUE;
    return pointer_attribute(data, attribute, &range, pointer);
})
// Unlike the single form this one succeeds on pageable memory, with zeros.
API(cuPointerGetAttributes, (unsigned number, int *attributes, void **data, CUdeviceptr pointer), {
    READY();
    struct range range;
    bool known = range_find(pointer, &range);
    for (unsigned i = 0; i < number; i++) {
        if (known)
            pointer_attribute(data[i], attributes[i], &range, pointer);
        else if (attributes[i] == 9)
            *(int *)data[i] = -2; // the value the real call leaves for unregistered memory
        else
            memset(data[i], 0, attributes[i] == 2 || attributes[i] == 6 || attributes[i] == 8 ? 4 : 8);
    }
    return CUDA_SUCCESS;
})
API(cuPointerSetAttribute, (const void *value, int attribute, CUdeviceptr pointer), {
    READY();
    return is_pageable(pointer) ? INVALID_VALUE : CUDA_SUCCESS;
})
