"""What a leaf of the rtree lists: extents, in the order in which they stand in memory.

A leaf has an element for every page of up to a gigabyte, and heaps have many.  Their words
are worked on side by side, as 64-bit lanes of one large integer: Python's own arithmetic on
it costs about a nanosecond a lane, and whatever looks at words one by one twenty or more.
No operation here carries from one lane into another.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from functools import cache, lru_cache
from itertools import chain, compress, islice, repeat
from operator import gt
from typing import Iterator, List, Sequence, Tuple

from drain_gdb.jemalloc.rtree import Stretch
from drain_gdb.layout.records import RtreeLayout
from drain_gdb.memory import CACHE_PAGE, WORD

LANE = 64
LANES = 1024
"""Words that are worked on together; integers of this size stay in the nearest cache."""
LG_ALIGN = 6
"""Extents are aligned to cache lines: EDATA_ALIGNMENT (edata.h, 5.3.0), and CACHELINE in
base_alloc_extent() (base.c, 5.0 to 5.2)."""
NO_SLAB = 0xFF
"""The tag of an element that maps no slab: more than the size class of any slab."""
GAP = 1 << 16
"""Extents further apart than this are read separately; where they are sparse, those
further apart than a page."""
RUN_MAX = 1 << 20
"""Bytes of extents looked at together; what is kept of them meanwhile is small."""


class Leaf:
    """The extents that the leaf for the addresses from ``base`` on lists.

    Attributes:
        extents: where they stand, ascending, each once.
        pages: the first address that each is listed for.
        tags: the size class that the element there has for a slab, else ``NO_SLAB``;
            empty where the layout does not know of tags.
        impossible: pointers to where no extent can stand; they are left out.

    """

    def __init__(self, base: int, stretches: Sequence[Stretch], layout: RtreeLayout) -> None:
        self._layout = layout
        self._lg_pages = layout.bits[-1]
        # In a key, an extent's place in units of its alignment is before a page's number.
        room = (1 << LANE - self._lg_pages + LG_ALIGN) - (1 << LG_ALIGN)
        self._pointer = layout.pointer_mask & room
        self._no_pointer = layout.pointer_mask & ~room
        self._tag_of = bytearray(1 << self._lg_pages)
        self.extents = array("Q")
        self.pages = array("Q")
        self.tags = b""
        self.impossible: List[int] = []
        keys: List[int] = []
        for start, words in stretches:
            self._collect(start - base >> layout.lg_page, words, keys)
        keys.sort()
        # What is mapped to nothing has no place.
        del keys[: bisect_left(keys, 1 << self._lg_pages)]
        packed = array("Q", keys)
        self._gaps = self._measure(packed)
        if 0 in self._gaps:
            # Some are listed for several pages, large ones for their last one too.
            packed = array("Q", compress(keys, self._gaps))
            self._gaps = list(compress(self._gaps, self._gaps))
        self._unpack(base, packed)

    def runs(self) -> Iterator[slice]:
        """The extents in pieces that are worth one read each."""
        for run in self._split(slice(0, len(self.extents)), GAP):
            first, last = self.extents[run.start], self.extents[run.stop - 1]
            if last - first > (run.stop - run.start) * CACHE_PAGE:
                yield from self._split(run, CACHE_PAGE)
            else:
                yield run

    def _split(self, run: slice, most: int) -> Iterator[slice]:
        start = run.start
        between = range(start + 1, run.stop)
        far = map(gt, islice(self._gaps, start + 1, run.stop), repeat(most))
        for end in chain(compress(between, far), (run.stop,)):
            while start < end:
                limit = self.extents[start] + RUN_MAX
                stop = bisect_left(self.extents, limit, start, end)
                yield slice(start, stop)
                start = stop

    def _collect(self, page: int, words: memoryview, keys: List[int]) -> None:
        """Add a key for each row of elements, from the ``page``-th on, with one pointer."""
        step = self._layout.leaf_words
        numbers = _numbers()
        before = 0
        for start in range(0, len(words), LANES * step):
            piece = words[start : start + LANES * step]
            first, count = piece[::step].tobytes(), len(piece) // step
            elements = _lanes(first)
            if elements & _every(self._no_pointer):
                elements = self._without_impossible(elements, count)
            pointers = elements & _every(self._pointer)
            begins = pointers ^ (pointers << LANE | before)
            before = pointers >> LANE * (count - 1)
            numbered = numbers + _every(1) * page
            found = pointers << self._lg_pages - LG_ALIGN | numbered
            keys += compress(_words(found, count), _words(begins, count))
            self._tag(page, count, first if step == 1 else piece[1::step].tobytes())
            page += count

    def _without_impossible(self, elements: int, count: int) -> int:
        words = _words(elements, count)
        for row, word in enumerate(words):
            if word & self._no_pointer:
                words[row] = 0
                pointer = word & self._layout.pointer_mask
                if pointer not in self.impossible[-1:]:
                    self.impossible.append(pointer)
        return _lanes(words.tobytes())

    def _tag(self, page: int, count: int, words: bytes) -> None:
        """Note the tags of elements, from the ``page``-th on."""
        slab, szind = self._layout.slab, self._layout.szind
        if slab is None or szind is None:
            return
        lanes = _lanes(words)
        others = ~(lanes >> slab.shift) & _every(1)
        tags = lanes >> szind.shift & _every(szind.mask & NO_SLAB) | others * NO_SLAB
        self._tag_of[page : page + count] = _words(tags, count).tobytes()[::WORD]

    def _measure(self, keys: array[int]) -> List[int]:
        """From each extent to the one before it, from the first to address 0."""
        gaps: List[int] = []
        before = 0
        for lanes, count in _pieces(keys):
            places = self._places(lanes)
            gaps += _words(places - (places << LANE & _all(count) | before), count)
            before = places >> LANE * (count - 1)
        return gaps

    def _unpack(self, base: int, keys: array[int]) -> None:
        """Fill the columns from the keys."""
        for lanes, count in _pieces(keys):
            numbers = lanes & _every((1 << self._lg_pages) - 1)
            pages = (numbers << self._layout.lg_page) + _every(1) * base
            self.extents += _words(self._places(lanes), count)
            self.pages += _words(pages, count)
            if self._layout.slab is not None:
                self.tags += bytes(map(self._tag_of.__getitem__, _words(numbers, count)))

    def _places(self, keys: int) -> int:
        """Where the extents of keys stand."""
        places = keys & _every(-1 << self._lg_pages & (1 << LANE) - 1)
        return places >> self._lg_pages - LG_ALIGN


@cache
def _every(value: int) -> int:
    """``value`` in each lane."""
    return int.from_bytes(value.to_bytes(WORD, "little") * LANES, "little")


@cache
def _numbers() -> int:
    """In each lane its number."""
    return _lanes(array("Q", range(LANES)).tobytes())


def _lanes(words: bytes) -> int:
    return int.from_bytes(words, "little")


def _words(lanes: int, count: int) -> array[int]:
    """The first ``count`` lanes."""
    return array("Q", (lanes & _all(count)).to_bytes(count * WORD, "little"))


@lru_cache(maxsize=16)
def _all(count: int) -> int:
    """All bits of ``count`` lanes."""
    return (1 << LANE * count) - 1


def _pieces(words: array[int]) -> Iterator[Tuple[int, int]]:
    """The lanes of each piece of ``words``, and how many they are."""
    for start in range(0, len(words), LANES):
        piece = words[start : start + LANES]
        yield _lanes(piece.tobytes()), len(piece)
