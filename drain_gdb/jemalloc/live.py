"""The live regions of walked heaps, by address: what the program holds, to the region.

A sweep needs none of this and keeps none of it; it is read again where it is asked for.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from itertools import accumulate
from typing import Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from drain_gdb.jemalloc.extents import ExtentWalk, popcount
from drain_gdb.jemalloc.heap import Coverage, Heap
from drain_gdb.jemalloc.placed import columns_of
from drain_gdb.memory import Memory

DIGITS = bytes(digit & 1 for digit in range(256))
"""``0`` and ``1`` as numbers."""

LARGE_BELOW = 4, 5
"""There are four classes to a doubling of the size: the one below has so much of it at least."""
LARGE_PAD = 1 << 12
"""Bytes of a large extent that may be its pad (sz_large_pad, sz.h)."""


class Block(NamedTuple):
    """A slab, or a live large allocation, which is a block of one region.

    Attributes:
        start, end: its first byte, and the first one behind it.
        size: bytes of each region.
        nregs: regions of it.
        live: a bit a region that the program holds.
        first: the number of its first region among all of all blocks.
        slab: whether it is a slab.
        asked: bytes that the program has asked for at least, less one: the size of the class
            below.  What lies behind may be left from whoever had the region before.

    """

    start: int
    end: int
    size: int
    nregs: int
    live: int
    first: int
    allocator: int
    szind: int
    slab: bool
    asked: int

    def region(self, number: int) -> int:
        """Where the region with this number in the block begins."""
        return self.start + number * self.size


class LiveRegions:
    """Every slab and every live large allocation of ``heaps``, ascending.

    Regions have numbers: those of the first block from 0 on, live or not, then those of the
    next; ``first`` of a block is that of its first one, and ``total`` how many there are.
    Columns have a row a block.

    Attributes:
        start, end, size, nregs, first: as in :class:`Block`, in array('Q').
        live: a bitmap a block.
        allocator, szind, slab, asked: as in :class:`Block`; ``asked`` in array('Q').

    """

    def __init__(self, heaps: Sequence[Heap], memories: Sequence[Memory]) -> None:
        rows: List[Tuple[int, ...]] = []
        for number, (heap, memory) in enumerate(zip(heaps, memories)):
            rows += _slabs(number, heap, memory)
        for column in columns_of(heaps):
            for start, end, kind in zip(column.starts, column.ends, column.kinds):
                claim = column.claims[kind]
                if claim.part == "large":
                    assert claim.szind is not None
                    size = end - start
                    asked = max(size * LARGE_BELOW[0] // LARGE_BELOW[1] - LARGE_PAD, 0)
                    place = claim.allocator, claim.szind, False, asked
                    rows.append((start, end, size, 1, 1, 0, *place))
        self._fill(rows)

    @classmethod
    def of(cls, blocks: Iterable[Block]) -> LiveRegions:
        """The regions of some blocks, whose ``first`` is still to be found."""
        regions = cls((), ())
        regions._fill(list(blocks))
        return regions

    def _fill(self, rows: List[Tuple[int, ...]]) -> None:
        rows.sort()
        columns: Sequence[Sequence[int]] = list(zip(*rows)) if rows else [()] * len(Block._fields)
        starts, ends, sizes, nregs, live, _, allocators, szinds, slabs, asked = columns
        self.start, self.end = array("Q", starts), array("Q", ends)
        self.size, self.nregs, self.asked = (array("Q", c) for c in (sizes, nregs, asked))
        self.live: List[int] = list(live)
        self.allocator, self.slab = bytes(allocators), bytes(slabs)
        self.szind = array("H", szinds)
        firsts = list(accumulate(self.nregs, initial=0))
        self.total = firsts.pop()
        self.first = array("Q", firsts)

    def __len__(self) -> int:
        return len(self.start)

    def block(self, row: int) -> Block:
        """The block in a row."""
        return Block(
            self.start[row],
            self.end[row],
            self.size[row],
            self.nregs[row],
            self.live[row],
            self.first[row],
            self.allocator[row],
            self.szind[row],
            bool(self.slab[row]),
            self.asked[row],
        )

    def row_at(self, address: int) -> Optional[int]:
        """The row of the block that holds ``address``."""
        row = bisect_right(self.start, address) - 1
        return row if row >= 0 and address < self.end[row] else None

    def region_at(self, address: int) -> Optional[int]:
        """The number of the live region that holds ``address``; None where there is none."""
        row = self.row_at(address)
        if row is None:
            return None
        number = (address - self.start[row]) // self.size[row]
        return self.first[row] + number if self.live[row] >> number & 1 else None

    def row_of(self, region: int) -> int:
        """The row of the block of a region."""
        return bisect_right(self.first, region) - 1

    def place(self, region: int) -> int:
        """Where a region begins."""
        row = self.row_of(region)
        return self.start[row] + (region - self.first[row]) * self.size[row]

    def flags(self, row: int) -> bytes:
        """A byte for each region of the block in a row: 1 where it is live, else 0."""
        bits = f"{self.live[row]:0{self.nregs[row]}b}"[::-1]
        return bits.encode("ascii").translate(DIGITS)

    def number(self) -> int:
        """How many regions are live."""
        return sum(map(popcount, self.live))

    def regions(self, row: int) -> Iterator[int]:
        """The numbers of the live regions of the block in a row."""
        live, region = self.live[row], self.first[row]
        while live:
            skip = (live & -live).bit_length() - 1
            yield region + skip
            live >>= skip + 1
            region += skip + 1


def _slabs(number: int, heap: Heap, memory: Memory) -> Iterator[Tuple[int, ...]]:
    """The slabs of a heap as blocks, their bitmaps read once more."""
    walk = ExtentWalk(memory, heap.layout, heap.bins, Coverage(), keep=True)
    walk.run(heap.tcaches.regions)
    assert walk.live is not None
    slabs = walk.slabs
    known = []
    for kind in slabs.kinds:
        info, below = heap.bins[kind.szind], kind.szind - 1
        asked = heap.bins[below].reg_size if below >= 0 else 0
        place = number, kind.szind, True, asked
        known.append((info.slab_size, (info.reg_size, info.nregs), place))
    for start, row, live in zip(slabs.address, slabs.kind, walk.live):
        length, size, place = known[row]
        yield (start, start + length, *size, live, 0, *place)
