// Stream capture. In: work submitted to capturing streams, events that fork and join. Out: a graph. Absent: the check
// that forbids unsafe calls (allocation, say) during a global capture: the stand-in allows more than the device.
#define _GNU_SOURCE
#include "graph.h"
#include <stdlib.h>
#include <string.h>

static uint64_t next_capture_id = 1;

static bool contains(struct node *const *nodes, size_t count, const struct node *node) {
    for (size_t i = 0; i < count; i++)
        if (nodes[i] == node)
            return true;
    return false;
}

static CUresult add_to_frontier(struct stream *stream, struct node *const *nodes, size_t count) {
    struct node **grown = realloc(stream->frontier, (stream->frontier_count + count + 1) * sizeof *grown);
    if (!grown)
        return OUT_OF_MEMORY;
    stream->frontier = grown;
    for (size_t i = 0; i < count; i++)
        if (!contains(grown, stream->frontier_count, nodes[i]))
            grown[stream->frontier_count++] = nodes[i];
    return CUDA_SUCCESS;
}

// Records one operation as a node after the stream's last ones. The engine's lock is held.
CUresult capture_work(struct stream *stream, const struct work *work) {
    struct node *node = graph_add(stream->capture->graph, work, stream->frontier, stream->frontier_count);
    if (!node)
        return OUT_OF_MEMORY;
    stream->frontier_count = 0;
    truth_add(TRUTH_captured_nodes, 1);
    if (work->kind == OP_KERNEL) {
        truth_add(TRUTH_captured_launches, 1);
        atomic_fetch_add_explicit(&log_kernel(work->kernel.function->index)->captured, 1, memory_order_relaxed);
    }
    return add_to_frontier(stream, &node, 1);
}

// An event recorded on a capturing stream carries the stream's frontier to other streams.
void capture_record(struct stream *stream, struct event *event) {
    struct node **copy = realloc(event->frontier, (stream->frontier_count + 1) * sizeof *copy);
    if (!copy)
        return;
    memcpy(copy, stream->frontier, stream->frontier_count * sizeof *copy);
    event->frontier = copy, event->frontier_count = stream->frontier_count;
    event->capture = stream->capture;
}

// Waiting for such an event joins the stream to the capture.
CUresult capture_wait(struct stream *stream, struct event *event) {
    if (stream->capture && stream->capture != event->capture)
        return CAPTURE_ISOLATION;
    if (!stream->capture) {
        stream->capture = event->capture;
        stream->frontier_count = 0;
        stream->context->capturing += stream->blocking;
    }
    return add_to_frontier(stream, event->frontier, event->frontier_count);
}

static CUresult begin(struct stream *s, struct graph *graph, bool borrowed, int mode) {
    if (s->legacy)
        return CAPTURE_UNSUPPORTED; // the legacy stream cannot be captured
    if (s->capture)
        return ILLEGAL_STATE;
    struct capture *capture = calloc(1, sizeof *capture);
    if (!capture || !graph)
        return OUT_OF_MEMORY;
    pthread_mutex_lock(&engine);
    *capture = (struct capture){next_capture_id++, mode, true, borrowed, graph, s};
    s->capture = capture;
    s->frontier_count = 0;
    s->context->capturing += s->blocking;
    pthread_mutex_unlock(&engine);
    return CUDA_SUCCESS;
}

static void mark_ancestors(struct node *node, uint32_t mark) {
    if (node->mark == mark)
        return;
    node->mark = mark;
    for (size_t i = 0; i < node->dependency_count; i++)
        mark_ancestors(node->dependencies[i], mark);
}

// Every forked stream must have come back: each node is the origin's frontier or an ancestor of it.
static bool all_joined(const struct capture *capture) {
    static uint32_t mark;
    mark++;
    for (size_t i = 0; i < capture->origin->frontier_count; i++)
        mark_ancestors(capture->origin->frontier[i], mark);
    for (size_t i = 0; i < capture->graph->count; i++)
        if (capture->graph->nodes[i]->mark != mark)
            return false;
    return true;
}

static CUresult end(struct stream *s, struct graph **out) {
    pthread_mutex_lock(&engine);
    struct capture *capture = s->capture;
    if (!capture || capture->origin != s) {
        pthread_mutex_unlock(&engine);
        return CAPTURE_UNMATCHED;
    }
    bool joined = capture->borrowed_graph || all_joined(capture);
    for (struct stream *other = s->context->streams; other; other = other->next)
        if (other->capture == capture)
            other->capture = NULL, other->context->capturing -= other->blocking;
    capture->active = false;
    pthread_mutex_unlock(&engine);
    if (!joined)
        graph_free(capture->graph);
    *out = joined ? capture->graph : NULL;
    return joined ? CUDA_SUCCESS : CAPTURE_UNJOINED;
}

API2(_ptsz, cuStreamBeginCapture, (void *stream), {
    STREAM(stream);
    return begin(s, graph_new(), false, 0);
})
API2(_ptsz, cuStreamBeginCapture_v2, (void *stream, int mode), {
    STREAM(stream);
    return begin(s, graph_new(), false, mode);
})
API2(_ptsz, cuStreamBeginCaptureToGraph,
     (void *stream, struct graph *graph, struct node *const *deps, const void *edges, size_t count, int mode), {
         STREAM(stream);
         if (!graph || graph->magic != GRAPH_MAGIC)
             return INVALID_HANDLE;
         CUresult result = begin(s, graph, true, mode);
         return result ? result : add_to_frontier(s, deps, count);
     })
API2(_ptsz, cuStreamEndCapture, (void *stream, struct graph **out), {
    STREAM(stream);
    if (!out)
        return INVALID_VALUE;
    return end(s, out);
})
API2(_ptsz, cuStreamIsCapturing, (void *stream, int *status), {
    STREAM(stream);
    if (!status)
        return INVALID_VALUE;
    if (s->legacy && s->context->capturing)
        return CAPTURE_IMPLICIT;
    *status = s->capture != NULL;
    return CUDA_SUCCESS;
})

static CUresult capture_info(struct stream *s, int *status, uint64_t *id, struct graph **graph,
                             struct node *const **deps, size_t *count) {
    if (!status)
        return INVALID_VALUE;
    if (s->legacy && s->context->capturing)
        return CAPTURE_IMPLICIT;
    *status = s->capture != NULL;
    if (!s->capture)
        return CUDA_SUCCESS;
    if (id)
        *id = s->capture->id;
    if (graph)
        *graph = s->capture->graph;
    if (deps)
        *deps = s->frontier;
    if (count)
        *count = s->frontier_count;
    return CUDA_SUCCESS;
}
API2(_ptsz, cuStreamGetCaptureInfo, (void *stream, int *status, uint64_t *id), {
    STREAM(stream);
    return capture_info(s, status, id, NULL, NULL, NULL);
})
API2(_ptsz, cuStreamGetCaptureInfo_v2,
     (void *stream, int *status, uint64_t *id, struct graph **graph, struct node *const **deps, size_t *count), {
         STREAM(stream);
         return capture_info(s, status, id, graph, deps, count);
     })
API2(_ptsz, cuStreamGetCaptureInfo_v3,
     (void *stream, int *status, uint64_t *id, struct graph **graph, struct node *const **deps, const void **edges,
      size_t *count),
     {
         STREAM(stream);
         if (edges)
             *edges = NULL;
         return capture_info(s, status, id, graph, deps, count);
     })

// Flag 1 replaces the frontier, 0 adds to it.
static CUresult update_dependencies(struct stream *s, struct node *const *deps, size_t count, unsigned flags) {
    if (!s->capture)
        return CAPTURE_UNMATCHED;
    if (flags & 1)
        s->frontier_count = 0;
    return add_to_frontier(s, deps, count);
}
API2(_ptsz, cuStreamUpdateCaptureDependencies, (void *stream, struct node **deps, size_t count, unsigned flags), {
    STREAM(stream);
    return update_dependencies(s, deps, count, flags);
})
API2(_ptsz, cuStreamUpdateCaptureDependencies_v2,
     (void *stream, struct node **deps, const void *edges, size_t count, unsigned flags), {
         STREAM(stream);
         return update_dependencies(s, deps, count, flags);
     })
API(cuThreadExchangeStreamCaptureMode, (int *mode), {
    static __thread int current;
    if (!mode)
        return INVALID_VALUE;
    int previous = current;
    current = *mode;
    *mode = previous;
    return CUDA_SUCCESS;
})
