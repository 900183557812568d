/*
 * A heap with as many regions as its argument says, of small sizes in turns, in the four
 * arenas of four threads, one in four of them freed again.  No region is ever written to:
 * only jemalloc's own structures take memory.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <jemalloc/jemalloc.h>

const char *malloc_conf = "narenas:4,retain:true,dirty_decay_ms:-1";

enum { THREADS = 4, SIZES = 6 };
static const size_t sizes[SIZES] = {64, 320, 1024, 2048, 4096, 4096};
static long each;
static pthread_barrier_t done;

static void *fill(void *number) {
	unsigned arena = (unsigned)(size_t)number;
	void *kept = NULL;
	if (mallctl("thread.arena", NULL, NULL, &arena, sizeof(arena)) != 0) {
		exit(1);
	}
	for (long i = 0; i < each; i++) {
		void *p = mallocx(sizes[i % SIZES], 0);
		if (p == NULL) {
			exit(2);
		}
		if (i % 4 == 0) {
			if (kept != NULL) {
				dallocx(kept, 0);
			}
			kept = p;
		}
	}
	pthread_barrier_wait(&done);
	pthread_barrier_wait(&done);
	return NULL;
}

int main(int argc, char **argv) {
	pthread_t threads[THREADS];
	each = argc > 1 ? atol(argv[1]) / THREADS : 0;
	pthread_barrier_init(&done, NULL, THREADS + 1);
	for (size_t i = 0; i < THREADS; i++) {
		if (pthread_create(&threads[i], NULL, fill, (void *)i) != 0) {
			return 1;
		}
	}
	pthread_barrier_wait(&done);
	puts("ready");
	fflush(stdout);
	return getchar() == EOF ? 0 : 1;
}
