"""References, found by Python alone."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from typing import Iterator, List, Optional, Sequence, Tuple

from drain_gdb.jemalloc.live import LiveRegions
from drain_gdb.memory import WORD, words_of
from drain_gdb.objects.references import (
    NEAR,
    NEAR_LARGE,
    NOWHERE,
    PAGE,
    STRONG,
    TABLE_MAX,
    Links,
    Reference,
    References,
)

LG_PAGE = PAGE.bit_length() - 1
HALF = 4
"""Bytes of the upper half of a word."""
Found = Tuple[int, int, bool]
"""The number of a word, the region it points into, whether strongly."""


class PlainFinder:
    """:class:`~drain_gdb.objects.references.Finder` that looks for upper halves of addresses.

    These are few: a heap of many gigabytes lies in a handful of spans of four.
    """

    def __init__(self, live: LiveRegions) -> None:
        self._live = live
        self._low = live.start[0] if len(live) else 0
        self._high = max(live.end, default=0)
        halves = {start >> 32 for start in live.start} | {end - 1 >> 32 for end in live.end}
        self._halves = [half.to_bytes(HALF, "little") for half in sorted(halves)]
        rows = zip(live.start, live.nregs, live.size)
        self._ends = array("Q", (start + number * size for start, number, size in rows))
        self.alive = bytearray(b"".join(map(live.flags, range(len(live)))))
        self._table = _table(live, self._low, self._high)
        self._counts = array("I", bytes(4 * (live.total + 1)))
        self._targets = array("I")
        self._slack_counts = array("I", self._counts)
        self._slack_targets = array("I")
        self._weak_from = array("I")
        self._weak_to = array("I")

    def feed(self, address: int, data: bytes) -> None:
        """Look through the regions of some memory."""
        live, alive, counts = self._live, self.alive, self._counts
        starts, ends, sizes, firsts = live.start, self._ends, live.size, live.first
        start = end = size = first = asked = 0
        for where, region, strong in self._look(data):
            at = address + where * WORD
            if at >= end:
                row = bisect_right(starts, at) - 1
                start, end, size, first = starts[row], ends[row], sizes[row], firsts[row]
                asked = live.asked[row]
                if at >= end:
                    start = end = 0
                    continue
            number = (at - start) // size
            source = first + number
            if not alive[source]:
                continue
            offset = at - start - number * size
            sure = offset < asked or (
                offset == asked and (not asked or 0 in data[where * WORD - WORD : where * WORD])
            )
            if strong and sure:
                counts[source + 1] += 1
                self._targets.append(region)
            elif strong:
                self._slack_counts[source + 1] += 1
                self._slack_targets.append(region)
            else:
                self._weak_from.append(source)
                self._weak_to.append(region)

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
        live, alive = self._live, self.alive
        starts, ends, sizes, firsts = live.start, self._ends, live.size, live.first
        slabs = live.slab
        words = words_of(data)
        candidates = self._candidates(data, words)
        values = list(map(words.__getitem__, candidates))
        for where, value, row in zip(candidates, values, self._rows(values)):
            if row == NOWHERE:
                continue
            start = starts[row]
            if not start <= value < ends[row]:
                continue
            size = sizes[row]
            number = (value - start) // size
            region = firsts[row] + number
            if not alive[region]:
                continue
            offset = value - start - number * size
            if offset:
                near = offset < NEAR or (offset < NEAR_LARGE and not slabs[row])
                yield where, region, near and STRONG[offset % NEAR] == 1
                continue
            begin = value - size
            likely = value == start or begin in (words[where - 1], words[where - 2])
            yield where, region, not (likely and self._is_end(words, where, value, row))

    def _rows(self, values: Sequence[int]) -> List[int]:
        """The row of the block that each of some words may point into."""
        low, high, table = self._low, self._high, self._table
        if table is None:
            starts = self._live.start
            return [bisect_right(starts, v) - 1 if low <= v else NOWHERE for v in values]
        return [table[v - low >> LG_PAGE] if low <= v < high else NOWHERE for v in values]

    def _candidates(self, data: bytes, words: Sequence[int]) -> Sequence[int]:
        """The numbers of the words that can lie in a block, ascending; perhaps some more."""
        if not all(map(any, self._halves)):
            low, high = self._low, self._high
            return [number for number, word in enumerate(words) if low <= word < high]
        found: List[int] = []
        for half in self._halves:
            # What begins with another byte than zero and ends with zeros overlaps no other one.
            sought = half.lstrip(b"\0")
            place = WORD - len(sought)
            matches = map(re.Match.start, re.finditer(re.escape(sought), data))
            found += [at // WORD for at in matches if at % WORD == place]
        if len(self._halves) > 1:
            found.sort()
        return found

    def _is_end(self, words: Sequence[int], where: int, value: int, row: int) -> bool:
        """Whether a word is one past an allocation that a word before begins.

        It is the third of ``begin, end, end of capacity``, or the second where both are one.
        """
        live = self._live
        before = row - (value == live.start[row])
        if before < 0 or live.end[before] < value:
            return False
        begin = value - live.size[before]
        if where >= 2 and words[where - 2] == begin and begin <= words[where - 1] <= value:
            return True
        last = len(words) - 1
        return 1 <= where < last and words[where - 1] == begin and words[where + 1] == value


def _table(live: LiveRegions, low: int, high: int) -> Optional[array[int]]:
    """The row of each page from ``low`` to ``high``; None where these are too many."""
    pages = -(-(high - low) // PAGE)
    if pages > TABLE_MAX:
        return None
    table = array("I", [NOWHERE]) * pages
    for row, (start, end) in enumerate(zip(live.start, live.end)):
        for page in range((start - low) // PAGE, -(-(end - low) // PAGE)):
            table[page] = row
    return table
