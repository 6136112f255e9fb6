// The part of llama.cpp's C interface (include/llama.h, 2024 to 2026) that a server computes batches with. Contexts and
// memories are numbers here.
#pragma once
#include <stdint.h>

typedef int32_t llama_pos, llama_seq_id, llama_token;

typedef struct llama_batch {
    int32_t n_tokens;
    llama_token *token;
    float *embd;
    llama_pos *pos;
    int32_t *n_seq_id;
    llama_seq_id **seq_id;
    int8_t *logits;
} llama_batch;

int32_t llama_decode(void *context, llama_batch batch);
int32_t llama_encode(void *context, llama_batch batch);
void llama_synchronize(void *context);
_Bool llama_memory_seq_rm(void *memory, llama_seq_id sequence, llama_pos from, llama_pos to);
void llama_memory_seq_cp(void *memory, llama_seq_id source, llama_seq_id to, llama_pos p0, llama_pos p1);

// Our own: what the next call on a batch returns.
extern int32_t next_result;
