"""What a page is made of: all that is read of a process, before it may run on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import List, Mapping, Optional, Tuple

from drain_gdb.analysis.diff import Comparison, Diff
from drain_gdb.analysis.moment import Moment, moment_told
from drain_gdb.analysis.pins import Pins
from drain_gdb.analysis.plan import Plan, plan_told
from drain_gdb.analysis.report import Account, Selection, Sweep
from drain_gdb.analysis.statistics import sweep_statistics
from drain_gdb.debuggee.protocol import Process
from drain_gdb.jemalloc.statistics import Statistics
from drain_gdb.render.page.cells import Cells, cells_of
from drain_gdb.snapshot import Snapshot

CALLED = {"live": "now", "core": "this core", "recording": "this recording"}
"""The later one of two moments, by where it is read from."""
TOLD = "these statistics"


@dataclass(frozen=True)
class Earlier:
    """A moment before; without cells where statistics alone are known of it."""

    moment: Moment
    cells: List[Cells]


@dataclass(frozen=True)
class Content:
    """A process, and what there was before.

    Attributes:
        plans: of each jemalloc, with its sweep.
        cells: of each jemalloc; none where statistics alone are known, which have no addresses.
        pins: None where no layout fits, or nobody asked.
        refused: why jemallocs that are there are left out.

    """

    process: Process
    account: Account
    plans: List[Plan]
    cells: List[Cells]
    pins: Optional[Pins]
    refused: List[str]
    earlier: Optional[Earlier] = None
    diff: Optional[Diff] = None

    @property
    def sweeps(self) -> List[Sweep]:
        """The report of each jemalloc."""
        return [plan.sweep for plan in self.plans]


def earlier(snapshot: Snapshot, name: str) -> Earlier:
    """What a page keeps of a moment before, which is called ``name``."""
    return Earlier(snapshot.moment(name), _cells(snapshot, {}))


def content(snapshot: Snapshot, before: Optional[Earlier] = None, surveyed: bool = True) -> Content:
    """All that a page shows of a process; ``surveyed``: who pins what, too."""
    plans = snapshot.plans()
    surveyed = surveyed and all(plan.sweep.believed for plan in plans)
    diff = None
    if before is not None:
        diff = _compared(before, snapshot.moment(CALLED[snapshot.process.source]))
    return Content(
        process=snapshot.process,
        account=snapshot.account(),
        plans=plans,
        cells=_cells(snapshot, snapshot.pinners() if surveyed else {}),
        pins=snapshot.pins() if surveyed else None,
        refused=[str(error) for error in snapshot.refused],
        earlier=before,
        diff=diff,
    )


def content_told(statistics: Statistics, before: Optional[Earlier] = None) -> Content:
    """All that a page shows of a process of which statistics alone are known."""
    planned = plan_told(sweep_statistics(statistics, Selection("arena")))
    report = sweep_statistics(statistics, Selection())
    return Content(
        process=report.process,
        account=report.account or Account(None, None, ()),
        plans=[replace(planned, sweep=report)],
        cells=[],
        pins=None,
        refused=[],
        earlier=before,
        diff=None if before is None else _compared(before, moment_told(TOLD, statistics)),
    )


def _compared(before: Earlier, now: Moment) -> Diff:
    # Two processes may well be laid side by side: the page says that they are two.
    comparison = Comparison(before.moment, force=True)
    comparison.add(now)
    return comparison.report()


def _cells(snapshot: Snapshot, pinners: Mapping[int, Tuple[str, ...]]) -> List[Cells]:
    return [
        cells_of(view, heap.layout.parameters.page, pinners)
        for view, heap in zip(snapshot.heaps, snapshot.walked)
    ]
