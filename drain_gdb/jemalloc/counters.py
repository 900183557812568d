"""The counters that only malloc_stats_print() is for, read when they are asked for.

They are read as they stand.  jemalloc takes its figures just so, one after the other
(arena_stats_merge(), arena.c); what it shows is what was there at that moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Sequence, Tuple

from drain_gdb.errors import StatisticsError
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.layout.records import CountersLayout, Place, Rows
from drain_gdb.memory import Memory

Numbers = Dict[str, int]


@dataclass(frozen=True)
class ArenaCounters:
    """Of one arena, by jemalloc's names; what the layout does not name is not there.

    Attributes:
        bins: by size class, each shard.
        large: by size class, from the first large one on.
        extents: state name to ``(extents, bytes)`` by page size class.
        mutexes: name to its profile.
        bin_mutexes: as ``bins``.

    """

    index: int
    own: Numbers
    base: Numbers
    bins: Sequence[Sequence[Numbers]]
    large: Sequence[Numbers]
    extents: Mapping[str, Sequence[Tuple[int, int]]]
    mutexes: Mapping[str, Numbers]
    bin_mutexes: Sequence[Sequence[Numbers]]


def read_counters(memory: Memory, heap: Heap) -> List[ArenaCounters]:
    """Those of every arena that was walked.

    Raises :class:`StatisticsError` where this jemalloc keeps none or the target, a
    recording, holds none, and :class:`~drain_gdb.errors.UnreadableMemory`.
    """
    layout = heap.layout.counters
    if not heap.statistics:
        raise StatisticsError("this jemalloc keeps no statistics (config.stats is false)")
    if layout is None:
        raise StatisticsError("this recording does not say where the counters are")
    at = heap.layout.arena
    shards: Dict[int, List[List[int]]] = {a.index: [[] for _ in heap.bins] for a in heap.arenas}
    for shard in heap.counters:
        shards[shard.arena][shard.szind].append(shard.address)
    found = []
    for arena in heap.arenas:
        base = memory.u64(arena.address + at.base)
        rows = range(at.large_count)
        lstats = [arena.address + at.large + row * at.large_size for row in rows]
        mutexes = {
            name: _numbers(memory, arena.address + offset, layout.profile)
            for name, offset in layout.mutexes.items()
        }
        mutexes["base"] = _numbers(memory, base + layout.base_mutex, layout.profile)
        addresses = shards[arena.index]
        found.append(
            ArenaCounters(
                index=arena.index,
                own=_numbers(memory, arena.address, layout.arena),
                base=_numbers(memory, base, layout.base),
                bins=[[_numbers(memory, a, layout.bin) for a in each] for each in addresses],
                large=[_numbers(memory, address, layout.large) for address in lstats],
                extents={
                    state: _extents(memory, arena.address, several)
                    for state, several in layout.extents.items()
                },
                mutexes=mutexes,
                bin_mutexes=[[_of_bin(memory, a, layout) for a in each] for each in addresses],
            )
        )
    return found


def _numbers(memory: Memory, address: int, places: Mapping[str, Place]) -> Numbers:
    return {
        name: int.from_bytes(memory.read(address + place.offset, place.size), "little")
        for name, place in places.items()
    }


def _of_bin(memory: Memory, address: int, layout: CountersLayout) -> Numbers:
    if layout.bin_mutex is None:
        return {}
    return _numbers(memory, address + layout.bin_mutex, layout.profile)


def _extents(memory: Memory, arena: int, several: Sequence[Rows]) -> List[Tuple[int, int]]:
    columns = [
        [
            (memory.u64(arena + rows.extents + step), memory.u64(arena + rows.bytes + step))
            for step in range(0, rows.count * rows.stride, rows.stride)
        ]
        for rows in several
    ]
    return [(sum(c for c, _ in row), sum(size for _, size in row)) for row in zip(*columns)]
