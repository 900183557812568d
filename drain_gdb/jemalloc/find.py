"""From a process to its walked heaps: candidates for a layout, and their proof.

A layout that was guessed (a version's structs on another build, variables found
by their shape) is believed when the walk made with it equals the allocator's own
statistics, or, where there are none, when the structures agree with each other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Callable, List, Optional, Tuple

from drain_gdb.errors import DrainError, LayoutError, UnreadableMemory
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.walk import walk
from drain_gdb.layout.locate import Allocator, find_allocators
from drain_gdb.memory import Memory
from drain_gdb.target.protocol import Target

MakeMemory = Callable[[], Memory]


def find_heap(allocator: Allocator, make_memory: MakeMemory) -> Heap:
    """The heap of ``allocator``, walked with the first layout that verifies.

    Where none does, the one with the fewest mismatches; where none even leads
    through a walk, the error of the surest candidate is raised.
    """
    notes: List[str] = []
    refused: Optional[DrainError] = None
    best: Optional[Heap] = None
    for candidate in allocator.candidates:
        try:
            layout = candidate.locate()
            layout = replace(layout, notes=(*layout.notes, *notes))
            heap = walk(make_memory(), layout)
        except (LayoutError, UnreadableMemory) as error:
            refused = refused or error
            notes.append(f"{candidate.how}: {error.message}")
            continue
        if _believed(heap):
            return heap
        count = len(heap.verification.mismatches)
        notes.append(f"{candidate.how}: {count} figures differ from jemalloc's own")
        if best is None or count < len(best.verification.mismatches):
            best = heap
    if best is not None:
        return best
    assert refused is not None
    raise refused


def _believed(heap: Heap) -> bool:
    if heap.layout.source == "dwarf":
        return True
    return heap.verification.status != "mismatch" and (heap.statistics or len(heap.slabs) > 0)


def find_heaps(target: Target, make_memory: MakeMemory) -> Tuple[List[Heap], List[DrainError]]:
    """The heaps of all jemallocs of the process, and why those left out are.

    Raises a named error where there is none that can be understood.
    """
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
