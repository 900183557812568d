"""Arenas of a form that no commit known here has, by what must stand in them.

An arena has, somewhere, its bins in a row, each with the number of its slabs and regions,
which the tree tells; its base, which knows the arena's index and what it gave out; the
large allocations by size class; the pages that are in use; the head of the ring of its
thread caches.  What several places could be is left out, and then not compared.
"""

from __future__ import annotations

from itertools import accumulate, compress, islice
from itertools import count as count_from
from operator import sub
from typing import Dict, List, Optional, Sequence, Tuple

from drain_gdb.errors import LayoutError, UnreadableMemory
from drain_gdb.jemalloc.extents import ExtentWalk
from drain_gdb.jemalloc.heap import ACTIVE, STATE_NAMES
from drain_gdb.layout.bins import BinInfo
from drain_gdb.layout.pieces import ArenaForm, BaseForm, Pieces
from drain_gdb.layout.records import ArenaLayout, BinLayout, CacheLayout
from drain_gdb.layout.threads import is_cache
from drain_gdb.memory import WORD, Block, Memory, words_of

ARENA_MAX = 1 << 18
"""Bytes that are searched; an arena_t of 5.3.1 has some 80,000."""
FEW = 64
"""Numbers below are too frequent for a place to be known by its value."""

Counts = Dict[Tuple[int, int], Tuple[int, int]]
"""``(szind, shard)`` to slabs and regions."""


def infer_arenas(
    memory: Memory, pieces: Pieces, walker: ExtentWalk, bins: Sequence[BinInfo]
) -> ArenaForm:
    """The form of the arenas that hold what ``walker`` found.

    Raises :class:`LayoutError` where no place has the counters of an arena's bins.
    """
    index, wanted = _fullest(walker, bins)
    bin_forms: List[BinLayout] = []
    for _, (_, _, form) in pieces.arenas():
        if form not in bin_forms:
            bin_forms.append(form)
    for address in sorted({word for _, word in pieces.near_words}):
        block = memory.block(address, ARENA_MAX)
        for form in bin_forms:
            start = _bins_in(block, form, wanted, bins)
            if start is not None:
                arena = _arena(memory, pieces, walker, block, index, start)
                return pieces.tree[1], arena, form
    raise LayoutError("no place has the counters that an arena with these slabs would have")


def _fullest(walker: ExtentWalk, bins: Sequence[BinInfo]) -> Tuple[int, Counts]:
    """The arena with slabs of the most bins, and how many each has."""
    found: Dict[int, Counts] = {}
    for (kind, _), number in walker.slabs.census.items():
        counts = found.setdefault(kind.arena, {})
        slabs, regions = counts.get((kind.szind, kind.shard), (0, 0))
        more = number * (bins[kind.szind].nregs - kind.nfree)
        counts[kind.szind, kind.shard] = slabs + number, regions + more
    if not found:
        raise LayoutError("there is no slab to know an arena by")
    index = max(found, key=lambda arena: (len(found[arena]), -arena))
    return index, found[index]


def _bins_in(
    block: Block, form: BinLayout, wanted: Counts, bins: Sequence[BinInfo]
) -> Optional[int]:
    """The offset of bins that have counted just what is ``wanted``."""
    rows = [0, *accumulate(info.n_shards for info in bins)]
    slabs, regions = form.stats["curslabs"], form.stats["curregs"]
    anchor = max(wanted, key=lambda key: wanted[key][1])
    back = (rows[anchor[0]] + anchor[1]) * form.size + regions
    sought = wanted[anchor][1].to_bytes(WORD, "little")
    words = words_of(block.data)
    at = block.data.find(sought)
    while at >= 0:
        start = at - back
        if at % WORD == 0 and start >= 0 and start + rows[-1] * form.size <= len(block.data):
            places = {
                (szind, shard): start + (rows[szind] + shard) * form.size
                for szind, info in enumerate(bins)
                for shard in range(info.n_shards)
            }
            if all(
                (words[place + slabs >> 3], words[place + regions >> 3]) == wanted.get(key, (0, 0))
                for key, place in places.items()
            ):
                return start
        at = block.data.find(sought, at + 1)
    return None


def _arena(
    memory: Memory, pieces: Pieces, walker: ExtentWalk, block: Block, index: int, bins: int
) -> ArenaLayout:
    """The form of the arena ``index``, which ``block`` begins with, its bins at ``bins``."""
    words = words_of(block.data)
    base, form = _base(memory, pieces, words, index)
    pages, large = _outside(walker, index, pieces.tree[1].lg_page)
    cached = {
        STATE_NAMES[state]: (at,)
        for state, number in pages.items()
        if state != ACTIVE and (at := _only(words, number)) is not None
    }
    lstats = _large(pieces, words, large) if large else None
    known = lstats or (0, 0, 0, 0, 0)
    return ArenaLayout(
        table=0,
        table_size=next(pieces.arenas())[1][1].table_size,
        index=form.arena,
        index_in_base=True,
        bins=bins,
        bins_by_pointer=False,
        base=base,
        descriptors=_descriptors(memory, pieces, words),
        nactive=_only(words, pages.get(ACTIVE, 0)),
        cached_pages=cached,
        large=known[0],
        large_size=known[1],
        large_count=known[2],
        large_nmalloc=known[3],
        large_ndalloc=known[4],
        base_allocated=form.allocated,
        base_blocks=form.blocks,
    )


def _base(memory: Memory, pieces: Pieces, words: Sequence[int], index: int) -> Tuple[int, BaseForm]:
    """Where the pointer to the arena's base is, and the form of that."""
    forms = list(pieces.bases())
    for row, word in enumerate(words):
        if not word or word % WORD:
            continue
        for _, form in forms:
            try:
                if memory.u32(word + form.arena) != index:
                    continue
                allocated, resident, mapped = (
                    memory.u64(word + at) for at in (form.allocated, form.resident, form.mapped)
                )
            except UnreadableMemory:
                break
            if 0 < allocated <= resident <= mapped and not mapped % pieces.tree[1].page:
                return row * WORD, form
    raise LayoutError("the arena's base was not found")


def _outside(walker: ExtentWalk, index: int, lg_page: int) -> Tuple[Dict[int, int], Dict[int, int]]:
    """Of an arena, the pages in each state, and the large allocations of each size class."""
    pages: Dict[int, int] = {}
    large: Dict[int, int] = {}
    for (kind, _), number in walker.slabs.census.items():
        if kind.arena == index:
            size = number * walker.bins[kind.szind].slab_size
            pages[ACTIVE] = pages.get(ACTIVE, 0) + (size >> lg_page)
    for other, (number, size) in walker.extents.sums.items():
        if other.arena == index and other.state < len(STATE_NAMES):
            pages[other.state] = pages.get(other.state, 0) + (size >> lg_page)
            if other.state == ACTIVE:
                szind = max(other.szind, len(walker.bins))
                large[szind] = large.get(szind, 0) + number
    return pages, large


def _only(words: Sequence[int], number: int) -> Optional[int]:
    """The offset of the one word that is ``number``; None where that says nothing."""
    rows = [row for row, word in enumerate(words) if word == number] if number >= FEW else []
    return rows[0] * WORD if len(rows) == 1 else None


def _large(
    pieces: Pieces, words: Sequence[int], wanted: Dict[int, int]
) -> Optional[Tuple[int, int, int, int, int]]:
    """``large`` to ``large_ndalloc`` of an :class:`ArenaLayout`: counters that fit ``wanted``."""
    nbins = pieces.tree[1].nbins
    seen = set()
    for _, (_, known, _) in pieces.arenas():
        size, rows = known.large_size, known.large_count
        made, gone = known.large_nmalloc, known.large_ndalloc
        if (size, made, gone) in seen:
            continue
        seen.add((size, made, gone))
        step, expected = size // WORD, [wanted.get(nbins + row, 0) for row in range(rows)]
        # The counters of the class with most allocations first: few places have these.
        anchor = max(wanted, key=lambda szind: wanted[szind]) - nbins
        off = (anchor * size + made) // WORD
        grown = map(sub, islice(words, off, None), islice(words, off + (gone - made) // WORD, None))
        for start in compress(count_from(), map(wanted[anchor + nbins].__eq__, grown)):
            table = words[start : start + step * rows]
            if len(table) == step * rows and expected == [
                *map(sub, table[made // WORD :: step], table[gone // WORD :: step])
            ]:
                return start * WORD, size, rows, made, gone
    return None


def _descriptors(memory: Memory, pieces: Pieces, words: Sequence[int]) -> int:
    """The offset of the head of the ring of thread caches; of no ring where there are none."""
    forms: List[CacheLayout] = [form for _, form in pieces.caches()]
    for row, word in enumerate(words):
        if word and not word % WORD and any(is_cache(memory, form, word) for form in forms):
            return row * WORD
    raise LayoutError("the arena's ring of thread caches was not found")
