// Copies and fills. In: every public form of them. Out: one operation each. Absent: arrays (textures), which the
// stand-in does not have.
#define _GNU_SOURCE
#include "sim.h"
#include "cuda_abi.h"
#include <stdlib.h>
#include <string.h>

enum { WAIT = 1 };

static enum direction direction_of(CUdeviceptr dst, CUdeviceptr src) {
    bool to = is_device_pointer(dst), from = is_device_pointer(src);
    return to ? (from ? D_TO_D : H_TO_D) : (from ? D_TO_H : H_TO_H);
}

// Pageable memory (CUDA driver API, "API synchronization behavior"): towards the device the bytes are taken before
// the call returns; from the device the call returns once they are there.
static CUresult submit_copy(struct stream *s, struct copy *copy, bool wait) {
    struct work work = {.kind = OP_COPY, .copy = *copy};
    bool capturing = s->capture != NULL, plain = copy->height * copy->depth == 1;
    if (!wait && !capturing && copy->direction == H_TO_D && is_pageable(copy->src)) {
        if (!plain || !(work.copy.staged = malloc(copy->width ? copy->width : 1)))
            return submit_and_wait(s, &work);
        memcpy(work.copy.staged, (void *)copy->src, copy->width);
    }
    if (!capturing && (copy->direction == D_TO_H || copy->direction == H_TO_H) && is_pageable(copy->dst))
        wait = true;
    return wait ? submit_and_wait(s, &work) : submit(s, &work, NULL);
}

static CUresult plain(struct stream *s, CUdeviceptr dst, CUdeviceptr src, size_t bytes, int direction, bool wait) {
    if (bytes == 0)
        return CUDA_SUCCESS;
    if (!dst || !src)
        return INVALID_VALUE;
    struct copy copy = {.dst = dst, .src = src, .width = bytes, .height = 1, .depth = 1,
                        .direction = direction < 0 ? direction_of(dst, src) : (enum direction)direction};
    return submit_copy(s, &copy, wait);
}

// Sync forms use the default stream: `_ptds` the thread's own, the others the legacy one.
#define COPY_SYNC(name, direction, dst_type, src_type)                                                         \
    API2(_ptds, name, (dst_type dst, src_type src, size_t bytes), {                                            \
        STREAM(NULL);                                                                                          \
        return plain(s, (CUdeviceptr)dst, (CUdeviceptr)src, bytes, direction, WAIT);                           \
    })
#define COPY_ASYNC(name, direction, dst_type, src_type)                                                        \
    API2(_ptsz, name, (dst_type dst, src_type src, size_t bytes, void *stream), {                              \
        STREAM(stream);                                                                                        \
        return plain(s, (CUdeviceptr)dst, (CUdeviceptr)src, bytes, direction, false);                          \
    })
COPY_SYNC(cuMemcpy, -1, CUdeviceptr, CUdeviceptr)
COPY_SYNC(cuMemcpyHtoD_v2, H_TO_D, CUdeviceptr, const void *)
COPY_SYNC(cuMemcpyDtoH_v2, D_TO_H, void *, CUdeviceptr)
COPY_SYNC(cuMemcpyDtoD_v2, D_TO_D, CUdeviceptr, CUdeviceptr)
COPY_ASYNC(cuMemcpyAsync, -1, CUdeviceptr, CUdeviceptr)
COPY_ASYNC(cuMemcpyHtoDAsync_v2, H_TO_D, CUdeviceptr, const void *)
COPY_ASYNC(cuMemcpyDtoHAsync_v2, D_TO_H, void *, CUdeviceptr)
COPY_ASYNC(cuMemcpyDtoDAsync_v2, D_TO_D, CUdeviceptr, CUdeviceptr)

API2(_ptds, cuMemcpyPeer, (CUdeviceptr dst, void *dst_context, CUdeviceptr src, void *src_context, size_t bytes), {
    STREAM(NULL);
    return plain(s, dst, src, bytes, D_TO_D, WAIT);
})
API2(_ptsz, cuMemcpyPeerAsync,
     (CUdeviceptr dst, void *dst_context, CUdeviceptr src, void *src_context, size_t bytes, void *stream), {
         STREAM(stream);
         return plain(s, dst, src, bytes, D_TO_D, false);
     })

static CUresult batch(struct stream *s, const CUdeviceptr *dsts, const CUdeviceptr *srcs, const size_t *sizes,
                      size_t count) {
    CUresult result = CUDA_SUCCESS;
    for (size_t i = 0; i < count && !result; i++)
        result = plain(s, dsts[i], srcs[i], sizes[i], -1, false);
    return result;
}
API2(_ptsz, cuMemcpyBatchAsync,
     (CUdeviceptr * dsts, CUdeviceptr *srcs, size_t *sizes, size_t count, void *attributes, size_t *indices,
      size_t attribute_count, size_t *failed, void *stream),
     {
         STREAM(stream);
         return batch(s, dsts, srcs, sizes, count);
     })
API2(_ptsz, cuMemcpyBatchAsync_v2,
     (CUdeviceptr * dsts, CUdeviceptr *srcs, size_t *sizes, size_t count, void *attributes, size_t *indices,
      size_t attribute_count, void *stream),
     {
         STREAM(stream);
         return batch(s, dsts, srcs, sizes, count);
     })
API2(_ptsz, cuMemcpyWithAttributesAsync,
     (CUdeviceptr dst, CUdeviceptr src, size_t bytes, void *attributes, void *stream), {
         STREAM(stream);
         return plain(s, dst, src, bytes, -1, false);
     })

// An end of a 2D or 3D copy: host, device or unified (numbers of CUmemorytype; 3 is an array).
static CUdeviceptr end_address(int type, const void *host, CUdeviceptr device) {
    return type == 1 ? (CUdeviceptr)host : type == 3 ? 0 : device;
}
static enum direction typed_direction(int dst_type, int src_type, CUdeviceptr dst, CUdeviceptr src) {
    if (dst_type == 4 || src_type == 4)
        return direction_of(dst, src);
    return dst_type == 2 ? (src_type == 2 ? D_TO_D : H_TO_D) : (src_type == 2 ? D_TO_H : H_TO_H);
}

static bool copy_from_2d(const struct memcpy_2d *c, struct copy *out) {
    CUdeviceptr dst = end_address(c->dst_type, c->dst_host, c->dst_device);
    CUdeviceptr src = end_address(c->src_type, c->src_host, c->src_device);
    size_t dst_pitch = c->dst_pitch ? c->dst_pitch : c->width, src_pitch = c->src_pitch ? c->src_pitch : c->width;
    *out = (struct copy){.dst = dst + c->dst_y * dst_pitch + c->dst_x, .src = src + c->src_y * src_pitch + c->src_x,
                         .width = c->width, .height = c->height, .depth = 1, .dst_pitch = dst_pitch,
                         .src_pitch = src_pitch, .direction = typed_direction(c->dst_type, c->src_type, dst, src)};
    return dst && src;
}

bool copy_from_3d(const struct memcpy_3d *c, struct copy *out) {
    CUdeviceptr dst = end_address(c->dst_type, c->dst_host, c->dst_device);
    CUdeviceptr src = end_address(c->src_type, c->src_host, c->src_device);
    size_t dst_pitch = c->dst_pitch ? c->dst_pitch : c->width, src_pitch = c->src_pitch ? c->src_pitch : c->width;
    size_t dst_slice = dst_pitch * (c->dst_height ? c->dst_height : c->height);
    size_t src_slice = src_pitch * (c->src_height ? c->src_height : c->height);
    *out = (struct copy){.dst = dst + c->dst_z * dst_slice + c->dst_y * dst_pitch + c->dst_x,
                         .src = src + c->src_z * src_slice + c->src_y * src_pitch + c->src_x,
                         .width = c->width, .height = c->height, .depth = c->depth, .dst_pitch = dst_pitch,
                         .src_pitch = src_pitch, .dst_slice = dst_slice, .src_slice = src_slice,
                         .direction = typed_direction(c->dst_type, c->src_type, dst, src)};
    return dst && src;
}

static CUresult copy_2d(struct stream *s, const struct memcpy_2d *c, bool wait) {
    struct copy copy;
    if (!c || !copy_from_2d(c, &copy))
        return c ? NOT_SUPPORTED : INVALID_VALUE;
    return c->width && c->height ? submit_copy(s, &copy, wait) : CUDA_SUCCESS;
}
static CUresult copy_3d(struct stream *s, const struct memcpy_3d *c, bool wait) {
    struct copy copy;
    if (!c || !copy_from_3d(c, &copy))
        return c ? NOT_SUPPORTED : INVALID_VALUE;
    return c->width && c->height && c->depth ? submit_copy(s, &copy, wait) : CUDA_SUCCESS;
}
API2(_ptds, cuMemcpy2D_v2, (const struct memcpy_2d *c), {
    STREAM(NULL);
    return copy_2d(s, c, WAIT);
})
API2(_ptds, cuMemcpy2DUnaligned_v2, (const struct memcpy_2d *c), {
    STREAM(NULL);
    return copy_2d(s, c, WAIT);
})
API2(_ptsz, cuMemcpy2DAsync_v2, (const struct memcpy_2d *c, void *stream), {
    STREAM(stream);
    return copy_2d(s, c, false);
})
API2(_ptds, cuMemcpy3D_v2, (const struct memcpy_3d *c), {
    STREAM(NULL);
    return copy_3d(s, c, WAIT);
})
API2(_ptsz, cuMemcpy3DAsync_v2, (const struct memcpy_3d *c, void *stream), {
    STREAM(stream);
    return copy_3d(s, c, false);
})
// The peer form has the same layout: contexts stand in the reserved words.
API2(_ptds, cuMemcpy3DPeer, (const struct memcpy_3d *c), {
    STREAM(NULL);
    return copy_3d(s, c, WAIT);
})
API2(_ptsz, cuMemcpy3DPeerAsync, (const struct memcpy_3d *c, void *stream), {
    STREAM(stream);
    return copy_3d(s, c, false);
})

static CUresult fill(struct stream *s, CUdeviceptr dst, size_t pitch, uint32_t value, uint32_t element,
                     size_t width, size_t height) {
    if (!width || !height)
        return CUDA_SUCCESS;
    if (!dst)
        return INVALID_VALUE;
    struct work work = {.kind = OP_FILL, .fill = {dst, pitch, width, height, value, element}};
    return submit(s, &work, NULL);
}
// Fills return before they are done, also the forms without `Async` (same source as above).
#define FILL(bits, type)                                                                                       \
    API2(_ptds, cuMemsetD##bits##_v2, (CUdeviceptr dst, type value, size_t count), {                           \
        STREAM(NULL);                                                                                          \
        return fill(s, dst, 0, value, bits / 8, count, 1);                                                     \
    })                                                                                                         \
    API2(_ptsz, cuMemsetD##bits##Async, (CUdeviceptr dst, type value, size_t count, void *stream), {           \
        STREAM(stream);                                                                                        \
        return fill(s, dst, 0, value, bits / 8, count, 1);                                                     \
    })                                                                                                         \
    API2(_ptds, cuMemsetD2D##bits##_v2, (CUdeviceptr dst, size_t pitch, type value, size_t width, size_t height), { \
        STREAM(NULL);                                                                                          \
        return fill(s, dst, pitch, value, bits / 8, width, height);                                            \
    })                                                                                                         \
    API2(_ptsz, cuMemsetD2D##bits##Async,                                                                      \
         (CUdeviceptr dst, size_t pitch, type value, size_t width, size_t height, void *stream), {             \
             STREAM(stream);                                                                                   \
             return fill(s, dst, pitch, value, bits / 8, width, height);                                       \
         })
FILL(8, uint8_t)
FILL(16, uint16_t)
FILL(32, uint32_t)
