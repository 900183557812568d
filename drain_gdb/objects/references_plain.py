"""References, found by Python alone."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from functools import cached_property
from itertools import accumulate, chain
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

from drain_gdb.jemalloc.live import LiveRegions
from drain_gdb.memory import WORD, words_of
from drain_gdb.objects.references import (
    NEAR,
    NEAR_LARGE,
    NOWHERE,
    OVERWRITTEN,
    PAGE,
    STRONG,
    TABLE_MAX,
    Links,
    Reference,
    References,
)

LG_PAGE = PAGE.bit_length() - 1
TELLING = 5
"""The byte of a word, from the lowest, that is the same in all addresses of a few terabytes."""
Found = Tuple[int, int, bool]
"""The number of a word, the region it points into, whether strongly."""


class _Block(NamedTuple):
    """What is asked of a block for every word that points into it.

    Attributes:
        end: of its last region.
        first: the number of its first region.
        asked: as in :class:`~drain_gdb.jemalloc.live.Block`.
        near: bytes from the start of a region that strong pointers point to.

    """

    start: int
    end: int
    size: int
    first: int
    asked: int
    near: int


class PlainFinder:
    """:class:`~drain_gdb.objects.references.Finder` that looks for one byte of addresses.

    It has few values: a heap lies in a handful of spans of a terabyte.
    """

    def __init__(self, live: LiveRegions) -> None:
        self._live = live
        self._low = live.start[0] if len(live) else 0
        self._high = max(live.end, default=0)
        ends = (end - 1 for end in live.end)
        telling = {at >> 8 * TELLING & 0xFF for at in chain(live.start, ends)}
        self._telling = (
            re.compile(b"[%b]" % re.escape(bytes(telling))) if telling and all(telling) else None
        )
        columns = live.start, live.nregs, live.size, live.first, live.asked, live.slab
        self._blocks = [
            _Block(start, start + nregs * size, size, first, asked, NEAR if slab else NEAR_LARGE)
            for start, nregs, size, first, asked, slab in zip(*columns)
        ]
        self.alive = bytearray(b"".join(map(live.flags, range(len(live)))))
        self._table = self._of_pages()
        self._counts = array("I", bytes(4 * (live.total + 1)))
        self._targets = array("I")
        self._slack_counts = array("I", self._counts)
        self._slack_targets = array("I")
        self._weak_from = array("I")
        self._weak_to = array("I")

    def feed(self, address: int, data: bytes) -> None:
        """Look through the regions of some memory."""
        starts, alive, counts = self._live.start, self.alive, self._counts
        start = end = size = first = asked = 0
        for where, region, strong in self._look(data):
            at = address + where * WORD
            if at >= end:
                block = self._blocks[bisect_right(starts, at) - 1]
                start, end, size, first, asked, _ = block
                if at >= end:
                    start = end = 0
                    continue
            number, offset = divmod(at - start, size)
            source = first + number
            if not alive[source]:
                continue
            # The rest of a text may be the rest of an old pointer.
            text = offset == asked and asked and 0 not in data[where * WORD - WORD : where * WORD]
            if text or not strong:
                self._weak_from.append(source)
                self._weak_to.append(region)
            elif offset <= asked:
                counts[source + 1] += 1
                self._targets.append(region)
            else:
                self._slack_counts[source + 1] += 1
                self._slack_targets.append(region)

    @cached_property
    def references(self) -> References:
        """What was fed."""
        strong = Links(array("I", accumulate(self._counts)), self._targets)
        slack = Links(array("I", accumulate(self._slack_counts)), self._slack_targets)
        return References(strong, slack, self._weak_from, self._weak_to)

    def find(self, address: int, data: bytes) -> List[Reference]:
        """The pointers in memory that is no region."""
        found = self._look(data[: len(data) & -WORD])
        return [Reference(address + where * WORD, region, sure) for where, region, sure in found]

    def regions(self, addresses: array[int]) -> Sequence[int]:
        """The number of the live region that holds each address; NOWHERE where none does."""
        found = map(self._live.region_at, addresses)
        return array("I", (NOWHERE if region is None else region for region in found))

    def _look(self, data: bytes) -> Iterator[Found]:
        alive = self.alive
        words = words_of(data)
        candidates = self._candidates(data, words)
        values = list(map(words.__getitem__, candidates))
        for where, value, block in zip(candidates, values, self._blocks_of(values)):
            if block is None:
                continue
            start, end, size, first, _, near = block
            if value >= end:
                continue
            number, offset = divmod(value - start, size)
            region = first + number
            if not alive[region]:
                continue
            if offset:
                yield where, region, offset < near and STRONG[offset % NEAR] == 1
                continue
            if not value & OVERWRITTEN and near == NEAR:
                yield where, region, False
                continue
            begin = value - size
            likely = where and (not number or begin in (words[where - 1], words[where - 2]))
            yield where, region, not (likely and self._is_end(words, where, value))

    def _of_pages(self) -> Optional[List[Optional[_Block]]]:
        """The block that each page is in, from the first on; None where these are too many."""
        pages = -(-(self._high - self._low) // PAGE)
        if pages > TABLE_MAX:
            return None
        table: List[Optional[_Block]] = [None] * pages
        for block, start, end in zip(self._blocks, self._live.start, self._live.end):
            first, last = (start - self._low) // PAGE, -(-(end - self._low) // PAGE)
            table[first:last] = [block] * (last - first)
        return table

    def _blocks_of(self, values: Sequence[int]) -> List[Optional[_Block]]:
        """The block that each of some words may point into."""
        low, high, table = self._low, self._high, self._table
        if table is None:
            starts, blocks = self._live.start, self._blocks
            return [blocks[bisect_right(starts, v) - 1] if low <= v else None for v in values]
        return [table[v - low >> LG_PAGE] if low <= v < high else None for v in values]

    def _candidates(self, data: bytes, words: Sequence[int]) -> Sequence[int]:
        """The numbers of the words that can lie in a block, ascending; perhaps some more."""
        if self._telling is None:
            low, high = self._low, self._high
            return [number for number, word in enumerate(words) if low <= word < high]
        return list(map(re.Match.start, self._telling.finditer(data[TELLING::WORD])))

    def _is_end(self, words: Sequence[int], where: int, value: int) -> bool:
        """Whether a word is one past an allocation that a word before begins.

        It is the third of ``begin, end, end of capacity``, or the second where both are one.
        """
        live = self._live
        before = bisect_left(live.start, value) - 1
        if before < 0 or live.end[before] < value:
            return False
        begin = value - live.size[before]
        if where >= 2 and words[where - 2] == begin and begin <= words[where - 1] <= value:
            return True
        last = len(words) - 1
        return 1 <= where < last and words[where - 1] == begin and words[where + 1] == value
