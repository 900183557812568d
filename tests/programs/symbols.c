/*
 * A program whose symbol table holds a name that is an expression: a debugger that is
 * asked for `prefix + "arenas"` and evaluates it calls touched() in this process.
 */
#include <stdio.h>
#include <unistd.h>

int z, arenas, bin_infos;
volatile long touches;

__attribute__((used, noinline)) long touched(void) {
	return ++touches;
}

__asm__(".data\n"
    ".globl \"z+touched()+arena_emap_global\"\n"
    ".type \"z+touched()+arena_emap_global\", @object\n"
    ".size \"z+touched()+arena_emap_global\", 8\n"
    "\"z+touched()+arena_emap_global\": .quad 0\n"
    ".text\n");

__attribute__((noinline)) void ready(void) {
	__asm__ volatile("");
}

int main(void) {
	ready();
	puts("ready");
	pause();
	return z + arenas + bin_infos;
}
