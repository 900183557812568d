/* Allocates through two functions of its own, prints "ready" and what it got, and waits. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define APART __attribute__((noinline))

static APART void *innermost(size_t size) {
	void *found = malloc(size);
	__asm__ volatile("" ::"r"(found));
	return found;
}

static APART void *outer(size_t size) {
	void *found = innermost(size);
	__asm__ volatile("" ::"r"(found));
	return found;
}

int main(void) {
	void *small = outer(100), *large = outer(100000);
	printf("ready %p %p\n", small, large);
	fflush(stdout);
	(void)!read(0, small, 1);
	return 0;
}
