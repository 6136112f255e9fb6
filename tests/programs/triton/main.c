// A server on libtritonserver.so with a plain HTTP front, a thread for each connection: KServe's `infer` and Triton's
// `generate_stream`. `POST /warm` lets the model `plain` warm up. It prints its port and ends with its standard input.
//
// Absent: everything of HTTP that the client of the tests does not send.
#include "triton.h"
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static TRITONSERVER_Server *server;

struct question {
    char path[128], model[32], id[64];
    int tokens;
};

// The value behind a key, up to a character of `ends`.
static void value(const char *text, const char *key, const char *ends, char *to, size_t size) {
    const char *from = strstr(text, key);
    size_t length = from ? strcspn(from + strlen(key), ends) : 0;
    snprintf(to, size, "%.*s", (int)length, from ? from + strlen(key) : "");
}

// Reads a request; false at the end of the connection.
static bool read_question(int socket, struct question *question) {
    char text[4096], number[16];
    size_t have = 0;
    for (;;) {
        ssize_t got = read(socket, text + have, sizeof text - 1 - have);
        if (got <= 0)
            return false;
        text[have += got] = 0;
        const char *body = strstr(text, "\r\n\r\n");
        value(text, "content-length: ", "\r", number, sizeof number);
        if (body && have >= body + 4 - text + strtoul(number, NULL, 10))
            break;
    }
    value(text, "POST ", " ", question->path, sizeof question->path);
    value(question->path, "/v2/models/", "/", question->model, sizeof question->model);
    value(text, "\"id\":\"", "\"", question->id, sizeof question->id);
    value(text, "\"tokens\":", ",}", number, sizeof number);
    question->tokens = atoi(number);
    return true;
}

static void send_text(int socket, const char *text) {
    if (write(socket, text, strlen(text)) < 0)
        perror("triton: write");
}

static void send_body(int socket, int status, const char *body) {
    char text[1024];
    snprintf(text, sizeof text, "HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s", status,
             strlen(body), body);
    send_text(socket, text);
}

static void send_chunk(int socket, const char *data) {
    char text[1024];
    snprintf(text, sizeof text, "%zx\r\n%s\r\n", strlen(data), data);
    send_text(socket, text);
}

static void send_answer(int socket, const struct question *question, TRITONSERVER_InferenceRequest *request) {
    bool last = false, failed = false;
    while (!last)
        failed |= tiny_next(request, &last) == PIECE_ERROR;
    char body[512];
    snprintf(body, sizeof body,
             failed ? "{\"error\":\"failed\"}"
                    : "{\"id\":\"%s\",\"model_name\":\"%s\",\"model_version\":\"1\",\"outputs\":[{\"name\":\"output\","
                      "\"datatype\":\"INT32\",\"shape\":[1],\"data\":[1]}]}",
             question->id, question->model);
    TRITONSERVER_InferenceRequestDelete(request);
    send_body(socket, failed ? 500 : 200, body);
}

static void send_stream(int socket, const struct question *question, TRITONSERVER_InferenceRequest *request) {
    send_text(socket, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
    char event[512];
    for (bool last = false; !last;) {
        if (tiny_next(request, &last) != PIECE_OUTPUT)
            continue;
        snprintf(event, sizeof event,
                 "data: {\"id\":\"%s\",\"model_name\":\"%s\",\"model_version\":\"1\",\"text_output\":\"word\"}\n\n",
                 question->id, question->model);
        send_chunk(socket, event);
    }
    TRITONSERVER_InferenceRequestDelete(request);
    send_text(socket, "0\r\n\r\n");
}

static void *serve(void *argument) {
    int socket = (int)(long)argument;
    struct question question;
    while (read_question(socket, &question)) {
        if (!strcmp(question.path, "/warm")) {
            tiny_warm_up(server, "plain");
            send_body(socket, 200, "{}");
            continue;
        }
        TRITONSERVER_InferenceRequest *request;
        TRITONSERVER_InferenceRequestNew(&request, server, question.model, -1);
        TRITONSERVER_InferenceRequestSetId(request, question.id);
        tiny_set_tokens(request, question.tokens);
        TRITONSERVER_Error *error = TRITONSERVER_ServerInferAsync(server, request, NULL);
        if (error) {
            TRITONSERVER_InferenceRequestDelete(request);
            free(error);
            send_body(socket, 404, "{\"error\":\"no such model\"}");
        } else if (strstr(question.path, "/generate_stream")) {
            send_stream(socket, &question, request);
        } else {
            send_answer(socket, &question, request);
        }
    }
    close(socket);
    return NULL;
}

static void *accept_all(void *argument) {
    int listener = (int)(long)argument, socket;
    while ((socket = accept(listener, NULL, NULL)) >= 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, serve, (void *)(long)socket);
        pthread_detach(thread);
    }
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 2) {
        fprintf(stderr, "usage: tritonserver PATH-OF-BACKEND\n");
        return 2;
    }
    server = tiny_server(arguments[1]);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 64) ||
        getsockname(listener, (struct sockaddr *)&address, &length)) {
        perror("triton: listen");
        return 2;
    }
    pthread_t thread;
    pthread_create(&thread, NULL, accept_all, (void *)(long)listener);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0) {
    }
    return 0;
}
