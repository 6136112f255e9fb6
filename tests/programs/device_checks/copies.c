// Copies of every shape move the bytes they should. In: patterns. Out: the same patterns at the other end. Absent: plain
// copies, which main.c checks.
#include "checks.h"

enum { BYTES = 4096 };
// A pattern that differs from place to place, and another for each seed.
static void pattern(char *at, size_t size, int seed) {
    for (size_t i = 0; i < size; i++)
        at[i] = (char)(i * 7 + i / 64 + (size_t)seed);
}
static void *stage(int seed) {
    char *made = pinned_bytes(BYTES);
    pattern(made, BYTES, seed);
    return made;
}

struct channels { // cudaChannelFormatDesc of bytes
    int x, y, z, w, kind;
};
void check_arrays_hold_what_is_copied(void) {
    enum { WIDTH = 64, HEIGHT = 16, PITCH = 100 };
    char *from = stage(1), *to = stage(2), *device = device_bytes(BYTES);
    struct channels bytes = {8, 0, 0, 0, 1};
    void *array = NULL, *other = NULL, *s = new_stream(NON_BLOCKING);
    OK(RT(cudaMallocArray, &array, &bytes, (size_t)WIDTH, (size_t)HEIGHT, 0u));
    OK(RT(cudaMallocArray, &other, &bytes, (size_t)WIDTH, (size_t)HEIGHT, 0u));
    // Row by row out of a wider picture, into the middle of the array and back.
    OK(RT(cudaMemcpy2DToArray, array, (size_t)4, (size_t)2, from, (size_t)PITCH, (size_t)20, (size_t)5, HOST_DEVICE));
    OK(RT(cudaMemcpy2DFromArray, to, (size_t)PITCH, array, (size_t)4, (size_t)2, (size_t)20, (size_t)5, DEVICE_HOST));
    for (int y = 0; y < 5; y++)
        EXPECT(memcmp(to + y * PITCH, from + y * PITCH, 20) == 0);
    EXPECT(to[20] != from[20]);
    // From array to array, to the device and home.
    OK(RT(cudaMemcpyToArrayAsync, array, (size_t)0, (size_t)1, from, (size_t)300, HOST_DEVICE, s));
    OK(RT(cudaStreamSynchronize, s));
    OK(RT(cudaMemcpyArrayToArray, other, (size_t)8, (size_t)3, array, (size_t)0, (size_t)1, (size_t)300, DEVICE_DEVICE));
    OK(DRV(cuMemcpyAtoD_v2, device, other, (size_t)(3 * WIDTH + 8), (size_t)300));
    OK(RT(cudaMemcpy, to, device, (size_t)300, DEVICE_HOST));
    EXPECT(memcmp(to, from, 300) == 0);
    OK(RT(cudaFreeArray, array));
    OK(RT(cudaFreeArray, other));
}

struct operand { // cudaMemcpy3DOperand: a pointer
    int type;
    void *pointer;
    size_t row, rows;
    int location[2];
};
struct batch { // cudaMemcpy3DBatchOp
    struct operand src, dst;
    size_t width, height, depth;
    int order;
    unsigned flags;
};
void check_batches_move_bytes(void) {
    char *one = stage(3), *two = stage(4), *to = stage(5), *device = device_bytes(BYTES);
    void *s = new_stream(NON_BLOCKING), *dsts[] = {device, device + 1000}, *srcs[] = {one, two};
    size_t sizes[] = {500, 600}, first = 0;
    OK(DRV(cuMemcpyBatchAsync_v2, dsts, srcs, sizes, (size_t)2, (void *)NULL, &first, (size_t)0, s));
    OK(RT(cudaMemcpyAsync, to, device, (size_t)1600, DEVICE_HOST, s));
    OK(RT(cudaStreamSynchronize, s));
    EXPECT(memcmp(to, one, 500) == 0 && memcmp(to + 1000, two, 600) == 0);
    // A box of 10 by 4 by 3 out of slices of 32 by 8, and back into slices of 16 by 4.
    struct batch in = {{1, one, 32, 8, {0, 0}}, {1, device, 16, 4, {1, 0}}, 10, 4, 3, 1, 0};
    OK(DRV(cuMemcpy3DBatchAsync_v2, (size_t)1, &in, 0ull, s));
    OK(RT(cudaMemcpyAsync, to, device, (size_t)(16 * 4 * 3), DEVICE_HOST, s));
    OK(RT(cudaStreamSynchronize, s));
    for (int z = 0; z < 3; z++)
        for (int y = 0; y < 4; y++)
            EXPECT(memcmp(to + z * 64 + y * 16, one + z * 256 + y * 32, 10) == 0);
}

struct pitched {
    void *pointer;
    size_t pitch, width, height;
};
struct peer_3d { // cudaMemcpy3DPeerParms
    void *src_array;
    size_t src_at[3];
    struct pitched src;
    int src_device;
    void *dst_array;
    size_t dst_at[3];
    struct pitched dst;
    int dst_device;
    size_t extent[3];
};
void check_peers_move_bytes(void) {
    char *from = stage(6), *to = stage(7), *here = device_bytes(BYTES);
    OK(RT(cudaSetDevice, 1));
    char *there = device_bytes(BYTES);
    OK(RT(cudaSetDevice, 0));
    OK(RT(cudaMemcpy, here, from, (size_t)BYTES, HOST_DEVICE));
    OK(RT(cudaMemcpyPeer, there, 1, here, 0, (size_t)900));
    OK(RT(cudaMemcpy, to, there, (size_t)900, DEVICE_HOST));
    EXPECT(memcmp(to, from, 900) == 0);
    struct peer_3d box = {.src = {here, 64, 64, 8}, .src_device = 0, .dst = {there, 32, 32, 4}, .dst_device = 1,
                          .extent = {30, 4, 2}};
    OK(RT(cudaMemcpy3DPeer, &box));
    OK(RT(cudaMemcpy, to, there, (size_t)(32 * 4 * 2), DEVICE_HOST));
    for (int z = 0; z < 2; z++)
        for (int y = 0; y < 4; y++)
            EXPECT(memcmp(to + z * 128 + y * 32, from + z * 512 + y * 64, 30) == 0);
}

static char variable[BYTES];
void check_variables_move_bytes(void) {
    char *from = stage(8), *to = stage(9), *device = device_bytes(BYTES);
    void *s = new_stream(NON_BLOCKING);
    EXPECT(RT(cudaMemcpyToSymbol, variable, from, (size_t)8, (size_t)0, HOST_DEVICE) == 13);
    ((void (*)())(void (*)(void))find(runtime, "__cudaRegisterVar"))(NULL, variable, variable, "variable", 0,
                                                                     (size_t)BYTES, 0, 0);
    OK(RT(cudaMemcpyToSymbol, variable, from, (size_t)700, (size_t)16, HOST_DEVICE));
    OK(RT(cudaMemcpyFromSymbolAsync, device, variable, (size_t)700, (size_t)16, DEVICE_DEVICE, s));
    OK(RT(cudaMemcpyAsync, to, device, (size_t)700, DEVICE_HOST, s));
    OK(RT(cudaStreamSynchronize, s));
    EXPECT(memcmp(to, from, 700) == 0);
}
