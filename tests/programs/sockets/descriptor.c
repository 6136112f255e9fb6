// Descriptors: where they come from, what they become, how they go.
#include "sockets.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define FD ((int)words->number[0])

static long listening(int fd, const void *address, size_t length) {
    int error;
    if (!bind(fd, address, (socklen_t)length) && !listen(fd, 128))
        return fd;
    error = errno;
    close(fd);
    errno = error;
    return -1;
}

// `listen4 PORT [reuseport]`
static long listen4(struct session *session, const struct words *words) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), reuse = words->count > 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)words->number[0])};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &reuse, sizeof reuse);
    return listening(fd, &address, sizeof address);
}

// On all addresses, those of IPv4 in their mapped form.
static long listen6(struct session *session, const struct words *words) {
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)words->number[0])};
    return listening(fd, &address, sizeof address);
}

// A name that begins with @ is abstract.
static long listen_unix(struct session *session, const struct words *words) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, words->text[0], sizeof address.sun_path - 1);
    size_t length = offsetof(struct sockaddr_un, sun_path) + strlen(address.sun_path);
    if (address.sun_path[0] == '@')
        address.sun_path[0] = 0;
    return listening(fd, &address, length);
}

static long port(struct session *session, const struct words *words) {
    union {
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address;
    socklen_t length = sizeof address;
    return getsockname(FD, (void *)&address, &length) ? -1 : ntohs(address.v4.sin_port);
}

static long connect4(struct session *session, const struct words *words) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)words->number[0])};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return connect(fd, (void *)&address, sizeof address) ? -1 : fd;
}

static long do_accept(struct session *session, const struct words *words) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    return syscall(SYS_accept, FD, &address, &length);
}

static long do_accept4(struct session *session, const struct words *words) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    return accept4(FD, (void *)&address, &length, SOCK_CLOEXEC);
}

// As uvloop does.
static long accept_null(struct session *session, const struct words *words) {
    return accept4(FD, NULL, NULL, SOCK_CLOEXEC);
}

static long do_close(struct session *session, const struct words *words) { return close(FD); }

static long do_close_range(struct session *session, const struct words *words) {
    return syscall(SYS_close_range, FD, (unsigned)words->number[1], (unsigned)words->number[2]);
}

static long do_dup(struct session *session, const struct words *words) { return dup(FD); }

static long do_dup2(struct session *session, const struct words *words) {
    return dup2(FD, (int)words->number[1]);
}

static long do_dup3(struct session *session, const struct words *words) {
    return dup3(FD, (int)words->number[1], O_CLOEXEC);
}

static long fcntl_dup(struct session *session, const struct words *words) {
    return fcntl(FD, F_DUPFD_CLOEXEC, (int)words->number[1]);
}

static long do_shutdown(struct session *session, const struct words *words) {
    return shutdown(FD, (int)words->number[1]);
}

static long do_open(struct session *session, const struct words *words) {
    return open(words->text[0], O_RDWR | O_CREAT, 0600);
}

// Reading and writing from the file's start again.
static long rewind_file(struct session *session, const struct words *words) {
    return lseek(FD, 0, SEEK_SET);
}

static long nonblock(struct session *session, const struct words *words) {
    return fcntl(FD, F_SETFL, fcntl(FD, F_GETFL) | O_NONBLOCK);
}

static long send_buffer(struct session *session, const struct words *words) {
    int size = (int)words->number[1];
    return setsockopt(FD, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
}

// Closing will send a reset.
static long reset_on_close(struct session *session, const struct words *words) {
    struct linger linger = {.l_onoff = 1};
    return setsockopt(FD, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

const struct command descriptor_commands[] = {
    {"listen4", 1, listen4},
    {"listen6", 1, listen6},
    {"listen_unix", 1, listen_unix},
    {"port", 1, port},
    {"connect", 1, connect4},
    {"accept", 1, do_accept},
    {"accept4", 1, do_accept4},
    {"accept_null", 1, accept_null},
    {"close", 1, do_close},
    {"close_range", 3, do_close_range},
    {"dup", 1, do_dup},
    {"dup2", 2, do_dup2},
    {"dup3", 2, do_dup3},
    {"fcntl_dup", 2, fcntl_dup},
    {"shutdown", 2, do_shutdown},
    {"open", 1, do_open},
    {"rewind", 1, rewind_file},
    {"nonblock", 1, nonblock},
    {"send_buffer", 2, send_buffer},
    {"reset_on_close", 1, reset_on_close},
    {NULL, 0, NULL},
};
