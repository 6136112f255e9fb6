// Contexts: which one is current in a thread, and each device's primary one. In: public handles. Out: contexts for
// the engine. Absent: separate address spaces; all contexts of a device share its memory.
#define _GNU_SOURCE
#include "sim.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STACK_DEPTH = 32 };
static __thread struct context *stack[STACK_DEPTH];
static __thread int depth; // the current context is stack[depth - 1]

static pthread_mutex_t contexts = PTHREAD_MUTEX_INITIALIZER;
static struct context *primary[MAX_DEVICES];
static _Atomic int initialised_pid; // 0 before cuInit

static struct context *context_new(CUdevice device, unsigned flags) {
    struct context *context = calloc(1, sizeof *context);
    if (!context)
        return NULL;
    context->magic = CONTEXT_MAGIC, context->device = device, context->flags = flags;
    context->legacy = stream_new(context, 0, 0);
    context->legacy->legacy = true;
    return context;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void start(void) {
    config_load();
    atomic_store(&initialised_pid, (int)getpid());
}

API(cuInit, (unsigned flags), {
    if (flags)
        return INVALID_VALUE;
    pthread_once(&once, start);
    return config.devices ? ready() : NO_DEVICE;
})

// A child forked after cuInit cannot use the device, as with the real driver.
static bool forked;
static void in_child(void) { forked = atomic_load(&initialised_pid) != 0; }
__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(NULL, NULL, in_child); }

CUresult ready(void) { return atomic_load(&initialised_pid) && !forked ? CUDA_SUCCESS : NOT_INITIALIZED; }

struct context *current_context(void) { return depth ? stack[depth - 1] : NULL; }

struct context *primary_context(CUdevice device) {
    if (device < 0 || device >= (int)config.devices)
        return NULL;
    pthread_mutex_lock(&contexts);
    if (!primary[device])
        primary[device] = context_new(device, 0);
    pthread_mutex_unlock(&contexts);
    return primary[device];
}

static CUresult push(struct context *context) {
    if (depth == STACK_DEPTH)
        return INVALID_VALUE;
    stack[depth++] = context;
    return CUDA_SUCCESS;
}

static bool valid(const struct context *context) { return context && context->magic == CONTEXT_MAGIC; }

static CUresult create(struct context **out, unsigned flags, CUdevice device) {
    READY();
    if (!out)
        return INVALID_VALUE;
    if (device < 0 || device >= (int)config.devices)
        return INVALID_DEVICE;
    *out = context_new(device, flags);
    return *out ? push(*out) : OUT_OF_MEMORY;
}
API(cuCtxCreate, (struct context * *out, unsigned flags, CUdevice device), { return create(out, flags, device); })
API(cuCtxCreate_v2, (struct context * *out, unsigned flags, CUdevice device), { return create(out, flags, device); })
API(cuCtxCreate_v3, (struct context * *out, void *affinity, int count, unsigned flags, CUdevice device),
    { return create(out, flags, device); })
API(cuCtxCreate_v4, (struct context * *out, void *params, unsigned flags, CUdevice device),
    { return create(out, flags, device); })

static CUresult destroy(struct context *context) {
    READY();
    if (!valid(context))
        return INVALID_CONTEXT;
    wait_context(context);
    context->magic = 0; // kept: streams of it may still be named in other queues
    if (current_context() == context)
        depth--;
    return CUDA_SUCCESS;
}
API(cuCtxDestroy, (struct context * context), { return destroy(context); })
API(cuCtxDestroy_v2, (struct context * context), { return destroy(context); })

API(cuCtxSetCurrent, (struct context * context), {
    READY();
    if (context && !valid(context))
        return INVALID_CONTEXT;
    if (!context) {
        depth = depth ? depth - 1 : 0;
        return CUDA_SUCCESS;
    }
    if (depth == 0)
        return push(context);
    stack[depth - 1] = context;
    return CUDA_SUCCESS;
})
API(cuCtxGetCurrent, (struct context * *out), {
    READY();
    if (!out)
        return INVALID_VALUE;
    *out = current_context();
    return CUDA_SUCCESS;
})
static CUresult push_valid(struct context *context) {
    READY();
    return valid(context) ? push(context) : INVALID_CONTEXT;
}
static CUresult pop(struct context **out) {
    READY();
    if (depth == 0)
        return INVALID_CONTEXT;
    depth--;
    if (out)
        *out = stack[depth];
    return CUDA_SUCCESS;
}
API(cuCtxPushCurrent, (struct context * context), { return push_valid(context); })
API(cuCtxPushCurrent_v2, (struct context * context), { return push_valid(context); })
API(cuCtxPopCurrent, (struct context * *out), { return pop(out); })
API(cuCtxPopCurrent_v2, (struct context * *out), { return pop(out); })

#define CURRENT()                                                                                              \
    READY();                                                                                                   \
    struct context *c = current_context();                                                                     \
    if (!c)                                                                                                    \
    return INVALID_CONTEXT

API(cuCtxGetDevice, (CUdevice * out), {
    CURRENT();
    *out = c->device;
    return CUDA_SUCCESS;
})
API(cuCtxGetDevice_v2, (CUdevice * out, struct context *context), {
    CURRENT();
    *out = context ? context->device : c->device;
    return CUDA_SUCCESS;
})
API(cuCtxGetFlags, (unsigned *out), {
    CURRENT();
    *out = c->flags;
    return CUDA_SUCCESS;
})
API(cuCtxSetFlags, (unsigned flags), {
    CURRENT();
    c->flags = flags;
    return CUDA_SUCCESS;
})
API(cuCtxGetId, (struct context * context, uint64_t *out), {
    CURRENT();
    *out = (uint64_t)(context ? context : c);
    return CUDA_SUCCESS;
})
API(cuCtxGetApiVersion, (struct context * context, unsigned *out), {
    READY();
    *out = 3020;
    return CUDA_SUCCESS;
})
API(cuCtxGetStreamPriorityRange, (int *least, int *greatest), {
    CURRENT();
    (void)c;
    if (least)
        *least = 0;
    if (greatest)
        *greatest = -5; // as on devices since Volta
    return CUDA_SUCCESS;
})
API(cuCtxGetLimit, (size_t * out, int limit), {
    CURRENT();
    (void)c;
    *out = limit == 0 ? 1024 : limit == 1 ? 7340032 : limit == 2 ? 8388608 : 0;
    return CUDA_SUCCESS;
})
API(cuCtxSetLimit, (int limit, size_t value), {
    CURRENT();
    (void)c;
    return CUDA_SUCCESS;
})
API(cuCtxGetCacheConfig, (int *out), {
    READY();
    *out = 0;
    return CUDA_SUCCESS;
})
API(cuCtxSetCacheConfig, (int value), {
    READY();
    return CUDA_SUCCESS;
})
API(cuCtxResetPersistingL2Cache, (void), {
    READY();
    return CUDA_SUCCESS;
})
API(cuCtxSynchronize, (void), {
    CURRENT();
    if (c->capturing)
        return CAPTURE_UNSUPPORTED;
    wait_context(c);
    return CUDA_SUCCESS;
})
API(cuCtxSynchronize_v2, (struct context * context), {
    CURRENT();
    wait_context(context ? context : c);
    return CUDA_SUCCESS;
})
API(cuCtxEnablePeerAccess, (struct context * peer, unsigned flags), {
    READY();
    return CUDA_SUCCESS;
})
API(cuCtxDisablePeerAccess, (struct context * peer), {
    READY();
    return CUDA_SUCCESS;
})

API(cuDevicePrimaryCtxRetain, (struct context * *out, CUdevice device), {
    READY();
    struct context *context = primary_context(device);
    if (!context || !out)
        return INVALID_DEVICE;
    context->references++;
    *out = context;
    return CUDA_SUCCESS;
})
static CUresult release(CUdevice device) {
    READY();
    struct context *context = primary_context(device);
    if (!context)
        return INVALID_DEVICE;
    if (context->references && --context->references == 0)
        wait_context(context);
    return CUDA_SUCCESS;
}
API(cuDevicePrimaryCtxRelease, (CUdevice device), { return release(device); })
API(cuDevicePrimaryCtxRelease_v2, (CUdevice device), { return release(device); })
static CUresult reset(CUdevice device) {
    READY();
    struct context *context = primary_context(device);
    if (!context)
        return INVALID_DEVICE;
    wait_context(context);
    return CUDA_SUCCESS;
}
API(cuDevicePrimaryCtxReset, (CUdevice device), { return reset(device); })
API(cuDevicePrimaryCtxReset_v2, (CUdevice device), { return reset(device); })
static CUresult set_flags(CUdevice device, unsigned flags) {
    READY();
    struct context *context = primary_context(device);
    if (!context)
        return INVALID_DEVICE;
    context->flags = flags;
    return CUDA_SUCCESS;
}
API(cuDevicePrimaryCtxSetFlags, (CUdevice device, unsigned flags), { return set_flags(device, flags); })
API(cuDevicePrimaryCtxSetFlags_v2, (CUdevice device, unsigned flags), { return set_flags(device, flags); })
API(cuDevicePrimaryCtxGetState, (CUdevice device, unsigned *flags, int *active), {
    READY();
    if (device < 0 || device >= (int)config.devices)
        return INVALID_DEVICE;
    if (flags)
        *flags = primary[device] ? primary[device]->flags : 0;
    if (active)
        *active = primary[device] && primary[device]->references > 0;
    return CUDA_SUCCESS;
})
