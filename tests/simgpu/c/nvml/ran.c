// What ran, as the processes of the log directory account for it. Out: sums and shares of time. Absent: anything told.
#define _GNU_SOURCE
#include "nvml.h"
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

static int read_process(const char *path, struct process *out) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    off_t size = lseek(fd, 0, SEEK_END);
    struct counts_file *file = size > 0 ? mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    close(fd);
    if (file == MAP_FAILED)
        return 0;
    int good = atomic_load(&file->magic) == SIMGPU_COUNTS_MAGIC;
    if (good) {
        const struct truth_slot *truth = (const struct truth_slot *)((const char *)file + file->truth_offset);
        *out = (struct process){.pid = file->pid, .live_bytes = atomic_load(&truth[TRUTH_live_bytes].value),
                                .busy_ns = atomic_load(&truth[TRUTH_busy_ns].value),
                                .received_bytes = atomic_load(&truth[TRUTH_copies_htod_bytes].value) +
                                                  atomic_load(&truth[TRUTH_graph_copies_htod_bytes].value),
                                .sent_bytes = atomic_load(&truth[TRUTH_copies_dtoh_bytes].value) +
                                              atomic_load(&truth[TRUTH_graph_copies_dtoh_bytes].value)};
        out->alive = kill((pid_t)out->pid, 0) == 0;
    }
    munmap(file, (size_t)size);
    return good;
}

unsigned read_processes(struct process *out, unsigned room) {
    unsigned count = 0;
    DIR *directory = log_directory()[0] ? opendir(log_directory()) : NULL;
    for (struct dirent *entry; directory && count < room && (entry = readdir(directory));) {
        char path[4096];
        if (!strstr(entry->d_name, ".counts"))
            continue;
        snprintf(path, sizeof path, "%s/%s", log_directory(), entry->d_name);
        if (read_process(path, &out[count]) && (out[count].busy_ns || out[count].live_bytes))
            count++;
    }
    if (directory)
        closedir(directory);
    return count;
}

struct totals totals(void) {
    struct process list[MAX_PROCESSES];
    unsigned count = read_processes(list, MAX_PROCESSES);
    struct totals sum = {0};
    for (unsigned i = 0; i < count; i++) {
        sum.busy_ns += list[i].busy_ns;
        sum.received_bytes += list[i].received_bytes;
        sum.sent_bytes += list[i].sent_bytes;
        if (list[i].alive)
            sum.live_bytes += list[i].live_bytes;
    }
    return sum;
}

uint64_t wall_us(void) {
    struct timeval now;
    gettimeofday(&now, NULL);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_usec;
}

// The share of time in which anything ran since the last sample; samples are at least 20 ms apart.
unsigned utilization(void) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static uint64_t last_ns, last_busy;
    static unsigned percent;
    pthread_mutex_lock(&lock);
    uint64_t now = now_ns();
    if (now - last_ns > 20000000) {
        uint64_t busy = totals().busy_ns;
        if (last_ns && busy >= last_busy)
            percent = (unsigned)((busy - last_busy) * 100 / (now - last_ns));
        last_ns = now, last_busy = busy;
    }
    unsigned result = percent > 100 ? 100 : percent;
    pthread_mutex_unlock(&lock);
    return result;
}
