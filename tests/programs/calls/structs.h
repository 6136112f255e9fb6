// Layouts of public structures of CUDA 12.9 and 13.5 (cuda.h, driver_types.h) and of NCCL, from their documented
// fields. Names are ours.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct dim3 {
    uint32_t x, y, z;
};
struct launch_config { // cudaLaunchConfig_t
    struct dim3 grid, block;
    size_t shared;
    void *stream, *attributes;
    uint32_t count;
};
struct driver_launch_config { // CUlaunchConfig
    uint32_t grid[3], block[3], shared;
    void *stream, *attributes;
    uint32_t count;
};
struct multi_launch { // cudaLaunchParams, of 12 alone
    const void *kernel;
    struct dim3 grid, block;
    void **params;
    size_t shared;
    void *stream;
};
struct driver_multi_launch { // CUDA_LAUNCH_PARAMS
    void *function;
    struct dim3 grid, block;
    uint32_t shared;
    void *stream, **params;
};

struct position {
    size_t x, y, z;
};
struct extent {
    size_t width, height, depth;
};
struct pitched { // cudaPitchedPtr
    void *pointer;
    size_t pitch, width, height;
};
struct copy_3d { // cudaMemcpy3DParms
    void *src_array;
    struct position src_at;
    struct pitched src;
    void *dst_array;
    struct position dst_at;
    struct pitched dst;
    struct extent extent;
    int kind;
};
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
struct driver_copy_2d { // CUDA_MEMCPY2D; types: 1 host, 2 device, 3 array, 4 unified
    size_t src_x, src_y;
    int src_type;
    const void *src_host, *src_device, *src_array;
    size_t src_pitch, dst_x, dst_y;
    int dst_type;
    void *dst_host, *dst_device, *dst_array;
    size_t dst_pitch, width, height;
};
struct driver_copy_3d { // CUDA_MEMCPY3D; _PEER has contexts in the reserved words
    size_t src_x, src_y, src_z, src_lod;
    int src_type;
    const void *src_host, *src_device, *src_array;
    void *src_context;
    size_t src_pitch, src_height, dst_x, dst_y, dst_z, dst_lod;
    int dst_type;
    void *dst_host, *dst_device, *dst_array, *dst_context;
    size_t dst_pitch, dst_height, width, height, depth;
};
struct location { // cudaMemLocation: 1 is a device
    int type, id;
};
struct copy_attributes { // cudaMemcpyAttributes
    int access_order;
    struct location src, dst;
    unsigned flags;
};
struct operand { // cudaMemcpy3DOperand of type pointer
    int type;
    void *pointer;
    size_t row_length, layer_height;
    struct location location;
};
struct batch_copy { // cudaMemcpy3DBatchOp
    struct operand src, dst;
    struct extent extent;
    int access_order;
    unsigned flags;
};
_Static_assert(sizeof(struct batch_copy) == 112 && sizeof(struct copy_3d) == 160, "as the libraries lay them out");

struct channels { // cudaChannelFormatDesc; kind 1 is unsigned
    int x, y, z, w, kind;
};
struct array_descriptor { // CUDA_ARRAY_DESCRIPTOR; format 1 is 8 bits unsigned
    size_t width, height;
    int format;
    unsigned channels;
};

struct allocation_properties { // CUmemAllocationProp
    int type, handle_types;
    struct location location;
    void *unused[2];
};
struct pool_properties { // CUmemPoolProps
    int type, handle_types;
    struct location location;
    void *unused;
    size_t most;
    unsigned short usage;
    unsigned char reserved[54];
};
struct access { // CUmemAccessDesc; flags 3 is read and write
    struct location location;
    int flags;
};

struct kernel_node { // cudaKernelNodeParams, CUDA_KERNEL_NODE_PARAMS_v1
    const void *kernel;
    struct dim3 grid, block;
    uint32_t shared;
    void **params, **extra;
};
struct kernel_node_v2 { // CUDA_KERNEL_NODE_PARAMS_v2
    struct kernel_node base;
    void *kernel, *context;
};
struct set_node { // cudaMemsetParams, CUDA_MEMSET_NODE_PARAMS
    void *dst;
    size_t pitch;
    unsigned value, element;
    size_t width, height;
    void *context; // of _v2
};
struct host_node { // cudaHostNodeParams
    void (*fn)(void *);
    void *data;
};
struct any_node { // cudaGraphNodeParams, CUgraphNodeParams; types: 0 kernel, 1 copy, 2 set
    int type, reserved[3];
    union {
        int64_t words[29];
        struct kernel_node_v2 kernel;
        struct {
            int flags, reserved;
            void *context;
            struct copy_3d copy;
        } copy;
        struct {
            int flags, reserved;
            void *context;
            struct driver_copy_3d copy;
        } driver_copy;
        struct set_node set;
    };
    int64_t tail;
};
struct instantiate_params { // cudaGraphInstantiateParams
    uint64_t flags;
    void *upload_stream, *error_node;
    int result;
};
struct update_result { // cudaGraphExecUpdateResultInfo
    int result;
    void *error_node, *error_from_node;
};

struct unique_id { // ncclUniqueId
    char bytes[128];
};
