// Every allocation and its free. In: a thread's state. Out: memory that is handed out and given back. Absent: memory
// nodes of graphs.
#define GROUP "memory"
#include "calls.h"

// Allocates by `get`, whose result is in `made`, and gives back by `give`.
#define CYCLE(of, bytes, get, give)                                                                            \
    char *made = NULL;                                                                                         \
    allocated(get, of, bytes);                                                                                 \
    freed(give, of, bytes)

CALL(cudaMalloc) { CYCLE(DEVICE_0, BYTES, RT(cudaMalloc, &made, (size_t)BYTES), RT(cudaFree, made)); }
#define FROM_STREAM(name, give)                                                                                \
    CYCLE(DEVICE_0, BYTES, RT(name, &made, (size_t)BYTES, s->stream), RT(give, made, s->stream))
CALL(cudaMallocAsync) { FROM_STREAM(cudaMallocAsync, cudaFreeAsync); }
CALL(cudaMallocAsync_ptsz) { FROM_STREAM(cudaMallocAsync_ptsz, cudaFreeAsync_ptsz); }
#define FROM_POOL(name, give)                                                                                  \
    CYCLE(DEVICE_0, 601, RT(name, &made, (size_t)601, s->pool, s->stream), RT(give, made, s->stream))
CALL_AS(cudaMallocFromPoolAsync, "cudaMallocFromPoolAsync", need_pool) { FROM_POOL(cudaMallocFromPoolAsync, cudaFreeAsync); }
CALL_AS(cudaMallocFromPoolAsync_ptsz, "cudaMallocFromPoolAsync_ptsz", need_pool) {
    FROM_POOL(cudaMallocFromPoolAsync_ptsz, cudaFreeAsync_ptsz);
}
CALL(cudaMallocManaged) { CYCLE(MANAGED, 607, RT(cudaMallocManaged, &made, (size_t)607, 1u), RT(cudaFree, made)); }
// The pitch is the library's choice: what is handed out is known only then.
CALL(cudaMallocPitch) {
    void *made = NULL;
    size_t pitch = 0;
    int result = RT(cudaMallocPitch, &made, &pitch, (size_t)1000, (size_t)3);
    allocated(result, DEVICE_0, pitch * 3);
    freed(RT(cudaFree, made), DEVICE_0, pitch * 3);
}
CALL(cudaMalloc3D) {
    struct pitched made = {0};
    int result = RT(cudaMalloc3D, &made, (struct extent){100, 4, 2});
    allocated(result, DEVICE_0, made.pitch * 8);
    freed(RT(cudaFree, made.pointer), DEVICE_0, made.pitch * 8);
}
CALL(cudaMallocHost) { CYCLE(PINNED, 613, RT(cudaMallocHost, &made, (size_t)613), RT(cudaFreeHost, made)); }
CALL(cudaHostAlloc) { CYCLE(PINNED, BYTES, RT(cudaHostAlloc, &made, (size_t)BYTES, 0u), RT(cudaFreeHost, made)); }
CALL_AS(cudaHostRegister, "cudaHostRegister", need_registered) {
    allocated(RT(cudaHostRegister, s->registered, (size_t)BYTES, 0u), REGISTERED, BYTES);
    freed(RT(cudaHostUnregister, s->registered), REGISTERED, BYTES);
}
static const struct channels bytes = {8, 0, 0, 0, 1};
CALL(cudaMallocArray) {
    CYCLE(ARRAYS, 32 * 16, RT(cudaMallocArray, &made, &bytes, (size_t)32, (size_t)16, 0u), RT(cudaFreeArray, made));
}
CALL(cudaMalloc3DArray) {
    CYCLE(ARRAYS, 32 * 16 * 2, RT(cudaMalloc3DArray, &made, &bytes, (struct extent){32, 16, 2}, 0u),
          RT(cudaFreeArray, made));
}
// On the second device, where there is one.
CALL_AS(peer_malloc, "cudaMalloc:peer", need_peer) {
    RT(cudaSetDevice, s->peer_device);
    CYCLE(DEVICE_0 + s->peer_device, 617, RT(cudaMalloc, &made, (size_t)617), RT(cudaFree, made));
    RT(cudaSetDevice, 0);
}
CALL_AS(peer_malloc_async, "cudaMallocAsync:peer", need_peer) {
    RT(cudaSetDevice, s->peer_device);
    CYCLE(DEVICE_0 + s->peer_device, 619, RT(cudaMallocAsync, &made, (size_t)619, (void *)NULL),
          RT(cudaFreeAsync, made, (void *)NULL));
    RT(cudaStreamSynchronize, (void *)NULL);
    RT(cudaSetDevice, 0);
}
// Several live at once, given back in another order.
enum { LARGE = 64 << 20 };
CALL_AS(large, "cudaMalloc:large", NULL) {
    CYCLE(DEVICE_0, LARGE, RT(cudaMalloc, &made, (size_t)LARGE), RT(cudaFree, made));
}
CALL_AS(several, "cudaMalloc:several", NULL) {
    char *made[3] = {0};
    for (int i = 0; i < 3; i++)
        allocated(RT(cudaMalloc, &made[i], (size_t)(1000 + i)), DEVICE_0, 1000 + (size_t)i);
    for (int i = 0; i < 3; i++)
        freed(RT(cudaFree, made[(i + 1) % 3]), DEVICE_0, 1000 + (size_t)((i + 1) % 3));
}
// Memory of the asynchronous form may be given back by the other, and the reverse.
CALL_AS(crossed, "cudaMallocAsync:freed-by-cudaFree", NULL) {
    CYCLE(DEVICE_0, 631, RT(cudaMallocAsync, &made, (size_t)631, s->stream), RT(cudaFree, made));
}

// Calls that hand nothing out and give nothing back.
CALL_AS(zero, "cudaMalloc:nothing", NULL) {
    void *made = NULL;
    RT(cudaMalloc, &made, (size_t)0);
}
CALL_AS(free_null, "cudaFree:null", NULL) { RT(cudaFree, (void *)NULL); }
CALL_AS(free_host_null, "cudaFreeHost:null", NULL) { RT(cudaFreeHost, (void *)NULL); }
CALL_AS(driver_free_null, "cuMemFree_v2:null", NULL) { DRV(cuMemFree_v2, (void *)NULL); }
// Memory from before the wait, so that a profiler attached since has not seen it handed out.
static void *next_before(struct state *s) { return s->before ? s->before[s->freed_before++] : NULL; }
CALL_AS(free_before, "cudaFree:before", need_before) { freed_unknown(RT(cudaFree, next_before(s)), DEVICE_0); }

CALL(cuMemAlloc_v2) { CYCLE(DEVICE_0, BYTES, DRV(cuMemAlloc_v2, &made, (size_t)BYTES), DRV(cuMemFree_v2, made)); }
#define DRIVER_FROM_STREAM(name, give)                                                                         \
    CYCLE(DEVICE_0, 641, DRV(name, &made, (size_t)641, s->stream), DRV(give, made, s->stream))
CALL(cuMemAllocAsync) { DRIVER_FROM_STREAM(cuMemAllocAsync, cuMemFreeAsync); }
CALL(cuMemAllocAsync_ptsz) { DRIVER_FROM_STREAM(cuMemAllocAsync_ptsz, cuMemFreeAsync_ptsz); }
#define DRIVER_FROM_POOL(name, give)                                                                           \
    CYCLE(DEVICE_0, 643, DRV(name, &made, (size_t)643, s->pool, s->stream), DRV(give, made, s->stream))
CALL_AS(cuMemAllocFromPoolAsync, "cuMemAllocFromPoolAsync", need_pool) {
    DRIVER_FROM_POOL(cuMemAllocFromPoolAsync, cuMemFreeAsync);
}
CALL_AS(cuMemAllocFromPoolAsync_ptsz, "cuMemAllocFromPoolAsync_ptsz", need_pool) {
    DRIVER_FROM_POOL(cuMemAllocFromPoolAsync_ptsz, cuMemFreeAsync_ptsz);
}
CALL(cuMemAllocManaged) { CYCLE(MANAGED, 647, DRV(cuMemAllocManaged, &made, (size_t)647, 1u), DRV(cuMemFree_v2, made)); }
CALL(cuMemAllocPitch_v2) {
    void *made = NULL;
    size_t pitch = 0;
    int result = DRV(cuMemAllocPitch_v2, &made, &pitch, (size_t)700, (size_t)2, 4u);
    allocated(result, DEVICE_0, pitch * 2);
    freed(DRV(cuMemFree_v2, made), DEVICE_0, pitch * 2);
}
CALL(cuMemAllocHost_v2) { CYCLE(PINNED, 653, DRV(cuMemAllocHost_v2, &made, (size_t)653), DRV(cuMemFreeHost, made)); }
CALL(cuMemHostAlloc) { CYCLE(PINNED, 659, DRV(cuMemHostAlloc, &made, (size_t)659, 0u), DRV(cuMemFreeHost, made)); }
CALL_AS(cuMemHostRegister_v2, "cuMemHostRegister_v2", need_registered) {
    allocated(DRV(cuMemHostRegister_v2, s->registered, (size_t)BYTES, 0u), REGISTERED, BYTES);
    freed(DRV(cuMemHostUnregister, s->registered), REGISTERED, BYTES);
}
CALL(cuArrayCreate_v2) {
    struct array_descriptor descriptor = {32, 8, 1, 1};
    CYCLE(ARRAYS, 32 * 8, DRV(cuArrayCreate_v2, &made, &descriptor), DRV(cuArrayDestroy, made));
}

// Virtual memory, as expandable segments use it: addresses of 4 MiB, memory for half of them.
enum { HALF = 2 << 20, WHOLE = 2 * HALF };
CALL(cuMemCreate) {
    struct allocation_properties properties = {1, 0, {1, 0}, {NULL, NULL}};
    struct access access = {{1, 0}, 3};
    char *address = NULL;
    void *handle = NULL;
    allocated(DRV(cuMemAddressReserve, &address, (size_t)WHOLE, (size_t)0, (void *)NULL, 0ull), RESERVED, WHOLE);
    allocated(DRV(cuMemCreate, &handle, (size_t)HALF, &properties, 0ull), DEVICE_0, HALF);
    DRV(cuMemMap, address, (size_t)HALF, (size_t)0, handle, 0ull);
    DRV(cuMemSetAccess, address, (size_t)HALF, &access, (size_t)1);
    was_set(DRV(cuMemsetD8Async, address, 1u, (size_t)661, s->stream), 661);
    DRV(cuMemUnmap, address, (size_t)HALF);
    freed(DRV(cuMemRelease, handle), DEVICE_0, HALF);
    freed(DRV(cuMemAddressFree, address, (size_t)WHOLE), RESERVED, WHOLE);
}
// The handle given back while its memory is mapped: the memory lives until it is unmapped.
CALL_AS(released_while_mapped, "cuMemRelease:while-mapped", NULL) {
    struct allocation_properties properties = {1, 0, {1, 0}, {NULL, NULL}};
    char *address = NULL;
    void *handle = NULL;
    allocated(DRV(cuMemAddressReserve, &address, (size_t)HALF, (size_t)0, (void *)NULL, 0ull), RESERVED, HALF);
    allocated(DRV(cuMemCreate, &handle, (size_t)HALF, &properties, 0ull), DEVICE_0, HALF);
    DRV(cuMemMap, address, (size_t)HALF, (size_t)0, handle, 0ull);
    DRV(cuMemRelease, handle);
    freed(DRV(cuMemUnmap, address, (size_t)HALF), DEVICE_0, HALF);
    freed(DRV(cuMemAddressFree, address, (size_t)HALF), RESERVED, HALF);
}

#undef GROUP
#define GROUP "failing"
enum { PEBIBYTE_LOG = 50 };
#define TOO_MUCH ((size_t)1 << PEBIBYTE_LOG)
CALL_AS(too_much, "cudaMalloc:too-much", NULL) {
    void *made = NULL;
    RT(cudaMalloc, &made, TOO_MUCH);
}
CALL_AS(too_much_async, "cudaMallocAsync:too-much", NULL) {
    void *made = NULL;
    RT(cudaMallocAsync, &made, TOO_MUCH, s->stream);
}
CALL_AS(driver_too_much, "cuMemAlloc_v2:too-much", NULL) {
    void *made = NULL;
    DRV(cuMemAlloc_v2, &made, TOO_MUCH);
}
