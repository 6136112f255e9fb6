// What a test tells the library while it runs. In: the file `SIMGPU_NVML` of lines `<device>.<key>=<number>` (of an
// instance `<device>.mig.<instance>.<key>`), read anew when it has changed; replace it by a rename. Out: numbers by key.
// Absent: meaning, which the callers give.
#define _GNU_SOURCE
#include "nvml.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MOST = 1 << 16, MOST_KEY = 192 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char said[MOST]; // begins with a line's end, so that every key follows one

static void refresh(void) {
    static struct timespec changed;
    static ino_t inode;
    const char *path = getenv("SIMGPU_NVML");
    struct stat now;
    if (!path || stat(path, &now) != 0) {
        said[0] = 0;
        inode = 0;
        return;
    }
    if (now.st_ino == inode && now.st_mtim.tv_sec == changed.tv_sec && now.st_mtim.tv_nsec == changed.tv_nsec)
        return;
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    said[0] = '\n';
    said[1 + fread(said + 1, 1, MOST - 2, file)] = 0;
    fclose(file);
    inode = now.st_ino;
    changed = now.st_mtim;
}

static bool find(const char *key, double *value) {
    pthread_mutex_lock(&lock);
    refresh();
    char line[MOST_KEY];
    snprintf(line, sizeof line, "\n%s=", key);
    const char *at = strstr(said, line);
    if (at)
        *value = strtod(at + strlen(line), NULL);
    pthread_mutex_unlock(&lock);
    return at != NULL;
}
static void full(const struct device *device, const char *key, char *out) {
    if (device->parent)
        snprintf(out, MOST_KEY, "%u.mig.%u.%s", device->index, device->instance, key);
    else
        snprintf(out, MOST_KEY, "%u.%s", device->index, key);
}

bool told_globally(const char *key, double *value) { return find(key, value); }
bool told(const struct device *device, const char *key, double *value) {
    char name[MOST_KEY];
    full(device, key, name);
    return find(name, value);
}
bool told_number(const struct device *device, const char *key, uint64_t *value) {
    double number;
    if (!told(device, key, &number))
        return false;
    *value = (uint64_t)number;
    return true;
}
unsigned told_pairs(const struct device *device, const char *key, struct told_pair *out, unsigned room) {
    char name[MOST_KEY], line[MOST_KEY + 4];
    full(device, key, name);
    snprintf(line, sizeof line, "\n%s.", name);
    unsigned count = 0;
    pthread_mutex_lock(&lock);
    refresh();
    for (const char *at = said; count < room && (at = strstr(at, line));) {
        char *end;
        out[count].number = strtoull(at + strlen(line), &end, 10);
        if (*end == '=')
            out[count++].value = strtod(end + 1, NULL);
        at = end;
    }
    pthread_mutex_unlock(&lock);
    return count;
}
