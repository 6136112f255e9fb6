// Maps and fills the two files. In: SIMGPU_LOG_DIR, SIMGPU_OPS, SIMGPU_OPS_MAX. Out: `<pid>.counts`, `<pid>.ops`.
// Every stand-in library links its own copy and maps the same files. Absent: errors to the client; without a
// directory the counters live in private memory.
#define _GNU_SOURCE
#include "log.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

extern struct api_site __start_api_sites[] __attribute__((visibility("hidden")));
extern struct api_site __stop_api_sites[] __attribute__((visibility("hidden")));

_Atomic uint64_t log_unbound_count;
static struct truth_slot unmapped_truth[TRUTH_FIELD_COUNT];
struct truth_slot *log_truth = unmapped_truth;

static struct counts_file *counts;
static struct ops_file *ops;
static char directory[3072];

static const char *const truth_names[] = {
#define X(name) #name,
    TRUTH_FIELDS(X)
#undef X
};
_Static_assert((int)TRUTH_FIELD_COUNT <= (int)TRUTH_SLOTS, "the truth table is full");
_Static_assert(sizeof(struct api_slot) == 128 && sizeof(struct truth_slot) == 64, "readers rely on the layout");
_Static_assert(sizeof(struct op_record) == 64 && sizeof(struct ops_file) == 64, "readers rely on the layout");

enum { API_OFFSET = 4096, TRUTH_OFFSET = API_OFFSET + API_SLOTS * sizeof(struct api_slot) };
enum { KERNEL_OFFSET = TRUTH_OFFSET + TRUTH_SLOTS * sizeof(struct truth_slot) };
enum { HEAP_OFFSET = KERNEL_OFFSET + KERNEL_SLOTS * sizeof(struct kernel_slot) };
enum { COUNTS_BYTES = HEAP_OFFSET + NAME_HEAP_BYTES };

uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

uint32_t thread_id(void) {
    static __thread uint32_t id;
    if (id == 0)
        id = (uint32_t)syscall(SYS_gettid);
    return id;
}

uint64_t env_number(const char *name, uint64_t fallback) {
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : fallback;
}

const char *log_directory(void) { return directory; }

static void *at(uint64_t offset) { return (char *)counts + offset; }

struct kernel_slot *log_kernel(uint32_t index) { return (struct kernel_slot *)at(KERNEL_OFFSET) + index; }

void truth_max(enum truth_field field, uint64_t candidate) {
    _Atomic uint64_t *value = &log_truth[field].value;
    uint64_t seen = atomic_load_explicit(value, memory_order_relaxed);
    while (seen < candidate && !atomic_compare_exchange_weak(value, &seen, candidate)) {
    }
}

static uint64_t hash(const char *text) {
    uint64_t h = 14695981039346656037ull;
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 1099511628211ull;
    return h;
}

static _Atomic uint64_t *api_count(const char *name) {
    struct api_slot *table = at(API_OFFSET);
    for (uint64_t i = hash(name), tries = 0; tries < API_SLOTS; i++, tries++) {
        struct api_slot *slot = &table[i % API_SLOTS];
        if (slot->name[0] == 0)
            strncpy(slot->name, name, sizeof slot->name - 1);
        if (strncmp(slot->name, name, sizeof slot->name - 1) == 0)
            return &slot->count;
    }
    return &log_unbound_count;
}

static void write_header(void) {
    counts->version = 1;
    counts->pid = (uint32_t)getpid();
    counts->start_ns = now_ns();
    counts->api_offset = API_OFFSET, counts->api_slots = API_SLOTS;
    counts->truth_offset = TRUTH_OFFSET, counts->truth_slots = TRUTH_SLOTS;
    counts->kernel_offset = KERNEL_OFFSET, counts->kernel_slots = KERNEL_SLOTS;
    counts->heap_offset = HEAP_OFFSET, counts->heap_bytes = NAME_HEAP_BYTES;
    struct truth_slot *truth = at(TRUTH_OFFSET);
    for (int i = 0; i < TRUTH_FIELD_COUNT; i++)
        strncpy(truth[i].name, truth_names[i], sizeof truth[i].name - 1);
    atomic_store(&counts->magic, SIMGPU_COUNTS_MAGIC);
}

// Opens `<pid>.<suffix>` at `bytes`; a process that has exec'ed goes on in its own file.
static int open_file(const char *suffix, off_t bytes) {
    char path[sizeof directory + 64];
    snprintf(path, sizeof path, "%s/%d.%s", directory, (int)getpid(), suffix);
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    if (fd >= 0 && flock(fd, LOCK_EX) == 0 && ftruncate(fd, bytes) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

// The mapping keeps the open file alive, and with it a lock that only a close would have given back.
static void release(int fd) {
    flock(fd, LOCK_UN);
    close(fd);
}

static void map_counts(void *where) {
    int fd = directory[0] ? open_file("counts", COUNTS_BYTES) : -1;
    int flags = (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED) | (where ? MAP_FIXED : 0);
    void *mapped = mmap(where, COUNTS_BYTES, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd, 0);
    if (mapped == MAP_FAILED)
        abort(); // a test without its truth must not pass
    counts = mapped;
    if (atomic_load(&counts->magic) != SIMGPU_COUNTS_MAGIC)
        write_header();
    log_truth = at(TRUTH_OFFSET);
    for (struct api_site *site = __start_api_sites; site < __stop_api_sites; site++)
        site->count = api_count(site->name);
    if (fd >= 0)
        release(fd);
}

static void map_ops(void) {
    ops = NULL;
    if (!directory[0] || env_number("SIMGPU_OPS", 0) == 0)
        return;
    uint64_t capacity = env_number("SIMGPU_OPS_MAX", 4 << 20);
    size_t bytes = sizeof(struct ops_file) + capacity * sizeof(struct op_record);
    int fd = open_file("ops", (off_t)bytes);
    if (fd < 0)
        return;
    struct ops_file *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (mapped != MAP_FAILED) {
        mapped->version = 1, mapped->record_size = sizeof(struct op_record), mapped->capacity = capacity;
        atomic_store(&mapped->magic, SIMGPU_OPS_MAGIC);
        ops = mapped;
    }
    release(fd);
}

// A fork's child keeps a log of its own. Kernel indices that the parent handed out stay valid in it.
static void after_fork(void) {
    struct counts_file *old = counts;
    uint64_t kernels = atomic_load(&old->kernel_count), used = atomic_load(&old->heap_used);
    struct kernel_slot *slots = malloc(kernels * sizeof *slots + used + 1);
    if (!slots)
        abort();
    char *heap = (char *)(slots + kernels);
    memcpy(slots, at(KERNEL_OFFSET), kernels * sizeof *slots);
    memcpy(heap, at(HEAP_OFFSET), used);
    map_counts(old);
    if (atomic_load(&counts->kernel_count) == 0) {
        for (uint64_t i = 0; i < kernels; i++)
            *log_kernel((uint32_t)i) =
                (struct kernel_slot){.name_offset = slots[i].name_offset, .name_length = slots[i].name_length};
        memcpy(at(HEAP_OFFSET), heap, used);
        atomic_store(&counts->heap_used, used);
        atomic_store(&counts->kernel_count, kernels);
    }
    free(slots);
    map_ops();
}

__attribute__((constructor(101))) static void log_start(void) {
    const char *dir = getenv("SIMGPU_LOG_DIR");
    if (dir && strlen(dir) < sizeof directory)
        strcpy(directory, dir);
    map_counts(NULL);
    map_ops();
    pthread_atfork(NULL, NULL, after_fork);
}

uint32_t log_kernel_index(const char *name) {
    uint64_t count = atomic_load(&counts->kernel_count), length = strlen(name);
    uint64_t used = atomic_load(&counts->heap_used);
    const char *heap = at(HEAP_OFFSET);
    if (count == KERNEL_SLOTS || used + length > NAME_HEAP_BYTES)
        return KERNEL_SLOTS - 1;
    for (uint32_t i = 0; i < count; i++) {
        struct kernel_slot *slot = log_kernel(i);
        if (slot->name_length == length && memcmp(heap + slot->name_offset, name, length) == 0)
            return i;
    }
    memcpy(at(HEAP_OFFSET + used), name, length);
    log_kernel((uint32_t)count)->name_offset = (uint32_t)used;
    log_kernel((uint32_t)count)->name_length = (uint32_t)length;
    atomic_store(&counts->heap_used, used + length);
    atomic_store(&counts->kernel_count, count + 1);
    return (uint32_t)count;
}

void log_op(const struct op_record *record) {
    if (!ops)
        return;
    uint64_t index = atomic_fetch_add_explicit(&ops->count, 1, memory_order_relaxed);
    if (index >= ops->capacity) {
        truth_add(TRUTH_ops_dropped, 1);
        return;
    }
    struct op_record *slot = (struct op_record *)(ops + 1) + index;
    uint32_t kind = atomic_load_explicit(&record->kind, memory_order_relaxed);
    memcpy((char *)slot + 4, (const char *)record + 4, sizeof *slot - 4);
    atomic_store_explicit(&slot->kind, kind, memory_order_release);
}
