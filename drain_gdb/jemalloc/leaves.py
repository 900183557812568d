"""What a leaf of the rtree lists: extents, in the order in which they stand in memory.

A leaf has an element for every page of up to a gigabyte, and heaps have many.  Their words
are worked on side by side, as 64-bit lanes of one large integer: Python's own arithmetic on
it costs about a nanosecond a lane, and whatever looks at words one by one twenty or more.
No operation here carries from one lane into another.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from functools import cache, lru_cache
from itertools import chain, compress, count, repeat
from operator import gt, itemgetter
from typing import Iterator, List, Sequence

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
        # The rows of extents far from the one before, and how far that is.
        self._far: List[int] = []
        self._gaps: List[int] = []
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
        self._unpack(base, array("Q", keys))

    def runs(self, size: int = RUN_MAX) -> Iterator[slice]:
        """The extents in pieces of at most ``size`` bytes that are worth one read each."""
        for run in self._split(slice(0, len(self.extents)), GAP, size):
            first, last = self.extents[run.start], self.extents[run.stop - 1]
            if last - first > (run.stop - run.start) * CACHE_PAGE:
                yield from self._split(run, CACHE_PAGE, size)
            else:
                yield run

    def _split(self, run: slice, most: int, size: int) -> Iterator[slice]:
        """The pieces of a run, of ``size`` bytes, between gaps of more than ``most`` bytes."""
        start = run.start
        far = slice(bisect_right(self._far, start), bisect_left(self._far, run.stop))
        wider = compress(self._far[far], map(gt, self._gaps[far], repeat(most)))
        for end in chain(wider, (run.stop,)):
            while start < end:
                limit = self.extents[start] + size
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
            first, size = piece[::step].tobytes(), len(piece) // step
            elements = _lanes(first)
            if elements & _every(self._no_pointer):
                elements = self._without_impossible(elements, size)
            pointers = elements & _every(self._pointer)
            begins = pointers ^ (pointers << LANE | before)
            before = pointers >> LANE * (size - 1)
            numbered = numbers + _every(1) * page
            found = pointers << self._lg_pages - LG_ALIGN | numbered
            keys += compress(_words(found, size), _words(begins, size))
            self._tag(page, size, first if step == 1 else piece[1::step].tobytes())
            page += size

    def _without_impossible(self, elements: int, size: int) -> int:
        words = _words(elements, size)
        for row, word in enumerate(words):
            if word & self._no_pointer:
                words[row] = 0
                pointer = word & self._layout.pointer_mask
                if pointer not in self.impossible[-1:]:
                    self.impossible.append(pointer)
        return _lanes(words.tobytes())

    def _tag(self, page: int, size: int, words: bytes) -> None:
        """Note the tags of elements, from the ``page``-th on."""
        slab, szind = self._layout.slab, self._layout.szind
        if slab is None or szind is None:
            return
        lanes = _lanes(words)
        others = ~(lanes >> slab.shift) & _every(1)
        tags = lanes >> szind.shift & _every(szind.mask & NO_SLAB) | others * NO_SLAB
        self._tag_of[page : page + size] = _words(tags, size).tobytes()[::WORD]

    def _unpack(self, base: int, keys: array[int]) -> None:
        """Fill the columns from the keys, ascending."""
        before = 0
        for start in range(0, len(keys), LANES):
            piece = keys[start : start + LANES]
            size = len(piece)
            places = self._places(_lanes(piece.tobytes()))
            gaps = _words(places - (places << LANE & _all(size) | before), size).tolist()
            before = places >> LANE * (size - 1)
            if 0 in gaps:
                # Some are listed for several pages, large ones for their last one too.
                piece = array("Q", list(compress(piece, gaps)))
                gaps = list(compress(gaps, gaps))
            self._note_far(gaps)
            if piece:
                self._append(base, piece)

    def _note_far(self, gaps: Sequence[int]) -> None:
        """Note which of the extents to come stand far from the one before them."""
        if max(gaps, default=0) > CACHE_PAGE:
            far = list(map(gt, gaps, repeat(CACHE_PAGE)))
            self._far += compress(count(len(self.extents)), far)
            self._gaps += compress(gaps, far)

    def _append(self, base: int, keys: array[int]) -> None:
        """Add to the columns what at most ``LANES`` keys say."""
        lanes, size = _lanes(keys.tobytes()), len(keys)
        pages = lanes & _every((1 << self._lg_pages) - 1)
        self.extents += _words(self._places(lanes), size)
        self.pages += _words((pages << self._layout.lg_page) + _every(1) * base, size)
        if self._layout.slab is not None:
            # From two on, itemgetter() gives a tuple.
            pick = itemgetter(*_words(pages, size), 0)
            self.tags += bytes(pick(self._tag_of)[:size])

    def _places(self, keys: int) -> int:
        """Where the extents of keys stand."""
        places = keys & _every(-1 << self._lg_pages & (1 << LANE) - 1)
        return places >> self._lg_pages - LG_ALIGN


@lru_cache(maxsize=64)
def _every(value: int) -> int:
    """``value`` in each lane."""
    return int.from_bytes(value.to_bytes(WORD, "little") * LANES, "little")


@cache
def _numbers() -> int:
    """In each lane its number."""
    return _lanes(array("Q", range(LANES)).tobytes())


def _lanes(words: bytes) -> int:
    return int.from_bytes(words, "little")


def _words(lanes: int, size: int) -> array[int]:
    """The first ``size`` lanes."""
    return array("Q", (lanes & _all(size)).to_bytes(size * WORD, "little"))


@lru_cache(maxsize=16)
def _all(size: int) -> int:
    """All bits of ``size`` lanes."""
    return (1 << LANE * size) - 1
