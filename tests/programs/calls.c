// Makes an exactly known number of CUDA calls. In: flags (see usage), whatever libcudart and libcuda the loader
// finds. Out: one JSON object with the counts it made, by name. Absent: checks of results; without a driver every call
// fails and still counts.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef int (*any)();

enum { MAX_APIS = 64, BYTES = 4096 };
struct dim3 {
    uint32_t x, y, z;
};

static const char usage[] =
    "usage: calls [options]\n"
    "  --threads N             threads that make the calls (1)\n"
    "  --times K               calls of each API in each thread (1)\n"
    "  --api A,B,...           the APIs, see --list (cudaLaunchKernel)\n"
    "  --list                  print the known APIs and end\n"
    "  --interval-ns N         pause between rounds (0)\n"
    "  --library PATH          libcudart to load (libcudart.so.13, else .12)\n"
    "  --dlopen-after-ms M     load the libraries only M ms after the start\n"
    "  --copy-library-and-delete  load a copy of libcudart and unlink it\n"
    "  --wait-for FILE         begin when FILE exists\n"
    "  --wait-stdin            wait for a line on stdin before the calls, and for another before the end\n"
    "  --hold                  after the calls, sleep until killed\n"
    "  --fork                  a forked child makes the calls\n"
    "  --exec                  the process executes itself again, and that makes the calls\n";

static struct {
    int threads, times;
    long interval_ns, dlopen_after_ms;
    const char *apis, *library, *wait_for;
    bool wait_stdin, hold, fork, exec, copy_and_delete;
} options = {.threads = 1, .times = 1, .apis = "cudaLaunchKernel"};

static void *runtime, *driver;
static any rt(const char *name) { return runtime ? (any)dlsym(runtime, name) : NULL; }
static any drv(const char *name) { return driver ? (any)dlsym(driver, name) : NULL; }

// What a thread's calls work on. Made by the thread through the same libraries; those calls count as well.
struct state {
    void *stream, *event, *event2, *graph, *exec, *function, *kernel;
    char *device, *device2, *pinned;
    char pageable[BYTES];
};

// The stand-in names an unregistered stub after its symbol.
__attribute__((visibility("default"), noinline)) void calls_kernel(void) { __asm__ volatile(""); }
__attribute__((visibility("default"), noinline)) void calls_other_kernel(void) { __asm__ volatile("nop"); }

static _Atomic uint64_t counts[2 * MAX_APIS];
static const char *names[2 * MAX_APIS];

// Counts by name; the table is filled before any thread starts.
static int slot_of(const char *name) {
    int i = 0;
    for (; names[i]; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    names[i] = name;
    return i;
}

// Calls `name` when the library has it. Every count in the output comes from here.
#define MAKE(lookup, name, ...)                                                                                \
    do {                                                                                                       \
        any function_ = lookup(#name);                                                                              \
        if (function_) {                                                                                            \
            atomic_fetch_add(&counts[slot_of(#name)], 1);                                                      \
            function_(__VA_ARGS__);                                                                                 \
        }                                                                                                      \
    } while (0)
#define RT(name, ...) MAKE(rt, name, ##__VA_ARGS__)
#define DRV(name, ...) MAKE(drv, name, ##__VA_ARGS__)

typedef int (*launch_fn)(const void *, struct dim3, struct dim3, void **, size_t, void *);
static const struct dim3 grid = {7, 2, 3}, block = {8, 4, 5};

static void launch(const char *name, const void *kernel, void *stream) {
    launch_fn fn = (launch_fn)rt(name);
    if (!fn)
        return;
    atomic_fetch_add(&counts[slot_of(name)], 1);
    fn(kernel, grid, block, NULL, 96, stream);
}

struct launch_config {
    struct dim3 grid, block;
    size_t shared;
    void *stream, *attributes;
    uint32_t count;
};
struct driver_launch_config {
    uint32_t grid[3], block[3], shared;
    void *stream, *attributes;
    uint32_t count;
};

#define CALL(name) static void make_##name(struct state *s)
CALL(cudaLaunchKernel) { launch("cudaLaunchKernel", (void *)calls_kernel, s->stream); }
CALL(cudaLaunchKernel_ptsz) { launch("cudaLaunchKernel_ptsz", (void *)calls_kernel, s->stream); }
CALL(cudaLaunchCooperativeKernel) { launch("cudaLaunchCooperativeKernel", (void *)calls_kernel, s->stream); }
CALL(__cudaLaunchKernel) { launch("__cudaLaunchKernel", s->kernel ? s->kernel : (void *)calls_other_kernel, s->stream); }
CALL(cudaLaunchKernelExC) {
    struct launch_config c = {grid, block, 96, s->stream, NULL, 0};
    RT(cudaLaunchKernelExC, &c, (void *)calls_other_kernel, (void **)NULL);
}
CALL(cudaGraphLaunch) { RT(cudaGraphLaunch, s->exec, s->stream); }
CALL(cudaMemcpyHostToDevice) { RT(cudaMemcpy, s->device, s->pinned, (size_t)BYTES, 1); }
CALL(cudaMemcpy) { RT(cudaMemcpy, s->device, s->pageable, (size_t)BYTES, 1); }
CALL(cudaMemcpyAsync) { RT(cudaMemcpyAsync, s->device, s->pinned, (size_t)BYTES, 1, s->stream); }
CALL(cudaMemcpyAsyncDtoH) { RT(cudaMemcpyAsync, s->pinned, s->device, (size_t)BYTES, 2, s->stream); }
CALL(cudaMemcpyAsyncDtoD) { RT(cudaMemcpyAsync, s->device2, s->device, (size_t)BYTES, 3, s->stream); }
CALL(cudaMemcpyAsync_ptsz) { RT(cudaMemcpyAsync_ptsz, s->device, s->pinned, (size_t)BYTES, 1, s->stream); }
CALL(cudaMemset) { RT(cudaMemset, s->device, 1, (size_t)BYTES); }
CALL(cudaMemsetAsync) { RT(cudaMemsetAsync, s->device, 2, (size_t)BYTES, s->stream); }
CALL(cudaMalloc) {
    void *made = NULL;
    RT(cudaMalloc, &made, (size_t)BYTES);
    RT(cudaFree, made);
}
CALL(cudaMallocAsync) {
    void *made = NULL;
    RT(cudaMallocAsync, &made, (size_t)BYTES, s->stream);
    RT(cudaFreeAsync, made, s->stream);
}
CALL(cudaHostAlloc) {
    void *made = NULL;
    RT(cudaHostAlloc, &made, (size_t)BYTES, 0u);
    RT(cudaFreeHost, made);
}
CALL(cudaStreamSynchronize) { RT(cudaStreamSynchronize, s->stream); }
CALL(cudaDeviceSynchronize) { RT(cudaDeviceSynchronize); }
CALL(cudaStreamQuery) { RT(cudaStreamQuery, s->stream); }
CALL(cudaEventRecord) { RT(cudaEventRecord, s->event, s->stream); }
CALL(cudaEventQuery) { RT(cudaEventQuery, s->event); }
CALL(cudaEventSynchronize) { RT(cudaEventSynchronize, s->event); }
CALL(cudaEventElapsedTime) {
    float ms;
    RT(cudaEventElapsedTime, &ms, s->event, s->event2);
}
CALL(cudaStreamWaitEvent) { RT(cudaStreamWaitEvent, s->stream, s->event, 0u); }
CALL(cudaSetDevice) { RT(cudaSetDevice, 0); }
CALL(cudaGetDevice) {
    int device;
    RT(cudaGetDevice, &device);
}
CALL(cudaGetLastError) { RT(cudaGetLastError); }
CALL(cuLaunchKernel) {
    DRV(cuLaunchKernel, s->function, 7u, 2u, 3u, 8u, 4u, 5u, 96u, s->stream, (void **)NULL, (void **)NULL);
}
CALL(cuLaunchKernel_ptsz) {
    DRV(cuLaunchKernel_ptsz, s->function, 7u, 2u, 3u, 8u, 4u, 5u, 96u, s->stream, (void **)NULL, (void **)NULL);
}
CALL(cuLaunchKernelEx) {
    struct driver_launch_config c = {{7, 2, 3}, {8, 4, 5}, 96, s->stream, NULL, 0};
    DRV(cuLaunchKernelEx, &c, s->function, (void **)NULL, (void **)NULL);
}
CALL(cuGraphLaunch) { DRV(cuGraphLaunch, s->exec, s->stream); }
CALL(cuMemcpyHtoDAsync_v2) { DRV(cuMemcpyHtoDAsync_v2, s->device, s->pinned, (size_t)BYTES, s->stream); }
CALL(cuMemcpyDtoHAsync_v2) { DRV(cuMemcpyDtoHAsync_v2, s->pinned, s->device, (size_t)BYTES, s->stream); }
CALL(cuMemAlloc_v2) {
    void *made = NULL;
    DRV(cuMemAlloc_v2, &made, (size_t)BYTES);
    DRV(cuMemFree_v2, made);
}
CALL(cuStreamSynchronize) { DRV(cuStreamSynchronize, s->stream); }
CALL(cuCtxSynchronize) { DRV(cuCtxSynchronize); }

static const struct api {
    const char *name;
    void (*make)(struct state *);
    bool needs_graph;
} apis[] = {
#define API(name) {#name, make_##name, false},
#define GRAPH_API(name) {#name, make_##name, true},
    API(cudaLaunchKernel) API(cudaLaunchKernel_ptsz) API(__cudaLaunchKernel) API(cudaLaunchCooperativeKernel)
    API(cudaLaunchKernelExC) GRAPH_API(cudaGraphLaunch) API(cudaMemcpy) API(cudaMemcpyHostToDevice)
    API(cudaMemcpyAsync) API(cudaMemcpyAsyncDtoH) API(cudaMemcpyAsyncDtoD) API(cudaMemcpyAsync_ptsz)
    API(cudaMemset) API(cudaMemsetAsync) API(cudaMalloc) API(cudaMallocAsync) API(cudaHostAlloc)
    API(cudaStreamSynchronize) API(cudaDeviceSynchronize) API(cudaStreamQuery) API(cudaEventRecord)
    API(cudaEventQuery) API(cudaEventSynchronize) API(cudaEventElapsedTime) API(cudaStreamWaitEvent)
    API(cudaSetDevice) API(cudaGetDevice) API(cudaGetLastError) API(cuLaunchKernel) API(cuLaunchKernel_ptsz)
    API(cuLaunchKernelEx) GRAPH_API(cuGraphLaunch) API(cuMemcpyHtoDAsync_v2) API(cuMemcpyDtoHAsync_v2)
    API(cuMemAlloc_v2) API(cuStreamSynchronize) API(cuCtxSynchronize)
};
enum { API_COUNT = sizeof apis / sizeof *apis };
static const struct api *chosen[MAX_APIS];
static int chosen_count;

static void choose(void) {
    char *copy = strdup(options.apis), *rest = copy, *word;
    while ((word = strsep(&rest, ","))) {
        int i = 0;
        while (i < API_COUNT && strcmp(apis[i].name, word) != 0)
            i++;
        if (i == API_COUNT || chosen_count == MAX_APIS) {
            fprintf(stderr, "calls: unknown API `%s`; see --list\n", word);
            exit(2);
        }
        chosen[chosen_count++] = &apis[i];
    }
    free(copy);
}

enum { GRAPH_NODES = 3 };
static void make_graph(struct state *s) {
    RT(cudaStreamBeginCapture, s->stream, 2);
    for (int i = 0; i < GRAPH_NODES; i++)
        launch("cudaLaunchKernel", (void *)calls_kernel, s->stream);
    RT(cudaStreamEndCapture, s->stream, &s->graph);
    RT(cudaGraphInstantiate, &s->exec, s->graph, 0ull);
}

static void prepare(struct state *s) {
    void *context = NULL, *module = NULL;
    RT(cudaSetDevice, 0);
    DRV(cuInit, 0u);
    if (!runtime) {
        DRV(cuDevicePrimaryCtxRetain, &context, 0);
        DRV(cuCtxSetCurrent, context);
    }
    RT(cudaStreamCreateWithFlags, &s->stream, 1u);
    RT(cudaEventCreate, &s->event);
    RT(cudaEventCreate, &s->event2);
    RT(cudaEventRecord, s->event, s->stream);
    RT(cudaEventRecord, s->event2, s->stream);
    RT(cudaMalloc, &s->device, (size_t)BYTES);
    RT(cudaMalloc, &s->device2, (size_t)BYTES);
    RT(cudaHostAlloc, &s->pinned, (size_t)BYTES, 0u);
    RT(__cudaGetKernel, &s->kernel, (void *)calls_other_kernel);
    DRV(cuModuleLoadData, &module, "calls");
    DRV(cuModuleGetFunction, &s->function, module, "calls_driver_kernel");
    for (int i = 0; i < chosen_count; i++)
        if (chosen[i]->needs_graph && !s->exec)
            make_graph(s);
}

static void pause_ns(long ns) {
    struct timespec t = {ns / 1000000000, ns % 1000000000};
    nanosleep(&t, NULL);
}

// Every name that a call below may count, so that the table does not change while threads read it.
static void enter_names(void) {
    static const char *const inner[] = {"cudaFree", "cudaFreeAsync", "cudaFreeHost", "cuMemFree_v2",
                                        "cudaMemcpy", "cudaMemcpyAsync", "cudaStreamSynchronize"};
    for (int i = 0; i < chosen_count; i++)
        slot_of(chosen[i]->name);
    for (size_t i = 0; i < sizeof inner / sizeof *inner; i++)
        slot_of(inner[i]);
}

static pthread_barrier_t prepared, begin;
static void *thread(void *unused) {
    struct state *s = calloc(1, sizeof *s);
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&one); // names are entered one thread at a time
    prepare(s);
    enter_names();
    pthread_mutex_unlock(&one);
    pthread_barrier_wait(&prepared);
    pthread_barrier_wait(&begin);
    for (int k = 0; k < options.times; k++) {
        for (int i = 0; i < chosen_count; i++)
            chosen[i]->make(s);
        if (options.interval_ns)
            pause_ns(options.interval_ns);
    }
    RT(cudaStreamSynchronize, s->stream);
    return NULL;
}

static void *open_first(const char *const *paths) {
    for (; *paths; paths++) {
        void *library = dlopen(*paths, RTLD_NOW | RTLD_GLOBAL);
        if (library)
            return library;
    }
    return NULL;
}

// A loader path such as libcudart.so.13 is resolved by loading it and asking where it came from.
static void copy_library(const char *name, char *copy) {
    char script[512], source[1024] = "";
    void *probe = dlopen(name, RTLD_LAZY | RTLD_LOCAL);
    Dl_info info;
    if (probe && dladdr(dlsym(probe, "cudaLaunchKernel"), &info))
        snprintf(source, sizeof source, "%s", info.dli_fname);
    if (probe)
        dlclose(probe);
    snprintf(copy, 64, "/tmp/calls-%d-libcudart.so", (int)getpid());
    snprintf(script, sizeof script, "cp '%.400s' '%.60s'", source, copy);
    if (system(script) != 0)
        exit(1);
}

static void load(void) {
    pause_ns(options.dlopen_after_ms * 1000000);
    const char *paths[] = {options.library ? options.library : "libcudart.so.13", "libcudart.so.12", NULL};
    char copy[64];
    if (options.copy_and_delete) {
        copy_library(paths[0], copy);
        paths[0] = copy, paths[1] = NULL;
    }
    runtime = open_first(paths);
    if (options.copy_and_delete)
        unlink(copy);
    driver = open_first((const char *const[]){"libcuda.so.1", NULL});
    if (!runtime && !driver) {
        fprintf(stderr, "calls: neither libcudart nor libcuda can be loaded: %s\n", dlerror());
        exit(1);
    }
}

static void print_counts(void) {
    printf("{\"pid\":%d,\"threads\":%d,\"times\":%d,\"runtime\":%s,\"driver\":%s,\"calls\":{", (int)getpid(),
           options.threads, options.times, runtime ? "true" : "false", driver ? "true" : "false");
    const char *comma = "";
    for (int i = 0; names[i]; i++)
        if (counts[i]) {
            printf("%s\"%s\":%llu", comma, names[i], (unsigned long long)counts[i]);
            comma = ",";
        }
    printf("}}\n");
    fflush(stdout);
}

static void wait_line(const char *what) {
    char line[64];
    printf("{\"waiting\":\"%s\",\"pid\":%d}\n", what, (int)getpid());
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        exit(0); // the test is gone
}

static void make_calls(void) {
    load();
    pthread_t threads[256];
    pthread_barrier_init(&prepared, NULL, (unsigned)options.threads + 1);
    pthread_barrier_init(&begin, NULL, (unsigned)options.threads + 1);
    for (int i = 0; i < options.threads; i++)
        pthread_create(&threads[i], NULL, thread, NULL);
    pthread_barrier_wait(&prepared);
    if (options.wait_stdin)
        wait_line("start");
    while (options.wait_for && access(options.wait_for, F_OK))
        pause_ns(1000000);
    pthread_barrier_wait(&begin);
    for (int i = 0; i < options.threads; i++)
        pthread_join(threads[i], NULL);
    print_counts();
    if (options.wait_stdin)
        wait_line("end");
    while (options.hold)
        pause();
}

static long number(const char *text) { return text ? strtol(text, NULL, 10) : 0; }

static void parse(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(flag, "--threads")) options.threads = (int)number(value), i++;
        else if (!strcmp(flag, "--times")) options.times = (int)number(value), i++;
        else if (!strcmp(flag, "--api")) options.apis = value, i++;
        else if (!strcmp(flag, "--interval-ns")) options.interval_ns = number(value), i++;
        else if (!strcmp(flag, "--library")) options.library = value, i++;
        else if (!strcmp(flag, "--dlopen-after-ms")) options.dlopen_after_ms = number(value), i++;
        else if (!strcmp(flag, "--wait-for")) options.wait_for = value, i++;
        else if (!strcmp(flag, "--wait-stdin")) options.wait_stdin = true;
        else if (!strcmp(flag, "--hold")) options.hold = true;
        else if (!strcmp(flag, "--fork")) options.fork = true;
        else if (!strcmp(flag, "--exec")) options.exec = true;
        else if (!strcmp(flag, "--copy-library-and-delete")) options.copy_and_delete = true;
        else if (!strcmp(flag, "--list")) {
            for (int a = 0; a < API_COUNT; a++)
                puts(apis[a].name);
            exit(0);
        } else {
            fputs(usage, stderr);
            exit(2);
        }
    }
    if (!options.apis || options.threads < 1 || options.threads > 256) {
        fputs(usage, stderr);
        exit(2);
    }
}

// The same program again, without --exec.
static void execute_again(char **argv) {
    char **to = argv + 1;
    for (char **from = argv + 1; *from; from++)
        if (strcmp(*from, "--exec") != 0)
            *to++ = *from;
    *to = NULL;
    execv("/proc/self/exe", argv);
    perror("calls: exec");
    exit(1);
}

int main(int argc, char **argv) {
    parse(argc, argv);
    choose();
    if (options.exec) {
        if (options.wait_stdin)
            wait_line("exec");
        execute_again(argv);
    }
    if (options.fork) {
        if (options.wait_stdin)
            wait_line("fork");
        pid_t child = fork();
        int status = 0;
        if (child > 0)
            return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    }
    make_calls();
    return 0;
}
