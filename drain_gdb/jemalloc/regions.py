"""What an address is to jemalloc right now, without a walk (rtree.h, edata.h)."""

from __future__ import annotations

from typing import Callable, NamedTuple, Optional

from drain_gdb.errors import UnreadableMemory
from drain_gdb.jemalloc.heap import ACTIVE, Coverage
from drain_gdb.jemalloc.rtree import Rtree
from drain_gdb.layout.records import Layout
from drain_gdb.memory import WORD, LiveMemory


class Region(NamedTuple):
    """Where an allocated pointer lies.

    Attributes:
        slab: address of its slab; None where it is a large allocation, or a small
            one promoted to an extent of its own (sampled under prof:true).
    """

    szind: int
    slab: Optional[int]


class RegionFinder:
    """Finds the regions of a process that runs between two questions."""

    def __init__(self, read: Callable[[int, int], bytes], layout: Layout) -> None:
        self._memory = LiveMemory(read)
        self._rtree = Rtree(self._memory, layout.rtree, Coverage())
        self._pointer_mask = layout.rtree.pointer_mask
        self._extent = layout.extent
        self._nsizes = layout.parameters.nsizes
        self._start = min(self._extent.bits, self._extent.address)
        self._size = max(self._extent.bits, self._extent.address) + WORD - self._start

    def find(self, pointer: int) -> Optional[Region]:
        """The active extent that holds ``pointer``; None where jemalloc has none there."""
        try:
            (element,) = self._rtree.elements([pointer])
            extent = element & self._pointer_mask
            if not extent:
                return None
            data = self._memory.read(extent + self._start, self._size)
        except UnreadableMemory:
            return None
        layout = self._extent
        bits = self._word(data, layout.bits)
        szind = layout.szind.of(bits)
        if layout.state.of(bits) != ACTIVE or szind >= self._nsizes:
            return None
        slab = self._word(data, layout.address) if layout.slab.of(bits) else None
        return Region(szind, slab)

    def _word(self, data: bytes, offset: int) -> int:
        at = offset - self._start
        return int.from_bytes(data[at : at + WORD], "little")
