// cuBLASLt: descriptors without content, one algorithm, one kernel. In: public calls. Out: driver launches. Absent:
// results and the choice of algorithms.
#define _GNU_SOURCE
#include "blas.h"
#include <stdlib.h>
#include <string.h>

enum { DESCRIPTOR_BYTES = 512 }; // more than any opaque descriptor of cublasLt.h

static int create(void **out) {
    if (!out)
        return BLAS_INVALID_VALUE;
    *out = calloc(1, DESCRIPTOR_BYTES);
    return *out ? BLAS_SUCCESS : BLAS_ALLOC_FAILED;
}
static int destroy(void *object) {
    free(object);
    return BLAS_SUCCESS;
}
#define OBJECT(name)                                                                                           \
    API(name##Create, (void **out), { return create(out); })                                                   \
    API(name##Destroy, (void *object), { return destroy(object); })                                            \
    API(name##SetAttribute, (void *object, int attribute, const void *value, size_t size), {                   \
        return object ? BLAS_SUCCESS : BLAS_INVALID_VALUE;                                                     \
    })                                                                                                         \
    API(name##GetAttribute, (const void *object, int attribute, void *value, size_t size, size_t *written), {  \
        if (value)                                                                                             \
            memset(value, 0, size);                                                                            \
        if (written)                                                                                           \
            *written = size;                                                                                   \
        return BLAS_SUCCESS;                                                                                   \
    })
OBJECT(cublasLtMatmulDesc)
OBJECT(cublasLtMatrixLayout)
OBJECT(cublasLtMatmulPreference)
OBJECT(cublasLtMatrixTransformDesc)
API(cublasLtCreate, (void **out), { return create(out); })
API(cublasLtDestroy, (void *handle), { return destroy(handle); })
API(cublasLtMatmulDescInit_internal, (void *object), { return BLAS_SUCCESS; })
API(cublasLtMatrixLayoutInit_internal, (void *object), { return BLAS_SUCCESS; })
API(cublasLtMatmulPreferenceInit_internal, (void *object), { return BLAS_SUCCESS; })
API(cublasLtMatrixTransformDescInit_internal, (void *object), { return BLAS_SUCCESS; })
EXPORT size_t cublasLtGetVersion(void) {
    COUNT("cublasLtGetVersion");
    return SIMGPU_CUDA * 10000;
}
EXPORT size_t cublasLtGetCudartVersion(void) {
    COUNT("cublasLtGetCudartVersion");
    return SIMGPU_CUDA * 1000;
}

struct heuristic { // cublasLtMatmulHeuristicResult_t
    uint64_t algorithm[8];
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};
API(cublasLtMatmulAlgoGetHeuristic,
    (void *handle, void *operation, void *a, void *b, void *c, void *d, void *preference, int wanted,
     struct heuristic *out, int *found),
    {
        if (!out || !found || wanted < 1)
            return BLAS_INVALID_VALUE;
        memset(out, 0, sizeof *out);
        *found = 1;
        return BLAS_SUCCESS;
    })
API(cublasLtMatmul,
    (void *handle, void *operation, const void *alpha, const void *a, void *a_layout, const void *b, void *b_layout,
     const void *beta, const void *c, void *c_layout, void *d, void *d_layout, const void *algorithm, void *workspace,
     size_t workspace_bytes, void *stream),
    {
        int status = blas_launch(stream, "sim_gemm");
        return status;
    })
API(cublasLtMatrixTransform,
    (void *handle, void *operation, const void *alpha, const void *a, void *a_layout, const void *beta, const void *b,
     void *b_layout, void *c, void *c_layout, void *stream),
    {
        int status = blas_launch(stream, "sim_transform");
        return status;
    })
