"""Where the marks of a page's charts lie; what they stand for is in the reports."""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Sequence, Tuple

from drain_gdb.analysis.account import OURS
from drain_gdb.analysis.causes import weight
from drain_gdb.analysis.diff import Diff, PartChange
from drain_gdb.analysis.packing import Step
from drain_gdb.analysis.ranges import Range
from drain_gdb.analysis.report import Account
from drain_gdb.render.screen import summed
from drain_gdb.words import size

HELD = ("live", "large", "allocated")
SPARE = ("cached", "drainable", "pinned_waste", "large_cached", "dirty", "muzzy", "free")
"""What the program holds, and what it has freed."""
WIDTH, HEIGHT = 460.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 70.0, 16.0, 12.0, 40.0
"""Of the curve, and what its axes take of it."""


class Bar(NamedTuple):
    """A step of the waterfall: where it begins and how long it is, as shares of the whole."""

    name: str
    bytes: int
    start: float
    share: float
    group: str


def waterfall(account: Account) -> List[Bar]:
    """The parts, each beginning where the one before ends; the last ends at RSS."""
    whole = weight(account) or 1
    bars: List[Bar] = []
    before = 0
    for part in summed(account):
        share = part.bytes / whole
        bars.append(Bar(part.name, part.bytes, before / whole, share, _group(part.part)))
        before += part.bytes
    return bars


def _group(part: str) -> str:
    """``held``, ``spare``, ``own`` (else jemalloc's) or ``other``."""
    if part in HELD:
        return "held"
    if part in SPARE:
        return "spare"
    return "own" if part in OURS else "other"


class Tick(NamedTuple):
    """A mark of an axis: where, and what it says."""

    at: float
    text: str


class Curve(NamedTuple):
    """A line of points, and its axes."""

    points: Tuple[Tuple[float, float], ...]
    across: Tuple[Tick, ...]
    up: Tuple[Tick, ...]


def curve(steps: Sequence[Step]) -> Optional[Curve]:
    """Bytes freed over bytes moved; None where nothing is to be moved."""
    moved = [0, *(step.bytes_moved for step in steps)]
    freed = [0, *(step.bytes_freed for step in steps)]
    if not moved[-1] or not freed[-1]:
        return None
    across, up = _ticks(moved[-1]), _ticks(freed[-1])

    def x(value: int) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * value / across[-1], 1)

    def y(value: int) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / up[-1], 1)

    return Curve(
        tuple(zip(map(x, moved), map(y, freed))),
        tuple(Tick(x(value), size(value)) for value in across),
        tuple(Tick(y(value), size(value)) for value in up),
    )


def _ticks(most: int) -> List[int]:
    """Round figures from 0 to the first that is not below ``most``, three to five steps."""
    unit = 1
    while unit * 1024 <= most:
        unit *= 1024
    steps = (unit * each // 10 for each in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000))
    step = next(each for each in steps if each and most <= 5 * each)
    return [n * step for n in range(-(-most // step) + 1)]


def columns(histogram: Sequence[int]) -> List[Tuple[int, float]]:
    """Where each tenth of a histogram stands, and its height, 1 at the most, never 0 if > 0."""
    top = max(histogram, default=0)
    return [(n, max(count / top, 0.08)) for n, count in enumerate(histogram) if count]


class Span(NamedTuple):
    """A figure and its bounds as shares of a whole."""

    low: float
    value: float
    high: float


def span(figure: Optional[Range], whole: int) -> Optional[Span]:
    """Where ``figure`` lies; None where there is nothing to draw."""
    if figure is None or not figure.high or not whole:
        return None
    return Span(*(min(1.0, each / whole) for each in (figure.low, figure.value, figure.high)))


class Change(NamedTuple):
    """A part before and after; its bar as shares of the largest of all."""

    part: PartChange
    before: float
    after: float


def changes(report: Diff) -> List[Change]:
    """The parts that there are, those that changed most first."""
    most = max((max(p.before or 0, p.after or 0) for p in report.account), default=0) or 1
    there = [part for part in report.account if part.before or part.after]
    there.sort(key=lambda part: abs(part.change or 0), reverse=True)
    return [Change(p, (p.before or 0) / most, (p.after or 0) / most) for p in there]
