// Graphs by the runtime: captured and built by hand, cloned, changed, replayed. In: a thread's state. Out: replays,
// each with its nodes. Absent: conditional nodes, memory nodes.
#define GROUP "graph"
#include "calls.h"

enum { HOST_DEVICE = 1, DEVICE_HOST, DEVICE_DEVICE };
enum { RELAXED = 2 };
static const struct dim3 grid = {7, 2, 3}, block = {8, 4, 5};
#define LAUNCH(name, kernel, stream) RT(name, (void *)kernel, grid, block, (void **)NULL, (size_t)96, stream)

// Where a capture did not begin, its work was asked for as usual.
static void node_kernel(int begun, int result) {
    if (begun == 0)
        captured(result);
    else
        launched(result, 1);
}
static void node_copy(int begun, int result, enum direction direction, size_t bytes) {
    if (begun != 0)
        copied(result, direction, bytes);
}
static void node_set(int begun, int result, size_t bytes) {
    if (begun != 0)
        was_set(result, bytes);
}
static void node_host(int begun, int result) {
    if (begun != 0)
        host_function(result);
}

static void replay(struct state *s, void *exec, const struct nodes *nodes, int times) {
    for (int i = 0; i < times; i++)
        replayed(RT(cudaGraphLaunch, exec, s->stream), nodes);
}
static void destroy(void *exec, void *graph) {
    RT(cudaGraphExecDestroy, exec);
    RT(cudaGraphDestroy, graph);
}
static void run(struct state *s, void *graph, const struct nodes *nodes, int times) {
    void *exec = NULL;
    RT(cudaGraphInstantiate, &exec, graph, 0ull);
    replay(s, exec, nodes, times);
    destroy(exec, graph);
}

// A graph from before the wait: nobody who came since knows its nodes.
#define BEFORE(name) launched_unknown_graph(RT(name, s->exec, s->stream))
PAIR(cudaGraphLaunch, _ptsz, BEFORE, need_graph)

// Every kind of node that a stream can record.
#define CAPTURE(suffix)                                                                                        \
    static const struct nodes nodes = {.kernels = 3, .sets = 2, .hosts = 1, .copies = {1, 1, 1},               \
                                       .set_bytes = 801 + 40 * 3, .copy_bytes = {803, 805, 40 * 3}};           \
    void *graph = NULL;                                                                                        \
    int begun = RT(cudaStreamBeginCapture##suffix, s->stream, RELAXED);                                        \
    node_kernel(begun, LAUNCH(cudaLaunchKernel##suffix, calls_kernel, s->stream));                             \
    node_copy(begun, RT(cudaMemcpyAsync##suffix, s->device, s->pinned, (size_t)803, HOST_DEVICE, s->stream), H_TO_D, 803); \
    node_kernel(begun, LAUNCH(cudaLaunchCooperativeKernel##suffix, calls_other_kernel, s->stream));            \
    node_copy(begun, RT(cudaMemcpyAsync##suffix, s->pinned, s->device, (size_t)805, DEVICE_HOST, s->stream), D_TO_H, 805); \
    node_copy(begun, RT(cudaMemcpy2DAsync##suffix, s->device2, (size_t)64, s->device, (size_t)64, (size_t)40, (size_t)3, \
                        DEVICE_DEVICE, s->stream), D_TO_D, 40 * 3);                                            \
    node_set(begun, RT(cudaMemsetAsync##suffix, s->device, 1, (size_t)801, s->stream), 801);                   \
    node_set(begun, RT(cudaMemset2DAsync##suffix, s->device, (size_t)64, 1, (size_t)40, (size_t)3, s->stream), 40 * 3); \
    node_host(begun, RT(cudaLaunchHostFunc##suffix, s->stream, do_nothing, (void *)NULL));                     \
    node_kernel(begun, LAUNCH(cudaLaunchKernel##suffix, calls_kernel, s->stream));                             \
    RT(cudaStreamEndCapture##suffix, s->stream, &graph);                                                       \
    run(s, graph, &nodes, 3)
CALL_AS(capture, "cudaStreamBeginCapture", NULL) { CAPTURE(); }
CALL_AS(capture_ptsz, "cudaStreamBeginCapture_ptsz", NULL) { CAPTURE(_ptsz); }

// A second stream joins by an event, and comes back by another.
CALL_AS(across, "cudaStreamBeginCapture:across-streams", need_stream2) {
    static const struct nodes nodes = {.kernels = 3, .sets = 1, .set_bytes = 811};
    void *graph = NULL;
    int begun = RT(cudaStreamBeginCapture, s->stream, RELAXED);
    node_kernel(begun, LAUNCH(cudaLaunchKernel, calls_kernel, s->stream));
    RT(cudaEventRecord, s->event, s->stream);
    RT(cudaStreamWaitEvent, s->stream2, s->event, 0u);
    node_kernel(begun, LAUNCH(cudaLaunchKernel, calls_other_kernel, s->stream2));
    node_set(begun, RT(cudaMemsetAsync, s->device, 1, (size_t)811, s->stream2), 811);
    RT(cudaEventRecord, s->event2, s->stream2);
    RT(cudaStreamWaitEvent, s->stream, s->event2, 0u);
    node_kernel(begun, LAUNCH(cudaLaunchKernel, calls_kernel, s->stream));
    RT(cudaStreamEndCapture, s->stream, &graph);
    run(s, graph, &nodes, 2);
    // The second stream runs again, and so does the first.
    launched(LAUNCH(cudaLaunchKernel, calls_kernel, s->stream2), 1);
    launched(LAUNCH(cudaLaunchKernel, calls_kernel, s->stream), 1);
    RT(cudaEventRecord, s->event, s->stream);
    RT(cudaEventRecord, s->event2, s->stream);
}
// A capture that its second stream never came back to: there is no graph, and nothing has run.
CALL_AS(unjoined, "cudaStreamBeginCapture:unjoined", need_stream2) {
    void *graph = NULL;
    int begun = RT(cudaStreamBeginCapture, s->stream, RELAXED);
    RT(cudaEventRecord, s->event, s->stream);
    RT(cudaStreamWaitEvent, s->stream2, s->event, 0u);
    node_kernel(begun, LAUNCH(cudaLaunchKernel, calls_kernel, s->stream2));
    RT(cudaStreamEndCapture, s->stream, &graph);
    RT(cudaEventRecord, s->event, s->stream);
    launched(LAUNCH(cudaLaunchKernel, calls_kernel, s->stream2), 1);
}

static struct kernel_node kernel_node(const void *stub) { return (struct kernel_node){stub, grid, block, 0, NULL, NULL}; }
static struct set_node set_node(struct state *s, size_t bytes) {
    return (struct set_node){.dst = s->device, .element = 1, .value = 1, .width = bytes, .height = 1};
}
static struct pitched row(void *at, size_t bytes) { return (struct pitched){at, bytes, bytes, 1}; }
static struct copy_3d copy_node(void *dst, void *src, size_t bytes, int kind) {
    return (struct copy_3d){.dst = row(dst, bytes), .src = row(src, bytes), .extent = {bytes, 1, 1}, .kind = kind};
}
// A node after one other.
#define AFTER(node) &node, graph, &last, (size_t)1
#define FIRST(node) &node, graph, (void *)NULL, (size_t)0

static void *add_kernel(void *graph, const void *stub) {
    struct kernel_node params = kernel_node(stub);
    void *node = NULL;
    RT(cudaGraphAddKernelNode, FIRST(node), &params);
    return node;
}

// A graph that has a node before the capture into it.
#define TO_GRAPH(suffix)                                                                                       \
    static const struct nodes nodes = {.kernels = 2};                                                          \
    void *graph = NULL;                                                                                        \
    RT(cudaGraphCreate, &graph, 0u);                                                                           \
    void *last = add_kernel(graph, (void *)calls_kernel);                                                      \
    int begun = RT(cudaStreamBeginCaptureToGraph##suffix, s->stream, graph, &last, (void *)NULL, (size_t)1, RELAXED); \
    node_kernel(begun, LAUNCH(cudaLaunchKernel##suffix, calls_other_kernel, s->stream));                       \
    RT(cudaStreamEndCapture##suffix, s->stream, &graph);                                                       \
    run(s, graph, &nodes, 2)
CALL_AS(to_graph, "cudaStreamBeginCaptureToGraph", NULL) { TO_GRAPH(); }
CALL_AS(to_graph_ptsz, "cudaStreamBeginCaptureToGraph_ptsz", NULL) { TO_GRAPH(_ptsz); }

// Every kind of node by its own call.
CALL_AS(by_hand, "cudaGraphCreate", NULL) {
    static const struct nodes nodes = {.kernels = 1, .sets = 1, .hosts = 1, .copies = {1, 1}, .set_bytes = 821,
                                       .copy_bytes = {823, 825}};
    struct set_node set = set_node(s, 821);
    struct copy_3d copy = copy_node(s->device, s->pinned, 823, HOST_DEVICE);
    struct host_node host = {do_nothing, NULL};
    void *graph = NULL, *node = NULL;
    RT(cudaGraphCreate, &graph, 0u);
    void *last = add_kernel(graph, (void *)calls_kernel);
    RT(cudaGraphAddMemcpyNode, AFTER(node), &copy);
    RT(cudaGraphAddMemcpyNode1D, AFTER(node), s->pinned, s->device, (size_t)825, DEVICE_HOST);
    RT(cudaGraphAddMemsetNode, AFTER(node), &set);
    RT(cudaGraphAddHostNode, AFTER(node), &host);
    RT(cudaGraphAddEmptyNode, AFTER(node));
    RT(cudaGraphAddEventRecordNode, AFTER(node), s->event2);
    RT(cudaGraphAddEventWaitNode, AFTER(node), s->event2);
    run(s, graph, &nodes, 2);
}
CALL_AS(with_variable, "cudaGraphAddMemcpyNodeToSymbol", need_variable) {
    static const struct nodes nodes = {.copies = {1, 1}, .copy_bytes = {827, 829}};
    void *graph = NULL, *node = NULL;
    RT(cudaGraphCreate, &graph, 0u);
    int to = RT(cudaGraphAddMemcpyNodeToSymbol, FIRST(node), calls_variable, s->pinned, (size_t)827, (size_t)0, HOST_DEVICE);
    RT(cudaGraphAddMemcpyNodeFromSymbol, FIRST(node), s->pinned, calls_variable, (size_t)829, (size_t)0, DEVICE_HOST);
    if (to != MISSING)
        run(s, graph, &nodes, 2);
}
// The one call for every kind of node. In 13 it has an argument for edges.
static void add_node(void *graph, struct any_node *params) {
    void *node = NULL;
    if (runtime_major() < 13 && params->type == 0)
        RT(cudaGraphAddNode, &node, graph, (void *)NULL, (size_t)0, params);
    else if (runtime_major() < 13)
        RT(cudaGraphAddNode_v2, &node, graph, (void *)NULL, (void *)NULL, (size_t)0, params);
    else
        RT(cudaGraphAddNode, &node, graph, (void *)NULL, (void *)NULL, (size_t)0, params);
}
CALL(cudaGraphAddNode) {
    static const struct nodes nodes = {.kernels = 1, .sets = 1, .copies = {[D_TO_D] = 1}, .set_bytes = 831,
                                       .copy_bytes = {[D_TO_D] = 833}};
    void *graph = NULL;
    RT(cudaGraphCreate, &graph, 0u);
    add_node(graph, &(struct any_node){.type = 0, .kernel = {.base = kernel_node((void *)calls_kernel)}});
    add_node(graph, &(struct any_node){.type = 1, .copy = {.copy = copy_node(s->device2, s->device, 833, DEVICE_DEVICE)}});
    add_node(graph, &(struct any_node){.type = 2, .set = set_node(s, 831)});
    run(s, graph, &nodes, 2);
}

// A graph of one kernel and one set, with its nodes.
struct small {
    void *graph, *kernel, *set, *copy;
};
static struct small small(struct state *s, const void *stub, size_t bytes) {
    struct small made = {0};
    struct set_node set = set_node(s, bytes);
    RT(cudaGraphCreate, &made.graph, 0u);
    made.kernel = add_kernel(made.graph, stub);
    RT(cudaGraphAddMemsetNode, &made.set, made.graph, &made.kernel, (size_t)1, &set);
    RT(cudaGraphAddMemcpyNode1D, &made.copy, made.graph, &made.set, (size_t)1, s->device, s->pinned, bytes + 1, HOST_DEVICE);
    return made;
}
#define SMALL_NODES(set, copy)                                                                                 \
    {.kernels = 1, .sets = 1, .copies = {1}, .set_bytes = set, .copy_bytes = {copy}}

CALL_AS(children, "cudaGraphAddChildGraphNode", NULL) {
    static const struct nodes nodes = {.kernels = 3, .sets = 2, .copies = {2}, .set_bytes = 2 * 837, .copy_bytes = {2 * 838}};
    struct small child = small(s, (void *)calls_other_kernel, 837);
    void *graph = NULL, *node = NULL;
    RT(cudaGraphCreate, &graph, 0u);
    void *last = add_kernel(graph, (void *)calls_kernel);
    RT(cudaGraphAddChildGraphNode, AFTER(node), child.graph);
    RT(cudaGraphAddChildGraphNode, AFTER(node), child.graph);
    RT(cudaGraphDestroy, child.graph); // the nodes hold copies of it
    run(s, graph, &nodes, 2);
}
CALL_AS(cloned, "cudaGraphClone", NULL) {
    static const struct nodes nodes = SMALL_NODES(839, 840);
    struct small original = small(s, (void *)calls_kernel, 839);
    void *clone = NULL, *node = NULL;
    RT(cudaGraphClone, &clone, original.graph);
    RT(cudaGraphNodeFindInClone, &node, original.kernel, clone);
    RT(cudaGraphDestroy, original.graph);
    run(s, clone, &nodes, 2);
}
CALL_AS(removed, "cudaGraphDestroyNode", NULL) {
    static const struct nodes nodes = {.sets = 1, .copies = {1}, .set_bytes = 841, .copy_bytes = {842}};
    struct small made = small(s, (void *)calls_kernel, 841);
    RT(cudaGraphDestroyNode, made.kernel);
    run(s, made.graph, &nodes, 2);
}
CALL_AS(removed_copy, "cudaGraphDestroyNode:copy", NULL) {
    static const struct nodes nodes = {.kernels = 1, .sets = 1, .set_bytes = 841};
    struct small made = small(s, (void *)calls_kernel, 841);
    RT(cudaGraphDestroyNode, made.copy);
    run(s, made.graph, &nodes, 2);
}
// Nodes changed before the graph is made executable: another kernel, and other sizes.
CALL_AS(changed, "cudaGraphKernelNodeSetParams", NULL) {
    static const struct nodes nodes = SMALL_NODES(843, 844);
    struct small made = small(s, (void *)calls_kernel, 843);
    struct kernel_node kernel = kernel_node((void *)calls_other_kernel);
    RT(cudaGraphKernelNodeSetParams, made.kernel, &kernel);
    run(s, made.graph, &nodes, 2);
}
CALL_AS(sizes_changed, "cudaGraphMemcpyNodeSetParams", NULL) {
    static const struct nodes nodes = SMALL_NODES(845, 847);
    struct small made = small(s, (void *)calls_kernel, 843);
    struct set_node set = set_node(s, 845);
    struct copy_3d copy = copy_node(s->device, s->pinned, 846, HOST_DEVICE);
    RT(cudaGraphMemsetNodeSetParams, made.set, &set);
    RT(cudaGraphMemcpyNodeSetParams, made.copy, &copy);
    RT(cudaGraphMemcpyNodeSetParams1D, made.copy, s->device, s->pinned, (size_t)847, HOST_DEVICE);
    run(s, made.graph, &nodes, 2);
}
// Nodes changed in the executable.
CALL_AS(exec_changed, "cudaGraphExecKernelNodeSetParams", NULL) {
    static const struct nodes nodes = SMALL_NODES(849, 850);
    struct small made = small(s, (void *)calls_kernel, 849);
    struct kernel_node kernel = kernel_node((void *)calls_other_kernel);
    void *exec = NULL;
    RT(cudaGraphInstantiate, &exec, made.graph, 0ull);
    replay(s, exec, &nodes, 1);
    RT(cudaGraphExecKernelNodeSetParams, exec, made.kernel, &kernel);
    replay(s, exec, &nodes, 2);
    destroy(exec, made.graph);
}
CALL_AS(exec_sizes_changed, "cudaGraphExecMemcpyNodeSetParams", NULL) {
    static const struct nodes before = SMALL_NODES(849, 850), after = SMALL_NODES(851, 853), last = SMALL_NODES(851, 854);
    struct small made = small(s, (void *)calls_kernel, 849);
    struct set_node set = set_node(s, 851);
    struct copy_3d copy = copy_node(s->device, s->pinned, 854, HOST_DEVICE);
    void *exec = NULL;
    RT(cudaGraphInstantiate, &exec, made.graph, 0ull);
    replay(s, exec, &before, 1);
    RT(cudaGraphExecMemsetNodeSetParams, exec, made.set, &set);
    RT(cudaGraphExecMemcpyNodeSetParams1D, exec, made.copy, s->device, s->pinned, (size_t)853, HOST_DEVICE);
    replay(s, exec, &after, 2);
    RT(cudaGraphExecMemcpyNodeSetParams, exec, made.copy, &copy);
    replay(s, exec, &last, 1);
    destroy(exec, made.graph);
}
// The same by the one call for every kind of node, before and after the graph is made executable.
CALL_AS(any_changed, "cudaGraphExecNodeSetParams", NULL) {
    static const struct nodes before = SMALL_NODES(867, 866), after = SMALL_NODES(869, 866);
    struct small made = small(s, (void *)calls_kernel, 865);
    struct any_node first = {.type = 2, .set = set_node(s, 867)}, then = {.type = 2, .set = set_node(s, 869)};
    struct any_node kernel = {.type = 0, .kernel = {.base = kernel_node((void *)calls_other_kernel)}};
    void *exec = NULL;
    RT(cudaGraphNodeSetParams, made.set, &first);
    RT(cudaGraphInstantiate, &exec, made.graph, 0ull);
    replay(s, exec, &before, 1);
    RT(cudaGraphExecNodeSetParams, exec, made.set, &then);
    RT(cudaGraphExecNodeSetParams, exec, made.kernel, &kernel);
    replay(s, exec, &after, 1);
    destroy(exec, made.graph);
}
// The whole of a child replaced by another graph of its shape.
CALL_AS(child_changed, "cudaGraphExecChildGraphNodeSetParams", NULL) {
    static const struct nodes before = {.kernels = 2, .sets = 1, .copies = {1}, .set_bytes = 871, .copy_bytes = {872}};
    static const struct nodes after = {.kernels = 2, .sets = 1, .copies = {1}, .set_bytes = 873, .copy_bytes = {874}};
    struct small first = small(s, (void *)calls_kernel, 871), second = small(s, (void *)calls_other_kernel, 873);
    void *graph = NULL, *node = NULL, *exec = NULL;
    RT(cudaGraphCreate, &graph, 0u);
    void *last = add_kernel(graph, (void *)calls_kernel);
    RT(cudaGraphAddChildGraphNode, AFTER(node), first.graph);
    RT(cudaGraphInstantiate, &exec, graph, 0ull);
    replay(s, exec, &before, 1);
    RT(cudaGraphExecChildGraphNodeSetParams, exec, node, second.graph);
    replay(s, exec, &after, 1);
    RT(cudaGraphDestroy, first.graph);
    RT(cudaGraphDestroy, second.graph);
    destroy(exec, graph);
}
CALL_AS(disabled, "cudaGraphNodeSetEnabled", NULL) {
    static const struct nodes all = SMALL_NODES(855, 856), without = {.sets = 1, .copies = {1}, .set_bytes = 855, .copy_bytes = {856}};
    struct small made = small(s, (void *)calls_kernel, 855);
    void *exec = NULL;
    RT(cudaGraphInstantiate, &exec, made.graph, 0ull);
    RT(cudaGraphNodeSetEnabled, exec, made.kernel, 0u);
    replay(s, exec, &without, 1);
    RT(cudaGraphNodeSetEnabled, exec, made.kernel, 1u);
    replay(s, exec, &all, 1);
    destroy(exec, made.graph);
}
// An executable that takes over another graph of the same shape.
CALL_AS(updated, "cudaGraphExecUpdate", NULL) {
    static const struct nodes before = SMALL_NODES(857, 858), after = SMALL_NODES(859, 860);
    struct small first = small(s, (void *)calls_kernel, 857), second = small(s, (void *)calls_other_kernel, 859);
    struct update_result result;
    void *exec = NULL;
    RT(cudaGraphInstantiate, &exec, first.graph, 0ull);
    replay(s, exec, &before, 1);
    RT(cudaGraphExecUpdate, exec, second.graph, &result);
    replay(s, exec, &after, 2);
    RT(cudaGraphDestroy, second.graph);
    destroy(exec, first.graph);
}
CALL(cudaGraphExecHostNodeSetParams) {
    static const struct nodes nodes = {.hosts = 1};
    struct host_node host = {do_nothing, NULL}, other = {do_nothing, s};
    void *graph = NULL, *node = NULL, *exec = NULL;
    RT(cudaGraphCreate, &graph, 0u);
    RT(cudaGraphAddHostNode, FIRST(node), &host);
    RT(cudaGraphInstantiate, &exec, graph, 0ull);
    RT(cudaGraphExecHostNodeSetParams, exec, node, &other);
    replay(s, exec, &nodes, 2);
    destroy(exec, graph);
}
// Every form of making a graph executable, and the upload.
CALL(cudaGraphInstantiateWithFlags) {
    static const struct nodes nodes = SMALL_NODES(861, 862);
    struct small made = small(s, (void *)calls_kernel, 861);
    void *exec = NULL;
    RT(cudaGraphInstantiateWithFlags, &exec, made.graph, 0ull);
    RT(cudaGraphUpload, exec, s->stream);
    replay(s, exec, &nodes, 1);
    destroy(exec, made.graph);
}
#define WITH_PARAMS(suffix)                                                                                    \
    static const struct nodes nodes = SMALL_NODES(863, 864);                                                   \
    struct small made = small(s, (void *)calls_kernel, 863);                                                   \
    struct instantiate_params params = {0};                                                                    \
    void *exec = NULL;                                                                                         \
    RT(cudaGraphInstantiateWithParams##suffix, &exec, made.graph, &params);                                    \
    RT(cudaGraphUpload##suffix, exec, s->stream);                                                              \
    replayed(RT(cudaGraphLaunch##suffix, exec, s->stream), &nodes);                                            \
    destroy(exec, made.graph)
CALL_AS(with_params, "cudaGraphInstantiateWithParams", NULL) { WITH_PARAMS(); }
CALL_AS(with_params_ptsz, "cudaGraphInstantiateWithParams_ptsz", NULL) { WITH_PARAMS(_ptsz); }
