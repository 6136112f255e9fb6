// libtritonserver.so of the tests: requests wait in a model's queue, and an instance's thread gives what waits to the
// backend as one batch. It tells each arrival and execution on standard error, with CLOCK_MONOTONIC nanoseconds.
//
// Models by name: `plain` answers once, `stream` is decoupled, `broken` fails, `both` is an ensemble of two `plain` ones.
#include "triton.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MODELS 3
#define MOST_BATCH 4
#define MOST_PIECES 512

struct TRITONSERVER_Error {
    int code;
};

struct TRITONBACKEND_ModelInstance {
    char model[32];
    TRITONSERVER_Server *server;
    TRITONSERVER_InferenceRequest *first, **end;
    pthread_cond_t waiting;
};

struct TRITONSERVER_Server {
    pthread_mutex_t lock;
    struct TRITONBACKEND_ModelInstance instance[MODELS];
    TRITONSERVER_Error *(*execute)(TRITONBACKEND_ModelInstance *, TRITONBACKEND_Request **, uint32_t);
};

struct TRITONSERVER_InferenceRequest {
    TRITONSERVER_Server *server;
    struct TRITONSERVER_InferenceRequest *next;
    char model[32], id[64];
    int tokens, written, read;
    bool last, released;
    enum piece pieces[MOST_PIECES];
    pthread_cond_t news;
};

struct TRITONBACKEND_ResponseFactory {
    TRITONSERVER_InferenceRequest *request;
};

struct TRITONBACKEND_Response {
    TRITONSERVER_InferenceRequest *request;
    bool filled;
};

uint64_t tiny_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

void tiny_tell(const char *format, ...) {
    char line[4096];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    line[length++] = '\n';
    // One write, so that lines of threads do not mix.
    if (write(2, line, length) != length)
        _exit(3);
}

TRITONSERVER_Error *TRITONSERVER_ErrorNew(int code, const char *message) {
    (void)message;
    TRITONSERVER_Error *error = malloc(sizeof *error);
    error->code = code;
    return error;
}

TRITONSERVER_Error *TRITONSERVER_InferenceRequestNew(TRITONSERVER_InferenceRequest **request, TRITONSERVER_Server *server,
                                                     const char *model_name, int64_t model_version) {
    (void)model_version;
    *request = calloc(1, sizeof **request);
    (*request)->server = server;
    snprintf((*request)->model, sizeof (*request)->model, "%s", model_name);
    pthread_cond_init(&(*request)->news, NULL);
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_InferenceRequestSetId(TRITONSERVER_InferenceRequest *request, const char *id) {
    snprintf(request->id, sizeof request->id, "%s", id);
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_InferenceRequestDelete(TRITONSERVER_InferenceRequest *request) {
    pthread_cond_destroy(&request->news);
    free(request);
    return NULL;
}

void tiny_set_tokens(TRITONSERVER_InferenceRequest *request, int tokens) {
    request->tokens = tokens;
}

int tiny_tokens(TRITONBACKEND_Request *request) {
    return request->tokens;
}

const char *tiny_model(TRITONBACKEND_ModelInstance *instance) {
    return instance->model;
}

static TRITONBACKEND_ModelInstance *find(TRITONSERVER_Server *server, const char *model) {
    for (int i = 0; i < MODELS; i++)
        if (!strcmp(server->instance[i].model, model))
            return &server->instance[i];
    return NULL;
}

static void enqueue(TRITONBACKEND_ModelInstance *instance, TRITONSERVER_InferenceRequest *request) {
    pthread_mutex_lock(&instance->server->lock);
    request->next = NULL;
    *instance->end = request;
    instance->end = &request->next;
    pthread_cond_signal(&instance->waiting);
    pthread_mutex_unlock(&instance->server->lock);
}

static void put(TRITONSERVER_InferenceRequest *request, enum piece piece, bool last) {
    pthread_mutex_lock(&request->server->lock);
    if (piece != PIECE_NONE && request->written < MOST_PIECES)
        request->pieces[request->written++] = piece;
    request->last |= last;
    pthread_cond_signal(&request->news);
    pthread_mutex_unlock(&request->server->lock);
}

enum piece tiny_next(TRITONSERVER_InferenceRequest *request, bool *last) {
    pthread_mutex_lock(&request->server->lock);
    while (request->read == request->written && !(request->last && request->released))
        pthread_cond_wait(&request->news, &request->server->lock);
    enum piece piece = request->read < request->written ? request->pieces[request->read++] : PIECE_NONE;
    *last = piece == PIECE_NONE;
    pthread_mutex_unlock(&request->server->lock);
    return piece;
}

// A request of the core's own: nobody hands it over by a call of the interface.
static void run_inside(TRITONSERVER_Server *server, const char *model, const char *id) {
    TRITONSERVER_InferenceRequest request = {.server = server};
    snprintf(request.model, sizeof request.model, "%s", model);
    snprintf(request.id, sizeof request.id, "%s", id);
    pthread_cond_init(&request.news, NULL);
    enqueue(find(server, model), &request);
    for (bool last = false; !last;)
        tiny_next(&request, &last);
    pthread_cond_destroy(&request.news);
}

void tiny_warm_up(TRITONSERVER_Server *server, const char *model) {
    run_inside(server, model, "warm-up");
}

static void *run_ensemble(void *argument) {
    TRITONSERVER_InferenceRequest *request = argument;
    char id[80];
    for (int step = 1; step <= 2; step++) {
        snprintf(id, sizeof id, "%s/%d", request->id, step);
        run_inside(request->server, "plain", id);
    }
    request->released = true;
    put(request, PIECE_OUTPUT, true);
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_ServerInferAsync(TRITONSERVER_Server *server, TRITONSERVER_InferenceRequest *request,
                                                  void *trace) {
    (void)trace;
    TRITONBACKEND_ModelInstance *instance = find(server, request->model);
    if (!instance && strcmp(request->model, "both"))
        return TRITONSERVER_ErrorNew(404, "no such model");
    tiny_tell("{\"event\":\"arrive\",\"id\":\"%s\",\"model\":\"%s\",\"ns\":%lu}", request->id, request->model, tiny_now());
    if (instance) {
        enqueue(instance, request);
        return NULL;
    }
    pthread_t thread;
    pthread_create(&thread, NULL, run_ensemble, request);
    pthread_detach(thread);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseFactoryNew(TRITONBACKEND_ResponseFactory **factory,
                                                     TRITONBACKEND_Request *request) {
    *factory = malloc(sizeof **factory);
    (*factory)->request = request;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseFactoryDelete(TRITONBACKEND_ResponseFactory *factory) {
    free(factory);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseNew(TRITONBACKEND_Response **response, TRITONBACKEND_Request *request) {
    *response = calloc(1, sizeof **response);
    (*response)->request = request;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseNewFromFactory(TRITONBACKEND_Response **response,
                                                         TRITONBACKEND_ResponseFactory *factory) {
    // Not by a call of the function above: a real core does not make one either.
    *response = calloc(1, sizeof **response);
    (*response)->request = factory->request;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseOutput(TRITONBACKEND_Response *response, TRITONBACKEND_Output **output,
                                                 const char *name, int datatype, const int64_t *shape, uint32_t dims) {
    (void)name, (void)datatype, (void)shape, (void)dims;
    response->filled = true;
    *output = NULL;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseSend(TRITONBACKEND_Response *response, uint32_t flags,
                                               TRITONSERVER_Error *error) {
    bool last = flags & TRITONSERVER_RESPONSE_COMPLETE_FINAL;
    TRITONSERVER_InferenceRequest *request = response->request;
    enum piece piece = error ? PIECE_ERROR : response->filled ? PIECE_OUTPUT : PIECE_EMPTY;
    tiny_tell("{\"event\":\"response\",\"id\":\"%s\",\"filled\":%d,\"last\":%d,\"ns\":%lu}", request->id, response->filled,
              last, tiny_now());
    free(response);
    put(request, piece, last);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseFactorySendFlags(TRITONBACKEND_ResponseFactory *factory, uint32_t flags) {
    put(factory->request, PIECE_NONE, flags & TRITONSERVER_RESPONSE_COMPLETE_FINAL);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_RequestRelease(TRITONBACKEND_Request *request, uint32_t flags) {
    (void)flags;
    pthread_mutex_lock(&request->server->lock);
    request->released = true;
    pthread_cond_signal(&request->news);
    pthread_mutex_unlock(&request->server->lock);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceReportStatistics(TRITONBACKEND_ModelInstance *instance,
                                                                TRITONBACKEND_Request *request, bool success,
                                                                uint64_t exec_start_ns, uint64_t compute_start_ns,
                                                                uint64_t compute_end_ns, uint64_t exec_end_ns) {
    (void)exec_start_ns, (void)exec_end_ns, (void)success;
    tiny_tell("{\"event\":\"statistics\",\"id\":\"%s\",\"instance\":%lu,\"compute_start\":%lu,\"compute_end\":%lu}",
              request->id, (unsigned long)instance, compute_start_ns, compute_end_ns);
    return NULL;
}

static uint32_t take(TRITONBACKEND_ModelInstance *instance, TRITONBACKEND_Request **batch) {
    uint32_t count = 0;
    pthread_mutex_lock(&instance->server->lock);
    while (!instance->first)
        pthread_cond_wait(&instance->waiting, &instance->server->lock);
    for (; count < MOST_BATCH && instance->first; count++) {
        batch[count] = instance->first;
        instance->first = instance->first->next;
    }
    if (!instance->first)
        instance->end = &instance->first;
    pthread_mutex_unlock(&instance->server->lock);
    return count;
}

static void *run_instance(void *argument) {
    TRITONBACKEND_ModelInstance *instance = argument;
    for (;;) {
        TRITONBACKEND_Request *batch[MOST_BATCH];
        char ids[512] = "", line[80];
        // Requests that come together are one batch.
        usleep(3000);
        uint32_t count = take(instance, batch);
        for (uint32_t i = 0; i < count; i++) {
            snprintf(line, sizeof line, "%s\"%s\"", i ? "," : "", batch[i]->id);
            strcat(ids, line);
        }
        uint64_t start = tiny_now();
        TRITONSERVER_Error *error = instance->server->execute(instance, batch, count);
        uint64_t end = tiny_now();
        tiny_tell("{\"event\":\"execute\",\"instance\":%lu,\"model\":\"%s\",\"ids\":[%s],\"start\":%lu,\"end\":%lu,"
                  "\"failed\":%d}",
                  (unsigned long)instance, instance->model, ids, start, end, error != NULL);
        // Requests of an execution that failed are still the core's.
        for (uint32_t i = 0; error && i < count; i++) {
            batch[i]->released = true;
            put(batch[i], PIECE_ERROR, true);
        }
        free(error);
    }
    return NULL;
}

TRITONSERVER_Server *tiny_server(const char *backend) {
    static const char *models[MODELS] = {"plain", "stream", "broken"};
    TRITONSERVER_Server *server = calloc(1, sizeof *server);
    void *library = dlopen(backend, RTLD_NOW);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        exit(2);
    }
    *(void **)&server->execute = dlsym(library, "TRITONBACKEND_ModelInstanceExecute");
    pthread_mutex_init(&server->lock, NULL);
    for (int i = 0; i < MODELS; i++) {
        TRITONBACKEND_ModelInstance *instance = &server->instance[i];
        snprintf(instance->model, sizeof instance->model, "%s", models[i]);
        instance->server = server;
        instance->end = &instance->first;
        pthread_cond_init(&instance->waiting, NULL);
        pthread_t thread;
        pthread_create(&thread, NULL, run_instance, instance);
        pthread_detach(thread);
    }
    return server;
}
