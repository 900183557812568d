/*
 * A program with an allocator of its own, as far as that shows: by a function that it exports
 * (EXPORTS), else by a message.
 */
#include <stdio.h>
#include <stdlib.h>

#ifdef EXPORTS
void *moz_arena_malloc(size_t arena, size_t size) {
	(void)arena;
	return malloc(size);
}
#endif

int main(int count, char **given) {
	(void)given;
#ifndef EXPORTS
	if (count > 1) {
		puts("mimalloc: error: out of memory");
	}
#endif
	printf("ready %d\n", count);
	fflush(stdout);
	return getchar() == EOF;
}
