// Checks what a client may rely on: order, data, times, capture, queries. In: the name of a check (none: list them), a
// libcudart and libcuda on the search path. Out: "ok", or what was wrong and exit code 1. Absent: counts, which the
// truth tells.
#include "checks.h"
#include <dlfcn.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

void *runtime, *driver;

any find(void *library, const char *name) {
    any found = (any)dlsym(library, name);
    if (!found) {
        printf("`%s` is not exported\n", name);
        exit(1);
    }
    return found;
}
typedef int (*launch_fn)(const void *, struct dim3, struct dim3, void **, size_t, void *);
__attribute__((visibility("default"), noinline)) void long_kernel(void) { __asm__ volatile(""); }
__attribute__((visibility("default"), noinline)) void short_kernel(void) { __asm__ volatile("nop"); }

// The tests run with SIMGPU_KERNELS=long_kernel=20ms,short_kernel=100us.
static const double LONG_MS = 20, SHORT_MS = 0.1;
static int launch(void (*kernel)(void), void *stream) {
    return ((launch_fn)find(runtime, "cudaLaunchKernel"))((void *)kernel, (struct dim3){1, 1, 1},
                                                          (struct dim3){32, 1, 1}, NULL, 0, stream);
}
static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}
void *new_stream(unsigned flags) {
    void *stream = NULL;
    OK(RT(cudaStreamCreateWithFlags, &stream, flags));
    return stream;
}
void *new_event(void) {
    void *event = NULL;
    OK(RT(cudaEventCreate, &event));
    return event;
}
char *device_bytes(size_t size) {
    char *made = NULL;
    OK(RT(cudaMalloc, &made, size));
    return made;
}
char *pinned_bytes(size_t size) {
    char *made = NULL;
    OK(RT(cudaHostAlloc, &made, size, 0u));
    return made;
}

static void check_launch_is_asynchronous(void) {
    void *s = new_stream(NON_BLOCKING);
    OK(launch(short_kernel, s));
    OK(RT(cudaStreamSynchronize, s));
    double start = now_ms();
    OK(launch(long_kernel, s));
    double launched = now_ms();
    EXPECT(RT(cudaStreamQuery, s) == NOT_READY);
    OK(RT(cudaStreamSynchronize, s));
    double done = now_ms();
    EXPECT(launched - start < LONG_MS / 2);
    EXPECT(done - start >= LONG_MS);
    OK(RT(cudaStreamQuery, s));
}
static void check_streams_overlap(void) {
    void *a = new_stream(NON_BLOCKING), *b = new_stream(NON_BLOCKING);
    double start = now_ms();
    OK(launch(long_kernel, a));
    OK(launch(long_kernel, b));
    OK(RT(cudaDeviceSynchronize));
    double taken = now_ms() - start;
    EXPECT(taken >= LONG_MS && taken < 2 * LONG_MS);
}
static void check_one_stream_is_ordered(void) {
    void *s = new_stream(NON_BLOCKING), *a = new_event(), *b = new_event();
    OK(RT(cudaEventRecord, a, s));
    OK(launch(long_kernel, s));
    OK(launch(long_kernel, s));
    OK(RT(cudaEventRecord, b, s));
    EXPECT(RT(cudaEventQuery, b) == NOT_READY);
    float ms = 0;
    EXPECT(RT(cudaEventElapsedTime, &ms, a, b) == NOT_READY);
    OK(RT(cudaEventSynchronize, b));
    OK(RT(cudaEventElapsedTime, &ms, a, b));
    EXPECT(ms >= 2 * LONG_MS - 0.001 && ms < 2 * LONG_MS + 5);
}
static void check_event_orders_streams(void) {
    void *a = new_stream(NON_BLOCKING), *b = new_stream(NON_BLOCKING), *e = new_event(), *end = new_event();
    double start = now_ms();
    OK(launch(long_kernel, a));
    OK(RT(cudaEventRecord, e, a));
    OK(RT(cudaStreamWaitEvent, b, e, 0u));
    OK(launch(long_kernel, b));
    OK(RT(cudaEventRecord, end, b));
    OK(RT(cudaEventSynchronize, end));
    EXPECT(now_ms() - start >= 2 * LONG_MS);
}
static void check_legacy_stream_orders_blocking_streams(void) {
    void *blocking = new_stream(0), *free_running = new_stream(NON_BLOCKING);
    double start = now_ms();
    OK(launch(long_kernel, blocking));
    OK(launch(long_kernel, NULL));     // waits for `blocking`
    OK(launch(long_kernel, blocking)); // waits for the legacy stream
    OK(launch(long_kernel, free_running));
    OK(RT(cudaStreamSynchronize, free_running));
    EXPECT(now_ms() - start < 2 * LONG_MS);
    OK(RT(cudaStreamSynchronize, blocking));
    EXPECT(now_ms() - start >= 3 * LONG_MS);
}
static void check_queue_is_bounded(void) {
    void *s = new_stream(NON_BLOCKING);
    double start = now_ms(), slowest = 0;
    for (int i = 0; i < 1224; i++) {
        double before = now_ms();
        OK(launch(short_kernel, s));
        slowest = now_ms() - before > slowest ? now_ms() - before : slowest;
    }
    // 1024 fit; the others wait until 200 have run.
    double submitted = now_ms() - start;
    EXPECT(submitted >= 200 * SHORT_MS * 0.9);
    EXPECT(submitted < 1224 * SHORT_MS);
    OK(RT(cudaStreamSynchronize, s));
    EXPECT(now_ms() - start >= 1224 * SHORT_MS);
}
static void check_copies_move_bytes(void) {
    enum { N = 1 << 20 };
    void *s = new_stream(NON_BLOCKING);
    char *host = malloc(N), *back = malloc(N), *pinned = pinned_bytes(N), *d = device_bytes(N), *d2 = device_bytes(N);
    for (int i = 0; i < N; i++)
        host[i] = (char)(i * 7);
    OK(RT(cudaMemcpy, d, host, (size_t)N, 1));
    OK(RT(cudaMemcpyAsync, d2, d, (size_t)N, 3, s));
    OK(RT(cudaMemcpyAsync, pinned, d2, (size_t)N, 2, s));
    OK(RT(cudaStreamSynchronize, s));
    EXPECT(memcmp(pinned, host, N) == 0);
    OK(RT(cudaMemset, d, 5, (size_t)N));
    OK(RT(cudaMemcpy, back, d, (size_t)N, 4)); // direction by address
    EXPECT(back[0] == 5 && back[N - 1] == 5);
    OK(RT(cudaMemcpy2DAsync, d, (size_t)256, host, (size_t)128, (size_t)100, (size_t)64, 1, s));
    OK(RT(cudaMemcpy2D, back, (size_t)100, d, (size_t)256, (size_t)100, (size_t)64, 2));
    OK(RT(cudaStreamSynchronize, s));
    EXPECT(memcmp(back + 100 * 63, host + 128 * 63, 100) == 0);
}
static void check_pageable_source_may_change_after_the_call(void) {
    enum { N = 4096 };
    void *s = new_stream(NON_BLOCKING);
    char *d = device_bytes(N), host[N], back[N];
    memset(host, 1, N);
    OK(launch(long_kernel, s));
    OK(RT(cudaMemcpyAsync, d, host, (size_t)N, 1, s));
    memset(host, 2, N);
    double before = now_ms();
    OK(RT(cudaMemcpyAsync, back, d, (size_t)N, 2, s)); // pageable target: returns when it is done
    EXPECT(now_ms() - before > LONG_MS / 4);
    EXPECT(back[0] == 1 && back[N - 1] == 1);
}
static int host_calls;
static pthread_t host_thread;
static void on_host(void *argument) {
    host_thread = pthread_self();
    host_calls += *(int *)argument;
}
static void check_host_function_runs_in_order_on_another_thread(void) {
    void *s = new_stream(NON_BLOCKING);
    int amount = 3;
    OK(launch(long_kernel, s));
    OK(RT(cudaLaunchHostFunc, s, on_host, &amount));
    EXPECT(host_calls == 0);
    for (int i = 0; host_calls == 0 && i < 1000; i++) // nobody waits for the stream: it must run by itself
        usleep(1000);
    EXPECT(host_calls == 3);
    EXPECT(!pthread_equal(host_thread, pthread_self()));
    OK(RT(cudaStreamSynchronize, s));
}
static void check_capture_forks_and_joins(void) {
    void *s = new_stream(NON_BLOCKING), *side = new_stream(NON_BLOCKING), *fork = new_event(), *join = new_event();
    void *graph = NULL, *exec = NULL, *nodes[16], *blocking = new_stream(0);
    int status = 0;
    OK(RT(cudaStreamBeginCapture, blocking, 0));
    EXPECT(launch(short_kernel, NULL) == 906); // the legacy stream would have to wait for a capture
    OK(RT(cudaStreamEndCapture, blocking, &graph));
    OK(RT(cudaStreamBeginCapture, s, 0));
    OK(launch(short_kernel, NULL)); // a non-blocking stream is independent of it
    OK(RT(cudaStreamIsCapturing, s, &status));
    EXPECT(status == 1);
    double start = now_ms();
    OK(launch(short_kernel, s));
    OK(RT(cudaEventRecord, fork, s));
    OK(RT(cudaStreamWaitEvent, side, fork, 0u));
    OK(launch(long_kernel, side));
    OK(launch(long_kernel, s));
    EXPECT(RT(cudaStreamSynchronize, s) == 900);
    OK(RT(cudaEventRecord, join, side));
    OK(RT(cudaStreamWaitEvent, s, join, 0u));
    OK(launch(short_kernel, s));
    OK(RT(cudaStreamEndCapture, s, &graph));
    size_t count = 16, edges = 0;
    OK(RT(cudaGraphGetNodes, graph, nodes, &count));
    EXPECT(count == 4);
    OK(DRV(cuGraphGetEdges, graph, (void *)NULL, (void *)NULL, &edges));
    EXPECT(edges == 4);
    OK(RT(cudaGraphInstantiate, &exec, graph, 0ull));
    OK(RT(cudaGraphDestroy, graph));
    EXPECT(now_ms() - start < LONG_MS); // nothing of it ran
    start = now_ms();
    OK(RT(cudaGraphLaunch, exec, s));
    OK(RT(cudaStreamSynchronize, s));
    double taken = now_ms() - start;
    EXPECT(taken >= LONG_MS + 2 * SHORT_MS && taken < 2 * LONG_MS); // both branches at once
    OK(RT(cudaGraphExecDestroy, exec));
}
static void check_capture_must_be_joined(void) {
    void *s = new_stream(NON_BLOCKING), *side = new_stream(NON_BLOCKING), *fork = new_event(), *graph = NULL;
    OK(RT(cudaStreamBeginCapture, s, 0));
    OK(launch(short_kernel, s));
    OK(RT(cudaEventRecord, fork, s));
    OK(RT(cudaStreamWaitEvent, side, fork, 0u));
    OK(launch(short_kernel, side));
    EXPECT(RT(cudaStreamEndCapture, s, &graph) == 904);
    EXPECT(graph == NULL);
    OK(launch(short_kernel, side)); // both streams work again
    OK(RT(cudaStreamSynchronize, s));
}
static void *captured(void *s, int kernels) {
    void *graph = NULL;
    OK(RT(cudaStreamBeginCapture, s, 2));
    for (int i = 0; i < kernels; i++)
        OK(launch(i ? long_kernel : short_kernel, s));
    OK(RT(cudaStreamEndCapture, s, &graph));
    return graph;
}
static void check_graph_update(void) {
    void *s = new_stream(NON_BLOCKING), *exec = NULL, *nodes[4];
    void *one = captured(s, 2), *same = captured(s, 2), *other = captured(s, 3);
    struct {
        int result;
        void *node, *from;
    } info;
    OK(RT(cudaGraphInstantiate, &exec, one, 0ull));
    OK(RT(cudaGraphExecUpdate, exec, same, &info));
    EXPECT(info.result == 0);
    EXPECT(RT(cudaGraphExecUpdate, exec, other, &info) == 910);
    EXPECT(info.result == 2);
    OK(RT(cudaGraphLaunch, exec, s));
    size_t count = 4;
    OK(RT(cudaGraphGetNodes, one, nodes, &count));
    OK(RT(cudaGraphNodeSetEnabled, exec, nodes[1], 0u)); // while the first launch is in flight
    double start = now_ms();
    OK(RT(cudaStreamSynchronize, s));
    EXPECT(now_ms() - start > LONG_MS / 2);
    start = now_ms();
    OK(RT(cudaGraphLaunch, exec, s));
    OK(RT(cudaStreamSynchronize, s));
    EXPECT(now_ms() - start < LONG_MS); // the long node is disabled now
}
static void check_graph_copies_move_bytes(void) {
    enum { N = 4096 };
    void *s = new_stream(NON_BLOCKING), *graph = NULL, *exec = NULL;
    char *d = device_bytes(N), *pinned = pinned_bytes(N), *back = pinned_bytes(N);
    OK(RT(cudaStreamBeginCapture, s, 0));
    OK(RT(cudaMemcpyAsync, d, pinned, (size_t)N, 1, s));
    OK(launch(short_kernel, s));
    OK(RT(cudaMemcpyAsync, back, d, (size_t)N, 2, s));
    OK(RT(cudaStreamEndCapture, s, &graph));
    OK(RT(cudaGraphInstantiate, &exec, graph, 0ull));
    for (int turn = 1; turn < 4; turn++) {
        memset(pinned, turn, N);
        OK(RT(cudaGraphLaunch, exec, s));
        OK(RT(cudaStreamSynchronize, s));
        EXPECT(back[0] == turn && back[N - 1] == turn);
    }
}
static void check_memory_queries(void) {
    size_t before = 0, after = 0, total = 0;
    OK(RT(cudaMemGetInfo, &before, &total));
    char *d = device_bytes(1 << 20), *pinned = pinned_bytes(4096), *huge = NULL, stack[8];
    OK(RT(cudaMemGetInfo, &after, &total));
    EXPECT(before - after == 1 << 20);
    struct {
        int type, device;
        void *on_device, *on_host;
        long rest[8];
    } a;
    OK(RT(cudaPointerGetAttributes, &a, d + 100));
    EXPECT(a.type == 2 && a.device == 0 && a.on_device == d + 100);
    OK(RT(cudaPointerGetAttributes, &a, pinned));
    EXPECT(a.type == 1);
    OK(RT(cudaPointerGetAttributes, &a, stack));
    EXPECT(a.type == 0);
    EXPECT(RT(cudaMalloc, &huge, total + 1) == 2);
    EXPECT(RT(cudaGetLastError) == 2);
    EXPECT(RT(cudaGetLastError) == 0);
    OK(RT(cudaFree, d));
    OK(RT(cudaMemGetInfo, &after, &total));
    EXPECT(after == before);
    EXPECT(RT(cudaFree, d) != 0);
}
static void check_virtual_memory(void) {
    enum { SIZE = 2 << 20 };
    int prop[8] = {1, 0, 1, 0};
    char *at = NULL, *second = NULL;
    void *physical = NULL;
    OK(RT(cudaSetDevice, 0));
    OK(RT(cudaFree, (void *)NULL));
    OK(DRV(cuMemAddressReserve, &at, (size_t)2 * SIZE, (size_t)0, (void *)NULL, 0ull));
    OK(DRV(cuMemAddressReserve, &second, (size_t)SIZE, (size_t)0, (void *)NULL, 0ull));
    OK(DRV(cuMemCreate, &physical, (size_t)SIZE, prop, 0ull));
    OK(DRV(cuMemMap, at + SIZE, (size_t)SIZE, (size_t)0, physical, 0ull));
    OK(DRV(cuMemMap, second, (size_t)SIZE, (size_t)0, physical, 0ull));
    OK(DRV(cuMemSetAccess, at + SIZE, (size_t)SIZE, prop, (size_t)1));
    OK(DRV(cuMemRelease, physical));
    OK(RT(cudaMemset, at + SIZE, 9, (size_t)SIZE));
    OK(RT(cudaDeviceSynchronize));
    EXPECT(second[SIZE - 1] == 9); // one memory at two addresses
    OK(DRV(cuMemUnmap, at + SIZE, (size_t)SIZE));
    OK(DRV(cuMemUnmap, second, (size_t)SIZE));
    OK(DRV(cuMemAddressFree, at, (size_t)2 * SIZE));
}
static void check_entry_points_are_the_exports(void) {
    const struct {
        const char *name, *symbol;
        int version;
        uint64_t flags;
    } wanted[] = {{"cuMemAlloc", "cuMemAlloc_v2", 12000, 0}, {"cuLaunchKernel", "cuLaunchKernel", 12000, 0},
                  {"cuLaunchKernel", "cuLaunchKernel_ptsz", 12000, 2}, {"cuCtxCreate", "cuCtxCreate_v2", 11000, 0},
                  {"cuMemcpyHtoDAsync", "cuMemcpyHtoDAsync_v2", 13000, 1}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *found = NULL;
        int status = 9;
        OK(DRV(cuGetProcAddress_v2, wanted[i].name, &found, wanted[i].version, wanted[i].flags, &status));
        EXPECT(status == 0 && found == (void *)find(driver, wanted[i].symbol));
    }
    void *found = NULL;
    int status = 9;
    DRV(cuGetProcAddress_v2, "cuNoSuchFunction", &found, 13000, 0ull, &status);
    EXPECT(status == 1 && !found);
    OK(RT(cudaGetDriverEntryPointByVersion, "cuLaunchKernelEx", &found, 12000u, 0ull, &status));
    EXPECT(found == (void *)find(driver, "cuLaunchKernelEx"));
}
static void check_unsupported_says_so(void) {
    EXPECT(RT(cudaGraphicsUnregisterResource, (void *)NULL) == 801);
    EXPECT(DRV(cuTexRefCreate, (void *)NULL) == 801);
}
static void check_registered_names_reach_the_driver(void) {
    void *handle = NULL;
    const char *name = NULL;
    static char stub_a, stub_b;
    find(runtime, "__cudaRegisterFunction")((void *)NULL, &stub_a, "x", "_Z8device_av", -1, NULL, NULL, NULL, NULL, NULL);
    find(runtime, "__cudaRegisterFunction")((void *)NULL, &stub_b, "x", "_Z8device_bv", -1, NULL, NULL, NULL, NULL, NULL);
    OK(RT(__cudaGetKernel, &handle, &stub_b));
    EXPECT(handle != &stub_b);
    launch_fn fn = (launch_fn)find(runtime, "__cudaLaunchKernel");
    struct dim3 one = {1, 1, 1};
    OK(fn(&stub_a, one, one, NULL, 0, NULL));
    OK(fn(handle, one, one, NULL, 0, NULL));
    OK(RT(cudaFuncGetName, &name, &stub_a));
    EXPECT(strcmp(name, "_Z8device_av") == 0);
    OK(RT(cudaDeviceSynchronize));
}

static void check_blas_launches_on_its_stream(void) {
    void *handle = NULL, *s = new_stream(NON_BLOCKING), *blas = dlopen("libcublas.so.13", RTLD_NOW);
    if (!blas)
        blas = dlopen("libcublas.so.12", RTLD_NOW);
    EXPECT(blas);
    OK(find(blas, "cublasCreate_v2")(&handle));
    OK(find(blas, "cublasSetStream_v2")(handle, s));
    OK(find(blas, "cublasGemmEx")(handle));
    OK(find(blas, "cublasSgemm_v2")(handle));
    OK(RT(cudaStreamSynchronize, s));
    OK(find(blas, "cublasDestroy_v2")(handle));
}
static void check_two_devices_are_apart(void) {
    int count = 0, device = -1;
    OK(RT(cudaGetDeviceCount, &count));
    EXPECT(count == 2);
    size_t before = 0, after = 0, total = 0;
    OK(RT(cudaMemGetInfo, &before, &total));
    OK(RT(cudaSetDevice, 1));
    OK(RT(cudaGetDevice, &device));
    EXPECT(device == 1);
    device_bytes(1 << 20);
    OK(RT(cudaMemGetInfo, &after, &total));
    EXPECT(total - after == 1 << 20);
    OK(RT(cudaSetDevice, 0));
    OK(RT(cudaMemGetInfo, &after, &total));
    EXPECT(after == before);
    EXPECT(RT(cudaSetDevice, 2) == 101);
}

static const struct {
    const char *name;
    void (*run)(void);
} checks[] = {
#define CHECK(name) {#name, check_##name}
    CHECK(launch_is_asynchronous), CHECK(streams_overlap), CHECK(one_stream_is_ordered), CHECK(event_orders_streams),
    CHECK(legacy_stream_orders_blocking_streams), CHECK(queue_is_bounded), CHECK(copies_move_bytes),
    CHECK(pageable_source_may_change_after_the_call), CHECK(host_function_runs_in_order_on_another_thread),
    CHECK(capture_forks_and_joins), CHECK(capture_must_be_joined), CHECK(graph_update),
    CHECK(graph_copies_move_bytes), CHECK(memory_queries), CHECK(virtual_memory),
    CHECK(entry_points_are_the_exports), CHECK(unsupported_says_so), CHECK(registered_names_reach_the_driver),
    CHECK(blas_launches_on_its_stream), CHECK(two_devices_are_apart),
    CHECK(arrays_hold_what_is_copied), CHECK(batches_move_bytes), CHECK(peers_move_bytes),
    CHECK(variables_move_bytes), CHECK(nodes_change),
};

int main(int argc, char **argv) {
    runtime = dlopen("libcudart.so.13", RTLD_NOW);
    if (!runtime)
        runtime = dlopen("libcudart.so.12", RTLD_NOW);
    driver = dlopen("libcuda.so.1", RTLD_NOW);
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        if (argc < 2) {
            puts(checks[i].name);
        } else if (strcmp(argv[1], checks[i].name) == 0) {
            EXPECT(runtime && driver);
            checks[i].run();
            puts("ok");
            return 0;
        }
    }
    return argc < 2 ? 0 : 2;
}
