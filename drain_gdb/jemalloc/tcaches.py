"""Thread caches, reached from their arenas (cache_bin.h, tcache.c, 5.3.0).

With statistics on, every automatic and explicit thread cache is on its arena's
ring of descriptors.  The stacks of one cache lie one after the other in one
block of memory, a junk word before the first and after the last; so each
stack's bounds follow from the low 16 bits its cache bin keeps:

    | junk | stack 0 | stack 1 | ... | stack n-1 | junk |
             stashed .. free .. cached
"""

from __future__ import annotations

from typing import Iterator, List, Sequence, Set, Tuple

from drain_gdb.errors import UnreadableMemory
from drain_gdb.jemalloc.heap import Arena, CachedRegion, Coverage, ThreadCaches
from drain_gdb.layout.records import Layout, TcacheLayout
from drain_gdb.memory import WORD, Memory

LOW = 0xFFFF
CACHES_MAX = 1 << 20
"""A longer ring is a loop that misses its first element."""


def walk_tcaches(
    memory: Memory, layout: Layout, arenas: Sequence[Arena], coverage: Coverage
) -> ThreadCaches:
    """Every thread cache on an arena's ring, and the regions each holds."""
    caches = ThreadCaches()
    seen: Set[int] = set()
    for arena in arenas:
        for descriptor in _ring(memory, layout, arena, caches, coverage):
            if descriptor in seen:
                coverage.anomaly(f"thread cache {descriptor:#x} is on two lists")
                continue
            seen.add(descriptor)
            number = len(caches.descriptors)
            caches.descriptors.append(descriptor)
            try:
                for szind, requests, pointers in _bins(memory, layout.tcache, descriptor):
                    caches.requests[szind] += requests
                    caches.regions += [CachedRegion(p, szind, number) for p in pointers]
            except UnreadableMemory as error:
                caches.unreadable += 1
                coverage.bytes_unreadable += error.size
                coverage.anomaly(f"thread cache {descriptor:#x}: {error.what}")
            except ValueError as error:
                caches.unreadable += 1
                coverage.anomaly(f"thread cache {descriptor:#x}: {error}")
    return caches


def _ring(
    memory: Memory, layout: Layout, arena: Arena, caches: ThreadCaches, coverage: Coverage
) -> Iterator[int]:
    """The addresses of an arena's descriptors; a broken list counts as one unreadable."""
    first = 0
    seen: Set[int] = set()
    try:
        node = first = memory.u64(arena.address + layout.arena.descriptors)
        while node and node not in seen and len(seen) < CACHES_MAX:
            seen.add(node)
            yield node
            node = memory.u64(node + layout.tcache.next)
    except UnreadableMemory as error:
        caches.unreadable += 1
        coverage.bytes_unreadable += error.size
        coverage.anomaly(f"list of thread caches of arena {arena.index}: {error.what}")
        return
    if node != first:
        caches.unreadable += 1
        coverage.anomaly(
            f"list of thread caches of arena {arena.index} does not close: it ends at {node:#x}"
        )


def _bins(
    memory: Memory, layout: TcacheLayout, descriptor: int
) -> List[Tuple[int, int, List[int]]]:
    """``(szind, requests, held pointers)`` of each bin of a cache.

    All or nothing: a cache whose stacks do not fit together is refused with
    ValueError.
    """
    bins = memory.u64(descriptor + layout.bins)
    stack = memory.u64(descriptor + layout.stack) + layout.leading
    found = []
    for szind in range(layout.nbins_max):
        at = bins + szind * layout.bin_size
        head = memory.u64(at + layout.head)
        end = stack + (memory.u16(at + layout.low_bits_empty) - stack & LOW)
        full = stack + (memory.u16(at + layout.low_bits_full) - stack & LOW)
        if not (stack <= full <= head <= end) or head % WORD or full % WORD:
            raise ValueError(
                f"bin {szind} has its top at {head:#x}, outside its stack {full:#x}..{end:#x}"
            )
        stashed = memory.words(stack, (full - stack) // WORD)
        cached = memory.words(head, (end - head) // WORD)
        found.append((szind, memory.u64(at + layout.requests), [*stashed, *cached]))
        stack = end
        if memory.u64(stack) == layout.trailing:
            return found
    raise ValueError("the end of its stacks was not found")
