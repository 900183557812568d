"""What moving live regions together frees, and what that takes.

The fewest slabs for the live regions of a bin are what defragmentation comes to rest at, bin
by bin of each arena.  The best order empties the sparsest slabs first: of all that can be
freed, the bytes that must be moved for the bytes freed are the fewest.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from drain_gdb.analysis.report import Sweep
from drain_gdb.jemalloc.heap import Heap

STEPS = 10
"""Points of the curve."""


@dataclass(frozen=True)
class Bin:
    """The slabs of a size class in one arena, all shards together.

    Attributes:
        by_live: how many slabs hold so many live regions; None where statistics alone are
            known, which tell no slab from another, and not live regions from cached ones.
        held_slabs: slabs of which thread caches hold all that is allocated.
        made: slabs made since the start, where that is known.

    """

    arena: Optional[int]
    index: int
    size: int
    slab_size: int
    nregs: int
    slabs: int
    live: int
    held_slabs: int
    by_live: Optional[Counter[int]]
    made: Optional[int] = None

    @property
    def drainable(self) -> int:
        """Slabs without a live region."""
        return 0 if self.by_live is None else self.by_live[0]

    @property
    def ideal(self) -> int:
        """The fewest slabs that hold what is live."""
        return -(-self.live // self.nregs)

    @property
    def excess(self) -> int:
        """Slabs with live regions that would be free if all were packed."""
        return max(0, self.slabs - self.drainable - self.ideal)


def bins_of(heap: Heap) -> Tuple[Bin, ...]:
    """The bins of a walked heap, by arena and size."""
    by_live: Dict[Tuple[int, int], Counter[int]] = {}
    held: Counter[Tuple[int, int]] = Counter()
    for (kind, cached), number in heap.slabs.census.items():
        key = kind.arena, kind.szind
        live = heap.bins[kind.szind].nregs - kind.nfree - cached
        by_live.setdefault(key, Counter())[live] += number
        if cached and not live:
            held[key] += number
    made: Dict[Tuple[int, int], Optional[int]] = {}
    for row in heap.counters:
        key = row.arena, row.szind
        before = made.get(key, 0)
        made[key] = None if before is None or row.nslabs is None else before + row.nslabs
    return tuple(
        Bin(
            arena=arena,
            index=szind,
            size=heap.bins[szind].reg_size,
            slab_size=heap.bins[szind].slab_size,
            nregs=heap.bins[szind].nregs,
            slabs=sum(counts.values()),
            live=sum(live * number for live, number in counts.items()),
            held_slabs=held[arena, szind],
            by_live=counts,
            made=made.get((arena, szind)) if heap.statistics else None,
        )
        for (arena, szind), counts in sorted(by_live.items())
    )


def bins_told(report: Sweep) -> Tuple[Bin, ...]:
    """The bins as statistics tell them; cached regions, which they do not tell, count as live."""
    return tuple(
        Bin(
            arena=row.arena,
            index=row.index,
            size=row.size,
            slab_size=row.slab_size,
            nregs=row.nregs,
            slabs=row.state.slabs,
            live=row.state.allocated,
            held_slabs=0,
            by_live=None,
        )
        for row in report.bins
    )


@dataclass(frozen=True)
class Packing:
    """What packing some bins frees, and what it takes; None where no slab is known by itself."""

    slabs: int
    bytes: int
    regions_moved: Optional[int]
    bytes_moved: Optional[int]


@dataclass(frozen=True)
class Step:
    """A point of the curve: ``share`` of all the bytes that packing could free."""

    share: float
    regions_moved: int
    bytes_moved: int
    slabs_freed: int
    bytes_freed: int


def pack(bins: Sequence[Bin], share: float = 1.0) -> Packing:
    """What packing frees until ``share`` of the bytes that it could are free."""
    whole = sum(each.excess * each.slab_size for each in bins)
    if any(each.by_live is None for each in bins):
        slabs = sum(each.excess for each in bins)
        return Packing(round(slabs * share), round(whole * share), None, None)
    return _until(list(_cheapest(bins)), whole * share)


def curve(bins: Sequence[Bin]) -> Tuple[Step, ...]:
    """What it takes for each tenth of what packing could free; none where nothing is to be had."""
    whole = sum(each.excess * each.slab_size for each in bins)
    if not whole or any(each.by_live is None for each in bins):
        return ()
    order = list(_cheapest(bins))
    found = []
    for step in range(1, STEPS + 1):
        share = step / STEPS
        packed = _until(order, whole * share)
        assert packed.regions_moved is not None and packed.bytes_moved is not None
        found.append(
            Step(share, packed.regions_moved, packed.bytes_moved, packed.slabs, packed.bytes)
        )
    return tuple(found)


_Group = Tuple[int, Bin, int]
"""Live regions of each slab, its bin, how many such slabs are to be emptied."""


def _cheapest(bins: Sequence[Bin]) -> Iterator[_Group]:
    """The slabs to empty, those first that cost the fewest bytes for the bytes they free."""
    groups: List[_Group] = []
    for each in bins:
        left, counts = each.excess, each.by_live or Counter()
        for live in sorted(live for live in counts if live):
            taken = min(left, counts[live])
            if taken:
                groups.append((live, each, taken))
            left -= taken
    yield from sorted(groups, key=lambda group: group[0] * group[1].size / group[1].slab_size)


def _until(order: Sequence[_Group], wanted: float) -> Packing:
    slabs = freed = regions = moved = 0
    for live, each, number in order:
        taken = min(number, max(0, -int(-(wanted - freed) // each.slab_size)))
        slabs += taken
        freed += taken * each.slab_size
        regions += taken * live
        moved += taken * live * each.size
        if freed >= wanted:
            break
    return Packing(slabs, freed, regions, moved)


def merged(bins: Sequence[Bin]) -> Tuple[Bin, ...]:
    """The bins as if all arenas were one."""
    found: Dict[int, Bin] = {}
    for each in bins:
        before = found.get(each.index)
        if before is None:
            found[each.index] = each
            continue
        both = each.by_live is not None and before.by_live is not None
        counts = (before.by_live or Counter()) + (each.by_live or Counter())
        made = None if None in (before.made, each.made) else (before.made or 0) + (each.made or 0)
        found[each.index] = Bin(
            None,
            each.index,
            each.size,
            each.slab_size,
            each.nregs,
            before.slabs + each.slabs,
            before.live + each.live,
            before.held_slabs + each.held_slabs,
            counts if both else None,
            made,
        )
    return tuple(found[index] for index in sorted(found))
