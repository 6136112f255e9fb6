// What the files of this program share. In: nothing. Out: how a call is made and counted, what it is expected to do,
// and how an API is offered to `--api`. Absent: NVIDIA's headers; structs.h has the layouts.
#pragma once
#define _GNU_SOURCE
#include "structs.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// ---- options (main.c) ----
struct options {
    int threads, times;
    long interval_ns, dlopen_after_ms;
    const char *apis, *library, *second_library, *wait_for;
    bool wait_stdin, wait_load, hold, fork, exec, copy_and_delete, no_runtime;
    bool wants_nccl; // some chosen API is of it
};
extern struct options options;

// ---- libraries and calls (library.c) ----
enum library { RUNTIME, SECOND_RUNTIME, DRIVER, NCCL, LIBRARIES };
typedef int (*any)();
// One place in the source that makes a call. A function is NULL where the library, or the function in it, is not there.
struct site {
    const char *name;
    enum library library;
    any fn, second; // of the library, and of the second runtime
    _Atomic uint64_t made;
    uint64_t before; // of it, before the line that --wait-stdin waits for
} __attribute__((aligned(64)));
enum { MISSING = -1 };

bool has(enum library library);
void load_libraries(void);
// Which runtime the calling thread uses, where there are two.
extern __thread int second_runtime;
static inline any function_of(const struct site *site) {
    return second_runtime && site->library == RUNTIME ? site->second : site->fn;
}
// The major version of that runtime, 0 without one. Some functions have other arguments in 13 than in 12.
int runtime_major(void);
void failed(const struct site *site, int result);

// Makes a call if it can be made; the value is its result, or MISSING. Every count in the output comes from here.
#define SITE(of, text)                                                                                         \
    static struct site site __attribute__((section("call_sites"), used)) = {.name = text, .library = of}
#define MAKE(of, text, ...)                                                                                    \
    ({                                                                                                         \
        SITE(of, text);                                                                                        \
        int result_ = MISSING;                                                                                 \
        any function_ = function_of(&site);                                                                    \
        if (function_) {                                                                                       \
            atomic_fetch_add(&site.made, 1);                                                                   \
            result_ = function_(__VA_ARGS__);                                                                  \
            if (result_)                                                                                       \
                failed(&site, result_);                                                                        \
        }                                                                                                      \
        result_;                                                                                               \
    })
// The same for a function without a result.
#define MAKE_VOID(of, text, ...)                                                                               \
    do {                                                                                                       \
        SITE(of, text);                                                                                        \
        if (function_of(&site)) {                                                                              \
            atomic_fetch_add(&site.made, 1);                                                                   \
            ((void (*)())(void (*)(void))function_of(&site))(__VA_ARGS__);                                     \
        }                                                                                                      \
    } while (0)
#define RT(name, ...) MAKE(RUNTIME, #name, ##__VA_ARGS__)
#define DRV(name, ...) MAKE(DRIVER, #name, ##__VA_ARGS__)
#define NC(name, ...) MAKE(NCCL, #name, ##__VA_ARGS__)

// ---- what the calls are expected to do (account.c) ----
enum direction { H_TO_D, D_TO_H, D_TO_D, H_TO_H, DIRECTIONS };
enum { MOST_DEVICES = 8 };
enum memory { DEVICE_0, MANAGED = MOST_DEVICES, PINNED, REGISTERED, RESERVED, ARRAYS, MEMORIES };
// Each takes the result of its call: what failed was asked for and did not happen, what is MISSING was not even asked.
void launched(int result, unsigned count);
void captured(int result);
void host_function(int result);
void copied(int result, enum direction direction, size_t bytes);
void was_set(int result, size_t bytes);
void allocated(int result, enum memory of, size_t bytes);
void freed(int result, enum memory of, size_t bytes);
// Memory from before the wait, and graphs from before it.
void freed_unknown(int result, enum memory of);
void launched_unknown_graph(int result);
void collective(int result, const char *name, size_t bytes);
// The nodes that run each time a graph is launched.
struct nodes {
    unsigned kernels, sets, hosts, copies[DIRECTIONS];
    size_t set_bytes, copy_bytes[DIRECTIONS];
};
void replayed(int result, const struct nodes *nodes);
// Everything so far was preparation.
void begin_account(void);
void print_account(void);

// ---- what a thread's calls work on (state.c) ----
enum { BYTES = 4096, DRIVER_KERNELS = 2 };
struct state {
    void *stream, *stream2, *event, *event2, *context;
    void *graph, *exec, *function, *kernel, *module, *other_function;
    char *device, *device2, *pinned, *registered;
    int peer_device; // device 1 where there is one
    char *peer;      // memory of it
    void *array, *pool, *communicator;
    void **before;   // memory for `--times` frees
    int freed_before;
    char pageable[BYTES];
};
void prepare(struct state *s);
// Each makes, once, what some calls need; calls of them are part of the preparation.
void need_graph(struct state *s);
void need_stream2(struct state *s);
void need_peer(struct state *s);
void need_array(struct state *s);
void need_pool(struct state *s);
void need_registered(struct state *s);
void need_before(struct state *s);
void need_variable(struct state *s);
void need_communicator(struct state *s);
void need_function(struct state *s);
void need_registration(struct state *s);

// Stubs: the stand-in names one that nobody registered after its symbol.
void calls_kernel(void);
void calls_other_kernel(void);
// Registered by need_registration, under the name `calls_registered_device_kernel`.
void calls_registered_kernel(void);
// A device variable of VARIABLE_BYTES, registered by need_variable.
extern char calls_variable[];
enum { VARIABLE_BYTES = 1024 };
void do_nothing(void *unused);

// ---- APIs ----
// What `--api` chooses from: a function's name, or `function:variant`. Each file sets its GROUP.
struct api {
    const char *name;
    void (*make)(struct state *s);
    void (*need)(struct state *s);
    const char *group;
} __attribute__((aligned(32)));
#define CALL_AS(id, text, needed)                                                                              \
    static void make_##id(struct state *s);                                                                    \
    static const struct api api_##id __attribute__((section("apis"), used)) = {text, make_##id, needed, GROUP}; \
    static void make_##id(struct state *s)
#define CALL(name) CALL_AS(name, #name, NULL)
// A function and its form for per-thread default streams; `BODY(name)` is what is done with either.
#define PAIR(name, suffix, BODY, needed)                                                                       \
    CALL_AS(name, #name, needed) { BODY(name); }                                                               \
    CALL_AS(name##suffix, #name #suffix, needed) { BODY(name##suffix); }
