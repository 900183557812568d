/* Holds 4 slabs of 48-byte regions at the first stop in moved(), 40 at the second. */
#include <jemalloc/jemalloc.h>

enum { PER_SLAB = 256 };

__attribute__((noinline)) void moved(void) {
	__asm__ volatile("");
}

static void hold(int slabs) {
	for (int i = 0; i < slabs * PER_SLAB; i++) {
		if (mallocx(48, 0) == 0) {
			__builtin_trap();
		}
	}
}

int main(void) {
	unsigned arena;
	size_t size = sizeof(arena);
	if (mallctl("arenas.create", &arena, &size, 0, 0) != 0
	    || mallctl("thread.arena", 0, 0, &arena, sizeof(arena)) != 0) {
		__builtin_trap();
	}
	hold(4);
	moved();
	hold(36);
	moved();
	return 0;
}
