// The table of exported names that build.rs generates from names/libcuda.so.1.txt, sorted by name.
#pragma once
#include <stddef.h>
struct entry {
    const char *name;
    void (*address)(void);
    int version; // of CUDA in which this form appeared, as 1000 * major + 10 * minor
};
extern const struct entry driver_entries[];
extern const size_t driver_entry_count;
