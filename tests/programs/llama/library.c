// libllama.so of the tests: nothing is computed, and calls on batches return what they are told to.
#include "llama.h"
#include <unistd.h>

int32_t next_result;

static int32_t result(void) {
    int32_t result = next_result;
    next_result = 0;
    usleep(1000);
    return result;
}

int32_t llama_decode(void *context, llama_batch batch) {
    (void)context, (void)batch;
    return result();
}

int32_t llama_encode(void *context, llama_batch batch) {
    (void)context, (void)batch;
    return result();
}

void llama_synchronize(void *context) {
    (void)context;
    usleep(1000);
}

_Bool llama_memory_seq_rm(void *memory, llama_seq_id sequence, llama_pos from, llama_pos to) {
    (void)memory, (void)sequence, (void)from, (void)to;
    usleep(1);
    return 1;
}

void llama_memory_seq_cp(void *memory, llama_seq_id source, llama_seq_id to, llama_pos p0, llama_pos p1) {
    (void)memory, (void)source, (void)to, (void)p0, (void)p1;
    usleep(1);
}
