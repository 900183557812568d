"""The caches of threads, where jemalloc keeps no list of them (statistics are off).

A thread's cache stands in its tsd_t, whose members move with the options jemalloc was
built with (tsd.h); it is recognized by what it says.  The tsd_t's are on a ring from
5.2.0 to 5.3.1 (``tsd_nominal_tsds``, tsd.c); in any version each is a thread-local
variable, which is looked for around the thread pointers.
"""

from __future__ import annotations

from collections import Counter
from itertools import compress, count, islice
from operator import sub
from typing import Callable, Iterable, Iterator, List, Optional, Sequence, Set, Tuple

from drain_gdb.debuggee.threads import THREADS_MAX
from drain_gdb.errors import UnreadableMemory
from drain_gdb.layout.records import ArenaLayout, CacheLayout, StackedCaches
from drain_gdb.memory import WORD, Memory, words_of

TSD_MAX = 16384
"""A tsd_t of 5.2.1, whose tcache_t has a bin for each size class, has some 8500 bytes."""
STACK_MAX = 1 << 16
"""TCACHE_NSLOTS_SMALL_MAX is 200 (tcache_types.h, 5.0 to 5.2): stacks have 1600 bytes."""
TLS_WINDOW = 1 << 16
"""Bytes of thread-local storage that are searched, from where a module's begin."""
MODULES_MAX = 1 << 12
RING_MAX = 1 << 20
LARGEST_POINTER = 1 << 57


def keeps_statistics(memory: Memory, arena: ArenaLayout) -> bool:
    """Whether arenas know the bytes of their metadata: under config_stats alone (base.c)."""
    if arena.table is None:
        return False
    for address in filter(None, memory.words(arena.table, arena.table_size)):
        try:
            base = memory.u64(address + arena.base)
            return memory.u64(base + arena.base_allocated) != 0
        except UnreadableMemory:
            continue
    return False


def find_thread_caches(
    memory: Memory,
    caches: CacheLayout,
    heads: Iterable[int],
    thread_pointers: Callable[[], Sequence[int]],
) -> Optional[Tuple[int, ...]]:
    """The cache of each thread that has one; None where they cannot be found.

    With 5.3 and later these are addresses of descriptors, before of a tcache_t.
    ``heads`` are words that may point at the ring's first tsd_t.
    """
    rings = (_ring(memory, caches, head) for head in dict.fromkeys(heads))
    found = next(filter(None, rings), None) or _thread_local(memory, caches, thread_pointers())
    return tuple(found) or None


def _readable(memory: Memory, start: int, size: int) -> Iterator[Tuple[int, Sequence[int]]]:
    """``(address, words)`` of each stretch of ``start .. start + size`` that can be read."""
    block = memory.block(start, size)
    at = start
    for hole, end in (*block.holes, (start + size, start + size)):
        if hole - at >= WORD:
            yield at, words_of(block.data[at - start : hole - start - (hole - at) % WORD])
        at = end + -end % WORD


def _caches_in(
    memory: Memory, caches: CacheLayout, start: int, words: Sequence[int]
) -> Iterator[int]:
    """The addresses of the caches that begin in ``words``, which stand at ``start``."""
    if isinstance(caches, StackedCaches):
        end = start + len(words) * WORD
        pointers = compress(count(), map(range(start, end).__contains__, words))
        likely = [start + index * WORD - caches.tcache for index in pointers]
    else:
        step = caches.bin_size // WORD
        # The top of a stack that grows down may stand where that of the one before does.
        least = WORD if caches.positions is None else 0
        grown = map(sub, islice(words, step, None), words)
        rising = compress(count(), map(range(least, STACK_MAX, WORD).__contains__, grown))
        likely = [start + index * WORD - caches.own_small - caches.avail for index in rising]
    return (address for address in likely if is_cache(memory, caches, address))


def is_cache(memory: Memory, caches: CacheLayout, address: int) -> bool:
    """Whether a thread's cache is at ``address``.

    From 5.3 on a tcache_slow_t and its tcache_t point at each other; the pointer back is
    the first member of the latter (tcache_structs.h, 5.3.0).  Before, the stacks of a
    cache stand one after the other (tcache_init(), tcache.c 5.2.1).
    """
    try:
        if isinstance(caches, StackedCaches):
            tcache = memory.u64(address + caches.tcache)
            return memory.u64(tcache) == address - caches.descriptor
        step = caches.bin_size // WORD
        words = memory.words(address + caches.own_small + caches.avail, step * caches.nsmall)
        ends = words[::step]
        least = 1 if caches.positions is None else 0
        return ends[0] > 0 and all(least <= b - a <= STACK_MAX for a, b in zip(ends, ends[1:]))
    except UnreadableMemory:
        return False


def _ring(memory: Memory, caches: CacheLayout, first: int) -> List[int]:
    """The caches of the ring of threads whose first tsd_t is at ``first``.

    The link is the member whose pointers lead from one tsd_t to the next, each with a
    cache at the same place, and back; a pointer of a tsd_t to itself may be another one.
    """
    if not _plausible(first):
        return []
    longest: List[int] = []
    for start, words in islice(_readable(memory, first, TSD_MAX), 1):
        for cache in islice(_caches_in(memory, caches, start, words), 1):
            for link in compress(count(start - first, WORD), map(_plausible, words)):
                found = _follow(memory, caches, first, link, cache - first)
                longest = max(longest, found, key=len)
    return longest


def _follow(memory: Memory, caches: CacheLayout, first: int, link: int, cache: int) -> List[int]:
    """The caches at offset ``cache`` of the tsd_t's that those at ``link`` lead to."""
    seen: Set[int] = set()
    tsd = first
    try:
        while tsd not in seen and len(seen) < RING_MAX:
            if not _plausible(tsd) or not is_cache(memory, caches, tsd + cache):
                return []
            seen.add(tsd)
            tsd = memory.u64(tsd + link)
    except UnreadableMemory:
        return []
    return [at + cache for at in sorted(seen)] if tsd == first else []


def _plausible(pointer: int) -> bool:
    return WORD <= pointer < LARGEST_POINTER and not pointer % WORD


def _thread_local(memory: Memory, caches: CacheLayout, pointers: Sequence[int]) -> List[int]:
    """The caches that stand at one and the same place of the threads' own storage.

    A thread that has not allocated yet has none.
    """
    found = {}
    votes: Counter[Tuple[int, int]] = Counter()
    for thread in dict.fromkeys(pointers[:THREADS_MAX]):
        for module, origin in _storage(memory, thread):
            for start, words in _readable(memory, origin, TLS_WINDOW):
                for cache in _caches_in(memory, caches, start, words):
                    place = module, cache - origin
                    found[place, thread] = cache
                    votes[place] += 1
    if not votes:
        return []
    best = votes.most_common(1)[0][0]
    return sorted(cache for (place, _), cache in found.items() if place == best)


def _storage(memory: Memory, thread: int) -> Iterator[Tuple[int, int]]:
    """``(module, start)`` of the storage of each module of one thread.

    Number 0 stands for what lies below the thread pointer (x86-64's variant of the TLS
    ABI), the others are glibc's: its vector of modules hangs at the thread pointer
    (aarch64) or at the word after (x86-64, where the first points at itself).
    """
    if not _plausible(thread - TLS_WINDOW):
        return
    yield 0, thread - TLS_WINDOW
    try:
        vector = memory.u64(thread)
        if vector == thread:
            vector = memory.u64(thread + WORD)
        count = min(memory.u64(vector - 2 * WORD), MODULES_MAX)
        entries = memory.words(vector, 2 * (count + 1))
    except UnreadableMemory:
        return
    for module, start in enumerate(entries[2::2], 1):
        if _plausible(start):
            yield module, start
