/*
 * THREADS threads that allocate and free small regions without rest:
 *
 *     churn [THREADS [SLOTS]]
 *
 * Each has SLOTS slots, in groups of GROUP; a group taken at random is filled if it is empty
 * and emptied if it is not, with regions of one size, from 1 to MOST bytes.  "ready SLABS" is
 * printed when all have been turned over a few times, SLABS being what jemalloc's statistics
 * say there are: 8 threads with 100,000 slots each hold some 25,000 from then on.  To each
 * line of input it then answers with a line of
 *
 *     GAP TURNS        since the line before: the longest time in microseconds in which no
 *                      thread went on, and how many groups were turned over
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <jemalloc/jemalloc.h>

enum { THREADS = 8, SLOTS = 100000, GROUP = 50, MOST = 1024, WARM = 6 };

static size_t slots = SLOTS;
static atomic_int warm;
static _Atomic uint64_t seen, longest, turns;

static uint64_t now(void) {
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return (uint64_t)at.tv_sec * 1000000000 + (uint64_t)at.tv_nsec;
}

/* A thread went on: that it did is known to all, and how long nobody did before. */
static void go_on(void) {
	uint64_t at = now(), before = atomic_exchange(&seen, at);
	uint64_t gap = at > before ? at - before : 0, most = atomic_load(&longest);
	while (gap > most && !atomic_compare_exchange_weak(&longest, &most, gap)) {
	}
	atomic_fetch_add(&turns, 1);
}

static uint64_t next(uint64_t *state) {
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void *churn(void *seed) {
	uint64_t state = (uint64_t)(uintptr_t)seed * 0x9e3779b97f4a7c15;
	size_t groups = slots / GROUP;
	char *(*held)[GROUP] = calloc(groups, sizeof(*held));
	for (size_t turn = 0;; turn++) {
		char **group = held[next(&state) % groups];
		bool full = group[0] != NULL;
		size_t size = 1 + next(&state) % MOST;
		for (int i = 0; i < GROUP; i++) {
			if (full) {
				free(group[i]);
				group[i] = NULL;
			} else {
				group[i] = malloc(size);
				*group[i] = 1;
			}
		}
		go_on();
		if (turn == WARM * groups) {
			atomic_fetch_add(&warm, 1);
		}
	}
	return NULL;
}

static size_t number(const char *name) {
	size_t value = 0, size = sizeof(value);
	if (mallctl(name, &value, &size, NULL, 0) != 0) {
		abort();
	}
	return value;
}

static size_t slabs(void) {
	uint64_t epoch = 1;
	size_t found = 0, size = sizeof(epoch);
	unsigned bins;
	char name[64];
	mallctl("epoch", &epoch, &size, &epoch, size);
	size = sizeof(bins);
	mallctl("arenas.nbins", &bins, &size, NULL, 0);
	for (unsigned bin = 0; bin < bins; bin++) {
		snprintf(name, sizeof(name), "stats.arenas.%u.bins.%u.curslabs", MALLCTL_ARENAS_ALL, bin);
		found += number(name);
	}
	return found;
}

int main(int count, char **given) {
	int threads = count > 1 ? atoi(given[1]) : THREADS;
	slots = count > 2 ? (size_t)atol(given[2]) : SLOTS;
	for (int i = 0; i < threads; i++) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, churn, (void *)(uintptr_t)(i + 1)) != 0) {
			return 1;
		}
	}
	const struct timespec pause = {0, 10000000};
	while (atomic_load(&warm) < threads) {
		nanosleep(&pause, NULL);
	}
	printf("ready %zu\n", slabs());
	fflush(stdout);
	while (getchar() == '\n') {
		uint64_t gap = atomic_exchange(&longest, 0), turned = atomic_exchange(&turns, 0);
		printf("%llu %llu\n", (unsigned long long)gap / 1000, (unsigned long long)turned);
		fflush(stdout);
	}
	return 0;
}
