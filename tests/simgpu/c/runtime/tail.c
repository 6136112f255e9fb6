// What nvcc 13's launch syntax calls. Reaches cudaLaunchKernel by a jump, as measured on the real library: stack
// pointer and arguments there are the caller's. build.rs compiles this file alone with sibling calls on.
#include "runtime.h"

struct dim3 {
    uint32_t x, y, z;
};
#define PARAMS const void *kernel, struct dim3 grid, struct dim3 block, void **params, size_t shared, void *stream
error_t_ cudaLaunchKernel(PARAMS);
error_t_ cudaLaunchKernel_ptsz(PARAMS);

EXPORT error_t_ __cudaLaunchKernel(PARAMS) {
    COUNT("__cudaLaunchKernel");
    return cudaLaunchKernel(kernel, grid, block, params, shared, stream);
}
EXPORT error_t_ __cudaLaunchKernel_ptsz(PARAMS) {
    COUNT("__cudaLaunchKernel_ptsz");
    return cudaLaunchKernel_ptsz(kernel, grid, block, params, shared, stream);
}
