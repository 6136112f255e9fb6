// What the files of the NCCL stand-in share. In: nothing. Out: communicators, queued operations and the launch.
// Absent: transports; ranks of other processes are taken to take part.
#pragma once
#include "../log/log.h"

enum { NCCL_SUCCESS = 0, UNHANDLED_CUDA_ERROR = 1, INVALID_ARGUMENT = 4, INVALID_USAGE = 5 };
enum { COMMUNICATOR_MAGIC = 0x4e43434c, MOST_RANKS = 4096 };

struct communicator {
    uint64_t magic;
    int ranks, rank, device;
};

// Bytes of one element of an ncclDataType_t; 0 when there is none of that number.
size_t type_bytes(int type);
// One collective or point-to-point operation: launched at once, or with its group.
int operation(const char *kernel, size_t count, int type, struct communicator *c, void *stream);
// The driver's current device, or -1.
int current_device(void);
int launch(const char *kernel, void *stream);

#define API(name, params, ...)                                                                                 \
    EXPORT int name params {                                                                                   \
        COUNT(#name);                                                                                          \
        __VA_ARGS__                                                                                            \
    }
#define COMMUNICATOR(c)                                                                                        \
    if (!(c) || (c)->magic != COMMUNICATOR_MAGIC)                                                              \
    return INVALID_ARGUMENT
