"""What a sweep means: the rate weighed with the bytes behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from drain_gdb.analysis.report import BinRow, Occupancy, Sweep

TEMPORARY_ABOVE = 0.5
STRUCTURAL_BELOW = 0.2
"""The reading of the rate: above one half temporary, under one fifth structural."""
WASTE_SHARE = 0.1
WASTE_BYTES = 8 << 20
"""Waste under a tenth of the memory, or under 8 MiB, is not worth acting on."""


@dataclass(frozen=True)
class Verdict:
    """A judgement and the figures it rests on.

    Attributes:
        kind: ``none`` (no slabs), ``nothing`` (to reclaim), ``unused`` (pages on
            their way back), ``temporary``, ``mixed`` or ``structural``; ``unknown`` where
            live and cached regions are not told apart and the waste matters.
        footprint: bytes in slabs, large extents, unused pages and metadata.
        unused: dirty and muzzy bytes.
        drainable: bytes in drainable slabs.
        pinned_waste: bytes without a live region, in pinned slabs.
        worst: the size class with the most pinned waste.
        waste: without a live region, or, where these are not known, an allocated one.

    """

    kind: str
    footprint: int
    unused: int
    waste: int
    drainable: int
    pinned_waste: int
    worst: Optional[BinRow]


def waste_of(state: Occupancy) -> int:
    """Bytes without a live region; where these are not known, without an allocated one."""
    return state.free_bytes if state.waste_bytes is None else state.waste_bytes


def pinned_waste(row: BinRow) -> int:
    """Bytes of a row that hold no live region and sit in pinned slabs.

    Where drainable slabs are not known all slabs count as pinned.
    """
    return waste_of(row.state) - (row.state.drainable_bytes or 0)


def judge(report: Sweep) -> Verdict:
    """The verdict on ``report``."""
    totals, extents = report.totals, report.extents
    unused = (extents.dirty_bytes or 0) + (extents.muzzy_bytes or 0)
    others = (extents.large_bytes, extents.metadata_bytes, extents.pinned_bytes)
    footprint = totals.slab_bytes + unused + sum(size or 0 for size in others)

    def small(size: int) -> bool:
        return size < WASTE_BYTES or size < WASTE_SHARE * footprint

    dsr = totals.dsr
    waste = waste_of(totals)
    drainable = totals.drainable_bytes or 0
    if not totals.slabs:
        kind = "none"
    elif small(waste):
        kind = "nothing" if small(unused) else "unused"
    elif dsr is None:
        kind = "unknown"
    elif dsr > TEMPORARY_ABOVE:
        kind = "temporary"
    elif dsr < STRUCTURAL_BELOW:
        kind = "structural"
    else:
        kind = "mixed"
    return Verdict(
        kind=kind,
        footprint=footprint,
        unused=unused,
        waste=waste,
        drainable=drainable,
        pinned_waste=waste - drainable,
        worst=max(report.bins, key=pinned_waste, default=None),
    )
