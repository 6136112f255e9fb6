// Every copy of the runtime. In: a thread's state. Out: copies of sizes that tell them apart. Absent: graphs.
#define GROUP "copy"
#include "calls.h"

enum { HOST_HOST, HOST_DEVICE, DEVICE_HOST, DEVICE_DEVICE, BY_ADDRESS };

// One dimension. Pageable memory where the old name says so; page-locked memory elsewhere.
#define COPY(name, dst, src, bytes, kind, direction) copied(RT(name, dst, src, (size_t)(bytes), kind), direction, bytes)
#define COPY_ON(name, dst, src, bytes, kind, direction)                                                        \
    copied(RT(name, dst, src, (size_t)(bytes), kind, s->stream), direction, bytes)
CALL(cudaMemcpy) { COPY(cudaMemcpy, s->device, s->pageable, BYTES, HOST_DEVICE, H_TO_D); }
CALL_AS(pinned, "cudaMemcpyHostToDevice", NULL) { COPY(cudaMemcpy, s->device, s->pinned, BYTES, HOST_DEVICE, H_TO_D); }
CALL_AS(sync_dtoh, "cudaMemcpy:DtoH", NULL) { COPY(cudaMemcpy, s->pageable, s->device, 101, DEVICE_HOST, D_TO_H); }
CALL_AS(sync_dtod, "cudaMemcpy:DtoD", NULL) { COPY(cudaMemcpy, s->device2, s->device, 103, DEVICE_DEVICE, D_TO_D); }
CALL_AS(sync_htoh, "cudaMemcpy:HtoH", NULL) { COPY(cudaMemcpy, s->pinned, s->pageable, 107, HOST_HOST, H_TO_H); }
CALL_AS(sync_default, "cudaMemcpy:default", NULL) { COPY(cudaMemcpy, s->pinned, s->device, 109, BY_ADDRESS, D_TO_H); }
CALL(cudaMemcpy_ptds) { COPY(cudaMemcpy_ptds, s->device, s->pinned, 113, HOST_DEVICE, H_TO_D); }
CALL(cudaMemcpyAsync) { COPY_ON(cudaMemcpyAsync, s->device, s->pinned, BYTES, HOST_DEVICE, H_TO_D); }
CALL(cudaMemcpyAsyncDtoH) { COPY_ON(cudaMemcpyAsync, s->pinned, s->device, BYTES, DEVICE_HOST, D_TO_H); }
CALL(cudaMemcpyAsyncDtoD) { COPY_ON(cudaMemcpyAsync, s->device2, s->device, BYTES, DEVICE_DEVICE, D_TO_D); }
CALL(cudaMemcpyAsync_ptsz) { COPY_ON(cudaMemcpyAsync_ptsz, s->device, s->pinned, BYTES, HOST_DEVICE, H_TO_D); }
CALL_AS(htoh, "cudaMemcpyAsync:HtoH", NULL) { COPY_ON(cudaMemcpyAsync, s->pinned, s->pageable, 127, HOST_HOST, H_TO_H); }
CALL_AS(pageable, "cudaMemcpyAsync:pageable", NULL) { COPY_ON(cudaMemcpyAsync, s->device, s->pageable, 131, HOST_DEVICE, H_TO_D); }
CALL_AS(default_htod, "cudaMemcpyAsync:default-HtoD", NULL) { COPY_ON(cudaMemcpyAsync, s->device, s->pageable, 137, BY_ADDRESS, H_TO_D); }
CALL_AS(default_dtod, "cudaMemcpyAsync:default-DtoD", NULL) { COPY_ON(cudaMemcpyAsync, s->device2, s->device, 139, BY_ADDRESS, D_TO_D); }
// A copy of nothing is a call, and no copy.
CALL_AS(nothing, "cudaMemcpyAsync:nothing", NULL) { RT(cudaMemcpyAsync, s->device, s->pinned, (size_t)0, HOST_DEVICE, s->stream); }

// Two and three dimensions.
enum { PITCH = 64, WIDTH = 40, HEIGHT = 7, DEPTH = 3, AREA = WIDTH * HEIGHT, VOLUME = AREA * DEPTH };
#define SIZE_2D (size_t)WIDTH, (size_t)HEIGHT
#define COPY_2D(name)                                                                                          \
    copied(RT(name, s->device, (size_t)PITCH, s->pinned, (size_t)WIDTH, SIZE_2D, HOST_DEVICE), H_TO_D, AREA)
#define COPY_2D_ON(name)                                                                                       \
    copied(RT(name, s->pinned, (size_t)WIDTH, s->device, (size_t)PITCH, SIZE_2D, DEVICE_HOST, s->stream), D_TO_H, AREA)
PAIR(cudaMemcpy2D, _ptds, COPY_2D, NULL)
PAIR(cudaMemcpy2DAsync, _ptsz, COPY_2D_ON, NULL)

static struct pitched box(void *at) { return (struct pitched){at, PITCH, WIDTH, HEIGHT}; }
static struct copy_3d copy_3d(void *dst, void *src, int kind) {
    return (struct copy_3d){.dst = box(dst), .src = box(src), .extent = {WIDTH, HEIGHT, DEPTH}, .kind = kind};
}
#define COPY_3D(name)                                                                                          \
    struct copy_3d c = copy_3d(s->device, s->pinned, HOST_DEVICE);                                             \
    copied(RT(name, &c), H_TO_D, VOLUME)
#define COPY_3D_ON(name)                                                                                       \
    struct copy_3d c = copy_3d(s->device2, s->device, DEVICE_DEVICE);                                          \
    copied(RT(name, &c, s->stream), D_TO_D, VOLUME)
PAIR(cudaMemcpy3D, _ptds, COPY_3D, NULL)
PAIR(cudaMemcpy3DAsync, _ptsz, COPY_3D_ON, NULL)

// Between devices.
CALL_AS(cudaMemcpyPeer, "cudaMemcpyPeer", need_peer) {
    copied(RT(cudaMemcpyPeer, s->peer, s->peer_device, s->device, 0, (size_t)149), D_TO_D, 149);
}
CALL_AS(cudaMemcpyPeerAsync, "cudaMemcpyPeerAsync", need_peer) {
    copied(RT(cudaMemcpyPeerAsync, s->device, 0, s->peer, s->peer_device, (size_t)151, s->stream), D_TO_D, 151);
}
static struct peer_3d peer_3d(struct state *s) {
    return (struct peer_3d){.dst = box(s->peer), .dst_device = s->peer_device, .src = box(s->device),
                            .extent = {WIDTH, HEIGHT, DEPTH}};
}
#define PEER_3D(name)                                                                                          \
    struct peer_3d c = peer_3d(s);                                                                             \
    copied(RT(name, &c), D_TO_D, VOLUME)
#define PEER_3D_ON(name)                                                                                       \
    struct peer_3d c = peer_3d(s);                                                                             \
    copied(RT(name, &c, s->stream), D_TO_D, VOLUME)
PAIR(cudaMemcpy3DPeer, _ptds, PEER_3D, need_peer)
PAIR(cudaMemcpy3DPeerAsync, _ptsz, PEER_3D_ON, need_peer)

// To and from a device variable: 16 bytes into it.
#define TO_SYMBOL(name)                                                                                        \
    copied(RT(name, calls_variable, s->pageable, (size_t)157, (size_t)16, HOST_DEVICE), H_TO_D, 157)
#define FROM_SYMBOL(name)                                                                                      \
    copied(RT(name, s->pageable, calls_variable, (size_t)163, (size_t)16, DEVICE_HOST), D_TO_H, 163)
#define TO_SYMBOL_ON(name)                                                                                     \
    copied(RT(name, calls_variable, s->pinned, (size_t)167, (size_t)16, HOST_DEVICE, s->stream), H_TO_D, 167)
#define FROM_SYMBOL_ON(name)                                                                                   \
    copied(RT(name, s->device, calls_variable, (size_t)173, (size_t)16, DEVICE_DEVICE, s->stream), D_TO_D, 173)
PAIR(cudaMemcpyToSymbol, _ptds, TO_SYMBOL, need_variable)
PAIR(cudaMemcpyFromSymbol, _ptds, FROM_SYMBOL, need_variable)
PAIR(cudaMemcpyToSymbolAsync, _ptsz, TO_SYMBOL_ON, need_variable)
PAIR(cudaMemcpyFromSymbolAsync, _ptsz, FROM_SYMBOL_ON, need_variable)

// To and from arrays; offsets are zero.
#define ORIGIN (size_t)0, (size_t)0
#define TO_ARRAY(name) copied(RT(name, s->array, ORIGIN, s->pageable, (size_t)179, HOST_DEVICE), H_TO_D, 179)
#define FROM_ARRAY(name) copied(RT(name, s->pageable, s->array, ORIGIN, (size_t)181, DEVICE_HOST), D_TO_H, 181)
#define TO_ARRAY_ON(name)                                                                                      \
    copied(RT(name, s->array, ORIGIN, s->pinned, (size_t)191, HOST_DEVICE, s->stream), H_TO_D, 191)
#define FROM_ARRAY_ON(name)                                                                                    \
    copied(RT(name, s->pinned, s->array, ORIGIN, (size_t)193, DEVICE_HOST, s->stream), D_TO_H, 193)
#define BETWEEN_ARRAYS(name)                                                                                   \
    copied(RT(name, s->array, (size_t)0, (size_t)8, s->array, ORIGIN, (size_t)197, DEVICE_DEVICE), D_TO_D, 197)
PAIR(cudaMemcpyToArray, _ptds, TO_ARRAY, need_array)
PAIR(cudaMemcpyFromArray, _ptds, FROM_ARRAY, need_array)
PAIR(cudaMemcpyToArrayAsync, _ptsz, TO_ARRAY_ON, need_array)
PAIR(cudaMemcpyFromArrayAsync, _ptsz, FROM_ARRAY_ON, need_array)
PAIR(cudaMemcpyArrayToArray, _ptds, BETWEEN_ARRAYS, need_array)
#define TO_ARRAY_2D(name)                                                                                      \
    copied(RT(name, s->array, ORIGIN, s->pinned, (size_t)PITCH, SIZE_2D, HOST_DEVICE), H_TO_D, AREA)
#define FROM_ARRAY_2D(name)                                                                                    \
    copied(RT(name, s->pinned, (size_t)PITCH, s->array, ORIGIN, SIZE_2D, DEVICE_HOST), D_TO_H, AREA)
#define TO_ARRAY_2D_ON(name)                                                                                   \
    copied(RT(name, s->array, ORIGIN, s->device, (size_t)PITCH, SIZE_2D, DEVICE_DEVICE, s->stream), D_TO_D, AREA)
#define FROM_ARRAY_2D_ON(name)                                                                                 \
    copied(RT(name, s->pinned, (size_t)PITCH, s->array, ORIGIN, SIZE_2D, DEVICE_HOST, s->stream), D_TO_H, AREA)
#define BETWEEN_ARRAYS_2D(name)                                                                                \
    copied(RT(name, s->array, (size_t)0, (size_t)32, s->array, ORIGIN, SIZE_2D, DEVICE_DEVICE), D_TO_D, AREA)
PAIR(cudaMemcpy2DToArray, _ptds, TO_ARRAY_2D, need_array)
PAIR(cudaMemcpy2DFromArray, _ptds, FROM_ARRAY_2D, need_array)
PAIR(cudaMemcpy2DToArrayAsync, _ptsz, TO_ARRAY_2D_ON, need_array)
PAIR(cudaMemcpy2DFromArrayAsync, _ptsz, FROM_ARRAY_2D_ON, need_array)
PAIR(cudaMemcpy2DArrayToArray, _ptds, BETWEEN_ARRAYS_2D, need_array)

// Several at once: each copy of a batch is one. The arguments of 12 have one more, for the copy that failed.
static const struct copy_attributes attributes = {1, {1, 0}, {1, 0}, 0};
#define BATCH(name)                                                                                            \
    void *dsts[] = {s->device, s->pinned, s->device2}, *srcs[] = {s->pinned + 2048, s->device + 1024, s->device};   \
    size_t sizes[] = {199, 211, 223}, first = 0, bad = 0;                                                      \
    int result = runtime_major() < 13                                                                            \
                     ? RT(name, dsts, srcs, sizes, (size_t)3, &attributes, &first, (size_t)1, &bad, s->stream)  \
                     : RT(name, dsts, srcs, sizes, (size_t)3, &attributes, &first, (size_t)1, s->stream);       \
    copied(result, H_TO_D, 199), copied(result, D_TO_H, 211), copied(result, D_TO_D, 223)
PAIR(cudaMemcpyBatchAsync, _ptsz, BATCH, NULL)
#define OPERAND(at) {1, at, PITCH, HEIGHT, {1, 0}}
#define BATCH_3D(name)                                                                                         \
    struct batch_copy list[] = {{OPERAND(s->pinned), OPERAND(s->device), {WIDTH, HEIGHT, DEPTH}, 1, 0},         \
                                {OPERAND(s->device), OPERAND(s->device2), {WIDTH, HEIGHT, 1}, 1, 0}};           \
    size_t bad = 0;                                                                                            \
    int result = runtime_major() < 13 ? RT(name, (size_t)2, list, &bad, 0ull, s->stream)                          \
                                    : RT(name, (size_t)2, list, 0ull, s->stream);                               \
    copied(result, H_TO_D, VOLUME), copied(result, D_TO_D, AREA)
PAIR(cudaMemcpy3DBatchAsync, _ptsz, BATCH_3D, NULL)
#define WITH_ATTRIBUTES(name)                                                                                  \
    copied(RT(name, s->device, s->pinned, (size_t)227, &attributes, s->stream), H_TO_D, 227)
PAIR(cudaMemcpyWithAttributesAsync, _ptsz, WITH_ATTRIBUTES, NULL)
#define WITH_ATTRIBUTES_3D(name)                                                                               \
    struct batch_copy one = {OPERAND(s->device), OPERAND(s->pinned), {WIDTH, HEIGHT, DEPTH}, 1, 0};             \
    copied(RT(name, &one, 0ull, s->stream), D_TO_H, VOLUME)
PAIR(cudaMemcpy3DWithAttributesAsync, _ptsz, WITH_ATTRIBUTES_3D, NULL)

#undef GROUP
#define GROUP "failing"
// 9 is no cudaMemcpyKind.
CALL_AS(bad_kind, "cudaMemcpy:no-direction", NULL) { RT(cudaMemcpy, s->device, s->pinned, (size_t)8, 9); }
CALL_AS(bad_kind_async, "cudaMemcpyAsync:no-direction", NULL) {
    RT(cudaMemcpyAsync, s->device, s->pinned, (size_t)8, 9, s->stream);
}
