// Loads the libraries and finds the functions that the program calls. In: options and the loader's path. Out: every
// site's function. Absent: any call of CUDA but for the version.
#include "calls.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void *libraries[LIBRARIES];
static int majors[LIBRARIES];
__thread int second_runtime;
extern struct site __start_call_sites[], __stop_call_sites[];

bool has(enum library library) { return libraries[library] != NULL; }
int runtime_major(void) { return majors[second_runtime ? SECOND_RUNTIME : RUNTIME]; }

static void *open_first(const char *const *paths) {
    for (; *paths; paths++) {
        void *library = dlopen(*paths, RTLD_NOW | RTLD_GLOBAL);
        if (library)
            return library;
    }
    return NULL;
}

// A loader path such as libcudart.so.13 is resolved by loading it and asking where it came from.
static void copy_library(const char *name, char *copy) {
    char script[512], source[1024] = "";
    void *probe = dlopen(name, RTLD_LAZY | RTLD_LOCAL);
    Dl_info info;
    if (probe && dladdr(dlsym(probe, "cudaLaunchKernel"), &info))
        snprintf(source, sizeof source, "%s", info.dli_fname);
    if (probe)
        dlclose(probe);
    snprintf(copy, 64, "/tmp/calls-%d-libcudart.so", (int)getpid());
    snprintf(script, sizeof script, "cp '%.400s' '%.60s'", source, copy);
    if (system(script) != 0)
        exit(1);
}

static void *load_runtime(void) {
    const char *paths[] = {options.library ? options.library : "libcudart.so.13", "libcudart.so.12", NULL};
    char copy[64];
    if (options.no_runtime)
        return NULL;
    if (options.copy_and_delete) {
        copy_library(paths[0], copy);
        paths[0] = copy, paths[1] = NULL;
    }
    void *runtime = open_first(paths);
    if (options.copy_and_delete)
        unlink(copy);
    return runtime;
}

// Not counted: the version is asked before anything begins. It needs no driver.
static void ask_version(enum library runtime) {
    int version = 0;
    any get = libraries[runtime] ? (any)dlsym(libraries[runtime], "cudaRuntimeGetVersion") : NULL;
    if (get)
        get(&version);
    majors[runtime] = version / 1000;
}

static any find(enum library library, const char *name) {
    return libraries[library] ? (any)dlsym(libraries[library], name) : NULL;
}

void load_libraries(void) {
    nanosleep(&(struct timespec){options.dlopen_after_ms / 1000, options.dlopen_after_ms % 1000 * 1000000}, NULL);
    libraries[RUNTIME] = load_runtime();
    if (options.second_library)
        libraries[SECOND_RUNTIME] = dlopen(options.second_library, RTLD_NOW | RTLD_LOCAL);
    libraries[DRIVER] = open_first((const char *const[]){"libcuda.so.1", NULL});
    if (options.wants_nccl && libraries[DRIVER])
        libraries[NCCL] = open_first((const char *const[]){"libnccl.so.2", NULL});
    if (!libraries[RUNTIME] && !libraries[DRIVER]) {
        fprintf(stderr, "calls: neither libcudart nor libcuda can be loaded: %s\n", dlerror());
        exit(1);
    }
    ask_version(RUNTIME);
    ask_version(SECOND_RUNTIME);
    for (struct site *site = __start_call_sites; site < __stop_call_sites; site++) {
        site->fn = find(site->library, site->name);
        site->second = site->library == RUNTIME ? find(SECOND_RUNTIME, site->name) : NULL;
    }
}
