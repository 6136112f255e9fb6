// Collectives, point-to-point operations and groups. In: public calls. Out: one kernel for each operation, or for each
// stream of a group, as the real library fuses them; bytes are those of `count` elements. Absent: the movement of data.
#define _GNU_SOURCE
#include "nccl.h"

size_t type_bytes(int type) { // ncclInt8 to ncclFloat8e5m2
    static const unsigned char bytes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
    return type >= 0 && type < (int)sizeof bytes ? bytes[type] : 0;
}

enum { MOST_STREAMS = 64 };
static __thread int depth, stream_count;
static __thread void *streams[MOST_STREAMS];

static int queue(void *stream) {
    for (int i = 0; i < stream_count; i++)
        if (streams[i] == stream)
            return NCCL_SUCCESS;
    if (stream_count == MOST_STREAMS)
        return INVALID_USAGE;
    streams[stream_count++] = stream;
    return NCCL_SUCCESS;
}

static int start(const char *kernel, struct communicator *c, void *stream) {
    COMMUNICATOR(c);
    return depth ? queue(stream) : launch(kernel, stream);
}

int operation(const char *kernel, size_t count, int type, struct communicator *c, void *stream) {
    int result = type_bytes(type) ? start(kernel, c, stream) : INVALID_ARGUMENT;
    if (!result) {
        truth_add(TRUTH_collectives, 1);
        truth_add(TRUTH_collective_bytes, count * type_bytes(type));
    }
    return result;
}

API(ncclGroupStart, (void), {
    depth++;
    return NCCL_SUCCESS;
})
API(ncclGroupEnd, (void), {
    if (depth == 0)
        return INVALID_USAGE;
    int result = NCCL_SUCCESS;
    if (--depth == 0) {
        for (int i = 0; i < stream_count && !result; i++)
            result = launch("ncclDevKernel_Generic", streams[i]);
        stream_count = 0;
    }
    return result;
})

// The form and the same with a configuration at the end.
#define BOTH(name, kernel, ...)                                                                                \
    API(name, (__VA_ARGS__, struct communicator *c, void *stream), {                                           \
        int result = operation(kernel, count, type, c, stream);                                                \
        return result;                                                                                         \
    })                                                                                                         \
    API(name##Config, (__VA_ARGS__, struct communicator *c, void *stream, const void *config), {               \
        int result = operation(kernel, count, type, c, stream);                                                \
        return result;                                                                                         \
    })
#define BUFFERS const void *from, void *to, size_t count, int type
BOTH(ncclAllReduce, "ncclDevKernel_AllReduce", BUFFERS, int reduction)
BOTH(ncclReduceScatter, "ncclDevKernel_ReduceScatter", BUFFERS, int reduction)
BOTH(ncclReduce, "ncclDevKernel_Reduce", BUFFERS, int reduction, int root)
BOTH(ncclBroadcast, "ncclDevKernel_Broadcast", BUFFERS, int root)
BOTH(ncclAllGather, "ncclDevKernel_AllGather", BUFFERS)
BOTH(ncclAlltoAll, "ncclDevKernel_SendRecv", BUFFERS)
BOTH(ncclGather, "ncclDevKernel_SendRecv", BUFFERS, int root)
BOTH(ncclScatter, "ncclDevKernel_SendRecv", BUFFERS, int root)
API(ncclBcast, (void *buffer, size_t count, int type, int root, struct communicator *c, void *stream), {
    int result = operation("ncclDevKernel_Broadcast", count, type, c, stream);
    return result;
})
API(ncclSend, (const void *from, size_t count, int type, int peer, struct communicator *c, void *stream), {
    int result = operation("ncclDevKernel_SendRecv", count, type, c, stream);
    return result;
})
API(ncclRecv, (void *to, size_t count, int type, int peer, struct communicator *c, void *stream), {
    int result = operation("ncclDevKernel_SendRecv", count, type, c, stream);
    return result;
})
// One-sided: a put moves data, a signal and a wait for it move none.
API(ncclPutSignal,
    (const void *from, size_t count, int type, int peer, void *window, size_t offset, int index, int context,
     unsigned flags, struct communicator *c, void *stream),
    {
        int result = operation("ncclDevKernel_PutSignal", count, type, c, stream);
        return result;
    })
API(ncclSignal, (int peer, int index, int context, unsigned flags, struct communicator *c, void *stream), {
    int result = start("ncclDevKernel_Signal", c, stream);
    return result;
})
API(ncclWaitSignal, (int count, const void *list, struct communicator *c, void *stream), {
    int result = start("ncclDevKernel_WaitSignal", c, stream);
    return result;
})
API(ncclRedOpCreatePreMulSum, (int *out, void *scalar, int type, int residence, struct communicator *c), {
    COMMUNICATOR(c);
    *out = 5; // the least number of an operator that a client made
    return NCCL_SUCCESS;
})
API(ncclRedOpDestroy, (int reduction, struct communicator *c), {
    COMMUNICATOR(c);
    return NCCL_SUCCESS;
})
