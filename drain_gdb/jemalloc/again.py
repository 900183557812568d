"""The heaps of one process, walked again and again while it runs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, List, Optional, Sequence, Tuple

from drain_gdb.debuggee.motion import Buffers, Copy, MovingTarget, Stretch
from drain_gdb.debuggee.views import memory_of
from drain_gdb.errors import DrainError
from drain_gdb.jemalloc.extents import Memo
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.moving import walk_again
from drain_gdb.layout.records import Layout
from drain_gdb.memory import MakeMemory

if TYPE_CHECKING:  # its packages are not there in a debugger
    from drain_gdb.debuggee.procfs import ProcessTarget


class Repeated:
    """Walks the heaps of a process that runs on; how they are laid out is found once.

    Attributes:
        refused: why jemallocs that are there are not among the heaps.

    """

    def __init__(self, live: ProcessTarget) -> None:
        self._live = live
        self._layouts: List[Layout] = []
        self._memos: List[Memo] = []
        self._buffers = Buffers()
        self._copies: Tuple[Optional[Copy], ...] = ()
        self._wanted: Sequence[Stretch] = ()
        self.refused: Sequence[DrainError] = ()

    def walk(self) -> Tuple[MovingTarget, List[Heap]]:
        """The process as it is held until the next walk, and its heaps.

        Raises :class:`~drain_gdb.errors.ProcessEnded` and other named errors.
        """
        self._live.refresh()
        self._buffers.give([copy for copy in self._copies if copy is not None])
        target = MovingTarget(self._live, buffers=self._buffers)
        try:
            heaps = self._walk(target, partial(memory_of, target))
        except DrainError:
            # It may have ended in the midst of it: then that is why.
            self._live.refresh()
            raise
        # The next walk reads little else, so that it is copied beforehand.
        self._wanted = target.wanted
        self._copies = target.held, target.spare
        return target, heaps

    def _walk(self, target: MovingTarget, make_memory: MakeMemory) -> List[Heap]:
        if self._layouts:
            target.want(self._wanted)
            return walk_again(target, make_memory, self._layouts, self._memos)
        heaps, self.refused = find_heaps(target, make_memory)
        self._layouts = [heap.layout for heap in heaps]
        self._memos = [Memo() for _ in heaps]
        return heaps
