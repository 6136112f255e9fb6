// What nvcc 13's launch syntax calls. Reaches cudaLaunchKernel by a jump, as measured on the real library: stack
// pointer and arguments there are the caller's. build.rs compiles this file alone with sibling calls on.
#include "runtime.h"

// dim3 by value is a word of x and y and a word of z, so these registers hold what the caller put there.
#define PARAMS                                                                                                 \
    const void *kernel, uint64_t grid_xy, uint32_t grid_z, uint64_t block_xy, uint32_t block_z, void **params, \
        size_t shared, void *stream
error_t_ cudaLaunchKernel(PARAMS);
error_t_ cudaLaunchKernel_ptsz(PARAMS);

EXPORT error_t_ __cudaLaunchKernel(PARAMS) {
    COUNT("__cudaLaunchKernel");
    return cudaLaunchKernel(kernel, grid_xy, grid_z, block_xy, block_z, params, shared, stream);
}
EXPORT error_t_ __cudaLaunchKernel_ptsz(PARAMS) {
    COUNT("__cudaLaunchKernel_ptsz");
    return cudaLaunchKernel_ptsz(kernel, grid_xy, grid_z, block_xy, block_z, params, shared, stream);
}
