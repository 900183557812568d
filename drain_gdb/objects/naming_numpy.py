"""Regions named by single words, with NumPy."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, Sequence, Tuple

from drain_gdb.jemalloc.live import LiveRegions
from drain_gdb.memory import WORD
from drain_gdb.objects.fast import numpy, view
from drain_gdb.objects.naming import Kinds, Words

LG_SIZES = 16
"""Bits beside a word for the row of a size; no address has them."""


class NumpyWordNamer:
    """:class:`~drain_gdb.objects.naming.WordNamer` for many blocks at once."""

    def __init__(
        self, live: LiveRegions, words: Words, kinds: Kinds, spans: Sequence[Tuple[int, int]]
    ) -> None:
        np = self._np = _numpy()
        self._live = live
        self._words = words
        self._of = view(kinds.of, "u2")
        self._starts = np.array([start for start, _ in spans] or [0], "u8")
        self._ends = np.array([end for _, end in spans] or [0], "u8")
        self._columns = [view(c, "u8") for c in (live.start, live.size, live.nregs, live.first)]
        self._sizes, self._which = np.unique(self._columns[1], return_inverse=True)

    def feed(self, address: int, data: bytes) -> None:
        """Name the regions of some memory."""
        np, live = self._np, self._live
        words = view(data, "<u8")
        first = max(bisect_right(live.start, address) - 1, 0)
        last = bisect_right(live.start, address + len(data) - 1)
        start, size, nregs, begin = (column[first:last] for column in self._columns)
        counts = nregs.astype("i8")
        rows = np.repeat(np.arange(last - first), counts)
        numbers = np.arange(int(begin[0]), int(begin[-1] + nregs[-1]), dtype="u8")
        places = start[rows] + (numbers - begin[rows]) * size[rows]
        for index in self._words.indices:
            at = places + np.uint64(index * WORD) - np.uint64(address)
            inside = np.flatnonzero((at < len(data)) & (size[rows] > index * WORD))
            self._name(
                index, words[at[inside] // WORD], numbers[inside], self._which[first + rows[inside]]
            )

    def _name(self, index: int, words: Any, numbers: Any, which: Any) -> None:
        np = self._np
        there = np.flatnonzero((words >= self._starts[0]) & (words < self._ends[-1]))
        found = words[there]
        row = np.searchsorted(self._starts, found, "right") - 1
        telling = (found < self._ends[row]) & (self._of[numbers[there]] == 0)
        there = there[telling]
        if not len(there):
            return
        keys = words[there] << np.uint64(LG_SIZES) | which[there].astype("u8")
        distinct, inverse = np.unique(keys, return_inverse=True)
        sizes = self._sizes.tolist()
        known = [
            self._words.kind(index, key >> LG_SIZES, sizes[key & (1 << LG_SIZES) - 1])
            for key in distinct.tolist()
        ]
        self._of[numbers[there]] = np.array(known, "u2")[inverse]


def _numpy() -> Any:
    return numpy()
