// Calls of libllama as they are asked for on standard input, one a line; a line of standard output for each that is done.
//
//     decode CONTEXT RESULT FORM run...   a run is sequence:position:tokens:outputs, outputs at its end
//     wait CONTEXT
//     remove MEMORY SEQUENCE FROM TO
//     copy MEMORY FROM TO
//
// FORM is `plain`, `embeddings`, `bare` (no sequences, positions or outputs are given) or `shared` (each token is of the
// sequence after its own too); with a `+` behind it the call is made on a thread of its own.
#include "llama.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 20000

static llama_token tokens[MOST];
static float embeddings[MOST];
static llama_pos positions[MOST];
static int32_t counts[MOST];
static llama_seq_id ids[MOST][2], *sequences[MOST];
static int8_t outputs[MOST];

struct call {
    void *context;
    llama_batch batch;
};

static void *decode(void *argument) {
    struct call *call = argument;
    llama_decode(call->context, call->batch);
    return NULL;
}

static void add(llama_batch *batch, const char *run, int shared) {
    int sequence, position, length, wanted;
    if (sscanf(run, "%d:%d:%d:%d", &sequence, &position, &length, &wanted) != 4)
        exit(2);
    for (int i = 0; i < length && batch->n_tokens < MOST; i++) {
        int at = batch->n_tokens++;
        positions[at] = position + i;
        counts[at] = 1 + shared;
        ids[at][0] = sequence, ids[at][1] = sequence + 1;
        sequences[at] = ids[at];
        outputs[at] = i >= length - wanted;
    }
}

static void decode_line(char *rest) {
    // `rest` is where the line's first word ended.
    struct call call = {(void *)strtoul(strtok_r(NULL, " \n", &rest), NULL, 0), {0}};
    int32_t wanted = atoi(strtok_r(NULL, " \n", &rest));
    char *form = strtok_r(NULL, " \n", &rest), *run;
    int bare = !strncmp(form, "bare", 4), shared = !strncmp(form, "shared", 6), apart = !!strchr(form, '+');
    while ((run = strtok_r(NULL, " \n", &rest)))
        add(&call.batch, run, shared);
    call.batch.token = strncmp(form, "embeddings", 10) ? tokens : NULL;
    call.batch.embd = call.batch.token ? NULL : embeddings;
    call.batch.pos = bare ? NULL : positions;
    call.batch.n_seq_id = bare ? NULL : counts;
    call.batch.seq_id = bare ? NULL : sequences;
    call.batch.logits = bare ? NULL : outputs;
    next_result = wanted;
    pthread_t thread;
    if (!apart) {
        decode(&call);
    } else if (pthread_create(&thread, NULL, decode, &call) || pthread_join(thread, NULL)) {
        exit(2);
    }
}

int main(void) {
    char line[4096], *rest;
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        char *what = strtok_r(line, " \n", &rest);
        if (!strcmp(what, "decode")) {
            decode_line(rest);
        } else {
            long n[4] = {0};
            char *word;
            for (int i = 0; i < 4 && (word = strtok_r(NULL, " \n", &rest)); i++)
                n[i] = strtol(word, NULL, 0);
            if (!strcmp(what, "wait"))
                llama_synchronize((void *)n[0]);
            else if (!strcmp(what, "remove"))
                llama_memory_seq_rm((void *)n[0], n[1], n[2], n[3]);
            else if (!strcmp(what, "copy"))
                llama_memory_seq_cp((void *)n[0], n[1], n[2], -1, -1);
        }
        puts("done");
        fflush(stdout);
    }
    return 0;
}
