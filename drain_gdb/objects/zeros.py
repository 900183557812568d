"""Regions in which there is nothing but zeros."""

from __future__ import annotations

from typing import Optional

from drain_gdb.objects.recogniser import LARGE_LOOK, STRUCTURE, Kind, Region, WholeRegions

NOTHING = bytes(LARGE_LOOK)
WHOLE, BEGINNING = "zeros", f"zeros in the first {LARGE_LOOK >> 10} KiB"


class Zeros(WholeRegions):
    """What was allocated and not used, or wiped."""

    name = "zeros"

    def recognise(self, region: Region) -> Optional[Kind]:
        """Whether all that is looked at is zero."""
        data = region.data
        if data[0] or data != NOTHING[: len(data)]:
            return None
        return Kind(WHOLE if len(data) == region.size else BEGINNING, self.name, STRUCTURE)
