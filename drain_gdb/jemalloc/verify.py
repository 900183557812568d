"""The walk against what the allocator itself has counted.

jemalloc keeps, per bin shard, the slabs and regions it has handed out, and per
arena the pages that are active, dirty, muzzy and retained and the extant large
allocations.  None of these figures is used by the walk, so equality proves it.
Without them there are the bins' own lists of slabs with free regions (nonfull.py).
"""

from __future__ import annotations

from collections import Counter
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from drain_gdb.jemalloc.extents import ExtentWalk
from drain_gdb.jemalloc.heap import (
    ACTIVE,
    STATE_NAMES,
    Arena,
    BinCounters,
    Census,
    Coverage,
    Extents,
    Heap,
    InFlight,
    Mismatch,
    ThreadCaches,
    Verification,
)
from drain_gdb.jemalloc.nonfull import BinKey
from drain_gdb.layout.bins import BinInfo
from drain_gdb.layout.parameters import Parameters

BITMAPS = "slabs whose bitmap equals nfree"
CACHED = "cached regions in place"
NONFULL = "slabs with free regions"
LISTED = "extents as the rtree has them"
KNOWN = "extents of arenas that are there"
READ = "thread caches that could be read"
ARENAS = "arenas that could be read"
ArenaAndClass = Tuple[Optional[int], Optional[int]]
CLASSES = "size classes as bin_infos has them"
TOLERANCE = 0.001
"""Of what a process read in motion may be off by: one slab, region or page in a thousand."""
STRUCTURAL_MOST = 0.5
FIGURES_LEAST = 0.5
NEARLY = 0.05
"""A walk is believed whose bitmaps and places contradict the extents in fewer cases than that,
and whose bins have as many slabs or regions as they say in more than that, or all but as many:
off by less than the last.  With a wrong layout, counters and extents have nothing to do with
each other; with the right one, damage has to be everywhere."""


def verify(
    walker: ExtentWalk,
    tcaches: ThreadCaches,
    arenas: Sequence[Arena],
    coverage: Coverage,
    counters: Sequence[BinCounters],
    bins: Sequence[BinInfo],
    parameters: Parameters,
    nonfull: Optional[Mapping[BinKey, int]],
) -> Verification:
    """Compare bin by bin and arena by arena.

    Without statistics only what the structures say of each other is compared; then
    ``nonfull`` counts the slabs with free regions that each bin shard lists.
    """
    slabs, extents = walker.slabs, walker.extents
    walked_slabs: Counter[BinKey] = Counter()
    walked_regions: Counter[BinKey] = Counter()
    active: Counter[int] = Counter()
    census = slabs.census
    for (kind, _), number in census.items():
        key = (kind.arena, kind.szind, kind.shard)
        info = bins[kind.szind]
        walked_slabs[key] += number
        walked_regions[key] += number * (info.nregs - kind.nfree)
        active[kind.arena] += number * info.slab_size
    in_flight = tuple(_locked(arenas, counters))
    slabs_walked, regions_walked = sum(walked_slabs.values()), sum(walked_regions.values())
    structural = _structure(walker, tcaches, arenas, bins, coverage, census, walked_slabs)
    if nonfull is not None:
        structural += _listed(census, nonfull)
        status = "mismatch" if structural else "unavailable"
        differing = tuple(structural)
        return Verification(status, slabs_walked, None, regions_walked, None, differing, in_flight)
    recorded = {(c.arena, c.szind, c.shard): c for c in counters}
    mismatches = list(structural)
    # Of an arena that could not be read there are no figures to compare with.
    known = {arena.index for arena in arenas}
    for key in sorted(recorded.keys() | {key for key in walked_slabs if key[0] in known}):
        counted = recorded.get(key)
        for what, walked, theirs in (
            ("slabs", walked_slabs[key], counted.curslabs if counted else 0),
            ("regions", walked_regions[key], counted.curregs if counted else 0),
        ):
            if walked != theirs:
                mismatches.append(Mismatch(key[0], key[1], what, walked, theirs))
    mismatches += _pages(extents, arenas, active, parameters)
    threads = max(1, len(tcaches.descriptors))
    in_flight += tuple(_on_their_way(mismatches, len(structural), threads))
    return Verification(
        "mismatch" if mismatches else "exact",
        slabs_walked,
        sum(c.curslabs for c in counters),
        regions_walked,
        sum(c.curregs for c in counters),
        tuple(mismatches),
        in_flight,
    )


def _locked(arenas: Sequence[Arena], counters: Sequence[BinCounters]) -> Iterator[InFlight]:
    for arena in arenas:
        for what in arena.held:
            yield InFlight(arena.index, None, None, what)
    for shard in counters:
        if shard.held:
            yield InFlight(shard.arena, shard.szind, shard.shard, "bin locked")


def _on_their_way(
    mismatches: Sequence[Mismatch], structural: int, threads: int
) -> Iterator[InFlight]:
    """Slabs that a bin has in its count and the rtree does not, or the other way round.

    A thread makes or lets go one slab at a time, between two holds of the bin's lock
    (arena_slab_alloc(), arena_slab_dalloc()); where the structures contradict each other
    as well, it is more than that.
    """
    for item in mismatches:
        off = abs((item.walked or 0) - (item.recorded or 0))
        if item.what == "slabs" and item.arena is not None and not structural and off <= threads:
            yield InFlight(item.arena, item.index, None, "slab made or let go")


def difference(heap: Heap) -> float:
    """By how much the walk and the allocator's own figures differ; 0 where nothing does.

    Of slabs, regions, pages, large extents and cached regions each, the sum of what
    every bin and arena is off by, up or down, as a share of all there are; the largest
    of these shares.
    """
    found = heap.verification
    pages = sum((arena.nactive or 0) + sum(arena.cached_pages.values()) for arena in heap.arenas)
    totals = {
        "slabs": found.slabs_recorded or 0,
        "regions": found.regions_recorded or 0,
        "large extents": sum(sum((arena.large or {}).values()) for arena in heap.arenas),
        BITMAPS: found.slabs_walked,
        NONFULL: found.slabs_walked,
        CACHED: len(heap.tcaches.regions),
        LISTED: found.slabs_walked + len(heap.extents.address),
        KNOWN: found.slabs_walked + len(heap.extents.address),
        CLASSES: len(heap.bins),
        READ: heap.tcaches.whole + heap.tcaches.unreadable,
        ARENAS: len(heap.arenas) + heap.coverage.arenas_unreadable,
    }
    off: Counter[str] = Counter()
    for item in found.mismatches:
        kind = item.what if item.what in totals else "pages"
        off[kind] += abs((item.walked or 0) - (item.recorded or 0))
    return max((count / max(1, totals.get(kind, pages)) for kind, count in off.items()), default=0)


def believable(heap: Heap) -> bool:
    """Whether ``heap`` is one of jemalloc's, damaged or in motion maybe, and no chance reading."""
    found = heap.verification
    if found.status != "mismatch" or heap.layout.source == "dwarf":
        return True
    off: Counter[str] = Counter()
    for item in found.mismatches:
        off[item.what] += abs((item.walked or 0) - (item.recorded or 0))
    number = found.slabs_walked + len(heap.extents.address)
    if not found.slabs_walked or max(off[BITMAPS], off[LISTED]) > STRUCTURAL_MOST * number:
        return False
    if not heap.statistics or heap.coverage.missing:
        return off[NONFULL] <= STRUCTURAL_MOST * found.slabs_walked
    shards = _shards(heap)
    differing = _differing(heap, "slabs") & _differing(heap, "regions")
    nearly = all(
        total and off[what] < NEARLY * total
        for what, total in (("slabs", found.slabs_recorded), ("regions", found.regions_recorded))
    )
    return nearly or len(shards - differing) > FIGURES_LEAST * len(shards)


def _shards(heap: Heap) -> Set[ArenaAndClass]:
    """The bins of arenas that could be read that have slabs, or say so."""
    used = {(c.arena, c.szind) for c in heap.counters if c.curslabs or c.curregs}
    known = {arena.index for arena in heap.arenas}
    return used | {(k.arena, k.szind) for k, _ in heap.slabs.census if k.arena in known}


def _differing(heap: Heap, what: str) -> Set[ArenaAndClass]:
    """The bins with other slabs or regions than jemalloc says, for no known reason.

    Where extents could not be read, there may be fewer.
    """
    few = heap.coverage.slabs_unreadable or heap.coverage.bytes_unreadable
    return {
        (item.arena, item.index)
        for item in heap.verification.mismatches
        if item.what == what and not (few and (item.walked or 0) < (item.recorded or 0))
    }


def _structure(
    walker: ExtentWalk,
    tcaches: ThreadCaches,
    arenas: Sequence[Arena],
    bins: Sequence[BinInfo],
    coverage: Coverage,
    census: Census,
    walked: Counter[BinKey],
) -> List[Mismatch]:
    """What the structures say of each other.

    Extents that lie elsewhere than the rtree has them, or in no known arena; slabs whose
    bitmap contradicts nfree; cached regions that lie nowhere.  Arenas that were not read,
    for they may have slabs; thread caches that were not, for their regions count as live.
    """
    found = []
    slabs, extents = walker.slabs, walker.extents
    number = len(slabs) + len(extents.address)
    if walker.displaced:
        found.append(Mismatch(None, None, LISTED, number - walker.displaced, number))
    if coverage.arenas_unreadable:
        whole = len(arenas)
        found.append(Mismatch(None, None, ARENAS, whole, whole + coverage.arenas_unreadable))
    if coverage.bins_wrong:
        found.append(Mismatch(None, None, CLASSES, len(bins) - coverage.bins_wrong, len(bins)))
    known = {arena.index for arena in arenas}
    strange = sum(count for (kind, _), count in census.items() if kind.arena not in known)
    strange += sum(count for k, (count, _) in extents.sums.items() if k.arena not in known)
    if known and strange:
        found.append(Mismatch(None, None, KNOWN, number - strange, number))
    if tcaches.unreadable:
        whole = tcaches.whole
        found.append(Mismatch(None, None, READ, whole, whole + tcaches.unreadable))
    for (arena, szind), wrong in sorted(walker.miscounted.items()):
        number = sum(n for key, n in walked.items() if key[:2] == (arena, szind))
        found.append(Mismatch(arena, szind, BITMAPS, number - wrong, number))
    for szind, held in sorted(walker.held.items()):
        if walker.placed[szind] != held:
            found.append(Mismatch(None, szind, CACHED, walker.placed[szind], held))
    return found


def _listed(census: Census, nonfull: Mapping[BinKey, int]) -> Iterator[Mismatch]:
    """Bin by bin: the slabs with free regions that were walked and that the bin lists."""
    walked: Counter[BinKey] = Counter()
    for (kind, _), number in census.items():
        if kind.nfree:
            walked[kind.arena, kind.szind, kind.shard] += number
    for key, listed in sorted(nonfull.items()):
        if walked[key] != listed:
            yield Mismatch(key[0], key[1], NONFULL, walked[key], listed)


def _pages(
    extents: Extents,
    arenas: Sequence[Arena],
    active: Counter[int],
    parameters: Parameters,
) -> Iterator[Mismatch]:
    """Arena by arena: active pages, unused pages by state, large allocations."""
    unused: Counter[Tuple[int, int]] = Counter()
    large: Dict[int, Counter[int]] = {arena.index: Counter() for arena in arenas}
    for kind, (count, size) in extents.sums.items():
        if kind.state == ACTIVE:
            active[kind.arena] += size
            # A sampled small allocation is promoted to the smallest large class.
            szind = max(kind.szind, parameters.nbins)
            large.setdefault(kind.arena, Counter())[szind] += count
        elif kind.state < len(STATE_NAMES):
            unused[kind.arena, kind.state] += size
    page = parameters.page
    for arena in arenas:
        figures = []
        if arena.nactive is not None:
            figures.append(("active pages", active[arena.index] // page, arena.nactive))
        for state, name in enumerate(STATE_NAMES):
            if name in arena.cached_pages:
                walked = unused[arena.index, state] // page
                figures.append((f"{name} pages", walked, arena.cached_pages[name]))
        for what, walked, theirs in figures:
            if walked != theirs:
                yield Mismatch(arena.index, None, what, walked, theirs)
        if arena.large is None:
            continue
        counted = large[arena.index]
        for szind in sorted(counted.keys() | arena.large.keys()):
            if counted[szind] != arena.large.get(szind, 0):
                yield Mismatch(
                    arena.index,
                    szind,
                    "large extents",
                    counted[szind],
                    arena.large.get(szind, 0),
                )
