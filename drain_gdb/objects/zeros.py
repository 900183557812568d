"""Regions in which there is nothing but zeros."""

from __future__ import annotations

from typing import Iterable, Optional, Sequence, Tuple

from drain_gdb.objects.recogniser import LARGE_LOOK, STRUCTURE, Contents, Kind, Region

NOTHING = bytes(LARGE_LOOK)
WHOLE, BEGINNING = "zeros", f"zeros in the first {LARGE_LOOK >> 10} KiB"


class Zeros:
    """What was allocated and not used, or wiped."""

    name = "zeros"
    keys: Sequence[int] = ()

    def __init__(self, contents: Contents) -> None:
        del contents

    def applies(self) -> bool:
        """In every program."""
        return True

    def by_word(self, index: int, word: int, size: int) -> Optional[Kind]:
        """Nothing: one zero is not all."""
        del index, word, size
        return None

    def recognise(self, region: Region) -> Optional[Kind]:
        """Whether all that is looked at is zero."""
        data = region.data
        if data[0] or data != NOTHING[: len(data)]:
            return None
        return Kind(WHOLE if len(data) == region.size else BEGINNING, self.name, STRUCTURE)

    def holds(self, region: Region, kind: Kind) -> Iterable[Tuple[int, Kind]]:
        """Nothing."""
        del region, kind
        return ()
