/* Stops once in moved(), then waits, running, until it or its parent is killed. */
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <jemalloc/jemalloc.h>

__attribute__((noinline)) void moved(void) {
	__asm__ volatile("");
}

int main(void) {
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (mallocx(48, 0) == 0) {
		__builtin_trap();
	}
	moved();
	for (;;) {
		pause();
	}
}
