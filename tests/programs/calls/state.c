// What a thread's calls work on, made through the same libraries: those calls count as well, as preparation. In: the
// state. Out: handles and memory in it; they stay NULL where no driver is. Absent: their release, which is the exit's.
#define GROUP "preparation"
#include "calls.h"
#include <stdlib.h>
#include <sys/mman.h>

__attribute__((visibility("default"), noinline)) void calls_kernel(void) { __asm__ volatile(""); }
__attribute__((visibility("default"), noinline)) void calls_other_kernel(void) { __asm__ volatile("nop"); }
__attribute__((visibility("default"), noinline)) void calls_registered_kernel(void) { __asm__ volatile("nop; nop"); }
char calls_variable[VARIABLE_BYTES];
void do_nothing(void *unused) { (void)unused; }

static void device_memory(char **out) {
    if (has(RUNTIME))
        RT(cudaMalloc, out, (size_t)BYTES);
    else
        DRV(cuMemAlloc_v2, out, (size_t)BYTES);
}

static void prepare_with_driver(struct state *s) {
    DRV(cuDevicePrimaryCtxRetain, &s->context, 0);
    DRV(cuCtxSetCurrent, s->context);
    DRV(cuStreamCreate, &s->stream, 1u);
    DRV(cuEventCreate, &s->event, 0u);
    DRV(cuEventCreate, &s->event2, 0u);
    DRV(cuEventRecord, s->event, s->stream);
    DRV(cuEventRecord, s->event2, s->stream);
    DRV(cuMemHostAlloc, &s->pinned, (size_t)BYTES, 0u);
}
static void prepare_with_runtime(struct state *s) {
    RT(cudaStreamCreateWithFlags, &s->stream, 1u);
    RT(cudaEventCreate, &s->event);
    RT(cudaEventCreate, &s->event2);
    RT(cudaEventRecord, s->event, s->stream);
    RT(cudaEventRecord, s->event2, s->stream);
    RT(cudaHostAlloc, &s->pinned, (size_t)BYTES, 0u);
    RT(__cudaGetKernel, &s->kernel, (void *)calls_other_kernel);
}
void prepare(struct state *s) {
    RT(cudaSetDevice, 0);
    DRV(cuInit, 0u);
    if (has(RUNTIME))
        prepare_with_runtime(s);
    else
        prepare_with_driver(s);
    device_memory(&s->device);
    device_memory(&s->device2);
    DRV(cuModuleLoadData, &s->module, "calls");
    DRV(cuModuleGetFunction, &s->function, s->module, "calls_driver_kernel");
}

// A graph from before the wait, of three kernels.
void need_graph(struct state *s) {
    static const struct dim3 grid = {7, 2, 3}, block = {8, 4, 5};
    if (s->exec)
        return;
    if (!has(RUNTIME)) {
        DRV(cuStreamBeginCapture_v2, s->stream, 2);
        for (int i = 0; i < 3; i++)
            DRV(cuLaunchKernel, s->function, 7u, 2u, 3u, 8u, 4u, 5u, 96u, s->stream, (void **)NULL, (void **)NULL);
        DRV(cuStreamEndCapture, s->stream, &s->graph);
        DRV(cuGraphInstantiateWithFlags, &s->exec, s->graph, 0ull);
        return;
    }
    RT(cudaStreamBeginCapture, s->stream, 2);
    for (int i = 0; i < 3; i++)
        RT(cudaLaunchKernel, (void *)calls_kernel, grid, block, (void **)NULL, (size_t)96, s->stream);
    RT(cudaStreamEndCapture, s->stream, &s->graph);
    RT(cudaGraphInstantiate, &s->exec, s->graph, 0ull);
}
void need_stream2(struct state *s) {
    if (s->stream2)
        return;
    if (has(RUNTIME))
        RT(cudaStreamCreateWithFlags, &s->stream2, 1u);
    else
        DRV(cuStreamCreate, &s->stream2, 1u);
}
// Where there is one device alone, the peer is the device itself.
void need_peer(struct state *s) {
    int count = 0;
    if (!s->context)
        DRV(cuCtxGetCurrent, &s->context);
    if (s->peer)
        return;
    DRV(cuDeviceGetCount, &count);
    s->peer_device = count > 1;
    if (!has(RUNTIME)) {
        void *context = NULL, *popped;
        DRV(cuDevicePrimaryCtxRetain, &context, s->peer_device);
        DRV(cuCtxPushCurrent_v2, context);
        device_memory(&s->peer);
        DRV(cuCtxPopCurrent_v2, &popped);
        return;
    }
    RT(cudaSetDevice, s->peer_device);
    device_memory(&s->peer);
    RT(cudaSetDevice, 0);
}
// 64 rows of 64 bytes.
void need_array(struct state *s) {
    if (s->array)
        return;
    if (has(RUNTIME))
        RT(cudaMallocArray, &s->array, &(struct channels){8, 0, 0, 0, 1}, (size_t)64, (size_t)64, 0u);
    else
        DRV(cuArrayCreate_v2, &s->array, &(struct array_descriptor){64, 64, 1, 1});
}
void need_pool(struct state *s) {
    if (!s->pool && has(DRIVER))
        DRV(cuMemPoolCreate, &s->pool, &(struct pool_properties){.type = 1, .location = {1, 0}});
}
void need_registered(struct state *s) {
    if (!s->registered)
        s->registered = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
void need_before(struct state *s) {
    if (s->before || !(s->before = calloc((size_t)options.times + 1, sizeof *s->before)))
        return;
    for (int i = 0; i < options.times; i++)
        device_memory((char **)&s->before[i]);
}
// What the compiler's start-up code does, once for each runtime; the preparation runs one thread at a time.
static void **binary(void) {
    static const uint32_t without_code[] = {0xba55ed50, 0x00100001, 0, 0};
    static const struct { // __fatBinC_Wrapper_t
        int magic, version;
        const void *data;
        void *unused;
    } wrapper = {0x466243b1, 1, without_code, NULL};
    static void **handles[2];
    if (!handles[second_runtime]) {
        SITE(RUNTIME, "__cudaRegisterFatBinary");
        if (!function_of(&site))
            return NULL;
        atomic_fetch_add(&site.made, 1);
        handles[second_runtime] = ((void **(*)())(void (*)(void))function_of(&site))(&wrapper);
    }
    return handles[second_runtime];
}
void need_variable(struct state *s) {
    static bool done[2];
    (void)s;
    if (done[second_runtime] || !binary())
        return;
    done[second_runtime] = true;
    MAKE_VOID(RUNTIME, "__cudaRegisterVar", binary(), calls_variable, calls_variable, "calls_variable", 0,
              (size_t)VARIABLE_BYTES, 0, 0);
}
void need_registration(struct state *s) {
    static bool done[2];
    (void)s;
    if (done[second_runtime] || !binary())
        return;
    done[second_runtime] = true;
    MAKE_VOID(RUNTIME, "__cudaRegisterFunction", binary(), (char *)calls_registered_kernel,
              "calls_registered_device_kernel", "calls_registered_device_kernel", -1, NULL, NULL, NULL, NULL, NULL);
    MAKE_VOID(RUNTIME, "__cudaRegisterFatBinaryEnd", binary());
}
void need_communicator(struct state *s) {
    struct unique_id id = {{0}};
    need_stream2(s);
    if (s->communicator)
        return;
    NC(ncclGetUniqueId, &id);
    NC(ncclCommInitRank, &s->communicator, 1, id, 0);
}
void need_function(struct state *s) {
    if (!s->other_function)
        DRV(cuModuleGetFunction, &s->other_function, s->module, "calls_other_driver_kernel");
}
