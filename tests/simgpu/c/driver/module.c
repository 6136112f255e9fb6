// Modules, libraries and the kernels in them. In: names. Out: one `struct function` per name, whichever way it was
// asked for. Absent: code; any image is accepted, and any name is found in it.
#define _GNU_SOURCE
#include "sim.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUCKETS = 4096 };
static struct function *buckets[BUCKETS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static unsigned bucket_of(const char *name) {
    unsigned h = 5381;
    for (; *name; name++)
        h = h * 33 + (unsigned char)*name;
    return h % BUCKETS;
}

static struct function *make(const char *name) {
    struct function *function = calloc(1, sizeof *function);
    if (!function || !(function->name = strdup(name)))
        return NULL;
    function->magic = FUNCTION_MAGIC;
    function->duration_ns = kernel_duration_ns(name);
    function->index = log_kernel_index(name);
    return function;
}

struct function *function_by_name(const char *name) {
    struct function **bucket = &buckets[bucket_of(name)];
    pthread_mutex_lock(&lock);
    struct function *function = *bucket;
    while (function && strcmp(function->name, name) != 0)
        function = function->next;
    if (!function && (function = make(name))) {
        function->next = *bucket;
        *bucket = function;
    }
    pthread_mutex_unlock(&lock);
    return function;
}

// For the runtime stand-in, in place of the private tables through which the real one loads its modules. Not counted.
EXPORT struct function *simgpu_function(const char *name) { return function_by_name(name); }
// Likewise for a device variable that the runtime's module holds; 0 without memory.
EXPORT CUdeviceptr simgpu_variable(size_t bytes) {
    CUdeviceptr at = 0;
    return device_alloc(&at, bytes, RANGE_MODULE, 0) ? 0 : at;
}

struct module {
    uint64_t magic;
    struct function *functions[256];
    unsigned count;
    struct symbol {
        char *name;
        CUdeviceptr at;
    } symbols[256];
    unsigned symbol_count;
};
enum { MODULE_MAGIC = 0x4d4f444c, SYMBOL_BYTES = 4096 };

static CUresult load(struct module **out, const void *image) {
    READY();
    if (!out || !image)
        return INVALID_VALUE;
    *out = calloc(1, sizeof **out);
    if (!*out)
        return OUT_OF_MEMORY;
    (*out)->magic = MODULE_MAGIC;
    return CUDA_SUCCESS;
}
API(cuModuleLoadData, (struct module * *out, const void *image), { return load(out, image); })
API(cuModuleLoadDataEx, (struct module * *out, const void *image, unsigned count, int *options, void **values),
    { return load(out, image); })
API(cuModuleLoadFatBinary, (struct module * *out, const void *image), { return load(out, image); })
API(cuModuleLoad, (struct module * *out, const char *path), {
    if (!path || access(path, R_OK))
        return FILE_NOT_FOUND;
    return load(out, path);
})
API(cuLibraryLoadData,
    (struct module * *out, const void *code, int *options, void **values, unsigned count, int *library_options,
     void **library_values, unsigned library_count),
    { return load(out, code); })
API(cuLibraryLoadFromFile,
    (struct module * *out, const char *path, int *options, void **values, unsigned count, int *library_options,
     void **library_values, unsigned library_count),
    {
        if (!path || access(path, R_OK))
            return FILE_NOT_FOUND;
        return load(out, path);
    })

static bool valid(const struct module *module) { return module && module->magic == MODULE_MAGIC; }

static CUresult unload(struct module *module) {
    READY();
    if (!valid(module))
        return INVALID_HANDLE;
    module->magic = 0;
    return CUDA_SUCCESS;
}
API(cuModuleUnload, (struct module * module), { return unload(module); })
API(cuLibraryUnload, (struct module * module), { return unload(module); })

static CUresult get_function(struct function **out, struct module *module, const char *name) {
    READY();
    if (!valid(module))
        return INVALID_HANDLE;
    if (!out || !name || !*name)
        return NOT_FOUND;
    *out = function_by_name(name);
    if (!*out)
        return OUT_OF_MEMORY;
    for (unsigned i = 0; i < module->count; i++)
        if (module->functions[i] == *out)
            return CUDA_SUCCESS;
    if (module->count < 256)
        module->functions[module->count++] = *out;
    return CUDA_SUCCESS;
}
API(cuModuleGetFunction, (struct function * *out, struct module *module, const char *name),
    { return get_function(out, module, name); })
API(cuLibraryGetKernel, (struct function * *out, struct module *module, const char *name),
    { return get_function(out, module, name); })
API(cuKernelGetFunction, (struct function * *out, struct function *kernel), {
    READY();
    if (!kernel || kernel->magic != FUNCTION_MAGIC)
        return INVALID_HANDLE;
    *out = kernel;
    return CUDA_SUCCESS;
})
API(cuLibraryGetModule, (struct module * *out, struct module *library), {
    READY();
    *out = library;
    return valid(library) ? CUDA_SUCCESS : INVALID_HANDLE;
})

static CUresult count_functions(unsigned *out, struct module *module) {
    READY();
    if (!valid(module))
        return INVALID_HANDLE;
    *out = module->count;
    return CUDA_SUCCESS;
}
API(cuModuleGetFunctionCount, (unsigned *out, struct module *module), { return count_functions(out, module); })
API(cuLibraryGetKernelCount, (unsigned *out, struct module *module), { return count_functions(out, module); })
static CUresult enumerate(struct function **out, unsigned number, struct module *module) {
    READY();
    if (!valid(module))
        return INVALID_HANDLE;
    for (unsigned i = 0; i < number && i < module->count; i++)
        out[i] = module->functions[i];
    return CUDA_SUCCESS;
}
API(cuModuleEnumerateFunctions, (struct function * *out, unsigned number, struct module *module),
    { return enumerate(out, number, module); })
API(cuLibraryEnumerateKernels, (struct function * *out, unsigned number, struct module *module),
    { return enumerate(out, number, module); })

// Any symbol exists, as a page of zeros.
static CUresult get_global(CUdeviceptr *out, size_t *bytes, struct module *module, const char *name) {
    READY();
    if (!valid(module) || !name)
        return INVALID_HANDLE;
    struct symbol *symbol = module->symbols, *end = symbol + module->symbol_count;
    while (symbol < end && strcmp(symbol->name, name) != 0)
        symbol++;
    if (symbol == end) {
        if (module->symbol_count == 256 || device_alloc(&symbol->at, SYMBOL_BYTES, RANGE_MODULE, 0))
            return NOT_FOUND;
        symbol->name = strdup(name);
        module->symbol_count++;
    }
    if (out)
        *out = symbol->at;
    if (bytes)
        *bytes = SYMBOL_BYTES;
    return CUDA_SUCCESS;
}
API(cuModuleGetGlobal_v2, (CUdeviceptr * out, size_t *bytes, struct module *module, const char *name),
    { return get_global(out, bytes, module, name); })
API(cuLibraryGetGlobal, (CUdeviceptr * out, size_t *bytes, struct module *module, const char *name),
    { return get_global(out, bytes, module, name); })
API(cuModuleGetLoadingMode, (int *out), {
    READY();
    *out = 2; // lazy
    return CUDA_SUCCESS;
})

static bool is_function(const struct function *function) { return function && function->magic == FUNCTION_MAGIC; }

static CUresult get_name(const char **out, struct function *function) {
    READY();
    if (!is_function(function))
        return INVALID_HANDLE;
    *out = function->name;
    return CUDA_SUCCESS;
}
API(cuFuncGetName, (const char **out, struct function *function), { return get_name(out, function); })
API(cuKernelGetName, (const char **out, struct function *function), { return get_name(out, function); })

// Numbers of CUfunction_attribute (cuda.h). 16 registers is what a small kernel uses.
static CUresult get_attribute(int *out, int attribute, struct function *function) {
    READY();
    if (!is_function(function))
        return INVALID_HANDLE;
    int architecture = (int)(config.major * 10 + config.minor);
    int known[] = {1024, 0, 0, 0, 16, architecture, architecture, 0, 49152, -1};
    if (attribute == 8 && function->max_dynamic_shared)
        *out = function->max_dynamic_shared;
    else
        *out = attribute >= 0 && attribute < 10 ? known[attribute] : 0;
    return CUDA_SUCCESS;
}
API(cuFuncGetAttribute, (int *out, int attribute, struct function *function),
    { return get_attribute(out, attribute, function); })
API(cuKernelGetAttribute, (int *out, int attribute, struct function *function, CUdevice device),
    { return get_attribute(out, attribute, function); })
static CUresult set_attribute(struct function *function, int attribute, int value) {
    READY();
    if (!is_function(function))
        return INVALID_HANDLE;
    if (attribute == 8)
        function->max_dynamic_shared = value;
    return CUDA_SUCCESS;
}
API(cuFuncSetAttribute, (struct function * function, int attribute, int value),
    { return set_attribute(function, attribute, value); })
API(cuKernelSetAttribute, (int attribute, int value, struct function *function, CUdevice device),
    { return set_attribute(function, attribute, value); })
API(cuFuncSetCacheConfig, (struct function * function, int value), {
    READY();
    return CUDA_SUCCESS;
})
API(cuKernelSetCacheConfig, (struct function * function, int value, CUdevice device), {
    READY();
    return CUDA_SUCCESS;
})
API(cuFuncSetSharedMemConfig, (struct function * function, int value), {
    READY();
    return CUDA_SUCCESS;
})
API(cuFuncLoad, (struct function * function), {
    READY();
    return CUDA_SUCCESS;
})
API(cuFuncIsLoaded, (int *out, struct function *function), {
    READY();
    *out = 1;
    return CUDA_SUCCESS;
})

enum { THREADS_PER_MULTIPROCESSOR = 1536, BLOCKS_PER_MULTIPROCESSOR = 16 };
static CUresult max_active(int *out, int block) {
    READY();
    if (!out || block < 1 || block > 1024)
        return INVALID_VALUE;
    int blocks = THREADS_PER_MULTIPROCESSOR / block;
    *out = blocks < BLOCKS_PER_MULTIPROCESSOR ? blocks : BLOCKS_PER_MULTIPROCESSOR;
    return CUDA_SUCCESS;
}
API(cuOccupancyMaxActiveBlocksPerMultiprocessor, (int *out, void *function, int block, size_t shared),
    { return max_active(out, block); })
API(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags,
    (int *out, void *function, int block, size_t shared, unsigned flags), { return max_active(out, block); })
static CUresult potential(int *grid, int *block, int limit) {
    READY();
    *block = limit > 0 && limit < 1024 ? limit : 1024;
    *grid = (int)config.multiprocessors;
    return CUDA_SUCCESS;
}
API(cuOccupancyMaxPotentialBlockSize, (int *grid, int *block, void *function, void *size, size_t shared, int limit),
    { return potential(grid, block, limit); })
API(cuOccupancyMaxPotentialBlockSizeWithFlags,
    (int *grid, int *block, void *function, void *size, size_t shared, int limit, unsigned flags),
    { return potential(grid, block, limit); })
API(cuOccupancyAvailableDynamicSMemPerBlock, (size_t * out, void *function, int blocks, int block), {
    READY();
    *out = 49152;
    return CUDA_SUCCESS;
})
