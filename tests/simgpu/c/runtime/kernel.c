// Kernels as the compiler registers them, and their launches. In: host stubs, device names, launch arguments. Out:
// driver launches. Absent: fat binaries' content; a stub that nobody registered is named after its symbol.
#define _GNU_SOURCE
#include "runtime.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The handle that __cudaGetKernel gives out. Opaque to the client, and distinct from the stub.
struct kernel {
    const void *stub;
    const char *name;
    _Atomic(void *) function;
};

// Open addressing by stub and by handle. Readers take no lock: a grown table replaces the old one, which stays.
struct table {
    size_t size;
    _Atomic(struct entry *) slots[];
};
struct entry {
    const void *key;
    struct kernel *kernel;
};
static _Atomic(struct table *) current;
static size_t used;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static size_t hash(const void *key) { return ((uintptr_t)key >> 4) * 0x9e3779b97f4a7c15ull >> 20; }

static struct kernel *find(const void *key) {
    struct table *table = atomic_load_explicit(&current, memory_order_acquire);
    for (size_t i = hash(key); table; i++) {
        struct entry *entry = atomic_load_explicit(&table->slots[i % table->size], memory_order_acquire);
        if (!entry)
            return NULL;
        if (entry->key == key)
            return entry->kernel;
    }
    return NULL;
}

static void put(struct table *table, struct entry *entry) {
    size_t i = hash(entry->key);
    while (atomic_load(&table->slots[i % table->size]) && atomic_load(&table->slots[i % table->size])->key != entry->key)
        i++;
    atomic_store_explicit(&table->slots[i % table->size], entry, memory_order_release);
}

static void grow(void) {
    struct table *old = atomic_load(&current);
    size_t size = old ? old->size * 2 : 1024;
    struct table *table = calloc(1, sizeof *table + size * sizeof table->slots[0]);
    if (!table)
        abort();
    table->size = size;
    for (size_t i = 0; old && i < old->size; i++)
        if (atomic_load(&old->slots[i]))
            put(table, atomic_load(&old->slots[i]));
    atomic_store_explicit(&current, table, memory_order_release);
}

static void insert(const void *key, struct kernel *kernel) {
    struct table *table = atomic_load(&current);
    if (!table || used * 2 >= table->size)
        grow();
    struct entry *entry = malloc(sizeof *entry);
    if (!entry)
        abort();
    *entry = (struct entry){key, kernel};
    put(atomic_load(&current), entry);
    used++;
}

// A stub loaded where an unloaded one stood replaces it.
static struct kernel *add(const void *stub, const char *name) {
    struct kernel *kernel = calloc(1, sizeof *kernel);
    if (!kernel)
        abort();
    kernel->stub = stub, kernel->name = name;
    pthread_mutex_lock(&lock);
    insert(stub, kernel);
    insert(kernel, kernel);
    pthread_mutex_unlock(&lock);
    return kernel;
}

static const char *symbol_name(const void *stub) {
    Dl_info info;
    char text[32];
    if (dladdr(stub, &info) && info.dli_sname && info.dli_saddr == stub)
        return strdup(info.dli_sname);
    snprintf(text, sizeof text, "%p", stub);
    return strdup(text);
}

enum { FUNCTION_MAGIC = 0x46554e43 }; // what the driver's own handles start with (driver/sim.h)
typedef void *(*find_function)(const char *name);

void *function_of(const void *handle) {
    if (!handle)
        return NULL;
    struct kernel *kernel = find(handle);
    if (!kernel) {
        uint64_t magic;
        memcpy(&magic, handle, sizeof magic); // host stubs and driver handles are both readable
        if (magic == FUNCTION_MAGIC)
            return (void *)handle;
        kernel = add(handle, symbol_name(handle));
    }
    void *function = atomic_load_explicit(&kernel->function, memory_order_acquire);
    if (!function && loaded() == SUCCESS) {
        function = ((find_function)(void (*)(void))driver.simgpu_function)(kernel->name);
        atomic_store_explicit(&kernel->function, function, memory_order_release);
    }
    return function;
}

EXPORT void **__cudaRegisterFatBinary(void *binary) {
    COUNT("__cudaRegisterFatBinary");
    return calloc(1, sizeof(void *));
}
EXPORT void __cudaRegisterFatBinaryEnd(void **handle) { COUNT("__cudaRegisterFatBinaryEnd"); }
EXPORT void __cudaUnregisterFatBinary(void **handle) {
    COUNT("__cudaUnregisterFatBinary");
    free(handle);
}
EXPORT char __cudaInitModule(void **handle) {
    COUNT("__cudaInitModule");
    return 1;
}
EXPORT void __cudaRegisterFunction(void **handle, const char *stub, char *device_function, const char *device_name,
                                   int limit, void *tid, void *bid, void *block, void *grid, int *warp) {
    COUNT("__cudaRegisterFunction");
    add(stub, device_name);
}

struct variable {
    const void *host;
    size_t size;
    _Atomic uint64_t at;
    struct variable *next;
};
static struct variable *variables;

EXPORT void __cudaRegisterVar(void **handle, char *host, char *device_address, const char *device_name, int ext,
                              size_t size, int constant, int global) {
    COUNT("__cudaRegisterVar");
    struct variable *variable = calloc(1, sizeof *variable);
    if (!variable)
        abort();
    variable->host = host, variable->size = size;
    pthread_mutex_lock(&lock);
    variable->next = variables;
    variables = variable;
    pthread_mutex_unlock(&lock);
}

static struct variable *variable_of(const void *host) {
    pthread_mutex_lock(&lock);
    struct variable *variable = variables;
    while (variable && variable->host != host)
        variable = variable->next;
    if (variable && !atomic_load(&variable->at)) {
        uint64_t (*memory)(size_t) = (uint64_t (*)(size_t))(void (*)(void))driver.simgpu_variable;
        atomic_store(&variable->at, memory(variable->size));
    }
    pthread_mutex_unlock(&lock);
    return variable;
}
char *variable_address(const void *host) {
    struct variable *variable = variable_of(host);
    return variable ? (char *)atomic_load(&variable->at) : NULL;
}
API(cudaGetSymbolAddress, (void **out, const void *symbol), {
    READY();
    *out = variable_address(symbol);
    return remember(*out ? SUCCESS : INVALID_SYMBOL);
})
API(cudaGetSymbolSize, (size_t * out, const void *symbol), {
    READY();
    struct variable *variable = variable_of(symbol);
    if (!variable)
        return remember(INVALID_SYMBOL);
    *out = variable->size;
    return SUCCESS;
})

static error_t_ get_kernel(void **out, const void *stub) {
    if (!out || !stub)
        return INVALID_VALUE;
    struct kernel *kernel = find(stub);
    *out = kernel ? kernel : add(stub, symbol_name(stub));
    return SUCCESS;
}
API(__cudaGetKernel, (void **out, const void *stub), { return remember(get_kernel(out, stub)); })
API(cudaGetKernel, (void **out, const void *stub), { return remember(get_kernel(out, stub)); })
API(cudaGetFuncBySymbol, (void **out, const void *stub), {
    READY();
    *out = function_of(stub);
    return remember(*out ? SUCCESS : INVALID_DEVICE_FUNCTION);
})

// dim3 is three words; by value it arrives as x | y << 32 and z.
struct dim3 {
    uint32_t x, y, z;
};
struct configuration {
    struct dim3 grid, block;
    size_t shared;
    void *stream;
};
static __thread struct configuration pushed[16];
static __thread int push_depth;

EXPORT unsigned __cudaPushCallConfiguration(struct dim3 grid, struct dim3 block, size_t shared, void *stream) {
    COUNT("__cudaPushCallConfiguration");
    if (push_depth == 16)
        return MISSING_CONFIGURATION;
    pushed[push_depth++] = (struct configuration){grid, block, shared, stream};
    return SUCCESS;
}
API(__cudaPopCallConfiguration, (struct dim3 * grid, struct dim3 *block, size_t *shared, void **stream), {
    if (push_depth == 0)
        return remember(MISSING_CONFIGURATION);
    struct configuration *top = &pushed[--push_depth];
    *grid = top->grid, *block = top->block, *shared = top->shared, *stream = top->stream;
    return SUCCESS;
})

#define LAUNCH_PARAMS const void *kernel, struct dim3 grid, struct dim3 block, void **params, size_t shared, void *stream
// The driver calls a grid or block that cannot be an invalid value; the runtime has an error of its own for it.
#define LAUNCH2(name, ...)                                                                                     \
    do {                                                                                                       \
        error_t_ outcome = driver.name[per_thread](__VA_ARGS__);                                                \
        return remember(outcome == INVALID_VALUE ? INVALID_CONFIGURATION : outcome);                           \
    } while (0)
#define FUNCTION(handle)                                                                                       \
    READY();                                                                                                   \
    void *function = function_of(handle);                                                                      \
    if (!function)                                                                                             \
    return remember(INVALID_DEVICE_FUNCTION)

API2(_ptsz, cudaLaunchKernel, (LAUNCH_PARAMS), {
    FUNCTION(kernel);
    LAUNCH2(cuLaunchKernel, function, grid.x, grid.y, grid.z, block.x, block.y, block.z, (uint32_t)shared, stream, params,
          (void **)NULL);
})
API2(_ptsz, cudaLaunchCooperativeKernel, (LAUNCH_PARAMS), {
    FUNCTION(kernel);
    LAUNCH2(cuLaunchCooperativeKernel, function, grid.x, grid.y, grid.z, block.x, block.y, block.z, (uint32_t)shared,
          stream, params);
})

// cudaLaunchConfig_t: dim3, dim3, a 64-bit size, stream, attributes.
struct runtime_launch_config {
    struct dim3 grid, block;
    size_t shared;
    void *stream, *attributes;
    uint32_t attribute_count;
};
API2(_ptsz, cudaLaunchKernelExC, (const struct runtime_launch_config *c, const void *kernel, void **params), {
    FUNCTION(kernel);
    if (!c)
        return remember(INVALID_VALUE);
    struct launch_config config = {{c->grid.x, c->grid.y, c->grid.z}, {c->block.x, c->block.y, c->block.z},
                                   (uint32_t)c->shared, c->stream, c->attributes, c->attribute_count};
    LAUNCH2(cuLaunchKernelEx, &config, function, params, (void **)NULL);
})
#if SIMGPU_CUDA == 12
struct multi_launch {
    const void *kernel;
    struct dim3 grid, block;
    void **params;
    size_t shared;
    void *stream;
};
struct driver_multi_launch { // CUDA_LAUNCH_PARAMS
    void *function;
    struct dim3 grid, block;
    uint32_t shared;
    void *stream, **params;
};
API(cudaLaunchCooperativeKernelMultiDevice, (struct multi_launch * list, unsigned count, unsigned flags), {
    READY();
    struct driver_multi_launch all[8]; // as many as there can be devices
    if (!list || count == 0 || count > 8)
        return remember(INVALID_VALUE);
    for (unsigned i = 0; i < count; i++)
        all[i] = (struct driver_multi_launch){function_of(list[i].kernel), list[i].grid, list[i].block,
                                              (uint32_t)list[i].shared, list[i].stream, list[i].params};
    CALL(cuLaunchCooperativeKernelMultiDevice, all, count, flags);
})
#endif

API2(_ptsz, cudaLaunchHostFunc, (void *stream, void (*fn)(void *), void *data),
     { CALL2(cuLaunchHostFunc, stream, fn, data); })
#if SIMGPU_CUDA >= 13
API2(_ptsz, cudaLaunchHostFunc_v2, (void *stream, void (*fn)(void *), void *data, unsigned mode),
     { CALL2(cuLaunchHostFunc_v2, stream, fn, data, mode); })
#endif

// cudaFuncAttributes: three sizes, then ints.
struct function_attributes {
    size_t shared, constant, local;
    int max_threads, registers, ptx, binary, cache, max_dynamic_shared, carveout, rest[21];
};
API(cudaFuncGetAttributes, (struct function_attributes * out, const void *kernel), {
    FUNCTION(kernel);
    if (!out)
        return remember(INVALID_VALUE);
    memset(out, 0, sizeof *out);
    int *const fields[] = {&out->max_threads, NULL, NULL, NULL, &out->registers, &out->ptx, &out->binary, &out->cache,
                           &out->max_dynamic_shared, &out->carveout};
    for (int i = 0; i < 10; i++)
        if (fields[i])
            driver.cuFuncGetAttribute(fields[i], i, function);
    return SUCCESS;
})
API(cudaFuncSetAttribute, (const void *kernel, int attribute, int value), {
    FUNCTION(kernel);
    CALL(cuFuncSetAttribute, function, attribute, value);
})
API(cudaFuncSetCacheConfig, (const void *kernel, int config), {
    FUNCTION(kernel);
    return SUCCESS;
})
API(cudaFuncSetSharedMemConfig, (const void *kernel, int config), {
    FUNCTION(kernel);
    return SUCCESS;
})
API(cudaFuncGetName, (const char **out, const void *kernel), {
    FUNCTION(kernel);
    CALL(cuFuncGetName, out, function);
})
API(cudaKernelSetAttributeForDevice, (const void *kernel, int attribute, int value, int device), {
    FUNCTION(kernel);
    CALL(cuFuncSetAttribute, function, attribute, value);
})
API(cudaOccupancyMaxActiveBlocksPerMultiprocessor, (int *out, const void *kernel, int block, size_t shared), {
    FUNCTION(kernel);
    CALL(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, out, function, block, shared, 0u);
})
API(cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags,
    (int *out, const void *kernel, int block, size_t shared, unsigned flags), {
        FUNCTION(kernel);
        CALL(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, out, function, block, shared, flags);
    })
API(cudaOccupancyAvailableDynamicSMemPerBlock, (size_t * out, const void *kernel, int blocks, int block), {
    FUNCTION(kernel);
    CALL(cuOccupancyAvailableDynamicSMemPerBlock, out, function, blocks, block);
})

API(cudaLibraryLoadData,
    (void **out, const void *code, int *jit, void **jit_values, unsigned jit_count, int *options, void **values,
     unsigned count),
    { CALL(cuLibraryLoadData, out, code, jit, jit_values, jit_count, options, values, count); })
API(cudaLibraryLoadFromFile,
    (void **out, const char *path, int *jit, void **jit_values, unsigned jit_count, int *options, void **values,
     unsigned count),
    { CALL(cuLibraryLoadFromFile, out, path, jit, jit_values, jit_count, options, values, count); })
API(cudaLibraryUnload, (void *library), { CALL(cuLibraryUnload, library); })
API(cudaLibraryGetKernel, (void **out, void *library, const char *name), { CALL(cuLibraryGetKernel, out, library, name); })
API(cudaLibraryGetKernelCount, (unsigned *out, void *library), { CALL(cuLibraryGetKernelCount, out, library); })
API(cudaLibraryEnumerateKernels, (void **out, unsigned count, void *library),
    { CALL(cuLibraryEnumerateKernels, out, count, library); })
API(cudaLibraryGetGlobal, (void **out, size_t *bytes, void *library, const char *name),
    { CALL(cuLibraryGetGlobal, out, bytes, library, name); })
