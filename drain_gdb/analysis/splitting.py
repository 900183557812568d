"""What smaller slabs would save of a size class, its live regions staying where they are."""

from __future__ import annotations

from math import comb
from typing import NamedTuple, Optional

from drain_gdb.analysis.packing import Bin

LEAST = 1 << 20
"""Bytes: a class that would save less is not worth an option."""
OTHERWISE = 0.02
"""By so much of it what is saved may be less or more, for the next start does not allocate and
free in the same places: at most 0.9 % in replays of the same allocations."""


class Split(NamedTuple):
    """Slabs of ``pages`` for regions of ``size`` bytes, and the bytes that saves.

    ``value`` is for live regions that lie at random in their slabs, ``low`` where each part
    of a slab has one, ``high`` where they lie together; both with a margin.
    """

    size: int
    pages: int
    value: int
    low: int
    high: int


def best_split(each: Bin, page: int) -> Optional[Split]:
    """The smaller slab size that saves most, at least ``LEAST`` bytes; None where none does."""
    found = [_split(each, page, pages) for pages in range(1, each.slab_size // page)]
    best = max((s for s in found if s is not None), key=lambda s: s.value, default=None)
    return best if best is not None and best.value >= LEAST else None


def _split(each: Bin, page: int, pages: int) -> Optional[Split]:
    size = pages * page
    nregs = size // each.size
    if not nregs or each.by_live is None:
        return None
    parts = -(-each.nregs // nregs)
    now = value = low = high = 0.0
    for live, number in each.by_live.items():
        if live:
            now += number * each.slab_size
            empty = comb(each.nregs - nregs, live) / comb(each.nregs, live)
            value += number * size * parts * (1 - empty)
            low += number * size * min(parts, live)
            high += number * size * -(-live // nregs)
    saved, least, most = now - value, (1 - OTHERWISE) * (now - low), (1 + OTHERWISE) * (now - high)
    return Split(each.size, pages, round(saved), round(least), round(most))
