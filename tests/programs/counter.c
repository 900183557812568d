/* Counts the signals SIGRTMIN that it gets, and says how many when its input ends. */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static volatile sig_atomic_t count;

static void handle(int signal) {
	count += signal == SIGRTMIN;
}

int main(void) {
	struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};
	char c;
	if (sigaction(SIGRTMIN, &action, 0) != 0) {
		return 1;
	}
	puts("ready");
	fflush(stdout);
	while (read(0, &c, 1) > 0) {
	}
	printf("%d\n", (int)count);
	return 0;
}
