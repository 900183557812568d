"""Figures that are not certain, with their bounds."""

from __future__ import annotations

from typing import Iterable, NamedTuple


class Range(NamedTuple):
    """A count and its bounds, equal three times where it is certain."""

    value: int
    low: int
    high: int


class Share(NamedTuple):
    """A fraction 0..1 and its bounds, equal three times where it is certain."""

    value: float
    low: float
    high: float


def exact(value: int) -> Range:
    """A figure that is certain."""
    return Range(value, value, value)


def total(ranges: Iterable[Range]) -> Range:
    """The sum of figures that know nothing of each other."""
    found = list(ranges)
    return Range(*map(sum, zip(*found))) if found else exact(0)
