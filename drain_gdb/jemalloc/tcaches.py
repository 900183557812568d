"""Thread caches and what they hold (cache_bin.h, tcache.c).

With statistics on, every automatic and explicit thread cache is on its arena's
ring; where they are off, the automatic ones are found with the layout.  From 5.3 on
the stacks of one cache lie one after the other in one block of memory, a junk word
before the first and after the last; each stack's bounds follow from the low 16 bits
its cache bin keeps:

    | junk | stack 0 | stack 1 | ... | stack n-1 | junk |
             stashed .. free .. cached

Before, a cache bin counts what stands below its ``avail`` pointer.
"""

from __future__ import annotations

from itertools import chain
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from drain_gdb.errors import UnreadableMemory
from drain_gdb.jemalloc.heap import (
    BY_ARENAS,
    BY_THREADS,
    Arena,
    CachedRegion,
    Coverage,
    ThreadCaches,
)
from drain_gdb.layout.records import CacheLayout, CountedCaches, Layout, Positions, StackedCaches
from drain_gdb.memory import WORD, Memory

INT, SHORT = 4, 2
LOW = 0xFFFF
NCACHED_MAX = LOW
"""More regions than any cache bin of 5.0 to 5.2 is made for (tcache_boot())."""
DEPLETED = 0xFFFF_FFFF
"""The low water mark of a cache bin that ran out of regions: -1 (tcache.h, 5.0 to 5.2)."""
REGIONS_MAX = 1 << 22
"""Cached regions of all caches; each takes some hundred bytes here."""
CACHES_MAX = 1 << 20
"""A longer ring is a loop that misses its first element."""


def walk_tcaches(
    memory: Memory,
    layout: Layout,
    arenas: Sequence[Arena],
    statistics: bool,
    coverage: Coverage,
) -> ThreadCaches:
    """Every thread cache that can be reached, and the regions each holds.

    Arenas keep their rings under config_stats alone; without, the threads are asked.
    """
    caches = ThreadCaches()
    rooms: List[int] = []
    if statistics:
        caches.reached_by = BY_ARENAS
        for arena in arenas:
            members = _of_arena(memory, layout, arena, caches, coverage)
            _collect(memory, layout.tcache, arena.index, members, rooms, caches, coverage)
    elif layout.threads is not None:
        caches.reached_by = BY_THREADS
        of_threads = layout.tcache
        if isinstance(of_threads, CountedCaches):
            of_threads = of_threads.own
        _collect(memory, of_threads, None, layout.threads, rooms, caches, coverage)
    return caches


def _of_arena(
    memory: Memory, layout: Layout, arena: Arena, caches: ThreadCaches, coverage: Coverage
) -> List[int]:
    """The caches of an arena, from both its rings where there are two (5.1 to 5.3.1)."""
    what = f"thread caches of arena {arena.index}"
    tcache = layout.tcache
    ring = _Ring(arena.address + layout.arena.descriptors, tcache.next, tcache.previous)
    listed = _members(memory, ring, what, caches, coverage)
    if layout.arena.caches is None or tcache.link is None:
        return listed
    ring = _Ring(arena.address + layout.arena.caches, tcache.link, tcache.link + WORD)
    own = _members(memory, ring, what, caches, coverage)
    others = [cache + tcache.descriptor for cache in own]
    for descriptor in sorted(set(listed).symmetric_difference(others)):
        caches.unreadable += 1
        coverage.anomaly(f"thread cache {descriptor:#x} is on one of two lists of {what} only")
    return list(dict.fromkeys([*listed, *others]))


def _collect(
    memory: Memory,
    layout: CacheLayout,
    arena: Optional[int],
    descriptors: Iterable[int],
    rooms: List[int],
    caches: ThreadCaches,
    coverage: Coverage,
) -> None:
    """Add the caches at ``descriptors``, all of one arena, and what they hold.

    ``rooms``, of their stacks (see :func:`_counted`), is filled by the first cache.
    """
    for descriptor in descriptors:
        if descriptor in caches.descriptors:
            caches.unreadable += 1
            coverage.anomaly(f"thread cache {descriptor:#x} is on two lists")
            continue
        number = len(caches.descriptors)
        caches.descriptors[descriptor] = number
        if len(caches.regions) > REGIONS_MAX:
            caches.unreadable += 1
            coverage.anomaly(
                f"thread cache {descriptor:#x} is left out: there are too many regions"
            )
            continue
        try:
            held = _held(memory, layout, descriptor, rooms, caches)
            for szind, requests, pointers, stashed in held:
                caches.requests[arena, szind] += requests
                caches.held[arena, szind] += len(pointers)
                caches.stashed[arena, szind] += stashed
                caches.regions += [CachedRegion(p, szind, number) for p in pointers]
            caches.whole += 1
        except UnreadableMemory as error:
            caches.unreadable += 1
            coverage.bytes_unreadable += error.size
            coverage.anomaly(f"thread cache {descriptor:#x}: {error.what}")
        except ValueError as error:
            caches.unreadable += 1
            coverage.anomaly(f"thread cache {descriptor:#x}: {error}")


class _Ring(NamedTuple):
    """A ring (ql.h): the address of its head, the offsets of the links in its elements."""

    head: int
    next: int
    previous: Optional[int]


def _members(
    memory: Memory, ring: _Ring, what: str, caches: ThreadCaches, coverage: Coverage
) -> List[int]:
    """The elements of a ring; a broken one counts as one unreadable cache."""
    members: Dict[int, None] = {}
    try:
        node = first = memory.u64(ring.head)
        while node and node not in members and len(members) < CACHES_MAX:
            members[node] = None
            after = memory.u64(node + ring.next)
            if after and ring.previous is not None and memory.u64(after + ring.previous) != node:
                caches.unreadable += 1
                coverage.anomaly(f"list of {what}: {after:#x} follows {node:#x}, and denies it")
                break
            node = after
        else:
            if node != first:
                caches.unreadable += 1
                coverage.anomaly(f"list of {what} does not close: it ends at {node:#x}")
    except UnreadableMemory as error:
        caches.unreadable += 1
        coverage.bytes_unreadable += error.size
        coverage.anomaly(f"list of {what}: {error.what}")
    return list(members)


Held = List[Tuple[int, int, List[int], int]]
"""``(szind, requests, held pointers, how many of them are stashed)`` of each bin of a cache."""


def _held(
    memory: Memory, layout: CacheLayout, element: int, rooms: List[int], caches: ThreadCaches
) -> Held:
    """What the cache at ``element`` of a ring holds, all or nothing; ``caches`` learn where.

    ValueError where its bins contradict themselves.
    """
    if isinstance(layout, StackedCaches):
        return _stacks(memory, layout, element, caches)
    return _counted(memory, layout, element, rooms, caches)


def _number(row: bytes, offset: int, size: int = WORD) -> int:
    return int.from_bytes(row[offset : offset + size], "little")


def _counted(
    memory: Memory, layout: CountedCaches, element: int, rooms: List[int], caches: ThreadCaches
) -> Held:
    """Of 5.0 to 5.2, where all stacks are side by side in one block (tcache_init(), tcache.c).

    ``rooms``, in regions, are those of the stacks but the first: the same in each cache.
    """
    small, large = element + layout.small, element + layout.large
    if layout.by_pointer:
        small, large = memory.u64(small), memory.u64(large)
        own = element - layout.descriptor
        if layout.previous is not None and (small, large) != (
            own + layout.own_small,
            own + layout.own_large,
        ):
            raise ValueError(f"its bins at {small:#x} and {large:#x} are not its own")
    if layout.positions is not None:
        return _positioned(memory, layout, layout.positions, small, large, rooms, caches)
    parts = [(layout.avail, WORD), (layout.ncached, INT)]
    parts += [] if layout.low_water is None else [(layout.low_water, INT)]
    rows = _bins(memory, layout, small, large, parts)
    found: Held = []
    own_rooms: List[int] = []
    before = 0
    for szind, (at, row) in enumerate(rows):
        avail, ncached = _number(row, layout.avail), _number(row, layout.ncached, INT)
        if not avail and not ncached:
            continue
        if szind != len(found):
            # Classes too large to be cached have no stack (tcache_maxclass), and no others.
            raise ValueError(f"bin {szind} has a stack, and bin {len(found)} has none")
        if ncached > NCACHED_MAX or avail % WORD:
            raise ValueError(f"bin {szind} says it holds {ncached} regions below {avail:#x}")
        if found:
            own_rooms.append((avail - before) // WORD)
            if not ncached <= own_rooms[-1] <= NCACHED_MAX:
                raise ValueError(f"bin {szind} says its stack ends at {avail:#x}")
        before = avail
        if layout.low_water is not None:
            water = _number(row, layout.low_water, INT)
            if water != DEPLETED and water > ncached:
                raise ValueError(f"bin {szind} holds {ncached} regions, and never under {water}")
        held = memory.words(avail - ncached * WORD, ncached)
        found.append((szind, memory.u64(at + layout.requests), list(held), 0))
    if rooms and own_rooms != rooms:
        raise ValueError("its stacks have not the room of those of other caches")
    rooms[:] = own_rooms
    if before:
        caches.stacks.append(before - WORD)
    return found


def _bins(
    memory: Memory,
    layout: CountedCaches,
    small: int,
    large: int,
    parts: Sequence[Tuple[int, int]],
) -> Iterator[Tuple[int, bytes]]:
    """Address and bytes of each cache bin, those of small classes first."""
    return chain(
        memory.rows(small, layout.bin_size, layout.nsmall, parts),
        memory.rows(large, layout.bin_size, layout.nlarge, parts),
    )


class _Stack(NamedTuple):
    """A stack that grows down: its bin's address, its lowest place, its top and its end."""

    bin: int
    full: int
    top: int
    end: Optional[int]
    low_water: int


def _positioned(
    memory: Memory,
    layout: CountedCaches,
    positions: Positions,
    small: int,
    large: int,
    rooms: List[int],
    caches: ThreadCaches,
) -> Held:
    """Of 5.2.1-18 to 5.2.1-365: stacks side by side, known by the positions of their ends.

    ``rooms`` as in :func:`_counted`.
    """
    assert layout.low_water is not None
    size, mask = positions.size, (1 << 8 * positions.size) - 1
    parts = [(layout.avail, WORD), (positions.full, size), (layout.low_water, size)]
    parts += [] if positions.empty is None else [(positions.empty, size)]
    stacks: List[_Stack] = []
    for szind, (at, row) in enumerate(_bins(memory, layout, small, large, parts)):
        top = _number(row, layout.avail)
        if not top:
            # Classes too large to be cached have no stack.
            continue
        if szind != len(stacks):
            raise ValueError(f"bin {szind} has a stack, and bin {len(stacks)} has none")
        full = top - (top - _number(row, positions.full, size) & mask)
        end = None
        if positions.empty is not None:
            end = top + (_number(row, positions.empty, size) - top & mask)
        water = top + (_number(row, layout.low_water, size) - top & mask)
        stacks.append(_Stack(at, full, top, end, water))
    found: Held = []
    own_rooms: List[int] = []
    for szind, stack in enumerate(stacks):
        end = stack.end
        if szind + 1 < len(stacks):
            after = stacks[szind + 1].full
            if end not in (None, after):
                raise ValueError(
                    f"bin {szind} has its end at {end:#x}, the next begins at {after:#x}"
                )
            end = after
        elif end is None:
            # The last ones, of large classes, have all the same room.
            end = stack.full + (own_rooms[-1] if own_rooms else 0) * WORD
        room = (end - stack.full) // WORD
        low = stack.low_water in range(stack.top, end + WORD + 1)
        if not stack.full <= stack.top <= end or room > NCACHED_MAX or stack.top % WORD or not low:
            raise ValueError(
                f"bin {szind} has its top at {stack.top:#x}, its stack {stack.full:#x}..{end:#x}"
            )
        own_rooms.append(room)
        held = memory.words(stack.top, (end - stack.top) // WORD)
        found.append((szind, memory.u64(stack.bin + layout.requests), list(held), 0))
    if rooms and own_rooms != rooms:
        raise ValueError("its stacks have not the room of those of other caches")
    rooms[:] = own_rooms
    caches.stacks += [stack.full for stack in stacks[:1]]
    return found


def _stacks(memory: Memory, layout: StackedCaches, descriptor: int, caches: ThreadCaches) -> Held:
    tcache = memory.u64(descriptor + layout.tcache)
    if layout.back is not None:
        slow = memory.u64(tcache + layout.back)
        if slow != descriptor - layout.descriptor:
            raise ValueError(f"its bins at {tcache:#x} belong to another, at {slow:#x}")
    room = memory.u64(descriptor + layout.stack)
    caches.stacks.append(room)
    stack = room + layout.leading
    nbins = layout.nbins_max
    if layout.nbins is not None:
        nbins = memory.u32(descriptor + layout.nbins)
        if nbins > layout.nbins_max:
            raise ValueError(f"it says it has {nbins} bins")
    parts = [(layout.head, WORD), (layout.low_bits_full, SHORT), (layout.low_bits_empty, SHORT)]
    parts += [] if layout.low_water is None else [(layout.low_water, SHORT)]
    found = []
    rows = memory.rows(tcache + layout.bins, layout.bin_size, nbins, parts)
    for szind, (at, row) in enumerate(rows):
        head = _number(row, layout.head)
        low_empty = _number(row, layout.low_bits_empty, SHORT)
        low_full = _number(row, layout.low_bits_full, SHORT)
        if low_empty == low_full == head & LOW and not stack <= head <= stack + LOW:
            # Disabled (5.3.1 on): its stack is a constant elsewhere, and empty.
            continue
        end = stack + (low_empty - stack & LOW)
        full = stack + (low_full - stack & LOW)
        if not (stack <= full <= head <= end) or head % WORD or full % WORD:
            raise ValueError(
                f"bin {szind} has its top at {head:#x}, outside its stack {full:#x}..{end:#x}"
            )
        if layout.low_water is not None:
            water = stack + (_number(row, layout.low_water, SHORT) - stack & LOW)
            if not head <= water <= end:
                raise ValueError(
                    f"bin {szind} has its top at {head:#x}, above its low water at {water:#x}"
                )
        stashed = memory.words(stack, (full - stack) // WORD)
        cached = memory.words(head, (end - head) // WORD)
        held = [*stashed, *cached]
        found.append((szind, memory.u64(at + layout.requests), held, len(stashed)))
        stack = end
        if layout.nbins is None and memory.u64(stack) == layout.trailing:
            return found
    if layout.nbins is None or (layout.back is not None and memory.u64(stack) != layout.trailing):
        raise ValueError("the end of its stacks was not found")
    return found
