// Graphs built by hand. In: public calls. Out: graphs as data (graph.c). Absent: conditional, semaphore and batch
// nodes; kernel arguments, which nothing reads.
#define _GNU_SOURCE
#include "graph.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool copy_from_3d(const struct memcpy_3d *c, struct copy *out);

// Numbers of CUgraphNodeType.
enum { TYPE_KERNEL, TYPE_MEMCPY, TYPE_MEMSET, TYPE_HOST, TYPE_GRAPH, TYPE_EMPTY, TYPE_WAIT, TYPE_RECORD, TYPE_ALLOC = 10, TYPE_FREE };

API(cuGraphCreate, (struct graph * *out, unsigned flags), {
    READY();
    *out = graph_new();
    return *out ? CUDA_SUCCESS : OUT_OF_MEMORY;
})
API(cuGraphDestroy, (void *graph), {
    GRAPH(graph);
    graph_free(g);
    return CUDA_SUCCESS;
})
API(cuGraphClone, (struct graph * *out, void *graph), {
    GRAPH(graph);
    *out = graph_clone(g);
    return *out ? CUDA_SUCCESS : OUT_OF_MEMORY;
})
API(cuGraphGetId, (void *graph, unsigned *out), {
    GRAPH(graph);
    *out = (unsigned)g->id;
    return CUDA_SUCCESS;
})
API(cuGraphDebugDotPrint, (void *graph, const char *path, unsigned flags), {
    GRAPH(graph);
    FILE *file = fopen(path, "w");
    if (!file)
        return FILE_NOT_FOUND;
    fprintf(file, "digraph graph_%llu { // %zu nodes\n}\n", (unsigned long long)g->id, g->count);
    fclose(file);
    return CUDA_SUCCESS;
})

bool kernel_work(struct work *out, const struct kernel_node_params *p) {
    struct function *function = p->function;
    if (!function || function->magic != FUNCTION_MAGIC)
        return false;
    *out = (struct work){.kind = OP_KERNEL, .kernel = {.function = function, .shared = p->shared}};
    memcpy(out->kernel.grid, p->grid, sizeof p->grid);
    memcpy(out->kernel.block, p->block, sizeof p->block);
    return true;
}
struct work fill_work(const struct memset_node_params *p) {
    return (struct work){.kind = OP_FILL, .fill = {p->dst, p->pitch, p->width, p->height, p->value, p->element}};
}
bool copy_work(struct work *out, const struct memcpy_3d *c) {
    out->kind = OP_COPY;
    return copy_from_3d(c, &out->copy);
}

static CUresult add(struct node **out, struct graph *g, const struct work *work, struct node *const *deps, size_t count) {
    struct node *node = graph_add(g, work, deps, count);
    if (!node || !out)
        return node ? INVALID_VALUE : OUT_OF_MEMORY;
    *out = node;
    return CUDA_SUCCESS;
}

#define ADD_PARAMS struct node **out, void *graph, struct node *const *deps, size_t count
static CUresult add_kernel(ADD_PARAMS, const struct kernel_node_params *params) {
    GRAPH(graph);
    struct work work;
    return params && kernel_work(&work, params) ? add(out, g, &work, deps, count) : INVALID_VALUE;
}
API(cuGraphAddKernelNode, (ADD_PARAMS, const struct kernel_node_params *params),
    { return add_kernel(out, graph, deps, count, params); })
API(cuGraphAddKernelNode_v2, (ADD_PARAMS, const struct kernel_node_params_v2 *params), {
    struct kernel_node_params base = params->base;
    if (!base.function)
        base.function = params->kernel;
    return add_kernel(out, graph, deps, count, &base);
})
API(cuGraphAddMemcpyNode, (ADD_PARAMS, const struct memcpy_3d *params, void *context), {
    GRAPH(graph);
    struct work work;
    return params && copy_work(&work, params) ? add(out, g, &work, deps, count) : INVALID_VALUE;
})
API(cuGraphAddMemsetNode, (ADD_PARAMS, const struct memset_node_params *params, void *context), {
    GRAPH(graph);
    struct work work = fill_work(params);
    return add(out, g, &work, deps, count);
})
API(cuGraphAddHostNode, (ADD_PARAMS, const struct host_node_params *params), {
    GRAPH(graph);
    struct work work = {.kind = OP_HOST, .host = {params->fn, params->data}};
    return add(out, g, &work, deps, count);
})
API(cuGraphAddEmptyNode, (ADD_PARAMS), {
    GRAPH(graph);
    struct work work = {.kind = OP_EMPTY};
    return add(out, g, &work, deps, count);
})
API(cuGraphAddChildGraphNode, (ADD_PARAMS, struct graph *child), {
    GRAPH(graph);
    struct work work = {.kind = OP_GRAPH, .child = graph_clone(child)};
    return add(out, g, &work, deps, count);
})
API(cuGraphAddEventRecordNode, (ADD_PARAMS, struct event *event), {
    GRAPH(graph);
    struct work work = {.kind = OP_EVENT, .event = event};
    return add(out, g, &work, deps, count);
})
// The wait inside a graph costs no time: the stand-in does not order it against other streams.
API(cuGraphAddEventWaitNode, (ADD_PARAMS, struct event *event), {
    GRAPH(graph);
    struct work work = {.kind = OP_EMPTY};
    return add(out, g, &work, deps, count);
})

CUresult any_work(struct work *out, const struct graph_node_params *p) {
    struct kernel_node_params kernel;
    *out = (struct work){.kind = OP_EMPTY};
    switch (p->type) {
    case TYPE_KERNEL:
        kernel = p->kernel.base;
        if (!kernel.function)
            kernel.function = p->kernel.kernel;
        return kernel_work(out, &kernel) ? CUDA_SUCCESS : INVALID_VALUE;
    case TYPE_MEMCPY: return copy_work(out, &p->memcpy.copy) ? CUDA_SUCCESS : INVALID_VALUE;
    case TYPE_MEMSET: *out = fill_work(&p->memset); break;
    case TYPE_HOST: *out = (struct work){.kind = OP_HOST, .host = {p->host.fn, p->host.data}}; break;
    case TYPE_GRAPH: *out = (struct work){.kind = OP_GRAPH, .child = graph_clone(p->graph)}; break;
    case TYPE_RECORD: *out = (struct work){.kind = OP_EVENT, .event = p->event}; break;
    case TYPE_EMPTY: case TYPE_WAIT: break;
    default: return NOT_SUPPORTED;
    }
    return CUDA_SUCCESS;
}
static CUresult add_any(ADD_PARAMS, struct graph_node_params *p) {
    GRAPH(graph);
    struct work work;
    CUresult result = any_work(&work, p);
    return result ? result : add(out, g, &work, deps, count);
}
API(cuGraphAddNode, (ADD_PARAMS, struct graph_node_params *params),
    { return add_any(out, graph, deps, count, params); })
#define ADD_PARAMS_V2 struct node **out, void *graph, struct node *const *deps, const void *edges, size_t count
API(cuGraphAddNode_v2, (ADD_PARAMS_V2, struct graph_node_params *params),
    { return add_any(out, graph, deps, count, params); })
API(cuGraphAddNode_v3, (ADD_PARAMS_V2, struct graph_node_params *params),
    { return add_any(out, graph, deps, count, params); })

// Changes what a node will do in executables made from now on.
static CUresult set_work(void *node, const struct work *work) {
    NODE(node);
    if (n->work.kind != work->kind)
        return INVALID_VALUE;
    n->work = *work;
    return CUDA_SUCCESS;
}
static CUresult set_any(void *node, const struct graph_node_params *params) {
    struct work work;
    CUresult result = any_work(&work, params);
    return result ? result : set_work(node, &work);
}
API(cuGraphNodeSetParams, (void *node, const struct graph_node_params *params), { return set_any(node, params); })
API(cuGraphNodeSetParams_v2, (void *node, const struct graph_node_params *params), { return set_any(node, params); })
API(cuGraphMemcpyNodeSetParams, (void *node, const struct memcpy_3d *params), {
    struct work work;
    return params && copy_work(&work, params) ? set_work(node, &work) : INVALID_VALUE;
})
API(cuGraphMemsetNodeSetParams, (void *node, const struct memset_node_params *params), {
    struct work work = fill_work(params);
    return set_work(node, &work);
})
API(cuGraphNodeFindInClone, (struct node **out, struct node *original, void *clone), {
    GRAPH(clone);
    for (size_t i = 0; i < g->count; i++)
        if (g->nodes[i]->origin == original) {
            *out = g->nodes[i];
            return CUDA_SUCCESS;
        }
    return INVALID_VALUE;
})
API(cuGraphDestroyNode, (void *node), {
    NODE(node);
    graph_remove(n);
    return CUDA_SUCCESS;
})

static CUresult add_edges(void *graph, struct node *const *from, struct node *const *to, size_t count) {
    GRAPH(graph);
    for (size_t i = 0; i < count; i++) {
        struct node *node = to[i];
        struct node **grown = realloc(node->dependencies, (node->dependency_count + 1) * sizeof *grown);
        if (!grown || node->graph != g)
            return INVALID_VALUE;
        node->dependencies = grown;
        grown[node->dependency_count++] = from[i];
    }
    return CUDA_SUCCESS;
}
API(cuGraphAddDependencies, (void *graph, struct node *const *from, struct node *const *to, size_t count),
    { return add_edges(graph, from, to, count); })
API(cuGraphAddDependencies_v2,
    (void *graph, struct node *const *from, struct node *const *to, const void *edges, size_t count),
    { return add_edges(graph, from, to, count); })

// Lists answer the size when no array is given, as all of them do.
static CUresult list(struct node *const *nodes, size_t have, struct node **out, size_t *count) {
    if (!count)
        return INVALID_VALUE;
    for (size_t i = 0; out && i < *count && i < have; i++)
        out[i] = nodes[i];
    *count = have;
    return CUDA_SUCCESS;
}
API(cuGraphGetNodes, (void *graph, struct node **out, size_t *count), {
    GRAPH(graph);
    return list(g->nodes, g->count, out, count);
})
API(cuGraphGetRootNodes, (void *graph, struct node **out, size_t *count), {
    GRAPH(graph);
    struct node **roots = calloc(g->count + 1, sizeof *roots);
    size_t found = 0;
    for (size_t i = 0; roots && i < g->count; i++)
        if (g->nodes[i]->dependency_count == 0)
            roots[found++] = g->nodes[i];
    CUresult result = list(roots, found, out, count);
    free(roots);
    return result;
})
static CUresult edges_of(void *graph, struct node **from, struct node **to, size_t *count) {
    GRAPH(graph);
    size_t found = 0;
    for (size_t i = 0; i < g->count; i++)
        for (size_t d = 0; d < g->nodes[i]->dependency_count; d++, found++)
            if (from && to && found < *count)
                from[found] = g->nodes[i]->dependencies[d], to[found] = g->nodes[i];
    *count = found;
    return CUDA_SUCCESS;
}
API(cuGraphGetEdges, (void *graph, struct node **from, struct node **to, size_t *count),
    { return edges_of(graph, from, to, count); })
API(cuGraphGetEdges_v2, (void *graph, struct node **from, struct node **to, uint64_t *edges, size_t *count), {
    size_t room = edges ? *count : 0;
    CUresult result = edges_of(graph, from, to, count);
    for (size_t i = 0; i < room && i < *count; i++)
        edges[i] = 0;
    return result;
})
API(cuGraphNodeGetDependencies, (void *node, struct node **out, size_t *count), {
    NODE(node);
    return list(n->dependencies, n->dependency_count, out, count);
})
API(cuGraphNodeGetDependencies_v2, (void *node, struct node **out, uint64_t *edges, size_t *count), {
    NODE(node);
    for (size_t i = 0; edges && i < *count; i++)
        edges[i] = 0;
    return list(n->dependencies, n->dependency_count, out, count);
})
API(cuGraphNodeGetType, (void *node, int *out), {
    NODE(node);
    static const int types[] = {[OP_KERNEL] = TYPE_KERNEL, [OP_COPY] = TYPE_MEMCPY, [OP_FILL] = TYPE_MEMSET,
                                [OP_HOST] = TYPE_HOST, [OP_EVENT] = TYPE_RECORD, [OP_WAIT] = TYPE_WAIT,
                                [OP_GRAPH] = TYPE_GRAPH, [OP_FREE] = TYPE_FREE, [OP_EMPTY] = TYPE_EMPTY,
                                [OP_WRITE] = 12};
    *out = types[n->work.kind];
    return CUDA_SUCCESS;
})
API(cuGraphChildGraphNodeGetGraph, (void *node, struct graph **out), {
    NODE(node);
    *out = n->work.kind == OP_GRAPH ? n->work.child : NULL;
    return *out ? CUDA_SUCCESS : INVALID_VALUE;
})
static CUresult kernel_params(void *node, struct kernel_node_params *out) {
    NODE(node);
    if (n->work.kind != OP_KERNEL)
        return INVALID_VALUE;
    *out = (struct kernel_node_params){.function = n->work.kernel.function, .shared = n->work.kernel.shared};
    memcpy(out->grid, n->work.kernel.grid, sizeof out->grid);
    memcpy(out->block, n->work.kernel.block, sizeof out->block);
    return CUDA_SUCCESS;
}
API(cuGraphKernelNodeGetParams, (void *node, struct kernel_node_params *out), { return kernel_params(node, out); })
API(cuGraphKernelNodeGetParams_v2, (void *node, struct kernel_node_params_v2 *out), {
    out->kernel = out->context = NULL;
    return kernel_params(node, &out->base);
})
static CUresult set_kernel_params(void *node, const struct kernel_node_params *params) {
    NODE(node);
    return n->work.kind == OP_KERNEL && kernel_work(&n->work, params) ? CUDA_SUCCESS : INVALID_VALUE;
}
API(cuGraphKernelNodeSetParams, (void *node, const struct kernel_node_params *p), { return set_kernel_params(node, p); })
API(cuGraphKernelNodeSetParams_v2, (void *node, const struct kernel_node_params *p), { return set_kernel_params(node, p); })
API(cuGraphKernelNodeSetAttribute, (void *node, int attribute, const void *value), {
    NODE(node);
    (void)n;
    return CUDA_SUCCESS;
})
API(cuGraphKernelNodeCopyAttributes, (void *to, void *from), {
    NODE(to);
    (void)n;
    return CUDA_SUCCESS;
})
// Frees the user's resource never: graphs of the stand-in are small and tests short.
API(cuUserObjectCreate, (void **out, void *pointer, host_fn destroy, unsigned references, unsigned flags), {
    READY();
    *out = pointer;
    return CUDA_SUCCESS;
})
API(cuUserObjectRetain, (void *object, unsigned count), {
    READY();
    return CUDA_SUCCESS;
})
API(cuUserObjectRelease, (void *object, unsigned count), {
    READY();
    return CUDA_SUCCESS;
})
API(cuGraphRetainUserObject, (void *graph, void *object, unsigned count, unsigned flags), {
    GRAPH(graph);
    (void)g;
    return CUDA_SUCCESS;
})
API(cuGraphReleaseUserObject, (void *graph, void *object, unsigned count), {
    GRAPH(graph);
    (void)g;
    return CUDA_SUCCESS;
})
