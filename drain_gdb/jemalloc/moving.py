"""The heaps of a process that runs on: walks of copies, and the best of them."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from itertools import chain, repeat
from operator import rshift
from typing import Callable, Iterable, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from drain_gdb.debuggee.functions import functions
from drain_gdb.debuggee.motion import LG_WINDOW, Copy, MovingTarget
from drain_gdb.errors import DrainError, LayoutError, UnreadableMemory
from drain_gdb.jemalloc.extents import Memo
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.verify import TOLERANCE, difference
from drain_gdb.jemalloc.walk import walk
from drain_gdb.layout.records import Layout
from drain_gdb.memory import WORD, MakeMemory

FINDS = 10
"""Copies in which jemalloc is looked for."""
PROOFS = 2
"""Copies in which it is looked for again where no layout was proven right."""
ATTEMPTS = 6
"""Copies of a process before the best of them has to do."""
FAR = 3
"""Where a copy is off by so many times the tolerance, few others will be within it."""
FAR_COPIES = 3
"""Such copies before there is no hope."""
QUICK_WAY = re.compile(r"\w*(malloc|free|sdallocx)|_Z(n[wa]|d[la])\w+")
"""The functions, operators of C++ among them, that serve most calls by themselves."""
QUICK_MOST = 512
"""Bytes: into a larger one the compiler has drawn what it would call otherwise."""
LOCK = 64
"""Bytes from the word that says whether a lock is held: its pthread_mutex_t lies in them."""

FindAll = Callable[[], Tuple[List[Heap], List[DrainError]]]
"""Finds the heaps of the process as it is read now, and why those left out are."""


@dataclass(frozen=True)
class _Attempt:
    """The heaps as seen in one copy.

    Attributes:
        off: how far they are from the accounts, how many findings there are, and how
            many reads the copy did not hold; all zero for a perfect one.
    """

    heaps: List[Heap]
    held: Optional[Copy]
    off: Tuple[float, int, int]


PERFECT = (0, 0, 0)


def find_in_motion(
    target: MovingTarget, find: FindAll, proven: Callable[[Heap], bool], make_memory: MakeMemory
) -> Tuple[List[Heap], List[DrainError]]:
    """The heaps in the first copy whose accounts are exact, else in the best of several.

    What two copies in a row agree on is no movement but the heap's own.  ``proven`` says of a
    heap whether its layout is the right one; what moves may hide it behind a wrong one.
    """
    found, refused = _find_moving(target, find)
    for _ in range(PROOFS):
        if all(map(proven, found)):
            break
        target.hold(_own_windows(target, found))
        found, refused = _find_moving(target, find)
    if target.stops:
        target.busy = _Inside(target, found).threads
    return _settled(target, make_memory, _judged(target, found)), refused


def walk_again(
    target: MovingTarget,
    make_memory: MakeMemory,
    layouts: Sequence[Layout],
    memos: Sequence[Memo],
) -> List[Heap]:
    """As :func:`find_in_motion`, of jemallocs whose layouts are known.

    What the target was told to want is copied first: if the walk needs no more than that
    and its accounts are exact, once will do.  Each heap has a memo of its walks.
    """
    target.hold(_own_windows(target, ()))
    first = _walk_moving(target, make_memory, layouts, memos)
    if first.off == PERFECT:
        return first.heaps
    return _settled(target, make_memory, first, memos)


def _settled(
    target: MovingTarget,
    make_memory: MakeMemory,
    last: _Attempt,
    memos: Sequence[Optional[Memo]] = (),
) -> List[Heap]:
    """The heaps of the first copy that is exact after the ``last`` attempt, or of the best."""
    layouts = [heap.layout for heap in last.heaps]
    best: Optional[_Attempt] = None
    windows: Set[int] = set()
    far = 0
    for _ in range(ATTEMPTS):
        windows |= _own_windows(target, last.heaps)
        target.hold(windows)
        attempt = _walk_moving(target, make_memory, layouts, memos)
        far += not target.stops and attempt.off[0] > FAR * TOLERANCE
        if best is None or attempt.off < best.off:
            best = attempt
        agreed = attempt.off == last.off and not target.missed
        if attempt.off == PERFECT or agreed or far == FAR_COPIES:
            break
        last = attempt
    assert best is not None
    target.held = best.held
    return best.heaps


def _find_moving(target: MovingTarget, find: FindAll) -> Tuple[List[Heap], List[DrainError]]:
    """The heaps as they are found at all; from a copy where the movement hides them."""
    for _ in range(FINDS):
        try:
            return find()
        except (LayoutError, UnreadableMemory):
            target.hold(_own_windows(target, ()))
    return find()


def _walk_moving(
    target: MovingTarget,
    make_memory: MakeMemory,
    layouts: Sequence[Layout],
    memos: Sequence[Optional[Memo]],
) -> _Attempt:
    """Walk the jemallocs whose layouts are known, and judge the outcome."""
    pairs = zip(layouts, memos or repeat(None))
    return _judged(target, [walk(make_memory(), layout, memo) for layout, memo in pairs])


def _judged(target: MovingTarget, heaps: List[Heap]) -> _Attempt:
    findings = sum(len(heap.coverage.anomalies) for heap in heaps)
    return _Attempt(heaps, target.held, (sum(map(difference, heaps)), findings, target.missed))


def _own_windows(target: MovingTarget, heaps: Iterable[Heap]) -> Set[int]:
    """The windows in which there are structures of jemalloc's and nothing else.

    It takes memory for them by whole huge pages (base_map(), base.c), so where some are
    there is no extent; those that it will have need of in a moment are close by.
    """
    found = target.windows
    for heap in heaps:
        for column in (heap.slabs.address, heap.extents.address):
            found.difference_update(map(rshift, column, repeat(LG_WINDOW)))
    for mapping in target.mappings():
        found.difference_update(range(mapping.start >> LG_WINDOW, (mapping.end >> LG_WINDOW) + 1))
    return found


class _Inside:
    """Which threads are at work inside jemalloc, while the process stands."""

    def __init__(self, target: MovingTarget, heaps: Iterable[Heap]) -> None:
        self._quick = target.quick([(at, LOCK) for at in chain(*map(_locks, heaps))])
        # Where it is part of the program, the program's own code may lie there.
        libraries = {heap.layout.module for heap in heaps} - {target.process().executable}
        own = [module for module in target.modules() if module.path in libraries]
        self._code = [
            (min(s.start for s in module.sections), max(s.end for s in module.sections))
            for module in own
        ]
        self._quick_ways = [
            (function.address, function.end)
            for module in own
            for function in functions(target, module, [])
            if QUICK_WAY.fullmatch(function.name) and function.size <= QUICK_MOST
        ]

    def threads(self, executed: Mapping[int, int]) -> Set[int]:
        """Those that hold a lock, or execute jemalloc's code: more of it than the quick way.

        That takes a region from a thread's cache, or puts one there, by a single write
        (cache_bin_alloc_easy(), cache_bin.h 5.3.0).  glibc keeps the owner in the mutex
        (struct __pthread_mutex_s).  Where there is none, or the process has other numbers
        for its threads, none is found.
        """
        found: Set[int] = set()
        if self._quick.take():
            data = self._quick.data
            for row, held in enumerate(data.cast("Q")[:: LOCK // WORD]):
                if held:
                    found.update(struct.unpack_from("<16I", data, row * LOCK))
        found &= executed.keys()
        found.update(thread for thread, address in executed.items() if self._is_inside(address))
        return found

    def _is_inside(self, address: int) -> bool:
        inside = any(start <= address < end for start, end in self._code)
        return inside and not any(start <= address < end for start, end in self._quick_ways)


def _locks(heap: Heap) -> Iterator[int]:
    """Where a word is not zero while something goes on."""
    for arena in heap.arenas:
        for offset in heap.layout.arena.locks.values():
            yield arena.address + offset
    if heap.layout.bin.lock is not None:
        for shard in heap.counters:
            yield shard.address + heap.layout.bin.lock
