/*
 * A program that knows every region it holds, and every one libc holds.
 *
 * Its own regions come from mallocx() and go through dallocx(); everything else
 * in the process (libc, the dynamic loader) calls malloc() and free(), which are
 * defined here and keep a list of their own.  At the end it writes to the file
 * named by its first argument, a line a region:
 *
 *     live ADDRESS SIZE       held by the program
 *     libc ADDRESS SIZE       held by libc
 *     cached ADDRESS SIZE     freed, and in the thread cache of a parked thread
 *     bin SIZE CURSLABS CURREGS     the allocator's own statistics
 *     internal BYTES          live regions of jemalloc's own (not in any list)
 *
 * then prints "ready" and waits for its standard input to close.  Until then it loses
 * what it is told to, and answers "done":
 *
 *     unmap ADDRESS           the page is unmapped
 *     hide ADDRESS            the page is left out of cores (MADV_DONTDUMP)
 *
 * Threads run one after the other, so that the order of allocations is fixed,
 * then park without exiting.  Each flushes its cache and then frees a few regions,
 * fewer than a cache bin holds: exactly these are cached.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <jemalloc/jemalloc.h>

const char *malloc_conf = "abort_conf:false,narenas:2,tcache_gc_incr_bytes:1073741824,dirty_decay_ms:-1";

enum { THREADS = 4, EACH = 2400, PARKED_FREES = 5, LIBC_MAX = 65536, CLASSES = 6 };
static const size_t sizes[CLASSES] = {24, 200, 1000, 4096, 14000, 20000};

static struct { void *p; size_t size; } libc_held[LIBC_MAX];
static size_t libc_count;
static pthread_mutex_t libc_lock = PTHREAD_MUTEX_INITIALIZER;

static void die(const char *what) {
	fprintf(stderr, "livelist: %s\n", what);
	_exit(1);
}

static void *note(void *p, size_t size) {
	if (p == NULL) {
		return NULL;
	}
	pthread_mutex_lock(&libc_lock);
	if (libc_count == LIBC_MAX) {
		_exit(2);
	}
	libc_held[libc_count].p = p;
	libc_held[libc_count++].size = size;
	pthread_mutex_unlock(&libc_lock);
	return p;
}

static bool forget(void *p) {
	bool found = false;
	pthread_mutex_lock(&libc_lock);
	for (size_t i = 0; i < libc_count && !found; i++) {
		if (libc_held[i].p == p) {
			libc_held[i] = libc_held[--libc_count];
			found = true;
		}
	}
	pthread_mutex_unlock(&libc_lock);
	return found;
}

void *malloc(size_t size) {
	return note(mallocx(size ? size : 1, 0), size);
}

void *calloc(size_t n, size_t each) {
	size_t size = n * each;
	return note(mallocx(size ? size : 1, MALLOCX_ZERO), size);
}

void free(void *p) {
	if (p != NULL && forget(p)) {
		dallocx(p, 0);
	}
}

void *realloc(void *old, size_t size) {
	void *p = malloc(size);
	if (p != NULL && old != NULL) {
		size_t had = sallocx(old, 0);
		memcpy(p, old, had < size ? had : size);
		free(old);
	}
	return p;
}

void *aligned_alloc(size_t align, size_t size) {
	return note(mallocx(size ? size : 1, MALLOCX_ALIGN(align)), size);
}

void *memalign(size_t align, size_t size) {
	return aligned_alloc(align, size);
}

int posix_memalign(void **out, size_t align, size_t size) {
	*out = aligned_alloc(align, size);
	return *out == NULL ? ENOMEM : 0;
}

struct worker {
	unsigned arena;
	void *live[EACH];
	size_t size[EACH];
	void *cached[CLASSES][PARKED_FREES];
	pthread_t thread;
};
static struct worker workers[THREADS];
static pthread_barrier_t turn;
static bool tcache_on;

static void flush(void) {
	if (tcache_on && mallctl("thread.tcache.flush", NULL, NULL, NULL, 0) != 0) {
		die("thread.tcache.flush");
	}
}

/* Allocate, free two thirds here and there, flush, then free a few more. */
static void fill(struct worker *w, unsigned seed) {
	if (mallctl("thread.arena", NULL, NULL, &w->arena, sizeof(w->arena)) != 0) {
		die("thread.arena");
	}
	for (int i = 0; i < EACH; i++) {
		w->size[i] = sizes[(unsigned)i * 7u % CLASSES] - (unsigned)i % 8u;
		w->live[i] = mallocx(w->size[i], 0);
		memset(w->live[i], 'x', w->size[i]);
	}
	for (int i = 0; i < EACH; i++) {
		seed = seed * 1103515245u + 12345u;
		if ((seed >> 16) % 3 != 0) {
			dallocx(w->live[i], 0);
			w->live[i] = NULL;
		}
	}
	flush();
	for (int c = 0; c < CLASSES; c++) {
		int freed = 0;
		for (int i = 0; i < EACH && freed < PARKED_FREES; i++) {
			if (w->live[i] != NULL && sizes[(unsigned)i * 7u % CLASSES] == sizes[c]) {
				w->cached[c][freed++] = w->live[i];
				dallocx(w->live[i], 0);
				w->live[i] = NULL;
			}
		}
	}
}

static void *work(void *argument) {
	struct worker *w = argument;
	fill(w, w->arena + 1);
	pthread_barrier_wait(&turn);
	for (;;) {
		pause();
	}
	return NULL;
}

static unsigned new_arena(void) {
	unsigned arena;
	size_t size = sizeof(arena);
	if (mallctl("arenas.create", &arena, &size, NULL, 0) != 0) {
		die("arenas.create");
	}
	return arena;
}

/* What is said is gathered here first: stdio would allocate while it speaks. */
static char said[1 << 20];
static size_t said_size;

#define SAY(...)                                                                    \
	(said_size += (size_t)snprintf(said + said_size, sizeof(said) - said_size, __VA_ARGS__))

/* 0 where jemalloc was built without statistics. */
static size_t statistic(const char *name) {
	size_t value = 0, size = sizeof(value);
	bool kept = true;
	size_t flag = sizeof(kept);
	if (mallctl("config.stats", &kept, &flag, NULL, 0) != 0) {
		die("config.stats");
	}
	if (!kept && strncmp(name, "stats.", 6) == 0) {
		return 0;
	}
	if (mallctl(name, &value, &size, NULL, 0) != 0) {
		die(name);
	}
	return value;
}

static void report(void) {
	char name[64];
	uint64_t epoch = 1;
	size_t size = sizeof(epoch);
	mallctl("epoch", &epoch, &size, &epoch, size);
	for (int t = 0; t < THREADS; t++) {
		for (int i = 0; i < EACH; i++) {
			if (workers[t].live[i] != NULL) {
				SAY("live %p %zu\n", workers[t].live[i], workers[t].size[i]);
			}
		}
		for (int c = 0; tcache_on && c < CLASSES; c++) {
			for (int i = 0; i < PARKED_FREES; i++) {
				SAY("cached %p %zu\n", workers[t].cached[c][i], sizes[c]);
			}
		}
	}
	unsigned nbins;
	size = sizeof(nbins);
	mallctl("arenas.nbins", &nbins, &size, NULL, 0);
	for (unsigned i = 0; i < nbins; i++) {
		snprintf(name, sizeof(name), "arenas.bin.%u.size", i);
		SAY("bin %zu", statistic(name));
		snprintf(name, sizeof(name), "stats.arenas.%u.bins.%u.curslabs", MALLCTL_ARENAS_ALL, i);
		SAY(" %zu", statistic(name));
		snprintf(name, sizeof(name), "stats.arenas.%u.bins.%u.curregs", MALLCTL_ARENAS_ALL, i);
		SAY(" %zu\n", statistic(name));
	}
	snprintf(name, sizeof(name), "stats.arenas.%u.internal", MALLCTL_ARENAS_ALL);
	SAY("internal %zu\n", statistic(name));
	for (size_t i = 0; i < libc_count; i++) {
		SAY("libc %p %zu\n", libc_held[i].p, libc_held[i].size);
	}
}

/* Do what a line says, with nothing allocated. */
static void obey(char *line) {
	char *space = strchr(line, ' ');
	if (space == NULL) {
		die("what is to be lost?");
	}
	void *page = (void *)strtoul(space, NULL, 16);
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	int failed = *line == 'u' ? munmap(page, size) : madvise(page, size, MADV_DONTDUMP);
	if (failed) {
		die("cannot lose it");
	}
	(void)!write(1, "done\n", 5);
}

int main(int argc, char **argv) {
	size_t size = sizeof(tcache_on);
	if (argc != 2 || mallctl("opt.tcache", &tcache_on, &size, NULL, 0) != 0) {
		die("usage: livelist FILE");
	}
	unsigned gone = new_arena();
	pthread_barrier_init(&turn, NULL, 2);
	for (int t = 0; t < THREADS; t++) {
		workers[t].arena = t % 2 == 0 ? (unsigned)t / 2 : new_arena();
		if (pthread_create(&workers[t].thread, NULL, work, &workers[t]) != 0) {
			die("pthread_create");
		}
		pthread_barrier_wait(&turn);
	}
	char name[64];
	snprintf(name, sizeof(name), "arena.%u.destroy", gone);
	if (mallctl(name, NULL, NULL, NULL, 0) != 0) {
		die("arena.destroy");
	}
	int out = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (out < 0) {
		die("cannot open the file");
	}
	flush();
	report();
	if (write(out, said, said_size) != (ssize_t)said_size) {
		die("cannot write the file");
	}
	close(out);
	(void)!write(1, "ready\n", 6);
	char line[64];
	for (size_t at = 0; at < sizeof(line) && read(0, &line[at], 1) > 0; at++) {
		if (line[at] == '\n') {
			line[at] = '\0';
			obey(line);
			at = (size_t)-1;
		}
	}
	_exit(0);
}
