// The types of the simulated device. In: public handles, which are pointers to these structs. Out: what every file
// of the driver shares. Absent: anything that NVIDIA's headers define as text; the layouts of public structs stand
// in cuda_abi.h, written from the documented field lists.
#pragma once
#include "../log/log.h"
#include <pthread.h>

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef void (*host_fn)(void *);

enum {
    CUDA_SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    FILE_NOT_FOUND = 301,
    INVALID_HANDLE = 400,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    NOT_READY = 600,
    PEER_ACCESS_ALREADY_ENABLED = 704,
    HOST_MEMORY_ALREADY_REGISTERED = 712,
    HOST_MEMORY_NOT_REGISTERED = 713,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_UNJOINED = 904,
    CAPTURE_ISOLATION = 905,
    CAPTURE_IMPLICIT = 906,
    CAPTURED_EVENT = 907,
    EXEC_UPDATE_FAILURE = 910,
};

enum { MAX_DEVICES = 8, QUEUE_LENGTH = 1024 };

// A kernel: CUfunction and CUkernel alike.
struct function {
    uint64_t magic;
    char *name;
    uint64_t duration_ns;
    uint32_t index; // in the log's kernel table
    struct function *next;
    int max_dynamic_shared;
};

enum direction { H_TO_D, D_TO_H, D_TO_D, H_TO_H };

// A copy of up to three dimensions; a plain copy has height and depth 1.
struct copy {
    CUdeviceptr dst, src;
    size_t width, height, depth, dst_pitch, dst_slice, src_pitch, src_slice;
    enum direction direction;
    void *staged; // our own copy of pageable host memory, freed after use
};

struct fill {
    CUdeviceptr dst;
    size_t pitch, width, height; // width in elements
    uint32_t value, element;
};

// What one operation does, in a stream or as a node of a graph.
struct work {
    enum op_kind kind;
    union {
        struct {
            struct function *function;
            uint32_t grid[3], block[3], shared;
        } kernel;
        struct copy copy;
        struct fill fill;
        struct {
            host_fn fn;
            void *data;
        } host;
        struct event *event;
        struct {
            struct stream *stream;
            uint64_t seq;
        } wait;
        struct {
            struct plan *plan;
            uint32_t id;
        } graph;
        CUdeviceptr pointer;
        struct {
            CUdeviceptr at;
            uint64_t value;
            uint32_t size;
        } write;
        struct graph *child; // OP_GRAPH as a node
    };
};

struct dependency {
    struct stream *stream;
    uint64_t seq;
};

struct op {
    struct work work;
    uint64_t submit_ns, end_ns;
    uint32_t thread;
    uint32_t more_count;
    struct dependency first, *more;
};

struct context {
    uint64_t magic;
    CUdevice device;
    unsigned flags, references;
    struct stream *streams; // every stream, the legacy one included
    struct stream *legacy;
    uint32_t capturing; // blocking streams in capture: the legacy stream may not be used meanwhile
};

struct stream {
    uint64_t magic, id;
    struct context *context;
    struct stream *next;
    unsigned flags;
    int priority;
    bool legacy, blocking;
    // Operations are numbered from 1. processed: their times are known; retired: those times have passed.
    uint64_t submitted, processed, retired, last_end;
    bool busy, advancing, has_worker;
    pthread_cond_t work_arrived;
    struct op *ring;
    struct capture *capture;
    struct node **frontier; // what the next captured node depends on
    size_t frontier_count;
};

struct event {
    uint64_t magic;
    unsigned flags;
    struct stream *stream;
    uint64_t seq, time_ns;
    bool recorded;
    struct capture *capture;
    struct node **frontier;
    size_t frontier_count;
    struct event *next_free;
};

struct node {
    uint64_t magic;
    struct graph *graph;
    struct work work;
    struct node **dependencies, *origin; // of a clone's node: what it was copied from
    size_t dependency_count;
    uint32_t position, mark;
    bool disabled;
};

struct graph {
    uint64_t magic, id;
    struct node **nodes;
    size_t count, room;
};

struct capture {
    uint64_t id;
    int mode;
    bool active, borrowed_graph;
    struct graph *graph;
    struct stream *origin;
};

struct plan_item {
    struct work work;
    struct node *node;
    uint32_t *dependencies, dependency_count;
    bool disabled;
};

// What an executable graph runs: flattened, in an order that respects dependencies, never changed while shared.
struct plan {
    _Atomic uint32_t references;
    uint32_t count, room;
    bool has_effects;
    struct plan_item *items;
};

struct exec {
    uint64_t magic, flags;
    uint32_t id;
    struct plan *plan;
};

enum range_kind { RANGE_DEVICE, RANGE_PINNED, RANGE_REGISTERED, RANGE_MANAGED, RANGE_MAPPED, RANGE_ARRAY, RANGE_MODULE };

// Kinds of memory that the account keeps apart. Virtual addresses that are only reserved are one of them.
enum memory_kind { MEMORY_DEVICE, MEMORY_MANAGED, MEMORY_ARRAY, MEMORY_PINNED, MEMORY_REGISTERED, MEMORY_RESERVED };

struct range {
    CUdeviceptr base;
    size_t size;
    enum range_kind kind;
    CUdevice device;
    unsigned flags;
    uint64_t id;
};

enum {
    STREAM_MAGIC = 0x5354524d,
    EVENT_MAGIC = 0x45564e54,
    FUNCTION_MAGIC = 0x46554e43,
    GRAPH_MAGIC = 0x47525048,
    NODE_MAGIC = 0x4e4f4445,
    EXEC_MAGIC = 0x45584543,
    CONTEXT_MAGIC = 0x43545854,
};

// config.c
struct config {
    uint32_t devices, major, minor, multiprocessors;
    uint64_t memory_bytes, kernel_ns, copy_ns_per_kib, fill_ns_per_kib;
    const char *name;
};
extern struct config config;
void config_load(void);
uint64_t kernel_duration_ns(const char *name);

// engine.c
extern pthread_mutex_t engine;
bool has_effect(const struct work *work);
uint64_t work_ns(const struct work *work);
CUresult submit(struct stream *stream, const struct work *work, uint64_t *seq);
CUresult submit_and_wait(struct stream *stream, const struct work *work);
void wait_stream(struct stream *stream, uint64_t seq);
void wait_context(struct context *context);
bool is_done(struct stream *stream, uint64_t seq);
bool stream_idle(struct stream *stream);
uint64_t end_of(const struct stream *stream, uint64_t seq);
void sleep_until(uint64_t ns);
void perform(const struct work *work);
void release_work(struct work *work);

// account.c
uint64_t work_bytes(const struct work *work);
void count_work(const struct work *work);
void log_work(const struct work *work, const struct op *op, const struct stream *stream, uint64_t start,
              uint64_t end, uint32_t graph);

// graph.c, capture.c
uint64_t run_plan(const struct plan *plan, const struct op *op, const struct stream *stream, uint64_t start,
                  uint32_t id);
void plan_release(struct plan *plan);
struct graph *graph_new(void);
void graph_free(struct graph *graph);
struct node *graph_add(struct graph *graph, const struct work *work, struct node *const *deps, size_t count);
CUresult capture_work(struct stream *stream, const struct work *work);
CUresult capture_wait(struct stream *stream, struct event *event);
void capture_record(struct stream *stream, struct event *event);

// context.c, stream.c
CUresult ready(void);
struct context *current_context(void);
struct context *primary_context(CUdevice device);
struct stream *stream_new(struct context *context, unsigned flags, int priority);
// The stream behind a public handle: 0, 1 and 2 are the default streams. NULL when invalid.
struct stream *stream_of(void *handle, int per_thread);

// memory.c
bool range_find(CUdeviceptr pointer, struct range *out);
CUresult range_add(struct range range);
bool range_remove(CUdeviceptr base, struct range *out);
CUresult device_alloc(CUdeviceptr *out, size_t bytes, enum range_kind kind, unsigned flags);
CUresult device_alloc_on(CUdevice device, CUdeviceptr *out, size_t bytes, enum range_kind kind, unsigned flags);
CUresult device_free(CUdeviceptr pointer);
bool is_device_pointer(CUdeviceptr pointer);
bool is_pageable(CUdeviceptr pointer);
// Positive: handed out; negative: given back.
void account_memory(enum memory_kind kind, CUdevice device, int64_t bytes);
uint64_t memory_used(CUdevice device);

// module.c
struct function *function_by_name(const char *name);

// One public function of the driver. Its first instruction is `push`, and nothing it calls is a tail call (see the
// compiler flags in build.rs).
#define API(name, params, ...)                                                                                 \
    EXPORT CUresult name params {                                                                              \
        COUNT(#name);                                                                                          \
        __VA_ARGS__                                                                                            \
    }
// The same with the variant whose default stream is the calling thread's own.
#define API2(suffix, name, params, ...)                                                                        \
    EXPORT CUresult name params {                                                                              \
        COUNT(#name);                                                                                          \
        enum { per_thread = 0 };                                                                               \
        __VA_ARGS__                                                                                            \
    }                                                                                                          \
    EXPORT CUresult name##suffix params {                                                                      \
        COUNT(#name #suffix);                                                                                  \
        enum { per_thread = 1 };                                                                               \
        __VA_ARGS__                                                                                            \
    }
#define READY()                                                                                                \
    do {                                                                                                       \
        CUresult not_ready = ready();                                                                          \
        if (not_ready)                                                                                         \
            return not_ready;                                                                                  \
    } while (0)
// Declares `s`, the stream that a public handle means here.
#define STREAM(handle)                                                                                         \
    READY();                                                                                                   \
    struct stream *s = stream_of(handle, per_thread);                                                          \
    if (!s)                                                                                                    \
    return current_context() ? INVALID_HANDLE : INVALID_CONTEXT
