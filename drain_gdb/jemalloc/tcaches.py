"""Thread caches and what they hold (cache_bin.h, tcache.c).

With statistics on, every automatic and explicit thread cache is on its arena's
ring; where they are off, the automatic ones are found with the layout.  From 5.3 on
the stacks of one cache lie one after the other in one block of memory, a junk word
before the first and after the last; each stack's bounds follow from the low 16 bits
its cache bin keeps:

    | junk | stack 0 | stack 1 | ... | stack n-1 | junk |
             stashed .. free .. cached

Before, a cache bin counts what stands below its ``avail`` pointer.
"""

from __future__ import annotations

from typing import Iterable, Iterator, List, Optional, Sequence, Set, Tuple

from drain_gdb.errors import UnreadableMemory
from drain_gdb.jemalloc.heap import (
    BY_ARENAS,
    BY_THREADS,
    Arena,
    CachedRegion,
    Coverage,
    ThreadCaches,
)
from drain_gdb.layout.records import CacheLayout, CountedCaches, Layout, StackedCaches
from drain_gdb.memory import WORD, Memory

LOW = 0xFFFF
NCACHED_MAX = LOW
"""More regions than any cache bin of 5.0 to 5.2 is made for (tcache_boot())."""
CACHES_MAX = 1 << 20
"""A longer ring is a loop that misses its first element."""


def walk_tcaches(
    memory: Memory,
    layout: Layout,
    arenas: Sequence[Arena],
    statistics: bool,
    coverage: Coverage,
) -> ThreadCaches:
    """Every thread cache that can be reached, and the regions each holds.

    Arenas keep their rings under config_stats alone; without, the threads are asked.
    """
    caches = ThreadCaches()
    if statistics:
        caches.reached_by = BY_ARENAS
        for arena in arenas:
            head = arena.address + layout.arena.descriptors
            what = f"thread caches of arena {arena.index}"
            ring = _ring(memory, head, layout.tcache.next, what, caches, coverage)
            _collect(memory, layout.tcache, arena.index, ring, caches, coverage)
    elif layout.threads is not None:
        caches.reached_by = BY_THREADS
        of_threads = layout.tcache
        if isinstance(of_threads, CountedCaches):
            of_threads = of_threads.own
        _collect(memory, of_threads, None, layout.threads, caches, coverage)
    return caches


def _collect(
    memory: Memory,
    layout: CacheLayout,
    arena: Optional[int],
    descriptors: Iterable[int],
    caches: ThreadCaches,
    coverage: Coverage,
) -> None:
    """Add the caches at ``descriptors``, all of one arena, and what they hold."""
    for descriptor in descriptors:
        if descriptor in caches.descriptors:
            coverage.anomaly(f"thread cache {descriptor:#x} is on two lists")
            continue
        number = len(caches.descriptors)
        caches.descriptors[descriptor] = number
        try:
            for szind, requests, pointers in _held(memory, layout, descriptor):
                caches.requests[arena, szind] += requests
                caches.regions += [CachedRegion(p, szind, number) for p in pointers]
        except UnreadableMemory as error:
            caches.unreadable += 1
            coverage.bytes_unreadable += error.size
            coverage.anomaly(f"thread cache {descriptor:#x}: {error.what}")
        except ValueError as error:
            caches.unreadable += 1
            coverage.anomaly(f"thread cache {descriptor:#x}: {error}")


def _ring(
    memory: Memory,
    head: int,
    next_offset: int,
    what: str,
    caches: ThreadCaches,
    coverage: Coverage,
) -> Iterator[int]:
    """The elements of the ring at ``head``; a broken one counts as one unreadable cache."""
    first = 0
    seen: Set[int] = set()
    try:
        node = first = memory.u64(head)
        while node and node not in seen and len(seen) < CACHES_MAX:
            seen.add(node)
            yield node
            node = memory.u64(node + next_offset)
    except UnreadableMemory as error:
        caches.unreadable += 1
        coverage.bytes_unreadable += error.size
        coverage.anomaly(f"list of {what}: {error.what}")
        return
    if node != first:
        caches.unreadable += 1
        coverage.anomaly(f"list of {what} does not close: it ends at {node:#x}")


Held = List[Tuple[int, int, List[int]]]
"""``(szind, requests, held pointers)`` of each bin of a cache."""


def _held(memory: Memory, layout: CacheLayout, element: int) -> Held:
    """What the cache at ``element`` of a ring holds, all or nothing.

    ValueError where its bins contradict themselves.
    """
    if isinstance(layout, StackedCaches):
        return _stacks(memory, layout, element)
    return _counted(memory, layout, element)


def _counted(memory: Memory, layout: CountedCaches, element: int) -> Held:
    small, large = element + layout.small, element + layout.large
    if layout.by_pointer:
        small, large = memory.u64(small), memory.u64(large)
    places = [small + index * layout.bin_size for index in range(layout.nsmall)]
    places += [large + index * layout.bin_size for index in range(layout.nlarge)]
    found = []
    for szind, at in enumerate(places):
        avail, ncached = memory.u64(at + layout.avail), memory.u32(at + layout.ncached)
        if not avail and not ncached:
            continue
        if ncached > NCACHED_MAX or avail % WORD:
            raise ValueError(f"bin {szind} says it holds {ncached} regions below {avail:#x}")
        held = memory.words(avail - ncached * WORD, ncached)
        found.append((szind, memory.u64(at + layout.requests), list(held)))
    return found


def _stacks(memory: Memory, layout: StackedCaches, descriptor: int) -> Held:
    bins = memory.u64(descriptor + layout.tcache) + layout.bins
    stack = memory.u64(descriptor + layout.stack) + layout.leading
    found = []
    nbins = layout.nbins_max
    if layout.nbins is not None:
        nbins = memory.u32(descriptor + layout.nbins)
        if nbins > layout.nbins_max:
            raise ValueError(f"it says it has {nbins} bins")
    for szind in range(nbins):
        at = bins + szind * layout.bin_size
        head = memory.u64(at + layout.head)
        low_empty = memory.u16(at + layout.low_bits_empty)
        low_full = memory.u16(at + layout.low_bits_full)
        if low_empty == low_full == head & LOW and not stack <= head <= stack + LOW:
            # Disabled (5.3.1 on): its stack is a constant elsewhere, and empty.
            continue
        end = stack + (low_empty - stack & LOW)
        full = stack + (low_full - stack & LOW)
        if not (stack <= full <= head <= end) or head % WORD or full % WORD:
            raise ValueError(
                f"bin {szind} has its top at {head:#x}, outside its stack {full:#x}..{end:#x}"
            )
        stashed = memory.words(stack, (full - stack) // WORD)
        cached = memory.words(head, (end - head) // WORD)
        found.append((szind, memory.u64(at + layout.requests), [*stashed, *cached]))
        stack = end
        if layout.nbins is None and memory.u64(stack) == layout.trailing:
            return found
    if layout.nbins is None:
        raise ValueError("the end of its stacks was not found")
    return found
