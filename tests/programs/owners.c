/*
 * A program that knows who holds what: "ROOT ADDRESS" a line, to the file that is its first
 * argument.  ROOT is the variable or function that everything at ADDRESS is reached from, "brk"
 * where only memory that the program has of the system leads to it, or "none" where only old
 * pointers are left: in freed and cached regions, in the pages of a freed large allocation, on a
 * dead stack, in jemalloc's own structures.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jemalloc/jemalloc.h>

const char *malloc_conf = "narenas:1,dirty_decay_ms:-1,tcache_gc_incr_bytes:1073741824";

enum { SOME = 100, MANY = 100000 };
struct node {
	struct node *next;
	void *payload;
	long number[4];
};
struct small {
	void *held[3];
};

static FILE *out;
struct node *table[SOME];
void *in_data[2] = {(void *)1, (void *)2};
void ***large_table;
struct node *long_list;
struct small *thief;
struct small *thieves[SOME * 3];
void **full[SOME * 3];
void **little[SOME * 3];
char *texts[SOME * 3];
char *over[SOME];
void **emptied[SOME];
struct node *ring;
void **weakly;
static pthread_barrier_t made;
static volatile int zero;

static void *tell(const char *root, void *at) {
	fprintf(out, "%s %p\n", root, at);
	return at;
}

static struct node *node(const char *root) {
	struct node *made = tell(root, calloc(1, sizeof(struct node)));
	return made;
}

static void fill(void) {
	for (int i = 0; i < SOME; i++) {
		for (int j = 0; j < 3; j++) {
			struct node *each = node("table");
			each->payload = tell("table", calloc(1, 100));
			each->next = table[i];
			table[i] = each;
		}
	}
	in_data[1] = tell("in_data", calloc(1, 72));
	large_table = tell("large_table", calloc(MANY, sizeof(void *)));
	for (int i = 0; i < 1000; i++) {
		large_table[i * 50] = tell("large_table", calloc(1, 80));
	}
	for (int i = 0; i < MANY; i++) {
		struct node *each = calloc(1, sizeof(struct node));
		each->next = long_list;
		long_list = each;
		if (i % 10000 == 0) {
			tell("long_list", each);
		}
	}
	/* A list that leads back to its first, and pointers into the midst of what they hold. */
	ring = node("ring");
	ring->next = node("ring");
	ring->next->next = ring;
	weakly = tell("weakly", calloc(1, 8));
	weakly[0] = (char *)tell("weakly", calloc(1, 2000)) + 1003;
	/* What lies behind the 24 bytes that were asked for is nobody's word. */
	thief = tell("thief", calloc(1, sizeof(struct small)));
	((void **)thief)[3] = table[SOME - 1]->payload;
	/* But a table is used to its last word. */
	for (int i = 0; i < SOME * 3; i++) {
		full[i] = tell("full", calloc(8, sizeof(void *)));
		thieves[i] = tell("thieves", calloc(1, sizeof(struct small)));
		full[i][0] = thieves[i]->held[0] = tell("in_data", in_data[1]);
		full[i][7] = ((void **)thieves[i])[3] = tell("full", calloc(1, 500));
	}
	/* A text whose end makes of an old pointer one to a region that only a small table has. */
	for (int i = 0; i < SOME * 3; i++) {
		char *held = tell("little", calloc(1, 512));
		texts[i] = tell("texts", calloc(1, 16));
		((char **)texts[i])[1] = held + 0x40;
		strcpy(texts[i], "text:123");
		little[i] = tell("little", calloc(4, sizeof(void *)));
		little[i][3] = held;
		if (i < SOME) {
			/* A table of which the last entry is left; behind a text there is the same. */
			held = tell("emptied", calloc(1, 100));
			emptied[i] = tell("emptied", calloc(128, sizeof(void *)));
			emptied[i][127] = held;
			over[i] = tell("over", calloc(1, 165));
			memset(over[i], 't', 164);
			*(char **)(over[i] + 176) = held;
		}
	}
}

/* Its stack is nobody's when it has ended. */
static void *leave_traces(void *unused) {
	static void *holders[SOME];
	void **large = malloc(1 << 20);
	for (int i = 0; i < SOME; i++) {
		void **holder = holders[i] = calloc(1, 64);
		holder[2] = tell("none", calloc(1, 320));
		large[i] = tell("none", calloc(1, 384));
		free(tell("freed", calloc(1, 448)));
	}
	for (int i = 0; i < SOME; i++) {
		free(holders[i]);
		holders[i] = NULL;
		if (i == SOME / 2) {
			mallctl("thread.tcache.flush", NULL, NULL, NULL, 0);
		}
	}
	free(large);
	return unused;
}

__attribute__((noinline)) static void sink(void *volatile *kept, int number) {
	for (int i = 0; i < number; i++) {
		kept[i] = tell("none", calloc(1, 640));
	}
}

__attribute__((noinline)) static void dig(int depth) {
	void *volatile kept[40];
	memset((void *)kept, 0, sizeof kept);
	if (depth) {
		dig(depth - 1);
	} else {
		sink(kept, 40);
	}
	kept[zero] = NULL;
}

__attribute__((noinline)) static void serving(void) {
	void *volatile kept[5];
	for (int i = 0; i < 4; i++) {
		kept[i] = tell("serving", calloc(1, 200));
	}
	/* What a variable leads to stays when this returns. */
	kept[4] = table[1]->next;
	pthread_barrier_wait(&made);
	while (kept[zero] != NULL) {
		pause();
	}
}

static void *serve(void *unused) {
	dig(200);
	serving();
	return unused;
}

static void of_the_system(void) {
	void **own = sbrk(SOME * sizeof(void *));
	for (int i = 0; i < SOME; i++) {
		struct node *each = node("brk");
		each->payload = tell("brk", calloc(1, 100));
		own[i] = each;
	}
}

int main(int argc, char **argv) {
	pthread_t thread;
	out = fopen(argc > 1 ? argv[1] : "/dev/null", "w");
	if (out == NULL) {
		return 1;
	}
	fill();
	of_the_system();
	pthread_create(&thread, NULL, leave_traces, NULL);
	pthread_join(thread, NULL);
	pthread_barrier_init(&made, NULL, 2);
	pthread_create(&thread, NULL, serve, NULL);
	pthread_barrier_wait(&made);
	fclose(out);
	puts("ready");
	fflush(stdout);
	getchar();
	return 0;
}
