"""Find jemalloc's variables in a process that has no symbols at all.

Nothing but the shape of the data is used: ``bin_infos`` by its run of size
classes, the rtree's root by leaf elements that point at extents which say they
lie just there, ``arenas`` by arenas that know their own index.  jemalloc keeps
all three in ``.bss`` (5.3.0: bin_info.c, arena.c, jemalloc.c).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import chain, groupby, islice, product, tee
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

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
from drain_gdb.layout.parameters import size_classes
from drain_gdb.layout.records import (
    ArenaLayout,
    BinInfoLayout,
    BinLayout,
    ExtentLayout,
    RtreeLayout,
)
from drain_gdb.layout.sparse import element_size, used_parts
from drain_gdb.memory import CACHE_PAGE, WORD, Block, Memory, Range, words_of

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
LG_BASE_BLOCK = 21
NEIGHBOURS = 4
EXTENTS_LOOK = 1 << 12
"""Extents of a leaf whose places are looked at; those made first stand in the first blocks."""
POINTER_ALIGN = 64
"""Leaves and arenas are base_alloc()ed at a cache line (rtree.c, arena.c)."""


def find_bin_infos(
    memory: Memory, blocks: Iterable[Block], shapes: Sequence[BinInfoLayout]
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
    blocks: Iterable[Block], shapes: Sequence[BinInfoLayout]
) -> Iterator[BinInfoLayout]:
    """Where two neighbours have the sizes of a pair of size classes; the first pair first."""
    pairs = dict.fromkeys(
        (index, *size_classes(lg_quantum)[index : index + 2])
        for index, lg_quantum in product(PAIRS, LG_QUANTA)
    )
    for index, *sizes in pairs:
        first, second = (size.to_bytes(WORD, "little") for size in sizes)
        # The last blocks are large: they are read only if nothing was found in the others.
        blocks, these = tee(blocks)
        for block in these:
            at = block.data.find(first)
            while at >= 0:
                for shape in shapes:
                    begin = block.address + at - shape.reg_size - index * shape.size
                    if block.data.startswith(second, at + shape.size) and not begin % WORD:
                        yield replace(shape, address=begin)
                at = block.data.find(first, at + 1)


def leaf_agreement(
    memory: Memory,
    leaf: int,
    rtree: RtreeLayout,
    extent: ExtentLayout,
    parts: Sequence[Range],
) -> Optional[Tuple[int, int]]:
    """The base of the address range that the leaf array at ``leaf`` covers.

    With it the number of elements that agree: of the first ``SAMPLES``, those that
    point at an extent whose own address has that element's index.  None where less
    than ``AGREEMENT`` of them do.  Extents that a truncated core lacks say neither
    yes nor no, but most must be there.  ``parts`` are what may be used of a leaf.
    """
    mask = (1 << rtree.bits[-1]) - 1
    seen = agreed = unreadable = 0
    base: Optional[int] = None
    try:
        for key, pointer in islice(_present(memory, leaf, rtree, parts), SAMPLES):
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


def _present(
    memory: Memory, leaf: int, rtree: RtreeLayout, parts: Sequence[Range]
) -> Iterator[Tuple[int, int]]:
    """``(key, pointer)`` of each element of a leaf that points somewhere.

    Raises :class:`UnreadableMemory`.
    """
    stride = rtree.leaf_words * WORD
    for offset, size in _pieces(parts):
        data = memory.read(leaf + offset, size)
        words = words_of(data) if data != bytes(size) else ()
        for index, word in enumerate(words[:: rtree.leaf_words]):
            # A cleared element keeps an invalid size class beside its null pointer.
            pointer = word & rtree.pointer_mask
            if pointer:
                yield offset // stride + index, pointer


def _leaf_parts(memory: Memory, rtree: RtreeLayout) -> List[Range]:
    """What may be used of any leaf, ``(start, end)`` from where it begins."""
    level = len(rtree.bits) - 1
    if memory.mapped is None:
        return [(0, element_size(rtree, level) << rtree.bits[-1])]
    return used_parts(rtree, level, memory.mapped)


def _pieces(parts: Sequence[Range]) -> Iterator[Tuple[int, int]]:
    """``(offset, size)`` of what is to be read of a leaf, piece by piece.

    The first is small: most that is looked at is no leaf.
    """
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
    if not memory.may_hold(pointer):
        return None
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
    root that most leaf elements agree with wins.  Most words are none, which may show
    only when they have been read as leaves: those at likely places come first.
    """
    votes: Counter[int] = Counter()
    shift = _level_shift(rtree, 0)
    roots = [(s.start, s.end - (WORD << rtree.bits[0])) for s in sections]
    parts = _leaf_parts(memory, rtree)
    words = sorted(words)
    likely = _likely_elements([at for at, _ in words], roots, _keys_in_use(memory, words, rtree))
    others = zip([0, *(last for _, last in likely)], [*(first for first, _ in likely), len(words)])
    for rows in (likely, others):
        for address, word in chain.from_iterable(words[first:last] for first, last in rows):
            found = _descend(memory, word, 1, rtree, extent, parts)
            if found is None:
                continue
            base, agreed = found
            root = address - WORD * (base >> shift)
            if any(first <= root <= last for first, last in roots):
                votes[root] += agreed
        if votes:
            return replace(rtree, root=votes.most_common(1)[0][0])
    raise LayoutError("the rtree's root was not found among the module's variables")


def _keys_in_use(memory: Memory, words: Sequence[Tuple[int, int]], rtree: RtreeLayout) -> List[int]:
    """Elements of the root for addresses that may be in use, ascending.

    They are those where ``words`` point, and their neighbours: nodes lie where extents do.
    """
    shift = _level_shift(rtree, 0)
    mask = rtree.pointer_mask
    pointers = sorted({word for _, word in words if plausible_pointer(word, mask)})
    used = [
        key
        for key, some in groupby(pointers, lambda word: word >> shift)
        if any(map(memory.readable, islice(some, FIRST_LOOK)))
    ]
    return sorted({key + step for key in used for step in (-1, 0, 1)})


def _likely_elements(
    addresses: Sequence[int], roots: Sequence[Range], keys: Sequence[int]
) -> List[Range]:
    """Which of ``addresses`` a root within ``roots`` would have at one of ``keys``.

    The rows of the first and of the one behind the last, of each run of them.
    """
    places = sorted(
        (first + WORD * key, last + WORD * key) for key in keys for first, last in roots
    )
    found: List[Range] = []
    at = 0
    for first, last in places:
        start = max(bisect_left(addresses, first), at)
        at = max(bisect_right(addresses, last), at)
        if start < at:
            found.append((start, at))
    return found


def _level_shift(rtree: RtreeLayout, level: int) -> int:
    """How far an address is shifted down for its key at ``level``."""
    return rtree.lg_page + sum(rtree.bits[level + 1 :])


def _descend(
    memory: Memory,
    node: int,
    level: int,
    rtree: RtreeLayout,
    extent: ExtentLayout,
    parts: Sequence[Range],
) -> Optional[Tuple[int, int]]:
    """What :func:`leaf_agreement` says of the subtree at ``node``, if it is one."""
    if not plausible_pointer(node, rtree.pointer_mask) or not memory.may_hold(node):
        return None
    if level == len(rtree.bits) - 1:
        return leaf_agreement(memory, node, rtree, extent, parts)
    try:
        children = list(islice(_children(memory, node, 1 << rtree.bits[level]), FIRST_LOOK))
    except UnreadableMemory:
        return None
    for index, child in children:
        found = _descend(memory, child, level + 1, rtree, extent, parts)
        if found is not None:
            base, agreed = found
            base -= index << _level_shift(rtree, level)
            # Else it is a node, but one of more elements or fewer.
            if base % (1 << _level_shift(rtree, level - 1)) == 0:
                return base, agreed
    return None


def _children(memory: Memory, node: int, count: int) -> Iterator[Tuple[int, int]]:
    """``(index, child)`` of each of ``count`` elements of a node that point somewhere.

    Raises :class:`UnreadableMemory`.
    """
    for offset, size in _pieces([(0, count * WORD)]):
        data = memory.read(node + offset, size)
        if data != bytes(size):
            first = offset // WORD
            yield from ((first + at, child) for at, child in enumerate(words_of(data)) if child)


def plausible_pointer(word: int, pointer_mask: int) -> bool:
    """Whether ``word`` could point at something that base_alloc() returned."""
    return word % POINTER_ALIGN == 0 and CACHE_PAGE <= word <= pointer_mask


class ArenaShape(NamedTuple):
    """What tells an arena, in one form of it and its bins."""

    arena: ArenaLayout
    bin: BinLayout
    bins: Sequence[BinInfo]
    extent: ExtentLayout

    def index_at(self, memory: Memory, address: int) -> Optional[int]:
        """The index of the arena at ``address``; None where there is none.

        Some of its bins allocate from a slab of this arena and of their class (others may be
        damaged, or have changed since they were read), or none does, and its base is there.
        """
        right = wrong = 0
        try:
            index = arena_index(memory, self.arena, address)
            if index >= self.arena.table_size:
                return None
            # Most of what is no arena has none, and zero is an index.
            if not memory.readable(memory.u64(address + self.arena.base)):
                return None
            for szind, shard, at in bin_shards(memory, self.arena, self.bin, address, self.bins):
                edata = memory.u64(at + self.bin.slabcur) if shard == 0 else 0
                if edata and self._is_slab_of(memory, edata, index, szind):
                    right += 1
                elif edata:
                    wrong += 1
                    if wrong > FIRST_LOOK and not right:
                        return None
        except UnreadableMemory:
            return None
        return index if right or not wrong else None

    def _is_slab_of(self, memory: Memory, edata: int, arena: int, szind: int) -> bool:
        if edata % WORD:
            return False
        try:
            bits = memory.u64(edata + self.extent.bits)
        except UnreadableMemory:
            return False
        return (self.extent.arena.of(bits), self.extent.szind.of(bits)) == (arena, szind)


def find_arenas(memory: Memory, words: Sequence[Tuple[int, int]], shape: ArenaShape) -> int:
    """The address of ``arenas``: the table of most arenas, each at the index it says it has."""
    tables: Counter[int] = Counter()
    known: Dict[int, Optional[int]] = {0: None}

    def index_at(address: int) -> Optional[int]:
        if address not in known:
            plausible = plausible_pointer(address, (1 << 64) - 1)
            known[address] = shape.index_at(memory, address) if plausible else None
        return known[address]

    for address, word in words:
        index = index_at(word)
        if index is not None:
            tables[address - index * WORD] += 1
    best: Optional[Tuple[int, int]] = None
    for table in tables:
        try:
            entries = memory.words(table, shape.arena.table_size)
        except UnreadableMemory:
            continue
        score = 0
        for index, entry in enumerate(entries):
            if entry:
                score += ARENA_WEIGHT if index_at(entry) == index else -1
        if score > 0 and (best is None or score > best[0]):
            best = (score, table)
    if best is None:
        raise LayoutError("the table of arenas was not found among the module's variables")
    return best[1]


def slab_sizes(
    memory: Memory, rtree: RtreeLayout, extent: ExtentLayout
) -> Iterator[Tuple[int, int]]:
    """``(szind, bytes)`` of slabs below the first nodes of the tree that can be read."""
    parts = _leaf_parts(memory, rtree)
    for leaf in _leaves(memory, rtree):
        with suppress(UnreadableMemory):
            for _, pointer in _present(memory, leaf, rtree, parts):
                bits = memory.u64(pointer + extent.bits)
                if extent.slab.of(bits) and not extent.state.of(bits):
                    size = memory.u64(pointer + extent.size_and_esn)
                    yield extent.szind.of(bits), size & -CACHE_PAGE


def extent_places(memory: Memory, rtree: RtreeLayout) -> Iterator[int]:
    """Where extents stand, slab by slab the same again, below the first nodes of the tree."""
    parts = _leaf_parts(memory, rtree)
    for leaf in _leaves(memory, rtree):
        with suppress(UnreadableMemory):
            for _, pointer in _present(memory, leaf, rtree, parts):
                yield pointer


def _leaves(memory: Memory, rtree: RtreeLayout) -> List[int]:
    nodes = [node for _, node in memory.block(rtree.root, WORD << rtree.bits[0]).nonzero_words()]
    for level in range(1, len(rtree.bits) - 1):
        size = element_size(rtree, level) << rtree.bits[level]
        nodes = [n for node in nodes for _, n in memory.block(node, size).nonzero_words()]
    return nodes


def in_base_blocks(
    memory: Memory, words: Sequence[Tuple[int, int]], rtree: RtreeLayout
) -> List[Tuple[int, int]]:
    """Those of ``words`` that point near the tree's nodes or extents.

    Base blocks are whole huge pages, and what arena 0 makes for itself comes out of one
    after the other (base_block_alloc(), base.c 5.3.0), which mmap() puts side by side.
    """
    near = set()
    parts = _leaf_parts(memory, rtree)
    for leaf in _leaves(memory, rtree):
        near.add(leaf >> LG_BASE_BLOCK)
        with suppress(UnreadableMemory):
            for _, pointer in islice(_present(memory, leaf, rtree, parts), EXTENTS_LOOK):
                near.add(pointer >> LG_BASE_BLOCK)
    near.update([block + step for block in near for step in range(-NEIGHBOURS, NEIGHBOURS + 1)])
    return [(address, word) for address, word in words if word >> LG_BASE_BLOCK in near]
