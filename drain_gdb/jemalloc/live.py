"""The live regions of walked heaps, by address: what the program holds, to the region.

A sweep needs none of this and keeps none of it; it is read again where it is asked for.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from itertools import accumulate
from operator import add
from typing import Iterable, Iterator, List, NamedTuple, Optional, Sequence

from drain_gdb.jemalloc.extents import ExtentWalk, popcount
from drain_gdb.jemalloc.heap import Coverage, Heap
from drain_gdb.jemalloc.placed import Column, columns_of
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


class _Kind(NamedTuple):
    """What many blocks have in common, as in :class:`Block`."""

    size: int
    nregs: int
    allocator: int
    szind: int
    slab: bool
    asked: int


class _Rows(NamedTuple):
    """Blocks in columns: where they are, the numbers of their kinds, and which regions live."""

    starts: array[int]
    ends: array[int]
    kinds: array[int]
    live: List[int]

    def add(self, start: int, end: int, kind: int, live: int) -> None:
        """Append one."""
        self.starts.append(start)
        self.ends.append(end)
        self.kinds.append(kind)
        self.live.append(live)


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

    def __init__(
        self,
        heaps: Sequence[Heap],
        memories: Sequence[Memory],
        columns: Optional[Sequence[Column]] = None,
    ) -> None:
        kinds: List[_Kind] = []
        rows = _Rows(array("Q"), array("Q"), array("I"), [])
        for number, (heap, memory) in enumerate(zip(heaps, memories)):
            _add_slabs(number, heap, memory, kinds, rows)
        for column in columns_of(heaps) if columns is None else columns:
            for start, end, kind in zip(column.starts, column.ends, column.kinds):
                claim = column.claims[kind]
                if claim.part == "large":
                    assert claim.szind is not None
                    size = end - start
                    asked = max(size * LARGE_BELOW[0] // LARGE_BELOW[1] - LARGE_PAD, 0)
                    rows.add(start, end, len(kinds), 1)
                    kinds.append(_Kind(size, 1, claim.allocator, claim.szind, False, asked))
        self._fill(rows, kinds)

    @classmethod
    def of(cls, blocks: Iterable[Block]) -> LiveRegions:
        """The regions of some blocks, whose ``first`` is still to be found."""
        regions, kinds = cls((), ()), []
        rows = _Rows(array("Q"), array("Q"), array("I"), [])
        for number, each in enumerate(blocks):
            rows.add(each.start, each.end, number, each.live)
            place = each.allocator, each.szind, each.slab, each.asked
            kinds.append(_Kind(each.size, each.nregs, *place))
        regions._fill(rows, kinds)
        return regions

    def _fill(self, rows: _Rows, kinds: Sequence[_Kind]) -> None:
        starts, ends, numbers, live = rows
        order = sorted(range(len(starts)), key=starts.__getitem__)
        self.start = array("Q", map(starts.__getitem__, order))
        self.end = array("Q", map(ends.__getitem__, order))
        self.live: List[int] = list(map(live.__getitem__, order))
        own = array("I", map(numbers.__getitem__, order))
        columns: Sequence[Sequence[int]] = list(zip(*kinds)) or [()] * len(_Kind._fields)
        sizes, nregs, allocators, szinds, slabs, asked = (
            map(column.__getitem__, own) for column in columns
        )
        self.size, self.nregs, self.asked = (array("Q", c) for c in (sizes, nregs, asked))
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


def _add_slabs(number: int, heap: Heap, memory: Memory, kinds: List[_Kind], rows: _Rows) -> None:
    """Append the slabs of a heap, their bitmaps read once more, and the kinds that they are of."""
    walk = ExtentWalk(memory, heap.layout, heap.bins, Coverage(), keep=True)
    walk.run(heap.tcaches.regions)
    assert walk.live is not None
    slabs = walk.slabs
    lengths, first = [], len(kinds)
    for kind in slabs.kinds:
        info, below = heap.bins[kind.szind], kind.szind - 1
        asked = heap.bins[below].reg_size if below >= 0 else 0
        kinds.append(_Kind(info.reg_size, info.nregs, number, kind.szind, True, asked))
        lengths.append(info.slab_size)
    rows.starts.extend(slabs.address)
    rows.ends.extend(map(add, slabs.address, map(lengths.__getitem__, slabs.kind)))
    rows.kinds.extend(map(first.__add__, slabs.kind))
    rows.live.extend(walk.live)
