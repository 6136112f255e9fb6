// Runs streams. In: operations in submission order. Out: each one's start and end on CLOCK_MONOTONIC, its effect on
// memory, and its record in the log. A stream is a timeline: kernels have no body, so their times follow from their
// durations and cost no host CPU; copies, fills and host functions are done by a worker thread (or by the thread
// that waits for them) once their time has come. The host sees an operation as complete when its end has passed.
// Absent: contention between streams; each runs at full speed.
#define _GNU_SOURCE
#include "sim.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

pthread_mutex_t engine = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t progress = PTHREAD_COND_INITIALIZER;

// Below this the wait spins: a sleep here overshoots by tens of microseconds.
enum { SPIN_NS = 50000 };

void sleep_until(uint64_t ns) {
    uint64_t now = now_ns();
    if (ns > now + SPIN_NS) {
        uint64_t wake = ns - SPIN_NS;
        struct timespec t = {(time_t)(wake / 1000000000), (long)(wake % 1000000000)};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
        }
    }
    while (now_ns() < ns) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
}

bool has_effect(const struct work *work) {
    switch (work->kind) {
    case OP_COPY: case OP_FILL: case OP_HOST: case OP_WRITE: return true;
    case OP_GRAPH: return work->graph.plan->has_effects;
    default: return false;
    }
}

uint64_t work_ns(const struct work *work) {
    switch (work->kind) {
    case OP_KERNEL: return work->kernel.function->duration_ns;
    case OP_COPY: return work_bytes(work) * config.copy_ns_per_kib / 1024;
    case OP_FILL: return work_bytes(work) * config.fill_ns_per_kib / 1024;
    default: return 0;
    }
}

static void do_copy(const struct copy *copy) {
    const char *src = copy->staged ? copy->staged : (const char *)copy->src;
    if (copy->height * copy->depth == 1) {
        memmove((void *)copy->dst, src, copy->width);
        return;
    }
    for (size_t z = 0; z < copy->depth; z++)
        for (size_t y = 0; y < copy->height; y++)
            memmove((char *)copy->dst + z * copy->dst_slice + y * copy->dst_pitch,
                    src + z * copy->src_slice + y * copy->src_pitch, copy->width);
}

static void fill_row(char *row, const struct fill *fill) {
    if (fill->element == 1) {
        memset(row, (int)fill->value, fill->width);
        return;
    }
    for (size_t x = 0; x < fill->width; x++)
        memcpy(row + x * fill->element, &fill->value, fill->element);
}

void perform(const struct work *work) {
    switch (work->kind) {
    case OP_COPY: do_copy(&work->copy); break;
    case OP_FILL:
        for (size_t y = 0; y < work->fill.height; y++)
            fill_row((char *)work->fill.dst + y * work->fill.pitch, &work->fill);
        break;
    case OP_HOST: work->host.fn(work->host.data); break;
    case OP_WRITE: memcpy((void *)work->write.at, &work->write.value, work->write.size); break;
    default: break;
    }
}

void release_work(struct work *work) {
    if (work->kind == OP_COPY)
        free(work->copy.staged);
    else if (work->kind == OP_GRAPH)
        plan_release(work->graph.plan);
}

uint64_t end_of(const struct stream *stream, uint64_t seq) {
    if (seq == 0 || stream->submitted - seq >= QUEUE_LENGTH)
        return 0; // long past: its place in the ring is taken by a younger operation
    return stream->ring[(seq - 1) % QUEUE_LENGTH].end_ns;
}

static bool advance(struct stream *stream);

// Whether everything the operation depends on has known times; `start` is raised to the latest of them.
static bool resolve(const struct dependency *dependency, uint64_t *start) {
    struct stream *other = dependency->stream;
    if (!other)
        return true;
    if (other->processed < dependency->seq)
        advance(other);
    if (other->processed < dependency->seq)
        return false;
    uint64_t end = end_of(other, dependency->seq);
    if (end > *start)
        *start = end;
    return true;
}

static bool start_of_head(struct stream *stream, uint64_t *start) {
    struct op *op = &stream->ring[stream->processed % QUEUE_LENGTH];
    *start = op->submit_ns > stream->last_end ? op->submit_ns : stream->last_end;
    if (!resolve(&op->first, start))
        return false;
    for (uint32_t i = 0; i < op->more_count; i++)
        if (!resolve(&op->more[i], start))
            return false;
    return true;
}

static void finish_head(struct stream *stream, uint64_t start, uint64_t end) {
    struct op *op = &stream->ring[stream->processed % QUEUE_LENGTH];
    op->end_ns = end;
    stream->last_end = end;
    stream->processed++;
    if (op->work.kind == OP_EVENT) {
        struct event *event = op->work.event;
        if (event->stream == stream && event->seq == stream->processed)
            event->time_ns = end;
    } else if (op->work.kind == OP_FREE) {
        device_free(op->work.pointer);
    }
    log_work(&op->work, op, stream, start, end, op->work.kind == OP_GRAPH ? op->work.graph.id : 0);
    release_work(&op->work);
    free(op->more);
    op->more = NULL, op->more_count = 0;
}

// Works out the times of operations at the head as far as no effect stands in the way. The lock is held.
static bool advance(struct stream *stream) {
    bool moved = false;
    if (stream->advancing || stream->busy)
        return false;
    stream->advancing = true;
    while (stream->processed < stream->submitted) {
        struct op *op = &stream->ring[stream->processed % QUEUE_LENGTH];
        uint64_t start;
        if (has_effect(&op->work) || !start_of_head(stream, &start))
            break;
        uint64_t end = op->work.kind == OP_GRAPH
                           ? run_plan(op->work.graph.plan, op, stream, start, op->work.graph.id)
                           : start + work_ns(&op->work);
        finish_head(stream, start, end);
        moved = true;
    }
    stream->advancing = false;
    return moved;
}

// Does the effect at the head in this thread, if its dependencies allow. The lock is held, and let go meanwhile.
static bool run_effect(struct stream *stream) {
    uint64_t start;
    if (stream->busy || stream->processed == stream->submitted)
        return false;
    struct op *op = &stream->ring[stream->processed % QUEUE_LENGTH];
    if (!has_effect(&op->work) || !start_of_head(stream, &start))
        return false;
    stream->busy = true;
    pthread_mutex_unlock(&engine);
    sleep_until(start);
    uint64_t end;
    if (op->work.kind == OP_GRAPH) {
        end = run_plan(op->work.graph.plan, op, stream, start, op->work.graph.id);
    } else {
        perform(&op->work);
        uint64_t planned = start + work_ns(&op->work), now = now_ns();
        end = now > planned ? now : planned;
    }
    pthread_mutex_lock(&engine);
    stream->busy = false;
    finish_head(stream, start, end);
    pthread_cond_broadcast(&progress);
    return true;
}

static void *worker(void *argument) {
    struct stream *stream = argument;
    prctl(PR_SET_NAME, "simgpu-stream");
    prctl(PR_SET_TIMERSLACK, 1000);
    pthread_mutex_lock(&engine);
    for (;;) {
        advance(stream);
        if (run_effect(stream))
            continue;
        if (stream->processed < stream->submitted)
            pthread_cond_wait(&progress, &engine);
        else
            pthread_cond_wait(&stream->work_arrived, &engine);
    }
    return NULL;
}

static void wake_worker(struct stream *stream) {
    if (!stream->has_worker) {
        pthread_t thread;
        stream->has_worker = pthread_create(&thread, NULL, worker, stream) == 0;
        if (stream->has_worker)
            pthread_detach(thread);
    } else {
        pthread_cond_signal(&stream->work_arrived);
    }
}

static bool head_is_host_function(const struct stream *stream) {
    return stream->ring[stream->processed % QUEUE_LENGTH].work.kind == OP_HOST;
}

// Until the times of `seq` are known. The lock is held.
static void await_processed(struct stream *stream, uint64_t seq) {
    while (stream->processed < seq) {
        advance(stream);
        if (stream->processed >= seq)
            return;
        // Host functions run on the stream's own thread, as on a real device.
        if (!head_is_host_function(stream) && run_effect(stream))
            continue;
        pthread_cond_wait(&progress, &engine);
    }
}

void wait_stream(struct stream *stream, uint64_t seq) {
    pthread_mutex_lock(&engine);
    await_processed(stream, seq);
    uint64_t end = end_of(stream, seq);
    pthread_mutex_unlock(&engine);
    if (end > now_ns())
        truth_add(TRUTH_blocking_waits, 1);
    sleep_until(end);
}

bool is_done(struct stream *stream, uint64_t seq) {
    pthread_mutex_lock(&engine);
    advance(stream);
    bool done = stream->processed >= seq && end_of(stream, seq) <= now_ns();
    pthread_mutex_unlock(&engine);
    return done;
}

// The legacy stream stands for every blocking stream of its context.
static bool covers(const struct stream *stream, const struct stream *other) {
    return stream == other || (stream->legacy && other->blocking);
}

bool stream_idle(struct stream *stream) {
    for (struct stream *other = stream->context->streams; other; other = other->next)
        if (covers(stream, other) && !is_done(other, other->submitted))
            return false;
    return true;
}

static void wait_all(struct context *context, struct stream *covering) {
    for (struct stream *other = context->streams; other; other = other->next)
        if (!covering || covers(covering, other))
            wait_stream(other, other->submitted);
}

void wait_context(struct context *context) { wait_all(context, NULL); }

// Whether later work must still wait for the stream's tail.
static bool pending(const struct stream *stream, uint64_t now) {
    return stream->processed < stream->submitted || stream->last_end > now;
}

static void add_dependency(struct op *op, struct stream *stream) {
    struct dependency dependency = {stream, stream->submitted};
    if (!op->first.stream) {
        op->first = dependency;
        return;
    }
    struct dependency *grown = realloc(op->more, (op->more_count + 1) * sizeof *grown);
    if (!grown)
        return;
    op->more = grown;
    op->more[op->more_count++] = dependency;
}

// The legacy default stream waits for all blocking streams, and they wait for it (CUDA programming guide, implicit
// synchronization).
static void add_implicit(struct stream *stream, struct op *op, uint64_t now) {
    if (stream->legacy) {
        for (struct stream *other = stream->context->streams; other; other = other->next)
            if (other->blocking && other != stream && pending(other, now))
                add_dependency(op, other);
    } else if (stream->blocking && pending(stream->context->legacy, now)) {
        add_dependency(op, stream->context->legacy);
    }
}

// The queue is bounded as on the real device: a launch blocks while it is full. The lock is held.
static void make_room(struct stream *stream) {
    for (;;) {
        uint64_t now = now_ns();
        while (stream->retired < stream->processed && end_of(stream, stream->retired + 1) <= now)
            stream->retired++;
        if (stream->submitted - stream->retired < QUEUE_LENGTH)
            return;
        await_processed(stream, stream->retired + 1);
        uint64_t end = end_of(stream, stream->retired + 1);
        pthread_mutex_unlock(&engine);
        sleep_until(end);
        pthread_mutex_lock(&engine);
    }
}

static void bind_graph_events(struct stream *stream, const struct plan *plan, uint64_t seq) {
    for (uint32_t i = 0; i < plan->count; i++)
        if (plan->items[i].work.kind == OP_EVENT) {
            struct event *event = plan->items[i].work.event;
            event->stream = stream, event->seq = seq, event->recorded = true, event->time_ns = 0;
        }
}

// Places the operation at the stream's tail. The lock is held.
static void enqueue(struct stream *stream, const struct work *work, uint64_t now) {
    make_room(stream);
    struct op *op = &stream->ring[stream->submitted % QUEUE_LENGTH];
    *op = (struct op){.work = *work, .submit_ns = now, .thread = thread_id()};
    if (work->kind == OP_WAIT)
        op->first = (struct dependency){work->wait.stream, work->wait.seq};
    add_implicit(stream, op, now);
    stream->submitted++;
    if (work->kind == OP_EVENT) {
        struct event *event = work->event;
        event->stream = stream, event->seq = stream->submitted, event->recorded = true, event->time_ns = 0;
    } else if (work->kind == OP_GRAPH) {
        bind_graph_events(stream, work->graph.plan, stream->submitted);
    }
    count_work(work);
    advance(stream);
    if (stream->processed < stream->submitted)
        wake_worker(stream);
}

CUresult submit(struct stream *stream, const struct work *work, uint64_t *seq) {
    uint64_t now = now_ns();
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&engine);
    if (stream->capture) {
        result = capture_work(stream, work);
    } else if (stream->legacy && stream->context->capturing) {
        result = CAPTURE_IMPLICIT;
    } else {
        enqueue(stream, work, now);
        if (seq)
            *seq = stream->submitted;
    }
    pthread_mutex_unlock(&engine);
    return result;
}

CUresult submit_and_wait(struct stream *stream, const struct work *work) {
    uint64_t seq = 0;
    if (stream->capture)
        return CAPTURE_UNSUPPORTED;
    CUresult result = submit(stream, work, &seq);
    if (result == CUDA_SUCCESS)
        wait_stream(stream, seq);
    return result;
}
