/*
 * A program whose every byte is confidential: heap objects of all kinds, live and
 * freed, its variables, its thread-local storage and its stacks are full of one
 * 8-byte mark, which its first argument gives.
 *
 * Linked with jemalloc as a static library, its variables share pages with
 * jemalloc's, and its thread-local storage with the thread caches.  It prints
 * "ready" and waits for its standard input to close.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 3, KEPT = 20000, LARGE = 40, ROOM = 3000 };

static char zeroed_at_first[ROOM];
static char initialised[ROOM] = "x";
char common[ROOM];
static __thread char local[ROOM];
static __thread char local_initialised[ROOM] = "x";
static void *kept[THREADS + 1][KEPT + LARGE];
static char mark[8];
static pthread_barrier_t filled;

static void *fill(void *p, size_t size) {
	if (p == NULL) {
		abort();
	}
	for (size_t at = 0; at + sizeof mark <= size; at += sizeof mark) {
		memcpy((char *)p + at, mark, sizeof mark);
	}
	return p;
}

static void work(int number) {
	char stack[ROOM];
	fill(stack, sizeof stack);
	__asm__ volatile("" : : "r"(stack) : "memory");
	fill(local, sizeof local);
	fill(local_initialised, sizeof local_initialised);
	for (int i = 0; i < KEPT; i++) {
		size_t size = 8u << i % 10;
		kept[number][i] = fill(malloc(size), size);
	}
	for (int i = 0; i < LARGE; i++) {
		size_t size = (size_t)(i + 1) * 20000;
		kept[number][KEPT + i] = fill(malloc(size), size);
	}
	for (int i = 0; i < KEPT + LARGE; i++) {
		if (i % 3 == 0 || (i > KEPT / 2 && i < KEPT * 3 / 4)) {
			free(kept[number][i]);
		}
	}
}

static void *thread(void *number) {
	work((int)(size_t)number);
	pthread_barrier_wait(&filled);
	pthread_barrier_wait(&filled);
	return NULL;
}

int main(int argc, char **argv) {
	if (argc != 2 || strlen(argv[1]) != sizeof mark) {
		return 1;
	}
	memcpy(mark, argv[1], sizeof mark);
	fill(zeroed_at_first, ROOM);
	fill(initialised, ROOM);
	fill(common, ROOM);
	pthread_barrier_init(&filled, NULL, THREADS + 1);
	for (size_t i = 0; i < THREADS; i++) {
		pthread_t id;
		if (pthread_create(&id, NULL, thread, (void *)i) != 0) {
			return 1;
		}
	}
	pthread_barrier_wait(&filled);
	work(THREADS);
	puts("ready");
	fflush(stdout);
	getchar();
	return 0;
}
