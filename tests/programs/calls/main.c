// Makes an exactly known number of CUDA calls. In: flags (see usage), whatever libcudart, libcuda and libnccl the loader
// finds. Out: one JSON object: the calls made by name, and what they should have done. Absent: checks of results;
// without a driver every call fails and still counts.
#include "calls.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
    "usage: calls [options]\n"
    "  --threads N             threads that make the calls (1)\n"
    "  --times K               calls of each API in each thread (1)\n"
    "  --api A,B,...           the APIs, see --list; @GROUP for a group, `all` for all but @failing\n"
    "                          (cudaLaunchKernel)\n"
    "  --list                  print the known APIs with their groups and end\n"
    "  --interval-ns N         pause between rounds (0)\n"
    "  --library PATH          libcudart to load (libcudart.so.13, else .12)\n"
    "  --second-library PATH   another libcudart, which every second thread uses\n"
    "  --no-runtime            load no libcudart\n"
    "  --dlopen-after-ms M     load the libraries only M ms after the start\n"
    "  --copy-library-and-delete  load a copy of libcudart and unlink it\n"
    "  --wait-for FILE         begin when FILE exists\n"
    "  --wait-load             wait for a line on stdin before the libraries are loaded, and for one after\n"
    "  --wait-stdin            wait for a line on stdin before the calls, and for another before the end\n"
    "  --hold                  after the calls, sleep until killed\n"
    "  --fork                  a forked child makes the calls\n"
    "  --exec                  the process executes itself again, and that makes the calls\n";

struct options options = {.threads = 1, .times = 1, .apis = "cudaLaunchKernel"};

extern const struct api __start_apis[], __stop_apis[];
enum { MOST_CHOSEN = 1024 };
static const struct api *chosen[MOST_CHOSEN];
static int chosen_count;

static bool matches(const struct api *api, const char *word) {
    if (strcmp(word, "all") == 0)
        return strcmp(api->group, "failing") != 0;
    return strcmp(word[0] == '@' ? api->group : api->name, word + (word[0] == '@')) == 0;
}
static void choose(void) {
    char *copy = strdup(options.apis), *rest = copy, *word;
    while ((word = strsep(&rest, ","))) {
        int before = chosen_count;
        for (const struct api *api = __start_apis; api < __stop_apis; api++)
            if (matches(api, word) && chosen_count < MOST_CHOSEN)
                chosen[chosen_count++] = api, options.wants_nccl |= strcmp(api->group, "collective") == 0;
        if (chosen_count == before) {
            fprintf(stderr, "calls: unknown API `%s`; see --list\n", word);
            exit(2);
        }
    }
    free(copy);
}
static void list(void) {
    for (const struct api *api = __start_apis; api < __stop_apis; api++)
        printf("%s @%s\n", api->name, api->group);
}

static void pause_ns(long ns) { nanosleep(&(struct timespec){ns / 1000000000, ns % 1000000000}, NULL); }

static pthread_barrier_t prepared, begin;
static void *thread(void *number) {
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
    struct state *s = calloc(1, sizeof *s);
    second_runtime = has(SECOND_RUNTIME) && (uintptr_t)number % 2;
    pthread_mutex_lock(&one); // one thread at a time prepares
    prepare(s);
    for (int i = 0; i < chosen_count; i++)
        if (chosen[i]->need)
            chosen[i]->need(s);
    pthread_mutex_unlock(&one);
    pthread_barrier_wait(&prepared);
    pthread_barrier_wait(&begin);
    for (int k = 0; k < options.times; k++) {
        for (int i = 0; i < chosen_count; i++)
            chosen[i]->make(s);
        if (options.interval_ns)
            pause_ns(options.interval_ns);
    }
    if (has(RUNTIME))
        RT(cudaStreamSynchronize, s->stream);
    else
        DRV(cuStreamSynchronize, s->stream);
    return NULL;
}

static void wait_line(const char *what) {
    char line[64];
    printf("{\"waiting\":\"%s\",\"pid\":%d}\n", what, (int)getpid());
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        exit(0); // the test is gone
}

static void make_calls(void) {
    pthread_t threads[256];
    if (options.wait_load)
        wait_line("load");
    load_libraries();
    if (options.wait_load)
        wait_line("loaded");
    pthread_barrier_init(&prepared, NULL, (unsigned)options.threads + 1);
    pthread_barrier_init(&begin, NULL, (unsigned)options.threads + 1);
    for (int i = 0; i < options.threads; i++)
        pthread_create(&threads[i], NULL, thread, (void *)(uintptr_t)i);
    pthread_barrier_wait(&prepared);
    begin_account();
    if (options.wait_stdin)
        wait_line("start");
    while (options.wait_for && access(options.wait_for, F_OK))
        pause_ns(1000000);
    pthread_barrier_wait(&begin);
    for (int i = 0; i < options.threads; i++)
        pthread_join(threads[i], NULL);
    print_account();
    if (options.wait_stdin)
        wait_line("end");
    while (options.hold)
        pause();
}

static void wrong_usage(void) {
    fputs(usage, stderr);
    exit(2);
}
static long number(const char *text) { return text ? strtol(text, NULL, 10) : 0; }

static bool parse_switch(const char *flag) {
    const struct {
        const char *flag;
        bool *option;
    } switches[] = {{"--wait-stdin", &options.wait_stdin}, {"--wait-load", &options.wait_load}, {"--hold", &options.hold}, {"--fork", &options.fork},
                    {"--exec", &options.exec}, {"--no-runtime", &options.no_runtime},
                    {"--copy-library-and-delete", &options.copy_and_delete}};
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++)
        if (strcmp(flag, switches[i].flag) == 0) {
            *switches[i].option = true;
            return true;
        }
    return false;
}
static void parse_value(const char *flag, const char *value) {
    if (!strcmp(flag, "--threads")) options.threads = (int)number(value);
    else if (!strcmp(flag, "--times")) options.times = (int)number(value);
    else if (!strcmp(flag, "--api")) options.apis = value;
    else if (!strcmp(flag, "--interval-ns")) options.interval_ns = number(value);
    else if (!strcmp(flag, "--library")) options.library = value;
    else if (!strcmp(flag, "--second-library")) options.second_library = value;
    else if (!strcmp(flag, "--dlopen-after-ms")) options.dlopen_after_ms = number(value);
    else if (!strcmp(flag, "--wait-for")) options.wait_for = value;
    else wrong_usage();
}
static void parse(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--list")) {
            list();
            exit(0);
        }
        if (parse_switch(argv[i]))
            continue;
        parse_value(argv[i], i + 1 < argc ? argv[i + 1] : NULL);
        i++;
    }
    if (!options.apis || options.threads < 1 || options.threads > 256 || options.times < 0)
        wrong_usage();
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
