// Graphs. In: the runtime's forms, which name kernels by host stub. Out: the driver's. Absent: conditional nodes.
#define _GNU_SOURCE
#include "runtime.h"

#define DEPS void **deps, size_t count

API(cudaGraphCreate, (void **out, unsigned flags), { CALL(cuGraphCreate, out, flags); })
API(cudaGraphDestroy, (void *graph), { CALL(cuGraphDestroy, graph); })
API(cudaGraphClone, (void **out, void *graph), { CALL(cuGraphClone, out, graph); })
API(cudaGraphDebugDotPrint, (void *graph, const char *path, unsigned flags),
    { CALL(cuGraphDebugDotPrint, graph, path, flags); })
API(cudaGraphInstantiate, (void **out, void *graph, uint64_t flags),
    { CALL(cuGraphInstantiateWithFlags, out, graph, flags); })
API(cudaGraphInstantiateWithFlags, (void **out, void *graph, uint64_t flags),
    { CALL(cuGraphInstantiateWithFlags, out, graph, flags); })
API2(_ptsz, cudaGraphInstantiateWithParams, (void **out, void *graph, void *params),
     { CALL2(cuGraphInstantiateWithParams, out, graph, params); })
API(cudaGraphExecDestroy, (void *exec), { CALL(cuGraphExecDestroy, exec); })
API(cudaGraphExecGetFlags, (void *exec, uint64_t *out), { CALL(cuGraphExecGetFlags, exec, out); })
API(cudaGraphExecUpdate, (void *exec, void *graph, void *result), { CALL(cuGraphExecUpdate_v2, exec, graph, result); })
API2(_ptsz, cudaGraphLaunch, (void *exec, void *stream), { CALL2(cuGraphLaunch, exec, stream); })
API2(_ptsz, cudaGraphUpload, (void *exec, void *stream), { CALL2(cuGraphUpload, exec, stream); })

// The layouts agree but for the first field: a stub here, a handle there.
static error_t_ translate(const struct kernel_node_params *from, struct kernel_node_params_v2 *to) {
    if (!from)
        return INVALID_VALUE;
    *to = (struct kernel_node_params_v2){.base = *from};
    to->base.function = function_of(from->function);
    return to->base.function ? SUCCESS : INVALID_DEVICE_FUNCTION;
}
#define TRANSLATED(params)                                                                                     \
    READY();                                                                                                   \
    struct kernel_node_params_v2 p;                                                                            \
    error_t_ bad = translate(params, &p);                                                                      \
    if (bad)                                                                                                   \
    return remember(bad)

API(cudaGraphAddKernelNode, (void **out, void *graph, DEPS, const struct kernel_node_params *params), {
    TRANSLATED(params);
    CALL(cuGraphAddKernelNode_v2, out, graph, deps, count, &p);
})
API(cudaGraphKernelNodeGetParams, (void *node, struct kernel_node_params *out), {
    READY();
    struct kernel_node_params_v2 p;
    error_t_ error = driver.cuGraphKernelNodeGetParams_v2(node, &p);
    if (!error)
        *out = p.base;
    return remember(error);
})
API(cudaGraphKernelNodeSetParams, (void *node, const struct kernel_node_params *params), {
    TRANSLATED(params);
    CALL(cuGraphKernelNodeSetParams_v2, node, &p);
})
API(cudaGraphKernelNodeSetAttribute, (void *node, int attribute, const void *value), { READY(); return SUCCESS; })
API(cudaGraphKernelNodeCopyAttributes, (void *to, void *from), { READY(); return SUCCESS; })
API(cudaGraphExecKernelNodeSetParams, (void *exec, void *node, const struct kernel_node_params *params), {
    TRANSLATED(params);
    CALL(cuGraphExecKernelNodeSetParams_v2, exec, node, &p);
})

struct params_3d;
struct memcpy_3d driver_copy_3d(const struct params_3d *p);
static struct memcpy_3d plain_copy(void *dst, const void *src, size_t bytes, int kind) {
    static const int src_types[] = {1, 1, 2, 2, 4}, dst_types[] = {1, 2, 1, 2, 4};
    int k = kind < 0 || kind > 4 ? 4 : kind;
    return (struct memcpy_3d){.src_type = src_types[k], .src_host = src, .src_device = (uint64_t)src,
                              .dst_type = dst_types[k], .dst_host = dst, .dst_device = (uint64_t)dst,
                              .width = bytes, .height = 1, .depth = 1};
}
API(cudaGraphAddMemcpyNode, (void **out, void *graph, DEPS, const struct params_3d *params), {
    READY();
    struct memcpy_3d c = driver_copy_3d(params);
    CALL(cuGraphAddMemcpyNode, out, graph, deps, count, &c, (void *)NULL);
})
API(cudaGraphAddMemcpyNode1D,
    (void **out, void *graph, DEPS, void *dst, const void *src, size_t bytes, int kind), {
        struct memcpy_3d c = plain_copy(dst, src, bytes, kind);
        CALL(cuGraphAddMemcpyNode, out, graph, deps, count, &c, (void *)NULL);
    })
API(cudaGraphExecMemcpyNodeSetParams, (void *exec, void *node, const struct params_3d *params), {
    READY();
    struct memcpy_3d c = driver_copy_3d(params);
    CALL(cuGraphExecMemcpyNodeSetParams, exec, node, &c, (void *)NULL);
})
API(cudaGraphExecMemcpyNodeSetParams1D,
    (void *exec, void *node, void *dst, const void *src, size_t bytes, int kind), {
        struct memcpy_3d c = plain_copy(dst, src, bytes, kind);
        CALL(cuGraphExecMemcpyNodeSetParams, exec, node, &c, (void *)NULL);
    })
API(cudaGraphMemcpyNodeSetParams, (void *node, const struct params_3d *params), {
    READY();
    struct memcpy_3d c = driver_copy_3d(params);
    CALL(cuGraphMemcpyNodeSetParams, node, &c);
})
API(cudaGraphMemcpyNodeSetParams1D, (void *node, void *dst, const void *src, size_t bytes, int kind), {
    struct memcpy_3d c = plain_copy(dst, src, bytes, kind);
    CALL(cuGraphMemcpyNodeSetParams, node, &c);
})
API(cudaGraphMemsetNodeSetParams, (void *node, const void *params), { CALL(cuGraphMemsetNodeSetParams, node, params); })
API(cudaGraphNodeFindInClone, (void **out, void *node, void *clone), { CALL(cuGraphNodeFindInClone, out, node, clone); })
API(cudaGraphDestroyNode, (void *node), { CALL(cuGraphDestroyNode, node); })

// Copies to and from device variables.
#define SYMBOL_COPY(dst, src)                                                                                  \
    READY();                                                                                                   \
    char *variable = variable_address(symbol);                                                                 \
    if (!variable)                                                                                             \
    return remember(INVALID_SYMBOL);                                                                           \
    struct memcpy_3d c = plain_copy(dst, src, bytes, kind)
API(cudaGraphAddMemcpyNodeToSymbol,
    (void **out, void *graph, DEPS, const void *symbol, const void *src, size_t bytes, size_t offset, int kind), {
        SYMBOL_COPY(variable + offset, src);
        CALL(cuGraphAddMemcpyNode, out, graph, deps, count, &c, (void *)NULL);
    })
API(cudaGraphAddMemcpyNodeFromSymbol,
    (void **out, void *graph, DEPS, void *dst, const void *symbol, size_t bytes, size_t offset, int kind), {
        SYMBOL_COPY(dst, variable + offset);
        CALL(cuGraphAddMemcpyNode, out, graph, deps, count, &c, (void *)NULL);
    })
API(cudaGraphAddMemsetNode, (void **out, void *graph, DEPS, const void *params),
    { CALL(cuGraphAddMemsetNode, out, graph, deps, count, params, (void *)NULL); })
API(cudaGraphExecMemsetNodeSetParams, (void *exec, void *node, const void *params),
    { CALL(cuGraphExecMemsetNodeSetParams, exec, node, params, (void *)NULL); })
API(cudaGraphAddHostNode, (void **out, void *graph, DEPS, const void *params),
    { CALL(cuGraphAddHostNode, out, graph, deps, count, params); })
API(cudaGraphExecHostNodeSetParams, (void *exec, void *node, const void *params),
    { CALL(cuGraphExecHostNodeSetParams, exec, node, params); })
API(cudaGraphAddEmptyNode, (void **out, void *graph, DEPS), { CALL(cuGraphAddEmptyNode, out, graph, deps, count); })
API(cudaGraphAddChildGraphNode, (void **out, void *graph, DEPS, void *child),
    { CALL(cuGraphAddChildGraphNode, out, graph, deps, count, child); })
API(cudaGraphAddEventRecordNode, (void **out, void *graph, DEPS, void *event),
    { CALL(cuGraphAddEventRecordNode, out, graph, deps, count, event); })
API(cudaGraphAddEventWaitNode, (void **out, void *graph, DEPS, void *event),
    { CALL(cuGraphAddEventWaitNode, out, graph, deps, count, event); })
API(cudaGraphGetNodes, (void *graph, void **out, size_t *count), { CALL(cuGraphGetNodes, graph, out, count); })
API(cudaGraphGetRootNodes, (void *graph, void **out, size_t *count), { CALL(cuGraphGetRootNodes, graph, out, count); })
API(cudaGraphNodeGetType, (void *node, int *out), { CALL(cuGraphNodeGetType, node, out); })
API(cudaGraphChildGraphNodeGetGraph, (void *node, void **out), { CALL(cuGraphChildGraphNodeGetGraph, node, out); })
API(cudaGraphNodeSetEnabled, (void *exec, void *node, unsigned enabled),
    { CALL(cuGraphNodeSetEnabled, exec, node, enabled); })
API(cudaGraphNodeGetEnabled, (void *exec, void *node, unsigned *out), { CALL(cuGraphNodeGetEnabled, exec, node, out); })
API(cudaUserObjectCreate, (void **out, void *pointer, void *destroy, unsigned references, unsigned flags),
    { CALL(cuUserObjectCreate, out, pointer, destroy, references, flags); })
API(cudaUserObjectRetain, (void *object, unsigned count), { CALL(cuUserObjectRetain, object, count); })
API(cudaUserObjectRelease, (void *object, unsigned count), { CALL(cuUserObjectRelease, object, count); })
API(cudaGraphRetainUserObject, (void *graph, void *object, unsigned count, unsigned flags),
    { CALL(cuGraphRetainUserObject, graph, object, count, flags); })
API(cudaGraphReleaseUserObject, (void *graph, void *object, unsigned count),
    { CALL(cuGraphReleaseUserObject, graph, object, count); })

// CUDA 13 gave these an edge-data argument; 12 has it in the `_v2` forms.
#if SIMGPU_CUDA >= 13
#define EDGES , void *edges
#define CONST_EDGES , const void *edges
#else
#define EDGES
#define CONST_EDGES
#endif
API(cudaGraphAddDependencies, (void *graph, void **from, void **to CONST_EDGES, size_t count),
    { CALL(cuGraphAddDependencies, graph, from, to, count); })
API(cudaGraphGetEdges, (void *graph, void **from, void **to EDGES, size_t *count),
    { CALL(cuGraphGetEdges, graph, from, to, count); })
API(cudaGraphNodeGetDependencies, (void *node, void **out EDGES, size_t *count),
    { CALL(cuGraphNodeGetDependencies, node, out, count); })

// A kernel node names its kernel by stub, and a copy has the runtime's layout; other kinds pass as they are.
static struct graph_node_params driver_node(const struct graph_node_params *params) {
    enum { KERNEL = 0, COPY = 1 };
    struct graph_node_params p = *params;
    if (p.type == COPY) // cudaMemcpyNodeParams: two words, then the copy
        p.memcpy.copy = driver_copy_3d((const struct params_3d *)&params->words[2]);
    if (p.type == KERNEL)
        p.kernel.base.function = function_of(p.kernel.base.function);
    return p;
}
static error_t_ add_node(void **out, void *graph, void **deps, size_t count, const struct graph_node_params *params) {
    READY();
    if (!params)
        return remember(INVALID_VALUE);
    struct graph_node_params p = driver_node(params);
    error_t_ error = driver.cuGraphAddNode_v2(out, graph, deps, (void *)NULL, count, &p);
    return remember(error);
}
API(cudaGraphNodeSetParams, (void *node, const struct graph_node_params *params), {
    READY();
    struct graph_node_params p = driver_node(params);
    CALL(cuGraphNodeSetParams, node, &p);
})
API(cudaGraphExecNodeSetParams, (void *exec, void *node, const struct graph_node_params *params), {
    READY();
    struct graph_node_params p = driver_node(params);
    CALL(cuGraphExecNodeSetParams, exec, node, &p);
})
API(cudaGraphExecChildGraphNodeSetParams, (void *exec, void *node, void *child),
    { CALL(cuGraphExecChildGraphNodeSetParams, exec, node, child); })
API(cudaGraphAddNode, (void **out, void *graph, void **deps CONST_EDGES, size_t count, const struct graph_node_params *p),
    { return add_node(out, graph, deps, count, p); })
#if SIMGPU_CUDA == 12
API(cudaGraphAddNode_v2,
    (void **out, void *graph, void **deps, const void *edges, size_t count, const struct graph_node_params *p),
    { return add_node(out, graph, deps, count, p); })
#endif
