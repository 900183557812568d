"""Memory outside slabs, extent by extent: large allocations by class, unused pages, arenas."""

from __future__ import annotations

from collections import Counter
from typing import Callable, Dict, List, Mapping, Optional, Tuple

from drain_gdb.analysis.report import ArenaRow, LargeRow, UnusedExtents
from drain_gdb.jemalloc.heap import ACTIVE, DIRTY, MUZZY, RETAINED, STATE_NAMES, Heap

UNUSED = (DIRTY, MUZZY, RETAINED)


Resident = Callable[[int], Optional[int]]
"""Size class of large allocations to how many of their bytes are resident."""


def large_rows(heap: Heap, resident: Resident = lambda _: None) -> Tuple[LargeRow, ...]:
    """Large allocations by size class.

    A small allocation that the profiler has put on an extent of its own counts as one of
    the smallest large class, as jemalloc has it (arena_prof_promote()).
    """
    parameters, extents = heap.layout.parameters, heap.extents
    mask = -parameters.page
    held = {r.pointer & mask for r in heap.tcaches.regions if r.szind >= parameters.nbins}
    active = [kind.state == ACTIVE for kind in extents.kinds]
    classes = [max(kind.szind, parameters.nbins) for kind in extents.kinds]
    sums: Dict[int, List[int]] = {}
    for address, size, kind in zip(extents.address, extents.size, extents.kind):
        if active[kind]:
            total = sums.setdefault(classes[kind], [0, 0, 0, 0])
            cached = address in held
            total[0] += 1
            total[1] += size
            total[2] += cached
            total[3] += size * cached
    there: Dict[int, Optional[int]] = {}
    for szind in {kind.szind for kind in extents.kinds if kind.state == ACTIVE}:
        row, more = max(szind, parameters.nbins), resident(szind)
        there[row] = None if more is None else (there.get(row) or 0) + more
    return tuple(
        LargeRow(szind, parameters.sizes[szind], number, size, cached, cached_bytes, there[szind])
        for szind, (number, size, cached, cached_bytes) in sorted(sums.items())
    )


def unused_extents(heap: Heap) -> Mapping[str, UnusedExtents]:
    """How many extents there are in each unused state, and the largest of each."""
    extents = heap.extents
    counts: Counter[int] = Counter()
    largest: Dict[int, int] = {}
    states = [kind.state for kind in extents.kinds]
    for size, kind in zip(extents.size, extents.kind):
        state = states[kind]
        counts[state] += 1
        if size > largest.get(state, 0):
            largest[state] = size
    return {
        STATE_NAMES[state]: UnusedExtents(counts[state], largest.get(state, 0)) for state in UNUSED
    }


def sampled(heap: Heap) -> Tuple[int, int]:
    """``(bytes, count)`` of small allocations that have an extent of their own."""
    nbins = heap.layout.parameters.nbins
    found = [
        pair
        for kind, pair in heap.extents.sums.items()
        if kind.state == ACTIVE and kind.szind < nbins
    ]
    return sum(size for _, size in found), sum(count for count, _ in found)


def arena_rows(heap: Heap, clock: Optional[int] = None) -> Tuple[ArenaRow, ...]:
    """What each arena holds unused, and whether that goes.

    ``clock`` is the time of the process' machine, on the monotonic clock in nanoseconds.
    """
    unused: Counter[Tuple[int, int]] = Counter()
    for kind, (_, size) in heap.extents.sums.items():
        unused[kind.arena, kind.state] += size
    slabs: Counter[int] = Counter()
    for (slab, _), number in heap.slabs.census.items():
        slabs[slab.arena] += number * heap.bins[slab.szind].slab_size
    rows = []
    for arena in heap.arenas:
        dirty, muzzy = arena.decays.get("dirty"), arena.decays.get("muzzy")
        idle = None
        if clock is not None and dirty is not None and dirty.stepped is not None:
            idle = max(0, clock - dirty.stepped) / 1e9
        rows.append(
            ArenaRow(
                index=arena.index,
                threads=arena.threads,
                slab_bytes=slabs[arena.index],
                dirty_bytes=unused[arena.index, DIRTY],
                muzzy_bytes=unused[arena.index, MUZZY],
                dirty_decay_ms=None if dirty is None else dirty.milliseconds,
                muzzy_decay_ms=None if muzzy is None else muzzy.milliseconds,
                idle_seconds=idle,
            )
        )
    return tuple(rows)


def merged_bytes(heap: Heap) -> int:
    """Bytes of the fewest slabs that would hold what is live if all arenas were one."""
    live: Counter[int] = Counter()
    for (kind, cached), number in heap.slabs.census.items():
        live[kind.szind] += number * (heap.bins[kind.szind].nregs - kind.nfree - cached)
    return sum(
        -(-count // heap.bins[szind].nregs) * heap.bins[szind].slab_size
        for szind, count in live.items()
    )
