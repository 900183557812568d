"""Layouts as JSON values and back, for recordings.

What comes back is checked as strictly as a file from a stranger needs: the walkers
trust a layout's sizes and offsets.
"""

from __future__ import annotations

from typing import Dict, Iterator, List, Tuple

from drain_gdb.debuggee.serialize import from_json, to_json
from drain_gdb.errors import RecordingError
from drain_gdb.layout.bins import LG_PAGES, LG_QUANTA
from drain_gdb.layout.build import COUNTERS, MADE
from drain_gdb.layout.parameters import ARENAS_MAX, WORD_BITS
from drain_gdb.layout.records import Bits, CacheLayout, CountedCaches, CountersLayout, Layout
from drain_gdb.memory import WORD

STRUCT_MAX = 1 << 20
"""Bytes; the largest, arena_t, has some 80 KB."""
ROWS_MAX = 1 << 10
SHORT = 2
"""Bytes of the smallest field of a cache bin; the table of cache bins is read on."""
POSITION_SIZES = (2, 4)
LG_VADDRS = range(32, WORD_BITS + 1)
SOURCES = ("dwarf", "symbols", "discovered")


def to_value(layout: Layout) -> Dict[str, object]:
    """``layout`` as a JSON object."""
    return to_json(layout)


def from_value(value: object) -> Layout:
    """The layout that :func:`to_value` made ``value`` of.

    Raises :class:`RecordingError` where it is none, or no possible one.
    """
    layout = from_json(Layout, value, "layout")
    for what, possible in _checks(layout):
        if not possible:
            raise RecordingError(f"the recording is not understood: impossible {what}")
    return layout


def _checks(layout: Layout) -> Iterator[Tuple[str, bool]]:
    """``(what, whether it is possible)``, each safe to ask once those before it are."""
    parameters = layout.parameters
    yield "source of a layout", layout.source in SOURCES
    yield (
        "build parameters",
        parameters.lg_page in LG_PAGES
        and parameters.lg_quantum in LG_QUANTA
        and parameters.lg_vaddr in LG_VADDRS,
    )
    rtree = layout.rtree
    yield (
        "rtree",
        (rtree.bits, rtree.lg_page) == (parameters.rtree_bits, parameters.lg_page)
        and rtree.compact == parameters.compact_leaf
        and rtree.pointer_mask < 1 << WORD_BITS,
    )
    yield "tags of leaf elements", _bits(rtree.slab) and _bits(rtree.szind)
    extent = layout.extent
    words = (extent.bits, extent.address, extent.size_and_esn, extent.bitmap)
    heap_link = extent.heap_link + 2 * WORD
    yield "extent", _record(extent.size, *words, heap_link)
    yield "fields of e_bits", all(map(_bits, vars(extent).values()))
    info = layout.bin_info
    if info is not None:
        shards = 0 if info.n_shards is None else info.n_shards
        yield "bin_info", _record(info.size, info.reg_size, info.slab_size, info.nregs, shards)
    bin_t = layout.bin
    yield (
        "bin",
        _record(
            bin_t.size,
            bin_t.slabcur,
            bin_t.slabs_nonfull,
            bin_t.lock or 0,
            *bin_t.stats.values(),
        ),
    )
    yield "counters of a bin", bin_t.stats.keys() - set(MADE) == set(COUNTERS)
    arena = layout.arena
    pages = [offset for offsets in arena.cached_pages.values() for offset in offsets]
    offsets = (arena.index, arena.bins, arena.base, arena.descriptors, arena.large)
    places = (arena.base_allocated, arena.caches or 0, arena.base_blocks or 0)
    yield "arena", _near(*offsets, arena.nactive or 0, *pages, *places)
    decays = [offset for decay in arena.decays.values() for offset in vars(decay).values()]
    yield "decays of an arena", _near(arena.threads or 0, *(offset or 0 for offset in decays))
    yield "mutexes of an arena", len(arena.locks) <= ROWS_MAX and _near(0, *arena.locks.values())
    yield "table of arenas", arena.table_size <= ARENAS_MAX
    yield "large size classes", arena.large_count <= ROWS_MAX
    yield (
        "counters of a large size class",
        _record(arena.large_size, arena.large_nmalloc, arena.large_ndalloc),
    )
    yield "counters", layout.counters is None or _counters(layout.counters)
    yield "thread cache", _caches(layout.tcache)
    threads = layout.threads or ()
    yield "caches of threads", all(0 <= address < 1 << WORD_BITS for address in threads)


def _caches(layout: CacheLayout) -> bool:
    offsets: List[int] = [layout.next, layout.bin_size, layout.requests]
    offsets += [layout.previous or 0, layout.descriptor, layout.link or 0]
    words, shorts = [layout.requests], [layout.low_water or 0]
    if isinstance(layout, CountedCaches):
        rows = max(layout.nsmall, layout.nlarge)
        offsets += [layout.small, layout.large, layout.own_small, layout.own_large]
        words += [layout.avail]
        shorts += [layout.ncached]
        if layout.positions is not None:
            shorts += [layout.positions.full, layout.positions.empty or 0]
            rows = rows if layout.positions.size in POSITION_SIZES else ROWS_MAX + 1
    else:
        rows = layout.nbins_max
        offsets += [layout.tcache, layout.bins, layout.stack, layout.leading]
        offsets += [layout.nbins or 0, layout.back or 0]
        words += [layout.head]
        shorts += [layout.low_bits_full, layout.low_bits_empty]
    inside = max(words) + WORD <= layout.bin_size and max(shorts) + SHORT <= layout.bin_size
    return rows <= ROWS_MAX and _near(*offsets) and inside


def _counters(layout: CountersLayout) -> bool:
    maps = (layout.arena, layout.base, layout.large, layout.bin, layout.profile)
    places = [place for each in maps for place in each.values()]
    rows = [row for several in layout.extents.values() for row in several]
    numbers = [number for row in rows for number in vars(row).values()]
    mutexes = [*layout.mutexes.values(), layout.base_mutex, layout.bin_mutex or 0]
    return (
        len(places) + len(rows) + len(mutexes) <= ROWS_MAX
        and all(place.size in (1, 2, 4, WORD) for place in places)
        and all(row.count <= ROWS_MAX and row.stride * row.count <= STRUCT_MAX for row in rows)
        and _near(*(place.offset for place in places), *numbers, *mutexes)
    )


def _near(*offsets: int) -> bool:
    return max(offsets) < STRUCT_MAX


def _record(size: int, *offsets: int) -> bool:
    """Whether a struct of whole words has a word at each offset."""
    return size % WORD == 0 and size < STRUCT_MAX and max(offsets) + WORD <= size


def _bits(field: object) -> bool:
    return not isinstance(field, Bits) or field.shift + field.width <= WORD_BITS
