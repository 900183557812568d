"""When half of the waste of today will be gone, if all goes on as it went.

Two moments tell a rate from nothing else: one event between them looks the same.  With more, each
step from one to the next has to drain what the rate over all of them says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, NamedTuple, Optional, Sequence, Tuple

from drain_gdb.analysis.ranges import Share

HELD = (
    "the slabs of a size class go on draining as those of the first moment did, each with the same"
    " chance in every second, none is filled again, and a class that had no slabs then stays as"
    " it is"
)
OF_TWO = (
    f"this rate held: {HELD}. Two moments tell no rate from one event between them, which would"
    " look the same: a third moment does"
)
OF_MORE = f"the rate of all {{}} steps from moment to moment, which agree, holds: {HELD}"
UNSTEADY = (
    "no steady rate: {} of the first moment's slabs drained in step {} of {} from moment to moment,"
    " and {} would have at the rate over all of them"
)
NO_STEPS = (
    "it is not known of every moment when it was and what had drained, so not whether the rate is"
    " steady; of two moments, with --seconds N, there is one that assumes it"
)
NO_COHORT = "sums alone are known, and not which slabs drained"
FACTOR = 2
"""A step agrees that drained so many times what the rate says, or that part of it."""
DEVIATIONS = 3
"""So far, in standard deviations of slabs that drain by chance, any step may be off."""
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
        steady: whether each step drained at the same rate; None where that is not known, as of
            two moments, which have but one step.

    """

    half_life_seconds: Optional[float]
    earliest_seconds: Optional[float]
    latest_seconds: Optional[float]
    known: bool
    assumes: str
    steady: Optional[bool] = None


class Step(NamedTuple):
    """A moment in a trend: how long after the first, and the cohort DSR of all slabs then."""

    seconds: Optional[float]
    dsr: Optional[float]


def project(
    classes: Sequence[Tuple[int, int, Optional[Share]]],
    seconds: Optional[float],
    trend: Sequence[Step] = (),
) -> Projection:
    """Of each size class the waste in bytes, the slabs of its cohort, and their cohort DSR.

    ``seconds`` lie between the moments that this is of; ``trend`` has all of them, the first one,
    too, where there are more than two.
    """
    if not any(waste for waste, _, _ in classes):
        return _unknown("there is no waste")
    slabs = sum(slabs for _, slabs, _ in classes)
    if slabs and all(dsr is None for _, _, dsr in classes):
        return _unknown(NO_COHORT)
    if not seconds:
        return _unknown(UNTIMED)
    assumes, steady = OF_TWO, None
    if len(trend) > 2:
        known = [(s.seconds, s.dsr) for s in trend if s.seconds is not None and s.dsr is not None]
        if len(known) < len(trend):
            return _unknown(NO_STEPS)
        why = _unsteady(slabs, known)
        if why is not None:
            return _unknown(why, False)
        assumes, steady = OF_MORE.format(len(trend) - 1), True

    def half_life(which: Callable[[Share], float]) -> Optional[float]:
        rates = [
            (waste, 0.0 if dsr is None else _rate(which(dsr), slabs, seconds))
            for waste, slabs, dsr in classes
        ]
        return _half(rates)

    value, early, late = (half_life(each) for each in (_value, _high, _low))
    return Projection(value, early, late, True, assumes, steady)


def _unknown(why: str, steady: Optional[bool] = None) -> Projection:
    return Projection(None, None, None, False, why, steady)


def _unsteady(slabs: int, trend: Sequence[Tuple[float, float]]) -> Optional[str]:
    """The step that drained at another rate than all together; None where none did.

    ``trend`` has seconds and cohort DSR of each moment, of ``slabs``.
    """
    whole, dsr = trend[-1]
    rate = _rate(dsr, slabs, whole) if whole else 0.0
    for number, ((since, before), (until, after)) in enumerate(zip(trend, trend[1:]), 1):
        drained = slabs * (after - before)
        told = slabs * (1 - before) * -math.expm1(-rate * (until - since))
        near = abs(drained - told) <= DEVIATIONS * math.sqrt(told)
        if not near and not told / FACTOR <= drained <= told * FACTOR:
            said = f"{drained:,.0f}", number, len(trend) - 1, f"{told:,.0f}"
            return UNSTEADY.format(*said)
    return None


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
