"""Occupancy and DSR of a walked heap."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

from drain_gdb.analysis.columns import extent_columns
from drain_gdb.analysis.counters import arena_pair, request_pair
from drain_gdb.analysis.large import (
    Resident,
    arena_rows,
    large_rows,
    merged_bytes,
    sampled,
    unused_extents,
)
from drain_gdb.analysis.report import (
    BUCKETS,
    Account,
    Allocator,
    BinRow,
    CoverageTotals,
    ExtentRow,
    ExtentTotals,
    Occupancy,
    Selection,
    SlabRow,
    Sweep,
    Tolerance,
)
from drain_gdb.debuggee.protocol import Process
from drain_gdb.errors import UsageError
from drain_gdb.jemalloc.heap import (
    ACTIVE,
    BY_THREADS,
    DIRTY,
    HPA_CACHED,
    MUZZY,
    PINNED,
    RETAINED,
    Heap,
    SlabKind,
)
from drain_gdb.jemalloc.settings import Settings
from drain_gdb.jemalloc.verify import TOLERANCE, difference
from drain_gdb.layout.bins import BinInfo

VIEWS = ("bin", "arena", "shard", "slab", "large", "extent")


@dataclass
class _Tally:
    """Sums over the slabs of one bin shard of one arena."""

    info: BinInfo
    slabs: int = 0
    empty: int = 0
    cache_held: int = 0
    allocated: int = 0
    cached: int = 0
    histogram: List[int] = field(default_factory=lambda: [0] * BUCKETS)

    def add(self, kind: SlabKind, cached: int, number: int) -> None:
        """Add ``number`` slabs of ``kind``, each with ``cached`` regions cached."""
        nregs = self.info.nregs
        allocated = nregs - kind.nfree
        live = allocated - cached
        self.slabs += number
        self.allocated += number * allocated
        self.cached += number * cached
        if allocated == 0:
            self.empty += number
        elif live == 0:
            self.cache_held += number
        self.histogram[min(BUCKETS - 1, live * BUCKETS // nregs)] += number


def sweep(
    heap: Heap,
    process: Process,
    selection: Selection,
    others: Sequence[str] = (),
    account: Optional[Account] = None,
    settings: Optional[Settings] = None,
    resident: Resident = lambda _: None,
) -> Sweep:
    """The report of ``heap``, with the ``account`` of its process.

    ``settings`` are its own, ``resident`` tells how much of large classes is resident.

    Raises :class:`~drain_gdb.errors.UsageError` where ``selection`` names an
    arena or a size that is not there.
    """
    _check(heap, selection)
    tallies: Dict[Tuple[int, int, int], _Tally] = {}
    for (kind, cached), number in heap.slabs.census.items():
        if _selected(kind, heap, selection):
            key = (kind.arena, kind.szind, kind.shard)
            tally = tallies.setdefault(key, _Tally(heap.bins[kind.szind]))
            tally.add(kind, cached, number)
    return Sweep(
        process=process,
        allocator=_allocator(heap, others),
        selection=selection,
        totals=_occupancy(tallies, heap.believed),
        bins=tuple(_rows(tallies, selection.by, heap.believed)),
        slabs=tuple(_slabs(heap, selection)) if selection.by == "slab" else None,
        extents=_extents(heap),
        requests=request_pair(heap),
        arena_counters=arena_pair(heap),
        verification=heap.verification,
        coverage=coverage_totals(heap, process.damage),
        tolerance=None if process.in_motion is None else _tolerance(heap),
        account=account,
        believed=heap.believed,
        large=large_rows(heap, resident),
        arenas=arena_rows(heap, None if settings is None else settings.clock),
        merged_bytes=merged_bytes(heap),
        settings=settings,
        extent_rows=tuple(_extent_rows(heap, selection)) if selection.by == "extent" else None,
    )


def coverage_totals(heap: Heap, damage: Optional[str] = None) -> CoverageTotals:
    """How much of ``heap``, in a file with some ``damage``, was read and what was found wrong."""
    missing = list(heap.coverage.missing)
    if damage is not None:
        missing.append(f"part of the file, which is damaged: {damage}")
    return CoverageTotals(
        bytes_read=heap.coverage.bytes_read,
        bytes_unreadable=heap.coverage.bytes_unreadable,
        slabs_unreadable=heap.coverage.slabs_unreadable,
        caches_unreadable=heap.tcaches.unreadable,
        arenas_unreadable=heap.coverage.arenas_unreadable,
        anomalies=_anomalies(heap),
        missing=tuple(missing),
    )


def _tolerance(heap: Heap) -> Tolerance:
    known = heap.verification.status != "unavailable"
    return Tolerance(stated=TOLERANCE, reached=difference(heap) if known else None)


def check_arena(selection: Selection, present: Sequence[int]) -> None:
    """Refuse an arena that is not there."""
    if selection.arena is not None and selection.arena not in present:
        listed = ", ".join(map(str, present[:16])) + (", ..." if len(present) > 16 else "")
        raise UsageError(f"there is no arena {selection.arena}", f"the arenas are: {listed}")


def _check(heap: Heap, selection: Selection) -> None:
    check_arena(selection, [arena.index for arena in heap.arenas])
    if selection.size is not None and szind_of(heap.bins, selection.size) is None:
        raise UsageError(
            f"{selection.size} bytes is no small size",
            f"slabs hold regions of 1 to {heap.bins[-1].reg_size} bytes",
        )


def szind_of(bins: Sequence[BinInfo], size: int) -> Optional[int]:
    """The size class that serves a request of ``size`` bytes; None if no bin does."""
    if size > 0:
        for szind, info in enumerate(bins):
            if size <= info.reg_size:
                return szind
    return None


def _selected(kind: SlabKind, heap: Heap, selection: Selection) -> bool:
    if selection.arena is not None and kind.arena != selection.arena:
        return False
    return selection.size is None or kind.szind == szind_of(heap.bins, selection.size)


def _occupancy(
    tallies: Dict[Tuple[int, int, int], _Tally], believed: bool, by_shard: bool = False
) -> Occupancy:
    """The sum of ``tallies``; ideal slabs per arena and bin, or per shard."""
    live: Dict[Tuple[int, ...], int] = {}
    for key, tally in tallies.items():
        group = key if by_shard else key[:2]
        live[group] = live.get(group, 0) + tally.allocated - tally.cached
    nregs = {key[1]: tally.info.nregs for key, tally in tallies.items()}
    parts = tallies.values()
    return Occupancy(
        slabs=sum(t.slabs for t in parts),
        empty=sum(t.empty for t in parts),
        cache_held=sum(t.cache_held for t in parts),
        regions=sum(t.slabs * t.info.nregs for t in parts),
        allocated=sum(t.allocated for t in parts),
        cached=sum(t.cached for t in parts),
        slab_bytes=sum(t.slabs * t.info.slab_size for t in parts),
        allocated_bytes=sum(t.allocated * t.info.reg_size for t in parts),
        cached_bytes=sum(t.cached * t.info.reg_size for t in parts),
        drainable_bytes=sum((t.empty + t.cache_held) * t.info.slab_size for t in parts),
        ideal_slabs=sum(-(-count // nregs[group[1]]) for group, count in live.items()),
        histogram=tuple(sum(t.histogram[i] for t in parts) for i in range(BUCKETS)),
        believed=believed,
    )


def _rows(tallies: Dict[Tuple[int, int, int], _Tally], by: str, believed: bool) -> Iterable[BinRow]:
    """One row a size class, split by arena or shard where ``by`` says so."""
    groups: Dict[Tuple[int, int, int], Dict[Tuple[int, int, int], _Tally]] = {}
    for key, tally in tallies.items():
        arena, szind, shard = key
        name = (
            arena if by in ("arena", "shard") else -1,
            szind,
            shard if by == "shard" else -1,
        )
        groups.setdefault(name, {})[key] = tally
    for (arena, szind, shard), members in sorted(groups.items()):
        info = next(iter(members.values())).info
        yield BinRow(
            arena=None if arena < 0 else arena,
            shard=None if shard < 0 else shard,
            index=szind,
            size=info.reg_size,
            slab_size=info.slab_size,
            nregs=info.nregs,
            state=_occupancy(members, believed, by_shard=by == "shard"),
        )


def _slabs(heap: Heap, selection: Selection) -> Iterable[SlabRow]:
    """Every selected slab, by address."""
    slabs = heap.slabs
    for row in sorted(range(len(slabs)), key=slabs.address.__getitem__):
        kind = slabs.kinds[slabs.kind[row]]
        if _selected(kind, heap, selection):
            info = heap.bins[kind.szind]
            yield SlabRow(
                address=slabs.address[row],
                arena=kind.arena,
                shard=kind.shard,
                index=kind.szind,
                size=info.reg_size,
                nregs=info.nregs,
                allocated=info.nregs - kind.nfree,
                cached=slabs.cached.get(row, 0),
            )


def _extent_rows(heap: Heap, selection: Selection) -> Iterable[ExtentRow]:
    """Every extent of the selected arena that is no slab, by address."""
    columns, parameters = extent_columns(heap), heap.layout.parameters
    for row in sorted(range(len(columns)), key=columns.address.__getitem__):
        state, szind = columns.state[row], max(columns.index[row], parameters.nbins)
        if selection.arena in (None, columns.arena[row]):
            yield ExtentRow(
                address=columns.address[row],
                arena=columns.arena[row],
                state=columns.states[state],
                size=parameters.sizes[szind] if state == ACTIVE else None,
                bytes=columns.size[row],
            )


def _allocator(heap: Heap, others: Sequence[str]) -> Allocator:
    layout = heap.layout
    return Allocator(
        name="jemalloc",
        version=layout.version,
        symbol_prefix=layout.prefix,
        layout_source=layout.source,
        page_size=layout.parameters.page,
        statistics=heap.statistics,
        arenas=len(heap.arenas),
        thread_caches=len(heap.tcaches.descriptors),
        module=layout.module,
        others=tuple(others),
        thread_cache_bytes=_cached_bytes(heap),
    )


def _cached_bytes(heap: Heap) -> Optional[int]:
    """Of all that thread caches hold; None where these were not reached."""
    if heap.tcaches.reached_by is None:
        return None
    census = heap.slabs.census.items()
    small = sum(n * cached * heap.bins[kind.szind].reg_size for (kind, cached), n in census)
    return small + heap.large_cached[1]


def _extents(heap: Heap) -> ExtentTotals:
    sums = heap.extents.sums

    def total(state: int) -> Tuple[int, int]:
        found = [pair for kind, pair in sums.items() if kind.state == state]
        return sum(count for count, _ in found), sum(size for _, size in found)

    large_count, large_bytes = total(ACTIVE)
    known = [ACTIVE, DIRTY, MUZZY, RETAINED, HPA_CACHED] + [PINNED] * heap.has_pinned
    sampled_bytes, sampled_count = sampled(heap)
    metadata = sum(arena.base_allocated for arena in heap.arenas)
    return ExtentTotals(
        large_bytes=large_bytes,
        large_count=large_count,
        large_cached_bytes=heap.large_cached[1],
        large_cached_count=heap.large_cached[0],
        dirty_bytes=total(DIRTY)[1],
        muzzy_bytes=total(MUZZY)[1],
        retained_bytes=total(RETAINED)[1],
        pinned_bytes=total(PINNED)[1] if heap.has_pinned else 0,
        hpa_cached_bytes=total(HPA_CACHED)[1],
        transition_bytes=sum(size for kind, (_, size) in sums.items() if kind.state not in known),
        metadata_bytes=metadata if heap.statistics else None,
        sampled_bytes=sampled_bytes,
        sampled_count=sampled_count,
        unused=unused_extents(heap),
    )


def _anomalies(heap: Heap) -> Tuple[str, ...]:
    found = list(heap.coverage.anomalies)
    if heap.coverage.dropped:
        found.append(f"and {heap.coverage.dropped} more like these")
    off = "the arenas are missing" if heap.statistics is None else "statistics are off"
    if heap.tcaches.reached_by == BY_THREADS:
        found.append(
            f"{off} in this jemalloc: thread caches were reached through the threads;"
            " regions in explicit ones (tcache.create), if there are any, count as live"
        )
    elif heap.tcaches.reached_by is None and heap.statistics is not None:
        found.append(
            "statistics are off in this jemalloc and its list of threads was not found: thread"
            " caches could not be reached, so regions they hold count as live"
        )
    return tuple(found)
