// Copies and fills. In: every public form of them. Out: one operation each; a batch has one for each of its copies.
// Absent: the one-dimensional copies of arrays (array.c).
#define _GNU_SOURCE
#include "array.h"
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

CUresult copy_plain(struct stream *s, CUdeviceptr dst, CUdeviceptr src, size_t bytes, int direction, bool wait) {
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
        return copy_plain(s, (CUdeviceptr)dst, (CUdeviceptr)src, bytes, direction, WAIT);                           \
    })
#define COPY_ASYNC(name, direction, dst_type, src_type)                                                        \
    API2(_ptsz, name, (dst_type dst, src_type src, size_t bytes, void *stream), {                              \
        STREAM(stream);                                                                                        \
        return copy_plain(s, (CUdeviceptr)dst, (CUdeviceptr)src, bytes, direction, false);                          \
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
    return copy_plain(s, dst, src, bytes, D_TO_D, WAIT);
})
API2(_ptsz, cuMemcpyPeerAsync,
     (CUdeviceptr dst, void *dst_context, CUdeviceptr src, void *src_context, size_t bytes, void *stream), {
         STREAM(stream);
         return copy_plain(s, dst, src, bytes, D_TO_D, false);
     })

static CUresult batch(struct stream *s, const CUdeviceptr *dsts, const CUdeviceptr *srcs, const size_t *sizes,
                      size_t count) {
    CUresult result = CUDA_SUCCESS;
    for (size_t i = 0; i < count && !result; i++)
        result = copy_plain(s, dsts[i], srcs[i], sizes[i], -1, false);
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
         return copy_plain(s, dst, src, bytes, -1, false);
     })

// An end of a 2D or 3D copy. Types are numbers of CUmemorytype: host, device, array, unified.
struct end {
    CUdeviceptr at;
    size_t pitch, slice;
    bool device;
};
enum { HOST = 1, DEVICE, ARRAY, UNIFIED };

static struct end end_of_copy(int type, const void *host, CUdeviceptr device, void *handle, size_t pitch, size_t rows) {
    struct array *array = type == ARRAY ? array_of(handle) : NULL;
    if (array)
        return (struct end){array->base, array->row, array_slice(array), true};
    CUdeviceptr at = type == HOST ? (CUdeviceptr)host : type == ARRAY ? 0 : device;
    return (struct end){at, pitch, pitch * rows, type == DEVICE || (type == UNIFIED && is_device_pointer(at))};
}

static void between(struct copy *out, struct end dst, struct end src) {
    out->dst = dst.at, out->dst_pitch = dst.pitch, out->dst_slice = dst.slice;
    out->src = src.at, out->src_pitch = src.pitch, out->src_slice = src.slice;
    out->direction = dst.device ? (src.device ? D_TO_D : H_TO_D) : (src.device ? D_TO_H : H_TO_H);
}

static bool copy_from_2d(const struct memcpy_2d *c, struct copy *out) {
    struct end dst = end_of_copy(c->dst_type, c->dst_host, c->dst_device, c->dst_array,
                                 c->dst_pitch ? c->dst_pitch : c->width, c->height);
    struct end src = end_of_copy(c->src_type, c->src_host, c->src_device, c->src_array,
                                 c->src_pitch ? c->src_pitch : c->width, c->height);
    if (!dst.at || !src.at)
        return false;
    dst.at += c->dst_y * dst.pitch + c->dst_x, src.at += c->src_y * src.pitch + c->src_x;
    *out = (struct copy){.width = c->width, .height = c->height, .depth = 1};
    between(out, dst, src);
    return true;
}

bool copy_from_3d(const struct memcpy_3d *c, struct copy *out) {
    struct end dst = end_of_copy(c->dst_type, c->dst_host, c->dst_device, c->dst_array,
                                 c->dst_pitch ? c->dst_pitch : c->width, c->dst_height ? c->dst_height : c->height);
    struct end src = end_of_copy(c->src_type, c->src_host, c->src_device, c->src_array,
                                 c->src_pitch ? c->src_pitch : c->width, c->src_height ? c->src_height : c->height);
    if (!dst.at || !src.at)
        return false;
    dst.at += c->dst_z * dst.slice + c->dst_y * dst.pitch + c->dst_x;
    src.at += c->src_z * src.slice + c->src_y * src.pitch + c->src_x;
    *out = (struct copy){.width = c->width, .height = c->height, .depth = c->depth};
    between(out, dst, src);
    return true;
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

// An operand of a 3D batch (CUmemcpy3DOperand_v1): a pointer whose rows follow each other, or a place in an array.
static struct end end_of_operand(const struct operand_3d *operand, const struct batch_3d *op) {
    if (operand->type == OPERAND_POINTER) {
        size_t pitch = operand->row_length ? operand->row_length : op->width;
        size_t rows = operand->layer_height ? operand->layer_height : op->height;
        return (struct end){operand->pointer, pitch, pitch * rows, is_device_pointer(operand->pointer)};
    }
    struct array *array = operand->type == OPERAND_ARRAY ? array_of(operand->array) : NULL;
    if (!array)
        return (struct end){0};
    CUdeviceptr at = array->base + operand->z * array_slice(array) + operand->y * array->row + operand->x;
    return (struct end){at, array->row, array_slice(array), true};
}
static CUresult batch_one(struct stream *s, const struct batch_3d *op) {
    struct end dst = end_of_operand(&op->dst, op), src = end_of_operand(&op->src, op);
    struct copy copy = {.width = op->width, .height = op->height, .depth = op->depth};
    if (!dst.at || !src.at)
        return INVALID_VALUE;
    between(&copy, dst, src);
    return op->width && op->height && op->depth ? submit_copy(s, &copy, false) : CUDA_SUCCESS;
}
static CUresult batch_3d(struct stream *s, const struct batch_3d *ops, size_t count) {
    CUresult result = ops ? CUDA_SUCCESS : INVALID_VALUE;
    for (size_t i = 0; i < count && !result; i++)
        result = batch_one(s, &ops[i]);
    return result;
}
API2(_ptsz, cuMemcpy3DBatchAsync,
     (size_t count, const struct batch_3d *ops, size_t *failed, uint64_t flags, void *stream), {
         STREAM(stream);
         return batch_3d(s, ops, count);
     })
API2(_ptsz, cuMemcpy3DBatchAsync_v2, (size_t count, const struct batch_3d *ops, uint64_t flags, void *stream), {
    STREAM(stream);
    return batch_3d(s, ops, count);
})
API2(_ptsz, cuMemcpy3DWithAttributesAsync, (const struct batch_3d *op, uint64_t flags, void *stream), {
    STREAM(stream);
    return batch_3d(s, op, 1);
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
