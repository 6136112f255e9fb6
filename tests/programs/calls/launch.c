// Every way to launch a kernel or a host function. In: a thread's state. Out: launches on its stream. Absent: graphs.
#define GROUP "launch"
#include "calls.h"

static const struct dim3 grid = {7, 2, 3}, block = {8, 4, 5};
#define KERNEL (void *)calls_kernel
#define OTHER (void *)calls_other_kernel
#define NO_PARAMS (void **)NULL
enum { SHARED = 96 };

#define BY_STUB(name) launched(RT(name, KERNEL, grid, block, NO_PARAMS, (size_t)SHARED, s->stream), 1)
PAIR(cudaLaunchKernel, _ptsz, BY_STUB, NULL)
PAIR(cudaLaunchCooperativeKernel, _ptsz, BY_STUB, NULL)
// What nvcc 13 emits. It passes through cudaLaunchKernel, and is one launch.
#define BY_HANDLE(name)                                                                                        \
    launched(RT(name, s->kernel ? s->kernel : OTHER, grid, block, NO_PARAMS, (size_t)SHARED, s->stream), 1)
PAIR(__cudaLaunchKernel, _ptsz, BY_HANDLE, NULL)
#define BY_CONFIG(name)                                                                                        \
    struct launch_config c = {grid, block, SHARED, s->stream, NULL, 0};                                        \
    launched(RT(name, &c, OTHER, NO_PARAMS), 1)
PAIR(cudaLaunchKernelExC, _ptsz, BY_CONFIG, NULL)
// One launch for each entry of the list, each on another device; here one.
CALL(cudaLaunchCooperativeKernelMultiDevice) {
    struct multi_launch list[] = {{KERNEL, grid, block, NULL, SHARED, s->stream}};
    launched(RT(cudaLaunchCooperativeKernelMultiDevice, list, 1u, 0u), 1);
}

#define BY_NUMBERS(name)                                                                                       \
    launched(DRV(name, s->function, 7u, 2u, 3u, 8u, 4u, 5u, (unsigned)SHARED, s->stream, NO_PARAMS, NO_PARAMS), 1)
PAIR(cuLaunchKernel, _ptsz, BY_NUMBERS, NULL)
#define COOPERATIVE(name)                                                                                      \
    launched(DRV(name, s->function, 7u, 2u, 3u, 8u, 4u, 5u, (unsigned)SHARED, s->stream, NO_PARAMS), 1)
PAIR(cuLaunchCooperativeKernel, _ptsz, COOPERATIVE, NULL)
#define BY_DRIVER_CONFIG(name)                                                                                 \
    struct driver_launch_config c = {{7, 2, 3}, {8, 4, 5}, SHARED, s->stream, NULL, 0};                        \
    launched(DRV(name, &c, s->function, NO_PARAMS, NO_PARAMS), 1)
PAIR(cuLaunchKernelEx, _ptsz, BY_DRIVER_CONFIG, NULL)
CALL(cuLaunchCooperativeKernelMultiDevice) {
    struct driver_multi_launch list[] = {{s->function, grid, block, SHARED, s->stream, NULL}};
    launched(DRV(cuLaunchCooperativeKernelMultiDevice, list, 1u, 0u), 1);
}
// The calls of before CUDA 4: the block's shape is state of the function.
static void shape(struct state *s) { DRV(cuFuncSetBlockShape, s->other_function, 8, 4, 1); }
CALL_AS(cuLaunch, "cuLaunch", need_function) {
    shape(s);
    launched(DRV(cuLaunch, s->other_function), 1);
}
CALL_AS(cuLaunchGrid, "cuLaunchGrid", need_function) {
    shape(s);
    launched(DRV(cuLaunchGrid, s->other_function, 7, 2), 1);
}
CALL_AS(cuLaunchGridAsync, "cuLaunchGridAsync", need_function) {
    shape(s);
    launched(DRV(cuLaunchGridAsync, s->other_function, 7, 2, s->stream), 1);
}
// On the second device, where there is one.
CALL_AS(peer_launch, "cudaLaunchKernel:peer", need_peer) {
    RT(cudaSetDevice, s->peer_device);
    launched(RT(cudaLaunchKernel, KERNEL, grid, block, NO_PARAMS, (size_t)SHARED, (void *)NULL), 1);
    RT(cudaSetDevice, 0);
}

#define HOST(name) host_function(RT(name, s->stream, do_nothing, (void *)NULL))
PAIR(cudaLaunchHostFunc, _ptsz, HOST, NULL)
#define HOST_V2(name) host_function(RT(name, s->stream, do_nothing, (void *)NULL, 0u))
PAIR(cudaLaunchHostFunc_v2, _ptsz, HOST_V2, NULL)
#define DRIVER_HOST(name) host_function(DRV(name, s->stream, do_nothing, (void *)NULL))
PAIR(cuLaunchHostFunc, _ptsz, DRIVER_HOST, NULL)
#define DRIVER_HOST_V2(name) host_function(DRV(name, s->stream, do_nothing, (void *)NULL, 0u))
PAIR(cuLaunchHostFunc_v2, _ptsz, DRIVER_HOST_V2, NULL)
static void call_back(void *stream, int result, void *unused) { (void)stream, (void)result, (void)unused; }
#define CALLBACK(name) host_function(RT(name, s->stream, call_back, (void *)NULL, 0u))
PAIR(cudaStreamAddCallback, _ptsz, CALLBACK, NULL)
#define DRIVER_CALLBACK(name) host_function(DRV(name, s->stream, call_back, (void *)NULL, 0u))
PAIR(cuStreamAddCallback, _ptsz, DRIVER_CALLBACK, NULL)

#undef GROUP
#define GROUP "failing"
// 2048 threads a block are more than any device runs.
CALL_AS(bad_launch, "cudaLaunchKernel:too-many-threads", NULL) {
    launched(RT(cudaLaunchKernel, KERNEL, grid, (struct dim3){2048, 1, 1}, NO_PARAMS, (size_t)0, s->stream), 1);
}
CALL_AS(bad_driver_launch, "cuLaunchKernel:too-many-threads", NULL) {
    launched(DRV(cuLaunchKernel, s->function, 1u, 1u, 1u, 2048u, 1u, 1u, 0u, s->stream, NO_PARAMS, NO_PARAMS), 1);
}
