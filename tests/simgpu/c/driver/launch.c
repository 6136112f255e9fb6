// Kernel launches. In: every public launch form. Out: one operation each. Absent: a body; kernels take time and touch
// no data.
#define _GNU_SOURCE
#include "cuda_abi.h"
#include "sim.h"

enum { MAX_THREADS = 1024, INVALID_CONFIGURATION = 1 };

static CUresult launch(struct stream *s, void *handle, const uint32_t grid[3], const uint32_t block[3],
                       uint32_t shared) {
    struct function *function = handle;
    if (!function || function->magic != FUNCTION_MAGIC)
        return INVALID_HANDLE;
    uint64_t threads = (uint64_t)block[0] * block[1] * block[2], blocks = (uint64_t)grid[0] * grid[1] * grid[2];
    if (threads == 0 || threads > MAX_THREADS || blocks == 0)
        return INVALID_CONFIGURATION;
    struct work work = {.kind = OP_KERNEL, .kernel = {.function = function, .shared = shared}};
    for (int i = 0; i < 3; i++)
        work.kernel.grid[i] = grid[i], work.kernel.block[i] = block[i];
    return submit(s, &work, NULL);
}

API2(_ptsz, cuLaunchKernel,
     (void *function, uint32_t gx, uint32_t gy, uint32_t gz, uint32_t bx, uint32_t by, uint32_t bz, uint32_t shared,
      void *stream, void **params, void **extra),
     {
         STREAM(stream);
         return launch(s, function, (uint32_t[]){gx, gy, gz}, (uint32_t[]){bx, by, bz}, shared);
     })
API2(_ptsz, cuLaunchCooperativeKernel,
     (void *function, uint32_t gx, uint32_t gy, uint32_t gz, uint32_t bx, uint32_t by, uint32_t bz, uint32_t shared,
      void *stream, void **params),
     {
         STREAM(stream);
         return launch(s, function, (uint32_t[]){gx, gy, gz}, (uint32_t[]){bx, by, bz}, shared);
     })
API2(_ptsz, cuLaunchKernelEx,
     (const struct launch_config *config, void *function, void **params, void **extra), {
         if (!config)
             return INVALID_VALUE;
         STREAM(config->stream);
         return launch(s, function, config->grid, config->block, config->shared);
     })

// CUDA_LAUNCH_PARAMS: function, grid, block, shared bytes, stream, params.
struct multi_launch {
    void *function;
    uint32_t grid[3], block[3], shared;
    void *stream, **params;
};
API(cuLaunchCooperativeKernelMultiDevice, (struct multi_launch * list, unsigned count, unsigned flags), {
    READY();
    for (unsigned i = 0; i < count; i++) {
        struct stream *s = stream_of(list[i].stream, 0);
        CUresult result = s ? launch(s, list[i].function, list[i].grid, list[i].block, list[i].shared) : INVALID_HANDLE;
        if (result)
            return result;
    }
    return CUDA_SUCCESS;
})

// The launch calls of before CUDA 4: block shape is state of the function. The stand-in assumes 1x1x1.
API(cuFuncSetBlockShape, (void *function, int x, int y, int z), {
    READY();
    return CUDA_SUCCESS;
})
API(cuLaunch, (void *function), {
    enum { per_thread = 0 };
    STREAM(NULL);
    return launch(s, function, (uint32_t[]){1, 1, 1}, (uint32_t[]){1, 1, 1}, 0);
})
API(cuLaunchGrid, (void *function, int width, int height), {
    enum { per_thread = 0 };
    STREAM(NULL);
    return launch(s, function, (uint32_t[]){(uint32_t)width, (uint32_t)height, 1}, (uint32_t[]){1, 1, 1}, 0);
})
API(cuLaunchGridAsync, (void *function, int width, int height, void *stream), {
    enum { per_thread = 0 };
    STREAM(stream);
    return launch(s, function, (uint32_t[]){(uint32_t)width, (uint32_t)height, 1}, (uint32_t[]){1, 1, 1}, 0);
})
