/*
 * A program to be stopped inside jemalloc.  Its regions of SIZE bytes are of a size class
 * that nothing else in the process uses; `held` says at any moment how many it has, a
 * call under way not counted.  Each stage makes the allocator do one thing:
 *
 *     refill   the thread cache is empty, slabs with room are listed
 *     flush    the thread cache is flushed into full slabs
 *     slab     there is no slab with room, a new one is made
 *     purge    unused dirty pages go back to the system
 *
 * ready() is called before, as the place to set a breakpoint.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jemalloc/jemalloc.h>

const char *malloc_conf = "narenas:1,tcache_gc_incr_bytes:1073741824,dirty_decay_ms:-1";

enum { SIZE = 320, COUNT = 64 * 100 };
static void *regions[COUNT];
void *more[COUNT];
volatile long held;

__attribute__((noinline)) void ready(void) {
	__asm__ volatile("");
}

static void must(const char *name) {
	if (mallctl(name, NULL, NULL, NULL, 0) != 0) {
		fprintf(stderr, "inflight: %s\n", name);
		exit(1);
	}
}

static void take(int at) {
	regions[at] = mallocx(SIZE, 0);
	held++;
}

static void give(int at) {
	dallocx(regions[at], 0);
	regions[at] = NULL;
	held--;
}

int main(int argc, char **argv) {
	const char *stage = argc > 1 ? argv[1] : "";
	for (int i = 0; i < COUNT; i++) {
		take(i);
	}
	must("thread.tcache.flush");
	if (strcmp(stage, "refill") == 0) {
		for (int i = 0; i < COUNT; i += 16) {
			give(i);
		}
		must("thread.tcache.flush");
		ready();
		for (int i = 0; i < COUNT; i += 16) {
			take(i);
		}
	} else if (strcmp(stage, "flush") == 0) {
		for (int i = 0; i < 20; i++) {
			give(i * 64);
		}
		ready();
		must("thread.tcache.flush");
	} else if (strcmp(stage, "slab") == 0) {
		ready();
		for (int i = 0; i < COUNT; i++) {
			more[i] = mallocx(SIZE, 0);
			held++;
		}
	} else if (strcmp(stage, "purge") == 0) {
		for (int i = 0; i < COUNT / 2; i++) {
			give(i);
		}
		must("thread.tcache.flush");
		ready();
		must("arena.0.purge");
	}
	return 0;
}
