"""The report of a sweep, as far as jemalloc's own statistics tell it.

They count slabs and allocated regions a size class.  Which slabs the regions sit in, and
which of them the application has freed into its thread caches, they do not tell.
"""

from __future__ import annotations

from collections import Counter
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from drain_gdb.analysis.report import (
    Allocator,
    BinRow,
    CounterPair,
    CoverageTotals,
    ExtentTotals,
    Occupancy,
    Selection,
    Sweep,
)
from drain_gdb.analysis.sweep import check_arena
from drain_gdb.debuggee.protocol import Process
from drain_gdb.errors import StatisticsError, UsageError
from drain_gdb.jemalloc.heap import Mismatch, Verification
from drain_gdb.jemalloc.statistics import ArenaFigures, BinFigures, Statistics
from drain_gdb.layout.parameters import LG_NGROUP, size_classes

SOURCE = "statistics"
"""``process.source`` of such a report."""
BY = ("bin", "arena")


def sweep_statistics(statistics: Statistics, selection: Selection) -> Sweep:
    """The report of ``statistics``.

    Raises a named error where they do not hold what ``selection`` asks for.
    """
    sections = _sections(statistics, selection)
    size = _served_by(selection, statistics)
    kept = [
        (arena, row)
        for arena, section in sections
        for row in _bins_of(section)
        if size in (None, row.size)
    ]
    mismatches = tuple(_contradictions(statistics))
    whole = _whole(statistics)
    return Sweep(
        process=Process(SOURCE, None, None, None, "none", None),
        allocator=_allocator(statistics),
        selection=selection,
        totals=_occupancy([row for _, row in kept]),
        bins=tuple(_rows(kept, selection.by)),
        slabs=None,
        extents=_extents(statistics),
        requests=CounterPair(None, None),
        arena_counters=CounterPair(
            sum(row.nmalloc for section in whole for row in _bins_of(section)),
            sum(row.ndalloc for section in whole for row in _bins_of(section)),
        ),
        verification=Verification(
            status="mismatch" if mismatches else "unavailable",
            slabs_walked=0,
            slabs_recorded=sum(row.curslabs for section in whole for row in _bins_of(section)),
            regions_walked=0,
            regions_recorded=sum(row.curregs for section in whole for row in _bins_of(section)),
            mismatches=mismatches,
        ),
        coverage=CoverageTotals(statistics.length, 0, 0, 0, 0, statistics.remarks),
    )


def _whole(statistics: Statistics) -> List[ArenaFigures]:
    """The sections that are all arenas together."""
    if statistics.merged is not None:
        return [statistics.merged]
    return list(statistics.arenas.values())


def _sections(
    statistics: Statistics, selection: Selection
) -> List[Tuple[Optional[int], ArenaFigures]]:
    """The sections that rows are made of, each with its arena where that is known."""
    if selection.by not in BY:
        raise UsageError(
            f"statistics do not tell one {selection.by} from another", f"--by {' or '.join(BY)}"
        )
    split = selection.by == "arena" or selection.arena is not None
    if split and not statistics.arenas:
        raise UsageError(
            "these statistics do not tell one arena from another",
            "print them without the option a",
        )
    if not split:
        return [(None, section) for section in _whole(statistics)]
    check_arena(selection, sorted(statistics.arenas))
    return [
        (index, section)
        for index, section in sorted(statistics.arenas.items())
        if selection.arena in (None, index)
    ]


def _bins_of(section: ArenaFigures) -> Tuple[BinFigures, ...]:
    if section.bins is None:
        raise StatisticsError(
            "the statistics hold no size classes", "print them without the option b"
        )
    return section.bins


def _served_by(selection: Selection, statistics: Statistics) -> Optional[int]:
    """The size class that was asked for."""
    if selection.size is None:
        return None
    classes = size_classes(statistics.quantum.bit_length() - 1)
    largest = max(size for size in classes if size < statistics.page << LG_NGROUP)
    if selection.size > largest:
        raise UsageError(
            f"{selection.size} bytes is no small size",
            f"slabs hold regions of 1 to {largest} bytes",
        )
    return next(size for size in classes if size >= selection.size)


def _rows(kept: Sequence[Tuple[Optional[int], BinFigures]], by: str) -> Iterator[BinRow]:
    """One row a size class, split by arena where ``by`` says so."""
    groups: Dict[Tuple[int, int], List[BinFigures]] = {}
    for arena, row in kept:
        named = -1 if arena is None or by == "bin" else arena
        groups.setdefault((named, row.index), []).append(row)
    for (arena, index), rows in sorted(groups.items()):
        state = _occupancy(rows)
        if state.slabs:
            first = rows[0]
            yield BinRow(
                arena=None if arena < 0 else arena,
                shard=None,
                index=index,
                size=first.size,
                slab_size=first.slab_size,
                nregs=first.nregs,
                state=state,
            )


def _occupancy(rows: Sequence[BinFigures]) -> Occupancy:
    return Occupancy(
        slabs=sum(row.curslabs for row in rows),
        empty=None,
        cache_held=None,
        regions=sum(row.curslabs * row.nregs for row in rows),
        allocated=sum(row.curregs for row in rows),
        cached=None,
        slab_bytes=sum(row.curslabs * row.slab_size for row in rows),
        allocated_bytes=sum(row.curregs * row.size for row in rows),
        cached_bytes=None,
        drainable_bytes=None,
        ideal_slabs=None,
        histogram=None,
    )


def _allocator(statistics: Statistics) -> Allocator:
    arenas = len(statistics.arenas) or statistics.narenas
    return Allocator(
        name="jemalloc",
        version=statistics.version,
        symbol_prefix=None,
        layout_source=None,
        page_size=statistics.page,
        statistics=True,
        arenas=arenas or 0,
        thread_caches=None,
        module=None,
        others=(),
        thread_cache_bytes=_sum(section.tcache for section in _whole(statistics)),
    )


def _sum(values: Iterable[Optional[int]]) -> Optional[int]:
    """The sum of ``values``; None where one is not known, or there are none."""
    known = list(values)
    return sum(v for v in known if v is not None) if known and None not in known else None


def _extents(statistics: Statistics) -> ExtentTotals:
    """What lies outside slabs: active pages but those of slabs are large allocations'."""
    whole = _whole(statistics)
    page = statistics.page
    slab_bytes = sum(row.curslabs * row.slab_size for part in whole for row in _bins_of(part))
    active = _sum(part.active_pages for part in whole)
    dirty = _sum(part.dirty_pages for part in whole)
    muzzy = _sum(part.muzzy_pages for part in whole)
    counts = [None if p.extents is None else sum(e.count for e in p.extents) for p in whole]
    return ExtentTotals(
        large_bytes=None if active is None else active * page - slab_bytes,
        large_count=_sum(counts),
        large_cached_bytes=None,
        large_cached_count=None,
        dirty_bytes=None if dirty is None else dirty * page,
        muzzy_bytes=None if muzzy is None else muzzy * page,
        retained_bytes=_sum(part.retained for part in whole),
        pinned_bytes=_sum(part.pinned for part in whole),
        hpa_cached_bytes=None,
        transition_bytes=None,
        metadata_bytes=_sum(part.base for part in whole),
    )


def _contradictions(statistics: Statistics) -> Iterator[Mismatch]:
    """Where the rows do not add up to the sums beside them: lines are missing.

    Bin by bin the arenas' slabs and regions make those of all merged; in each section
    the size classes make its bytes.
    """
    if statistics.merged is not None and statistics.arenas:
        merged = {row.index: row for row in _bins_of(statistics.merged)}
        slabs: Counter[int] = Counter()
        regions: Counter[int] = Counter()
        for section in statistics.arenas.values():
            for row in _bins_of(section):
                slabs[row.index] += row.curslabs
                regions[row.index] += row.curregs
        for index in sorted({*slabs, *merged}):
            of_all = merged.get(index)
            for what, found, stated in (
                ("slabs", slabs[index], of_all.curslabs if of_all else 0),
                ("regions", regions[index], of_all.curregs if of_all else 0),
            ):
                if found != stated:
                    yield Mismatch(None, index, f"{what} of all arenas", found, stated)
    for index, section in statistics.arenas.items():
        yield from _sums(index, section)
    if statistics.merged is not None:
        yield from _sums(None, statistics.merged)


def _sums(arena: Optional[int], section: ArenaFigures) -> Iterator[Mismatch]:
    small = sum(row.curregs * row.size for row in _bins_of(section))
    if section.small is not None and small != section.small:
        yield Mismatch(arena, None, "bytes of small regions", small, section.small)
    if section.extents is not None and section.large is not None:
        large = sum(row.count * row.size for row in section.extents)
        # From 5.3.1 on an allocation may be smaller than its size class.
        if large < section.large:
            yield Mismatch(arena, None, "bytes of large allocations", large, section.large)
    for row in _bins_of(section):
        if row.curregs > row.curslabs * row.nregs:
            room = row.curslabs * row.nregs
            yield Mismatch(arena, row.index, "regions, of room for", room, row.curregs)
