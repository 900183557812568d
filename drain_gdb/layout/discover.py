"""Find jemalloc's variables in a process that has no symbols at all.

Nothing but the shape of the data is used: ``bin_infos`` by its run of size
classes, the rtree's root by leaf elements that point at extents which say they
lie just there, ``arenas`` by arenas that know their own index.  jemalloc keeps
all three in ``.bss`` (5.3.0: bin_info.c, arena.c, jemalloc.c).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice, product
from typing import Iterator, Optional, Sequence, Tuple

from drain_gdb.debuggee.protocol import Section
from drain_gdb.errors import LayoutError, UnreadableMemory
from drain_gdb.layout.bins import (
    LG_QUANTA,
    SLAB_PAGES_MAX,
    BinInfo,
    BinRun,
    arena_index,
    bin_run,
    bin_shards,
)
from drain_gdb.layout.build import StructSource, bin_layout
from drain_gdb.layout.parameters import size_classes
from drain_gdb.layout.records import (
    ArenaLayout,
    BinInfoLayout,
    ExtentLayout,
    RtreeLayout,
)
from drain_gdb.layout.sparse import element_size, used_parts
from drain_gdb.memory import CACHE_PAGE, WORD, Block, Memory

SAMPLES = 256
"""Leaf elements looked at before a candidate root is believed."""
AGREEMENT = 0.9
"""Share of them that must point at an extent lying just there."""
MOST_MISSING = 0.25
"""Of extents that cannot be read, four to one that agrees are too many."""
FIRST_LOOK = 4
UNREADABLE_LOOK = 16
"""A candidate none of whose first elements agree, or can be read, is dropped."""
ARENA_WEIGHT = 4
"""So many entries that are no arenas weigh as much as one that is."""
PAIRS = (0, 8, 20, 30)
"""Size classes whose like is looked for in pairs: the first, then others."""
LEAF_PIECE = 1 << 16
POINTER_ALIGN = 64
"""Leaves and arenas are base_alloc()ed at a cache line (rtree.c, arena.c)."""


def find_bin_infos(
    memory: Memory, blocks: Sequence[Block], shapes: Sequence[BinInfoLayout]
) -> BinInfoLayout:
    """Where in ``blocks`` the run of ``bin_infos`` begins, and in which of ``shapes``.

    It is found by two neighbours that have their sizes; some of it may be damaged.
    """
    best: Optional[BinRun] = None
    for candidate in _like_bin_infos(blocks, tuple(dict.fromkeys(shapes))):
        run = bin_run(memory, [candidate])
        if run is not None and (best is None or run.right > best.right):
            best = run
            if not run.wrong:
                break
    if best is None:
        raise LayoutError("bin_infos was not found among the module's variables")
    return best.info


def _like_bin_infos(
    blocks: Sequence[Block], shapes: Sequence[BinInfoLayout]
) -> Iterator[BinInfoLayout]:
    """Where two neighbours have the sizes of a pair of size classes; the first pair first."""
    pairs = [
        (index, *(size.to_bytes(WORD, "little") for size in size_classes(q)[index : index + 2]))
        for index, q in product(PAIRS, LG_QUANTA)
    ]
    for (index, first, second), block in product(dict.fromkeys(pairs), blocks):
        at = block.data.find(first)
        while at >= 0:
            for shape in shapes:
                begin = block.address + at - shape.reg_size - index * shape.size
                if block.data.startswith(second, at + shape.size) and not begin % WORD:
                    yield replace(shape, address=begin)
            at = block.data.find(first, at + 1)


def leaf_agreement(
    memory: Memory, leaf: int, rtree: RtreeLayout, extent: ExtentLayout
) -> Optional[Tuple[int, int]]:
    """The base of the address range that the leaf array at ``leaf`` covers.

    With it the number of elements that agree: of the first ``SAMPLES``, those that
    point at an extent whose own address has that element's index.  None where less
    than ``AGREEMENT`` of them do.  Extents that a truncated core lacks say neither
    yes nor no, but most must be there.
    """
    mask = (1 << rtree.bits[-1]) - 1
    seen = agreed = unreadable = 0
    base: Optional[int] = None
    try:
        for key, pointer in islice(_present(memory, leaf, rtree), SAMPLES):
            start: Optional[int] = None
            try:
                start = _extent_at(memory, pointer, key, mask, rtree, extent)
                seen += 1
            except UnreadableMemory:
                unreadable += 1
            if start is not None:
                agreed += 1
                base = (start >> rtree.lg_page & ~mask) << rtree.lg_page
            elif not agreed and (seen >= FIRST_LOOK or unreadable >= UNREADABLE_LOOK):
                return None
    except UnreadableMemory:
        return None
    if base is None or agreed < AGREEMENT * seen or agreed < MOST_MISSING * unreadable:
        return None
    return base, agreed


def _present(memory: Memory, leaf: int, rtree: RtreeLayout) -> Iterator[Tuple[int, int]]:
    """``(key, pointer)`` of each element of a leaf that points somewhere.

    Raises :class:`UnreadableMemory`.
    """
    stride = rtree.leaf_words * WORD
    for offset, size in _pieces(memory, rtree):
        words = memory.words(leaf + offset, size // WORD)
        for index, word in enumerate(words[:: rtree.leaf_words]):
            # A cleared element keeps an invalid size class beside its null pointer.
            pointer = word & rtree.pointer_mask
            if pointer:
                yield offset // stride + index, pointer


def _pieces(memory: Memory, rtree: RtreeLayout) -> Iterator[Tuple[int, int]]:
    """``(offset, size)`` of what is to be read of a leaf, piece by piece.

    The first is small: most that is looked at is no leaf.
    """
    level = len(rtree.bits) - 1
    parts = [(0, element_size(rtree, level) << rtree.bits[-1])]
    if memory.mapped is not None:
        parts = used_parts(rtree, level, memory.mapped)
    read = 0
    for start, end in parts:
        at = start
        while at < end:
            size = min(max(read, CACHE_PAGE), LEAF_PIECE, end - at)
            yield at, size
            at += size
            read += size


def _extent_at(
    memory: Memory,
    pointer: int,
    key: int,
    mask: int,
    rtree: RtreeLayout,
    extent: ExtentLayout,
) -> Optional[int]:
    """The address of page ``key``, if the extent at ``pointer`` is mapped there.

    An extent is mapped at its first and its last page, a slab at all between.
    Raises :class:`UnreadableMemory`.
    """
    bits = memory.u64(pointer + extent.bits)
    start = memory.u64(pointer + extent.address)
    pages = memory.u64(pointer + extent.size_and_esn) >> rtree.lg_page
    first = start >> rtree.lg_page
    page = first + ((key - first) & mask)
    last = first + pages - 1
    top = 1 << (sum(rtree.bits))
    inside = extent.slab.of(bits) and first <= page <= last < first + SLAB_PAGES_MAX
    if not first or not pages or last >= top or not (page in (first, last) or inside):
        return None
    return page << rtree.lg_page


def find_rtree(
    memory: Memory,
    words: Sequence[Tuple[int, int]],
    sections: Sequence[Section],
    rtree: RtreeLayout,
    extent: ExtentLayout,
) -> RtreeLayout:
    """The rtree whose root array lies in ``sections``, found from its ``words``.

    ``words`` are the non-zero words of the sections.  Of several candidates the
    root that most leaf elements agree with wins.
    """
    votes: Counter[int] = Counter()
    length = WORD << rtree.bits[0]
    for address, word in words:
        found = _descend(memory, word, 1, rtree, extent)
        if found is None:
            continue
        base, agreed = found
        root = address - WORD * (base >> _level_shift(rtree, 0))
        if any(s.start <= root and root + length <= s.end for s in sections):
            votes[root] += agreed
    if not votes:
        raise LayoutError("the rtree's root was not found among the module's variables")
    return replace(rtree, root=votes.most_common(1)[0][0])


def rtree_agrees(memory: Memory, rtree: RtreeLayout, extent: ExtentLayout) -> bool:
    """Whether some subtree of the root covers just the addresses its place stands for."""
    root = memory.block(rtree.root, WORD << rtree.bits[0])
    for address, child in root.nonzero_words():
        found = _descend(memory, child, 1, rtree, extent)
        start = (address - rtree.root) // WORD << _level_shift(rtree, 0)
        if found is not None and found[0] == start:
            return True
    return False


def _level_shift(rtree: RtreeLayout, level: int) -> int:
    """How far an address is shifted down for its key at ``level``."""
    return rtree.lg_page + sum(rtree.bits[level + 1 :])


def _descend(
    memory: Memory, node: int, level: int, rtree: RtreeLayout, extent: ExtentLayout
) -> Optional[Tuple[int, int]]:
    """What :func:`leaf_agreement` says of the subtree at ``node``, if it is one."""
    if not plausible_pointer(node, rtree.pointer_mask):
        return None
    if level == len(rtree.bits) - 1:
        return leaf_agreement(memory, node, rtree, extent)
    try:
        children = memory.words(node, 1 << rtree.bits[level])
    except UnreadableMemory:
        return None
    present = [(index, child) for index, child in enumerate(children) if child]
    for index, child in present[:FIRST_LOOK]:
        found = _descend(memory, child, level + 1, rtree, extent)
        if found is not None:
            base, agreed = found
            return base - (index << _level_shift(rtree, level)), agreed
    return None


def plausible_pointer(word: int, pointer_mask: int) -> bool:
    """Whether ``word`` could point at something that base_alloc() returned."""
    return word % POINTER_ALIGN == 0 and CACHE_PAGE <= word <= pointer_mask


def find_arenas(
    memory: Memory,
    words: Sequence[Tuple[int, int]],
    arena: ArenaLayout,
    source: StructSource,
    bins: Sequence[BinInfo],
    extent: ExtentLayout,
) -> ArenaLayout:
    """``arenas``: where most arenas say, by their own index, that it begins.

    A few entries or arenas may be damaged.  Its ``table`` is None where there is no such.
    """
    layout = bin_layout(source)

    def in_place(address: int) -> Tuple[int, int]:
        """Of the slabs that its bins allocate from, how many are its own, and how many not."""
        right = wrong = 0
        for szind, shard, at in bin_shards(memory, arena, layout, address, bins):
            edata = memory.u64(at + layout.slabcur) if shard == 0 else 0
            if edata:
                try:
                    bits = memory.u64(edata + extent.bits)
                except UnreadableMemory:
                    bits = 0
                own = arena_index(memory, arena, address), szind
                right += (extent.arena.of(bits), extent.szind.of(bits)) == own
                wrong += (extent.arena.of(bits), extent.szind.of(bits)) != own
        return right, wrong

    votes: Counter[int] = Counter()
    for address, word in words:
        if not plausible_pointer(word, (1 << 64) - 1):
            continue
        try:
            index = arena_index(memory, arena, word)
            if index < arena.table_size and memory.readable(memory.u64(word + arena.base)):
                right, wrong = in_place(word)
                votes[address - WORD * index] += bool(right or not wrong)
        except UnreadableMemory:
            continue
    tables = ((_table_score(memory, table, arena), table) for table, n in votes.items() if n)
    score, table = max(tables, default=(0, None))
    return replace(arena, table=table if score > 0 else None)


def _table_score(memory: Memory, table: int, arena: ArenaLayout) -> int:
    """How much of it is arenas at the index that they say they have; 0 where little is."""
    try:
        entries = memory.words(table, arena.table_size)
    except UnreadableMemory:
        return 0
    score = 0
    for index, entry in enumerate(entries):
        if entry:
            try:
                score += ARENA_WEIGHT if arena_index(memory, arena, entry) == index else -1
            except UnreadableMemory:
                score -= 1
    return max(score, 0)
