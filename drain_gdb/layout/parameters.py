"""The build-time choices of a jemalloc from which its sizes follow.

Size classes and array dimensions are functions of the page size, the quantum
and the width of virtual addresses.  Sources, jemalloc 5.3.0:
``include/jemalloc/internal/sc.h`` (size classes), ``bitmap.h``, ``fb.h``,
``tcache_types.h``, ``rtree.h``.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Callable, Dict, Tuple

LG_TINY_MIN = 3
"""SC_LG_TINY_MIN, sc.h: the smallest size class is 8 bytes."""
LG_NGROUP = 2
"""SC_LG_NGROUP, sc.h: four size classes per doubling."""
NGROUP = 1 << LG_NGROUP
LG_BASE_MAX = 62
"""SC_LG_BASE_MAX, sc.h, for 64-bit pointers."""
LG_WORD_BITS = 6
WORD_BITS = 1 << LG_WORD_BITS
LG_TCACHE_MAXCLASS_LIMIT = 23
"""TCACHE_LG_MAXCLASS_LIMIT, tcache_types.h (5.3.0)."""
LG_VADDRS = (48, 57, 64, 52, 47)
"""Widths of addresses that configure.ac finds, the frequent ones first; 64 where it does not
look, as for riscv64 and ppc64le."""
LG_MAXREGS = range(10, 17)
"""What --with-lg-slab-maxregs may say: more than the default of a page of 4 KiB."""
LOCK_BYTES = 40
LG_HUGEPAGE = 21
ARENAS_MAX = (1 << 12) - 1
"""MALLOCX_ARENA_LIMIT, jemalloc_internal_types.h: arena indices are 12 bits."""


def _groups(bits: int) -> int:
    return -(-bits // WORD_BITS)


def _lg_ceil(value: int) -> int:
    return (value - 1).bit_length()


@cache
def size_classes(lg_quantum: int) -> Tuple[int, ...]:
    """All size classes in bytes, ascending (sc.h, ``size_classes()`` in sc.c)."""
    sizes = [1 << lg for lg in range(LG_TINY_MIN, lg_quantum)]
    sizes += [n << lg_quantum for n in range(1, NGROUP + 1)]
    for lg_base in range(lg_quantum + LG_NGROUP, LG_BASE_MAX + 1):
        sizes += [(1 << lg_base) + (n << (lg_base - LG_NGROUP)) for n in range(1, NGROUP + 1)]
    return tuple(sizes[:-1])


@dataclass(frozen=True)
class Parameters:
    """``lg_page``, ``lg_quantum`` and ``lg_vaddr`` of a build (LG_PAGE and so on).

    ``lock_bytes`` is the size of pthread_mutex_t: 48 on aarch64 with glibc
    (sysdeps/aarch64/nptl/bits/pthreadtypes-arch.h), else 40 wherever pointers have 64 bits.
    ``lg_hugepage`` is what configure found where it ran.  ``lg_maxregs`` is what it was given
    with --with-lg-slab-maxregs, 0 for nothing.
    """

    lg_page: int
    lg_quantum: int
    lg_vaddr: int
    lock_bytes: int = LOCK_BYTES
    lg_hugepage: int = LG_HUGEPAGE
    lg_maxregs: int = 0

    @property
    def page(self) -> int:
        """Bytes of a jemalloc page."""
        return 1 << self.lg_page

    @property
    def sizes(self) -> Tuple[int, ...]:
        """Bytes of each size class, indexed by szind."""
        return size_classes(self.lg_quantum)

    @property
    def nsizes(self) -> int:
        """SC_NSIZES."""
        return len(self.sizes)

    @cached_property
    def nbins(self) -> int:
        """SC_NBINS: the small size classes, those under four pages."""
        return bisect_left(self.sizes, self.page << LG_NGROUP)

    @property
    def npsizes(self) -> int:
        """SC_NPSIZES: the size classes that are multiples of the page."""
        return NGROUP + (LG_BASE_MAX - (self.lg_page + LG_NGROUP)) * NGROUP + NGROUP - 1

    @property
    def lg_slab_maxregs(self) -> int:
        """SC_LG_SLAB_MAXREGS: a slab holds at most this power of two of regions."""
        return max(self.lg_page - LG_TINY_MIN, self.lg_maxregs)

    @property
    def szind_bits(self) -> int:
        """LG_CEIL(SC_NSIZES)."""
        return _lg_ceil(self.nsizes)

    @property
    def lg_bitmap_maxbits(self) -> int:
        """LG_BITMAP_MAXBITS (bitmap.h)."""
        return max(self.lg_slab_maxregs, self.szind_bits)

    @property
    def bitmap_tree(self) -> bool:
        """BITMAP_USE_TREE (bitmap.h): a bitmap of more than 8 words has upper levels."""
        return self.lg_bitmap_maxbits - LG_WORD_BITS > 3

    @property
    def bitmap_groups(self) -> int:
        """BITMAP_GROUPS_MAX: words of a slab's bitmap, all levels together."""
        return self.groups_of(1 << self.lg_bitmap_maxbits)

    def groups_of(self, bits: int) -> int:
        """BITMAP_GROUPS(bits): words of a bitmap, all levels together.

        How many levels there are follows from the largest bitmap, not from this one.
        """
        levels = -(-self.lg_bitmap_maxbits // LG_WORD_BITS) if self.bitmap_tree else 1
        total = 0
        for _ in range(levels):
            bits = _groups(bits)
            total += bits
        return total

    @property
    def bitmap_info_words(self) -> int:
        """Words of bitmap_info_t: nbits and ngroups, or nbits, nlevels and 6 levels."""
        return 8 if self.bitmap_tree else 2

    @property
    def tcache_nbins_max(self) -> int:
        """TCACHE_NBINS_MAX (5.3.0): cache bins of a tcache."""
        lg_large_minclass = self.lg_page + LG_NGROUP
        return self.nbins + NGROUP * (LG_TCACHE_MAXCLASS_LIMIT - lg_large_minclass) + 1

    @property
    def rtree_bits(self) -> Tuple[int, ...]:
        """Key bits of each rtree level, root first (``rtree_levels``, rtree.h)."""
        bits = self.lg_vaddr - self.lg_page
        height = 1 if bits <= 10 else 2 if bits <= 36 else 3
        low, extra = divmod(bits, height)
        return tuple(low + (level >= height - extra) for level in range(height))

    @property
    def compact_leaf(self) -> bool:
        """Whether an rtree leaf element is one tagged word (RTREE_LEAF_COMPACT)."""
        return WORD_BITS - self.lg_vaddr >= self.szind_bits

    def dimension(self, name: str) -> int:
        """The array length that a layout file calls ``name``; KeyError if unknown."""
        return DIMENSIONS[name](self)


DIMENSIONS: Dict[str, Callable[[Parameters], int]] = {
    "nbins": lambda p: p.nbins,
    "nsizes": lambda p: p.nsizes,
    "nsizes-nbins": lambda p: p.nsizes - p.nbins,
    "npsizes+1": lambda p: p.npsizes + 1,
    "npsizes+5": lambda p: p.npsizes + 5,
    "npsizes+6": lambda p: p.npsizes + 6,
    "fb_groups(npsizes+1)": lambda p: _groups(p.npsizes + 1),
    "bitmap_info_words": lambda p: p.bitmap_info_words,
    "bitmap_groups(npsizes+1)": lambda p: p.groups_of(p.npsizes + 1),
    "bitmap_groups(npsizes+6)": lambda p: p.groups_of(p.npsizes + 6),
    "bitmap_groups(64)": lambda p: p.groups_of(64),
    "bitmap_groups": lambda p: p.bitmap_groups,
    "nbins+5": lambda p: p.nbins + NGROUP + 1,
    "tcache_nbins_max": lambda p: p.tcache_nbins_max,
    "rtree_root": lambda p: 1 << p.rtree_bits[0],
    "fb_groups(hugepage_pages)": lambda p: _groups(1 << p.lg_hugepage - p.lg_page),
    "rtree_height": lambda p: len(p.rtree_bits),
    "npsizes": lambda p: p.npsizes,
    "szind_bits": lambda p: p.szind_bits,
    "lg_slab_maxregs": lambda p: p.lg_slab_maxregs,
    "lg_slab_maxregs+1": lambda p: p.lg_slab_maxregs + 1,
    "lock_bytes": lambda p: p.lock_bytes,
}
"""What depends on the parameters, array lengths mostly, by the name the layout data uses."""
