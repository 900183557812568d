"""The line that says what was recorded."""

from __future__ import annotations

from typing import Optional

from drain_gdb.analysis.report import Sweep
from drain_gdb.render.style import Style, count, printable, size

STATUS = {
    "exact": "verified",
    "mismatch": "NOT VERIFIED",
    "unavailable": "not verifiable (no statistics)",
}


def line(
    report: Sweep, path: str, stored: int, copied: float, stopped: Optional[float], style: Style
) -> str:
    """One line on a recording of ``stored`` bytes at ``path``.

    Of a live process it says for how many seconds it was ``stopped``, or, where it
    was stopped before, how many the copy took.
    """
    slabs = report.totals.slabs
    parts = [
        f"{printable(path)}: {size(stored)} for {count(slabs)} slab{'' if slabs == 1 else 's'}",
        STATUS[report.verification.status],
    ]
    if report.coverage.partial:
        parts.append("PARTIAL: not all of the metadata could be read")
    if stopped is not None:
        parts.append(f"the process was stopped for {stopped:.2f} s")
    elif report.process.source == "live":
        parts.append(f"the copy took {copied:.2f} s, the process is still stopped")
    fine = report.verification.status == "exact" and not report.coverage.partial
    paint = style.good if fine else style.bad
    if report.verification.status == "unavailable" and not report.coverage.partial:
        paint = style.warn
    return paint("; ".join(parts)) + "\n"
