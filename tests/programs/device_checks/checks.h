// What the files of this program share. In: nothing. Out: how a call is made and what is expected said, and the checks
// that stand outside main.c. Absent: NVIDIA's headers.
#pragma once
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int (*any)();
extern void *runtime, *driver;
// A function that must be there.
any find(void *library, const char *name);
#define RT(name, ...) find(runtime, #name)(__VA_ARGS__)
#define DRV(name, ...) find(driver, #name)(__VA_ARGS__)
#define EXPECT(condition)                                                                                      \
    do {                                                                                                       \
        if (!(condition)) {                                                                                    \
            printf("line %d: not so: %s\n", __LINE__, #condition);                                             \
            exit(1);                                                                                           \
        }                                                                                                      \
    } while (0)
#define OK(call) EXPECT((call) == 0)

struct dim3 {
    uint32_t x, y, z;
};
void *new_stream(unsigned flags);
void *new_event(void);
char *device_bytes(size_t size);
char *pinned_bytes(size_t size);
enum { NOT_READY = 600, NON_BLOCKING = 1 };
enum { HOST_DEVICE = 1, DEVICE_HOST, DEVICE_DEVICE };

// copies.c
void check_arrays_hold_what_is_copied(void);
void check_batches_move_bytes(void);
void check_peers_move_bytes(void);
void check_variables_move_bytes(void);
// nodes.c
void check_nodes_change(void);
