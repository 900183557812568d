"""What a debugger's session keeps: its last report, and what people have chosen for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Dict, Optional, Sequence, Tuple

from drain_gdb.errors import TargetError

if TYPE_CHECKING:
    from drain_gdb.jemalloc.heap import Heap

KEPT_MAX = 1 << 22
"""Characters of a report that is kept to be shown again."""


@dataclass(frozen=True)
class Preferences:
    """What is to be as if it were given with every command.

    Attributes:
        directly: whether the process or core is read beside the debugger, not through it.
        top: rows shown of a table, None for what each command does by itself.
        colour: whether reports are coloured, None where the terminal decides.
        contents: whether what objects hold is shown.

    """

    directly: bool = False
    top: Optional[int] = None
    colour: Optional[bool] = None
    contents: bool = False

    @property
    def options(self) -> Dict[str, object]:
        """As defaults of options, for the commands that have these."""
        chosen = {"top": self.top, "contents": self.contents or None}
        return {name: value for name, value in chosen.items() if value is not None}


@dataclass
class Session:
    """What was last seen; for completion, and to be shown again.

    Attributes:
        arenas: the indices of the process's arenas.
        sizes: its size classes that have slabs, in bytes.

    """

    arenas: Sequence[int] = ()
    sizes: Sequence[int] = ()
    _report: Optional[Tuple[str, datetime, str]] = None

    def keep(self, command: str, report: str) -> None:
        """Keep what ``command`` has just shown."""
        text = report if len(report) <= KEPT_MAX else "(too long to be kept)\n"
        self._report = (command, datetime.now(), text)

    def met(self, heaps: Sequence[Heap]) -> None:
        """Note what there is to choose from."""
        self.arenas = sorted({arena.index for heap in heaps for arena in heap.arenas})
        self.sizes = sorted(
            {heap.bins[kind.szind].reg_size for heap in heaps for kind in heap.slabs.kinds}
        )

    def again(self) -> str:
        """The last report, below a line that says when it was made."""
        if self._report is None:
            raise TargetError("there is no report yet in this session", "make one: drainsweep")
        command, at, text = self._report
        return f"{command}, as it was at {at:%H:%M:%S} (nothing is read again)\n\n{text}"
