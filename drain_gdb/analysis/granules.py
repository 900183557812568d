"""Huge pages of address space: how many hold nothing live, how many next to nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from drain_gdb.jemalloc.heap import ACTIVE, RETAINED, Heap

SPARSE = 0.05
"""Under this share of live bytes a huge page is pinned by next to nothing."""


@dataclass(frozen=True)
class Granules:
    """The aligned stretches of ``size`` bytes that jemalloc has memory in.

    Attributes:
        touched: all of them, those apart that are retained address space alone.
        empty: without a live byte.
        pinned_below_5_percent: with some, but under 5 % of it.

    """

    size: int
    touched: int
    empty: int
    pinned_below_5_percent: int


@dataclass
class _Sums:
    """Live bytes of granules that several things share, and how many a single one fills."""

    lg_size: int
    live: Counter[int] = field(default_factory=Counter)
    filled: int = 0
    vacant: int = 0

    def add(self, address: int, length: int, used: int) -> None:
        """Add ``length`` bytes of which ``used`` are live, as evenly spread as need be."""
        lg_size, end = self.lg_size, address + length
        first, last = address >> lg_size, end - 1 >> lg_size
        if first == last:
            self.live[first] += used
            return
        for number in (first, last):
            inside = min(end, number + 1 << lg_size) - max(address, number << lg_size)
            self.live[number] += -(-used * inside // length)
        if used:
            self.filled += last - first - 1
        else:
            self.vacant += last - first - 1


def granules(heap: Heap) -> Granules:
    """Of one heap."""
    sums = _Sums(heap.layout.parameters.lg_hugepage)
    slabs, extents = heap.slabs, heap.extents
    infos = [heap.bins[kind.szind] for kind in slabs.kinds]
    held = [(info.nregs - kind.nfree) * info.reg_size for info, kind in zip(infos, slabs.kinds)]
    for row, (address, kind) in enumerate(zip(slabs.address, slabs.kind)):
        cached = slabs.cached.get(row, 0) * infos[kind].reg_size
        sums.add(address, infos[kind].slab_size, held[kind] - cached)
    for address, length, number in zip(extents.address, extents.size, extents.kind):
        state = extents.kinds[number].state
        if state != RETAINED and length:
            sums.add(address, length, length if state == ACTIVE else 0)
    size = 1 << sums.lg_size
    shared = sums.live.values()
    return Granules(
        size,
        touched=len(shared) + sums.filled + sums.vacant,
        empty=sum(1 for used in shared if not used) + sums.vacant,
        pinned_below_5_percent=sum(1 for used in shared if 0 < used < SPARSE * size),
    )
