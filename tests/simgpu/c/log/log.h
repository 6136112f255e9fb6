// The exact log of what ran. In: one call per API entry and one per executed operation. Out: two files per
// process that anyone may read at any moment, also after a kill. Absent: locks on the counting path, formatting,
// and anything that could fail loudly inside a client's process.
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIMGPU_COUNTS_MAGIC 0x31544e5543474953ull // "SIGCUNT1" in memory order
#define SIMGPU_OPS_MAGIC 0x3153504f47495353ull

enum { API_SLOTS = 8192, TRUTH_SLOTS = 256, KERNEL_SLOTS = 16384, NAME_HEAP_BYTES = 16 << 20 };

// One public function, or `unsupported:<name>`. The name is written once, the count for ever after.
struct api_slot {
    char name[120];
    _Atomic uint64_t count;
};

// One fact about what truly ran. Names stand in the file so that readers need no shared header.
struct truth_slot {
    char name[56];
    _Atomic uint64_t value;
};

struct kernel_slot {
    _Atomic uint64_t launched;  // by a launch call, outside capture
    _Atomic uint64_t captured;  // recorded into a graph, not run
    _Atomic uint64_t graph_runs; // run as a node of a launched graph
    _Atomic uint64_t total_ns;  // device time of all runs
    uint32_t name_offset;       // into the heap
    uint32_t name_length;
};

struct counts_file {
    _Atomic uint64_t magic; // written last, so a reader never sees half a header
    uint32_t version, pid;
    uint64_t start_ns; // CLOCK_MONOTONIC
    uint64_t api_offset, api_slots;
    uint64_t truth_offset, truth_slots;
    uint64_t kernel_offset, kernel_slots;
    _Atomic uint64_t kernel_count;
    uint64_t heap_offset, heap_bytes;
    _Atomic uint64_t heap_used;
};

// What is kept of each kind of memory, and of each device's own.
#define MEMORY_FIELDS(X, kind)                                                                                 \
    X(kind##_allocations) X(kind##_frees) X(kind##_allocated_bytes) X(kind##_freed_bytes) X(kind##_live_bytes) \
    X(kind##_peak_bytes)
enum { MEMORY_FIELD_COUNT = 6 };
// Every fact kept. Readers go by name; the libraries rely on a count being followed by its bytes, on directions
// following in the order of `enum direction`, and on devices following each other.
#define TRUTH_FIELDS(X)                                                                                        \
    X(launches) X(graph_launches) X(graph_nodes) X(graph_kernel_nodes) X(captured_launches) X(captured_nodes)  \
    X(copies_htod) X(copies_htod_bytes) X(copies_dtoh) X(copies_dtoh_bytes) X(copies_dtod)                     \
    X(copies_dtod_bytes) X(copies_htoh) X(copies_htoh_bytes) X(graph_copies) X(graph_copies_bytes)             \
    X(graph_copies_htod) X(graph_copies_htod_bytes) X(graph_copies_dtoh) X(graph_copies_dtoh_bytes)            \
    X(graph_copies_dtod) X(graph_copies_dtod_bytes) X(graph_copies_htoh) X(graph_copies_htoh_bytes)            \
    X(memsets) X(memsets_bytes) X(graph_memsets) X(graph_memsets_bytes) X(host_functions)                      \
    X(graph_host_functions) X(allocations) X(frees) X(allocated_bytes) X(freed_bytes) X(live_bytes)            \
    X(peak_bytes) X(pinned_bytes) X(module_bytes) X(busy_ns) X(kernel_ns) X(stream_waits) X(blocking_waits)    \
    X(collectives) X(collective_bytes) X(ops_dropped) MEMORY_FIELDS(X, device0) MEMORY_FIELDS(X, device1)      \
    MEMORY_FIELDS(X, device2) MEMORY_FIELDS(X, device3) MEMORY_FIELDS(X, device4) MEMORY_FIELDS(X, device5)    \
    MEMORY_FIELDS(X, device6) MEMORY_FIELDS(X, device7) MEMORY_FIELDS(X, managed) MEMORY_FIELDS(X, array)      \
    MEMORY_FIELDS(X, pinned) MEMORY_FIELDS(X, registered) MEMORY_FIELDS(X, reserved)

enum truth_field {
#define X(name) TRUTH_##name,
    TRUTH_FIELDS(X)
#undef X
    TRUTH_FIELD_COUNT
};

enum op_kind { OP_NONE, OP_KERNEL, OP_COPY, OP_FILL, OP_HOST, OP_EVENT, OP_WAIT, OP_GRAPH, OP_FREE, OP_EMPTY, OP_WRITE };

// One executed operation, 64 bytes. `kind` is stored last: 0 means not finished writing.
struct op_record {
    _Atomic uint32_t kind;
    uint32_t kernel; // index into the kernel table, or the copy direction + 1
    uint64_t stream; // the handle's number, stable for the process
    uint64_t submit_ns, start_ns, end_ns;
    uint64_t bytes;
    uint32_t thread; // the kernel's thread id of the submitter
    uint32_t graph;  // id of the executable graph it ran in, else 0
    uint64_t reserved;
};

struct ops_file {
    _Atomic uint64_t magic;
    uint32_t version, record_size;
    uint64_t capacity;
    _Atomic uint64_t count;
    uint64_t pad[4];
};

struct api_site {
    const char *name;
    _Atomic uint64_t *count;
};

extern _Atomic uint64_t log_unbound_count;
extern struct truth_slot *log_truth;

#define EXPORT __attribute__((visibility("default")))

// Counts one call. Each use leaves a record in a section of its own, which the library's constructor binds to the
// file, so that the hot path is one load and one atomic add. Naming the frame makes the compiler set one up also in
// the smallest function, so that each begins with `push` as the real library's do: what a uprobe costs hangs on it.
#define COUNT(text)                                                                                            \
    do {                                                                                                       \
        static struct api_site site __attribute__((section("api_sites"), used, aligned(16))) = {               \
            text, &log_unbound_count};                                                                         \
        __asm__ volatile("" : : "r"(__builtin_frame_address(0)));                                              \
        atomic_fetch_add_explicit(site.count, 1, memory_order_relaxed);                                        \
    } while (0)

static inline void truth_add(enum truth_field field, uint64_t amount) {
    atomic_fetch_add_explicit(&log_truth[field].value, amount, memory_order_relaxed);
}
static inline void truth_sub(enum truth_field field, uint64_t amount) {
    atomic_fetch_sub_explicit(&log_truth[field].value, amount, memory_order_relaxed);
}
// Adds, and returns the sum.
static inline uint64_t truth_sum(enum truth_field field, uint64_t amount) {
    return atomic_fetch_add_explicit(&log_truth[field].value, amount, memory_order_relaxed) + amount;
}
void truth_max(enum truth_field field, uint64_t candidate);

uint64_t now_ns(void);
uint32_t thread_id(void);
// The value of a numeric environment variable, or the default.
uint64_t env_number(const char *name, uint64_t fallback);

// Finds or makes the slot of a kernel name. Callers serialise.
uint32_t log_kernel_index(const char *name);
struct kernel_slot *log_kernel(uint32_t index);
void log_op(const struct op_record *record);
const char *log_directory(void);
