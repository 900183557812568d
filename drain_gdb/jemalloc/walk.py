"""The whole walk of one jemalloc, in the order that reads everything once."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

from drain_gdb.jemalloc.arenas import walk_arenas
from drain_gdb.jemalloc.classes import find_bins
from drain_gdb.jemalloc.extents import ExtentWalk, Memo
from drain_gdb.jemalloc.heap import Coverage, Heap
from drain_gdb.jemalloc.nonfull import count_nonfull
from drain_gdb.jemalloc.rtree import require_root
from drain_gdb.jemalloc.tcaches import walk_tcaches
from drain_gdb.jemalloc.verify import believable, verify
from drain_gdb.layout.records import Layout
from drain_gdb.memory import Memory

NO_ARENAS = "the arenas, and with them jemalloc's own counters"
NO_CACHES = "the thread caches, so that the regions they hold count as live"


def walk(memory: Memory, layout: Layout, memo: Optional[Memo] = None) -> Heap:
    """Walk the jemalloc at ``layout``, with the ``memo`` of the walks of it before.

    Raises :class:`~drain_gdb.errors.UnreadableMemory` where the rtree's root cannot be
    read at all; whatever else is missing is in :attr:`Heap.coverage`.
    """
    coverage = Coverage()
    read, unreadable = memory.bytes_read, memory.bytes_unreadable
    require_root(memory, layout.rtree)
    bins = find_bins(memory, layout, coverage)
    arenas, counters = walk_arenas(memory, layout, bins, coverage)
    # base_t's figures are kept under config_stats alone (base.c).
    statistics: Optional[bool] = any(arena.base_allocated for arena in arenas)
    tcaches = walk_tcaches(memory, layout, arenas, bool(statistics), coverage)
    walker = ExtentWalk(memory, layout, bins, coverage, memo=memo)
    walker.run(tcaches.regions)
    if not arenas and (walker.slabs or walker.extents.address):
        statistics = None
        coverage.missing += [NO_ARENAS] if tcaches.reached_by else [NO_ARENAS, NO_CACHES]
    nonfull = None
    if not statistics:
        nonfull = count_nonfull(memory, layout, counters, len(walker.slabs), coverage)
    verification = verify(
        walker, tcaches, arenas, coverage, counters, bins, layout.parameters, nonfull
    )
    coverage.bytes_read = memory.bytes_read - read
    coverage.bytes_unreadable += memory.bytes_unreadable - unreadable
    heap = Heap(
        layout=layout,
        bins=bins,
        slabs=walker.slabs,
        extents=walker.extents,
        arenas=arenas,
        counters=counters,
        tcaches=tcaches,
        large_cached=(walker.large_cached[0], walker.large_cached[1]),
        statistics=statistics,
        verification=verification,
        coverage=coverage,
    )
    return replace(heap, believed=believable(heap))
