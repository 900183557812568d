"""How what a program asked for lies in the region that it got.

Source: jemalloc's sc.h and large.c, 4.0 to 5.3.
"""

from __future__ import annotations

from typing import Iterator

from drain_gdb.objects.recogniser import Region

STEP_MIN = 16
"""Bytes that the smallest classes are apart, at most."""
LARGE_MIN = 1 << 14
"""Bytes from which on an allocation is large where pages are of 4 KiB."""
PAGE = 1 << 12
"""Bytes at the start of a large allocation in which what was asked for may begin: at a
cache line chosen at random, for which it has another page (``opt.cache_oblivious``)."""
LINE = 64


def fits(size: int, needed: int) -> bool:
    """Whether ``needed`` bytes get a region of ``size``, not a smaller one.

    Size classes lie a quarter of a power of two apart, or 16 bytes.
    """
    step = max((1 << (size - 1).bit_length()) >> 3, STEP_MIN)
    if size >= LARGE_MIN:
        step += PAGE
    return size - step < needed <= size


def begins(region: Region, address: int) -> bool:
    """Whether ``address`` may be what the program got for a region."""
    offset = address - region.address
    return not offset or (region.size >= LARGE_MIN and offset < PAGE and not offset % LINE)


def beginnings(region: Region) -> Iterator[Region]:
    """A region, from each place on where what the program got may begin."""
    yield region
    if region.size >= LARGE_MIN:
        for offset in range(LINE, PAGE, LINE):
            yield Region(region.address + offset, region.size - offset, region.data[offset:])
