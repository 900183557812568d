/*
 * A program whose symbol table holds a name that is an expression: a debugger that is
 * asked for `prefix + "arenas"` and evaluates it writes `touches` in this process.
 */
#include <stdio.h>
#include <unistd.h>

int z, arenas, bin_infos, touches;

__asm__(".data\n"
    ".globl \"z+(++touches)+arena_emap_global\"\n"
    ".type \"z+(++touches)+arena_emap_global\", @object\n"
    ".size \"z+(++touches)+arena_emap_global\", 8\n"
    "\"z+(++touches)+arena_emap_global\": .quad 0\n"
    ".text\n");

__attribute__((noinline)) void ready(void) {
	__asm__ volatile("");
}

int main(void) {
	ready();
	puts("ready");
	pause();
	return z + arenas + bin_infos + touches;
}
