// A server whose every system call is asked for: a script on its standard input, one call a line; a line with the
// result and errno for each on its standard output. So the one who writes the script knows exactly which calls were
// made on which descriptor with which result, and a profiler's account can be held against that.
//
// Absent: any protocol. What it sends is a file's content (`data PATH`), what it reads is thrown away.
#include "sockets.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct command *find(const struct command *table, const char *name) {
    for (; table->name; table++)
        if (!strcmp(table->name, name))
            return table;
    return NULL;
}

static const struct command *find_anywhere(const char *name) {
    const struct command *tables[] = {
        transfer_commands,
        descriptor_commands,
        process_commands,
        context_commands,
#ifdef TLS
        tls_commands,
#endif
    };
    const struct command *found = NULL;
    for (size_t i = 0; !found && i < sizeof tables / sizeof *tables; i++)
        found = find(tables[i], name);
    return found;
}

// `name word...`, or `repeat N name word...`: the sum of the results, up to the first failure.
static long run(struct session *session, char *line) {
    struct words words = {0};
    long times = 1;
    char *rest, *name = strtok_r(line, " \n", &rest);
    if (name && !strcmp(name, "repeat")) {
        times = atol(strtok_r(NULL, " \n", &rest));
        name = strtok_r(NULL, " \n", &rest);
    }
    for (char *word; words.count < MOST_WORDS && (word = strtok_r(NULL, " \n", &rest)); words.count++) {
        words.text[words.count] = word;
        words.number[words.count] = strtol(word, NULL, 0);
    }
    const struct command *command = name ? find_anywhere(name) : NULL;
    if (!command || words.count < command->words) {
        fprintf(stderr, "sockets: no such command, or too few words: %s\n", name ? name : "nothing");
        exit(2);
    }
    long sum = 0;
    while (times--) {
        long result = command->run(session, &words);
        if (result < 0)
            return result;
        sum += result;
    }
    return sum;
}

void serve(struct session *session) {
    char *line = NULL;
    size_t capacity = 0;
    fprintf(session->out, "ready %d\n", getpid());
    fflush(session->out);
    while (getline(&line, &capacity, session->in) > 0) {
        errno = 0;
        long result = run(session, line);
        fprintf(session->out, "%ld %d\n", result, result < 0 ? errno : 0);
        fflush(session->out);
    }
    free(line);
}

int main(void) {
    struct session session = {.in = stdin, .out = stdout, .room = malloc(ROOM)};
    serve(&session);
    return 0;
}
