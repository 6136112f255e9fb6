// Graphs as data, and what the files of public functions share.
#pragma once
#include "cuda_abi.h"
#include "sim.h"
struct graph *graph_clone(const struct graph *graph);
// Takes a node out of its graph, and its edges with it.
void graph_remove(struct node *node);
struct plan *plan_of(const struct graph *graph);
struct plan *plan_copy(const struct plan *plan);

// graph_api.c: work from the public parameter structures; false when they name no kernel or an array.
bool kernel_work(struct work *out, const struct kernel_node_params *p);
bool copy_work(struct work *out, const struct memcpy_3d *c);
CUresult any_work(struct work *out, const struct graph_node_params *p);
struct work fill_work(const struct memset_node_params *p);

#define GRAPH(handle)                                                                                          \
    READY();                                                                                                   \
    struct graph *g = handle;                                                                                  \
    if (!g || g->magic != GRAPH_MAGIC)                                                                         \
    return INVALID_HANDLE
#define NODE(handle)                                                                                           \
    READY();                                                                                                   \
    struct node *n = handle;                                                                                   \
    if (!n || n->magic != NODE_MAGIC)                                                                          \
    return INVALID_HANDLE
#define EXEC(handle)                                                                                           \
    READY();                                                                                                   \
    struct exec *x = handle;                                                                                   \
    if (!x || x->magic != EXEC_MAGIC)                                                                          \
    return INVALID_HANDLE
