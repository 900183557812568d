"""The line that says what was recorded."""

from __future__ import annotations

from typing import Optional, Sequence

from drain_gdb.analysis.report import Sweep
from drain_gdb.analysis.statistics import SOURCE
from drain_gdb.render.style import Style, count, printable, size

GRAVITY = ("exact", "unavailable", "within", "mismatch")
STATUS = {
    "exact": "verified",
    "within": "verified nearly (read in motion)",
    "mismatch": "NOT VERIFIED",
    "unavailable": "not verifiable (no statistics)",
}
TOLD = "not verifiable (jemalloc's own figures, nothing was walked)"


def line(
    reports: Sequence[Sweep],
    path: str,
    stored: int,
    copied: float,
    stopped: Optional[float],
    style: Style,
) -> str:
    """One line on a recording of ``stored`` bytes at ``path``, of one or more allocators.

    Of a live process it says for how many seconds it was ``stopped``, or, where it
    was stopped before, how many the copy took.
    """
    slabs = sum(report.totals.slabs for report in reports)
    partial = any(report.coverage.partial for report in reports)
    status = max((_status(report) for report in reports), key=GRAVITY.index)
    told = reports[0].process.source == SOURCE and status == "unavailable"
    parts = [
        f"{printable(path)}: {size(stored)} for {count(slabs)} slab{'' if slabs == 1 else 's'}",
        TOLD if told else STATUS[status],
    ]
    if partial:
        parts.append("PARTIAL: not all of the metadata could be read")
    if stopped is not None:
        parts.append(f"the process was stopped for {stopped:.{2 if stopped >= 0.1 else 3}f} s")
    elif reports[0].process.in_motion is not None:
        parts.append(f"the copy took {copied:.2f} s, the process was not stopped")
    elif reports[0].process.source == "live":
        parts.append(f"the copy took {copied:.2f} s, the process is still stopped")
    paint = {"exact": style.good, "mismatch": style.bad}.get(status, style.warn)
    return (style.bad if partial else paint)("; ".join(parts)) + "\n"


def _status(report: Sweep) -> str:
    within = report.tolerance is not None and report.tolerance.within
    status = report.verification.status
    return "within" if status == "mismatch" and within else status
