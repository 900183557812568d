/* Four threads, one after the other, each holding 1000 regions of 96 bytes. */
#include <pthread.h>
#include <unistd.h>

#include <jemalloc/jemalloc.h>

static pthread_barrier_t turn;

static void *work(void *argument) {
	for (int i = 0; i < 1000; i++) {
		if (mallocx(96, 0) == 0) {
			__builtin_trap();
		}
	}
	pthread_barrier_wait(&turn);
	for (;;) {
		pause();
	}
	return argument;
}

int main(void) {
	pthread_t thread;
	char c;
	pthread_barrier_init(&turn, 0, 2);
	for (int i = 0; i < 4; i++) {
		if (pthread_create(&thread, 0, work, 0) != 0) {
			__builtin_trap();
		}
		pthread_barrier_wait(&turn);
	}
	(void)!write(1, "ready\n", 6);
	while (read(0, &c, 1) > 0) {
	}
	_exit(0);
}
