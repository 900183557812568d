/*
 * renew [SLABS]: as many slabs of each of three size classes, 2,500 if not said, in an arena
 * of its own, with no thread cache, filled to the last region.  On each line of input it goes a step further and prints, from jemalloc's
 * own statistics: the slabs there are and the slabs made so far, of each class.
 *
 *   free    every second slab of RENEWED and of HALVED is let go, region by region
 *   fill    as many regions of RENEWED are allocated again
 *
 * In UNTOUCHED nothing happens.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jemalloc/jemalloc.h>

enum { RENEWED, HALVED, UNTOUCHED, CLASSES };
static unsigned slabs = 2500;

static const size_t SIZES[CLASSES] = {1024, 2048, 512};
static void **regions[CLASSES];
static unsigned bins[CLASSES], nregs[CLASSES], arena;

static void must(int failed) {
	if (failed) {
		__builtin_trap();
	}
}

static size_t number(const char *name, size_t width) {
	size_t value = 0;
	must(mallctl(name, &value, &width, 0, 0));
	return value;
}

static size_t of_bin(const char *form, unsigned first, unsigned second, size_t width) {
	char name[64];
	snprintf(name, sizeof(name), form, first, second);
	return number(name, width);
}

static void *allocate(int class) {
	void *p = mallocx(SIZES[class], MALLOCX_ARENA(arena) | MALLOCX_TCACHE_NONE);
	must(p == 0);
	return p;
}

static void let_go(int class) {
	for (unsigned slab = 0; slab < slabs; slab += 2) {
		for (unsigned i = 0; i < nregs[class]; i++) {
			dallocx(regions[class][slab * nregs[class] + i], MALLOCX_TCACHE_NONE);
		}
	}
}

static void fill(int class) {
	for (unsigned slab = 0; slab < slabs; slab += 2) {
		for (unsigned i = 0; i < nregs[class]; i++) {
			regions[class][slab * nregs[class] + i] = allocate(class);
		}
	}
}

static void say(void) {
	uint64_t epoch = 1;
	size_t size = sizeof(epoch);
	must(mallctl("epoch", &epoch, &size, &epoch, size));
	for (int class = 0; class < CLASSES; class++) {
		size_t there = of_bin("stats.arenas.%u.bins.%u.curslabs", arena, bins[class], 8);
		size_t made = of_bin("stats.arenas.%u.bins.%u.nslabs", arena, bins[class], 8);
		printf("%zu %zu %zu%s", SIZES[class], there, made, class < CLASSES - 1 ? ", " : "\n");
	}
	fflush(stdout);
}

int main(int argc, char **argv) {
	char line[16];
	if (argc > 1) {
		slabs = (unsigned)strtoul(argv[1], NULL, 10);
	}
	arena = number("arenas.create", sizeof(unsigned));
	unsigned nbins = number("arenas.nbins", sizeof(unsigned));
	for (int class = 0; class < CLASSES; class++) {
		while (of_bin("arenas.bin.%u.size", bins[class], 0, 8) != SIZES[class]) {
			must(++bins[class] == nbins);
		}
		nregs[class] = of_bin("arenas.bin.%u.nregs", bins[class], 0, 4);
		regions[class] = mallocx(slabs * nregs[class] * sizeof(void *), 0);
		for (unsigned i = 0; i < slabs * nregs[class]; i++) {
			regions[class][i] = allocate(class);
		}
	}
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) != NULL) {
		if (strcmp(line, "free\n") == 0) {
			let_go(RENEWED);
			let_go(HALVED);
		} else if (strcmp(line, "fill\n") == 0) {
			fill(RENEWED);
		}
		say();
	}
	return 0;
}
