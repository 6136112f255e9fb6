// Communicators and what can be asked of the library. In: ranks and devices. Out: handles. Absent: rendezvous: every
// rank of a communicator is taken to be there.
#define _GNU_SOURCE
#include "nccl.h"
#include <stdlib.h>
#include <string.h>

struct unique_id { // ncclUniqueId
    char bytes[128];
};

static int create(struct communicator **out, int ranks, int rank, int device) {
    if (!out || ranks < 1 || ranks > MOST_RANKS || rank < 0 || rank >= ranks)
        return INVALID_ARGUMENT;
    *out = calloc(1, sizeof **out);
    if (!*out || device < 0)
        return UNHANDLED_CUDA_ERROR;
    **out = (struct communicator){COMMUNICATOR_MAGIC, ranks, rank, device};
    return NCCL_SUCCESS;
}
static int destroy(struct communicator *c) {
    COMMUNICATOR(c);
    c->magic = 0;
    free(c);
    return NCCL_SUCCESS;
}

API(ncclGetVersion, (int *out), {
    *out = 22800; // 2.28.0
    return out ? NCCL_SUCCESS : INVALID_ARGUMENT;
})
API(ncclGetUniqueId, (struct unique_id * out), {
    static _Atomic uint64_t next = 1;
    memset(out, 0, sizeof *out);
    uint64_t id = atomic_fetch_add(&next, 1);
    memcpy(out->bytes, &id, sizeof id);
    return NCCL_SUCCESS;
})
API(ncclCommInitRank, (struct communicator * *out, int ranks, struct unique_id id, int rank),
    { return create(out, ranks, rank, current_device()); })
API(ncclCommInitRankConfig, (struct communicator * *out, int ranks, struct unique_id id, int rank, void *config),
    { return create(out, ranks, rank, current_device()); })
API(ncclCommInitAll, (struct communicator * *out, int count, const int *devices), {
    int result = NCCL_SUCCESS;
    for (int i = 0; i < count && !result; i++)
        result = create(&out[i], count, i, devices ? devices[i] : i);
    return result;
})
API(ncclCommSplit, (struct communicator * c, int color, int key, struct communicator **out, void *config), {
    COMMUNICATOR(c);
    *out = NULL;
    return color < 0 ? NCCL_SUCCESS : create(out, c->ranks, c->rank, c->device);
})
API(ncclCommFinalize, (struct communicator * c), {
    COMMUNICATOR(c);
    return NCCL_SUCCESS;
})
API(ncclCommDestroy, (struct communicator * c), { return destroy(c); })
API(ncclCommAbort, (struct communicator * c), { return destroy(c); })
API(ncclCommCount, (const struct communicator *c, int *out), {
    COMMUNICATOR(c);
    *out = c->ranks;
    return NCCL_SUCCESS;
})
API(ncclCommUserRank, (const struct communicator *c, int *out), {
    COMMUNICATOR(c);
    *out = c->rank;
    return NCCL_SUCCESS;
})
API(ncclCommCuDevice, (const struct communicator *c, int *out), {
    COMMUNICATOR(c);
    *out = c->device;
    return NCCL_SUCCESS;
})
API(ncclCommGetAsyncError, (struct communicator * c, int *out), {
    COMMUNICATOR(c);
    *out = NCCL_SUCCESS;
    return NCCL_SUCCESS;
})
API(ncclCommRegister, (const struct communicator *c, void *buffer, size_t bytes, void **out), {
    COMMUNICATOR(c);
    *out = buffer;
    return NCCL_SUCCESS;
})
API(ncclCommDeregister, (const struct communicator *c, void *handle), {
    COMMUNICATOR(c);
    return NCCL_SUCCESS;
})

static const char *text_of(unsigned error) {
    static const char *const texts[] = {"no error", "unhandled cuda error", "unhandled system error", "internal error",
                                        "invalid argument", "invalid usage", "remote process exited or there was a network error",
                                        "NCCL operation in progress"};
    return error < sizeof texts / sizeof *texts ? texts[error] : "unknown result code";
}
EXPORT const char *ncclGetErrorString(unsigned error) {
    COUNT("ncclGetErrorString");
    return text_of(error);
}
EXPORT const char *ncclGetLastError(struct communicator *c) {
    COUNT("ncclGetLastError");
    return "";
}
