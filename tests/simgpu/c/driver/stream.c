// Streams and events. In: public handles and calls. Out: operations for the engine. Absent: priorities' effect.
#define _GNU_SOURCE
#include "sim.h"
#include <stdlib.h>
#include <sys/mman.h>

static uint64_t next_stream_id = 1;
static struct event *free_events;

static struct stream *recycled(struct context *context) {
    for (struct stream *s = context->streams; s; s = s->next)
        if (s->magic == 0 && s->processed == s->submitted && s->last_end < now_ns())
            return s;
    return NULL;
}

// Streams are never given back to the heap: queues of other streams may name them.
struct stream *stream_new(struct context *context, unsigned flags, int priority) {
    pthread_mutex_lock(&engine);
    struct stream *s = recycled(context);
    if (!s && (s = calloc(1, sizeof *s))) {
        s->ring = mmap(NULL, QUEUE_LENGTH * sizeof *s->ring, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (s->ring == MAP_FAILED)
            abort(); // 200 KiB; nothing sensible runs without
        pthread_cond_init(&s->work_arrived, NULL);
        s->context = context;
        s->next = context->streams;
        context->streams = s;
    }
    if (s) {
        s->magic = STREAM_MAGIC, s->id = next_stream_id++, s->flags = flags, s->priority = priority;
        s->blocking = (flags & 1) == 0;
    }
    pthread_mutex_unlock(&engine);
    return s;
}

static struct stream *thread_stream(struct context *context) {
    static __thread struct stream *own[MAX_DEVICES];
    struct stream **slot = &own[context->device];
    if (!*slot || (*slot)->context != context)
        *slot = stream_new(context, 0, 0);
    return *slot;
}

struct stream *stream_of(void *handle, int per_thread) {
    uintptr_t value = (uintptr_t)handle;
    if (value > 2) {
        struct stream *s = handle;
        return s->magic == STREAM_MAGIC ? s : NULL;
    }
    struct context *context = current_context();
    if (!context)
        return NULL;
    return value == 2 || (value == 0 && per_thread) ? thread_stream(context) : context->legacy;
}

static CUresult create(void **out, unsigned flags, int priority) {
    READY();
    struct context *context = current_context();
    if (!context)
        return INVALID_CONTEXT;
    if (!out || flags > 1)
        return INVALID_VALUE;
    *out = stream_new(context, flags, priority);
    return *out ? CUDA_SUCCESS : OUT_OF_MEMORY;
}
API(cuStreamCreate, (void **out, unsigned flags), { return create(out, flags, 0); })
API(cuStreamCreateWithPriority, (void **out, unsigned flags, int priority), { return create(out, flags, priority); })

// Returns at once; what is queued still runs.
static CUresult destroy(void *handle) {
    READY();
    struct stream *s = (uintptr_t)handle > 2 ? stream_of(handle, 0) : NULL;
    if (!s)
        return INVALID_HANDLE;
    s->magic = 0;
    return CUDA_SUCCESS;
}
API(cuStreamDestroy, (void *stream), { return destroy(stream); })
API(cuStreamDestroy_v2, (void *stream), { return destroy(stream); })

API2(_ptsz, cuStreamSynchronize, (void *stream), {
    STREAM(stream);
    if (s->capture || (s->legacy && s->context->capturing))
        return CAPTURE_UNSUPPORTED;
    if (s->legacy)
        for (struct stream *other = s->context->streams; other; other = other->next)
            if (other->blocking)
                wait_stream(other, other->submitted);
    wait_stream(s, s->submitted);
    return CUDA_SUCCESS;
})
API2(_ptsz, cuStreamQuery, (void *stream), {
    STREAM(stream);
    if (s->capture)
        return CAPTURE_UNSUPPORTED;
    return stream_idle(s) ? CUDA_SUCCESS : NOT_READY;
})
API2(_ptsz, cuStreamGetPriority, (void *stream, int *out), {
    STREAM(stream);
    *out = s->priority;
    return CUDA_SUCCESS;
})
API2(_ptsz, cuStreamGetFlags, (void *stream, unsigned *out), {
    STREAM(stream);
    *out = s->flags;
    return CUDA_SUCCESS;
})
API2(_ptsz, cuStreamGetId, (void *stream, uint64_t *out), {
    STREAM(stream);
    *out = s->id;
    return CUDA_SUCCESS;
})
API2(_ptsz, cuStreamGetDevice, (void *stream, CUdevice *out), {
    STREAM(stream);
    *out = s->context->device;
    return CUDA_SUCCESS;
})
API2(_ptsz, cuStreamGetCtx, (void *stream, struct context **out), {
    STREAM(stream);
    *out = s->context;
    return CUDA_SUCCESS;
})
API2(_ptsz, cuStreamGetCtx_v2, (void *stream, struct context **out, void **green), {
    STREAM(stream);
    *out = s->context;
    if (green)
        *green = NULL;
    return CUDA_SUCCESS;
})
API2(_ptsz, cuStreamCopyAttributes, (void *to, void *from), {
    STREAM(to);
    (void)s;
    return CUDA_SUCCESS;
})
API2(_ptsz, cuStreamSetAttribute, (void *stream, int attribute, const void *value), {
    STREAM(stream);
    (void)s;
    return CUDA_SUCCESS;
})
API2(_ptsz, cuStreamAttachMemAsync, (void *stream, CUdeviceptr pointer, size_t bytes, unsigned flags), {
    STREAM(stream);
    (void)s;
    return CUDA_SUCCESS;
})

static struct event *event_of(void *handle) {
    struct event *event = handle;
    return event && event->magic == EVENT_MAGIC ? event : NULL;
}
#define EVENT(handle)                                                                                          \
    READY();                                                                                                   \
    struct event *e = event_of(handle);                                                                        \
    if (!e)                                                                                                    \
    return INVALID_HANDLE

API(cuEventCreate, (void **out, unsigned flags), {
    READY();
    if (!out || !current_context())
        return out ? INVALID_CONTEXT : INVALID_VALUE;
    pthread_mutex_lock(&engine);
    struct event *e = free_events;
    if (e)
        free_events = e->next_free;
    pthread_mutex_unlock(&engine);
    if (!e && !(e = malloc(sizeof *e)))
        return OUT_OF_MEMORY;
    *e = (struct event){.magic = EVENT_MAGIC, .flags = flags};
    *out = e;
    return CUDA_SUCCESS;
})
// Events are recycled, never freed: an operation in a queue may name one that is gone, and finds another number.
static CUresult event_destroy(void *handle) {
    EVENT(handle);
    free(e->frontier);
    pthread_mutex_lock(&engine);
    *e = (struct event){.next_free = free_events};
    free_events = e;
    pthread_mutex_unlock(&engine);
    return CUDA_SUCCESS;
}
API(cuEventDestroy, (void *event), { return event_destroy(event); })
API(cuEventDestroy_v2, (void *event), { return event_destroy(event); })

// Flag 1 (external) makes a node of its own during capture; otherwise a captured event only carries dependencies.
static CUresult record(struct stream *s, struct event *e, unsigned flags) {
    if (s->capture && !(flags & 1)) {
        pthread_mutex_lock(&engine);
        capture_record(s, e);
        pthread_mutex_unlock(&engine);
        return CUDA_SUCCESS;
    }
    e->capture = NULL;
    struct work work = {.kind = OP_EVENT, .event = e};
    return submit(s, &work, NULL);
}
API2(_ptsz, cuEventRecord, (void *event, void *stream), {
    EVENT(event);
    STREAM(stream);
    return record(s, e, 0);
})
API2(_ptsz, cuEventRecordWithFlags, (void *event, void *stream, unsigned flags), {
    EVENT(event);
    STREAM(stream);
    return record(s, e, flags);
})
API(cuEventQuery, (void *event), {
    EVENT(event);
    if (e->capture && e->capture->active)
        return CAPTURED_EVENT;
    return !e->recorded || is_done(e->stream, e->seq) ? CUDA_SUCCESS : NOT_READY;
})
API(cuEventSynchronize, (void *event), {
    EVENT(event);
    if (e->capture && e->capture->active)
        return CAPTURED_EVENT;
    if (e->recorded)
        wait_stream(e->stream, e->seq);
    return CUDA_SUCCESS;
})
static CUresult elapsed(float *out, void *from, void *to) {
    EVENT(from);
    struct event *last = event_of(to);
    if (!last || !out)
        return last ? INVALID_VALUE : INVALID_HANDLE;
    if (!e->recorded || !last->recorded || (e->flags & 2) || (last->flags & 2)) // 2: timing disabled
        return INVALID_HANDLE;
    if (!is_done(e->stream, e->seq) || !is_done(last->stream, last->seq))
        return NOT_READY;
    *out = (float)((double)(int64_t)(last->time_ns - e->time_ns) / 1e6);
    return CUDA_SUCCESS;
}
API(cuEventElapsedTime, (float *out, void *from, void *to), { return elapsed(out, from, to); })
API(cuEventElapsedTime_v2, (float *out, void *from, void *to), { return elapsed(out, from, to); })

API2(_ptsz, cuStreamWaitEvent, (void *stream, void *event, unsigned flags), {
    EVENT(event);
    STREAM(stream);
    if (e->capture && e->capture->active) {
        pthread_mutex_lock(&engine);
        CUresult result = capture_wait(s, e);
        pthread_mutex_unlock(&engine);
        return result;
    }
    if (s->capture && !(flags & 1))
        return CAPTURE_ISOLATION;
    if (!e->recorded)
        return CUDA_SUCCESS;
    struct work work = {.kind = OP_WAIT, .wait = {e->stream, e->seq}};
    return submit(s, &work, NULL);
})

API2(_ptsz, cuLaunchHostFunc, (void *stream, host_fn fn, void *data), {
    STREAM(stream);
    if (!fn)
        return INVALID_VALUE;
    struct work work = {.kind = OP_HOST, .host = {fn, data}};
    return submit(s, &work, NULL);
})
API2(_ptsz, cuLaunchHostFunc_v2, (void *stream, host_fn fn, void *data, unsigned mode), {
    STREAM(stream);
    if (!fn)
        return INVALID_VALUE;
    struct work work = {.kind = OP_HOST, .host = {fn, data}};
    return submit(s, &work, NULL);
})

struct callback {
    void (*fn)(void *, CUresult, void *);
    void *stream, *data;
};
static void call_back(void *argument) {
    struct callback *callback = argument;
    callback->fn(callback->stream, CUDA_SUCCESS, callback->data);
    free(callback);
}
API2(_ptsz, cuStreamAddCallback, (void *stream, void (*fn)(void *, CUresult, void *), void *data, unsigned flags), {
    STREAM(stream);
    struct callback *callback = malloc(sizeof *callback);
    if (!callback)
        return OUT_OF_MEMORY;
    *callback = (struct callback){fn, stream, data};
    struct work work = {.kind = OP_HOST, .host = {call_back, callback}};
    return submit(s, &work, NULL);
})

static CUresult write_value(struct stream *s, CUdeviceptr at, uint64_t value, uint32_t size) {
    struct work work = {.kind = OP_WRITE, .write = {at, value, size}};
    return submit(s, &work, NULL);
}
API2(_ptsz, cuStreamWriteValue32, (void *stream, CUdeviceptr at, uint32_t value, unsigned flags), {
    STREAM(stream);
    return write_value(s, at, value, 4);
})
API2(_ptsz, cuStreamWriteValue32_v2, (void *stream, CUdeviceptr at, uint32_t value, unsigned flags), {
    STREAM(stream);
    return write_value(s, at, value, 4);
})
API2(_ptsz, cuStreamWriteValue64, (void *stream, CUdeviceptr at, uint64_t value, unsigned flags), {
    STREAM(stream);
    return write_value(s, at, value, 8);
})
API2(_ptsz, cuStreamWriteValue64_v2, (void *stream, CUdeviceptr at, uint64_t value, unsigned flags), {
    STREAM(stream);
    return write_value(s, at, value, 8);
})
