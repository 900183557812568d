"""Arenas, their bins and the figures they keep (arena_structs.h, bin.h, base.h)."""

from __future__ import annotations

from struct import unpack_from
from typing import Iterator, List, Sequence, Set, Tuple

from drain_gdb.errors import UnreadableMemory
from drain_gdb.jemalloc.heap import Arena, BinCounters, Coverage, Decay
from drain_gdb.layout.bins import BinInfo, arena_index, bin_shards
from drain_gdb.layout.records import ArenaLayout, Layout
from drain_gdb.memory import WORD, Memory, words_of

DECAY_MS_MAX = 18446744072 * 1000
"""NSTIME_SEC_MAX (nstime.h) in milliseconds: decay_ms_valid() takes no more (decay.c)."""


def walk_arenas(
    memory: Memory, layout: Layout, bins: Sequence[BinInfo], coverage: Coverage
) -> Tuple[List[Arena], List[BinCounters]]:
    """Every arena of the table, which may have gaps, and every bin shard of each."""
    arenas: List[Arena] = []
    counters: List[BinCounters] = []
    for index, address in arena_pointers(memory, layout.arena):
        try:
            says = arena_index(memory, layout.arena, address)
            if says != index:
                coverage.arenas_unreadable += 1
                coverage.anomaly(f"arenas[{index}] at {address:#x} says its index is {says}")
                continue
            arena = _arena(memory, layout, index, address)
            shards = _bins(memory, layout, index, address, bins)
        except UnreadableMemory as error:
            coverage.arenas_unreadable += 1
            coverage.anomaly(f"arena {index} at {address:#x}: {error.what}")
            coverage.bytes_unreadable += error.size
            continue
        arenas.append(arena)
        counters.extend(shards)
    return arenas, counters


def arena_pointers(memory: Memory, arena: ArenaLayout) -> Iterator[Tuple[int, int]]:
    """``(index, address)`` of each arena in the table."""
    if arena.table is not None:
        table = memory.block(arena.table, arena.table_size * WORD)
        for at, address in table.nonzero_words():
            yield (at - arena.table) // WORD, address


def _arena(memory: Memory, layout: Layout, index: int, address: int) -> Arena:
    at = layout.arena
    base = memory.u64(address + at.base)
    large = {}
    rows = memory.read(address + at.large, at.large_count * at.large_size)
    for row in range(at.large_count):
        words = words_of(rows[row * at.large_size : (row + 1) * at.large_size])
        extant = words[at.large_nmalloc // 8] - words[at.large_ndalloc // 8]
        if extant:
            large[layout.parameters.nbins + row] = extant
    return Arena(
        index=index,
        address=address,
        nactive=None if at.nactive is None else memory.u64(address + at.nactive),
        cached_pages={
            state: sum(memory.u64(address + offset) for offset in offsets)
            for state, offsets in at.cached_pages.items()
        },
        base_allocated=memory.u64(base + at.base_allocated),
        large=large if at.large_count else None,
        held=tuple(what for what, offset in at.locks.items() if memory.u64(address + offset)),
        decays=dict(_decays(memory, at, address)),
        threads=None if at.threads is None else memory.u32(address + at.threads),
        blocks=tuple(_blocks(memory, layout, base)),
    )


def _decays(memory: Memory, at: ArenaLayout, address: int) -> Iterator[Tuple[str, Decay]]:
    """The decay of each state of unused pages, where what is there can be one."""
    for state, decay in at.decays.items():
        milliseconds = int.from_bytes(
            memory.read(address + decay.time_ms, WORD), "little", signed=True
        )
        if -1 <= milliseconds <= DECAY_MS_MAX:
            stepped = None if decay.epoch is None else memory.u64(address + decay.epoch)
            yield state, Decay(milliseconds, stepped)


BLOCK = 16
"""Bytes of a base_block_t that count: its size, and the next one (base.h, 5.0 to 5.3)."""
BLOCKS_MAX = 1 << 16
"""Each is larger than the one before (pind_last, base.c): there are some dozens."""


def _blocks(memory: Memory, layout: Layout, base: int) -> Iterator[Tuple[int, int]]:
    """``(start, end)`` of each block of metadata, up to the first that is none."""
    if layout.arena.base_blocks is None:
        return
    known: Set[int] = set()
    try:
        block = memory.u64(base + layout.arena.base_blocks)
        while block and block not in known and len(known) < BLOCKS_MAX:
            known.add(block)
            size, after = memory.words(block, BLOCK // WORD)
            if not 0 < size < 1 << 48 or (block | size) % layout.parameters.page:
                return
            yield block, block + size
            block = after
    except UnreadableMemory:
        return


def _bins(
    memory: Memory, layout: Layout, index: int, address: int, bins: Sequence[BinInfo]
) -> List[BinCounters]:
    """The bin shards of an arena: those of bin 0, then those of bin 1, and so on."""
    found = []
    stats, lock = layout.bin.stats, layout.bin.lock
    parts = _adjacent([*stats.values(), *([] if lock is None else [lock])])
    size = sum(parts[-1]) if parts else 0
    for szind, shard, at in bin_shards(memory, layout.arena, layout.bin, address, bins):
        row = next(memory.rows(at, size, 1, parts))[1] if parts else b""
        counters = {name: unpack_from("<Q", row, offset)[0] for name, offset in stats.items()}
        held = lock is not None and unpack_from("<Q", row, lock) != (0,)
        found.append(BinCounters(index, szind, shard, at, **counters, held=held))
    return found


def _adjacent(offsets: Sequence[int]) -> List[Tuple[int, int]]:
    """``(offset, length)`` of the stretches that words at ``offsets`` make."""
    parts: List[Tuple[int, int]] = []
    for offset in sorted(offsets):
        if parts and sum(parts[-1]) == offset:
            parts[-1] = parts[-1][0], parts[-1][1] + WORD
        else:
            parts.append((offset, WORD))
    return parts
