"""Which elements of an rtree's node can be other than null.

An extent enters the tree after its pages are mapped and leaves it before they are
unmapped (emap.c, pac.c, 5.3.0; extent.c before), so where the address space is known,
only the elements for addresses in use need be read: of 2 MiB that a leaf has, often
some hundred KiB.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Iterator, List, Optional, Sequence, Tuple

from drain_gdb.layout.records import RtreeLayout
from drain_gdb.memory import CACHE_PAGE, WORD, Range

PARTS_KEPT = 64
"""Answers remembered: a search for the root asks thousands of times for that of any leaf."""


def element_size(layout: RtreeLayout, level: int) -> int:
    """Bytes of an element of a node at ``level``."""
    return WORD * (layout.leaf_words if level == len(layout.bits) - 1 else 1)


def used_parts(
    layout: RtreeLayout, level: int, mapped: Sequence[Range], base: Optional[int] = None
) -> List[Range]:
    """The bytes of a node at ``level`` that may hold something, ``(start, end)`` from its start.

    ``base`` is the first address that the node covers; None where that is not known.
    What is nearer than a page is joined.
    """
    return _parts(layout, level, tuple(mapped), base)


@lru_cache(maxsize=PARTS_KEPT)
def _parts(
    layout: RtreeLayout, level: int, mapped: Tuple[Range, ...], base: Optional[int]
) -> List[Range]:
    size = element_size(layout, level)
    found: List[Range] = []
    for first, last in sorted(_elements(layout, level, mapped, base)):
        start, end = first * size, last * size
        if found and start - found[-1][1] < CACHE_PAGE:
            start, end = found[-1][0], max(found.pop()[1], end)
        found.append((start, end))
    return found


def _elements(
    layout: RtreeLayout, level: int, mapped: Sequence[Range], base: Optional[int]
) -> Iterator[Range]:
    """``(first, last + 1)`` of the elements for each of the ranges."""
    shift = layout.lg_page + sum(layout.bits[level + 1 :])
    count = 1 << layout.bits[level]
    for start, end in mapped:
        first, last = start >> shift, -(-end >> shift)
        if base is not None:
            own = base >> shift
            first, last = max(first - own, 0), min(last - own, count)
            if first < last:
                yield first, last
        elif last - first >= count:
            yield 0, count
        else:
            first, last = first % count, last % count
            if first < last:
                yield first, last
            else:
                yield from ((first, count), (0, last))
