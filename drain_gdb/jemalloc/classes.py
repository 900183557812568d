"""The size classes with slabs as ``bin_infos`` has them, and without it.

Where an entry cannot be, jemalloc's formula stands in for it.  Options may have changed
what the formula gives (``slab_sizes``, ``bin_shards``): how large slabs are is then asked
of the extents, how many shards a bin has of the bins' own slabs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import islice
from typing import Dict, List, Mapping, NamedTuple, Sequence, Set, Tuple

from drain_gdb.errors import UnreadableMemory
from drain_gdb.jemalloc.arenas import arena_pointers
from drain_gdb.jemalloc.heap import ACTIVE, Coverage
from drain_gdb.jemalloc.leaves import Leaf
from drain_gdb.jemalloc.rtree import Rtree
from drain_gdb.layout.bins import (
    SHARDS_MAX,
    SLAB_PAGES_MAX,
    BinInfo,
    bin_shards,
    entries_of_bin_infos,
    repaired_bin_infos,
)
from drain_gdb.layout.records import Layout
from drain_gdb.memory import WORD, Memory

ARENAS_LOOK = 8
"""Arenas whose bins are asked how many shards there are: all have as many."""
NO_BIN_INFOS = "bin_infos, so that sizes follow from jemalloc's formula and the extents"


def find_bins(memory: Memory, layout: Layout, coverage: Coverage) -> List[BinInfo]:
    """The bins; what ``bin_infos`` has wrong is repaired and reported."""
    parameters = layout.parameters
    found = entries_of_bin_infos(memory, layout.bin_info, parameters)
    doubtful = {szind for szind, info in enumerate(found) if info is None}
    bins = repaired_bin_infos(found, parameters)
    if doubtful:
        bins = _as_extents_say(bins, doubtful, _slabs(memory, layout))
    if doubtful or len({info.n_shards for info in bins}) > 1:
        bins, more = _with_shards(memory, layout, bins, doubtful)
        doubtful |= more
    if layout.bin_info is None or len(doubtful) == len(bins):
        coverage.missing.append(NO_BIN_INFOS)
        return bins
    coverage.bins_wrong = len(doubtful)
    for szind in sorted(doubtful):
        info = bins[szind]
        coverage.anomaly(
            f"bin_infos[{szind}] is damaged: taken for regions of {info.reg_size} bytes in slabs"
            f" of {info.slab_size}, {info.n_shards} shard{'s' if info.n_shards > 1 else ''} a bin"
        )
    return bins


class _Seen(NamedTuple):
    """How many slabs of a size class have how many bytes, and how many are of which shard."""

    sizes: Counter[int]
    shards: Counter[int]


def _as_extents_say(
    bins: Sequence[BinInfo], doubtful: Set[int], seen: Mapping[int, _Seen]
) -> List[BinInfo]:
    """``bins``, the ``doubtful`` ones as large as most of their slabs are.

    They have at least as many shards as their slabs say, and as the bin before has.
    """
    found = list(bins)
    n_shards = 1
    for szind, info in enumerate(bins):
        if szind in doubtful and szind in seen:
            slab_size = seen[szind].sizes.most_common(1)[0][0]
            n_shards = max(n_shards, max(seen[szind].shards) + 1)
            nregs = slab_size // info.reg_size
            found[szind] = BinInfo(info.reg_size, slab_size, nregs, n_shards)
        elif szind in doubtful:
            found[szind] = replace(info, n_shards=n_shards)
        n_shards = found[szind].n_shards
    return found


def _slabs(memory: Memory, layout: Layout) -> Dict[int, _Seen]:
    """What slabs say of themselves, by size class."""
    found: Dict[int, _Seen] = defaultdict(lambda: _Seen(Counter(), Counter()))
    extent, page = layout.extent, layout.parameters.page
    # The walk reads all this again, and counts it.
    counted = memory.bytes_read, memory.bytes_unreadable
    for base, stretches in Rtree(memory, layout.rtree, Coverage()).leaves():
        leaf = Leaf(base, stretches, layout.rtree)
        for run in leaf.runs():
            block = memory.records(leaf.extents[run], extent.size)
            for edata in leaf.extents[run]:
                at = edata - block.address
                bits = _word(block.data, at + extent.bits)
                size = _word(block.data, at + extent.size_and_esn) & -page
                active = extent.slab.of(bits) and extent.state.of(bits) == ACTIVE
                if active and 0 < size <= SLAB_PAGES_MAX * page:
                    seen = found[extent.szind.of(bits)]
                    seen.sizes[size] += 1
                    seen.shards[min(extent.shard.of(bits), SHARDS_MAX - 1)] += 1
    memory.bytes_read, memory.bytes_unreadable = counted
    return found


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + WORD], "little")


def _with_shards(
    memory: Memory, layout: Layout, bins: Sequence[BinInfo], doubtful: Set[int]
) -> Tuple[List[BinInfo], Set[int]]:
    """``bins`` with as many shards as arenas have, and those that say otherwise.

    A bin's number of shards decides where the bins behind it are.  Of a bin that differs
    from its neighbours or is ``doubtful``, the numbers of its neighbours are tried.
    """
    best = list(bins)
    most = _in_place(memory, layout, best)
    changed: Set[int] = set()
    for szind, info in enumerate(bins):
        near = {each.n_shards for each in bins[max(0, szind - 1) : szind + 2]}
        for n_shards in sorted((near | {1} if szind in doubtful else near) - {info.n_shards}):
            tried = [*best[:szind], replace(best[szind], n_shards=n_shards), *best[szind + 1 :]]
            agreed = _in_place(memory, layout, tried)
            if agreed > most:
                best, most = tried, agreed
                changed.add(szind)
    return best, changed


def _in_place(memory: Memory, layout: Layout, bins: Sequence[BinInfo]) -> int:
    """Of the slabs that bins of some arenas allocate from: those that are theirs, less others."""
    extent, total = layout.extent, 0
    for index, address in islice(arena_pointers(memory, layout.arena), ARENAS_LOOK):
        try:
            for szind, shard, at in bin_shards(memory, layout.arena, layout.bin, address, bins):
                slab = memory.u64(at + layout.bin.slabcur)
                if slab:
                    bits = memory.u64(slab + extent.bits)
                    says = extent.arena.of(bits), extent.szind.of(bits), extent.shard.of(bits)
                    total += 1 if says == (index, szind, shard) else -1
        except UnreadableMemory:
            total -= 1
    return total
