// A publisher of active spans (OTEP 4947), as an SDK's native half is one. In: ids as text. Out: the thread's record, by a
// thread-local pointer that dynamic symbols name. LARGE makes its thread-local block too big for the room that a C library
// keeps for libraries that are loaded later.
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct record {
    uint8_t trace_id[16], span_id[8], valid, flags;
    uint16_t attributes;
};

#ifdef LARGE
__attribute__((visibility("default"))) __thread char before[LARGE];
#endif
__attribute__((visibility("default"))) __thread struct record *otel_thread_ctx_v1;
static __thread struct record own;

static void read_hex(const char *text, uint8_t *to, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) {
        unsigned byte;
        sscanf(text + 2 * i, "%2x", &byte);
        to[i] = (uint8_t)byte;
    }
}

__attribute__((visibility("default"))) void publish_context(const char *trace, const char *span, int flags, int valid) {
#ifdef LARGE
    before[0] = 1;
#endif
    own = (struct record){.flags = (uint8_t)flags, .valid = (uint8_t)valid};
    read_hex(trace, own.trace_id, sizeof own.trace_id);
    read_hex(span, own.span_id, sizeof own.span_id);
    *(struct record *volatile *)&otel_thread_ctx_v1 = &own;
}

__attribute__((visibility("default"))) void clear_context(void) {
    *(struct record *volatile *)&otel_thread_ctx_v1 = NULL;
}
