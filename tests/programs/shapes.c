/* Structs of every shape that a debugger may describe in its own way; prints where members lie. */
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

typedef union { struct { unsigned short low, high; }; unsigned word; } split_t;
typedef unsigned long words_t[3];

struct inner { char tag; double value; };

struct shape {
	char first;
	long double wide;
	struct inner nested, many[2][3];
	struct { int x; union { char narrow; long broad; }; };
	split_t split;
	words_t words;
	unsigned flag : 3, rest : 29;
	_Alignas(64) char aligned;
	void (*function)(int);
	enum { RED, GREEN } colour;
	const volatile int *qualified;
	struct inner *next;
	unsigned char tail[];
};

struct shape shape_global;
static unsigned shape_local_global[4];

int main(void) {
	char byte;
	printf("%zu %zu\n", sizeof(struct shape), _Alignof(struct shape));
#define AT(member) printf("%s %zu\n", #member, offsetof(struct shape, member))
	AT(first); AT(wide); AT(nested); AT(nested.value); AT(many); AT(x); AT(narrow); AT(broad);
	AT(split); AT(split.high); AT(words); AT(aligned); AT(function); AT(colour);
	AT(qualified); AT(next); AT(tail);
	shape_local_global[0] = 1;
	printf("ready\n");
	fflush(stdout);
	return (int)read(0, &byte, 1) + (int)shape_local_global[0] - 1;
}
