"""Figures in words: the one way that amounts are written, in reports and in evidence."""

from __future__ import annotations

from typing import Optional, Sequence

MOST_ABOVE = 0.5
SOME_FROM = 0.1


def size(value: Optional[int]) -> str:
    """Bytes for people, exact to a hundredth at least: ``54.2 MiB``; ``-`` where unknown."""
    if value is None:
        return "-"
    if value < 1024:
        return f"{value} B"
    units = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = 1
    while power < len(units) and round(value / 1024**power, 1) >= 1024:
        power += 1
    number = value / 1024**power
    fine = units[power - 1] not in ("KiB", "MiB") and number < 10
    return f"{number:.{2 if fine else 1}f} {units[power - 1]}"


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


def whole_percent(value: float) -> str:
    """A share that is only roughly of interest: ``97 %``, ``<1 %``, ``>99 %``."""
    if 0 < value < 0.005 or 0.995 <= value < 1:
        return "<1 %" if value < 0.5 else ">99 %"
    return f"{100 * value:.0f} %"


def amount(share: float) -> str:
    """How much a share of something is: ``most``, ``some`` or ``little`` of it."""
    if share > MOST_ABOVE:
        return "most"
    return "some" if share >= SOME_FROM else "little"


def many(number: Optional[int], noun: str) -> str:
    """``1 slab``, ``2 slabs``; ``slabs`` where it is not known how many."""
    if number is None:
        return f"{noun}s"
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def seconds(value: float) -> str:
    """A span of time, roughly: ``0.5 s``, ``15 s``, ``12 minutes``, ``3 hours``, ``9 days``."""
    if value < 120:
        return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s".replace(".0 ", " ")
    if value < 2 * 86400:
        return f"{value / 60:.0f} minutes" if value < 7200 else f"{value / 3600:.0f} hours"
    return f"{value / 86400:.0f} days"
