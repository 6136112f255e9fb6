// NCCL: collectives, point-to-point operations, groups, communicators. In: a thread's state, with a communicator of
// one rank. Out: one kernel for each operation, or for each stream of a group. Absent: other ranks.
#define GROUP "collective"
#include "calls.h"

enum { INT8 = 0, INT64 = 4, FLOAT16 = 6, FLOAT32 = 7, SUM = 0 };
#define TAIL s->communicator, s->stream
#define DID(name, bytes, ...)                                                                                  \
    do {                                                                                                       \
        int result = NC(name, __VA_ARGS__);                                                                    \
        launched(result, 1), collective(result, #name, bytes);                                                 \
    } while (0)
// The form, and the same with a configuration.
#define BOTH(name, bytes, ...)                                                                                 \
    CALL_AS(name, #name, need_communicator) { DID(name, bytes, __VA_ARGS__, TAIL); }                           \
    CALL_AS(name##Config, #name "Config", need_communicator) { DID(name##Config, bytes, __VA_ARGS__, TAIL, (void *)NULL); }
BOTH(ncclAllReduce, 700 * 4, s->device, s->device2, (size_t)700, FLOAT32, SUM)
BOTH(ncclReduceScatter, 701 * 2, s->device, s->device2, (size_t)701, FLOAT16, SUM)
BOTH(ncclReduce, 702 * 8, s->device, s->device2, (size_t)702, INT64, SUM, 0)
BOTH(ncclBroadcast, 703, s->device, s->device2, (size_t)703, INT8, 0)
BOTH(ncclAllGather, 704 * 4, s->device, s->device2, (size_t)704, FLOAT32)
BOTH(ncclAlltoAll, 705 * 4, s->device, s->device2, (size_t)705, FLOAT32)
BOTH(ncclGather, 706 * 4, s->device, s->device2, (size_t)706, FLOAT32, 0)
BOTH(ncclScatter, 707 * 4, s->device, s->device2, (size_t)707, FLOAT32, 0)
CALL_AS(ncclBcast, "ncclBcast", need_communicator) { DID(ncclBcast, 708 * 4, s->device, (size_t)708, FLOAT32, 0, TAIL); }
CALL_AS(ncclPutSignal, "ncclPutSignal", need_communicator) {
    DID(ncclPutSignal, 712 * 4, s->device, (size_t)712, FLOAT32, 0, (void *)NULL, (size_t)0, 0, 0, 0u, TAIL);
}
// Signals have no size, and are no collectives.
CALL_AS(ncclSignal, "ncclSignal", need_communicator) { launched(NC(ncclSignal, 0, 0, 0, 0u, TAIL), 1); }
CALL_AS(ncclWaitSignal, "ncclWaitSignal", need_communicator) {
    int list[4] = {1, 0, 0, 0}; // ncclWaitSignalDesc_t: one signal of rank 0
    launched(NC(ncclWaitSignal, 1, list, TAIL), 1);
}
// A send needs its receive beside it: a group, which is one kernel.
CALL_AS(ncclSend, "ncclSend", need_communicator) {
    NC(ncclGroupStart);
    collective(NC(ncclSend, s->device, (size_t)709, FLOAT32, 0, TAIL), "ncclSend", 709 * 4);
    collective(NC(ncclRecv, s->device2, (size_t)709, FLOAT32, 0, TAIL), "ncclRecv", 709 * 4);
    launched(NC(ncclGroupEnd), 1);
}
CALL_AS(group, "ncclGroupStart:two-streams", need_communicator) {
    NC(ncclGroupStart);
    for (int i = 0; i < 3; i++)
        collective(NC(ncclAllReduce, s->device, s->device2, (size_t)710, FLOAT32, SUM, TAIL), "ncclAllReduce", 710 * 4);
    collective(NC(ncclBroadcast, s->device, s->device2, (size_t)711, FLOAT32, 0, s->communicator, s->stream2),
               "ncclBroadcast", 711 * 4);
    launched(NC(ncclGroupEnd), 2);
}
CALL(ncclCommInitRank) {
    void *communicator = NULL;
    struct unique_id id = {{0}};
    NC(ncclGetUniqueId, &id);
    NC(ncclCommInitRank, &communicator, 1, id, 0);
    NC(ncclCommDestroy, communicator);
}
CALL(ncclCommInitRankConfig) {
    void *communicator = NULL;
    struct unique_id id = {{0}};
    NC(ncclCommInitRankConfig, &communicator, 1, id, 0, (void *)NULL);
    NC(ncclCommFinalize, communicator);
    NC(ncclCommAbort, communicator);
}
CALL_AS(ncclCommSplit, "ncclCommSplit", need_communicator) {
    void *communicator = NULL;
    NC(ncclCommSplit, s->communicator, 0, 0, &communicator, (void *)NULL);
    NC(ncclCommDestroy, communicator);
}
CALL(ncclCommInitAll) {
    void *communicator = NULL;
    NC(ncclCommInitAll, &communicator, 1, (void *)NULL);
    NC(ncclCommDestroy, communicator);
}
