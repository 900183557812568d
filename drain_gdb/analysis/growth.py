"""Groups of live regions at two moments: which of them grew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional, Tuple

from drain_gdb.debuggee.protocol import Process

if TYPE_CHECKING:
    from drain_gdb.analysis.pins import Pins

RECORDING = "recording"
NO_CONTENTS = (
    "a recording holds jemalloc's metadata and no contents: what regions are and who owns them"
    " needs the process or its core"
)
NO_REGIONS = "statistics do not tell what regions are"


@dataclass(frozen=True)
class Held:
    """A group at one moment: its live regions, and what comes back if it alone went."""

    regions: int = 0
    live_bytes: int = 0
    alone_slabs: int = 0
    alone_bytes: int = 0


@dataclass(frozen=True)
class GroupChange:
    """A group, by what it is called, at the first and the last moment.

    One of one or two regions, which has no row of its own then, counts as none.
    """

    what: str
    before: Held
    after: Held

    @property
    def change(self) -> int:
        """By how many bytes it grew."""
        return self.after.live_bytes - self.before.live_bytes


def why_no_groups(process: Optional[Process]) -> Optional[str]:
    """Why groups of a moment cannot be known; None where they can. Statistics have no process."""
    if process is None:
        return NO_REGIONS
    return NO_CONTENTS if process.source == RECORDING else None


def growth(before: Pins, after: Pins) -> Tuple[GroupChange, ...]:
    """The groups, those that grew most first."""
    first, last = (
        {
            row.what: Held(row.regions, row.live_bytes, row.alone_slabs, row.alone_bytes)
            for row in found.groups
        }
        for found in (before, after)
    )
    found = [
        GroupChange(what, first.get(what, Held()), last.get(what, Held()))
        for what in {**first, **last}
    ]
    return tuple(sorted(found, key=lambda each: (-each.change, each.what)))
