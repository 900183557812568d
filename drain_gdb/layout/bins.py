"""The table of size classes, and where an arena keeps its bins."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Iterator, List, Sequence, Tuple

from drain_gdb.errors import LayoutError, UnreadableMemory
from drain_gdb.layout.parameters import Parameters, size_classes
from drain_gdb.layout.records import ArenaLayout, BinInfoLayout, BinLayout
from drain_gdb.memory import WORD, Memory

LG_PAGES = (12, 13, 14, 16)
LG_QUANTA = (3, 4, 5)
SHARDS_MAX = 64
"""BIN_SHARDS_MAX is 1 << EDATA_BITS_BINSHARD_WIDTH (bin_types.h, 5.3.0)."""


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
                1 if info.n_shards is None else memory.u32(at + info.n_shards),
            )
        except UnreadableMemory:
            break
        if (
            found.reg_size != size
            or found.slab_size == 0
            or found.slab_size % smallest_page
            or found.nregs != found.slab_size // size
            or not 1 <= found.n_shards <= SHARDS_MAX
        ):
            break
        run.append(found)
    return run


def arena_index(memory: Memory, arena: ArenaLayout, address: int) -> int:
    """The index that the arena at ``address`` says it has."""
    if arena.index_in_base:
        address = memory.u64(address + arena.base)
    return memory.u32(address + arena.index)


def bin_shards(
    memory: Memory, arena: ArenaLayout, layout: BinLayout, address: int, bins: Sequence[BinInfo]
) -> Iterator[Tuple[int, int, int]]:
    """``(szind, shard, address)`` of each bin of the arena at ``address``.

    They follow each other in the arena (5.0, 5.1, and from 5.3), or each size
    class has a pointer to its own (5.2, bins_t).
    """
    at = address + arena.bins
    for szind, info in enumerate(bins):
        if arena.bins_by_pointer:
            at = memory.u64(address + arena.bins + szind * WORD)
        for shard in range(info.n_shards):
            yield szind, shard, at
            at += layout.size
