// Every memory set. In: a thread's state. Out: sets of sizes that tell them apart. Absent: graphs.
#define GROUP "set"
#include "calls.h"

CALL(cudaMemset) { was_set(RT(cudaMemset, s->device, 1, (size_t)BYTES), BYTES); }
CALL(cudaMemsetAsync) { was_set(RT(cudaMemsetAsync, s->device, 2, (size_t)BYTES, s->stream), BYTES); }
CALL(cudaMemset_ptds) { was_set(RT(cudaMemset_ptds, s->device, 3, (size_t)501), 501); }
CALL(cudaMemsetAsync_ptsz) { was_set(RT(cudaMemsetAsync_ptsz, s->device, 4, (size_t)503, s->stream), 503); }

enum { PITCH = 64, WIDTH = 44, HEIGHT = 3, DEPTH = 2, AREA = WIDTH * HEIGHT, VOLUME = AREA * DEPTH };
#define AREA_SIZE (size_t)WIDTH, (size_t)HEIGHT
#define SET_2D(name) was_set(RT(name, s->device, (size_t)PITCH, 5, AREA_SIZE), AREA)
#define SET_2D_ON(name) was_set(RT(name, s->device, (size_t)PITCH, 6, AREA_SIZE, s->stream), AREA)
PAIR(cudaMemset2D, _ptds, SET_2D, NULL)
PAIR(cudaMemset2DAsync, _ptsz, SET_2D_ON, NULL)
#define BOX (struct pitched){s->device, PITCH, PITCH, HEIGHT}
#define EXTENT (struct extent){WIDTH, HEIGHT, DEPTH}
#define SET_3D(name) was_set(RT(name, BOX, 7, EXTENT), VOLUME)
#define SET_3D_ON(name) was_set(RT(name, BOX, 8, EXTENT, s->stream), VOLUME)
PAIR(cudaMemset3D, _ptds, SET_3D, NULL)
PAIR(cudaMemset3DAsync, _ptsz, SET_3D_ON, NULL)

// The driver counts elements of 1, 2 and 4 bytes.
#define SET(name, count, bytes) was_set(DRV(name, s->device, 9u, (size_t)(count)), bytes)
#define SET_ON(name, count, bytes) was_set(DRV(name, s->device, 9u, (size_t)(count), s->stream), bytes)
#define SET_8(name) SET(name, 509, 509)
#define SET_16(name) SET(name, 257, 514)
#define SET_32(name) SET(name, 131, 524)
#define SET_8_ON(name) SET_ON(name, 521, 521)
#define SET_16_ON(name) SET_ON(name, 263, 526)
#define SET_32_ON(name) SET_ON(name, 137, 548)
PAIR(cuMemsetD8_v2, _ptds, SET_8, NULL)
PAIR(cuMemsetD16_v2, _ptds, SET_16, NULL)
PAIR(cuMemsetD32_v2, _ptds, SET_32, NULL)
PAIR(cuMemsetD8Async, _ptsz, SET_8_ON, NULL)
PAIR(cuMemsetD16Async, _ptsz, SET_16_ON, NULL)
PAIR(cuMemsetD32Async, _ptsz, SET_32_ON, NULL)
#define ROWS(name, width, bytes) was_set(DRV(name, s->device, (size_t)PITCH, 9u, (size_t)(width), (size_t)HEIGHT), bytes)
#define ROWS_ON(name, width, bytes)                                                                            \
    was_set(DRV(name, s->device, (size_t)PITCH, 9u, (size_t)(width), (size_t)HEIGHT, s->stream), bytes)
#define ROWS_8(name) ROWS(name, 37, 37 * HEIGHT)
#define ROWS_16(name) ROWS(name, 19, 38 * HEIGHT)
#define ROWS_32(name) ROWS(name, 11, 44 * HEIGHT)
#define ROWS_8_ON(name) ROWS_ON(name, 41, 41 * HEIGHT)
#define ROWS_16_ON(name) ROWS_ON(name, 23, 46 * HEIGHT)
#define ROWS_32_ON(name) ROWS_ON(name, 13, 52 * HEIGHT)
PAIR(cuMemsetD2D8_v2, _ptds, ROWS_8, NULL)
PAIR(cuMemsetD2D16_v2, _ptds, ROWS_16, NULL)
PAIR(cuMemsetD2D32_v2, _ptds, ROWS_32, NULL)
PAIR(cuMemsetD2D8Async, _ptsz, ROWS_8_ON, NULL)
PAIR(cuMemsetD2D16Async, _ptsz, ROWS_16_ON, NULL)
PAIR(cuMemsetD2D32Async, _ptsz, ROWS_32_ON, NULL)
