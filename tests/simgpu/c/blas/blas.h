// What libcublas and libcublasLt share. In: nothing. Out: status codes and the launch. Absent: data types.
#pragma once
#include "../log/log.h"
enum { BLAS_SUCCESS = 0, BLAS_NOT_INITIALIZED = 1, BLAS_ALLOC_FAILED = 3, BLAS_INVALID_VALUE = 7, BLAS_EXECUTION_FAILED = 13 };
int blas_launch(void *stream, const char *kernel);
#define API(name, params, ...)                                                                                 \
    EXPORT int name params {                                                                                   \
        COUNT(#name);                                                                                          \
        __VA_ARGS__                                                                                            \
    }
