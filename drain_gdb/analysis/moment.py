"""What of a process at one moment a comparison with another moment needs."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import (
    TYPE_CHECKING,
    Dict,
    FrozenSet,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from drain_gdb.analysis.report import BinRow, Selection, Sweep
from drain_gdb.analysis.statistics import sweep_statistics
from drain_gdb.debuggee.sameness import Look
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.statistics import Statistics

if TYPE_CHECKING:
    from drain_gdb.analysis.pins import Pins

BinKey = Tuple[int, int, int]
"""``(arena, szind, shard)``."""


@dataclass
class BinMoment:
    """The slabs of one bin shard.

    Attributes:
        address: of each slab.
        drainable: of those without a live region.
        made: slabs made for it so far (nslabs); None where that is not known.
        place: where the bin stands; 0 where it could not be read.
        unseen: slabs that it has, by its own count, and that were not walked.
        surplus: slabs that were walked, and that it does not count.
        members: all of ``address``, of a moment that many others are compared with.

    """

    address: array[int] = field(default_factory=lambda: array("Q"))
    drainable: array[int] = field(default_factory=lambda: array("Q"))
    made: Optional[int] = None
    place: int = 0
    unseen: int = 0
    surplus: int = 0
    members: Optional[FrozenSet[int]] = None


class SizeClass(NamedTuple):
    """A size class with slabs; bytes of its regions and of its slabs."""

    size: int
    slab_size: int


@dataclass(frozen=True)
class HeapMoment:
    """The slabs of one jemalloc.

    Attributes:
        root: where the root of its tree lies, which tells it from others.
        whole: whether all of it was seen: if not, slabs may be there that were not.
        counted: whether its own counts of slabs could be read.

    """

    root: int
    classes: Sequence[SizeClass]
    bins: Mapping[BinKey, BinMoment]
    whole: bool
    counted: bool


@dataclass(frozen=True)
class Moment:
    """A process at one moment.

    Attributes:
        name: what it was read from.
        look: who it was; None of statistics, which do not say.
        heaps: its jemallocs; empty where statistics alone are known.
        reports: the sweep of each, which have the account and the totals.
        made: of statistics, by size class: slabs made so far.
        pins: who owns its live regions; None where nobody asked, or it cannot be known.

    """

    name: str
    look: Optional[Look]
    heaps: Tuple[HeapMoment, ...]
    reports: Tuple[Sweep, ...]
    made: Optional[Mapping[int, int]] = None
    pins: Optional[Pins] = None

    @property
    def sound(self) -> bool:
        """Whether nothing is missing and the accounting holds."""
        return all(report.sound for report in self.reports)

    @property
    def taken_at(self) -> Optional[datetime]:
        """When it was; None where that is not known."""
        said = self.reports[0].process.taken_at
        try:
            return None if said is None else datetime.fromisoformat(said)
        except ValueError:
            return None

    def rows(self) -> Mapping[int, List[BinRow]]:
        """By the size of their regions, the size classes with slabs of each jemalloc."""
        found: Dict[int, List[BinRow]] = {}
        for report in self.reports:
            for row in report.bins:
                found.setdefault(row.size, []).append(row)
        return found


def heap_moment(heap: Heap, known: Optional[HeapMoment] = None) -> HeapMoment:
    """The slabs of a walked heap by the bins they are of; ``known`` is one of the same slabs."""
    bins = _grouped(heap) if known is None else {k: replace(v) for k, v in known.bins.items()}
    whole, counted = _complete(heap)
    for counter in heap.counters if heap.statistics else ():
        place = bins.setdefault((counter.arena, counter.szind, counter.shard), BinMoment())
        place.made, place.place = counter.nslabs, counter.address
        place.unseen = max(0, counter.curslabs - len(place.address))
        place.surplus = max(0, len(place.address) - counter.curslabs)
    return HeapMoment(
        root=heap.layout.rtree.root,
        classes=[SizeClass(info.reg_size, info.slab_size) for info in heap.bins],
        bins=bins,
        whole=whole,
        counted=counted,
    )


def moment_told(name: str, statistics: Statistics) -> Moment:
    """A moment of which statistics alone are known."""
    report = sweep_statistics(statistics, Selection())
    return Moment(name, None, (), (report,), _made_by_size(statistics))


def _made_by_size(statistics: Statistics) -> Optional[Mapping[int, int]]:
    """By the size of regions the slabs made so far; None where the statistics do not say."""
    merged = statistics.merged
    sections = list(statistics.arenas.values()) if merged is None else [merged]
    found: Dict[int, int] = {}
    for section in sections:
        for row in section.bins or ():
            if row.nslabs is None:
                return None
            found[row.size] = found.get(row.size, 0) + row.nslabs
    return found


def _grouped(heap: Heap) -> Dict[BinKey, BinMoment]:
    """Every slab with those of its bin."""
    slabs = heap.slabs
    bins: Dict[BinKey, BinMoment] = {}
    places = []
    for kind in slabs.kinds:
        place = bins.setdefault((kind.arena, kind.szind, kind.shard), BinMoment())
        empty = kind.nfree == heap.bins[kind.szind].nregs
        places.append((place, empty))
    add = [place.address.append for place, _ in places]
    for address, number in zip(slabs.address, slabs.kind):
        add[number](address)
    empties = {number for number, (_, empty) in enumerate(places) if empty}
    if empties:
        for address, number in zip(slabs.address, slabs.kind):
            if number in empties:
                places[number][0].drainable.append(address)
    for row, cached in slabs.cached.items():
        kind = slabs.kinds[slabs.kind[row]]
        if cached == heap.bins[kind.szind].nregs - kind.nfree:
            places[slabs.kind[row]][0].drainable.append(slabs.address[row])
    return bins


def _complete(heap: Heap) -> Tuple[bool, bool]:
    """Whether all of it was seen, and whether its own counts of slabs could be read."""
    whole = not (heap.coverage.slabs_unreadable or heap.coverage.bytes_unreadable)
    return whole, bool(heap.statistics) and heap.has_all_arenas


def same_counts(one: Heap, other: Heap) -> bool:
    """Whether two walks of a heap found the same counts of slabs, and as much of it."""
    counts, others = (
        [(c.arena, c.address, c.nslabs, c.curslabs) for c in heap.counters] for heap in (one, other)
    )
    return counts == others and _complete(one) == _complete(other)


def same_slabs(one: Heap, other: Heap) -> bool:
    """Whether two walks of a heap found the same slabs in the same states."""
    a, b = one.slabs, other.slabs
    kinds = a.kinds == b.kinds[: len(a.kinds)]
    return kinds and a.kind == b.kind and a.address == b.address and a.cached == b.cached
