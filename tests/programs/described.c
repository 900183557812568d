/*
 * A program of its own version, in the form of a jemalloc's, linked with a jemalloc.
 *
 * It holds every second one of the regions it has taken, prints "ready", and waits for its
 * standard input to close.
 */
#include <stdio.h>
#include <stdlib.h>

enum { REGIONS = 4000 };

const char *described = "1.4.2-12-gabcdef0";
void *held[REGIONS];

int main(void) {
	for (int i = 0; i < REGIONS; i++) {
		held[i] = malloc(100);
	}
	for (int i = 0; i < REGIONS; i += 2) {
		free(held[i]);
	}
	printf("%s\nready\n", described);
	fflush(stdout);
	while (getchar() != EOF) {
	}
	return 0;
}
