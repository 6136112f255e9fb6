// What the parts of the program share: a line of a script, and who runs it.
#pragma once
#define _GNU_SOURCE
#include <stddef.h>
#include <stdio.h>

enum { MOST_WORDS = 8, ROOM = 4 << 20 };

// One reader of commands: the process itself, a forked child, or a thread.
struct session {
    FILE *in, *out;
    // What writes send, and where reads put what they get.
    unsigned char *data, *room;
    size_t size;
};

// A command's words behind its name, as text and as numbers (0 where a word is none).
struct words {
    const char *text[MOST_WORDS];
    long number[MOST_WORDS];
    int count;
};

// Makes one system call, or the few that its name says; returns its result, -1 with errno.
typedef long command_fn(struct session *, const struct words *);

struct command {
    const char *name;
    // How many words it wants at least.
    int words;
    command_fn *run;
};

// Tables end with a name of NULL.
extern const struct command transfer_commands[], descriptor_commands[], process_commands[], context_commands[],
    tls_commands[];

// Reads commands until their end.
void serve(struct session *);
