"""The heaps of a process that runs on: walks of copies, and the best of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Callable, List, Optional, Sequence, Tuple

from drain_gdb.debuggee.motion import Copy, MovingTarget
from drain_gdb.errors import DrainError, LayoutError, UnreadableMemory
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.verify import difference
from drain_gdb.jemalloc.walk import walk
from drain_gdb.layout.records import Layout
from drain_gdb.memory import Memory

ATTEMPTS = 10
"""Copies of a process in motion before the best of them has to do."""

MakeMemory = Callable[[], Memory]
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
    target: MovingTarget, find: FindAll, make_memory: MakeMemory
) -> Tuple[List[Heap], List[DrainError]]:
    """The heaps in the first copy whose accounts are exact, else in the best of several.

    What two copies in a row agree on is no movement but the heap's own.
    """
    found, refused = _find_moving(target, find)
    layouts = [heap.layout for heap in found]
    # What was read to find the variables need not be copied; a first walk learns the rest.
    target.forget()
    best = last = _walk_moving(target, make_memory, layouts)
    for number in range(ATTEMPTS):
        target.hold()
        attempt = _walk_moving(target, make_memory, layouts)
        if number == 0 or attempt.off < best.off:
            best = attempt
        if attempt.off == PERFECT or (attempt.off == last.off and not target.missed):
            break
        last = attempt
    else:
        if target.stops:
            best = _walk_stopped(target, make_memory, layouts)
    target.held = best.held
    return best.heaps, refused


def _walk_stopped(
    target: MovingTarget, make_memory: MakeMemory, layouts: Sequence[Layout]
) -> _Attempt:
    """Walk while the process is stopped throughout, and copy what was read."""
    target.stop()
    try:
        attempt = _walk_moving(target, make_memory, layouts)
        target.copy()
        return replace(attempt, held=target.held)
    finally:
        target.let_run()


def _find_moving(target: MovingTarget, find: FindAll) -> Tuple[List[Heap], List[DrainError]]:
    """The heaps as they are found at all; from a copy where the movement hides them."""
    for _ in range(ATTEMPTS):
        try:
            return find()
        except (LayoutError, UnreadableMemory):
            target.hold()
    return find()


def _walk_moving(
    target: MovingTarget, make_memory: MakeMemory, layouts: Sequence[Layout]
) -> _Attempt:
    """Walk the jemallocs whose layouts are known, and judge the outcome."""
    target.missed = 0
    heaps = [walk(make_memory(), layout) for layout in layouts]
    findings = sum(len(heap.coverage.anomalies) for heap in heaps)
    return _Attempt(heaps, target.held, (sum(map(difference, heaps)), findings, target.missed))
