/*
 * Prints its statistics, in the form that argument 2 asks for, into the file argument 1.
 *
 * Seven threads beside the first fill and half empty their arenas.  It says "ready" and waits
 * for its input to end while malloc_stats_print() calls it back for the first time: jemalloc
 * has taken its figures then, and nothing moves until it has printed them.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS 7
#define SMALL 3000

extern void malloc_stats_print(void (*write_cb)(void *, const char *), void *, const char *);

static char said[1 << 22];
static size_t length;
static pthread_barrier_t filled, printed;

static void take(void *opaque, const char *text) {
	size_t size = strlen(text);
	(void)opaque;
	if (length == 0) {
		char end;
		if (write(1, "ready\n", 6) != 6 || read(0, &end, 1) < 0)
			_exit(2);
	}
	if (length + size > sizeof said)
		_exit(3);
	memcpy(said + length, text, size);
	length += size;
}

static void *fill(void *argument) {
	long self = (long)argument;
	void **held = malloc(SMALL * sizeof *held);
	for (int i = 0; i < SMALL; i++)
		held[i] = malloc(8 + (i * 37 + self * 101) % 3000);
	for (int i = 0; i < SMALL; i++)
		if (i % 4 != self % 4)
			free(held[i]);
	for (int i = 0; i < 6; i++) {
		char *large = malloc(20000 + 9000 * i * (self + 1));
		memset(large, 1, 20000);
		if (i % 2)
			free(large);
	}
	pthread_barrier_wait(&filled);
	pthread_barrier_wait(&printed);
	return held;
}

int main(int argc, char **argv) {
	pthread_t threads[THREADS];
	if (argc != 3)
		return 1;
	pthread_barrier_init(&filled, NULL, THREADS + 1);
	pthread_barrier_init(&printed, NULL, THREADS + 1);
	for (long i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, fill, (void *)(i + 1));
	pthread_barrier_wait(&filled);
	malloc_stats_print(take, NULL, argv[2]);
	int file = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (write(file, said, length) != (ssize_t)length)
		_exit(4);
	_exit(0);
}
