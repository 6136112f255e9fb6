// The account of each operation. In: operations as they are submitted and as they end. Out: facts, kernel counters and
// operation records in the log. Absent: calls, which each public function counts itself.
#include "sim.h"

static uint64_t busy_until[MAX_DEVICES];
static pthread_mutex_t busy_lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t copy_bytes(const struct copy *copy) { return copy->width * copy->height * copy->depth; }
static uint64_t fill_bytes(const struct fill *fill) { return fill->width * fill->element * fill->height; }

uint64_t work_bytes(const struct work *work) {
    if (work->kind == OP_COPY)
        return copy_bytes(&work->copy);
    return work->kind == OP_FILL ? fill_bytes(&work->fill) : 0;
}

// The time in which anything ran, overlaps between streams counted once.
static void add_busy(CUdevice device, uint64_t start, uint64_t end) {
    pthread_mutex_lock(&busy_lock);
    uint64_t from = start > busy_until[device] ? start : busy_until[device];
    if (end > from) {
        truth_add(TRUTH_busy_ns, end - from);
        busy_until[device] = end;
    }
    pthread_mutex_unlock(&busy_lock);
}

void log_work(const struct work *work, const struct op *op, const struct stream *stream, uint64_t start,
              uint64_t end, uint32_t graph) {
    struct op_record record = {
        .kind = work->kind, .stream = stream->id, .submit_ns = op->submit_ns, .start_ns = start, .end_ns = end,
        .thread = op->thread, .graph = graph, .bytes = work_bytes(work)};
    if (work->kind == OP_KERNEL) {
        struct kernel_slot *slot = log_kernel(work->kernel.function->index);
        record.kernel = work->kernel.function->index;
        atomic_fetch_add_explicit(&slot->total_ns, end - start, memory_order_relaxed);
        truth_add(TRUTH_kernel_ns, end - start);
    } else if (work->kind == OP_COPY) {
        record.kernel = work->copy.direction + 1u;
    }
    if (work->kind == OP_KERNEL || work->kind == OP_COPY || work->kind == OP_FILL) {
        add_busy(stream->context->device, start, end);
    }
    log_op(&record);
}

static void count(enum truth_field field, uint64_t bytes) {
    truth_add(field, 1);
    truth_add(field + 1, bytes);
}

static void count_graph_copy(const struct copy *copy) {
    count(TRUTH_graph_copies, copy_bytes(copy));
    count((enum truth_field)(TRUTH_graph_copies_htod + 2 * copy->direction), copy_bytes(copy));
}

static void count_node(const struct plan_item *item) {
    truth_add(TRUTH_graph_nodes, 1);
    if (item->disabled)
        return;
    switch (item->work.kind) {
    case OP_KERNEL:
        truth_add(TRUTH_graph_kernel_nodes, 1);
        atomic_fetch_add_explicit(&log_kernel(item->work.kernel.function->index)->graph_runs, 1,
                                  memory_order_relaxed);
        break;
    case OP_COPY: count_graph_copy(&item->work.copy); break;
    case OP_FILL: count(TRUTH_graph_memsets, fill_bytes(&item->work.fill)); break;
    case OP_HOST: truth_add(TRUTH_graph_host_functions, 1); break;
    default: break;
    }
}

void count_work(const struct work *work) {
    switch (work->kind) {
    case OP_KERNEL:
        truth_add(TRUTH_launches, 1);
        atomic_fetch_add_explicit(&log_kernel(work->kernel.function->index)->launched, 1, memory_order_relaxed);
        break;
    case OP_COPY:
        count((enum truth_field)(TRUTH_copies_htod + 2 * work->copy.direction), copy_bytes(&work->copy));
        break;
    case OP_FILL: count(TRUTH_memsets, fill_bytes(&work->fill)); break;
    case OP_HOST: truth_add(TRUTH_host_functions, 1); break;
    case OP_WAIT: truth_add(TRUTH_stream_waits, 1); break;
    case OP_GRAPH:
        truth_add(TRUTH_graph_launches, 1);
        for (uint32_t i = 0; i < work->graph.plan->count; i++)
            count_node(&work->graph.plan->items[i]);
        break;
    default: break;
    }
}
