// Memory, copies and fills. In: the runtime's forms. Out: the driver's. Absent: arrays (array.c).
#define _GNU_SOURCE
#include "runtime.h"
#include <string.h>

enum { HOST_HOST, HOST_DEVICE, DEVICE_HOST, DEVICE_DEVICE, BY_ADDRESS };

API(cudaMalloc, (void **out, size_t bytes), {
    if (out && bytes == 0) {
        *out = NULL;
        return SUCCESS;
    }
    CALL(cuMemAlloc_v2, out, bytes);
})
API(cudaMallocManaged, (void **out, size_t bytes, unsigned flags), { CALL(cuMemAllocManaged, out, bytes, flags); })
API(cudaMallocPitch, (void **out, size_t *pitch, size_t width, size_t height),
    { CALL(cuMemAllocPitch_v2, out, pitch, width, height, 4u); })

struct pitched {
    void *pointer;
    size_t pitch, width, height;
};
struct extent {
    size_t width, height, depth;
};
API(cudaMalloc3D, (struct pitched * out, struct extent extent), {
    out->width = extent.width, out->height = extent.height;
    CALL(cuMemAllocPitch_v2, &out->pointer, &out->pitch, extent.width, extent.height * extent.depth, 4u);
})
API(cudaFree, (void *pointer), { CALL(cuMemFree_v2, pointer); })
API(cudaMallocHost, (void **out, size_t bytes), { CALL(cuMemAllocHost_v2, out, bytes); })
API(cudaHostAlloc, (void **out, size_t bytes, unsigned flags), { CALL(cuMemHostAlloc, out, bytes, flags); })
API(cudaFreeHost, (void *pointer), { CALL(cuMemFreeHost, pointer); })
API(cudaHostRegister, (void *pointer, size_t bytes, unsigned flags),
    { CALL(cuMemHostRegister_v2, pointer, bytes, flags); })
API(cudaHostUnregister, (void *pointer), { CALL(cuMemHostUnregister, pointer); })
API(cudaHostGetDevicePointer, (void **out, void *pointer, unsigned flags),
    { CALL(cuMemHostGetDevicePointer_v2, out, pointer, flags); })
API(cudaHostGetFlags, (unsigned *out, void *pointer), { CALL(cuMemHostGetFlags, out, pointer); })
API(cudaMemGetInfo, (size_t * available, size_t *total), { CALL(cuMemGetInfo_v2, available, total); })

API2(_ptsz, cudaMallocAsync, (void **out, size_t bytes, void *stream), { CALL2(cuMemAllocAsync, out, bytes, stream); })
API2(_ptsz, cudaMallocFromPoolAsync, (void **out, size_t bytes, void *pool, void *stream),
     { CALL2(cuMemAllocFromPoolAsync, out, bytes, pool, stream); })
API2(_ptsz, cudaFreeAsync, (void *pointer, void *stream), { CALL2(cuMemFreeAsync, pointer, stream); })
API(cudaDeviceGetDefaultMemPool, (void **out, int device), { CALL(cuDeviceGetDefaultMemPool, out, device); })
API(cudaDeviceGetMemPool, (void **out, int device), { CALL(cuDeviceGetMemPool, out, device); })
API(cudaDeviceSetMemPool, (int device, void *pool), { CALL(cuDeviceSetMemPool, device, pool); })
API(cudaMemPoolCreate, (void **out, const void *props), { CALL(cuMemPoolCreate, out, props); })
API(cudaMemPoolDestroy, (void *pool), { CALL(cuMemPoolDestroy, pool); })
API(cudaMemPoolTrimTo, (void *pool, size_t keep), { CALL(cuMemPoolTrimTo, pool, keep); })
API(cudaMemPoolSetAccess, (void *pool, const void *list, size_t count), { CALL(cuMemPoolSetAccess, pool, list, count); })
API(cudaMemPoolGetAccess, (int *flags, void *pool, void *location), { CALL(cuMemPoolGetAccess, flags, pool, location); })
API(cudaMemPoolGetAttribute, (void *pool, int attribute, void *value),
    { CALL(cuMemPoolGetAttribute, pool, attribute, value); })
API(cudaMemPoolSetAttribute, (void *pool, int attribute, void *value),
    { CALL(cuMemPoolSetAttribute, pool, attribute, value); })
#if SIMGPU_CUDA >= 13
API2(_ptsz, cudaMemPrefetchAsync, (const void *p, size_t bytes, uint64_t location, unsigned flags, void *stream),
     { CALL2(cuMemPrefetchAsync_v2, p, bytes, location, flags, stream); })
API(cudaMemAdvise, (const void *p, size_t bytes, int advice, uint64_t location), { READY(); return SUCCESS; })
#else
API2(_ptsz, cudaMemPrefetchAsync, (const void *p, size_t bytes, int device, void *stream),
     { CALL2(cuMemPrefetchAsync_v2, p, bytes, (uint64_t)1 | (uint64_t)device << 32, 0u, stream); })
API2(_ptsz, cudaMemPrefetchAsync_v2, (const void *p, size_t bytes, uint64_t location, unsigned flags, void *stream),
     { CALL2(cuMemPrefetchAsync_v2, p, bytes, location, flags, stream); })
API(cudaMemAdvise, (const void *p, size_t bytes, int advice, int device), { READY(); return SUCCESS; })
#endif

struct pointer_attributes {
    int type, device;
    void *device_pointer, *host_pointer;
};
// cudaMemoryType: 0 unregistered, 1 host, 2 device, 3 managed. Numbers of CUpointer_attribute as in cuda.h.
API(cudaPointerGetAttributes, (struct pointer_attributes * out, const void *pointer), {
    READY();
    if (!out)
        return remember(INVALID_VALUE);
    uint32_t type = 0, managed = 0;
    int device = -2, attributes[] = {2, 8, 9};
    void *data[] = {&type, &managed, &device};
    error_t_ error = driver.cuPointerGetAttributes(3u, attributes, data, pointer);
    out->type = managed ? 3 : (int)type;
    out->device = type ? device : -2;
    out->device_pointer = type ? (void *)pointer : NULL;
    out->host_pointer = type == 2 && !managed ? NULL : (void *)pointer;
    return remember(error);
})

// The driver says the direction in the function's name.
API2(_ptds, cudaMemcpy, (void *dst, const void *src, size_t bytes, int kind), {
    switch (kind) {
    case HOST_DEVICE: CALL2(cuMemcpyHtoD_v2, dst, src, bytes);
    case DEVICE_HOST: CALL2(cuMemcpyDtoH_v2, dst, src, bytes);
    case DEVICE_DEVICE: CALL2(cuMemcpyDtoD_v2, dst, src, bytes);
    case HOST_HOST: case BY_ADDRESS: CALL2(cuMemcpy, dst, src, bytes);
    default: return remember(INVALID_DIRECTION);
    }
})
API2(_ptsz, cudaMemcpyAsync, (void *dst, const void *src, size_t bytes, int kind, void *stream), {
    switch (kind) {
    case HOST_DEVICE: CALL2(cuMemcpyHtoDAsync_v2, dst, src, bytes, stream);
    case DEVICE_HOST: CALL2(cuMemcpyDtoHAsync_v2, dst, src, bytes, stream);
    case DEVICE_DEVICE: CALL2(cuMemcpyDtoDAsync_v2, dst, src, bytes, stream);
    case HOST_HOST: case BY_ADDRESS: CALL2(cuMemcpyAsync, dst, src, bytes, stream);
    default: return remember(INVALID_DIRECTION);
    }
})
// The driver names a device by one of its contexts. Nothing reads them in the stand-in, but tools may.
API(cudaMemcpyPeer, (void *dst, int dst_device, const void *src, int src_device, size_t bytes), {
    enum { per_thread = 0 };
    CALL2(cuMemcpyPeer, dst, context_of(dst_device), src, context_of(src_device), bytes);
})
API(cudaMemcpyPeerAsync, (void *dst, int dst_device, const void *src, int src_device, size_t bytes, void *stream), {
    enum { per_thread = 0 };
    CALL2(cuMemcpyPeerAsync, dst, context_of(dst_device), src, context_of(src_device), bytes, stream);
})

static error_t_ symbol_address(const void *symbol, size_t offset, char **out) {
    char *start = variable_address(symbol);
    *out = start + offset;
    return start ? SUCCESS : remember(INVALID_SYMBOL);
}
API2(_ptds, cudaMemcpyToSymbol, (const void *symbol, const void *src, size_t bytes, size_t offset, int kind), {
    READY();
    char *dst = NULL;
    error_t_ error = symbol_address(symbol, offset, &dst);
    if (error)
        return error;
    if (kind == DEVICE_DEVICE)
        CALL2(cuMemcpyDtoD_v2, dst, src, bytes);
    CALL2(cuMemcpyHtoD_v2, dst, src, bytes);
})
API2(_ptsz, cudaMemcpyToSymbolAsync,
     (const void *symbol, const void *src, size_t bytes, size_t offset, int kind, void *stream), {
         READY();
         char *dst = NULL;
         error_t_ error = symbol_address(symbol, offset, &dst);
         if (error)
             return error;
         if (kind == DEVICE_DEVICE)
             CALL2(cuMemcpyDtoDAsync_v2, dst, src, bytes, stream);
         CALL2(cuMemcpyHtoDAsync_v2, dst, src, bytes, stream);
     })
API2(_ptds, cudaMemcpyFromSymbol, (void *dst, const void *symbol, size_t bytes, size_t offset, int kind), {
    READY();
    char *src = NULL;
    error_t_ error = symbol_address(symbol, offset, &src);
    if (error)
        return error;
    if (kind == DEVICE_DEVICE)
        CALL2(cuMemcpyDtoD_v2, dst, src, bytes);
    CALL2(cuMemcpyDtoH_v2, dst, src, bytes);
})
API2(_ptsz, cudaMemcpyFromSymbolAsync,
     (void *dst, const void *symbol, size_t bytes, size_t offset, int kind, void *stream), {
         READY();
         char *src = NULL;
         error_t_ error = symbol_address(symbol, offset, &src);
         if (error)
             return error;
         if (kind == DEVICE_DEVICE)
             CALL2(cuMemcpyDtoDAsync_v2, dst, src, bytes, stream);
         CALL2(cuMemcpyDtoHAsync_v2, dst, src, bytes, stream);
     })

static int source_type(int kind) { return kind == BY_ADDRESS ? 4 : kind == HOST_HOST || kind == HOST_DEVICE ? 1 : 2; }
static int target_type(int kind) { return kind == BY_ADDRESS ? 4 : kind == HOST_HOST || kind == DEVICE_HOST ? 1 : 2; }

#define PARAMS_2D void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width, size_t height, int kind
#define DRIVER_2D                                                                                              \
    struct memcpy_2d c = {.dst_type = target_type(kind), .dst_host = dst, .dst_device = (uint64_t)dst,         \
                          .dst_pitch = dst_pitch, .src_type = source_type(kind), .src_host = src,              \
                          .src_device = (uint64_t)src, .src_pitch = src_pitch, .width = width, .height = height}
API2(_ptds, cudaMemcpy2D, (PARAMS_2D), {
    DRIVER_2D;
    CALL2(cuMemcpy2DUnaligned_v2, &c);
})
API2(_ptsz, cudaMemcpy2DAsync, (PARAMS_2D, void *stream), {
    DRIVER_2D;
    CALL2(cuMemcpy2DAsync_v2, &c, stream);
})

struct position {
    size_t x, y, z;
};
struct params_3d { // cudaMemcpy3DParms
    void *src_array;
    struct position src_at;
    struct pitched src;
    void *dst_array;
    struct position dst_at;
    struct pitched dst;
    struct extent extent;
    int kind;
};
// A width and x positions count elements when an array takes part, and bytes otherwise (cudaMemcpy3DParms).
static size_t unit_of(void *array) {
    size_t width, unit = array_unit(array, &width);
    return unit ? unit : 1;
}
struct memcpy_3d driver_copy_3d(const struct params_3d *p) {
    enum { ARRAY = 3 };
    size_t unit = p->src_array ? unit_of(p->src_array) : unit_of(p->dst_array);
    return (struct memcpy_3d){
        .src_x = p->src_at.x * unit, .src_y = p->src_at.y, .src_z = p->src_at.z, .src_host = p->src.pointer,
        .src_array = p->src_array, .src_type = p->src_array ? ARRAY : source_type(p->kind),
        .src_device = (uint64_t)p->src.pointer, .src_pitch = p->src.pitch, .src_height = p->src.height,
        .dst_x = p->dst_at.x * unit, .dst_y = p->dst_at.y, .dst_z = p->dst_at.z, .dst_host = p->dst.pointer,
        .dst_array = p->dst_array, .dst_type = p->dst_array ? ARRAY : target_type(p->kind),
        .dst_device = (uint64_t)p->dst.pointer, .dst_pitch = p->dst.pitch, .dst_height = p->dst.height,
        .width = p->extent.width * unit, .height = p->extent.height, .depth = p->extent.depth};
}
API2(_ptds, cudaMemcpy3D, (const struct params_3d *p), {
    READY();
    struct memcpy_3d c = driver_copy_3d(p);
    CALL2(cuMemcpy3D_v2, &c);
})
API2(_ptsz, cudaMemcpy3DAsync, (const struct params_3d *p, void *stream), {
    READY();
    struct memcpy_3d c = driver_copy_3d(p);
    CALL2(cuMemcpy3DAsync_v2, &c, stream);
})
struct peer_3d { // cudaMemcpy3DPeerParms
    void *src_array;
    struct position src_at;
    struct pitched src;
    int src_device;
    void *dst_array;
    struct position dst_at;
    struct pitched dst;
    int dst_device;
    struct extent extent;
};
static struct memcpy_3d driver_peer_3d(const struct peer_3d *p) {
    struct params_3d plain = {p->src_array, p->src_at, p->src, p->dst_array, p->dst_at, p->dst, p->extent, DEVICE_DEVICE};
    struct memcpy_3d c = driver_copy_3d(&plain);
    c.src_reserved = context_of(p->src_device), c.dst_reserved = context_of(p->dst_device);
    return c;
}
API2(_ptds, cudaMemcpy3DPeer, (const struct peer_3d *p), {
    READY();
    struct memcpy_3d c = driver_peer_3d(p);
    CALL2(cuMemcpy3DPeer, &c);
})
API2(_ptsz, cudaMemcpy3DPeerAsync, (const struct peer_3d *p, void *stream), {
    READY();
    struct memcpy_3d c = driver_peer_3d(p);
    CALL2(cuMemcpy3DPeerAsync, &c, stream);
})
#if SIMGPU_CUDA >= 13
API2(_ptsz, cudaMemcpyBatchAsync,
     (void **dsts, void **srcs, size_t *sizes, size_t count, void *attributes, size_t *indices, size_t attribute_count,
      void *stream),
     { CALL2(cuMemcpyBatchAsync_v2, dsts, srcs, sizes, count, attributes, indices, attribute_count, stream); })
API2(_ptsz, cudaMemcpyWithAttributesAsync, (void *dst, const void *src, size_t bytes, void *attributes, void *stream),
     { CALL2(cuMemcpyWithAttributesAsync, dst, src, bytes, attributes, stream); })
API2(_ptsz, cudaMemcpy3DBatchAsync, (size_t count, struct batch_3d *ops, uint64_t flags, void *stream),
     { CALL2(cuMemcpy3DBatchAsync_v2, count, ops, flags, stream); })
API2(_ptsz, cudaMemcpy3DWithAttributesAsync, (struct batch_3d * op, uint64_t flags, void *stream),
     { CALL2(cuMemcpy3DWithAttributesAsync, op, flags, stream); })
#else
API2(_ptsz, cudaMemcpy3DBatchAsync, (size_t count, struct batch_3d *ops, size_t *failed, uint64_t flags, void *stream),
     { CALL2(cuMemcpy3DBatchAsync_v2, count, ops, flags, stream); })
API2(_ptsz, cudaMemcpyBatchAsync,
     (void **dsts, void **srcs, size_t *sizes, size_t count, void *attributes, size_t *indices, size_t attribute_count,
      size_t *failed, void *stream),
     { CALL2(cuMemcpyBatchAsync_v2, dsts, srcs, sizes, count, attributes, indices, attribute_count, stream); })
#endif

API2(_ptds, cudaMemset, (void *dst, int value, size_t count), { CALL2(cuMemsetD8_v2, dst, value & 255, count); })
API2(_ptsz, cudaMemsetAsync, (void *dst, int value, size_t count, void *stream),
     { CALL2(cuMemsetD8Async, dst, value & 255, count, stream); })
API2(_ptds, cudaMemset2D, (void *dst, size_t pitch, int value, size_t width, size_t height),
     { CALL2(cuMemsetD2D8_v2, dst, pitch, value & 255, width, height); })
API2(_ptsz, cudaMemset2DAsync, (void *dst, size_t pitch, int value, size_t width, size_t height, void *stream),
     { CALL2(cuMemsetD2D8Async, dst, pitch, value & 255, width, height, stream); })
// Rows follow each other at the pitch through all slices.
API2(_ptds, cudaMemset3D, (struct pitched dst, int value, struct extent extent), {
    size_t rows = extent.depth > 1 ? dst.height * extent.depth : extent.height;
    CALL2(cuMemsetD2D8_v2, dst.pointer, dst.pitch, value & 255, extent.width, rows);
})
API2(_ptsz, cudaMemset3DAsync, (struct pitched dst, int value, struct extent extent, void *stream), {
    size_t rows = extent.depth > 1 ? dst.height * extent.depth : extent.height;
    CALL2(cuMemsetD2D8Async, dst.pointer, dst.pitch, value & 255, extent.width, rows, stream);
})
