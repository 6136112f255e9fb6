// CUDA arrays: device memory that is named by a handle. In: descriptors and handles. Out: linear memory without gaps
// between rows, and copies to and from it. Absent: texture sampling, mipmaps, sparse arrays, views.
#define _GNU_SOURCE
#include "array.h"
#include <stdlib.h>

struct array *array_of(void *handle) {
    struct array *array = handle;
    return array && array->magic == ARRAY_MAGIC ? array : NULL;
}
static size_t at_least_one(size_t size) { return size ? size : 1; }
size_t array_slice(const struct array *array) { return array->row * at_least_one(array->descriptor.height); }

static CUresult create(struct array **out, const struct array_3d_descriptor *descriptor) {
    READY();
    if (!out || !descriptor || !descriptor->width || !array_format_bytes(descriptor->format) || !descriptor->channels)
        return INVALID_VALUE;
    struct array *array = calloc(1, sizeof *array);
    if (!array)
        return OUT_OF_MEMORY;
    *array = (struct array){.magic = ARRAY_MAGIC, .descriptor = *descriptor};
    array->row = descriptor->width * array_format_bytes(descriptor->format) * descriptor->channels;
    CUresult result = device_alloc(&array->base, array_slice(array) * at_least_one(descriptor->depth), RANGE_ARRAY, 0);
    *out = array;
    return result;
}
API(cuArrayCreate_v2, (struct array * *out, const struct array_descriptor *d), {
    if (!d)
        return INVALID_VALUE;
    struct array_3d_descriptor full = {d->width, d->height, 0, d->format, d->channels, 0};
    CUresult result = create(out, &full);
    return result;
})
API(cuArray3DCreate_v2, (struct array * *out, const struct array_3d_descriptor *d), {
    CUresult result = create(out, d);
    return result;
})
#define ARRAY(handle)                                                                                          \
    READY();                                                                                                   \
    struct array *a = array_of(handle);                                                                        \
    if (!a)                                                                                                    \
    return INVALID_HANDLE
API(cuArrayDestroy, (void *array), {
    ARRAY(array);
    if (current_context() && !current_context()->capturing)
        wait_context(current_context());
    a->magic = 0;
    CUresult result = device_free(a->base);
    free(a);
    return result;
})
API(cuArrayGetDescriptor_v2, (struct array_descriptor * out, void *array), {
    ARRAY(array);
    *out = (struct array_descriptor){a->descriptor.width, a->descriptor.height, a->descriptor.format,
                                     a->descriptor.channels};
    return CUDA_SUCCESS;
})
API(cuArray3DGetDescriptor_v2, (struct array_3d_descriptor * out, void *array), {
    ARRAY(array);
    *out = a->descriptor;
    return CUDA_SUCCESS;
})

// One-dimensional copies with an array at one end; offsets are bytes.
static CUdeviceptr place(void *handle, size_t offset) {
    struct array *array = array_of(handle);
    return array ? array->base + offset : 0;
}
enum { WAIT = 1 };
#define TO_ARRAY(name, direction, source)                                                                      \
    API2(_ptds, name, (void *dst, size_t offset, source src, size_t bytes), {                                  \
        STREAM(NULL);                                                                                          \
        return copy_plain(s, place(dst, offset), (CUdeviceptr)src, bytes, direction, WAIT);                    \
    })
#define FROM_ARRAY(name, direction, target)                                                                    \
    API2(_ptds, name, (target dst, void *src, size_t offset, size_t bytes), {                                  \
        STREAM(NULL);                                                                                          \
        return copy_plain(s, (CUdeviceptr)dst, place(src, offset), bytes, direction, WAIT);                    \
    })
TO_ARRAY(cuMemcpyHtoA_v2, H_TO_D, const void *)
TO_ARRAY(cuMemcpyDtoA_v2, D_TO_D, CUdeviceptr)
FROM_ARRAY(cuMemcpyAtoH_v2, D_TO_H, void *)
FROM_ARRAY(cuMemcpyAtoD_v2, D_TO_D, CUdeviceptr)
API2(_ptds, cuMemcpyAtoA_v2, (void *dst, size_t dst_offset, void *src, size_t src_offset, size_t bytes), {
    STREAM(NULL);
    return copy_plain(s, place(dst, dst_offset), place(src, src_offset), bytes, D_TO_D, WAIT);
})
API2(_ptsz, cuMemcpyHtoAAsync_v2, (void *dst, size_t offset, const void *src, size_t bytes, void *stream), {
    STREAM(stream);
    return copy_plain(s, place(dst, offset), (CUdeviceptr)src, bytes, H_TO_D, false);
})
API2(_ptsz, cuMemcpyAtoHAsync_v2, (void *dst, void *src, size_t offset, size_t bytes, void *stream), {
    STREAM(stream);
    return copy_plain(s, (CUdeviceptr)dst, place(src, offset), bytes, D_TO_H, false);
})
