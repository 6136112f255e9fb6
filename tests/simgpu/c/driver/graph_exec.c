// Executable graphs. In: graphs as data (graph.c) and public calls. Out: one operation per launch. Absent: device-side
// launch.
#define _GNU_SOURCE
#include "graph.h"
#include <stdlib.h>
#include <string.h>

static CUresult instantiate(struct exec **out, void *graph, uint64_t flags) {
    GRAPH(graph);
    static _Atomic uint32_t next = 1;
    struct exec *exec = calloc(1, sizeof *exec);
    if (!exec || !out || !(exec->plan = plan_of(g)))
        return INVALID_VALUE;
    exec->magic = EXEC_MAGIC, exec->flags = flags, exec->id = atomic_fetch_add(&next, 1);
    *out = exec;
    return CUDA_SUCCESS;
}
API(cuGraphInstantiate, (struct exec * *out, void *graph, void **error_node, char *log, size_t size),
    { return instantiate(out, graph, 0); })
API(cuGraphInstantiate_v2, (struct exec * *out, void *graph, void **error_node, char *log, size_t size),
    { return instantiate(out, graph, 0); })
API(cuGraphInstantiateWithFlags, (struct exec * *out, void *graph, uint64_t flags),
    { return instantiate(out, graph, flags); })
API2(_ptsz, cuGraphInstantiateWithParams, (struct exec * *out, void *graph, struct graph_instantiate_params *params), {
    enum { unused = per_thread };
    CUresult result = instantiate(out, graph, params ? params->flags : 0);
    if (params)
        params->result = result ? 1 : 0;
    return result;
})
API(cuGraphExecDestroy, (void *exec), {
    EXEC(exec);
    x->magic = 0;
    plan_release(x->plan);
    free(x);
    return CUDA_SUCCESS;
})
API(cuGraphExecGetFlags, (void *exec, uint64_t *out), {
    EXEC(exec);
    *out = x->flags;
    return CUDA_SUCCESS;
})
API(cuGraphExecGetId, (void *exec, unsigned *out), {
    EXEC(exec);
    *out = x->id;
    return CUDA_SUCCESS;
})
API2(_ptsz, cuGraphLaunch, (void *exec, void *stream), {
    EXEC(exec);
    STREAM(stream);
    if (s->capture)
        return NOT_SUPPORTED; // a launch inside a capture becomes a child graph on the device; nobody here asks for it
    atomic_fetch_add(&x->plan->references, 1);
    struct work work = {.kind = OP_GRAPH, .graph = {x->plan, x->id}};
    CUresult result = submit(s, &work, NULL);
    if (result)
        plan_release(x->plan);
    return result;
})
API2(_ptsz, cuGraphUpload, (void *exec, void *stream), {
    EXEC(exec);
    (void)x;
    STREAM(stream);
    (void)s;
    return CUDA_SUCCESS;
})

static bool same_shape(const struct plan *a, const struct plan *b) {
    if (a->count != b->count)
        return false;
    for (uint32_t i = 0; i < a->count; i++) {
        const struct plan_item *left = &a->items[i], *right = &b->items[i];
        if (left->work.kind != right->work.kind || left->dependency_count != right->dependency_count ||
            memcmp(left->dependencies, right->dependencies, left->dependency_count * sizeof *left->dependencies))
            return false;
    }
    return true;
}
// CUgraphExecUpdateResult: 2 is "topology changed". The executable keeps naming its own nodes.
static CUresult update(void *exec, void *graph, int *result) {
    EXEC(exec);
    GRAPH(graph);
    struct plan *plan = plan_of(g);
    if (!plan)
        return OUT_OF_MEMORY;
    bool same = same_shape(x->plan, plan);
    *result = same ? 0 : 2;
    if (same) {
        for (uint32_t i = 0; i < plan->count; i++)
            plan->items[i].node = x->plan->items[i].node;
        struct plan *old = x->plan;
        x->plan = plan;
        plan = old;
    }
    plan_release(plan);
    return same ? CUDA_SUCCESS : EXEC_UPDATE_FAILURE;
}
API(cuGraphExecUpdate, (void *exec, void *graph, void **error_node, int *result),
    { return update(exec, graph, result); })
API(cuGraphExecUpdate_v2, (void *exec, void *graph, struct graph_update_result *out), {
    int result = 0;
    CUresult code = update(exec, graph, &result);
    if (out)
        *out = (struct graph_update_result){.result = result};
    return code;
})

// Changes one node of an executable, in a private copy when the plan is in flight.
static CUresult set_item(void *exec, struct node *node, const struct work *work, int disabled) {
    EXEC(exec);
    if (atomic_load(&x->plan->references) > 1) {
        struct plan *copy = plan_copy(x->plan);
        if (!copy)
            return OUT_OF_MEMORY;
        plan_release(x->plan);
        x->plan = copy;
    }
    for (uint32_t i = 0; i < x->plan->count; i++) {
        struct plan_item *item = &x->plan->items[i];
        if (item->node != node)
            continue;
        if (work && item->work.kind != work->kind)
            return INVALID_VALUE;
        if (work)
            item->work = *work;
        if (disabled >= 0)
            item->disabled = disabled;
        return CUDA_SUCCESS;
    }
    return INVALID_HANDLE;
}
static CUresult exec_kernel(void *exec, struct node *node, const struct kernel_node_params *params) {
    struct work work;
    return params && kernel_work(&work, params) ? set_item(exec, node, &work, -1) : INVALID_VALUE;
}
API(cuGraphExecKernelNodeSetParams, (void *exec, struct node *node, const struct kernel_node_params *params),
    { return exec_kernel(exec, node, params); })
API(cuGraphExecKernelNodeSetParams_v2, (void *exec, struct node *node, const struct kernel_node_params_v2 *params), {
    struct kernel_node_params base = params->base;
    if (!base.function)
        base.function = params->kernel;
    return exec_kernel(exec, node, &base);
})
API(cuGraphExecMemcpyNodeSetParams, (void *exec, struct node *node, const struct memcpy_3d *params, void *context), {
    struct work work;
    return params && copy_work(&work, params) ? set_item(exec, node, &work, -1) : INVALID_VALUE;
})
API(cuGraphExecMemsetNodeSetParams,
    (void *exec, struct node *node, const struct memset_node_params *params, void *context), {
        struct work work = fill_work(params);
        return set_item(exec, node, &work, -1);
    })
API(cuGraphExecHostNodeSetParams, (void *exec, struct node *node, const struct host_node_params *params), {
    struct work work = {.kind = OP_HOST, .host = {params->fn, params->data}};
    return set_item(exec, node, &work, -1);
})
API(cuGraphExecNodeSetParams, (void *exec, struct node *node, const struct graph_node_params *params), {
    struct work work;
    CUresult result = any_work(&work, params);
    return result ? result : set_item(exec, node, &work, -1);
})
// The child's nodes stand in the plan each by itself; the other graph must have the same shape.
API(cuGraphExecChildGraphNodeSetParams, (void *exec, struct node *node, void *child), {
    GRAPH(child);
    EXEC(exec);
    struct graph *old = node->work.kind == OP_GRAPH ? node->work.child : NULL;
    CUresult result = old && old->count == g->count ? CUDA_SUCCESS : INVALID_VALUE;
    for (size_t i = 0; i < g->count && !result; i++)
        result = set_item(x, old->nodes[i], &g->nodes[i]->work, -1);
    return result;
})
API(cuGraphNodeSetEnabled, (void *exec, struct node *node, unsigned enabled),
    { return set_item(exec, node, NULL, !enabled); })
API(cuGraphNodeGetEnabled, (void *exec, struct node *node, unsigned *out), {
    EXEC(exec);
    for (uint32_t i = 0; i < x->plan->count; i++)
        if (x->plan->items[i].node == node) {
            *out = !x->plan->items[i].disabled;
            return CUDA_SUCCESS;
        }
    return INVALID_HANDLE;
})
