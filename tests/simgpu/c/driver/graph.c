// Graphs as data: nodes, edges, executable plans. In: captured or added work. Out: plans that the engine runs.
// Absent: the public functions (graph_api.c, capture.c); conditional nodes.
#define _GNU_SOURCE
#include "graph.h"
#include <stdlib.h>
#include <string.h>

static _Atomic uint64_t next_id = 1;

struct graph *graph_new(void) {
    struct graph *graph = calloc(1, sizeof *graph);
    if (graph)
        graph->magic = GRAPH_MAGIC, graph->id = atomic_fetch_add(&next_id, 1);
    return graph;
}

void graph_free(struct graph *graph) {
    for (size_t i = 0; i < graph->count; i++) {
        struct node *node = graph->nodes[i];
        if (node->work.kind == OP_GRAPH && node->work.child)
            graph_free(node->work.child);
        node->magic = 0;
        free(node->dependencies);
        free(node);
    }
    free(graph->nodes);
    graph->magic = 0;
    free(graph);
}

struct node *graph_add(struct graph *graph, const struct work *work, struct node *const *deps, size_t count) {
    if (graph->count == graph->room) {
        size_t room = graph->room ? graph->room * 2 : 64;
        struct node **grown = realloc(graph->nodes, room * sizeof *grown);
        if (!grown)
            return NULL;
        graph->nodes = grown, graph->room = room;
    }
    struct node *node = calloc(1, sizeof *node);
    struct node **copy = calloc(count ? count : 1, sizeof *copy);
    if (!node || !copy)
        return NULL;
    memcpy(copy, deps, count * sizeof *copy);
    *node = (struct node){.magic = NODE_MAGIC, .graph = graph, .work = *work, .dependencies = copy,
                          .dependency_count = count, .position = (uint32_t)graph->count};
    graph->nodes[graph->count++] = node;
    return node;
}

static void forget_dependency(struct node *node, const struct node *gone) {
    size_t kept = 0;
    for (size_t d = 0; d < node->dependency_count; d++)
        if (node->dependencies[d] != gone)
            node->dependencies[kept++] = node->dependencies[d];
    node->dependency_count = kept;
}

void graph_remove(struct node *node) {
    struct graph *graph = node->graph;
    graph->count--;
    for (size_t i = 0; i < graph->count; i++) {
        if (i >= node->position) {
            graph->nodes[i] = graph->nodes[i + 1];
            graph->nodes[i]->position = (uint32_t)i;
        }
        forget_dependency(graph->nodes[i], node);
    }
    if (node->work.kind == OP_GRAPH && node->work.child)
        graph_free(node->work.child);
    node->magic = 0;
    free(node->dependencies);
    free(node);
}

// A deep copy whose node `i` copies node `i`.
struct graph *graph_clone(const struct graph *graph) {
    struct graph *clone = graph_new();
    for (size_t i = 0; clone && i < graph->count; i++) {
        const struct node *node = graph->nodes[i];
        struct node *copy = graph_add(clone, &node->work, NULL, 0);
        if (!copy)
            return NULL;
        copy->disabled = node->disabled, copy->origin = (struct node *)node;
        if (node->work.kind == OP_GRAPH && node->work.child)
            copy->work.child = graph_clone(node->work.child);
    }
    for (size_t i = 0; clone && i < graph->count; i++) {
        const struct node *node = graph->nodes[i];
        struct node *copy = clone->nodes[i];
        copy->dependencies = calloc(node->dependency_count + 1, sizeof *copy->dependencies);
        for (size_t d = 0; copy->dependencies && d < node->dependency_count; d++)
            copy->dependencies[copy->dependency_count++] = clone->nodes[node->dependencies[d]->position];
    }
    return clone;
}

static struct plan_item *plan_push(struct plan *plan, const struct work *work, struct node *node, uint32_t deps) {
    if (plan->count == plan->room) {
        uint32_t room = plan->room ? plan->room * 2 : 64;
        struct plan_item *grown = realloc(plan->items, room * sizeof *grown);
        if (!grown)
            return NULL;
        plan->items = grown, plan->room = room;
    }
    struct plan_item *item = &plan->items[plan->count++];
    *item = (struct plan_item){.work = *work, .node = node, .disabled = node->disabled};
    item->dependencies = calloc(deps + 1, sizeof *item->dependencies);
    if (has_effect(work))
        plan->has_effects = true;
    return item;
}

static bool flatten(struct plan *plan, const struct graph *graph, const uint32_t *before, uint32_t before_count);

// A child graph runs in place of its node; an empty item stands for the node's end.
static bool flatten_child(struct plan *plan, struct node *node, const uint32_t *deps, uint32_t count) {
    uint32_t first = plan->count;
    if (node->work.child && !flatten(plan, node->work.child, deps, count))
        return false;
    uint32_t last = plan->count;
    struct work end = {.kind = OP_EMPTY};
    struct plan_item *item = plan_push(plan, &end, node, last - first + count);
    if (!item)
        return false;
    for (uint32_t i = first; i < last; i++)
        item->dependencies[item->dependency_count++] = i;
    for (uint32_t i = 0; i < count; i++)
        item->dependencies[item->dependency_count++] = deps[i];
    return true;
}

static bool flatten_node(struct plan *plan, struct node *node, uint32_t *where, const uint32_t *before,
                         uint32_t before_count) {
    uint32_t count = 0, *deps = calloc(node->dependency_count + before_count + 1, sizeof *deps);
    if (!deps)
        return false;
    for (size_t d = 0; d < node->dependency_count; d++)
        deps[count++] = where[node->dependencies[d]->position];
    for (uint32_t i = 0; node->dependency_count == 0 && i < before_count; i++)
        deps[count++] = before[i];
    bool done = true;
    if (node->work.kind == OP_GRAPH) {
        done = flatten_child(plan, node, deps, count);
    } else {
        struct plan_item *item = plan_push(plan, &node->work, node, count);
        if (item)
            memcpy(item->dependencies, deps, count * sizeof *deps), item->dependency_count = count;
        done = item != NULL;
    }
    where[node->position] = plan->count - 1;
    free(deps);
    return done;
}

static bool placed(const struct node *node, const uint32_t *where) {
    for (size_t d = 0; d < node->dependency_count; d++)
        if (where[node->dependencies[d]->position] == UINT32_MAX)
            return false;
    return true;
}

// Places nodes whose dependencies are placed until all are; a round without progress means a cycle.
static bool flatten(struct plan *plan, const struct graph *graph, const uint32_t *before, uint32_t before_count) {
    uint32_t *where = malloc((graph->count + 1) * sizeof *where);
    if (!where)
        return false;
    memset(where, 0xff, (graph->count + 1) * sizeof *where);
    size_t left = graph->count;
    bool good = true, moved = true;
    while (good && left && moved) {
        moved = false;
        for (size_t i = 0; good && i < graph->count; i++) {
            struct node *node = graph->nodes[i];
            if (where[node->position] != UINT32_MAX || !placed(node, where))
                continue;
            good = flatten_node(plan, node, where, before, before_count);
            left--, moved = true;
        }
    }
    free(where);
    return good && left == 0;
}

void plan_release(struct plan *plan) {
    if (atomic_fetch_sub(&plan->references, 1) != 1)
        return;
    for (uint32_t i = 0; i < plan->count; i++)
        free(plan->items[i].dependencies);
    free(plan->items);
    free(plan);
}

struct plan *plan_of(const struct graph *graph) {
    struct plan *plan = calloc(1, sizeof *plan);
    if (!plan)
        return NULL;
    atomic_store(&plan->references, 1);
    if (flatten(plan, graph, NULL, 0))
        return plan;
    plan_release(plan);
    return NULL;
}

// A private copy of a plan, so that one in flight never changes.
struct plan *plan_copy(const struct plan *plan) {
    struct plan *copy = calloc(1, sizeof *copy);
    if (!copy)
        return NULL;
    atomic_store(&copy->references, 1);
    for (uint32_t i = 0; i < plan->count; i++) {
        const struct plan_item *item = &plan->items[i];
        struct plan_item *made = plan_push(copy, &item->work, item->node, item->dependency_count);
        if (!made)
            return NULL;
        made->disabled = item->disabled;
        made->dependency_count = item->dependency_count;
        memcpy(made->dependencies, item->dependencies, item->dependency_count * sizeof *made->dependencies);
    }
    return copy;
}

static uint64_t run_item(const struct plan_item *item, uint64_t start) {
    uint64_t planned = start + work_ns(&item->work);
    if (!has_effect(&item->work))
        return planned;
    sleep_until(start);
    perform(&item->work);
    uint64_t now = now_ns();
    return now > planned ? now : planned;
}

// Runs every node as soon as what it depends on has ended, and returns the latest end.
uint64_t run_plan(const struct plan *plan, const struct op *op, const struct stream *stream, uint64_t start,
                  uint32_t id) {
    uint64_t last = start, *ends = malloc((plan->count + 1) * sizeof *ends);
    for (uint32_t i = 0; ends && i < plan->count; i++) {
        const struct plan_item *item = &plan->items[i];
        uint64_t begin = start;
        for (uint32_t d = 0; d < item->dependency_count; d++)
            if (ends[item->dependencies[d]] > begin)
                begin = ends[item->dependencies[d]];
        ends[i] = item->disabled ? begin : run_item(item, begin);
        if (item->work.kind == OP_EVENT && item->work.event->seq)
            item->work.event->time_ns = ends[i];
        if (!item->disabled && item->work.kind != OP_EMPTY)
            log_work(&item->work, op, stream, begin, ends[i], id);
        if (ends[i] > last)
            last = ends[i];
    }
    free(ends);
    return last;
}
