// Layouts of public structures that cross the API, from the documented field lists of CUDA 13.5's cuda.h. Names are
// ours. Absent: everything that the stand-in passes through without looking inside.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct memcpy_2d { // CUDA_MEMCPY2D
    size_t src_x, src_y;
    int src_type;
    const void *src_host;
    uint64_t src_device;
    void *src_array;
    size_t src_pitch, dst_x, dst_y;
    int dst_type;
    void *dst_host;
    uint64_t dst_device;
    void *dst_array;
    size_t dst_pitch, width, height;
};

struct memcpy_3d { // CUDA_MEMCPY3D; CUDA_MEMCPY3D_PEER has contexts in the reserved words
    size_t src_x, src_y, src_z, src_lod;
    int src_type;
    const void *src_host;
    uint64_t src_device;
    void *src_array, *src_reserved;
    size_t src_pitch, src_height, dst_x, dst_y, dst_z, dst_lod;
    int dst_type;
    void *dst_host;
    uint64_t dst_device;
    void *dst_array, *dst_reserved;
    size_t dst_pitch, dst_height, width, height, depth;
};

struct operand_3d { // CUmemcpy3DOperand, cudaMemcpy3DOperand
    int type;
    union {
        struct {
            uint64_t pointer;
            size_t row_length, layer_height;
            int location[2];
        };
        struct {
            void *array;
            size_t x, y, z;
        };
    };
};
enum { OPERAND_POINTER = 1, OPERAND_ARRAY };
struct batch_3d { // CUDA_MEMCPY3D_BATCH_OP, cudaMemcpy3DBatchOp
    struct operand_3d src, dst;
    size_t width, height, depth;
    int access_order;
    uint32_t flags;
};

// Numbers of CUarray_format: integers of 8, 16 and 32 bits with and without sign, half and float. 0 for others.
static inline size_t array_format_bytes(int format) {
    switch (format) {
    case 0x01: case 0x08: return 1;
    case 0x02: case 0x09: case 0x10: return 2;
    case 0x03: case 0x0a: case 0x20: return 4;
    default: return 0;
    }
}
struct array_descriptor { // CUDA_ARRAY_DESCRIPTOR
    size_t width, height;
    int format;
    uint32_t channels;
};
struct array_3d_descriptor { // CUDA_ARRAY3D_DESCRIPTOR
    size_t width, height, depth;
    int format;
    uint32_t channels, flags;
};

struct launch_config { // CUlaunchConfig
    uint32_t grid[3], block[3], shared;
    void *stream;
    void *attributes;
    uint32_t attribute_count;
};

struct kernel_node_params { // CUDA_KERNEL_NODE_PARAMS_v1; _v2 adds CUkernel and CUcontext
    void *function;
    uint32_t grid[3], block[3], shared;
    void **params, **extra;
};
struct kernel_node_params_v2 {
    struct kernel_node_params base;
    void *kernel, *context;
};

struct memset_node_params { // CUDA_MEMSET_NODE_PARAMS_v1
    uint64_t dst;
    size_t pitch;
    uint32_t value, element;
    size_t width, height;
};

struct host_node_params { // CUDA_HOST_NODE_PARAMS_v1
    void (*fn)(void *);
    void *data;
};

struct graph_node_params { // CUgraphNodeParams: a type and a union of 29 words
    int type, reserved[3];
    union {
        uint64_t words[29];
        struct kernel_node_params_v2 kernel;
        struct {
            int flags, reserved;
            void *context;
            struct memcpy_3d copy;
        } memcpy;
        struct memset_node_params memset;
        struct host_node_params host;
        void *graph;
        void *event;
    };
    uint64_t tail;
};

struct graph_instantiate_params { // CUDA_GRAPH_INSTANTIATE_PARAMS
    uint64_t flags;
    void *upload_stream, *error_node;
    int result;
};

struct graph_update_result { // CUgraphExecUpdateResultInfo
    int result;
    void *error_node, *error_from_node;
};
