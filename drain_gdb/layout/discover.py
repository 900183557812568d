"""Find jemalloc's variables in a process that has no symbols at all.

Nothing but the shape of the data is used: ``bin_infos`` by its run of size
classes, the rtree's root by leaf elements that point at extents which say they
lie just there, ``arenas`` by arenas that know their own index.  jemalloc keeps
all three in ``.bss`` (5.3.0: bin_info.c, arena.c, jemalloc.c).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Callable, Iterator, List, Optional, Sequence, Tuple

from drain_gdb.errors import LayoutError, UnreadableMemory
from drain_gdb.layout.build import StructSource, bin_layout
from drain_gdb.layout.parameters import LG_TINY_MIN, Parameters, size_classes
from drain_gdb.layout.records import (
    ArenaLayout,
    BinInfoLayout,
    ExtentLayout,
    RtreeLayout,
)
from drain_gdb.memory import CACHE_PAGE, WORD, Block, Memory
from drain_gdb.target.protocol import Section

LG_PAGES = (12, 13, 14, 16)
LG_QUANTA = (3, 4, 5)
SAMPLES = 256
"""Leaf elements looked at before a candidate root is believed."""
AGREEMENT = 0.9
"""Share of them that must point at an extent lying just there."""
FIRST_LOOK = 4
UNREADABLE_LOOK = 16
"""A candidate none of whose first elements agree, or can be read, is dropped."""
LEAF_PIECE = 1 << 16
POINTER_ALIGN = 64
"""Leaves and arenas are base_alloc()ed at a cache line (rtree.c, arena.c)."""


@dataclass(frozen=True)
class BinInfo:
    """One size class with a slab: sizes in bytes, regions and shards a bin."""

    reg_size: int
    slab_size: int
    nregs: int
    n_shards: int


def read_bin_infos(
    memory: Memory, shapes: Sequence[BinInfoLayout]
) -> Tuple[List[BinInfo], int, int]:
    """The bins at ``address`` of one of ``shapes``, and the lg_page and lg_quantum they imply.

    The run must be the small size classes of some page size and quantum (sc.h),
    each in slabs of whole pages, or :class:`~drain_gdb.errors.LayoutError`.
    """
    bins: List[BinInfo] = []
    found = 0
    for info, lg_quantum in product(shapes, LG_QUANTA):
        run = _bin_run(memory, info, size_classes(lg_quantum))
        if len(run) > len(bins):
            bins, found = run, lg_quantum
    for lg_page in LG_PAGES if bins else ():
        if Parameters(lg_page, found, 48).nbins == len(bins) and all(
            b.slab_size % (1 << lg_page) == 0 for b in bins
        ):
            return bins, lg_page, found
    raise LayoutError(
        f"no bin_infos at {shapes[0].address:#x}: {len(bins)} records there look like size classes"
    )


def known_bin_infos(memory: Memory, info: BinInfoLayout, parameters: Parameters) -> List[BinInfo]:
    """The bins of a build that is known; nothing beyond them is read.

    Raises :class:`~drain_gdb.errors.LayoutError` where they are not there.
    """
    bins = _bin_run(memory, info, parameters.sizes[: parameters.nbins])
    if len(bins) == parameters.nbins and not any(b.slab_size % parameters.page for b in bins):
        return bins
    raise LayoutError(
        f"bin_infos at {info.address:#x} has {len(bins)} of {parameters.nbins} size classes"
    )


def _bin_run(memory: Memory, info: BinInfoLayout, sizes: Sequence[int]) -> List[BinInfo]:
    run: List[BinInfo] = []
    smallest_page = 1 << min(LG_PAGES)
    for index, size in enumerate(sizes):
        at = info.address + index * info.size
        try:
            found = BinInfo(
                memory.u64(at + info.reg_size),
                memory.u64(at + info.slab_size),
                memory.u32(at + info.nregs),
                memory.u32(at + info.n_shards),
            )
        except UnreadableMemory:
            break
        if (
            found.reg_size != size
            or found.slab_size == 0
            or found.slab_size % smallest_page
            or found.nregs != found.slab_size // size
            or not 1 <= found.n_shards <= 64
        ):
            break
        run.append(found)
    return run


def find_bin_infos(
    memory: Memory, blocks: Sequence[Block], shapes: Sequence[BinInfoLayout]
) -> BinInfoLayout:
    """Where in ``blocks`` the run of ``bin_infos`` begins, and in which of ``shapes``."""
    smallest = (1 << LG_TINY_MIN).to_bytes(WORD, "little")
    for block in blocks:
        at = block.data.find(smallest)
        while at >= 0:
            for shape in dict.fromkeys(shapes):
                candidate = replace(shape, address=block.address + at - shape.reg_size)
                if candidate.address % WORD:
                    continue
                try:
                    read_bin_infos(memory, [candidate])
                except LayoutError:
                    continue
                return candidate
            at = block.data.find(smallest, at + 1)
    raise LayoutError("bin_infos was not found among the module's variables")


def leaf_agreement(
    memory: Memory, leaf: int, rtree: RtreeLayout, extent: ExtentLayout
) -> Optional[int]:
    """The base of the address range that the leaf array at ``leaf`` covers.

    None where fewer than ``AGREEMENT`` of its first ``SAMPLES`` elements point
    at an extent whose own address has that element's index.  Extents that a
    truncated core lacks say neither yes nor no.
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
    return base if seen and agreed >= AGREEMENT * seen else None


def _present(memory: Memory, leaf: int, rtree: RtreeLayout) -> Iterator[Tuple[int, int]]:
    """``(key, pointer)`` of each element of a leaf that points somewhere.

    Raises :class:`UnreadableMemory`.
    """
    stride = rtree.leaf_words * WORD
    size = stride << rtree.bits[-1]
    for offset in range(0, size, LEAF_PIECE):
        words = memory.words(leaf + offset, min(LEAF_PIECE, size) // WORD)
        for index, word in enumerate(words[:: rtree.leaf_words]):
            # A cleared element keeps an invalid size class beside its null pointer.
            pointer = word & rtree.pointer_mask
            if pointer:
                yield offset // stride + index, pointer


def _extent_at(
    memory: Memory,
    pointer: int,
    key: int,
    mask: int,
    rtree: RtreeLayout,
    extent: ExtentLayout,
) -> Optional[int]:
    """The address of page ``key``, if the extent at ``pointer`` covers it.

    Raises :class:`UnreadableMemory`.
    """
    start = memory.u64(pointer + extent.address)
    size = memory.u64(pointer + extent.size_and_esn) >> rtree.lg_page
    first = start >> rtree.lg_page
    if not start or not size:
        return None
    page = first + ((key - first) & mask)
    return page << rtree.lg_page if page < first + size else None


def find_rtree(
    memory: Memory,
    words: Sequence[Tuple[int, int]],
    sections: Sequence[Section],
    rtree: RtreeLayout,
    extent: ExtentLayout,
) -> RtreeLayout:
    """The rtree whose root array lies in ``sections``, found from its ``words``.

    ``words`` are the non-zero words of the sections.  Of several candidates the
    one wins whose array holds the largest share of words that agree on it: a true
    root holds no others.
    """
    votes: Counter[int] = Counter()
    length = WORD << rtree.bits[0]
    for address, word in words:
        base = _descend(memory, word, 1, rtree, extent)
        if base is None:
            continue
        root = address - WORD * (base >> _level_shift(rtree, 0))
        if any(s.start <= root and root + length <= s.end for s in sections):
            votes[root] += 1
    if not votes:
        raise LayoutError("the rtree's root was not found among the module's variables")
    addresses = sorted(address for address, _ in words)

    def share(root: int) -> float:
        within = bisect_left(addresses, root + length) - bisect_left(addresses, root)
        return votes[root] / within

    return replace(rtree, root=max(votes, key=share))


def rtree_agrees(memory: Memory, rtree: RtreeLayout, extent: ExtentLayout) -> bool:
    """Whether some subtree of the root covers just the addresses its place stands for."""
    root = memory.block(rtree.root, WORD << rtree.bits[0])
    return any(
        _descend(memory, child, 1, rtree, extent)
        == (address - rtree.root) // WORD << _level_shift(rtree, 0)
        for address, child in root.nonzero_words()
    )


def _level_shift(rtree: RtreeLayout, level: int) -> int:
    """How far an address is shifted down for its key at ``level``."""
    return rtree.lg_page + sum(rtree.bits[level + 1 :])


def _descend(
    memory: Memory, node: int, level: int, rtree: RtreeLayout, extent: ExtentLayout
) -> Optional[int]:
    """The base address that the subtree at ``node`` covers, if it is one."""
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
        base = _descend(memory, child, level + 1, rtree, extent)
        if base is not None:
            return base - (index << _level_shift(rtree, level))
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
    """``arenas``: the table of most arenas, each at the index it says it has."""
    slabcur = bin_layout(source)
    offsets = []
    at = arena.bins
    for info in bins:
        offsets.append(at + slabcur.slabcur)
        at += info.n_shards * slabcur.size

    def is_arena(address: int, index: int) -> bool:
        try:
            if memory.u32(address + arena.index) != index:
                return False
            current = [memory.u64(address + offset) for offset in offsets]
            for szind, edata in enumerate(current):
                if edata:
                    bits = memory.u64(edata + extent.bits)
                    if (extent.arena.of(bits), extent.szind.of(bits)) != (index, szind):
                        return False
            return memory.readable(memory.u64(address + arena.base))
        except UnreadableMemory:
            return False

    best: Optional[Tuple[int, int]] = None
    for address, word in words:
        if not plausible_pointer(word, (1 << 64) - 1) or not is_arena(word, 0):
            continue
        count = _table_length(memory, address, arena, is_arena)
        if count and (best is None or count > best[0]):
            best = (count, address)
    if best is None:
        raise LayoutError("the table of arenas was not found among the module's variables")
    return replace(arena, table=best[1])


def _table_length(
    memory: Memory, table: int, arena: ArenaLayout, is_arena: Callable[[int, int], bool]
) -> int:
    try:
        entries = memory.words(table, arena.table_size)
    except UnreadableMemory:
        return 0
    present = [(index, entry) for index, entry in enumerate(entries) if entry]
    if not all(is_arena(entry, index) for index, entry in present):
        return 0
    return len(present)
