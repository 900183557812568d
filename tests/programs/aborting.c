/*
 * Holds every second one of the regions it has taken, of a size that nothing else here has,
 * and aborts, so that a core is written.
 */
#include <stdlib.h>

enum { REGIONS = 4000, SIZE = 3000 };

void *held[REGIONS];

int main(void) {
	for (int i = 0; i < REGIONS; i++) {
		held[i] = malloc(SIZE);
	}
	for (int i = 0; i < REGIONS; i += 2) {
		free(held[i]);
	}
	abort();
}
