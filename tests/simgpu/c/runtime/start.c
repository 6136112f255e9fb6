// Finds the driver and keeps each thread's device and last error. In: libcuda.so.1 on the search path. Out: `driver`.
// Absent: the real runtime's private channels to its driver.
#define _GNU_SOURCE
#include "runtime.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>

struct driver driver;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static error_t_ state = INSUFFICIENT_DRIVER;
static __thread int bound; // a context is current in this thread
static __thread int last_error;
static __thread int device;

static void *symbol(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (!found)
        abort(); // not our driver: its calls would jump to nowhere
    return found;
}

static void load(void) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
    if (!library || !dlsym(library, "simgpu_function"))
        return;
#define X(name) driver.name = (int (*)())symbol(library, #name);
    DRIVER_PLAIN(X)
#undef X
#define X(name, suffix)                                                                                        \
    driver.name[0] = (int (*)())symbol(library, #name);                                                        \
    driver.name[1] = (int (*)())symbol(library, #name #suffix);
    DRIVER_STREAM(X)
#undef X
    state = driver.cuInit(0u);
}

error_t_ loaded(void) {
    pthread_once(&once, load);
    return state;
}

error_t_ remember(error_t_ error) {
    if (error)
        last_error = error;
    return error;
}

static error_t_ bind(int to) {
    void *context = NULL;
    int count = 0;
    driver.cuDeviceGetCount(&count);
    if (count == 0)
        return NO_DEVICE;
    error_t_ error = driver.cuDevicePrimaryCtxRetain(&context, to);
    if (error)
        return error;
    device = to;
    error = driver.cuCtxSetCurrent(context);
    bound = error == SUCCESS;
    return error;
}

// A context that the client made current through the driver is kept.
error_t_ ready(void) {
    if (bound)
        return SUCCESS;
    error_t_ error = loaded();
    if (error)
        return error;
    void *context = NULL;
    error = driver.cuCtxGetCurrent(&context);
    if (error)
        return error;
    if (context) {
        bound = 1;
        return driver.cuCtxGetDevice(&device);
    }
    return bind(device);
}

void *context_of(int of) {
    enum { MOST_DEVICES = 8 };
    static _Atomic(void *) contexts[MOST_DEVICES];
    if (of < 0 || of >= MOST_DEVICES)
        return NULL;
    void *context = atomic_load(&contexts[of]);
    if (!context && driver.cuDevicePrimaryCtxRetain(&context, of) == SUCCESS)
        atomic_store(&contexts[of], context);
    return context;
}

API(cudaSetDevice, (int to), {
    error_t_ error = loaded();
    if (error)
        return remember(error);
    if (bound && to == device)
        return SUCCESS;
    return remember(bind(to));
})
API(cudaInitDevice, (int to, unsigned flags, unsigned device_flags), {
    error_t_ error = loaded();
    return remember(error ? error : bind(to));
})
API(cudaGetDevice, (int *out), {
    error_t_ error = loaded();
    if (error || !out)
        return remember(error ? error : INVALID_VALUE);
    *out = device;
    return SUCCESS;
})
API(cudaGetDeviceCount, (int *out), {
    error_t_ error = loaded();
    if (error || !out)
        return remember(error ? error : INVALID_VALUE);
    *out = 0;
    driver.cuDeviceGetCount(out);
    return remember(*out ? SUCCESS : NO_DEVICE);
})
API(cudaGetLastError, (void), {
    error_t_ error = last_error;
    last_error = SUCCESS;
    return error;
})
API(cudaPeekAtLastError, (void), { return last_error; })
