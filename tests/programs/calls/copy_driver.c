// Every copy of the driver. In: a thread's state. Out: copies of sizes that tell them apart. Absent: graphs.
#define GROUP "copy"
#include "calls.h"

#define COPY(name, dst, src, bytes, direction) copied(DRV(name, dst, src, (size_t)(bytes)), direction, bytes)
#define COPY_ON(name, dst, src, bytes, direction) copied(DRV(name, dst, src, (size_t)(bytes), s->stream), direction, bytes)
#define BY_ADDRESS(name) COPY(name, s->device, s->pinned, 301, H_TO_D)
#define TO_DEVICE(name) COPY(name, s->device, s->pageable, 307, H_TO_D)
#define TO_HOST(name) COPY(name, s->pageable, s->device, 311, D_TO_H)
#define IN_DEVICE(name) COPY(name, s->device2, s->device, 313, D_TO_D)
#define BY_ADDRESS_ON(name) COPY_ON(name, s->pinned, s->device, 317, D_TO_H)
#define IN_DEVICE_ON(name) COPY_ON(name, s->device2, s->device, 331, D_TO_D)
PAIR(cuMemcpy, _ptds, BY_ADDRESS, NULL)
PAIR(cuMemcpyHtoD_v2, _ptds, TO_DEVICE, NULL)
PAIR(cuMemcpyDtoH_v2, _ptds, TO_HOST, NULL)
PAIR(cuMemcpyDtoD_v2, _ptds, IN_DEVICE, NULL)
PAIR(cuMemcpyAsync, _ptsz, BY_ADDRESS_ON, NULL)
PAIR(cuMemcpyDtoDAsync_v2, _ptsz, IN_DEVICE_ON, NULL)
CALL(cuMemcpyHtoDAsync_v2) { COPY_ON(cuMemcpyHtoDAsync_v2, s->device, s->pinned, BYTES, H_TO_D); }
CALL(cuMemcpyDtoHAsync_v2) { COPY_ON(cuMemcpyDtoHAsync_v2, s->pinned, s->device, BYTES, D_TO_H); }
CALL(cuMemcpyHtoDAsync_v2_ptsz) { COPY_ON(cuMemcpyHtoDAsync_v2_ptsz, s->device, s->pinned, 337, H_TO_D); }
CALL(cuMemcpyDtoHAsync_v2_ptsz) { COPY_ON(cuMemcpyDtoHAsync_v2_ptsz, s->pinned, s->device, 347, D_TO_H); }

#define PEER(name) copied(DRV(name, s->peer, s->context, s->device, s->context, (size_t)349), D_TO_D, 349)
#define PEER_ON(name)                                                                                          \
    copied(DRV(name, s->device, s->context, s->peer, s->context, (size_t)353, s->stream), D_TO_D, 353)
PAIR(cuMemcpyPeer, _ptds, PEER, need_peer)
PAIR(cuMemcpyPeerAsync, _ptsz, PEER_ON, need_peer)

enum { PITCH = 64, WIDTH = 36, HEIGHT = 5, DEPTH = 3, AREA = WIDTH * HEIGHT, VOLUME = AREA * DEPTH };
enum { HOST = 1, DEVICE, ARRAY, UNIFIED };
static struct driver_copy_2d to_device(struct state *s) {
    return (struct driver_copy_2d){.dst_type = DEVICE, .dst_device = s->device, .dst_pitch = PITCH, .src_type = HOST,
                                   .src_host = s->pageable, .src_pitch = PITCH, .width = WIDTH, .height = HEIGHT};
}
static struct driver_copy_2d to_host(struct state *s) {
    return (struct driver_copy_2d){.dst_type = HOST, .dst_host = s->pinned, .dst_pitch = PITCH, .src_type = DEVICE,
                                   .src_device = s->device, .src_pitch = PITCH, .width = WIDTH, .height = HEIGHT};
}
#define COPY_2D(name)                                                                                          \
    struct driver_copy_2d c = to_device(s);                                                                    \
    copied(DRV(name, &c), H_TO_D, AREA)
#define COPY_2D_ON(name)                                                                                       \
    struct driver_copy_2d c = to_host(s);                                                                      \
    copied(DRV(name, &c, s->stream), D_TO_H, AREA)
PAIR(cuMemcpy2D_v2, _ptds, COPY_2D, NULL)
PAIR(cuMemcpy2DUnaligned_v2, _ptds, COPY_2D, NULL)
PAIR(cuMemcpy2DAsync_v2, _ptsz, COPY_2D_ON, NULL)
CALL_AS(from_array, "cuMemcpy2D_v2:from-array", need_array) {
    struct driver_copy_2d c = to_host(s);
    c.src_type = ARRAY, c.src_array = s->array;
    copied(DRV(cuMemcpy2D_v2, &c), D_TO_H, AREA);
}

static struct driver_copy_3d copy_3d(struct state *s, int dst_type, void *dst, int src_type, void *src) {
    return (struct driver_copy_3d){.dst_type = dst_type, .dst_host = dst, .dst_device = dst, .dst_pitch = PITCH,
                                   .dst_height = HEIGHT, .src_type = src_type, .src_host = src, .src_device = src,
                                   .src_pitch = PITCH, .src_height = HEIGHT, .width = WIDTH, .height = HEIGHT,
                                   .depth = DEPTH};
}
#define COPY_3D(name)                                                                                          \
    struct driver_copy_3d c = copy_3d(s, HOST, s->pinned, DEVICE, s->device);                                  \
    copied(DRV(name, &c), D_TO_H, VOLUME)
#define COPY_3D_ON(name)                                                                                       \
    struct driver_copy_3d c = copy_3d(s, UNIFIED, s->device2, UNIFIED, s->device);                             \
    copied(DRV(name, &c, s->stream), D_TO_D, VOLUME)
PAIR(cuMemcpy3D_v2, _ptds, COPY_3D, NULL)
PAIR(cuMemcpy3DAsync_v2, _ptsz, COPY_3D_ON, NULL)
#define PEER_3D(name)                                                                                          \
    struct driver_copy_3d c = copy_3d(s, DEVICE, s->peer, DEVICE, s->device);                                  \
    c.dst_context = c.src_context = s->context;                                                                \
    copied(DRV(name, &c), D_TO_D, VOLUME)
#define PEER_3D_ON(name)                                                                                       \
    struct driver_copy_3d c = copy_3d(s, DEVICE, s->device, DEVICE, s->peer);                                  \
    c.dst_context = c.src_context = s->context;                                                                \
    copied(DRV(name, &c, s->stream), D_TO_D, VOLUME)
PAIR(cuMemcpy3DPeer, _ptds, PEER_3D, need_peer)
PAIR(cuMemcpy3DPeerAsync, _ptsz, PEER_3D_ON, need_peer)

// Arrays; offsets are bytes.
#define TO_ARRAY(name) copied(DRV(name, s->array, (size_t)8, s->pageable, (size_t)359), H_TO_D, 359)
#define DEVICE_TO_ARRAY(name) copied(DRV(name, s->array, (size_t)8, s->device, (size_t)367), D_TO_D, 367)
#define FROM_ARRAY(name) copied(DRV(name, s->pageable, s->array, (size_t)8, (size_t)373), D_TO_H, 373)
#define ARRAY_TO_DEVICE(name) copied(DRV(name, s->device, s->array, (size_t)8, (size_t)379), D_TO_D, 379)
#define BETWEEN_ARRAYS(name)                                                                                   \
    copied(DRV(name, s->array, (size_t)2048, s->array, (size_t)0, (size_t)383), D_TO_D, 383)
#define TO_ARRAY_ON(name) copied(DRV(name, s->array, (size_t)8, s->pinned, (size_t)389, s->stream), H_TO_D, 389)
#define FROM_ARRAY_ON(name) copied(DRV(name, s->pinned, s->array, (size_t)8, (size_t)397, s->stream), D_TO_H, 397)
PAIR(cuMemcpyHtoA_v2, _ptds, TO_ARRAY, need_array)
PAIR(cuMemcpyDtoA_v2, _ptds, DEVICE_TO_ARRAY, need_array)
PAIR(cuMemcpyAtoH_v2, _ptds, FROM_ARRAY, need_array)
PAIR(cuMemcpyAtoD_v2, _ptds, ARRAY_TO_DEVICE, need_array)
PAIR(cuMemcpyAtoA_v2, _ptds, BETWEEN_ARRAYS, need_array)
PAIR(cuMemcpyHtoAAsync_v2, _ptsz, TO_ARRAY_ON, need_array)
PAIR(cuMemcpyAtoHAsync_v2, _ptsz, FROM_ARRAY_ON, need_array)

// Several at once: each copy of a batch is one. Before `_v2` one more argument stands for the copy that failed.
static const struct copy_attributes attributes = {1, {1, 0}, {1, 0}, 0};
#define OPERANDS                                                                                               \
    void *dsts[] = {s->device, s->pinned, s->device2}, *srcs[] = {s->pinned + 2048, s->device + 1024, s->device};   \
    size_t sizes[] = {401, 409, 419}, first = 0
#define COPIED_THREE(result) copied(result, H_TO_D, 401), copied(result, D_TO_H, 409), copied(result, D_TO_D, 419)
#define BATCH(name)                                                                                            \
    OPERANDS;                                                                                                  \
    size_t bad = 0;                                                                                            \
    int result = DRV(name, dsts, srcs, sizes, (size_t)3, &attributes, &first, (size_t)1, &bad, s->stream);      \
    COPIED_THREE(result)
#define BATCH_V2(name)                                                                                         \
    OPERANDS;                                                                                                  \
    int result = DRV(name, dsts, srcs, sizes, (size_t)3, &attributes, &first, (size_t)1, s->stream);            \
    COPIED_THREE(result)
PAIR(cuMemcpyBatchAsync, _ptsz, BATCH, NULL)
PAIR(cuMemcpyBatchAsync_v2, _ptsz, BATCH_V2, NULL)
#define OPERAND(at) {1, at, PITCH, HEIGHT, {1, 0}}
#define LIST_3D                                                                                                \
    struct batch_copy list[] = {{OPERAND(s->pinned), OPERAND(s->device), {WIDTH, HEIGHT, DEPTH}, 1, 0},         \
                                {OPERAND(s->device), OPERAND(s->device2), {WIDTH, HEIGHT, 1}, 1, 0}}
#define BATCH_3D(name)                                                                                         \
    LIST_3D;                                                                                                   \
    size_t bad = 0;                                                                                            \
    int result = DRV(name, (size_t)2, list, &bad, 0ull, s->stream);                                            \
    copied(result, H_TO_D, VOLUME), copied(result, D_TO_D, AREA)
#define BATCH_3D_V2(name)                                                                                      \
    LIST_3D;                                                                                                   \
    int result = DRV(name, (size_t)2, list, 0ull, s->stream);                                                  \
    copied(result, H_TO_D, VOLUME), copied(result, D_TO_D, AREA)
PAIR(cuMemcpy3DBatchAsync, _ptsz, BATCH_3D, NULL)
PAIR(cuMemcpy3DBatchAsync_v2, _ptsz, BATCH_3D_V2, NULL)
#define WITH_ATTRIBUTES(name)                                                                                  \
    copied(DRV(name, s->device2, s->device, (size_t)421, &attributes, s->stream), D_TO_D, 421)
PAIR(cuMemcpyWithAttributesAsync, _ptsz, WITH_ATTRIBUTES, NULL)
#define WITH_ATTRIBUTES_3D(name)                                                                               \
    LIST_3D;                                                                                                   \
    copied(DRV(name, &list[0], 0ull, s->stream), H_TO_D, VOLUME)
PAIR(cuMemcpy3DWithAttributesAsync, _ptsz, WITH_ATTRIBUTES_3D, NULL)
