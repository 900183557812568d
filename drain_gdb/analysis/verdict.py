"""What a sweep means: the rate weighed with the bytes behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from drain_gdb.analysis.report import BinRow, Sweep

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
            their way back), ``temporary``, ``mixed`` or ``structural``.
        footprint: bytes in slabs, large extents, unused pages and metadata.
        unused: dirty and muzzy bytes.
        drainable: bytes in drainable slabs.
        pinned_waste: bytes without a live region, in pinned slabs.
        worst: the size class with the most pinned waste.
        waste_small: whether the waste in slabs is too small to act on.

    """

    kind: str
    footprint: int
    unused: int
    waste: int
    drainable: int
    pinned_waste: int
    worst: Optional[BinRow]
    waste_small: bool


def pinned_waste(row: BinRow) -> int:
    """Bytes of a row that hold no live region and sit in pinned slabs."""
    return row.state.waste_bytes - row.state.drainable_bytes


def judge(report: Sweep) -> Verdict:
    """The verdict on ``report``."""
    totals, extents = report.totals, report.extents
    unused = extents.dirty_bytes + extents.muzzy_bytes
    metadata = extents.metadata_bytes or 0
    footprint = totals.slab_bytes + extents.large_bytes + unused + metadata + extents.pinned_bytes

    def small(size: int) -> bool:
        return size < WASTE_BYTES or size < WASTE_SHARE * footprint

    dsr = totals.dsr
    waste_small = small(totals.waste_bytes)
    if dsr is None:
        kind = "none"
    elif waste_small:
        kind = "nothing" if small(unused) else "unused"
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
        waste=totals.waste_bytes,
        drainable=totals.drainable_bytes,
        pinned_waste=totals.waste_bytes - totals.drainable_bytes,
        worst=max(report.bins, key=pinned_waste, default=None),
        waste_small=waste_small,
    )
