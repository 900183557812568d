"""How survivors lie among the slabs of a class: clustered, at random, or evenly spread.

If regions are freed at random, the live ones of a slab are binomial: their variance over that
of a binomial, the dispersion, is 1.  Where what is freed together was allocated together it is
far above (slabs drain), where every second one is freed far below: the worst there is, for
then no slab ever drains.  Slabs that drained and were given back since the start count as
slabs of no survivors where the allocator has counted them (nslabs).  Full slabs that are few,
but too many for chance, are of other objects in the same class, and are left out.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

from drain_gdb.analysis.packing import Bin, merged

SLABS_MIN = 30
"""Fewer say nothing."""
SIGNIFICANT = 3.0
"""Standard deviations from 1."""
FEW, CHANCE = 0.1, 3
"""Full slabs are left out where they are at most this share, and over so many times, and so
many more, than chance would have."""
CHURNED = 4
"""Where a class has made so many times the slabs that it has, those that were given back are
of another time, and are left out."""


@dataclass(frozen=True)
class Scatter:
    """Of one size class, all arenas together.

    Attributes:
        slabs: that are there.
        drainable: of these, without a live region.
        released: given back since the start and counted as slabs of no survivors.
        full_left_out: full slabs of other objects.
        expected_if_random: slabs without a live region, of all of these, if as many
            regions were freed at random.
        dispersion: variance of the live regions of a slab over that of a binomial; None
            where there are too few slabs, or all are full or empty.
        z: its distance from 1 in standard deviations.

    """

    size: int
    slabs: int
    drainable: int
    released: int
    full_left_out: int
    expected_if_random: float
    dispersion: Optional[float]
    z: Optional[float]

    @property
    def word(self) -> Optional[str]:
        """``clustered``, ``random`` or ``evenly spread``; None where it cannot be told."""
        if self.z is None:
            return None
        if abs(self.z) < SIGNIFICANT:
            return "random"
        return "clustered" if self.z > 0 else "evenly spread"


def scatter(bins: Sequence[Bin]) -> Tuple[Scatter, ...]:
    """Of each size class whose slabs are known one by one, those with most waste first."""
    found = [_of(each) for each in merged(bins) if each.by_live is not None and each.slabs]
    waste = {
        each.size: each.slabs * each.slab_size - each.live * each.size for each in merged(bins)
    }
    return tuple(sorted(found, key=lambda each: waste[each.size], reverse=True))


def _of(each: Bin) -> Scatter:
    released = 0
    if each.made is not None and each.slabs <= each.made <= CHURNED * each.slabs:
        released = each.made - each.slabs
    counts = Counter(each.by_live or {})
    counts[0] += released
    full = _of_others(counts, each.nregs)
    counts[each.nregs] -= full
    number = sum(counts.values())
    mean = sum(live * n for live, n in counts.items()) / max(1, number)
    share = mean / each.nregs
    usual = each.nregs * share * (1 - share)
    dispersion = z = None
    if number >= SLABS_MIN and usual > 0:
        squares = sum(n * (live - mean) ** 2 for live, n in counts.items())
        dispersion = squares / (number - 1) / usual
        # (number - 1) times the dispersion is chi-squared with as many degrees of freedom.
        z = (dispersion - 1) * math.sqrt((number - 1) / 2)
    expected = number * (1 - share) ** each.nregs
    return Scatter(each.size, each.slabs, each.drainable, released, full, expected, dispersion, z)


def _of_others(counts: Counter[int], nregs: int) -> int:
    """How many full slabs are of another population than the rest."""
    full, number = counts[nregs], sum(counts.values())
    rest = number - full
    if not rest or full > FEW * number:
        return 0
    live = sum(live * n for live, n in counts.items()) - full * nregs
    expected = number * (live / rest / nregs) ** nregs
    return full if full > CHANCE * expected + CHANCE else 0
