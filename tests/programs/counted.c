/*
 * A program that makes a known number of allocations and frees on four threads,
 * through every public function of jemalloc, and says how many.
 *
 * The threads are started and have allocated before window_opens() is called; they
 * then do their work and park until after window_closes().  At the end the program
 * writes to the file named by its first argument, a line each:
 *
 *     class SIZE ALLOCATIONS FREES RESIZED    by size class, RESIZED large ones in place
 *     calls NAME NUMBER                       of malloc() and free()
 *     moved NUMBER, kept NUMBER               reallocations that moved, that stayed
 *
 * The class of each is asked of sallocx() and nallocx(), which allocate nothing.
 * A second argument makes the program do something else in the window as well: "fork" (a
 * child that allocates), "vfork", "exec" (another program), "exit", "spin" (allocate
 * for ever, after it has said "ready").
 */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jemalloc/jemalloc.h>


/* C++'s operators, by the names they are linked under. */
void *_Znwm(size_t);
void *_ZnamSt11align_val_t(size_t, size_t);
void _ZdlPv(void *);
void _ZdlPvm(void *, size_t);
void _ZdaPvSt11align_val_t(void *, size_t);

enum { THREADS = 4, ROUNDS = 6, CLASSES = 512 };

struct tally {
	size_t size[CLASSES];
	long allocs[CLASSES], frees[CLASSES], resized[CLASSES];
	long mallocs, free_calls, moved, kept;
};

struct worker {
	pthread_t thread;
	int number;
	struct tally tally;
};

static volatile size_t too_much = SIZE_MAX / 2 + 1;
static struct worker workers[THREADS];
static pthread_barrier_t turn;

__attribute__((noinline)) void window_opens(void) { __asm__ volatile(""); }
__attribute__((noinline)) void window_closes(void) { __asm__ volatile(""); }

static int class_of(struct tally *t, size_t size) {
	for (int i = 0;; i++) {
		if (t->size[i] == 0) {
			t->size[i] = size;
		}
		if (t->size[i] == size) {
			return i;
		}
	}
}

static void *took(struct tally *t, void *p) {
	if (p == NULL) {
		_exit(10);
	}
	memset(p, 1, 1);
	t->allocs[class_of(t, sallocx(p, 0))]++;
	return p;
}

static void gives(struct tally *t, void *p) {
	t->frees[class_of(t, sallocx(p, 0))]++;
}

static void *t_malloc(struct tally *t, size_t size) {
	t->mallocs++;
	return took(t, malloc(size));
}

static void t_free(struct tally *t, void *p) {
	t->free_calls++;
	if (p != NULL) {
		gives(t, p);
	}
	free(p);
}

/* realloc() or, with flags, rallocx(): what it did is seen by the pointer and its class. */
static void *t_realloc(struct tally *t, void *p, size_t size, int flags) {
	size_t before = sallocx(p, 0);
	uintptr_t was = (uintptr_t)p;
	void *q = flags < 0 ? realloc(p, size) : rallocx(p, size, flags);
	if (q == NULL) {
		_exit(11);
	}
	size_t after = sallocx(q, 0);
	if ((uintptr_t)q != was) {
		t->moved++;
		t->frees[class_of(t, before)]++;
		t->allocs[class_of(t, after)]++;
	} else if (after == before) {
		t->kept++;
	} else {
		t->resized[class_of(t, before)]--;
		t->resized[class_of(t, after)]++;
	}
	return q;
}

static void t_resize(struct tally *t, void *p, size_t size) {
	size_t before = sallocx(p, 0), after = xallocx(p, size, 0, 0);
	if (after == before) {
		t->kept++;
	} else {
		t->resized[class_of(t, before)]--;
		t->resized[class_of(t, after)]++;
	}
}

static void one_round(struct tally *t, int round, int number) {
	/* The plain ones; every third is kept. */
	for (size_t size = 1; size < 3000; size = size * 3 + 7) {
		void *p = t_malloc(t, size), *q = took(t, calloc(3, size));
		if (round % 3 != 0) {
			t_free(t, p);
		}
		t_free(t, q);
	}
	t_free(t, NULL);
	/* Aligned ones, below and from the page on, and of no bytes. */
	void *a;
	if (posix_memalign(&a, 64, 200) != 0) {
		_exit(12);
	}
	took(t, a);
	t_free(t, a);
	if (posix_memalign(&a, 8192, 100) != 0) {
		_exit(13);
	}
	took(t, a);
	t_free(t, a);
	if (posix_memalign(&a, 3, 100) == 0 || posix_memalign(&a, 24, 100) == 0) {
		_exit(14);
	}
	t_free(t, took(t, aligned_alloc(256, 512)));
	t_free(t, took(t, aligned_alloc(4096, 4096)));
	t_free(t, took(t, memalign(32, 33)));
	t_free(t, took(t, valloc(10)));
	t_free(t, t_malloc(t, 0));
	/* Too much to be had. */
	if (malloc(too_much) != NULL || calloc(too_much / 2, 16) != NULL) {
		_exit(15);
	}
	t->mallocs++;
	/* The non-standard ones. */
	a = took(t, mallocx(100, 0));
	gives(t, a);
	dallocx(a, 0);
	a = took(t, mallocx(100, MALLOCX_ALIGN(512) | MALLOCX_ZERO));
	gives(t, a);
	sdallocx(a, 100, MALLOCX_ALIGN(512));
	a = took(t, mallocx(48, MALLOCX_TCACHE_NONE));
	gives(t, a);
	dallocx(a, MALLOCX_TCACHE_NONE);
	a = took(t, mallocx(1500, 0));
	gives(t, a);
	sdallocx(a, 1500, 0);
	/* realloc: from nothing, in place, moving, to large, in large, back, to nothing. */
	a = took(t, realloc(NULL, 40));
	a = t_realloc(t, a, 48, -1);
	a = t_realloc(t, a, 700, -1);
	a = t_realloc(t, a, 699, 0);
	a = t_realloc(t, a, 701, MALLOCX_ALIGN(128));
	a = t_realloc(t, a, 20000 + 4096 * (size_t)number, -1);
	a = t_realloc(t, a, 60000, -1);
	t_resize(t, a, 40000);
	t_resize(t, a, 300000);
	a = t_realloc(t, a, 25000, 0);
	a = t_realloc(t, a, 25000, -1);
	a = t_realloc(t, a, 12, -1);
	t_resize(t, a, 13);
	t_resize(t, a, 5000);
	gives(t, a);
	if (realloc(a, 0) != NULL) {
		_exit(16);
	}
	/* C++, where one of these is done by a jump to another, or a call. */
	a = took(t, _Znwm(72));
	gives(t, a);
	_ZdlPv(a);
	a = took(t, _Znwm(20000));
	gives(t, a);
	_ZdlPvm(a, 20000);
	a = took(t, _ZnamSt11align_val_t(100, 64));
	gives(t, a);
	_ZdaPvSt11align_val_t(a, 64);
}

static void *work(void *argument) {
	struct worker *w = argument;
	free(malloc(1 + (size_t)w->number));
	pthread_barrier_wait(&turn);
	pthread_barrier_wait(&turn);
	for (int round = 0; round < ROUNDS; round++) {
		one_round(&w->tally, round, w->number);
	}
	pthread_barrier_wait(&turn);
	pthread_barrier_wait(&turn);
	return NULL;
}

static void special(const char *what, char *program, char *file) {
	if (strcmp(what, "exec") == 0) {
		execl(program, program, file, (char *)NULL);
		_exit(20);
	} else if (strcmp(what, "exit") == 0) {
		_exit(3);
	} else if (strcmp(what, "spin") == 0) {
		(void)!write(1, "ready\n", 6);
		for (;;) {
			free(malloc(100));
			usleep(100);
		}
	} else if (strcmp(what, "vfork") == 0) {
		pid_t child = vfork();
		if (child == 0) {
			execl("/bin/true", "true", (char *)NULL);
			_exit(21);
		}
		waitpid(child, NULL, 0);
	} else if (strcmp(what, "fork") == 0) {
		int status = 1;
		pid_t child = fork();
		if (child == 0) {
			for (int i = 0; i < 100; i++) {
				free(malloc(100));
			}
			_exit(0);
		}
		if (waitpid(child, &status, 0) != child || status != 0) {
			_exit(22);
		}
	}
}

static void report(const char *name) {
	static struct tally all;
	FILE *out = fopen(name, "w");
	if (out == NULL) {
		_exit(30);
	}
	for (int n = 0; n < THREADS; n++) {
		struct tally *t = &workers[n].tally;
		for (int i = 0; t->size[i] != 0; i++) {
			int c = class_of(&all, t->size[i]);
			all.allocs[c] += t->allocs[i];
			all.frees[c] += t->frees[i];
			all.resized[c] += t->resized[i];
		}
		all.mallocs += t->mallocs;
		all.free_calls += t->free_calls;
		all.moved += t->moved;
		all.kept += t->kept;
	}
	for (int i = 0; all.size[i] != 0; i++) {
		fprintf(out, "class %zu %ld %ld %ld\n", all.size[i], all.allocs[i], all.frees[i],
		    all.resized[i]);
	}
	fprintf(out, "calls malloc %ld\ncalls free %ld\n", all.mallocs, all.free_calls);
	fprintf(out, "moved %ld\nkept %ld\n", all.moved, all.kept);
	fclose(out);
}

int main(int argc, char **argv) {
	if (argc < 2) {
		_exit(31);
	}
	pthread_barrier_init(&turn, NULL, THREADS + 1);
	for (int n = 0; n < THREADS; n++) {
		workers[n].number = n;
		pthread_create(&workers[n].thread, NULL, work, &workers[n]);
	}
	pthread_barrier_wait(&turn);
	window_opens();
	pthread_barrier_wait(&turn);
	pthread_barrier_wait(&turn);
	if (argc > 2) {
		special(argv[2], argv[0], argv[1]);
	}
	window_closes();
	pthread_barrier_wait(&turn);
	for (int n = 0; n < THREADS; n++) {
		pthread_join(workers[n].thread, NULL);
	}
	report(argv[1]);
	return 0;
}
