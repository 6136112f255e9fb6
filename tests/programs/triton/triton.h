// The part of Triton's C interfaces (tritonserver.h, tritonbackend.h: names, order of arguments, flags) that a small
// server, its core and a backend need to speak to each other as real ones do. Objects are our own and opaque as there.
//
// Absent: tensors, metadata, model repositories. How many tokens a request wants goes by a function of our own.
#pragma once
#include <stdbool.h>
#include <stdint.h>

typedef struct TRITONSERVER_Server TRITONSERVER_Server;
typedef struct TRITONSERVER_InferenceRequest TRITONSERVER_InferenceRequest;
typedef struct TRITONSERVER_Error TRITONSERVER_Error;
// The same object under two names, as in the real core.
typedef struct TRITONSERVER_InferenceRequest TRITONBACKEND_Request;
typedef struct TRITONBACKEND_ModelInstance TRITONBACKEND_ModelInstance;
typedef struct TRITONBACKEND_Response TRITONBACKEND_Response;
typedef struct TRITONBACKEND_ResponseFactory TRITONBACKEND_ResponseFactory;
typedef struct TRITONBACKEND_Output TRITONBACKEND_Output;

#define TRITONSERVER_RESPONSE_COMPLETE_FINAL 1
#define TRITONSERVER_REQUEST_RELEASE_ALL 1

TRITONSERVER_Error *TRITONSERVER_ErrorNew(int code, const char *message);
TRITONSERVER_Error *TRITONSERVER_InferenceRequestNew(TRITONSERVER_InferenceRequest **request, TRITONSERVER_Server *server,
                                                     const char *model_name, int64_t model_version);
TRITONSERVER_Error *TRITONSERVER_InferenceRequestSetId(TRITONSERVER_InferenceRequest *request, const char *id);
TRITONSERVER_Error *TRITONSERVER_InferenceRequestDelete(TRITONSERVER_InferenceRequest *request);
TRITONSERVER_Error *TRITONSERVER_ServerInferAsync(TRITONSERVER_Server *server, TRITONSERVER_InferenceRequest *request,
                                                  void *trace);

TRITONSERVER_Error *TRITONBACKEND_ResponseNew(TRITONBACKEND_Response **response, TRITONBACKEND_Request *request);
TRITONSERVER_Error *TRITONBACKEND_ResponseFactoryNew(TRITONBACKEND_ResponseFactory **factory,
                                                     TRITONBACKEND_Request *request);
TRITONSERVER_Error *TRITONBACKEND_ResponseNewFromFactory(TRITONBACKEND_Response **response,
                                                         TRITONBACKEND_ResponseFactory *factory);
TRITONSERVER_Error *TRITONBACKEND_ResponseOutput(TRITONBACKEND_Response *response, TRITONBACKEND_Output **output,
                                                 const char *name, int datatype, const int64_t *shape, uint32_t dims);
TRITONSERVER_Error *TRITONBACKEND_ResponseSend(TRITONBACKEND_Response *response, uint32_t flags,
                                               TRITONSERVER_Error *error);
TRITONSERVER_Error *TRITONBACKEND_ResponseFactorySendFlags(TRITONBACKEND_ResponseFactory *factory, uint32_t flags);
TRITONSERVER_Error *TRITONBACKEND_ResponseFactoryDelete(TRITONBACKEND_ResponseFactory *factory);
TRITONSERVER_Error *TRITONBACKEND_RequestRelease(TRITONBACKEND_Request *request, uint32_t flags);
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceReportStatistics(TRITONBACKEND_ModelInstance *instance,
                                                                TRITONBACKEND_Request *request, bool success,
                                                                uint64_t exec_start_ns, uint64_t compute_start_ns,
                                                                uint64_t compute_end_ns, uint64_t exec_end_ns);
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance *instance,
                                                       TRITONBACKEND_Request **requests, uint32_t request_count);

// Our own, for what tensors and callbacks say in a real one.
enum piece { PIECE_NONE, PIECE_OUTPUT, PIECE_EMPTY, PIECE_ERROR };
TRITONSERVER_Server *tiny_server(const char *backend);
const char *tiny_model(TRITONBACKEND_ModelInstance *instance);
int tiny_tokens(TRITONBACKEND_Request *request);
void tiny_set_tokens(TRITONSERVER_InferenceRequest *request, int tokens);
// Waits for the next response. `*last` when none follows.
enum piece tiny_next(TRITONSERVER_InferenceRequest *request, bool *last);
void tiny_warm_up(TRITONSERVER_Server *server, const char *model);
uint64_t tiny_now(void);
// A line of the truth, on standard error.
void tiny_tell(const char *format, ...) __attribute__((format(printf, 1, 2)));
