"""What no reader can know: images that the allocator itself may leave.

A thread frees into its cache and takes from it without a trace elsewhere: cache bins and
their stacks are the only record of which regions are cached.  So where damage turns the
stacks of a cache into others that keep to every rule below, there is a history of calls
that leaves just these bytes, with every other byte of the heap as it is, and the truth
cannot be told from it by any reader:

  1. in each stack, stashed and cached slots lie within its bounds, words apart, and the
     top is not above the low water mark (cache_bin.h, 5.3; ncached >= low_water, 5.0-5.2);
  2. each region in them begins a region of an active slab of the stack's size class that
     the slab's bitmap has allocated, or an active large extent of it;
  3. no region is in two of them.

The history: let the program allocate every region that is allocated and not in these
stacks and keep it; let it allocate the others and free them, in the order of the slots.
(``nrequests`` counts requests, and a thread may have made any number of these.)

The same holds for an arena both of whose rings are empty, or the only one in the version
that has but one: its threads may run without caches (thread.tcache.enabled); and for the
links of a ring that bypass a cache where a recording lacks the links back.  The lock
beside the rings, and its statistics, may be zero as well (stats.mutexes.reset).

This module reads the damaged caches by itself, with the bounds of the undamaged twin; it
shares no code with the walk.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Dict, Iterable, Iterator, Optional, Sequence, Set, Tuple

from drain_gdb.debuggee.protocol import Target
from drain_gdb.errors import UnreadableMemory
from drain_gdb.jemalloc.heap import ACTIVE
from drain_gdb.memory import Memory
from tests.faults.mutate import Damage
from tests.faults.twins import Stack, Twin, stacks

WORD, INT = 8, 4
STACKS = "another history of the thread caches leaves the same bytes"
RINGS = "nothing else says that the thread cache is there"
OF_STACKS = (
    "caches: tops of stacks",
    "caches: bounds of stacks",
    "caches: cached regions",
    "caches: slots past the top",
)
OF_RINGS = ("rings: heads", "rings: links")


def unknowable(twin: Twin, damage: Damage, damaged: Target) -> Optional[str]:
    """Why no reader could have noticed ``damage``; None where one could have."""
    if damage.holes:
        return None
    changed = [at for at in _changed(twin, damage) if _within(twin, twin.spots, at)]
    if not changed:
        return None
    if all(_within(twin, OF_STACKS, at) for at in changed):
        return STACKS if _legal(twin, damaged) else None
    if all(_within(twin, OF_RINGS, at) for at in changed):
        return RINGS if _one_ring(twin) or _emptied(twin, changed, damaged) else None
    return None


def _changed(twin: Twin, damage: Damage) -> Iterator[int]:
    """The addresses of the bytes that are not as they were; of several patches the last counts."""
    now: Dict[int, int] = {}
    for at, new in damage.patches.items():
        now.update(enumerate(new, at))
    memory = Memory(twin.target.read)
    return (at for at, byte in now.items() if memory.read(at, 1)[0] != byte)


def _within(twin: Twin, kinds: Iterable[str], at: int) -> bool:
    spots = (spot for kind in kinds for spot in twin.spots.get(kind, ()))
    return any(s.address <= at < s.address + s.size for s in spots)


def _one_ring(twin: Twin) -> bool:
    """Whether the layout has neither a second ring nor links back to hold one against."""
    tcache = twin.layout.tcache
    return twin.layout.arena.caches is None or tcache.link is None


def _emptied(twin: Twin, changed: Sequence[int], damaged: Target) -> bool:
    """Whether each arena of which a ring was changed has no caches in either now."""
    layout, memory = twin.layout.arena, Memory(damaged.read)
    assert layout.caches is not None
    rings = sorted((layout.descriptors, layout.caches))
    heads = {spot.address for spot in twin.spots["rings: heads"]}
    first = {at for at in heads if at + rings[1] - rings[0] in heads}
    pairs = [(at, at + rings[1] - rings[0]) for at in first]
    return all(
        any(at & -WORD in pair and not any(map(memory.u64, pair)) for pair in pairs)
        for at in changed
    )


def _legal(twin: Twin, damaged: Target) -> bool:
    memory = Memory(damaged.read)
    truth = _Truth(twin)
    seen: Set[int] = set()
    try:
        now = list(_all(twin, memory))
        if [_bounds(stack) for stack in now] != [_bounds(stack) for stack in truth.stacks]:
            return False
        for stack in now:
            if not _ordered(stack):
                return False
            for start, end in ((stack.start, stack.stashed_to), (stack.held_from, stack.end)):
                for pointer in memory.words(start, (end - start) // WORD):
                    if pointer in seen or not truth.allocated(pointer, stack.szind):
                        return False
                    seen.add(pointer)
    except UnreadableMemory:
        return False
    return True


def _all(twin: Twin, memory: Memory) -> Iterator[Stack]:
    layout = twin.layout.tcache
    for descriptor in twin.caches:
        yield from stacks(memory.u64, memory.u16, memory.u32, layout, descriptor)


def _bounds(stack: Stack) -> Tuple[int, int, int]:
    """What of a stack never moves; before 5.3 its lower end is not kept."""
    counted = stack.top.size == INT
    return stack.szind, stack.end if counted else stack.start, stack.end


def _ordered(stack: Stack) -> bool:
    marks = (stack.start, stack.stashed_to, stack.held_from, stack.low_water, stack.end)
    return list(marks) == sorted(marks) and not any((mark - stack.end) % WORD for mark in marks)


class _Truth:
    """What the twin has allocated."""

    def __init__(self, twin: Twin) -> None:
        self._memory = Memory(twin.target.read)
        self._twin = twin
        self.stacks = list(_all(twin, self._memory))
        self._starts = [row[0] for row in twin.rows]
        places = zip(twin.spots["extents: address"], twin.spots["extents: e_bits"])
        self._extents = {
            self._memory.u64(at.address): (self._memory.u64(bits.address), bits.address)
            for at, bits in places
        }

    def allocated(self, pointer: int, szind: int) -> bool:
        """Whether an allocated region or extent of that class begins at ``pointer``."""
        layout = self._twin.layout.extent
        row = bisect_right(self._starts, pointer) - 1
        if row >= 0:
            start, _, own, _, _, _ = self._twin.rows[row]
            info = self._twin.bins[own]
            number, rest = divmod(pointer - start, info.reg_size)
            if number < info.nregs:
                edata = self._extents[start][1] - layout.bits
                word = self._memory.u64(edata + layout.bitmap + number // 64 * WORD)
                return own == szind and not rest and not word >> number % 64 & 1
        bits = self._extents.get(pointer, (0, 0))[0]
        active = bits and layout.state.of(bits) == ACTIVE and not layout.slab.of(bits)
        return bool(active) and layout.szind.of(bits) == szind
