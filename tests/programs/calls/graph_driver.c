// Graphs by the driver: captured and built by hand, cloned, changed, replayed. In: a thread's state. Out: replays,
// each with its nodes. Absent: conditional nodes, memory nodes.
#define GROUP "graph"
#include "calls.h"

enum { RELAXED = 2 };
enum { HOST = 1, DEVICE };
static const struct dim3 grid = {7, 2, 3}, block = {8, 4, 5};
#define LAUNCH(name, function, stream)                                                                         \
    DRV(name, function, 7u, 2u, 3u, 8u, 4u, 5u, 96u, stream, (void **)NULL, (void **)NULL)

static void replay(struct state *s, void *exec, const struct nodes *nodes, int times) {
    for (int i = 0; i < times; i++)
        replayed(DRV(cuGraphLaunch, exec, s->stream), nodes);
}
static void destroy(void *exec, void *graph) {
    DRV(cuGraphExecDestroy, exec);
    DRV(cuGraphDestroy, graph);
}
static void run(struct state *s, void *graph, const struct nodes *nodes, int times) {
    void *exec = NULL;
    DRV(cuGraphInstantiateWithFlags, &exec, graph, 0ull);
    replay(s, exec, nodes, times);
    destroy(exec, graph);
}

#define BEFORE(name) launched_unknown_graph(DRV(name, s->exec, s->stream))
PAIR(cuGraphLaunch, _ptsz, BEFORE, need_graph)

// Every kind of node that a stream can record.
#define CAPTURE(suffix)                                                                                        \
    static const struct nodes nodes = {.kernels = 2, .sets = 2, .hosts = 1, .copies = {1, 1, 1},               \
                                       .set_bytes = 901 + 4 * 11 * 3, .copy_bytes = {903, 905, 907}};          \
    struct driver_launch_config config = {{7, 2, 3}, {8, 4, 5}, 96, s->stream, NULL, 0};                       \
    void *graph = NULL;                                                                                        \
    DRV(cuStreamBeginCapture_v2##suffix, s->stream, RELAXED);                                                  \
    captured(LAUNCH(cuLaunchKernel##suffix, s->function, s->stream));                                          \
    DRV(cuMemcpyHtoDAsync_v2##suffix, s->device, s->pinned, (size_t)903, s->stream);                           \
    captured(DRV(cuLaunchKernelEx##suffix, &config, s->other_function, (void **)NULL, (void **)NULL));         \
    DRV(cuMemcpyDtoHAsync_v2##suffix, s->pinned, s->device, (size_t)905, s->stream);                           \
    DRV(cuMemcpyDtoDAsync_v2##suffix, s->device2, s->device, (size_t)907, s->stream);                          \
    DRV(cuMemsetD8Async##suffix, s->device, 1u, (size_t)901, s->stream);                                       \
    DRV(cuMemsetD2D32Async##suffix, s->device, (size_t)64, 1u, (size_t)11, (size_t)3, s->stream);              \
    DRV(cuLaunchHostFunc##suffix, s->stream, do_nothing, (void *)NULL);                                        \
    DRV(cuStreamEndCapture##suffix, s->stream, &graph);                                                        \
    run(s, graph, &nodes, 3)
CALL_AS(capture, "cuStreamBeginCapture_v2", need_function) { CAPTURE(); }
CALL_AS(capture_ptsz, "cuStreamBeginCapture_v2_ptsz", need_function) { CAPTURE(_ptsz); }

// A second stream joins by an event, and comes back by another.
CALL_AS(across, "cuStreamBeginCapture_v2:across-streams", need_stream2) {
    static const struct nodes nodes = {.kernels = 2, .sets = 1, .set_bytes = 911};
    void *graph = NULL;
    DRV(cuStreamBeginCapture_v2, s->stream, RELAXED);
    captured(LAUNCH(cuLaunchKernel, s->function, s->stream));
    DRV(cuEventRecord, s->event, s->stream);
    DRV(cuStreamWaitEvent, s->stream2, s->event, 0u);
    captured(LAUNCH(cuLaunchKernel, s->function, s->stream2));
    DRV(cuMemsetD8Async, s->device, 1u, (size_t)911, s->stream2);
    DRV(cuEventRecordWithFlags, s->event2, s->stream2, 0u);
    DRV(cuStreamWaitEvent, s->stream, s->event2, 0u);
    DRV(cuStreamEndCapture, s->stream, &graph);
    run(s, graph, &nodes, 2);
    launched(LAUNCH(cuLaunchKernel, s->function, s->stream2), 1);
    DRV(cuEventRecord, s->event, s->stream);
    DRV(cuEventRecord, s->event2, s->stream);
}

static struct kernel_node_v2 kernel_node(void *function) {
    return (struct kernel_node_v2){.base = {function, grid, block, 0, NULL, NULL}};
}
static struct set_node set_node(struct state *s, size_t bytes) {
    return (struct set_node){.dst = s->device, .element = 1, .value = 1, .width = bytes, .height = 1};
}
static struct driver_copy_3d copy_node(struct state *s, size_t bytes) {
    return (struct driver_copy_3d){.dst_type = DEVICE, .dst_device = s->device, .src_type = HOST, .src_host = s->pinned,
                                   .width = bytes, .height = 1, .depth = 1};
}
#define AFTER(node) &node, graph, &last, (size_t)1
#define FIRST(node) &node, graph, (void *)NULL, (size_t)0

static void *add_kernel(void *graph, void *function) {
    struct kernel_node_v2 params = kernel_node(function);
    void *node = NULL;
    DRV(cuGraphAddKernelNode_v2, FIRST(node), &params);
    return node;
}
#define TO_GRAPH(suffix)                                                                                       \
    static const struct nodes nodes = {.kernels = 2};                                                          \
    void *graph = NULL;                                                                                        \
    DRV(cuGraphCreate, &graph, 0u);                                                                            \
    void *last = add_kernel(graph, s->function);                                                               \
    DRV(cuStreamBeginCaptureToGraph##suffix, s->stream, graph, &last, (void *)NULL, (size_t)1, RELAXED);        \
    captured(LAUNCH(cuLaunchKernel##suffix, s->function, s->stream));                                          \
    DRV(cuStreamEndCapture##suffix, s->stream, &graph);                                                        \
    run(s, graph, &nodes, 2)
CALL_AS(to_graph, "cuStreamBeginCaptureToGraph", NULL) { TO_GRAPH(); }
CALL_AS(to_graph_ptsz, "cuStreamBeginCaptureToGraph_ptsz", NULL) { TO_GRAPH(_ptsz); }

// Every kind of node by its own call.
CALL_AS(by_hand, "cuGraphCreate", NULL) {
    static const struct nodes nodes = {.kernels = 2, .sets = 1, .hosts = 1, .copies = {1}, .set_bytes = 921,
                                       .copy_bytes = {923}};
    struct kernel_node_v2 kernel = kernel_node(s->function);
    struct set_node set = set_node(s, 921);
    struct driver_copy_3d copy = copy_node(s, 923);
    struct host_node host = {do_nothing, NULL};
    void *graph = NULL, *node = NULL;
    DRV(cuGraphCreate, &graph, 0u);
    void *last = add_kernel(graph, s->function);
    DRV(cuGraphAddKernelNode, AFTER(node), &kernel.base);
    DRV(cuGraphAddMemcpyNode, AFTER(node), &copy, s->context);
    DRV(cuGraphAddMemsetNode, AFTER(node), &set, s->context);
    DRV(cuGraphAddHostNode, AFTER(node), &host);
    DRV(cuGraphAddEmptyNode, AFTER(node));
    DRV(cuGraphAddEventRecordNode, AFTER(node), s->event2);
    DRV(cuGraphAddEventWaitNode, AFTER(node), s->event2);
    run(s, graph, &nodes, 2);
}
// The one call for every kind of node, without and with edges.
CALL(cuGraphAddNode) {
    static const struct nodes nodes = {.kernels = 2, .sets = 1, .copies = {1}, .set_bytes = 931, .copy_bytes = {933}};
    struct any_node kernel = {.type = 0, .kernel = kernel_node(s->function)};
    struct any_node copy = {.type = 1, .driver_copy = {.copy = copy_node(s, 933)}};
    struct any_node set = {.type = 2, .set = set_node(s, 931)};
    void *graph = NULL, *node = NULL;
    DRV(cuGraphCreate, &graph, 0u);
    DRV(cuGraphAddNode, FIRST(node), &kernel);
    DRV(cuGraphAddNode_v2, &node, graph, (void *)NULL, (void *)NULL, (size_t)0, &kernel);
    DRV(cuGraphAddNode_v2, &node, graph, (void *)NULL, (void *)NULL, (size_t)0, &copy);
    DRV(cuGraphAddNode_v2, &node, graph, (void *)NULL, (void *)NULL, (size_t)0, &set);
    run(s, graph, &nodes, 2);
}

// A graph of one kernel, one set and one copy, with its nodes.
struct small {
    void *graph, *kernel, *set, *copy;
};
static struct small small(struct state *s, void *function, size_t bytes) {
    struct small made = {0};
    struct set_node set = set_node(s, bytes);
    struct driver_copy_3d copy = copy_node(s, bytes + 1);
    DRV(cuGraphCreate, &made.graph, 0u);
    made.kernel = add_kernel(made.graph, function);
    DRV(cuGraphAddMemsetNode, &made.set, made.graph, &made.kernel, (size_t)1, &set, s->context);
    DRV(cuGraphAddMemcpyNode, &made.copy, made.graph, &made.set, (size_t)1, &copy, s->context);
    return made;
}
#define SMALL_NODES(set, copy)                                                                                 \
    {.kernels = 1, .sets = 1, .copies = {1}, .set_bytes = set, .copy_bytes = {copy}}

CALL_AS(children, "cuGraphAddChildGraphNode", NULL) {
    static const struct nodes nodes = {.kernels = 2, .sets = 1, .copies = {1}, .set_bytes = 937, .copy_bytes = {938}};
    struct small child = small(s, s->function, 937);
    void *graph = NULL, *node = NULL;
    DRV(cuGraphCreate, &graph, 0u);
    void *last = add_kernel(graph, s->function);
    DRV(cuGraphAddChildGraphNode, AFTER(node), child.graph);
    DRV(cuGraphDestroy, child.graph);
    run(s, graph, &nodes, 2);
}
CALL_AS(cloned, "cuGraphClone", NULL) {
    static const struct nodes nodes = SMALL_NODES(939, 940);
    struct small original = small(s, s->function, 939);
    void *clone = NULL;
    DRV(cuGraphClone, &clone, original.graph);
    DRV(cuGraphDestroy, original.graph);
    run(s, clone, &nodes, 2);
}
// Nodes changed before the graph is made executable: another kernel, and other sizes.
CALL_AS(changed, "cuGraphKernelNodeSetParams_v2", need_function) {
    static const struct nodes nodes = SMALL_NODES(943, 944);
    struct small made = small(s, s->function, 943);
    struct kernel_node_v2 kernel = kernel_node(s->other_function);
    DRV(cuGraphKernelNodeSetParams_v2, made.kernel, &kernel);
    run(s, made.graph, &nodes, 2);
}
CALL_AS(sizes_changed, "cuGraphMemcpyNodeSetParams", NULL) {
    static const struct nodes nodes = SMALL_NODES(945, 947);
    struct small made = small(s, s->function, 943);
    struct set_node set = set_node(s, 945);
    struct driver_copy_3d copy = copy_node(s, 947);
    DRV(cuGraphMemsetNodeSetParams, made.set, &set);
    DRV(cuGraphMemcpyNodeSetParams, made.copy, &copy);
    run(s, made.graph, &nodes, 2);
}
// Nodes changed in the executable.
CALL_AS(exec_changed, "cuGraphExecKernelNodeSetParams_v2", need_function) {
    static const struct nodes nodes = SMALL_NODES(949, 950);
    struct small made = small(s, s->function, 949);
    struct kernel_node_v2 kernel = kernel_node(s->other_function);
    void *exec = NULL;
    DRV(cuGraphInstantiateWithFlags, &exec, made.graph, 0ull);
    replay(s, exec, &nodes, 1);
    DRV(cuGraphExecKernelNodeSetParams_v2, exec, made.kernel, &kernel);
    replay(s, exec, &nodes, 2);
    destroy(exec, made.graph);
}
CALL_AS(exec_sizes_changed, "cuGraphExecMemcpyNodeSetParams", NULL) {
    static const struct nodes before = SMALL_NODES(949, 950), after = SMALL_NODES(951, 953);
    struct small made = small(s, s->function, 949);
    struct set_node set = set_node(s, 951);
    struct driver_copy_3d copy = copy_node(s, 953);
    void *exec = NULL;
    DRV(cuGraphInstantiateWithFlags, &exec, made.graph, 0ull);
    replay(s, exec, &before, 1);
    DRV(cuGraphExecMemsetNodeSetParams, exec, made.set, &set, s->context);
    DRV(cuGraphExecMemcpyNodeSetParams, exec, made.copy, &copy, s->context);
    replay(s, exec, &after, 2);
    destroy(exec, made.graph);
}
// The forms of before CUDA 12, whose structure ends before the kernel.
CALL_AS(older, "cuGraphInstantiate", need_function) {
    static const struct nodes before = SMALL_NODES(971, 972), after = SMALL_NODES(973, 974);
    struct small first = small(s, s->function, 971), second = small(s, s->function, 973);
    struct kernel_node_v2 kernel = kernel_node(s->other_function);
    struct host_node host = {do_nothing, NULL};
    void *exec = NULL, *graph = first.graph, *node = NULL, *error = NULL;
    int result = 0;
    DRV(cuGraphKernelNodeSetParams, first.kernel, &kernel.base);
    DRV(cuGraphInstantiate, &exec, graph, (void *)NULL, (char *)NULL, (size_t)0);
    replay(s, exec, &before, 1);
    DRV(cuGraphExecUpdate, exec, second.graph, &error, &result);
    DRV(cuGraphExecKernelNodeSetParams, exec, first.kernel, &kernel.base);
    replay(s, exec, &after, 1);
    DRV(cuGraphDestroy, second.graph);
    destroy(exec, graph);

    static const struct nodes hosts = {.hosts = 1};
    DRV(cuGraphCreate, &graph, 0u);
    DRV(cuGraphAddHostNode, FIRST(node), &host);
    DRV(cuGraphInstantiate_v2, &exec, graph, (void *)NULL, (char *)NULL, (size_t)0);
    DRV(cuGraphExecHostNodeSetParams, exec, node, &host);
    replay(s, exec, &hosts, 1);
    destroy(exec, graph);
}
#define OLDER_CAPTURE(name, end)                                                                               \
    static const struct nodes nodes = {.kernels = 1};                                                          \
    void *graph = NULL;                                                                                        \
    DRV(name, s->stream);                                                                                      \
    captured(LAUNCH(cuLaunchKernel, s->function, s->stream));                                                  \
    DRV(end, s->stream, &graph);                                                                               \
    run(s, graph, &nodes, 1)
CALL(cuStreamBeginCapture) { OLDER_CAPTURE(cuStreamBeginCapture, cuStreamEndCapture); }
CALL(cuStreamBeginCapture_ptsz) { OLDER_CAPTURE(cuStreamBeginCapture_ptsz, cuStreamEndCapture_ptsz); }
CALL_AS(any_changed, "cuGraphExecNodeSetParams", NULL) {
    static const struct nodes before = SMALL_NODES(967, 966), after = SMALL_NODES(969, 966);
    struct small made = small(s, s->function, 965);
    struct any_node first = {.type = 2, .set = set_node(s, 967)}, then = {.type = 2, .set = set_node(s, 969)};
    void *exec = NULL;
    DRV(cuGraphNodeSetParams, made.set, &first);
    DRV(cuGraphInstantiateWithFlags, &exec, made.graph, 0ull);
    replay(s, exec, &before, 1);
    DRV(cuGraphExecNodeSetParams, exec, made.set, &then);
    replay(s, exec, &after, 1);
    destroy(exec, made.graph);
}
// An executable that takes over another graph of the same shape.
CALL_AS(updated, "cuGraphExecUpdate_v2", need_function) {
    static const struct nodes before = SMALL_NODES(957, 958), after = SMALL_NODES(959, 960);
    struct small first = small(s, s->function, 957), second = small(s, s->other_function, 959);
    struct update_result result;
    void *exec = NULL;
    DRV(cuGraphInstantiate_v2, &exec, first.graph, (void *)NULL, (char *)NULL, (size_t)0);
    replay(s, exec, &before, 1);
    DRV(cuGraphExecUpdate_v2, exec, second.graph, &result);
    replay(s, exec, &after, 2);
    DRV(cuGraphDestroy, second.graph);
    destroy(exec, first.graph);
}
#define WITH_PARAMS(suffix)                                                                                    \
    static const struct nodes nodes = SMALL_NODES(963, 964);                                                   \
    struct small made = small(s, s->function, 963);                                                            \
    struct instantiate_params params = {0};                                                                    \
    void *exec = NULL;                                                                                         \
    DRV(cuGraphInstantiateWithParams##suffix, &exec, made.graph, &params);                                     \
    DRV(cuGraphUpload##suffix, exec, s->stream);                                                               \
    replayed(DRV(cuGraphLaunch##suffix, exec, s->stream), &nodes);                                             \
    destroy(exec, made.graph)
CALL_AS(with_params, "cuGraphInstantiateWithParams", NULL) { WITH_PARAMS(); }
CALL_AS(with_params_ptsz, "cuGraphInstantiateWithParams_ptsz", NULL) { WITH_PARAMS(_ptsz); }
