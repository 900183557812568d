/*
 * Three explicit thread caches: one that holds 7 regions of 96 bytes, one that was
 * flushed, one that was destroyed; 100 regions of 96 bytes are held by the program.
 */
#include <unistd.h>

#include <jemalloc/jemalloc.h>

const char *malloc_conf = "tcache:false";

enum { HELD = 100, FREED = 7, CACHES = 3 };

static void must(int failed) {
	if (failed) {
		__builtin_trap();
	}
}

int main(void) {
	unsigned cache[CACHES];
	void *region[HELD + FREED];
	size_t size = sizeof(unsigned);
	char c;
	for (int i = 0; i < CACHES; i++) {
		must(mallctl("tcache.create", &cache[i], &size, 0, 0));
	}
	for (int i = 0; i < HELD + FREED; i++) {
		region[i] = mallocx(96, MALLOCX_TCACHE_NONE);
		must(region[i] == 0);
	}
	for (int i = 0; i < CACHES; i++) {
		void *p = mallocx(160, MALLOCX_TCACHE(cache[i]));
		must(p == 0);
		dallocx(p, MALLOCX_TCACHE(cache[i]));
		must(mallctl("tcache.flush", 0, 0, &cache[i], size));
	}
	for (int i = HELD; i < HELD + FREED; i++) {
		dallocx(region[i], MALLOCX_TCACHE(cache[0]));
	}
	must(mallctl("tcache.destroy", 0, 0, &cache[2], size));
	(void)!write(1, "ready\n", 6);
	while (read(0, &c, 1) > 0) {
	}
	_exit(0);
}
