// Nodes of graphs can be found, changed, switched off and taken out. In: a graph of fills. Out: the bytes that each
// replay leaves. Absent: what main.c checks of capture and update.
#include "checks.h"

struct fill { // cudaMemsetParams
    void *dst;
    size_t pitch;
    unsigned value, element;
    size_t width, height;
};
static struct fill fill(void *at, unsigned value) {
    return (struct fill){.dst = at, .value = value, .element = 1, .width = 16, .height = 1};
}
// Clears the memory, replays, and says what stands at the two places that the graph fills.
static void replay(void *exec, char *device, char *to, int expected_first, int expected_second) {
    void *s = new_stream(NON_BLOCKING);
    OK(RT(cudaMemsetAsync, device, 0, (size_t)64, s));
    OK(RT(cudaGraphLaunch, exec, s));
    OK(RT(cudaMemcpyAsync, to, device, (size_t)64, DEVICE_HOST, s));
    OK(RT(cudaStreamSynchronize, s));
    EXPECT(to[15] == expected_first);
    EXPECT(to[47] == expected_second);
}

void check_nodes_change(void) {
    char *device = device_bytes(64), *to = pinned_bytes(64);
    void *graph = NULL, *clone = NULL, *first = NULL, *second = NULL, *found = NULL, *exec = NULL;
    struct fill one = fill(device, 1), two = fill(device + 32, 2), three = fill(device, 3), four = fill(device + 32, 4);
    OK(RT(cudaGraphCreate, &graph, 0u));
    OK(RT(cudaGraphAddMemsetNode, &first, graph, (void *)NULL, (size_t)0, &one));
    OK(RT(cudaGraphAddMemsetNode, &second, graph, &first, (size_t)1, &two));
    OK(RT(cudaGraphInstantiate, &exec, graph, 0ull));
    replay(exec, device, to, 1, 2);
    // In the executable alone.
    OK(RT(cudaGraphExecMemsetNodeSetParams, exec, second, &four));
    OK(RT(cudaGraphNodeSetEnabled, exec, first, 0u));
    replay(exec, device, to, 0, 4);
    OK(RT(cudaGraphExecDestroy, exec));
    // In a clone, whose nodes are others.
    OK(RT(cudaGraphClone, &clone, graph));
    OK(RT(cudaGraphNodeFindInClone, &found, first, clone));
    EXPECT(found != first);
    OK(RT(cudaGraphMemsetNodeSetParams, found, &three));
    OK(RT(cudaGraphInstantiate, &exec, clone, 0ull));
    replay(exec, device, to, 3, 2);
    OK(RT(cudaGraphExecDestroy, exec));
    // In the graph: what follows a node that is gone runs all the same.
    OK(RT(cudaGraphDestroyNode, first));
    OK(RT(cudaGraphInstantiate, &exec, graph, 0ull));
    replay(exec, device, to, 0, 2);
}
