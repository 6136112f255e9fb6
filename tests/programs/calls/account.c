// What the calls are expected to do to the device, worked out from their arguments alone. In: results and sizes. Out:
// one JSON object. Absent: what the stand-ins counted; the tests compare.
#include "calls.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct pair {
    _Atomic uint64_t count, bytes;
};
// Once what was asked for, and once what succeeded.
static struct {
    _Atomic uint64_t launches, captured, host_functions, graph_launches, unknown_graphs;
    struct pair copies[DIRECTIONS], sets;
} asked, done;
static struct {
    _Atomic uint64_t kernels, hosts;
    struct pair copies[DIRECTIONS], sets;
} in_graphs;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    uint64_t allocations, frees, allocated, freed, live, peak, unknown;
} memories[MEMORIES];

enum { MOST_NAMES = 256 };
static struct named {
    const char *name;
    int code; // of failures
    uint64_t count, bytes;
} collectives[MOST_NAMES], failures[MOST_NAMES];

// The entry of a name and code; the lock is held.
static struct named *entry(struct named *table, const char *name, int code) {
    struct named *at = table;
    while (at->name && at < table + MOST_NAMES - 1 && (strcmp(at->name, name) != 0 || at->code != code))
        at++;
    at->name = name, at->code = code;
    return at;
}

static void add(struct pair *pair, uint64_t count, uint64_t bytes) {
    atomic_fetch_add(&pair->count, count);
    atomic_fetch_add(&pair->bytes, bytes);
}

// Does `statement` to `asked` unless the call is missing, and to `done` if it succeeded.
#define TO_BOTH(result, statement)                                                                             \
    do {                                                                                                       \
        if ((result) != MISSING) {                                                                             \
            __typeof__(asked) *to = &asked;                                                                    \
            statement;                                                                                         \
        }                                                                                                      \
        if ((result) == 0) {                                                                                   \
            __typeof__(asked) *to = &done;                                                                     \
            statement;                                                                                         \
        }                                                                                                      \
    } while (0)

void launched(int result, unsigned count) { TO_BOTH(result, atomic_fetch_add(&to->launches, count)); }
void captured(int result) { TO_BOTH(result, atomic_fetch_add(&to->captured, 1)); }
void host_function(int result) { TO_BOTH(result, atomic_fetch_add(&to->host_functions, 1)); }
void was_set(int result, size_t bytes) { TO_BOTH(result, add(&to->sets, 1, bytes)); }
void copied(int result, enum direction direction, size_t bytes) {
    TO_BOTH(result, add(&to->copies[direction], 1, bytes));
}
void launched_unknown_graph(int result) {
    TO_BOTH(result, (atomic_fetch_add(&to->graph_launches, 1), atomic_fetch_add(&to->unknown_graphs, 1)));
}
void replayed(int result, const struct nodes *nodes) {
    TO_BOTH(result, atomic_fetch_add(&to->graph_launches, 1));
    if (result)
        return;
    atomic_fetch_add(&in_graphs.kernels, nodes->kernels);
    atomic_fetch_add(&in_graphs.hosts, nodes->hosts);
    add(&in_graphs.sets, nodes->sets, nodes->set_bytes);
    for (int i = 0; i < DIRECTIONS; i++)
        add(&in_graphs.copies[i], nodes->copies[i], nodes->copy_bytes[i]);
}

void allocated(int result, enum memory of, size_t bytes) {
    if (result)
        return;
    pthread_mutex_lock(&lock);
    memories[of].allocations++;
    memories[of].allocated += bytes;
    memories[of].live += bytes;
    if (memories[of].live > memories[of].peak)
        memories[of].peak = memories[of].live;
    pthread_mutex_unlock(&lock);
}
void freed(int result, enum memory of, size_t bytes) {
    if (result)
        return;
    pthread_mutex_lock(&lock);
    memories[of].frees++;
    memories[of].freed += bytes;
    memories[of].live -= bytes;
    pthread_mutex_unlock(&lock);
}
void freed_unknown(int result, enum memory of) {
    if (result)
        return;
    pthread_mutex_lock(&lock);
    memories[of].frees++;
    memories[of].unknown++;
    pthread_mutex_unlock(&lock);
}

void collective(int result, const char *name, size_t bytes) {
    if (result)
        return;
    pthread_mutex_lock(&lock);
    struct named *of = entry(collectives, name, 0);
    of->count++, of->bytes += bytes;
    pthread_mutex_unlock(&lock);
}
// What cudaGetLastError returns is another call's failure.
void failed(const struct site *site, int result) {
    if (strcmp(site->name, "cudaGetLastError") == 0)
        return;
    pthread_mutex_lock(&lock);
    entry(failures, site->name, result)->count++;
    pthread_mutex_unlock(&lock);
}

extern struct site __start_call_sites[], __stop_call_sites[];

void begin_account(void) {
    for (struct site *site = __start_call_sites; site < __stop_call_sites; site++)
        site->before = atomic_load(&site->made);
    memset(&asked, 0, sizeof asked);
    memset(&done, 0, sizeof done);
    memset(&in_graphs, 0, sizeof in_graphs);
    memset(memories, 0, sizeof memories);
    memset(collectives, 0, sizeof collectives);
    memset(failures, 0, sizeof failures);
}

static const char *comma(bool *first) {
    bool was = *first;
    *first = false;
    return was ? "" : ",";
}
// Several places may make the same call: the first of a name speaks for all.
static uint64_t sum_of(const struct site *site, bool after) {
    uint64_t sum = 0;
    for (struct site *other = __start_call_sites; other < __stop_call_sites; other++)
        if (strcmp(other->name, site->name) == 0) {
            if (other < site)
                return 0;
            sum += atomic_load(&other->made) - (after ? other->before : 0);
        }
    return sum;
}
static void print_calls(const char *key, bool after) {
    bool first = true;
    printf("\"%s\":{", key);
    for (struct site *site = __start_call_sites; site < __stop_call_sites; site++) {
        uint64_t sum = sum_of(site, after);
        if (sum)
            printf("%s\"%s\":%llu", comma(&first), site->name, (unsigned long long)sum);
    }
    printf("}");
}

static void print_pair(const char *key, const struct pair *pair) {
    printf("\"%s\":{\"count\":%llu,\"bytes\":%llu}", key, (unsigned long long)pair->count,
           (unsigned long long)pair->bytes);
}
static void print_copies(const struct pair *copies, const struct pair *sets) {
    static const char *const names[] = {"HtoD", "DtoH", "DtoD", "HtoH"};
    printf("\"copies\":{");
    for (int i = 0; i < DIRECTIONS; i++) {
        print_pair(names[i], &copies[i]);
        printf(i + 1 < DIRECTIONS ? "," : "},");
    }
    print_pair("sets", sets);
}
static void print_done(const char *key, const __typeof__(asked) *of) {
    printf("\"%s\":{\"launches\":%llu,\"captured\":%llu,\"host_functions\":%llu,\"graph_launches\":%llu,"
           "\"unknown_graphs\":%llu,", key, (unsigned long long)of->launches, (unsigned long long)of->captured,
           (unsigned long long)of->host_functions, (unsigned long long)of->graph_launches,
           (unsigned long long)of->unknown_graphs);
    print_copies(of->copies, &of->sets);
    printf("}");
}
static void print_memory(void) {
    static const char *const names[MEMORIES] = {"0", "1", "2", "3", "4", "5", "6", "7", [MANAGED] = "managed",
                                                [PINNED] = "pinned", [REGISTERED] = "registered",
                                                [RESERVED] = "reserved", [ARRAYS] = "arrays"};
    bool first = true;
    printf("\"memory\":{");
    for (int i = 0; i < MEMORIES; i++) {
        if (!memories[i].allocations && !memories[i].frees)
            continue;
        printf("%s\"%s\":{\"allocations\":%llu,\"frees\":%llu,\"allocated_bytes\":%llu,\"freed_bytes\":%llu,"
               "\"live_bytes\":%llu,\"peak_bytes\":%llu,\"frees_of_unknown\":%llu}", comma(&first), names[i],
               (unsigned long long)memories[i].allocations, (unsigned long long)memories[i].frees,
               (unsigned long long)memories[i].allocated, (unsigned long long)memories[i].freed,
               (unsigned long long)memories[i].live, (unsigned long long)memories[i].peak,
               (unsigned long long)memories[i].unknown);
    }
    printf("}");
}
static void print_collectives(void) {
    bool first = true;
    printf("\"collectives\":{");
    for (struct named *at = collectives; at->name; at++)
        printf("%s\"%s\":{\"count\":%llu,\"bytes\":%llu}", comma(&first), at->name, (unsigned long long)at->count,
               (unsigned long long)at->bytes);
    printf("}");
}
// A list: one function can fail in several ways.
static void print_failures(void) {
    bool first = true;
    printf("\"failures\":[");
    for (struct named *at = failures; at->name; at++)
        printf("%s{\"name\":\"%s\",\"code\":%d,\"count\":%llu}", comma(&first), at->name, at->code,
               (unsigned long long)at->count);
    printf("]");
}

// `calls` are all, `after` is what came after the wait.
void print_account(void) {
    printf("{\"pid\":%d,\"threads\":%d,\"times\":%d,\"runtime\":%s,\"driver\":%s,", (int)getpid(), options.threads,
           options.times, has(RUNTIME) ? "true" : "false", has(DRIVER) ? "true" : "false");
    print_calls("calls", false);
    printf(",\"after\":{");
    print_calls("calls", true);
    printf(",");
    print_done("asked", &asked);
    printf(",");
    print_done("done", &done);
    printf(",\"graph_nodes\":{\"kernels\":%llu,\"host_functions\":%llu,", (unsigned long long)in_graphs.kernels,
           (unsigned long long)in_graphs.hosts);
    print_copies(in_graphs.copies, &in_graphs.sets);
    printf("},");
    print_memory();
    printf(",");
    print_collectives();
    printf(",");
    print_failures();
    printf("}}\n");
    fflush(stdout);
}
