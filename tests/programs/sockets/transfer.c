// Reads and writes, each by the system call of its name. Writes take `fd offset len`, a part of the session's data;
// reads take `fd len`. Vectors are cut into as many pieces as asked for, nearly equal ones.
#include "sockets.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MOST_PIECES = 1024, PIPE_ROOM = 1 << 20 };

#define FD ((int)words->number[0])
#define OFFSET ((size_t)words->number[1])
#define LEN ((size_t)words->number[2])
#define READ_LEN ((size_t)words->number[1])

static int cut(unsigned char *bytes, size_t len, long pieces, struct iovec *vector) {
    int count = (int)(pieces < 1 ? 1 : pieces > MOST_PIECES ? MOST_PIECES : pieces);
    size_t done = 0;
    for (int i = 0; i < count; i++) {
        size_t end = len * (size_t)(i + 1) / (size_t)count;
        vector[i] = (struct iovec){bytes + done, end - done};
        done = end;
    }
    return count;
}

static unsigned char *part(struct session *session, const struct words *words) {
    if (OFFSET + LEN > session->size) {
        fprintf(stderr, "sockets: the data has %zu bytes only\n", session->size);
        exit(2);
    }
    return session->data + OFFSET;
}

static long data(struct session *session, const struct words *words) {
    FILE *file = fopen(words->text[0], "r");
    if (!file)
        return -1;
    session->data = realloc(session->data, ROOM);
    session->size = fread(session->data, 1, ROOM, file);
    fclose(file);
    return (long)session->size;
}

static long do_write(struct session *session, const struct words *words) {
    return write(FD, part(session, words), LEN);
}

static long do_send(struct session *session, const struct words *words) {
    return send(FD, part(session, words), LEN, (int)words->number[3] | MSG_NOSIGNAL);
}

static long do_writev(struct session *session, const struct words *words) {
    struct iovec vector[MOST_PIECES];
    return writev(FD, vector, cut(part(session, words), LEN, words->number[3], vector));
}

// Without an offset it acts as `writev` does.
static long do_pwritev2(struct session *session, const struct words *words) {
    struct iovec vector[MOST_PIECES];
    return pwritev2(FD, vector, cut(part(session, words), LEN, words->number[3], vector), -1, 0);
}

static long do_sendmsg(struct session *session, const struct words *words) {
    struct iovec vector[MOST_PIECES];
    int pieces = cut(part(session, words), LEN, words->number[3], vector);
    struct msghdr message = {.msg_iov = vector, .msg_iovlen = (size_t)pieces};
    return sendmsg(FD, &message, MSG_NOSIGNAL);
}

// One message a piece, of two vectors each; the sum of what was sent.
static long do_sendmmsg(struct session *session, const struct words *words) {
    struct iovec vector[MOST_PIECES];
    struct mmsghdr messages[MOST_PIECES] = {0};
    int count = cut(part(session, words), LEN, 2 * words->number[3], vector) / 2;
    for (int i = 0; i < count; i++)
        messages[i].msg_hdr = (struct msghdr){.msg_iov = vector + 2 * i, .msg_iovlen = 2};
    int sent = sendmmsg(FD, messages, (unsigned)count, MSG_NOSIGNAL);
    long sum = sent < 0 ? -1 : 0;
    for (int i = 0; i < sent; i++)
        sum += messages[i].msg_len;
    return sum;
}

// From a file that has nothing else in it.
static long do_sendfile(struct session *session, const struct words *words) {
    unsigned char *bytes = part(session, words);
    int file = memfd_create("data", MFD_CLOEXEC);
    off_t start = 0;
    long sent = write(file, bytes, LEN) == (ssize_t)LEN ? sendfile(FD, file, &start, LEN) : -1;
    int error = errno;
    close(file);
    errno = error;
    return sent;
}

// Into a pipe and from there to the socket, one call.
static long do_splice(struct session *session, const struct words *words) {
    unsigned char *bytes = part(session, words);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) || fcntl(ends[1], F_SETPIPE_SZ, PIPE_ROOM) < 0)
        return -1;
    long sent = write(ends[1], bytes, LEN) == (ssize_t)LEN ? splice(ends[0], NULL, FD, NULL, LEN, 0) : -1;
    int error = errno;
    close(ends[0]);
    close(ends[1]);
    errno = error;
    return sent;
}

static long do_read(struct session *session, const struct words *words) {
    return read(FD, session->room, READ_LEN);
}

static long do_recv(struct session *session, const struct words *words) {
    return recv(FD, session->room, READ_LEN, (int)words->number[2]);
}

static long do_readv(struct session *session, const struct words *words) {
    struct iovec vector[MOST_PIECES];
    return readv(FD, vector, cut(session->room, READ_LEN, words->number[2], vector));
}

static long do_preadv2(struct session *session, const struct words *words) {
    struct iovec vector[MOST_PIECES];
    return preadv2(FD, vector, cut(session->room, READ_LEN, words->number[2], vector), -1, 0);
}

static long do_recvmsg(struct session *session, const struct words *words) {
    struct iovec vector[MOST_PIECES];
    int pieces = cut(session->room, READ_LEN, words->number[2], vector);
    struct msghdr message = {.msg_iov = vector, .msg_iovlen = (size_t)pieces};
    return recvmsg(FD, &message, (int)words->number[3]);
}

// Without waiting for more once something is there.
static long do_recvmmsg(struct session *session, const struct words *words) {
    struct iovec vector[MOST_PIECES];
    struct mmsghdr messages[MOST_PIECES] = {0};
    int count = cut(session->room, READ_LEN, words->number[2], vector);
    for (int i = 0; i < count; i++)
        messages[i].msg_hdr = (struct msghdr){.msg_iov = vector + i, .msg_iovlen = 1};
    int got = recvmmsg(FD, messages, (unsigned)count, MSG_WAITFORONE, NULL);
    long sum = got < 0 ? -1 : 0;
    for (int i = 0; i < got; i++)
        sum += messages[i].msg_len;
    return sum;
}

// From the socket into a pipe, one call; then the pipe is emptied.
static long do_splice_in(struct session *session, const struct words *words) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) || fcntl(ends[1], F_SETPIPE_SZ, PIPE_ROOM) < 0)
        return -1;
    long got = splice(FD, NULL, ends[1], NULL, READ_LEN, 0);
    int error = errno;
    if (got > 0 && read(ends[0], session->room, (size_t)got) != got)
        got = -1;
    close(ends[0]);
    close(ends[1]);
    errno = error;
    return got;
}

// Answers a request that ends with its body's `}`: by the id that it carries. 0 when it is not whole yet.
static int answer_one(int fd, const char *request, size_t length) {
    const char *name = "x-request-id: ", *id = strstr(request, name);
    if (!id || request[length - 1] != '}')
        return 0;
    id += strlen(name);
    int id_length = (int)strcspn(id, "\r");
    char answer[1024], body[512];
    int body_length = snprintf(body, sizeof body,
                               "{\"id\":\"%.*s\",\"model\":\"m\",\"choices\":[{\"index\":0,\"text\":\"x\","
                               "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}",
                               id_length, id);
    int answer_length = snprintf(answer, sizeof answer,
                                 "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s",
                                 body_length, body);
    return write(fd, answer, (size_t)answer_length) == answer_length ? 1 : -1;
}

// `answer FD`: answers short requests, one after the other, until the client says no more. The result is how many.
static long answer_all(struct session *session, const struct words *words) {
    char *request = (char *)session->room;
    size_t length = 0;
    long count = 0;
    for (;;) {
        ssize_t got = read(FD, request + length, ROOM - 1 - length);
        if (got <= 0)
            return got ? -1 : count;
        length += (size_t)got;
        request[length] = 0;
        int answered = answer_one(FD, request, length);
        if (answered < 0)
            return -1;
        if (answered) {
            count++;
            length = 0;
        }
    }
}

const struct command transfer_commands[] = {
    {"answer", 1, answer_all},
    {"data", 1, data},
    {"write", 3, do_write},
    {"send", 3, do_send},
    {"writev", 3, do_writev},
    {"pwritev2", 3, do_pwritev2},
    {"sendmsg", 3, do_sendmsg},
    {"sendmmsg", 4, do_sendmmsg},
    {"sendfile", 3, do_sendfile},
    {"splice", 3, do_splice},
    {"read", 2, do_read},
    {"recv", 2, do_recv},
    {"readv", 2, do_readv},
    {"preadv2", 2, do_preadv2},
    {"recvmsg", 2, do_recvmsg},
    {"recvmmsg", 2, do_recvmmsg},
    {"splice_in", 2, do_splice_in},
    {NULL, 0, NULL},
};
