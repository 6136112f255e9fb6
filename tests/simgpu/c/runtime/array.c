// CUDA arrays and the copies that name them. In: the runtime's forms. Out: the driver's. Absent: textures, surfaces,
// mipmaps and sparse arrays.
#define _GNU_SOURCE
#include "runtime.h"

enum { HOST_HOST, HOST_DEVICE, DEVICE_HOST, DEVICE_DEVICE };

struct channels { // cudaChannelFormatDesc: bits of up to four channels, and 0 signed, 1 unsigned, 2 float
    int bits[4], kind;
};
struct extent {
    size_t width, height, depth;
};

static int format_of(const struct channels *c) {
    int log = c->bits[0] == 8 ? 0 : c->bits[0] == 16 ? 1 : 2;
    return c->kind == 2 ? (log == 1 ? 0x10 : 0x20) : (c->kind == 1 ? 1 : 8) + log;
}
static error_t_ make(void **out, const struct channels *c, struct extent extent, unsigned flags) {
    if (!c)
        return remember(INVALID_VALUE);
    uint32_t channels = 0;
    while (channels < 4 && c->bits[channels])
        channels++;
    struct array_3d_descriptor d = {extent.width, extent.height, extent.depth, format_of(c), channels, flags};
    CALL(cuArray3DCreate_v2, out, &d);
}
API(cudaMallocArray, (void **out, const struct channels *c, size_t width, size_t height, unsigned flags), {
    error_t_ error = make(out, c, (struct extent){width, height, 0}, flags);
    return error;
})
API(cudaMalloc3DArray, (void **out, const struct channels *c, struct extent extent, unsigned flags), {
    error_t_ error = make(out, c, extent, flags);
    return error;
})
API(cudaFreeArray, (void *array), {
    if (!array)
        return SUCCESS;
    CALL(cuArrayDestroy, array);
})

size_t array_unit(void *array, size_t *width) {
    struct array_3d_descriptor d = {0};
    if (!array || driver.cuArray3DGetDescriptor_v2(&d, array))
        return 0;
    *width = d.width;
    return array_format_bytes(d.format) * d.channels;
}
// Offsets are bytes `x` in rows `y`; the rows of the stand-in's arrays follow each other.
static size_t row_of(void *array) {
    size_t width = 0, unit = array_unit(array, &width);
    return width * unit;
}
API2(_ptds, cudaMemcpyToArray, (void *dst, size_t x, size_t y, const void *src, size_t bytes, int kind), {
    READY();
    size_t at = y * row_of(dst) + x;
    if (kind == DEVICE_DEVICE)
        CALL2(cuMemcpyDtoA_v2, dst, at, src, bytes);
    CALL2(cuMemcpyHtoA_v2, dst, at, src, bytes);
})
API2(_ptds, cudaMemcpyFromArray, (void *dst, void *src, size_t x, size_t y, size_t bytes, int kind), {
    READY();
    size_t at = y * row_of(src) + x;
    if (kind == DEVICE_DEVICE)
        CALL2(cuMemcpyAtoD_v2, dst, src, at, bytes);
    CALL2(cuMemcpyAtoH_v2, dst, src, at, bytes);
})
API2(_ptds, cudaMemcpyArrayToArray,
     (void *dst, size_t dst_x, size_t dst_y, void *src, size_t src_x, size_t src_y, size_t bytes, int kind), {
         READY();
         size_t to = dst_y * row_of(dst) + dst_x, from = src_y * row_of(src) + src_x;
         CALL2(cuMemcpyAtoA_v2, dst, to, src, from, bytes);
     })

enum { HOST = 1, DEVICE, ARRAY };
static struct memcpy_2d to_array(void *dst, size_t x, size_t y, const void *src, size_t pitch, int kind) {
    return (struct memcpy_2d){.dst_type = ARRAY, .dst_array = dst, .dst_x = x, .dst_y = y,
                              .src_type = kind == DEVICE_DEVICE ? DEVICE : HOST, .src_host = src,
                              .src_device = (uint64_t)src, .src_pitch = pitch};
}
static struct memcpy_2d from_array(void *dst, size_t pitch, void *src, size_t x, size_t y, int kind) {
    return (struct memcpy_2d){.src_type = ARRAY, .src_array = src, .src_x = x, .src_y = y,
                              .dst_type = kind == DEVICE_DEVICE ? DEVICE : HOST, .dst_host = dst,
                              .dst_device = (uint64_t)dst, .dst_pitch = pitch};
}
// The asynchronous one-dimensional forms: one row.
API2(_ptsz, cudaMemcpyToArrayAsync,
     (void *dst, size_t x, size_t y, const void *src, size_t bytes, int kind, void *stream), {
         READY();
         if (kind == HOST_DEVICE)
             CALL2(cuMemcpyHtoAAsync_v2, dst, y * row_of(dst) + x, src, bytes, stream);
         struct memcpy_2d c = to_array(dst, x, y, src, 0, kind);
         c.width = bytes, c.height = 1;
         CALL2(cuMemcpy2DAsync_v2, &c, stream);
     })
API2(_ptsz, cudaMemcpyFromArrayAsync,
     (void *dst, void *src, size_t x, size_t y, size_t bytes, int kind, void *stream), {
         READY();
         if (kind == DEVICE_HOST)
             CALL2(cuMemcpyAtoHAsync_v2, dst, src, y * row_of(src) + x, bytes, stream);
         struct memcpy_2d c = from_array(dst, 0, src, x, y, kind);
         c.width = bytes, c.height = 1;
         CALL2(cuMemcpy2DAsync_v2, &c, stream);
     })
API2(_ptds, cudaMemcpy2DToArray,
     (void *dst, size_t x, size_t y, const void *src, size_t pitch, size_t width, size_t height, int kind), {
         struct memcpy_2d c = to_array(dst, x, y, src, pitch, kind);
         c.width = width, c.height = height;
         CALL2(cuMemcpy2DUnaligned_v2, &c);
     })
API2(_ptds, cudaMemcpy2DFromArray,
     (void *dst, size_t pitch, void *src, size_t x, size_t y, size_t width, size_t height, int kind), {
         struct memcpy_2d c = from_array(dst, pitch, src, x, y, kind);
         c.width = width, c.height = height;
         CALL2(cuMemcpy2DUnaligned_v2, &c);
     })
API2(_ptsz, cudaMemcpy2DToArrayAsync,
     (void *dst, size_t x, size_t y, const void *src, size_t pitch, size_t width, size_t height, int kind,
      void *stream),
     {
         struct memcpy_2d c = to_array(dst, x, y, src, pitch, kind);
         c.width = width, c.height = height;
         CALL2(cuMemcpy2DAsync_v2, &c, stream);
     })
API2(_ptsz, cudaMemcpy2DFromArrayAsync,
     (void *dst, size_t pitch, void *src, size_t x, size_t y, size_t width, size_t height, int kind, void *stream), {
         struct memcpy_2d c = from_array(dst, pitch, src, x, y, kind);
         c.width = width, c.height = height;
         CALL2(cuMemcpy2DAsync_v2, &c, stream);
     })
API2(_ptds, cudaMemcpy2DArrayToArray,
     (void *dst, size_t dst_x, size_t dst_y, void *src, size_t src_x, size_t src_y, size_t width, size_t height,
      int kind),
     {
         struct memcpy_2d c = {.dst_type = ARRAY, .dst_array = dst, .dst_x = dst_x, .dst_y = dst_y, .src_type = ARRAY,
                               .src_array = src, .src_x = src_x, .src_y = src_y, .width = width, .height = height};
         CALL2(cuMemcpy2DUnaligned_v2, &c);
     })
