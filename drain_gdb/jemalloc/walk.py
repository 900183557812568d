"""The whole walk of one jemalloc, in the order that reads everything once."""

from __future__ import annotations

from drain_gdb.jemalloc.arenas import walk_arenas
from drain_gdb.jemalloc.extents import ExtentWalk
from drain_gdb.jemalloc.heap import Coverage, Heap
from drain_gdb.jemalloc.nonfull import count_nonfull
from drain_gdb.jemalloc.rtree import require_root
from drain_gdb.jemalloc.tcaches import walk_tcaches
from drain_gdb.jemalloc.verify import verify
from drain_gdb.layout.bins import known_bin_infos
from drain_gdb.layout.records import Layout
from drain_gdb.memory import Memory


def walk(memory: Memory, layout: Layout) -> Heap:
    """Walk the jemalloc at ``layout``.

    Raises :class:`~drain_gdb.errors.UnreadableMemory` where its variables cannot be
    read at all; what is missing further down is in :attr:`Heap.coverage`.
    """
    coverage = Coverage()
    read, unreadable = memory.bytes_read, memory.bytes_unreadable
    require_root(memory, layout.rtree)
    bins = known_bin_infos(memory, layout.bin_info, layout.parameters)
    arenas, counters = walk_arenas(memory, layout, bins, coverage)
    # base_t's figures are kept under config_stats alone (base.c).
    statistics = any(arena.base_allocated for arena in arenas)
    tcaches = walk_tcaches(memory, layout, arenas, statistics, coverage)
    walker = ExtentWalk(memory, layout, bins, coverage)
    walker.run(tcaches.regions)
    nonfull = None
    if not statistics:
        nonfull = count_nonfull(memory, layout, counters, len(walker.slabs), coverage)
    verification = verify(
        walker, tcaches, arenas, coverage, counters, bins, layout.parameters, nonfull
    )
    coverage.bytes_read = memory.bytes_read - read
    coverage.bytes_unreadable += memory.bytes_unreadable - unreadable
    return Heap(
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
