"""What the place a report is written to can show."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Optional

from pygments.console import colorize

WIDTH = 100
BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII_BLOCKS = " .:-=+*#@"


@dataclass(frozen=True)
class Style:
    """Colour for terminals that want it, block characters where they can be shown."""

    colour: bool = False
    unicode: bool = True

    def _paint(self, name: str, text: str) -> str:
        return str(colorize(name, text)) if self.colour else text

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


def size(value: Optional[int]) -> str:
    """Bytes for people: ``54.2 MiB``; ``-`` where unknown."""
    if value is None:
        return "-"
    if value < 1024:
        return f"{value} B"
    units = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = 1
    while power < len(units) and round(value / 1024**power, 1) >= 1024:
        power += 1
    return f"{value / 1024**power:.1f} {units[power - 1]}"


def count(value: Optional[int]) -> str:
    """A count with thousands apart; ``-`` where unknown."""
    return "-" if value is None else f"{value:,}"


def percent(value: Optional[float]) -> str:
    """A fraction as a percentage; ``-`` where there is none, never a rounded-away 0 or 100."""
    if value is None:
        return "-"
    if 0 < value < 0.0005:
        return "<0.1 %"
    if 0.9995 <= value < 1:
        return ">99.9 %"
    return f"{100 * value:.1f} %"


def printable(text: str) -> str:
    """``text`` with everything that could steer a terminal escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def wrap(text: str, indent: str = "") -> str:
    """``text``, as it may be printed, in lines of ``WIDTH``; those after the first indented."""
    return textwrap.fill(
        printable(text),
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
