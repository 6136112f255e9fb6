// cuBLAS: handles, and one kernel per operation. In: a handle, first argument of all. Out: driver launches. Absent:
// results; arguments after the handle are not looked at, which the C calling conventions allow.
#define _GNU_SOURCE
#include "blas.h"
#include <stdlib.h>
#include <string.h>

struct handle {
    void *stream;
    int math_mode, pointer_mode, atomics_mode, sm_count;
    void *workspace;
};
#define HANDLE(h)                                                                                              \
    struct handle *handle = h;                                                                                 \
    if (!handle)                                                                                               \
    return BLAS_NOT_INITIALIZED

API(cublasCreate_v2, (void **out), {
    if (!out)
        return BLAS_INVALID_VALUE;
    *out = calloc(1, sizeof(struct handle));
    return *out ? BLAS_SUCCESS : BLAS_ALLOC_FAILED;
})
API(cublasDestroy_v2, (void *h), {
    HANDLE(h);
    free(handle);
    return BLAS_SUCCESS;
})
API(cublasGetVersion_v2, (void *h, int *out), {
    *out = SIMGPU_CUDA * 10000;
    return BLAS_SUCCESS;
})
API(cublasGetProperty, (int type, int *out), {
    *out = type == 0 ? SIMGPU_CUDA : 0;
    return BLAS_SUCCESS;
})
EXPORT size_t cublasGetCudartVersion(void) {
    COUNT("cublasGetCudartVersion");
    return SIMGPU_CUDA * 1000;
}
API(cublasSetStream_v2, (void *h, void *stream), {
    HANDLE(h);
    handle->stream = stream;
    return BLAS_SUCCESS;
})
API(cublasGetStream_v2, (void *h, void **out), {
    HANDLE(h);
    *out = handle->stream;
    return BLAS_SUCCESS;
})
API(cublasSetWorkspace_v2, (void *h, void *workspace, size_t bytes), {
    HANDLE(h);
    handle->workspace = workspace;
    return BLAS_SUCCESS;
})
#define PROPERTY(set, get, field)                                                                              \
    API(set, (void *h, int value), {                                                                           \
        HANDLE(h);                                                                                             \
        handle->field = value;                                                                                 \
        return BLAS_SUCCESS;                                                                                   \
    })                                                                                                         \
    API(get, (void *h, int *out), {                                                                            \
        HANDLE(h);                                                                                             \
        *out = handle->field;                                                                                  \
        return BLAS_SUCCESS;                                                                                   \
    })
PROPERTY(cublasSetMathMode, cublasGetMathMode, math_mode)
PROPERTY(cublasSetPointerMode_v2, cublasGetPointerMode_v2, pointer_mode)
PROPERTY(cublasSetAtomicsMode, cublasGetAtomicsMode, atomics_mode)
PROPERTY(cublasSetSmCountTarget, cublasGetSmCountTarget, sm_count)

static const char *const names[] = {[0] = "CUBLAS_STATUS_SUCCESS", [1] = "CUBLAS_STATUS_NOT_INITIALIZED",
                                    [3] = "CUBLAS_STATUS_ALLOC_FAILED", [7] = "CUBLAS_STATUS_INVALID_VALUE",
                                    [8] = "CUBLAS_STATUS_ARCH_MISMATCH", [11] = "CUBLAS_STATUS_MAPPING_ERROR",
                                    [13] = "CUBLAS_STATUS_EXECUTION_FAILED", [14] = "CUBLAS_STATUS_INTERNAL_ERROR",
                                    [15] = "CUBLAS_STATUS_NOT_SUPPORTED", [16] = "CUBLAS_STATUS_LICENSE_ERROR"};
static const char *status_name(unsigned status) {
    return status < sizeof names / sizeof *names && names[status] ? names[status] : "CUBLAS_STATUS_UNKNOWN";
}
EXPORT const char *cublasGetStatusString(unsigned status) {
    COUNT("cublasGetStatusString");
    return status_name(status);
}
EXPORT const char *cublasGetStatusName(unsigned status) {
    COUNT("cublasGetStatusName");
    return status_name(status);
}

#define OPERATION(name, kernel)                                                                                \
    API(name, (void *h), {                                                                                     \
        HANDLE(h);                                                                                             \
        int status = blas_launch(handle->stream, kernel);                                                      \
        return status;                                                                                         \
    })
#define EACH_TYPE(before, after, kernel)                                                                       \
    OPERATION(before##S##after, kernel) OPERATION(before##D##after, kernel) OPERATION(before##C##after, kernel) \
    OPERATION(before##Z##after, kernel)
EACH_TYPE(cublas, gemm_v2, "sim_gemm")
EACH_TYPE(cublas, gemmBatched, "sim_gemm_batched")
EACH_TYPE(cublas, gemmStridedBatched, "sim_gemm_batched")
EACH_TYPE(cublas, trsm_v2, "sim_trsm")
EACH_TYPE(cublas, trsmBatched, "sim_trsm")
EACH_TYPE(cublas, gemv_v2, "sim_gemv")
EACH_TYPE(cublas, gemvStridedBatched, "sim_gemv")
EACH_TYPE(cublas, axpy_v2, "sim_axpy")
EACH_TYPE(cublas, scal_v2, "sim_scal")
EACH_TYPE(cublas, copy_v2, "sim_copy")
EACH_TYPE(cublas, geam, "sim_geam")
OPERATION(cublasSdot_v2, "sim_dot")
OPERATION(cublasDdot_v2, "sim_dot")
OPERATION(cublasDotEx, "sim_dot")
OPERATION(cublasHgemm, "sim_gemm")
OPERATION(cublasHgemmBatched, "sim_gemm_batched")
OPERATION(cublasHgemmStridedBatched, "sim_gemm_batched")
OPERATION(cublasSgemmEx, "sim_gemm")
OPERATION(cublasGemmEx, "sim_gemm")
OPERATION(cublasGemmEx_64, "sim_gemm")
OPERATION(cublasSgemm_v2_64, "sim_gemm")
OPERATION(cublasGemmBatchedEx, "sim_gemm_batched")
OPERATION(cublasGemmStridedBatchedEx, "sim_gemm_batched")
OPERATION(cublasGemmStridedBatchedEx_64, "sim_gemm_batched")
