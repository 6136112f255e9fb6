// Streams, events, waits, contexts and devices. In: a thread's state. Out: calls that move no data. Absent: captures.
#define GROUP "stream"
#include "calls.h"

#define WITH_STREAM(name) RT(name, s->stream)
PAIR(cudaStreamSynchronize, _ptsz, WITH_STREAM, NULL)
PAIR(cudaStreamQuery, _ptsz, WITH_STREAM, NULL)
CALL(cudaDeviceSynchronize) { RT(cudaDeviceSynchronize); }
#define RECORD(name) RT(name, s->event, s->stream)
PAIR(cudaEventRecord, _ptsz, RECORD, NULL)
#define RECORD_FLAGS(name) RT(name, s->event, s->stream, 0u)
PAIR(cudaEventRecordWithFlags, _ptsz, RECORD_FLAGS, NULL)
CALL(cudaEventQuery) { RT(cudaEventQuery, s->event); }
CALL(cudaEventSynchronize) { RT(cudaEventSynchronize, s->event); }
CALL(cudaEventElapsedTime) {
    float ms;
    RT(cudaEventElapsedTime, &ms, s->event, s->event2);
}
CALL(cudaEventElapsedTime_v2) {
    float ms;
    RT(cudaEventElapsedTime_v2, &ms, s->event, s->event2);
}
CALL(cudaThreadSynchronize) { RT(cudaThreadSynchronize); }
#define WAIT_EVENT(name) RT(name, s->stream, s->event, 0u)
PAIR(cudaStreamWaitEvent, _ptsz, WAIT_EVENT, NULL)
CALL(cudaStreamCreate) {
    void *made = NULL;
    RT(cudaStreamCreate, &made);
    RT(cudaStreamDestroy, made);
}
CALL(cudaStreamCreateWithFlags) {
    void *made = NULL;
    RT(cudaStreamCreateWithFlags, &made, 1u);
    RT(cudaStreamDestroy, made);
}
CALL(cudaStreamCreateWithPriority) {
    void *made = NULL;
    RT(cudaStreamCreateWithPriority, &made, 1u, -1);
    RT(cudaStreamDestroy, made);
}
CALL(cudaEventCreate) {
    void *made = NULL;
    RT(cudaEventCreate, &made);
    RT(cudaEventDestroy, made);
}
CALL(cudaEventCreateWithFlags) {
    void *made = NULL;
    RT(cudaEventCreateWithFlags, &made, 2u);
    RT(cudaEventDestroy, made);
}

#define WITH_DRIVER_STREAM(name) DRV(name, s->stream)
PAIR(cuStreamSynchronize, _ptsz, WITH_DRIVER_STREAM, NULL)
PAIR(cuStreamQuery, _ptsz, WITH_DRIVER_STREAM, NULL)
CALL(cuCtxSynchronize) { DRV(cuCtxSynchronize); }
CALL(cuCtxSynchronize_v2) { DRV(cuCtxSynchronize_v2, (void *)NULL); }
#define DRIVER_RECORD(name) DRV(name, s->event, s->stream)
PAIR(cuEventRecord, _ptsz, DRIVER_RECORD, NULL)
#define DRIVER_RECORD_FLAGS(name) DRV(name, s->event, s->stream, 0u)
PAIR(cuEventRecordWithFlags, _ptsz, DRIVER_RECORD_FLAGS, NULL)
CALL(cuEventQuery) { DRV(cuEventQuery, s->event); }
CALL(cuEventSynchronize) { DRV(cuEventSynchronize, s->event); }
CALL(cuEventElapsedTime) {
    float ms;
    DRV(cuEventElapsedTime, &ms, s->event, s->event2);
}
CALL(cuEventElapsedTime_v2) {
    float ms;
    DRV(cuEventElapsedTime_v2, &ms, s->event, s->event2);
}
#define DRIVER_WAIT_EVENT(name) DRV(name, s->stream, s->event, 0u)
PAIR(cuStreamWaitEvent, _ptsz, DRIVER_WAIT_EVENT, NULL)
CALL(cuStreamCreate) {
    void *made = NULL;
    DRV(cuStreamCreate, &made, 1u);
    DRV(cuStreamDestroy_v2, made);
}
CALL(cuStreamCreateWithPriority) {
    void *made = NULL;
    DRV(cuStreamCreateWithPriority, &made, 1u, -1);
    DRV(cuStreamDestroy_v2, made);
}
CALL(cuEventCreate) {
    void *made = NULL;
    DRV(cuEventCreate, &made, 2u);
    DRV(cuEventDestroy_v2, made);
}

#undef GROUP
#define GROUP "context"
CALL(cudaSetDevice) { RT(cudaSetDevice, 0); }
CALL_AS(there_and_back, "cudaSetDevice:peer", need_peer) {
    RT(cudaSetDevice, s->peer_device);
    RT(cudaSetDevice, 0);
}
CALL(cudaGetDevice) {
    int device;
    RT(cudaGetDevice, &device);
}
CALL(cudaInitDevice) { RT(cudaInitDevice, 0, 0u, 0u); }
CALL(cudaGetLastError) { RT(cudaGetLastError); }
// A context of its own becomes current, and goes.
#define OWN_CONTEXT(name, ...)                                                                                 \
    CALL(name) {                                                                                               \
        void *made = NULL;                                                                                     \
        DRV(name, &made, ##__VA_ARGS__, 0u, 0);                                                                \
        DRV(cuCtxDestroy_v2, made);                                                                            \
    }
OWN_CONTEXT(cuCtxCreate_v2)
OWN_CONTEXT(cuCtxCreate_v3, (void *)NULL, 0)
OWN_CONTEXT(cuCtxCreate_v4, (void *)NULL)
CALL_AS(cuCtxSetCurrent, "cuCtxSetCurrent", need_peer) { DRV(cuCtxSetCurrent, s->context); }
CALL_AS(cuCtxPushCurrent_v2, "cuCtxPushCurrent_v2", need_peer) {
    void *popped = NULL;
    DRV(cuCtxPushCurrent_v2, s->context);
    DRV(cuCtxPopCurrent_v2, &popped);
}
CALL(cuDevicePrimaryCtxRetain) {
    void *context = NULL;
    DRV(cuDevicePrimaryCtxRetain, &context, 0);
    DRV(cuDevicePrimaryCtxRelease_v2, 0);
}
