// libtriton_tiny.so: a backend. Computing is sleeping; what matters is which calls it makes, in which order and on which
// thread. Its model `stream` goes on sending after its execution has returned, as decoupled models do.
#include "triton.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COMPUTE_US 4000
#define TOKEN_US 2500

static void answer(TRITONBACKEND_Request *request) {
    TRITONBACKEND_Response *response;
    TRITONBACKEND_Output *output;
    int64_t shape = 1;
    TRITONBACKEND_ResponseNew(&response, request);
    TRITONBACKEND_ResponseOutput(response, &output, "output", 8, &shape, 1);
    TRITONBACKEND_ResponseSend(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, NULL);
}

struct generation {
    TRITONBACKEND_ResponseFactory *factory;
    int tokens;
};

static void *generate(void *argument) {
    struct generation *generation = argument;
    TRITONBACKEND_Response *response;
    TRITONBACKEND_Output *output;
    int64_t shape = 1;
    for (int i = 0; i < generation->tokens; i++) {
        usleep(TOKEN_US);
        TRITONBACKEND_ResponseNewFromFactory(&response, generation->factory);
        TRITONBACKEND_ResponseOutput(response, &output, "text_output", 13, &shape, 1);
        TRITONBACKEND_ResponseSend(response, 0, NULL);
    }
    // Every second one ends with an empty response, the others with flags alone.
    if (generation->tokens % 2) {
        TRITONBACKEND_ResponseNewFromFactory(&response, generation->factory);
        TRITONBACKEND_ResponseSend(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, NULL);
    } else {
        TRITONBACKEND_ResponseFactorySendFlags(generation->factory, TRITONSERVER_RESPONSE_COMPLETE_FINAL);
    }
    TRITONBACKEND_ResponseFactoryDelete(generation->factory);
    free(generation);
    return NULL;
}

static void begin(TRITONBACKEND_Request *request) {
    struct generation *generation = malloc(sizeof *generation);
    generation->tokens = tiny_tokens(request);
    TRITONBACKEND_ResponseFactoryNew(&generation->factory, request);
    pthread_t thread;
    pthread_create(&thread, NULL, generate, generation);
    pthread_detach(thread);
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance *instance,
                                                       TRITONBACKEND_Request **requests, uint32_t request_count) {
    const char *model = tiny_model(instance);
    uint64_t exec_start = tiny_now();
    if (!strcmp(model, "broken"))
        return TRITONSERVER_ErrorNew(500, "it is broken");
    usleep(500);
    uint64_t compute_start = tiny_now();
    usleep(COMPUTE_US);
    uint64_t compute_end = tiny_now();
    for (uint32_t i = 0; i < request_count; i++) {
        if (!strcmp(model, "stream"))
            begin(requests[i]);
        else
            answer(requests[i]);
    }
    uint64_t exec_end = tiny_now();
    for (uint32_t i = 0; i < request_count; i++) {
        TRITONBACKEND_ModelInstanceReportStatistics(instance, requests[i], true, exec_start, compute_start, compute_end,
                                                    exec_end);
        TRITONBACKEND_RequestRelease(requests[i], TRITONSERVER_REQUEST_RELEASE_ALL);
    }
    return NULL;
}
