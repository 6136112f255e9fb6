// Streams, events and capture. In: the runtime's forms. Out: the driver's. Absent: anything of its own.
#define _GNU_SOURCE
#include "runtime.h"

API(cudaStreamCreate, (void **out), { CALL(cuStreamCreateWithPriority, out, 0u, 0); })
API(cudaStreamCreateWithFlags, (void **out, unsigned flags), { CALL(cuStreamCreateWithPriority, out, flags, 0); })
API(cudaStreamCreateWithPriority, (void **out, unsigned flags, int priority),
    { CALL(cuStreamCreateWithPriority, out, flags, priority); })
API(cudaStreamDestroy, (void *stream), { CALL(cuStreamDestroy_v2, stream); })
API2(_ptsz, cudaStreamSynchronize, (void *stream), { CALL2(cuStreamSynchronize, stream); })
API2(_ptsz, cudaStreamQuery, (void *stream), { CALL2(cuStreamQuery, stream); })
API2(_ptsz, cudaStreamWaitEvent, (void *stream, void *event, unsigned flags),
     { CALL2(cuStreamWaitEvent, stream, event, flags); })
API2(_ptsz, cudaStreamGetPriority, (void *stream, int *out), { CALL2(cuStreamGetPriority, stream, out); })
API2(_ptsz, cudaStreamGetFlags, (void *stream, unsigned *out), { CALL2(cuStreamGetFlags, stream, out); })
API2(_ptsz, cudaStreamGetId, (void *stream, uint64_t *out), { CALL2(cuStreamGetId, stream, out); })
API2(_ptsz, cudaStreamGetDevice, (void *stream, int *out), { CALL2(cuStreamGetDevice, stream, out); })
API2(_ptsz, cudaStreamCopyAttributes, (void *to, void *from), { CALL2(cuStreamCopyAttributes, to, from); })
API2(_ptsz, cudaStreamSetAttribute, (void *stream, int attribute, const void *value),
     { CALL2(cuStreamSetAttribute, stream, attribute, value); })
API2(_ptsz, cudaStreamAttachMemAsync, (void *stream, void *pointer, size_t bytes, unsigned flags),
     { CALL2(cuStreamAttachMemAsync, stream, pointer, bytes, flags); })
API2(_ptsz, cudaStreamAddCallback, (void *stream, void *fn, void *data, unsigned flags),
     { CALL2(cuStreamAddCallback, stream, fn, data, flags); })

API(cudaEventCreate, (void **out), { CALL(cuEventCreate, out, 0u); })
API(cudaEventCreateWithFlags, (void **out, unsigned flags), { CALL(cuEventCreate, out, flags); })
API(cudaEventDestroy, (void *event), { CALL(cuEventDestroy_v2, event); })
API2(_ptsz, cudaEventRecord, (void *event, void *stream), { CALL2(cuEventRecord, event, stream); })
API2(_ptsz, cudaEventRecordWithFlags, (void *event, void *stream, unsigned flags),
     { CALL2(cuEventRecordWithFlags, event, stream, flags); })
API(cudaEventQuery, (void *event), { CALL(cuEventQuery, event); })
API(cudaEventSynchronize, (void *event), { CALL(cuEventSynchronize, event); })
API(cudaEventElapsedTime, (float *out, void *from, void *to), { CALL(cuEventElapsedTime_v2, out, from, to); })
#if SIMGPU_CUDA == 12
API(cudaEventElapsedTime_v2, (float *out, void *from, void *to), { CALL(cuEventElapsedTime_v2, out, from, to); })
#endif

API2(_ptsz, cudaStreamBeginCapture, (void *stream, int mode), { CALL2(cuStreamBeginCapture_v2, stream, mode); })
API2(_ptsz, cudaStreamBeginCaptureToGraph,
     (void *stream, void *graph, void **deps, void *edges, size_t count, int mode),
     { CALL2(cuStreamBeginCaptureToGraph, stream, graph, deps, edges, count, mode); })
API2(_ptsz, cudaStreamEndCapture, (void *stream, void **graph), { CALL2(cuStreamEndCapture, stream, graph); })
API2(_ptsz, cudaStreamIsCapturing, (void *stream, int *out), { CALL2(cuStreamIsCapturing, stream, out); })
#if SIMGPU_CUDA >= 13
API2(_ptsz, cudaStreamGetCaptureInfo,
     (void *stream, int *status, uint64_t *id, void **graph, void ***deps, void **edges, size_t *count), {
         if (edges)
             *edges = NULL;
         CALL2(cuStreamGetCaptureInfo_v2, stream, status, id, graph, deps, count);
     })
API2(_ptsz, cudaStreamUpdateCaptureDependencies,
     (void *stream, void **deps, const void *edges, size_t count, unsigned flags),
     { CALL2(cuStreamUpdateCaptureDependencies, stream, deps, count, flags); })
#else
API2(_ptsz, cudaStreamGetCaptureInfo, (void *stream, int *status, uint64_t *id),
     { CALL2(cuStreamGetCaptureInfo_v2, stream, status, id, (void *)NULL, (void *)NULL, (void *)NULL); })
API2(_ptsz, cudaStreamGetCaptureInfo_v2,
     (void *stream, int *status, uint64_t *id, void **graph, void ***deps, size_t *count),
     { CALL2(cuStreamGetCaptureInfo_v2, stream, status, id, graph, deps, count); })
API2(_ptsz, cudaStreamGetCaptureInfo_v3,
     (void *stream, int *status, uint64_t *id, void **graph, void ***deps, void **edges, size_t *count), {
         if (edges)
             *edges = NULL;
         CALL2(cuStreamGetCaptureInfo_v2, stream, status, id, graph, deps, count);
     })
API2(_ptsz, cudaStreamUpdateCaptureDependencies, (void *stream, void **deps, size_t count, unsigned flags),
     { CALL2(cuStreamUpdateCaptureDependencies, stream, deps, count, flags); })
API2(_ptsz, cudaStreamUpdateCaptureDependencies_v2,
     (void *stream, void **deps, const void *edges, size_t count, unsigned flags),
     { CALL2(cuStreamUpdateCaptureDependencies, stream, deps, count, flags); })
#endif
API(cudaThreadExchangeStreamCaptureMode, (int *mode), { CALL(cuThreadExchangeStreamCaptureMode, mode); })
