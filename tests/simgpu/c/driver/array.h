// CUDA arrays, for the files that copy to and from them.
#pragma once
#include "cuda_abi.h"
#include "sim.h"
enum { ARRAY_MAGIC = 0x41525259 };
struct array {
    uint64_t magic;
    struct array_3d_descriptor descriptor;
    CUdeviceptr base;
    size_t row; // bytes
};
struct array *array_of(void *handle);
// Bytes of one slice of it.
size_t array_slice(const struct array *array);

// copy.c: a negative direction means that the addresses tell.
CUresult copy_plain(struct stream *s, CUdeviceptr dst, CUdeviceptr src, size_t bytes, int direction, bool wait);
