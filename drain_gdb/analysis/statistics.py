"""The report of a sweep, as far as jemalloc's own statistics tell it.

They count slabs and allocated regions a size class.  Which slabs the regions sit in, and
which of them the application has freed into its thread caches, they do not tell.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from drain_gdb.analysis.causes import find_causes, telling
from drain_gdb.analysis.report import (
    Account,
    Allocator,
    ArenaRow,
    BinRow,
    CounterPair,
    CoverageTotals,
    ExtentTotals,
    LargeRow,
    Occupancy,
    Part,
    Selection,
    Sweep,
)
from drain_gdb.analysis.sweep import check_arena
from drain_gdb.debuggee.protocol import Process
from drain_gdb.errors import StatisticsError, UsageError
from drain_gdb.jemalloc.heap import Mismatch, Verification
from drain_gdb.jemalloc.settings import HUGE_PAGES, METADATA_HUGE_PAGES, Settings
from drain_gdb.jemalloc.statistics import ArenaFigures, BinFigures, Statistics
from drain_gdb.layout.parameters import LG_NGROUP, size_classes
from drain_gdb.layout.versions import release_key

SOURCE = "statistics"
"""``process.source`` of such a report."""
BY = ("bin", "arena", "large")


def sweep_statistics(
    statistics: Statistics, selection: Selection, every_cause: bool = True
) -> Sweep:
    """The report of ``statistics``; unless ``every_cause``, without the small ones.

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
    report = Sweep(
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
        account=_account(statistics),
        large=tuple(_large(whole)),
        arenas=tuple(_arenas(statistics)),
        settings=_settings(statistics),
    )
    if report.account is None or not selection.whole:
        return report
    causes = find_causes(report.account, {0: report})
    return replace(report, causes=causes if every_cause else telling(report.account, causes))


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


def _account(statistics: Statistics) -> Optional[Account]:
    """What jemalloc says is resident: its own memory, every page that is not retained.

    What it has beyond active and unused pages is metadata (arena_stats_merge(), arena.c).
    """
    extents, whole = _extents(statistics), _whole(statistics)
    rows = [row for section in whole for row in _bins_of(section)]
    slabs = _occupancy(rows)
    resident = _sum(part.resident for part in whole)
    large, dirty, muzzy = extents.large_bytes, extents.dirty_bytes, extents.muzzy_bytes
    if resident is None or large is None or dirty is None or muzzy is None:
        return None
    known = slabs.slab_bytes + large + dirty
    # Muzzy pages count as resident before 5.3, and not from then on.
    muzzy_there = muzzy if release_key(statistics.version or "0.0.0") < (5, 3, 0) else 0
    metadata = resident - known - muzzy_there
    parts = (
        ("allocated", slabs.allocated_bytes, slabs.allocated_bytes),
        ("free", slabs.free_bytes, slabs.free_bytes),
        ("large", large, large),
        ("dirty", dirty, dirty),
        ("muzzy", muzzy, muzzy_there),
        ("retained", extents.retained_bytes, 0),
        ("metadata", extents.metadata_bytes, metadata),
    )
    if metadata < 0:
        return None
    made = [Part(name, 0, size, there) for name, size, there in parts if size is not None]
    return Account(resident, SOURCE, tuple(made))


def _large(whole: Sequence[ArenaFigures]) -> Iterator[LargeRow]:
    counts: Counter[Tuple[int, int]] = Counter()
    for section in whole:
        for row in section.extents or ():
            counts[row.index, row.size] += row.count
    for (index, size), count in sorted(counts.items()):
        yield LargeRow(index, size, count, count * size, None, None, None)


def _arenas(statistics: Statistics) -> Iterator[ArenaRow]:
    for index, arena in sorted(statistics.arenas.items()):
        yield ArenaRow(
            index=index,
            threads=arena.threads,
            slab_bytes=sum(row.curslabs * row.slab_size for row in _bins_of(arena)),
            dirty_bytes=(arena.dirty_pages or 0) * statistics.page,
            muzzy_bytes=(arena.muzzy_pages or 0) * statistics.page,
            dirty_decay_ms=arena.dirty_decay_ms,
            muzzy_decay_ms=arena.muzzy_decay_ms,
        )


def _settings(statistics: Statistics) -> Settings:
    """What the options said, and what is said of threads that purge."""
    said = {**statistics.settings, **statistics.current}

    def truth(name: str) -> Optional[bool]:
        value = said.get(name)
        return value if isinstance(value, bool) else None

    def number(name: str) -> Optional[int]:
        value = said.get(name)
        return None if isinstance(value, bool) or not isinstance(value, int) else value

    def word(name: str, words: Sequence[str]) -> Optional[str]:
        value = said.get(name)
        return value if isinstance(value, str) and value in words else None

    background = truth("background_thread")
    if statistics.background_threads:
        background = True
    lg_tcache_max = number("lg_tcache_max")
    percpu_arena = said.get("percpu_arena")
    return Settings(
        background_thread=background,
        arenas=number("narenas"),
        percpu_arena=None if percpu_arena is None else percpu_arena != "disabled",
        profiling=truth("prof"),
        lg_prof_sample=number("lg_prof_sample"),
        huge_pages=word("thp", HUGE_PAGES),
        metadata_huge_pages=word("metadata_thp", METADATA_HUGE_PAGES),
        tcache_max=number("tcache_max")
        if lg_tcache_max is None or not 0 <= lg_tcache_max < 64
        else 1 << lg_tcache_max,
        sources=dict.fromkeys(said, "the statistics"),
    )
