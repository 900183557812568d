"""Which region holds a pointer to which: one pass over what is live.

The memory is read in the order of the regions' numbers, so references come sorted by the
region that they are in, and of each only its target is kept: four bytes, and eight more a
region that say where its references begin.

A word that could be a pointer is weak evidence.  Almost all true ones point at the start of
a region or a few bytes behind it: behind the header of a string (1, 3, 5, 9 or 17 bytes), at
a base or member of an object, behind a garbage collector's header (16 or 32), or at the start
with its lowest bits used for something else.  Others are kept apart, as weak ones.  So is one
past the end of an allocation, as containers keep it (``begin, end, end of capacity``), which
looks like a pointer to the next one.

Of a region the program may have asked for less than it has: 24 bytes of 32.  What lies behind
is often what was there before.  Pointers from there are kept apart, too.  The last word that was
surely asked for, in part, is a weak one where the one before has no zero byte: a text may end in
it, whose end makes the rest of an old pointer one to another region.

To a small region at a multiple of 16 MiB every old pointer leads whose lowest three bytes are
overwritten with zeros, as by a key in a radix tree's node, and hardly ever a true one: weak, too.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import accumulate, chain, compress, repeat
from operator import gt, sub
from typing import Iterator, List, NamedTuple, Protocol, Sequence, Tuple

from drain_gdb.jemalloc.live import LARGE_PAD, LiveRegions
from drain_gdb.memory import WORD, Memory
from drain_gdb.objects.fast import numpy, view

PIECE = 1 << 21
"""Bytes that are read and looked at in one go."""
GAP = 1 << 18
"""Bytes between two blocks that are read along: many small reads take longer."""
PAGE = 1 << 12
"""Bytes; every block begins and ends at a multiple."""
NEAR = 64
"""Bytes from a region's start; beyond them a pointer is weak."""
HEADERS = (1, 2, 3, 4, 5, 6, 7, 9, 17)
"""Offsets that are no multiples of a word: tags in the lowest bits, headers of strings."""
STRONG = bytes(offset % WORD == 0 or offset in HEADERS for offset in range(NEAR))
"""By offset in the region that is pointed at."""
NEAR_LARGE = PAGE + NEAR
"""A large allocation begins at some cache line of its first page (cache_oblivious)."""
TABLE_MAX = 1 << 26
"""Pages of a heap's span with which blocks are looked up in a table; else they are searched."""
ONES, HIGH_BITS = 0x0101_0101_0101_0101, 0x8080_8080_8080_8080
"""A word has a zero byte if ``(word - ONES) & ~word & HIGH_BITS``."""
OVERWRITTEN = (1 << 24) - 1
"""Bits of a pointer that are zero where short data lies over an old one."""
NOWHERE = (1 << 32) - 1
"""No region."""
TABLE_LEAST = 64
"""Bytes from which on a region of a power of two is likely to be a table, used to its end."""


class Reference(NamedTuple):
    """A pointer found in memory that is no region.

    Attributes:
        address: where it is.
        region: the number of the live region it points into.
        strong: whether at a place where pointers point.

    """

    address: int
    region: int
    strong: bool


class Links(NamedTuple):
    """What regions refer to.

    Attributes:
        begins: by region, and one more: where in ``targets`` its references begin.
        targets: regions.

    """

    begins: Sequence[int]
    targets: Sequence[int]

    def of(self, region: int) -> Sequence[int]:
        """The regions that this one refers to, one as often as it does."""
        return self.targets[self.begins[region] : self.begins[region + 1]]


def only_to_others(some: Links, others: Links) -> Links:
    """Those of ``some`` links that lead to what none of the ``others`` leads to."""
    np = numpy()
    if np is None:
        known = set(others.targets)
        return _kept(some, [target not in known for target in some.targets])
    led_to = np.zeros(len(some.begins), bool)
    led_to[view(others.targets, "u4")] = True
    return _kept(some, ~led_to[view(some.targets, "u4")])


def only_of_holders(some: Links, others: Links) -> Links:
    """Those of ``some`` links whose region has ``others`` as well."""
    np = numpy()
    if np is None:
        return _only_of(some, bytes(map(gt, others.begins[1:], others.begins)))
    return _only_of(some, (np.diff(view(others.begins, "u4")) > 0).tobytes())


def only_of_tables(some: Links, live: LiveRegions) -> Links:
    """Those of ``some`` links whose region has a size to which tables grow, a power of two."""
    likely = (_table(size, slab) for size, slab in zip(live.size, live.slab))
    return _only_of(some, b"".join(bytes([yes]) * n for yes, n in zip(likely, live.nregs)))


def _table(size: int, slab: int) -> bool:
    asked = size if slab else size - LARGE_PAD
    return size >= TABLE_LEAST and (size & (size - 1) == 0 or asked & (asked - 1) == 0)


def _only_of(some: Links, chosen: bytes) -> Links:
    """Those of ``some`` links whose region is ``chosen``, a byte a region."""
    np = numpy()
    if np is None:
        numbers = map(sub, some.begins[1:], some.begins)
        return _kept(some, bytes(chain.from_iterable(map(repeat, chosen, numbers))))
    return _kept(some, np.repeat(view(chosen, "?"), np.diff(view(some.begins, "u4"))))


def _kept(some: Links, keep: Sequence[int]) -> Links:
    """Those of ``some`` links that ``keep`` has, NumPy's where that is there."""
    np = numpy()
    if np is None:
        places = list(accumulate(keep, initial=0))
        begins = array("I", map(places.__getitem__, some.begins))
        return Links(begins, array("I", compress(some.targets, keep)))
    places = np.concatenate([[0], np.cumsum(keep)]).astype("u4")
    return Links(
        memoryview(places[view(some.begins, "u4")]),
        array("I", view(some.targets, "u4")[keep].tobytes()),
    )


@dataclass(frozen=True)
class References:
    """What live regions point at.

    Attributes:
        strong: where pointers point, from within what was surely asked for.
        slack: the same from behind that.
        weak_from, weak_to: regions, a pair a weak reference, the first ascending.

    """

    strong: Links
    slack: Links
    weak_from: Sequence[int]
    weak_to: Sequence[int]


class Finder(Protocol):
    """Finds the words that point into live regions.

    Attributes:
        alive: a byte a region, 1 where it is live.

    """

    alive: bytearray

    def feed(self, address: int, data: bytes) -> None:
        """Look through the regions of some memory, whole words, each piece behind the last."""

    @property
    def references(self) -> References:
        """What was fed; no more can be."""

    def find(self, address: int, data: bytes) -> List[Reference]:
        """The pointers in memory that is no region, ascending."""

    def regions(self, addresses: array[int]) -> Sequence[int]:
        """The number of the live region that holds each address; NOWHERE where none does."""


def finder(live: LiveRegions) -> Finder:
    """The fastest one that this Python can have."""
    # Each is imported only where it is used.
    if numpy() is None:
        from drain_gdb.objects.references_plain import PlainFinder  # noqa: PLC0415

        return PlainFinder(live)
    from drain_gdb.objects.references_numpy import NumpyFinder  # noqa: PLC0415

    return NumpyFinder(live)


def pieces(live: LiveRegions, memory: Memory) -> Iterator[Tuple[int, bytes]]:
    """``(address, bytes)`` of all blocks that hold a live region, ascending.

    Blocks that lie close together are read together, with what is between them; what cannot be
    read is zero.
    """
    for start, end in _runs(live):
        for at in range(start, end, PIECE):
            yield at, memory.block(at, min(PIECE, end - at)).data


def _runs(live: LiveRegions) -> Iterator[Tuple[int, int]]:
    begun, at = 0, 0
    for start, end, held in zip(live.start, live.end, live.live):
        if not held:
            continue
        if start > at + GAP or not at:
            if at:
                yield begun, at
            begun = start
        at = end
    if at:
        yield begun, at
