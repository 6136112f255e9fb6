// Code that is loaded and looked up: modules, libraries, kernels, registration. In: a thread's state. Out: handles and
// names. Absent: images; the stand-in takes any.
#define GROUP "module"
#include "calls.h"
#include <string.h>

CALL(cuModuleLoadData) {
    void *module = NULL, *function = NULL;
    DRV(cuModuleLoadData, &module, "calls");
    DRV(cuModuleGetFunction, &function, module, "calls_from_data");
    launched(DRV(cuLaunchKernel, function, 1u, 1u, 1u, 32u, 1u, 1u, 0u, s->stream, (void **)NULL, (void **)NULL), 1);
    DRV(cuModuleUnload, module);
}
CALL(cuModuleLoadDataEx) {
    void *module = NULL;
    DRV(cuModuleLoadDataEx, &module, "calls", 0u, (void *)NULL, (void *)NULL);
    DRV(cuModuleUnload, module);
}
CALL(cuModuleLoadFatBinary) {
    void *module = NULL;
    DRV(cuModuleLoadFatBinary, &module, "calls");
    DRV(cuModuleUnload, module);
}
CALL(cuModuleLoad) {
    void *module = NULL;
    DRV(cuModuleLoad, &module, "/proc/self/exe");
    DRV(cuModuleUnload, module);
}
CALL(cuModuleGetFunction) {
    void *function = NULL;
    DRV(cuModuleGetFunction, &function, s->module, "calls_driver_kernel");
}
CALL(cuModuleEnumerateFunctions) {
    void *function = NULL;
    DRV(cuModuleEnumerateFunctions, &function, 1u, s->module);
}
#define NO_OPTIONS (void *)NULL, (void *)NULL, 0u, (void *)NULL, (void *)NULL, 0u
// Launched by the kernel's handle, and by the function's.
static void launch_both(struct state *s, void *library, const char *name) {
    void *kernel = NULL, *function = NULL;
    DRV(cuLibraryGetKernel, &kernel, library, name);
    DRV(cuKernelGetFunction, &function, kernel);
    launched(DRV(cuLaunchKernel, kernel, 1u, 1u, 1u, 32u, 1u, 1u, 0u, s->stream, (void **)NULL, (void **)NULL), 1);
    launched(DRV(cuLaunchKernel, function, 1u, 1u, 1u, 32u, 1u, 1u, 0u, s->stream, (void **)NULL, (void **)NULL), 1);
    DRV(cuLibraryUnload, library);
}
CALL(cuLibraryLoadData) {
    void *library = NULL;
    DRV(cuLibraryLoadData, &library, "calls", NO_OPTIONS);
    launch_both(s, library, "calls_library_kernel");
}
CALL(cuLibraryLoadFromFile) {
    void *library = NULL;
    DRV(cuLibraryLoadFromFile, &library, "/proc/self/exe", NO_OPTIONS);
    launch_both(s, library, "calls_file_kernel");
}

static const struct dim3 one = {1, 1, 1};
CALL(cudaLibraryLoadData) {
    void *library = NULL, *kernel = NULL;
    RT(cudaLibraryLoadData, &library, "calls", NO_OPTIONS);
    if (RT(cudaLibraryGetKernel, &kernel, library, "calls_runtime_library_kernel") == 0)
        launched(RT(cudaLaunchKernel, kernel, one, one, (void **)NULL, (size_t)0, s->stream), 1);
    RT(cudaLibraryUnload, library);
}
CALL(cudaLibraryLoadFromFile) {
    void *library = NULL;
    RT(cudaLibraryLoadFromFile, &library, "/proc/self/exe", NO_OPTIONS);
    RT(cudaLibraryUnload, library);
}
CALL(cudaGetFuncBySymbol) {
    void *function = NULL;
    if (RT(cudaGetFuncBySymbol, &function, (void *)calls_kernel) == 0)
        launched(DRV(cuLaunchKernel, function, 1u, 1u, 1u, 32u, 1u, 1u, 0u, s->stream, (void **)NULL, (void **)NULL), 1);
}
CALL(cudaGetKernel) {
    void *kernel = NULL;
    RT(cudaGetKernel, &kernel, (void *)calls_kernel);
}
CALL_AS(registered, "__cudaRegisterFunction", need_registration) {
    launched(RT(cudaLaunchKernel, (void *)calls_registered_kernel, one, one, (void **)NULL, (size_t)0, s->stream), 1);
}
CALL(__cudaGetKernel) {
    void *kernel = NULL;
    RT(__cudaGetKernel, &kernel, (void *)calls_kernel);
}
