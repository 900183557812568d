"""The slabs with room, as their bins list them: a second list of the same slabs.

A bin shard allocates from ``slabcur`` and keeps every other slab that has both free and
allocated regions in the pairing heap ``slabs_nonfull`` (bin.h, ph.h, arena.c of 5.0.1 to
5.3.1).  Where there are no statistics the walk of the rtree is held against these lists.
"""

from __future__ import annotations

from collections import Counter
from typing import List, Sequence, Set, Tuple

from drain_gdb.errors import UnreadableMemory
from drain_gdb.jemalloc.heap import ACTIVE, BinCounters, Coverage
from drain_gdb.layout.records import ExtentLayout, Layout
from drain_gdb.memory import WORD, Memory

BinKey = Tuple[int, int, int]


def count_nonfull(
    memory: Memory,
    layout: Layout,
    shards: Sequence[BinCounters],
    limit: int,
    coverage: Coverage,
) -> Counter[BinKey]:
    """``(arena, szind, shard)`` to the slabs with free regions that the shard itself lists.

    A shard whose lists cannot be read is left out.  ``limit`` is how many slabs there
    are in all: a longer list leads nowhere, and is cut off there.
    """
    found: Counter[BinKey] = Counter()
    seen: Set[int] = set()
    for shard in shards:
        key = shard.arena, shard.szind, shard.shard
        try:
            listed = [memory.u64(shard.address + layout.bin.slabcur)]
            listed += _members(
                memory, layout, shard.address + layout.bin.slabs_nonfull, seen, limit
            )
            found[key] = sum(_has_room(memory, layout.extent, slab, key) for slab in listed if slab)
        except UnreadableMemory as error:
            coverage.bytes_unreadable += error.size
            coverage.anomaly(
                f"slabs with room of arena {shard.arena}, size class {shard.szind}: {error.what}"
            )
    return found


def _members(memory: Memory, layout: Layout, heap: int, seen: Set[int], limit: int) -> List[int]:
    """The extents in the pairing heap whose root pointer is at ``heap``, not ``seen`` before.

    A node links to its previous, its next and its leftmost child, in this order.
    """
    found: List[int] = []
    ahead = [memory.u64(heap)]
    while ahead and len(seen) <= limit:
        node = ahead.pop()
        if node and node not in seen:
            seen.add(node)
            found.append(node)
            ahead += memory.words(node + layout.extent.heap_link + WORD, 2)
    return found


def _has_room(memory: Memory, layout: ExtentLayout, slab: int, key: BinKey) -> bool:
    """Whether ``slab`` is an active slab of bin ``key`` with free regions."""
    bits = memory.u64(slab + layout.bits)
    return (
        (layout.arena.of(bits), layout.szind.of(bits), layout.shard.of(bits)) == key
        and layout.state.of(bits) == ACTIVE
        and layout.slab.of(bits) == 1
        and layout.nfree.of(bits) > 0
    )
