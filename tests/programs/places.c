/*
 * A program that knows what each of many addresses is.
 *
 * It writes to the file named by its first argument a line an address:
 *
 *     live ADDRESS SIZE START       within a region or large allocation that it holds
 *     cached ADDRESS SIZE START     within one that it has freed, and that is in its cache
 *     free ADDRESS SIZE START       within one that it has freed, and flushed from its cache
 *     stack ADDRESS THREAD          on the stack of a thread, by the system's number
 *     global ADDRESS NAME           within a variable
 *     file ADDRESS                  within its instructions
 *     owned ADDRESS THREAD          a region that the stack of a thread alone points at
 *
 * SIZE and START are as asked of jemalloc.  Then it prints "ready" and waits.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <jemalloc/jemalloc.h>

const char *malloc_conf = "abort_conf:false,narenas:2,tcache_gc_incr_bytes:1073741824,dirty_decay_ms:-1";

enum { EACH = 1800, CLASSES = 7, CACHED = 5, OFFSETS = 2 };
static const size_t sizes[CLASSES] = {16, 48, 320, 1000, 5120, 20000, 200000};
long some_variable[64] = {1};
static char zeros[4096];
static FILE *out;
static pthread_barrier_t parked;

static void say(const char *what, char *start, size_t offset) {
	size_t size = sallocx(start, 0);
	fprintf(out, "%s %p %zu %p\n", what, start + offset % size, size, start);
}

static void *park(void *argument) {
	char local[256] = {0};
	char *volatile own = mallocx(777, 0);
	own[0] = 1;
	fprintf(out, "stack %p %d\n", local + 100, gettid());
	fprintf(out, "owned %p %d\n", own, gettid());
	pthread_barrier_wait(&parked);
	for (;;) {
		pause();
		own[0]++;
	}
	return argument;
}

int main(int argc, char **argv) {
	static char *held[CLASSES][EACH];
	static size_t freed_size[CLASSES][EACH];
	pthread_t thread;
	char local[64] = {0};
	if (argc != 2 || (out = fopen(argv[1], "w")) == NULL) {
		return 1;
	}
	static char buffer[1 << 20];
	setvbuf(out, buffer, _IOFBF, sizeof(buffer));
	pthread_barrier_init(&parked, NULL, 2);
	if (pthread_create(&thread, NULL, park, NULL) != 0) {
		return 1;
	}
	pthread_barrier_wait(&parked);
	for (int c = 0; c < CLASSES; c++) {
		int count = sizes[c] > 100000 ? EACH / 20 : EACH;
		for (int i = 0; i < count; i++) {
			held[c][i] = mallocx(sizes[c], 0);
			held[c][i][0] = 1;
		}
		/* Every third is freed and flushed, the next one held. */
		for (int i = 0; i < count; i += 3) {
			freed_size[c][i] = sallocx(held[c][i], 0);
			dallocx(held[c][i], 0);
		}
		mallctl("thread.tcache.flush", NULL, NULL, NULL, 0);
		for (int i = 0; i < count; i++) {
			size_t inside = (size_t)i * 7919;
			if (i % 3 == 0 && sizes[c] < 14336) {
				size_t size = freed_size[c][i];
				fprintf(out, "free %p %zu %p\n", held[c][i] + inside % size, size, held[c][i]);
			} else if (i % 3 == 1 && i > 3 * CACHED) {
				say("live", held[c][i], 0);
				say("live", held[c][i], inside);
			}
		}
	}
	fprintf(out, "stack %p %d\n", local, gettid());
	fprintf(out, "global %p some_variable\n", (void *)&some_variable[3]);
	fprintf(out, "global %p zeros\n", zeros + 99);
	fprintf(out, "file %p\n", (void *)&main);
	/* At last, so that nothing else takes them out of the cache: nothing is allocated after. */
	for (int c = 0; c < CLASSES - 1; c++) {
		for (int i = 0; i < CACHED; i++) {
			char *start = held[c][3 * i + 1];
			say("cached", start, 0);
			say("cached", start, sallocx(start, 0) - 1);
		}
	}
	fclose(out);
	for (int c = 0; c < CLASSES - 1; c++) {
		for (int i = 0; i < CACHED; i++) {
			dallocx(held[c][3 * i + 1], 0);
		}
	}
	(void)!write(1, "ready\n", 6);
	(void)!read(0, zeros, 1);
	_exit(0);
}
