"""From a process to its walked heaps: candidates for a layout, and their proof.

A layout that was guessed (a version's structs on another build, variables found
by their shape) is believed when the walk made with it equals the allocator's own
statistics, or, where there are none, when the structures agree with each other.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import Callable, List, Optional, Sequence, Tuple

from drain_gdb.debuggee.motion import Copy, MovingTarget
from drain_gdb.debuggee.protocol import Target
from drain_gdb.errors import DrainError, LayoutError, UnreadableMemory
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.match import match
from drain_gdb.jemalloc.verify import difference
from drain_gdb.jemalloc.walk import walk
from drain_gdb.layout.locate import Allocator, Candidate, find_allocators
from drain_gdb.layout.records import Layout
from drain_gdb.memory import Memory

NEARLY = 0.05
"""A walk whose slabs and regions are off by less is that of the right layout, on a heap that
is damaged or was stopped in motion: with a wrong one, counters and extents have nothing to do
with each other."""
ATTEMPTS = 10
"""Copies of a process in motion before the best of them has to do."""

MakeMemory = Callable[[], Memory]


def find_heap(allocator: Allocator, make_memory: MakeMemory) -> Heap:
    """The heap of ``allocator``, walked with the first layout that verifies, or all but.

    Where none of its candidates does, each struct is taken by its own evidence; where not
    even that verifies, the walk is returned that is off the least, one with slabs and
    statistics first.  Where none leads through a walk, the error of the surest is raised.
    """
    notes: List[str] = []
    refused: Optional[DrainError] = None
    best: Optional[Heap] = None
    candidates = list(allocator.candidates)
    if allocator.pieces is not None:
        by_evidence = partial(match, make_memory(), allocator)
        candidates.append(Candidate("each struct by its own evidence", by_evidence))
    for candidate in candidates:
        try:
            layout = candidate.locate()
            layout = replace(layout, notes=(*layout.notes, *notes))
            heap = walk(make_memory(), layout)
        except (LayoutError, UnreadableMemory) as error:
            refused = refused or error
            notes.append(f"{candidate.how}: {error.message}")
            continue
        if _believed(heap) or _nearly(heap):
            return heap
        count = len(heap.verification.mismatches)
        notes.append(f"{candidate.how}: {count} figures differ from jemalloc's own")
        if best is None or _doubt(heap) < _doubt(best):
            best = heap
    if best is not None:
        return best
    assert refused is not None
    raise refused


def _believed(heap: Heap) -> bool:
    if heap.layout.source == "dwarf":
        return True
    return heap.verification.status != "mismatch" and (heap.statistics or len(heap.slabs) > 0)


def _nearly(heap: Heap) -> bool:
    """Whether slabs and regions, bin by bin, are all but what jemalloc has counted."""
    found = heap.verification
    counted = {"slabs": found.slabs_recorded or 0, "regions": found.regions_recorded or 0}
    off: Counter[str] = Counter()
    for item in found.mismatches:
        off[item.what] += abs((item.walked or 0) - (item.recorded or 0))
    return all(number and off[what] < NEARLY * number for what, number in counted.items())


def _doubt(heap: Heap) -> Tuple[bool, bool, float]:
    """The more, the less a walk can be believed; without statistics little is compared."""
    return not heap.slabs, not heap.statistics, difference(heap)


def find_heaps(target: Target, make_memory: MakeMemory) -> Tuple[List[Heap], List[DrainError]]:
    """The heaps of all jemallocs of the process, and why those left out are.

    Raises a named error where there is none that can be understood.
    """
    if isinstance(target, MovingTarget):
        return _find_in_motion(target, make_memory)
    return _find_all(target, make_memory)


def _find_all(target: Target, make_memory: MakeMemory) -> Tuple[List[Heap], List[DrainError]]:
    heaps: List[Heap] = []
    refused: List[DrainError] = []
    for allocator in find_allocators(target, make_memory()):
        try:
            heaps.append(find_heap(allocator, make_memory))
        except (LayoutError, UnreadableMemory) as error:
            refused.append(error)
    if not heaps:
        raise refused[0]
    return heaps, refused


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


def _find_in_motion(
    target: MovingTarget, make_memory: MakeMemory
) -> Tuple[List[Heap], List[DrainError]]:
    """The heaps in the first copy whose accounts are exact, else in the best of several.

    What two copies in a row agree on is no movement but the heap's own.
    """
    found, refused = _find_moving(target, make_memory)
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


def _find_moving(
    target: MovingTarget, make_memory: MakeMemory
) -> Tuple[List[Heap], List[DrainError]]:
    """The heaps as they are found at all; from a copy where the movement hides them."""
    for _ in range(ATTEMPTS):
        try:
            return _find_all(target, make_memory)
        except (LayoutError, UnreadableMemory):
            target.hold()
    return _find_all(target, make_memory)


def _walk_moving(
    target: MovingTarget, make_memory: MakeMemory, layouts: Sequence[Layout]
) -> _Attempt:
    """Walk the jemallocs whose layouts are known, and judge the outcome."""
    target.missed = 0
    heaps = [walk(make_memory(), layout) for layout in layouts]
    findings = sum(len(heap.coverage.anomalies) for heap in heaps)
    return _Attempt(heaps, target.held, (sum(map(difference, heaps)), findings, target.missed))
