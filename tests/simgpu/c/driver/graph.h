// Graphs as data, shared by the two files of public functions.
#pragma once
#include "sim.h"
struct graph *graph_clone(const struct graph *graph);
struct plan *plan_of(const struct graph *graph);
struct plan *plan_copy(const struct plan *plan);
