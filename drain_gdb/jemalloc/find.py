"""From a process to its walked heaps: candidates for a layout, and their proof.

A layout that was guessed (a version's structs on another build, variables found
by their shape) is believed when the walk made with it equals the allocator's own
statistics, or, where there are none, when the structures agree with each other.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import List, Optional, Tuple

from drain_gdb.debuggee.protocol import Target
from drain_gdb.errors import DrainError, LayoutError, UnreadableMemory
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.match import match
from drain_gdb.jemalloc.verify import difference
from drain_gdb.jemalloc.walk import walk
from drain_gdb.layout.locate import Allocator, Candidate, find_allocators
from drain_gdb.memory import MakeMemory

NEARLY = 0.05
"""A walk whose slabs and regions are off by less is that of the right layout, on a heap that
is damaged or was stopped in motion: with a wrong one, counters and extents have nothing to do
with each other."""
SOME = 4
"""Figures of an arena, but for those of its bins, that may differ by damage or in flight."""


def find_heap(allocator: Allocator, make_memory: MakeMemory, moves: bool = False) -> Heap:
    """The heap of ``allocator``, walked with the first layout that verifies, or all but.

    Where it ``moves`` meanwhile, only what all bins have together is to be nearly right.
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
        if _proven(heap, moves):
            return heap
        count = len(heap.verification.mismatches)
        notes.append(f"{candidate.how}: {count} figures differ from jemalloc's own")
        if best is None or _doubt(heap) < _doubt(best):
            best = heap
    if best is not None:
        return best
    assert refused is not None
    raise refused


def _proven(heap: Heap, moves: bool) -> bool:
    """Whether ``heap`` was walked with the right layout."""
    return _believed(heap) or _nearly(heap, moves)


def _believed(heap: Heap) -> bool:
    if heap.layout.source == "dwarf":
        return True
    if heap.verification.status == "mismatch" or heap.coverage.missing:
        return False
    return bool(heap.statistics) or len(heap.slabs) > 0


def _nearly(heap: Heap, moves: bool) -> bool:
    """Whether slabs and regions, bin by bin, are all but what jemalloc has counted.

    Where the heap ``moves``, regions that one bin has lost and another has won cancel out.
    Where it does not, and most other figures of its arenas differ, these are of another form.
    """
    found = heap.verification
    counted = {"slabs": found.slabs_recorded or 0, "regions": found.regions_recorded or 0}
    off: Counter[str] = Counter()
    others = 0
    for item in found.mismatches:
        apart = (item.walked or 0) - (item.recorded or 0)
        off[item.what] += apart if moves else abs(apart)
        others += item.what not in counted
    near = all(number and abs(off[what]) < NEARLY * number for what, number in counted.items())
    return near and (moves or others <= SOME * max(1, len(heap.arenas)))


def _doubt(heap: Heap) -> Tuple[bool, bool, bool, bool, float]:
    """The more, the less a walk can be believed; without statistics little is compared."""
    missing = bool(heap.coverage.missing)
    return not heap.slabs, missing, not heap.believed, not heap.statistics, difference(heap)


def find_heaps(target: Target, make_memory: MakeMemory) -> Tuple[List[Heap], List[DrainError]]:
    """The heaps of all jemallocs of the process, and why those left out are.

    Raises a named error where there is none that can be understood.
    """
    if target.process().source == "live":
        from drain_gdb.debuggee.motion import MovingTarget
        from drain_gdb.jemalloc.moving import find_in_motion

        if isinstance(target, MovingTarget):
            find = partial(_find_all, target, make_memory, True)
            return find_in_motion(target, find, partial(_proven, moves=True), make_memory)
    return _find_all(target, make_memory, False)


def _find_all(
    target: Target, make_memory: MakeMemory, moves: bool
) -> Tuple[List[Heap], List[DrainError]]:
    heaps: List[Heap] = []
    refused: List[DrainError] = []
    for allocator in find_allocators(target, make_memory()):
        try:
            heaps.append(find_heap(allocator, make_memory, moves))
        except (LayoutError, UnreadableMemory) as error:
            refused.append(error)
    if not heaps:
        raise refused[0]
    return heaps, refused
