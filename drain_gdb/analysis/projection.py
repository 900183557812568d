"""When half of the waste of today will be gone, if all goes on as it went."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Optional, Sequence, Tuple

from drain_gdb.analysis.ranges import Share

ASSUMES = (
    "the slabs of a size class go on draining at the rate at which those of the first moment"
    " did, each with the same chance in every second, and none is filled again; a class that"
    " had no slabs then stays as it is"
)
UNTIMED = "it is not known how much time lies between the moments (--seconds N says it)"
HALF = 0.5
STEPS = 200
"""Halvings of an interval: more than a float has bits for."""
FAREST = 1e12
"""Seconds; what takes longer does not happen."""
Rates = Sequence[Tuple[int, float]]
"""Bytes of waste, and the share of it that goes in each second."""


@dataclass(frozen=True)
class Projection:
    """In how many seconds half of the waste is gone.

    Attributes:
        half_life_seconds: by the addresses; None for never, or where it is not known.
        earliest_seconds, latest_seconds: its bounds; None as before.
        known: whether anything can be said.
        assumes: what it rests on, in words; why nothing can be said.

    """

    half_life_seconds: Optional[float]
    earliest_seconds: Optional[float]
    latest_seconds: Optional[float]
    known: bool
    assumes: str


def project(
    classes: Sequence[Tuple[int, int, Optional[Share]]], seconds: Optional[float]
) -> Projection:
    """Of each size class the waste in bytes, the slabs of its cohort, and their cohort DSR.

    ``seconds`` lie between the moments that this is of.
    """
    if not seconds:
        return Projection(None, None, None, False, UNTIMED)
    if not any(waste for waste, _, _ in classes):
        return Projection(None, None, None, False, "there is no waste")

    def half_life(which: Callable[[Share], float]) -> Optional[float]:
        rates = [
            (waste, 0.0 if dsr is None else _rate(which(dsr), slabs, seconds))
            for waste, slabs, dsr in classes
        ]
        return _half(rates)

    value, early, late = (half_life(each) for each in (_value, _high, _low))
    return Projection(value, early, late, True, ASSUMES)


def _value(dsr: Share) -> float:
    return dsr.value


def _low(dsr: Share) -> float:
    return dsr.low


def _high(dsr: Share) -> float:
    return dsr.high


def _rate(dsr: float, slabs: int, seconds: float) -> float:
    """The chance in a second; where all went, as if one of twice as many had stayed."""
    left = max(1 - dsr, 1 / (2 * slabs))
    return -math.log(left) / seconds if dsr > 0 else 0.0


def _half(rates: Rates) -> Optional[float]:
    """When half of the bytes are gone; None for never."""
    whole = sum(waste for waste, _ in rates)

    def left(at: float) -> float:
        return sum(waste * math.exp(-rate * at) for waste, rate in rates)

    if left(FAREST) > HALF * whole:
        return None
    early, late = 0.0, FAREST
    for _ in range(STEPS):
        middle = (early + late) / 2
        early, late = (early, middle) if left(middle) <= HALF * whole else (middle, late)
    return late
