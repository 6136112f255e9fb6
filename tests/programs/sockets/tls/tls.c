// TLS with OpenSSL, each call of the library asked for by its name. Built by the tests that want it, together with the
// rest of the program (-DTLS), against a shared or a static library: it needs OpenSSL's headers.
//
// A session is a number. It uses its descriptor by `SSL_set_fd`, by socket BIOs of its own, or, as CPython does it,
// through memory: then `feed` and `flush` carry the bytes.
#include "../sockets.h"
#include <dlfcn.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// What a failure of the library is told as: this and its number (SSL_get_error(3)).
enum { FAILED = 1000, MOST = 64, CHUNK = 256 << 10 };

static SSL_CTX *context;
static struct { SSL *ssl; int fd, memory; } sessions[MOST];

#define NUMBER (words->number[0])
#define SESSION (sessions[NUMBER].ssl)
#define OFFSET ((size_t)words->number[1])
#define LEN ((size_t)words->number[2])

static long failed(SSL *ssl, int result) {
    errno = FAILED + SSL_get_error(ssl, result);
    return -1;
}

// `tls_context CERTIFICATE KEY VERSION`, 12 or 13.
static long make_context(struct session *session, const struct words *words) {
    int version = words->number[2] == 12 ? TLS1_2_VERSION : TLS1_3_VERSION;
    context = SSL_CTX_new(TLS_server_method());
    errno = EINVAL;
    return SSL_CTX_use_certificate_file(context, words->text[0], SSL_FILETYPE_PEM) == 1 &&
                   SSL_CTX_use_PrivateKey_file(context, words->text[1], SSL_FILETYPE_PEM) == 1 &&
                   SSL_CTX_set_min_proto_version(context, version) && SSL_CTX_set_max_proto_version(context, version)
               ? 0
               : -1;
}

// `tls_new FD fd|bio|memory [partial]`
static long make_session(struct session *session, const struct words *words) {
    int number = 0, fd = (int)words->number[0];
    while (sessions[number].ssl)
        number++;
    SSL *ssl = SSL_new(context);
    sessions[number].ssl = ssl;
    sessions[number].fd = fd;
    sessions[number].memory = !strcmp(words->text[1], "memory");
    if (sessions[number].memory) {
        SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
        BIO_set_mem_eof_return(SSL_get_rbio(ssl), -1);
    } else if (!strcmp(words->text[1], "bio")) {
        SSL_set_bio(ssl, BIO_new_socket(fd, BIO_NOCLOSE), BIO_new_socket(fd, BIO_NOCLOSE));
    } else {
        SSL_set_fd(ssl, fd);
    }
    // The bytes may come from elsewhere when a write is tried again; in part, a call writes one record at most.
    SSL_set_mode(ssl, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (words->count > 2)
        SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE);
    SSL_set_accept_state(ssl);
    return number;
}

// One read of the socket, into the session's memory.
static long feed(struct session *session, const struct words *words) {
    ssize_t got = read(sessions[NUMBER].fd, session->room, CHUNK);
    return got > 0 ? BIO_write(SSL_get_rbio(SESSION), session->room, (int)got) : got;
}

// What the session has to send, by one write.
static long flush(struct session *session, const struct words *words) {
    int length = BIO_read(SSL_get_wbio(SESSION), session->room, ROOM);
    return length > 0 ? write(sessions[NUMBER].fd, session->room, (size_t)length) : 0;
}

// The whole handshake.
static long handshake(struct session *session, const struct words *words) {
    for (;;) {
        int result = SSL_do_handshake(SESSION);
        if (sessions[NUMBER].memory && flush(session, words) < 0)
            return -1;
        if (result == 1)
            return 0;
        int error = SSL_get_error(SESSION, result);
        if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
            return failed(SESSION, result);
        if (sessions[NUMBER].memory && feed(session, words) <= 0)
            return -1;
        struct pollfd ready = {.fd = sessions[NUMBER].fd, .events = error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT};
        if (!sessions[NUMBER].memory)
            poll(&ready, 1, -1);
    }
}

static long do_read(struct session *session, const struct words *words) {
    int got = SSL_read(SESSION, session->room, (int)words->number[1]);
    return got > 0 ? got : failed(SESSION, got);
}

static long do_read_ex(struct session *session, const struct words *words) {
    size_t got = 0;
    int result = SSL_read_ex(SESSION, session->room, (size_t)words->number[1], &got);
    return result == 1 ? (long)got : failed(SESSION, result);
}

static long do_peek(struct session *session, const struct words *words) {
    int got = SSL_peek(SESSION, session->room, (int)words->number[1]);
    return got > 0 ? got : failed(SESSION, got);
}

static const unsigned char *part(struct session *session, const struct words *words) {
    if (OFFSET + LEN > session->size)
        exit(2);
    return session->data + OFFSET;
}

static long do_write(struct session *session, const struct words *words) {
    int sent = SSL_write(SESSION, part(session, words), (int)LEN);
    return sent > 0 ? sent : failed(SESSION, sent);
}

static long do_write_ex(struct session *session, const struct words *words) {
    size_t sent = 0;
    int result = SSL_write_ex(SESSION, part(session, words), LEN, &sent);
    return result == 1 ? (long)sent : failed(SESSION, result);
}

// Only OpenSSL 3.3 and later have it.
static long do_write_ex2(struct session *session, const struct words *words) {
    int (*write_ex2)(SSL *, const void *, size_t, uint64_t, size_t *) = dlsym(RTLD_DEFAULT, "SSL_write_ex2");
    size_t sent = 0;
    if (!write_ex2)
        return errno = ENOSYS, -1;
    int result = write_ex2(SESSION, part(session, words), LEN, 0, &sent);
    return result == 1 ? (long)sent : failed(SESSION, result);
}

// New keys for both sides; they go out with the next write.
static long key_update(struct session *session, const struct words *words) {
    return SSL_key_update(SESSION, SSL_KEY_UPDATE_REQUESTED) == 1 && SSL_do_handshake(SESSION) == 1 ? 0 : -1;
}

static long do_shutdown(struct session *session, const struct words *words) { return SSL_shutdown(SESSION); }

static long do_free(struct session *session, const struct words *words) {
    SSL_free(SESSION);
    SESSION = NULL;
    return 0;
}

// The address of a session, to see whether it is used again.
static long address(struct session *session, const struct words *words) {
    return (long)(uintptr_t)SESSION;
}

const struct command tls_commands[] = {
    {"tls_context", 3, make_context},
    {"tls_new", 2, make_session},
    {"tls_handshake", 1, handshake},
    {"tls_feed", 1, feed},
    {"tls_flush", 1, flush},
    {"tls_read", 2, do_read},
    {"tls_read_ex", 2, do_read_ex},
    {"tls_peek", 2, do_peek},
    {"tls_write", 3, do_write},
    {"tls_write_ex", 3, do_write_ex},
    {"tls_write_ex2", 3, do_write_ex2},
    {"tls_key_update", 1, key_update},
    {"tls_shutdown", 1, do_shutdown},
    {"tls_free", 1, do_free},
    {"tls_address", 1, address},
    {NULL, 0, NULL},
};
