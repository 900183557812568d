/*
 * The same allocations and frees on few arenas or many: traces PATTERN ARENAS.
 *
 * Sixteen writers take turns, each with the arena of its number modulo ARENAS, without
 * thread caches.  All is drawn from one seed, so what is asked for does not depend on ARENAS.
 * It prints "ready" and the slabs and bytes of slabs by the allocator's own statistics, and
 * waits.
 *
 *     random     objects of many sizes die at random
 *     bursts     each writer frees most of a burst, and keeps a few of it
 *     sessions   a few long-lived objects between many short ones
 *     resized    what is kept grows, step by step
 *     waves      six times many are made, and most of all die at random
 *     spread     every eighth of one size stays, and of another
 */
#include <jemalloc/jemalloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *malloc_conf = "narenas:1,dirty_decay_ms:0,muzzy_decay_ms:0";

enum { WRITERS = 16, HELD_MAX = 400000 };
static uint64_t state = 88172645463325252u;
static unsigned arenas[WRITERS], narenas;
static struct { void *p; size_t size; int writer; } held[HELD_MAX];
static int count;

static uint64_t draw(uint64_t below) {
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state * 2685821657736338717u >> 11) % below;
}

static size_t some_size(void) {
	static const size_t usual[] = {24, 40, 64, 100, 160, 300, 500, 900, 2000, 6000};
	size_t size = usual[draw(10)];
	return size - draw(size / 4);
}

static int flags(int writer) {
	return MALLOCX_ARENA(arenas[(unsigned)writer % narenas]) | MALLOCX_TCACHE_NONE;
}

static int make(int writer, size_t size) {
	if (count == HELD_MAX) {
		_exit(3);
	}
	held[count].p = mallocx(size, flags(writer));
	held[count].size = size;
	held[count].writer = writer;
	return count++;
}

static void drop(int which) {
	dallocx(held[which].p, MALLOCX_TCACHE_NONE);
	held[which] = held[--count];
}

static void at_random(void) {
	for (int i = 0; i < 200000; i++) {
		make((int)draw(WRITERS), some_size());
	}
	for (int i = 0; i < 150000; i++) {
		drop((int)draw((uint64_t)count));
	}
}

static void in_bursts(void) {
	for (int round = 0; round < 400; round++) {
		int writer = (int)draw(WRITERS), first = count;
		size_t size = some_size();
		for (int i = 0; i < 500; i++) {
			make(writer, size);
		}
		for (int i = 0; i < 450; i++) {
			drop(first + (int)draw((uint64_t)(count - first)));
		}
	}
}

static void in_sessions(void) {
	for (int i = 0; i < 300000; i++) {
		int writer = (int)draw(WRITERS), made = make(writer, some_size());
		if (draw(8) != 0 && count > 2000) {
			drop(draw(2) ? made : (int)draw((uint64_t)count));
		}
	}
}

static void resized(void) {
	for (int i = 0; i < 20000; i++) {
		make((int)draw(WRITERS), 32);
	}
	for (int i = 0; i < 150000; i++) {
		int which = (int)draw((uint64_t)count);
		size_t larger = held[which].size + held[which].size / 2;
		if (larger < 9000) {
			int writer = held[which].writer;
			drop(which);
			make(writer, larger);
		}
	}
}

static void in_waves(void) {
	for (int wave = 0; wave < 6; wave++) {
		for (int i = 0; i < 20000; i++) {
			make((int)draw(WRITERS), 400 + draw(13600));
		}
		for (int i = 0; i < 17000; i++) {
			drop((int)draw((uint64_t)count));
		}
	}
}

static void spread(void) {
	for (int i = 0; i < 100000; i++) {
		make(0, i % 2 ? 600 : 3500);
	}
	for (int i = 0, kept = 0; i < 100000; i++) {
		if (i % 16 < 2) {
			held[kept++] = held[i];
		} else {
			dallocx(held[i].p, MALLOCX_TCACHE_NONE);
		}
		count = kept;
	}
}

static size_t figure(const char *name) {
	size_t value = 0, size = sizeof(value);
	return mallctl(name, &value, &size, NULL, 0) == 0 ? value : 0;
}

int main(int argc, char **argv) {
	static const struct { const char *name; void (*run)(void); } patterns[] = {
		{"random", at_random}, {"bursts", in_bursts}, {"sessions", in_sessions}, {"resized", resized},
		{"waves", in_waves}, {"spread", spread},
	};
	if (argc != 3) {
		return 1;
	}
	narenas = (unsigned)atoi(argv[2]);
	for (unsigned i = 0; i < narenas; i++) {
		size_t size = sizeof(arenas[i]);
		if (mallctl("arenas.create", &arenas[i], &size, NULL, 0) != 0) {
			return 1;
		}
	}
	for (size_t i = 0; i < sizeof(patterns) / sizeof(*patterns); i++) {
		if (strcmp(argv[1], patterns[i].name) == 0) {
			patterns[i].run();
		}
	}
	uint64_t epoch = 1;
	size_t size = sizeof(epoch), slabs = 0, bytes = 0;
	mallctl("epoch", &epoch, &size, &epoch, size);
	unsigned nbins;
	size = sizeof(nbins);
	mallctl("arenas.nbins", &nbins, &size, NULL, 0);
	for (unsigned bin = 0; bin < nbins; bin++) {
		char name[80];
		snprintf(name, sizeof(name), "stats.arenas.%u.bins.%u.curslabs", MALLCTL_ARENAS_ALL, bin);
		size_t curslabs = figure(name);
		snprintf(name, sizeof(name), "arenas.bin.%u.slab_size", bin);
		slabs += curslabs;
		bytes += curslabs * figure(name);
	}
	printf("ready %zu %zu\n", slabs, bytes);
	fflush(stdout);
	char line[8];
	(void)!read(0, line, sizeof(line));
	return 0;
}
