// Launches through several CUDA runtimes of one process. In: paths of libcudart, each loaded on its own; `new:` before
// a path loads it into a namespace of its own (dlmopen). Out: lines of JSON as from calls.c: whom it waits for, then
// the calls it made by name. Absent: everything but launches.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MAX_RUNTIMES = 8, TIMES = 300 };
struct dim3 {
    uint32_t x, y, z;
};
typedef int (*launch_fn)(const void *, struct dim3, struct dim3, void **, size_t, void *);

__attribute__((visibility("default"), noinline)) void several_kernel(void) { __asm__ volatile(""); }

static launch_fn load(const char *path) {
    void *library = strncmp(path, "new:", 4) == 0 ? dlmopen(LM_ID_NEWLM, path + 4, RTLD_NOW)
                                                  : dlopen(path, RTLD_NOW | RTLD_LOCAL);
    launch_fn launch = library ? (launch_fn)dlsym(library, "cudaLaunchKernel") : NULL;
    if (!launch) {
        fprintf(stderr, "several: %s: %s\n", path, dlerror());
        return NULL;
    }
    // Servers ask for the devices long before they launch, and that loads the driver.
    int (*devices)(int *) = (int (*)(int *))dlsym(library, "cudaGetDeviceCount");
    int count;
    if (devices)
        devices(&count);
    return launch;
}

static void wait_before(const char *what) {
    printf("{\"waiting\":\"%s\",\"pid\":%d}\n", what, (int)getpid());
    fflush(stdout);
    for (int c = getchar(); c != '\n' && c != EOF;)
        c = getchar();
}

int main(int argc, char **argv) {
    launch_fn launches[MAX_RUNTIMES];
    int count = argc - 1;
    if (count < 1 || count > MAX_RUNTIMES) {
        fputs("usage: several [new:]LIBCUDART...\n", stderr);
        return 2;
    }
    for (int i = 0; i < count; i++)
        if (!(launches[i] = load(argv[i + 1])))
            return 1;
    wait_before("start");
    const struct dim3 one = {1, 1, 1};
    for (int j = 0; j < TIMES; j++)
        for (int i = 0; i < count; i++)
            launches[i]((const void *)several_kernel, one, one, NULL, 0, NULL);
    printf("{\"pid\":%d,\"calls\":{\"cudaLaunchKernel\":%d}}\n", (int)getpid(), TIMES * count);
    fflush(stdout);
    wait_before("end");
}
