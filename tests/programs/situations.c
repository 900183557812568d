/* Heaps in states that people ask about: situations NAME [busy] makes one, says "ready" and waits.
 *
 * With "busy" a thread of its own allocates and frees without rest from then on.
 * Then each line of its input is a remedy, done for real and answered with "done":
 * "purge", "flush" (the caches of all threads).  The input's end ends it.
 */
#define _GNU_SOURCE
#include <jemalloc/jemalloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define ALL_ARENAS "4096"

static void *filled(size_t size) {
	char *made = malloc(size);
	if (made == NULL) {
		abort();
	}
	memset(made, 7, size);
	return made;
}

static void must(int error) {
	if (error) {
		fprintf(stderr, "mallctl: %s\n", strerror(error));
		abort();
	}
}

/* -- threads that do a piece of work, then wait and flush their caches when told to -- */

enum { THREADS_MAX = 256 };
static pthread_barrier_t worked, flush, flushed;
static int workers;
static void (*work)(int);

static void *worker(void *number) {
	work((int)(intptr_t)number);
	pthread_barrier_wait(&worked);
	for (;;) {
		pthread_barrier_wait(&flush);
		must(mallctl("thread.tcache.flush", NULL, NULL, NULL, 0));
		pthread_barrier_wait(&flushed);
	}
	return NULL;
}

static void run_threads(int number, void (*function)(int)) {
	pthread_attr_t small;
	pthread_t thread;
	workers = number;
	work = function;
	pthread_barrier_init(&worked, NULL, number + 1);
	pthread_barrier_init(&flush, NULL, number + 1);
	pthread_barrier_init(&flushed, NULL, number + 1);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 1 << 18);
	for (intptr_t i = 0; i < number; i++) {
		if (pthread_create(&thread, &small, worker, (void *)i)) {
			abort();
		}
	}
	pthread_barrier_wait(&worked);
}

/* -- the situations -- */

static void freed(void) { /* a burst of buffers, all freed but one in fifty */
	enum { NUMBER = 3000 };
	static void *held[NUMBER];
	for (int i = 0; i < NUMBER; i++) {
		held[i] = filled(48 << 10);
	}
	for (int i = 0; i < NUMBER; i++) {
		if (i % 50) {
			free(held[i]);
		}
	}
}

static void leaked(void) { /* nodes of one kind that nothing ever frees */
	for (int i = 0; i < 600000; i++) {
		filled(120);
	}
}

static void evicted(void) { /* large blocks of many sizes, evicted at random */
	enum { NUMBER = 3000 };
	static void *held[NUMBER];
	srand(3);
	for (int i = 0; i < 6 * NUMBER; i++) {
		int at = rand() % NUMBER;
		free(held[at]);
		held[at] = filled(20000 + rand() % 60000);
	}
	for (int i = 0; i < NUMBER; i += 2) {
		free(held[i]);
	}
}

static void pinned(void) { /* small objects of one size, one in twenty is kept */
	enum { NUMBER = 400000 };
	static void *held[NUMBER];
	for (int i = 0; i < NUMBER; i++) {
		held[i] = filled(200);
	}
	for (int i = 0; i < NUMBER; i++) {
		if (i % 20) {
			free(held[i]);
		}
	}
}

static void untouched(void) { /* allocated, hardly written to */
	for (int i = 0; i < 60; i++) {
		memset(malloc(10 << 20), 1, 20000);
	}
}

static void mapped(void) { /* memory of somebody else */
	for (int i = 0; i < 40; i++) {
		size_t size = 2 << 20, guard = 4096;
		char *made = mmap(NULL, guard + size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		mprotect(made, guard, PROT_NONE); /* or the kernel joins neighbours */
		madvise(made + guard, size, MADV_NOHUGEPAGE);
		memset(made + guard, 1, size);
	}
}

static void huge(void) { /* of each huge page little is used */
	for (int i = 0; i < 60; i++) {
		volatile char *made = malloc(4 << 20);
		made[0] = made[2 << 20] = 1;
	}
}

static void *handed[THREADS_MAX][200];

static void eat(int number) {
	free(filled(64));
	for (int i = 0; i < 200; i++) {
		free(handed[number][i]);
	}
}

static void cached(void) { /* one thread allocates, sixty free and go idle */
	static const size_t sizes[] = {2048, 6144, 10240, 14336, 20480, 28672};
	for (int i = 0; i < 60; i++) {
		for (int j = 0; j < 200; j++) {
			handed[i][j] = filled(sizes[j % 6]);
		}
	}
	run_threads(60, eat);
}

static void little(int number) {
	(void)number;
	for (size_t size = 16; size <= 14336; size += size / 4 < 16 ? 16 : size / 4) {
		filled(size);
	}
}

static void arenas(void) { /* many threads, each with an arena, hold little each */
	run_threads(64, little);
}

static void lazy(void) { /* pages given back lazily: MALLOC_CONF has muzzy decay */
	freed();
	for (int i = 0; i < 40; i++) { /* decay comes with time and with use */
		usleep(2000);
		for (int j = 0; j < 1000; j++) {
			free(filled(40 << 10));
		}
	}
}

static void sampled(void) { /* MALLOC_CONF has the heap profiler on, at a high rate */
	for (int i = 0; i < 40000; i++) {
		filled(300);
	}
}

static void forked(void) { /* this is the child of a process with the same heap */
	enum { NUMBER = 60000 };
	static void *held[NUMBER];
	for (int i = 0; i < NUMBER; i++) {
		held[i] = filled(1000);
	}
	pid_t child = fork();
	if (child) {
		int status;
		waitpid(child, &status, 0);
		exit(0);
	}
	for (int i = 0; i < NUMBER; i++) {
		if (i < NUMBER / 4) {
			memset(held[i], 9, 1000);
		}
		free(held[i]);
	}
}

static void metadata(void) { /* arenas that hold nothing */
	for (int i = 0; i < 600; i++) {
		unsigned arena;
		size_t size = sizeof(arena);
		must(mallctl("arenas.create", &arena, &size, NULL, 0));
		dallocx(mallocx(64, MALLOCX_ARENA(arena) | MALLOCX_TCACHE_NONE),
		    MALLOCX_TCACHE_NONE);
	}
}

static void oversize(void) { /* buffers beyond oversize_threshold, some freed */
	enum { NUMBER = 8 };
	static void *held[NUMBER];
	for (int i = 0; i < NUMBER; i++) {
		held[i] = filled(16 << 20);
	}
	for (int i = 0; i < NUMBER; i += 2) {
		free(held[i]);
	}
}

static void locked(void) { /* memory that is locked, and freed: the system does not take it */
	enum { NUMBER = 1000 };
	static void *held[NUMBER];
	for (int i = 0; i < NUMBER; i++) {
		held[i] = filled(48 << 10);
	}
	if (mlockall(MCL_CURRENT)) {
		perror("mlockall");
	}
	for (int i = 0; i < NUMBER; i++) {
		free(held[i]);
	}
}

static void small(void) { /* hardly anything */
	filled(100000);
}

static const struct {
	const char *name;
	void (*make)(void);
} situations[] = {
	{"freed", freed}, {"leaked", leaked}, {"evicted", evicted}, {"pinned", pinned},
	{"untouched", untouched}, {"mapped", mapped}, {"huge", huge}, {"cached", cached},
	{"arenas", arenas}, {"lazy", lazy}, {"sampled", sampled}, {"forked", forked},
	{"metadata", metadata}, {"oversize", oversize}, {"locked", locked},
	{"small", small},
};

static void *busy(void *unused) {
	static void *held[256];
	for (unsigned i = 0;; i++) {
		free(held[i % 256]);
		held[i % 256] = filled(16 + i * 37 % 3000);
	}
	return unused;
}

int main(int argc, char **argv) {
	char line[64];
	for (size_t i = 0; argc > 1 && i < sizeof(situations) / sizeof(*situations); i++) {
		if (strcmp(argv[1], situations[i].name) == 0) {
			situations[i].make();
		}
	}
	if (argc > 2 && strcmp(argv[2], "busy") == 0) {
		pthread_t thread;
		must(pthread_create(&thread, NULL, busy, NULL));
	}
	printf("ready %d\n", (int)getpid());
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) != NULL) {
		if (strcmp(line, "purge\n") == 0) {
			must(mallctl("arena." ALL_ARENAS ".purge", NULL, NULL, NULL, 0));
		} else if (strcmp(line, "flush\n") == 0) {
			must(mallctl("thread.tcache.flush", NULL, NULL, NULL, 0));
			if (workers) {
				pthread_barrier_wait(&flush);
				pthread_barrier_wait(&flushed);
			}
		}
		printf("done\n");
		fflush(stdout);
	}
	return 0;
}
