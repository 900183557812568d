"""What the allocator itself has counted, out of a walked heap."""

from __future__ import annotations

from collections import Counter
from typing import Dict, Mapping, NamedTuple, Optional, Tuple

from drain_gdb.analysis.report import CounterPair
from drain_gdb.jemalloc.heap import Heap

ArenaAndClass = Tuple[int, int]
"""``(arena, szind)``."""


class Passed(NamedTuple):
    """Regions that left a bin of an arena (``allocs``) and came back (``deallocs``)."""

    allocs: int
    deallocs: int


def requests_by_bin(heap: Heap) -> Optional[Mapping[ArenaAndClass, int]]:
    """Requests for small regions: merged ones in the bins, the rest in the caches.

    A bin's ``nrequests`` is raised by a request that passes the thread caches by
    (arena_malloc_small()), a cache bin's by one that it serves (tcache_alloc_small(),
    imalloc_fastpath()); refills, flushes and the end of a thread merge the latter into
    the former, in the arena the cache belongs to (arena.c and tcache.c, 5.0.1 to 5.3.1).
    Neither counts a realloc() that stays in place.  What jemalloc allocates for itself
    is counted.  Large requests are not here: from 5.3.1 on jemalloc counts those that
    miss the thread cache twice (tcache_alloc_large() and arena_stats_merge()).

    None where statistics are off or a cache or an arena could not be read.
    """
    if not heap.statistics or heap.tcaches.unreadable or not heap.has_all_arenas:
        return None
    found: Counter[ArenaAndClass] = Counter()
    for counter in heap.counters:
        found[counter.arena, counter.szind] += counter.nrequests
    for (arena, szind), number in heap.tcaches.requests.items():
        if arena is not None and szind < len(heap.bins):
            found[arena, szind] += number
    return found


def passed_by_bin(heap: Heap) -> Optional[Mapping[ArenaAndClass, Passed]]:
    """Regions that left and entered the bins (refills and flushes count each).

    None where statistics are off or an arena could not be read.
    """
    if not heap.statistics or not heap.has_all_arenas:
        return None
    found: Dict[ArenaAndClass, Passed] = {}
    for counter in heap.counters:
        key = counter.arena, counter.szind
        before = found.get(key, Passed(0, 0))
        found[key] = Passed(before.allocs + counter.nmalloc, before.deallocs + counter.ndalloc)
    return found


def request_pair(heap: Heap) -> CounterPair:
    """Requests for small regions since the start, and those given back since."""
    by_bin = requests_by_bin(heap)
    if by_bin is None:
        return CounterPair(None, None)
    allocs = sum(by_bin.values())
    cached = sum(heap.slabs.cached.values())
    return CounterPair(allocs, allocs - (heap.verification.regions_walked - cached))


def arena_pair(heap: Heap) -> CounterPair:
    """Small regions that left and entered the bins since the start."""
    by_bin = passed_by_bin(heap)
    if by_bin is None:
        return CounterPair(None, None)
    pairs = by_bin.values()
    return CounterPair(sum(pair.allocs for pair in pairs), sum(pair.deallocs for pair in pairs))
