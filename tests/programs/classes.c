/* Prints the size classes of the jemalloc it is linked with, as JSON. */
#include <stdio.h>

#include <jemalloc/jemalloc.h>

static size_t number(const char *name, size_t width) {
	size_t value = 0;
	if (mallctl(name, &value, &width, 0, 0) != 0) {
		__builtin_trap();
	}
	return value;
}

static void sizes(const char *key, const char *count, const char *form) {
	char name[64];
	size_t n = number(count, sizeof(unsigned));
	printf("\"%s\": [", key);
	for (size_t i = 0; i < n; i++) {
		snprintf(name, sizeof(name), form, i);
		printf("%s%zu", i ? ", " : "", number(name, sizeof(size_t)));
	}
	printf("]");
}

int main(void) {
	size_t page = number("arenas.page", sizeof(size_t));
	size_t quantum = number("arenas.quantum", sizeof(size_t));
	printf("{\"lg_page\": %d, \"lg_quantum\": %d, ", __builtin_ctzl(page), __builtin_ctzl(quantum));
	sizes("bins", "arenas.nbins", "arenas.bin.%zu.size");
	printf(", ");
	sizes("large", "arenas.nlextents", "arenas.lextent.%zu.size");
	printf("}\n");
	return 0;
}
