"""References, found with NumPy."""

from __future__ import annotations

from array import array
from functools import cached_property
from typing import Any, List, Sequence, Tuple

from drain_gdb.jemalloc.live import LiveRegions
from drain_gdb.memory import WORD
from drain_gdb.objects.fast import numpy, view
from drain_gdb.objects.references import (
    HIGH_BITS,
    NEAR,
    NEAR_LARGE,
    NOWHERE,
    ONES,
    OVERWRITTEN,
    PAGE,
    STRONG,
    TABLE_MAX,
    Links,
    Reference,
    References,
)

START, MAGIC, FIRST, SIZE, NREGS = range(5)
"""Columns of what is known of a block; ``start`` from the lowest address on."""
LG_MAGIC = 32
"""A division is a multiplication by ``2**32 / size`` (div.c of jemalloc)."""


class Places:
    """Which region is where, for many addresses at once.

    Attributes:
        low: the lowest address of a block; places are counted from there.
        span: up to the end of the last one.

    """

    def __init__(self, live: LiveRegions) -> None:
        self.np: Any = numpy()
        np: Any = self.np
        self.low = live.start[0] & -PAGE if len(live) else 0
        self.span = max(live.end, default=0) - self.low
        self.starts = view(live.start, "u8") - np.uint64(self.low)
        sizes, counts = view(live.size, "u8"), view(live.nregs, "u8")
        # One behind the last is of no region.
        blocks = np.zeros((len(live) + 1, NREGS + 1), "u8")
        blocks[:-1, START] = self.starts
        blocks[:-1, MAGIC] = np.where(counts > 1, -(-(1 << LG_MAGIC) // sizes.astype("i8")), 0)
        blocks[:-1, FIRST] = view(live.first, "u8")
        blocks[:-1, SIZE] = sizes
        blocks[:-1, NREGS] = counts
        self._blocks = blocks
        self.asked = view(live.asked, "u8")
        self.near = np.where(view(live.slab, "u1") != 0, NEAR, NEAR_LARGE)
        self.bytes = bytearray(live.total)
        self.alive = view(self.bytes, "u1")
        self._mark(live)
        pages = -(-self.span // PAGE)
        self._table = None if pages > TABLE_MAX else self._pages(pages, live)

    def _pages(self, pages: int, live: LiveRegions) -> Any:
        """The row of each page, the last but one for none."""
        np = self.np
        table = np.full(pages, len(live), "u4")
        begins = self.starts // PAGE
        ends = view(live.end, "u8") - np.uint64(self.low)
        counts = -(-ends.astype("i8") // PAGE) - begins.astype("i8")
        rows = np.repeat(np.arange(len(live), dtype="u4"), counts)
        firsts = (np.cumsum(counts) - counts).astype("u8")
        table[np.arange(len(rows), dtype="u8") + np.repeat(begins - firsts, counts)] = rows
        return table

    def find(self, places: Any) -> Tuple[Any, Any, Any, Any, Any]:
        """Which of ``places``, all in the span, lie in live regions, by their numbers.

        Of these the row, the region, the offset in it and its size.
        """
        np = self.np
        if self._table is None:
            rows = np.searchsorted(self.starts, places, "right") - 1
        else:
            rows = self._table[places // PAGE]
        blocks = self._blocks[rows]
        inside = places - blocks[:, START]
        numbers = inside * blocks[:, MAGIC] >> np.uint64(LG_MAGIC)
        regions = blocks[:, FIRST] + numbers
        offsets = inside - numbers * blocks[:, SIZE]
        held = np.flatnonzero((numbers < blocks[:, NREGS]) & (offsets < blocks[:, SIZE]))
        regions = regions[held]
        alive = np.flatnonzero(self.alive[regions])
        held = held[alive]
        return held, rows[held], regions[alive], offsets[held], blocks[held, SIZE]

    def before(self, rows: Any, places: Any, sizes: Any) -> Tuple[Any, Any]:
        """Where the region begins that ends where those at ``places`` begin; and if any does."""
        np = self.np
        first = places == self.starts[rows]
        begins = places - sizes
        there = np.ones(len(places), bool)
        rare = np.flatnonzero(first)
        if len(rare):
            blocks = self._blocks[rows[rare].astype("i8") - 1]
            ends = blocks[:, START] + blocks[:, SIZE] * blocks[:, NREGS]
            there[rare] = (rows[rare] > 0) & (ends == places[rare])
            begins[rare] = places[rare] - blocks[:, SIZE]
        return begins, there

    def _mark(self, live: LiveRegions) -> None:
        """Note which regions are live, those of blocks of the same size together."""
        np = self.np
        counts = view(live.nregs, "u8")
        firsts = view(live.first, "u8")
        for number in np.unique(counts).tolist():
            rows = np.flatnonzero(counts == number)
            maps = map(live.live.__getitem__, rows.tolist())
            if number <= WORD * 8:
                data = np.fromiter(maps, "<u8", len(rows)).view("u1").reshape(-1, WORD)
            else:
                size = -(-number // 8)
                joined = b"".join(each.to_bytes(size, "little") for each in maps)
                data = np.frombuffer(joined, "u1").reshape(-1, size)
            bits = np.unpackbits(data, 1, bitorder="little")
            places = firsts[rows][:, None] + np.arange(number, dtype="u8")
            self.alive[places] = bits[:, :number]


class _Links:
    """References that come sorted by the region that they are in."""

    def __init__(self, np: Any, total: int) -> None:
        self._np = np
        self._counts = np.zeros(total + 1, "u4")
        self._targets = [np.empty(0, "u4")]

    def add(self, sources: Any, targets: Any) -> None:
        """Some more, behind the others."""
        if len(sources):
            first = int(sources[0])
            found = self._np.bincount((sources - self._np.uint64(first)).astype("i8"))
            self._counts[first + 1 : first + 1 + len(found)] += found.astype("u4")
            self._targets.append(targets.astype("u4"))

    def links(self) -> Links:
        """All of them; no more can be added."""
        np = self._np
        targets = np.concatenate(self._targets)
        self._targets = []
        begins = np.cumsum(self._counts, dtype="u4", out=self._counts)
        return Links(memoryview(begins), memoryview(targets))


class NumpyFinder:
    """:class:`~drain_gdb.objects.references.Finder` for many words at once."""

    def __init__(self, live: LiveRegions) -> None:
        self.places = Places(live)
        self.alive = self.places.bytes
        np = self._np = self.places.np
        self._strong = np.frombuffer(STRONG, "u1").astype(bool)
        self._strong_links = _Links(np, live.total)
        self._slack_links = _Links(np, live.total)
        self._weak_from = array("I")
        self._weak_to = array("I")

    def feed(self, address: int, data: bytes) -> None:
        """Look through the regions of some memory."""
        np, places = self._np, self.places
        where, targets, strong = self._look(data)
        at = where.astype("u8") * np.uint64(WORD) + np.uint64(address - places.low)
        known, rows, sources, offsets, _ = places.find(at)
        least = places.asked[rows]
        asked = offsets <= least
        targets, strong = targets[known], strong[known]
        # The rest of a text may be the rest of an old pointer.
        last = np.flatnonzero((offsets == least) & (least > 0))
        before = view(data[: len(data) & -WORD], "<u8")[where[known[last]] - 1]
        strong[last] &= (before - np.uint64(ONES) & ~before & np.uint64(HIGH_BITS)) != 0
        weak = np.flatnonzero(~strong)
        self._weak_from.frombytes(sources[weak].astype("u4").tobytes())
        self._weak_to.frombytes(targets[weak].astype("u4").tobytes())
        sure, slack = strong & asked, np.flatnonzero(strong & ~asked)
        self._strong_links.add(sources[sure], targets[sure])
        self._slack_links.add(sources[slack], targets[slack])

    @cached_property
    def references(self) -> References:
        """What was fed."""
        strong, slack = self._strong_links.links(), self._slack_links.links()
        return References(strong, slack, self._weak_from, self._weak_to)

    def find(self, address: int, data: bytes) -> List[Reference]:
        """The pointers in memory that is no region."""
        where, targets, strong = self._look(data)
        found = zip(where.tolist(), targets.tolist(), strong.tolist())
        return [Reference(address + at * WORD, region, sure) for at, region, sure in found]

    def regions(self, addresses: array[int]) -> Sequence[int]:
        """The number of the live region that holds each address; NOWHERE where none does."""
        np, places = self._np, self.places
        values = view(addresses, "u8") - np.uint64(places.low)
        found = np.full(len(values), NOWHERE, "u4")
        inside = np.flatnonzero(values < places.span)
        known, _, regions, _, _ = places.find(values[inside])
        found[inside[known]] = regions
        return memoryview(found)

    def _look(self, data: bytes) -> Tuple[Any, Any, Any]:
        """Words that point into live regions: their numbers, the regions, whether strongly."""
        np, places = self._np, self.places
        words = view(data[: len(data) & -WORD], "<u8")
        # Most words are told by their upper halves.
        upper = view(words, "<u4")[1::2]
        lowest, highest = places.low >> 32, places.low + places.span >> 32
        where = np.flatnonzero(upper - np.uint32(lowest) <= highest - lowest)
        found = words[where] - np.uint64(places.low)
        inside = found < places.span
        if not inside.all():
            where, found = where[inside], found[inside]
        known, rows, regions, offsets, sizes = places.find(found)
        where, found = where[known], found[known]
        strong = (offsets < places.near[rows]) & self._strong[offsets % NEAR]
        begun = np.flatnonzero(offsets == 0)
        ends = self._is_end(words, where[begun], found[begun], rows[begun], sizes[begun])
        strong[begun[ends]] = False
        rests = begun[words[where[begun]] & np.uint64(OVERWRITTEN) == 0]
        strong[rests] &= places.near[rows[rests]] != NEAR
        return where, regions, strong

    def _is_end(self, words: Any, where: Any, found: Any, rows: Any, sizes: Any) -> Any:
        """Which of the words ``where`` are one past an allocation that a word before begins.

        They are the third of ``begin, end, end of capacity``, or the second where both are one.
        """
        np, low = self._np, self._np.uint64(self.places.low)
        begin, there = self.places.before(rows, found, sizes)
        begin += low
        one, two = words[np.maximum(where - 1, 0)], words[np.maximum(where - 2, 0)]
        likely = np.flatnonzero(there & ((one == begin) | (two == begin)))
        where, found, begin = where[likely], found[likely] + low, begin[likely]
        one, two = one[likely], two[likely]
        last = len(words) - 1
        after = words[np.minimum(where + 1, last)]
        third = (where >= 2) & (two == begin) & (begin <= one) & (one <= found)
        second = (where >= 1) & (where < last) & (one == begin) & (after == found)
        return likely[third | second]
