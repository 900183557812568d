"""The table of size classes, and where an arena keeps its bins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from math import lcm
from typing import Callable, Iterator, List, Optional, Sequence, Tuple

from drain_gdb.errors import UnreadableMemory
from drain_gdb.layout.parameters import Parameters
from drain_gdb.layout.records import ArenaLayout, BinInfoLayout, BinLayout
from drain_gdb.memory import WORD, Memory

LG_PAGES = (12, 13, 14, 16)
LG_QUANTA = (3, 4, 5)
SLAB_PAGES_MAX = 1 << 9
"""BITMAP_MAXBITS pages are more than any slab has (sc.c, slab_size())."""
SHARDS_MAX = 64
"""BIN_SHARDS_MAX is 1 << EDATA_BITS_BINSHARD_WIDTH (bin_types.h, 5.3.0)."""


@dataclass(frozen=True)
class BinInfo:
    """One size class with a slab: sizes in bytes, regions and shards a bin."""

    reg_size: int
    slab_size: int
    nregs: int
    n_shards: int


def bin_infos_by_formula(parameters: Parameters) -> List[BinInfo]:
    """The bins of a build whose options change none: as many pages as regions just fill.

    (slab_size() in sc.c from 5.1, in size_classes.sh of 5.0; one shard each.)
    """
    slabs = [(size, lcm(size, parameters.page)) for size in parameters.sizes[: parameters.nbins]]
    return [BinInfo(size, slab, slab // size, 1) for size, slab in slabs]


@dataclass(frozen=True)
class BinRun:
    """What may be ``bin_infos``: the bins of a build, None for those that are not there."""

    info: BinInfoLayout
    parameters: Parameters
    found: Sequence[Optional[BinInfo]]

    @property
    def wrong(self) -> int:
        """How many are not there."""
        return self.found.count(None)

    @property
    def right(self) -> int:
        """How many are there: of the builds that a run may be of, the one with most is it."""
        return len(self.found) - self.wrong


def bin_run(memory: Memory, shapes: Sequence[BinInfoLayout]) -> Optional[BinRun]:
    """The run of ``bin_infos`` at ``address`` of one of ``shapes``, by the build it fits best.

    Most of it must be the small size classes of some page size and quantum (sc.h), each in
    slabs of whole pages.
    """
    best: Optional[BinRun] = None
    for info in shapes:
        entry = cache(partial(_entry, memory, info))
        # Slabs of large pages are ones of small pages too: the larger page says more.
        for lg_quantum, lg_page in product(LG_QUANTA, reversed(LG_PAGES)):
            parameters = Parameters(lg_page, lg_quantum, 48)
            run = BinRun(info, parameters, _possible(entry, parameters))
            if 2 * run.wrong < len(run.found) and (best is None or run.right > best.right):
                best = run
    return best


def bins_of(memory: Memory, info: Optional[BinInfoLayout], parameters: Parameters) -> List[BinInfo]:
    """The bins of a build that is known, by the formula where ``bin_infos`` has none."""
    return repaired_bin_infos(entries_of_bin_infos(memory, info, parameters), parameters)


def entries_of_bin_infos(
    memory: Memory, info: Optional[BinInfoLayout], parameters: Parameters
) -> List[Optional[BinInfo]]:
    """The bins of a build that is known; None for those that are not what they must be.

    Nothing beyond them is read.
    """
    if info is None:
        return [None] * parameters.nbins
    return _possible(partial(_entry, memory, info), parameters)


def _entry(memory: Memory, info: BinInfoLayout, index: int) -> Optional[BinInfo]:
    """What is there; None where it cannot be read."""
    at = info.address + index * info.size
    try:
        return BinInfo(
            memory.u64(at + info.reg_size),
            memory.u64(at + info.slab_size),
            memory.u32(at + info.nregs),
            1 if info.n_shards is None else memory.u32(at + info.n_shards),
        )
    except UnreadableMemory:
        return None


def _possible(
    entry: Callable[[int], Optional[BinInfo]], parameters: Parameters
) -> List[Optional[BinInfo]]:
    """Each ``entry`` that a build may have in its place."""
    return [
        found if found is not None and _is_possible(found, size, parameters) else None
        for found, size in zip(map(entry, range(parameters.nbins)), parameters.sizes)
    ]


def _is_possible(found: BinInfo, size: int, parameters: Parameters) -> bool:
    return (
        found.reg_size == size
        and 0 < found.slab_size <= SLAB_PAGES_MAX << parameters.lg_page
        and found.slab_size % parameters.page == 0
        and found.nregs == found.slab_size // size
        and 1 <= found.n_shards <= SHARDS_MAX
    )


def repaired_bin_infos(found: Sequence[Optional[BinInfo]], parameters: Parameters) -> List[BinInfo]:
    """``found`` with each None replaced by what the formula says, and its neighbour's shards."""
    bins: List[BinInfo] = []
    n_shards = next((info.n_shards for info in found if info is not None), 1)
    for info, usual in zip(found, bin_infos_by_formula(parameters)):
        n_shards = n_shards if info is None else info.n_shards
        bins.append(replace(usual, n_shards=n_shards) if info is None else info)
    return bins


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
