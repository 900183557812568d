"""What the place a report is written to can show."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from drain_gdb.render.libraries import coloured
from drain_gdb.words import count, percent, size

__all__ = ["BLOCKS", "SCREEN", "WIDTH", "Style", "count", "percent", "printable", "size", "wrap"]
WIDTH = 100
SCREEN = 80
"""Columns of a report, and of what comes first in it."""
BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII_BLOCKS = " .:-=+*#@"


@dataclass(frozen=True)
class Style:
    """Colour for terminals that want it, block characters where they can be shown."""

    colour: bool = False
    unicode: bool = True

    def _paint(self, name: str, text: str) -> str:
        return coloured(name, text) if self.colour else text

    def strong(self, text: str) -> str:
        """A heading."""
        return self._paint("bold", text)

    def good(self, text: str) -> str:
        """Something proven."""
        return self._paint("green", text)

    def bad(self, text: str) -> str:
        """Something wrong."""
        return self._paint("red", text)

    def warn(self, text: str) -> str:
        """Something to know."""
        return self._paint("yellow", text)

    def histogram(self, counts: tuple[int, ...]) -> str:
        """One character a bucket, its height by the largest one; never blank if > 0."""
        blocks = BLOCKS if self.unicode else ASCII_BLOCKS
        top = max(counts, default=0)
        steps = len(blocks) - 1
        return "".join(blocks[-(-n * steps // top)] if n else " " for n in counts)

    def bar(self, share: float, width: int) -> str:
        """A bar of ``width`` characters at 1.0; at least one character if > 0."""
        full = "█" if self.unicode else "#"
        return full * max(1 if share > 0 else 0, round(share * width))


def printable(text: str) -> str:
    """``text`` with everything that could steer a terminal escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def wrap(text: str, indent: str = "", width: int = WIDTH) -> str:
    """``text``, as it may be printed, in lines of ``width``; those after the first indented."""
    return textwrap.fill(
        printable(text),
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
