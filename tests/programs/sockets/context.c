// What a thread says that it works for (OTEP 4947), and work for the GPU: functions of libraries that are loaded by `load`,
// by the environment, or linked in.
#include "sockets.h"
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>

struct size {
    uint32_t x, y, z;
};

__attribute__((visibility("default"), noinline)) void sockets_kernel(void) { __asm__ volatile(""); }

static long load(struct session *session, const struct words *words) {
    if (dlopen(words->text[0], RTLD_NOW | RTLD_GLOBAL))
        return 0;
    fprintf(stderr, "sockets: %s\n", dlerror());
    errno = ENOENT;
    return -1;
}

static void *find(const char *name) {
    void *found = dlsym(RTLD_DEFAULT, name);
    if (!found)
        errno = ENOSYS;
    return found;
}

// `publish TRACE SPAN FLAGS VALID`: ids in hexadecimal.
static long publish(struct session *session, const struct words *words) {
    void (*fn)(const char *, const char *, int, int) = find("publish_context");
    if (!fn)
        return -1;
    fn(words->text[0], words->text[1], (int)words->number[2], (int)words->number[3]);
    return 0;
}

static long unpublish(struct session *session, const struct words *words) {
    void (*fn)(void) = find("clear_context");
    if (!fn)
        return -1;
    fn();
    return 0;
}

// `launch N`: so many kernels, in the default stream.
static long launch(struct session *session, const struct words *words) {
    int (*fn)(const void *, struct size, struct size, void **, size_t, void *) = find("cudaLaunchKernel");
    if (!fn)
        return -1;
    struct size one = {1, 1, 1};
    for (long i = 0; i < words->number[0]; i++)
        if (fn((void *)sockets_kernel, one, one, NULL, 0, NULL))
            return -1;
    return words->number[0];
}

static long synchronize(struct session *session, const struct words *words) {
    int (*fn)(void) = find("cudaDeviceSynchronize");
    return fn ? fn() : -1;
}

const struct command context_commands[] = {
    {"load", 1, load},           {"publish", 4, publish},         {"unpublish", 0, unpublish},
    {"launch", 1, launch},       {"synchronize", 0, synchronize}, {NULL, 0, NULL},
};
