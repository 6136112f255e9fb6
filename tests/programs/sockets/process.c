// Children, threads, other programs, signals. A child or thread reads its commands from one named pipe and answers on
// another.
#include "sockets.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

// Where a thread's pipes go, so that they do not take the numbers that scripts expect.
enum { OUT_OF_THE_WAY = 1500 };

static int open_high(const char *path, int flags) {
    int fd = open(path, flags);
    int high = fcntl(fd, F_DUPFD_CLOEXEC, OUT_OF_THE_WAY);
    close(fd);
    return high;
}

static void move(const char *path, int flags, int to) {
    int fd = open(path, flags);
    dup2(fd, to);
    close(fd);
}

// `fork IN OUT`: the child's standard input and output become these. The result is the child.
static long do_fork(struct session *session, const struct words *words) {
    pid_t child = fork();
    if (child)
        return child;
    move(words->text[0], O_RDONLY, STDIN_FILENO);
    move(words->text[1], O_WRONLY, STDOUT_FILENO);
    struct session own = *session;
    own.in = fdopen(STDIN_FILENO, "r");
    own.out = fdopen(STDOUT_FILENO, "w");
    serve(&own);
    _exit(0);
}

struct helper {
    struct session session;
    char in[256], out[256];
};

static void *help(void *argument) {
    struct helper *helper = argument;
    helper->session.in = fdopen(open_high(helper->in, O_RDONLY), "r");
    helper->session.out = fdopen(open_high(helper->out, O_WRONLY), "w");
    helper->session.room = malloc(ROOM);
    serve(&helper->session);
    return NULL;
}

// `thread IN OUT`: with data and room of its own.
static long do_thread(struct session *session, const struct words *words) {
    struct helper *helper = calloc(1, sizeof *helper);
    strncpy(helper->in, words->text[0], sizeof helper->in - 1);
    strncpy(helper->out, words->text[1], sizeof helper->out - 1);
    pthread_t thread;
    errno = pthread_create(&thread, NULL, help, helper);
    if (errno)
        return -1;
    pthread_detach(thread);
    return 0;
}

// The same program anew; what is not marked close-on-exec stays open. It answers `ready` instead of a result.
static long do_exec(struct session *session, const struct words *words) {
    execl("/proc/self/exe", "sockets", NULL);
    return -1;
}

static long do_exit(struct session *session, const struct words *words) { _exit((int)words->number[0]); }

static long do_wait(struct session *session, const struct words *words) {
    int status;
    return waitpid((pid_t)words->number[0], &status, 0) < 0 ? -1 : status;
}

static void nothing(int signal) {}

// `alarm MS`: a signal that interrupts the next call that waits.
static long alarm_in(struct session *session, const struct words *words) {
    struct sigaction action = {.sa_handler = nothing};
    struct itimerval timer = {.it_value = {words->number[0] / 1000, words->number[0] % 1000 * 1000}};
    return sigaction(SIGALRM, &action, NULL) ? -1 : setitimer(ITIMER_REAL, &timer, NULL);
}

static long title(struct session *session, const struct words *words) {
    return prctl(PR_SET_NAME, words->text[0], 0, 0, 0);
}

static long uring(struct session *session, const struct words *words) {
    struct io_uring_params parameters = {0};
    return syscall(SYS_io_uring_setup, 4, &parameters);
}

const struct command process_commands[] = {
    {"fork", 2, do_fork},
    {"thread", 2, do_thread},
    {"exec", 0, do_exec},
    {"exit", 1, do_exit},
    {"wait", 1, do_wait},
    {"alarm", 1, alarm_in},
    {"title", 1, title},
    {"uring", 0, uring},
    {NULL, 0, NULL},
};
