"""Two moments of a process, and more: what of it went, what stayed, what is new."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Iterator, List, Mapping, Optional, Tuple

from drain_gdb.analysis.account import OURS, PARTS
from drain_gdb.analysis.cohort import Fate, fates, summed
from drain_gdb.analysis.growth import GroupChange, growth, why_no_groups
from drain_gdb.analysis.moment import Moment
from drain_gdb.analysis.projection import Projection, Step, project
from drain_gdb.analysis.report import Account
from drain_gdb.analysis.verdict import waste_of
from drain_gdb.debuggee.sameness import Sameness, compare
from drain_gdb.errors import OtherProcess, UsageError

TOLD = {"allocated": ("live", "cached"), "free": ("drainable", "pinned_waste")}
"""Parts that statistics do not tell apart."""
RESIDENT, SIZE = "resident", "size"


@dataclass(frozen=True)
class ClassChange:
    """A size class; ``waste`` are bytes that hold no live (of statistics: allocated) region."""

    size: int
    slab_size: int
    fate: Fate
    waste_before: int
    waste_after: int


@dataclass(frozen=True)
class PartChange:
    """A part of the account, of all jemallocs; None where it is not known."""

    part: str
    before: Optional[int]
    after: Optional[int]

    @property
    def change(self) -> Optional[int]:
        """By how much it grew."""
        if self.before is None or self.after is None:
            return None
        return self.after - self.before


@dataclass(frozen=True)
class Point:
    """A moment beside the first.

    Attributes:
        seconds: since the first; None where not known.
        resident_bytes: RSS.
        live_bytes: of regions; of statistics None.
        fate: of the slabs of the first moment; None for the first itself.

    """

    name: str
    seconds: Optional[float]
    resident_bytes: Optional[int]
    live_bytes: Optional[int]
    waste_bytes: int
    slabs: int
    fate: Optional[Fate]


@dataclass(frozen=True)
class Diff:
    """The last moment against the first.

    Attributes:
        same: whether they are of one process; ``forced`` where that was not to matter.
        seconds: between them; None where not known.
        cohort: the slabs of the first moment.
        account: by resident bytes, or by size where residence is not known of both.
        trend: all moments.
        sound: whether the accounts of all hold, and nothing is missing.
        groups: of live regions, those that grew most first; None where they were not asked
            for, or are not known: ``why_no_groups`` then.

    """

    before: Moment
    after: Moment
    same: Sameness
    forced: bool
    seconds: Optional[float]
    cohort: Fate
    classes: Tuple[ClassChange, ...]
    account: Tuple[PartChange, ...]
    account_by: str
    trend: Tuple[Point, ...]
    projection: Projection
    sound: bool
    groups: Optional[Tuple[GroupChange, ...]] = None
    why_no_groups: Optional[str] = None


class Comparison:
    """Moments of one process, given one after the other; of those between little is kept.

    With ``who`` groups of live regions are compared, too.
    """

    def __init__(self, first: Moment, force: bool = False, who: bool = False) -> None:
        self._first = first
        self._last = first
        self._force = force
        self._who = who
        self._forced = False
        self._same = Sameness(True, "")
        self._fates: Mapping[int, Fate] = {}
        self._sound = first.sound
        self._trend = [_point(first, first, None)]

    def add(self, moment: Moment) -> None:
        """The next moment.

        Raises :class:`OtherProcess` where it is of another process and that is not to be
        forced, :class:`UsageError` where it lies before the one before.
        """
        same = _compared(self._first, moment)
        if same.same is False:
            if not self._force:
                raise OtherProcess(
                    f"{self._first.name} and {moment.name} are not of the same process: {same.why}",
                    "add --force to compare them all the same",
                )
            self._forced = True
        elif (_seconds(self._last, moment) or 0) < 0:
            raise UsageError(
                f"{moment.name} was taken before {self._last.name}", "give the earlier one first"
            )
        self._fates = fates(self._first, moment)
        self._same, self._last = same, moment
        self._sound = self._sound and moment.sound
        self._trend.append(_point(self._first, moment, summed(list(self._fates.values()))))

    def report(self, seconds: Optional[float] = None) -> Diff:
        """The last one against the first; ``seconds`` between them, where they do not say."""
        before, after = self._first, self._last
        if seconds is None:
            seconds = self._trend[-1].seconds
        classes = tuple(_classes(before, after, self._fates))
        by, account = _account(before.reports[0].account, after.reports[0].account)
        rates = [(each.waste_after, each.fate.slabs, each.fate.dsr) for each in classes]
        steps = [_step(point) for point in self._trend]
        return Diff(
            before=before,
            after=after,
            same=self._same,
            forced=self._forced,
            seconds=seconds,
            cohort=summed(list(self._fates.values())),
            classes=classes,
            account=tuple(account),
            account_by=by,
            trend=tuple(self._trend),
            projection=project(rates, seconds, steps),
            sound=self._sound,
            groups=growth(before.pins, after.pins) if before.pins and after.pins else None,
            why_no_groups=_why_no_groups(before, after) if self._who else None,
        )


def _why_no_groups(before: Moment, after: Moment) -> Optional[str]:
    processes = [None if each.look is None else each.look.process for each in (before, after)]
    return next(filter(None, map(why_no_groups, processes)), None)


def _compared(first: Moment, moment: Moment) -> Sameness:
    if first.look is not None and moment.look is not None:
        return compare(first.look, moment.look)
    versions = [each.reports[0].allocator.version for each in (first, moment)]
    if None not in versions and versions[0] != versions[1]:
        return Sameness(False, f"their jemallocs are {versions[0]} and {versions[1]}")
    return Sameness(None, "")


def _seconds(first: Moment, moment: Moment) -> Optional[float]:
    """How much later ``moment`` is; None where not known."""
    if first.taken_at is None or moment.taken_at is None:
        return None
    return (moment.taken_at - first.taken_at).total_seconds()


def _point(first: Moment, moment: Moment, fate: Optional[Fate]) -> Point:
    account = moment.reports[0].account
    lives = [report.totals.live_bytes for report in moment.reports]
    return Point(
        name=moment.name,
        seconds=_seconds(first, moment),
        resident_bytes=None if account is None else account.resident_bytes,
        live_bytes=None if None in lives else sum(filter(None, lives)),
        waste_bytes=sum(waste_of(report.totals) for report in moment.reports),
        slabs=sum(report.totals.slabs for report in moment.reports),
        fate=fate,
    )


def _step(point: Point) -> Step:
    """A point of the trend; of the first moment itself nothing has drained."""
    if point.fate is None:
        return Step(point.seconds, 0.0)
    return Step(point.seconds, point.fate.dsr.value if point.fate.dsr else None)


def _classes(before: Moment, after: Moment, found: Mapping[int, Fate]) -> Iterator[ClassChange]:
    rows = before.rows(), after.rows()
    told = not before.heaps or not after.heaps
    for size, fate in found.items():
        known = [row for each in rows for row in each.get(size, ())]
        wastes = (
            sum(row.state.free_bytes if told else waste_of(row.state) for row in each.get(size, ()))
            for each in rows
        )
        if known:
            yield ClassChange(size, known[0].slab_size, fate, *wastes)


def _account(before: Optional[Account], after: Optional[Account]) -> Tuple[str, List[PartChange]]:
    """The parts at both moments, by what is resident or, where that is not known, by size."""
    if before is None or after is None:
        return SIZE, []
    known = before.resident_bytes is not None and after.resident_bytes is not None
    sums = [_sums(account, known) for account in (before, after)]
    if any(name in each for name in TOLD for each in sums):
        sums = [_told(each) for each in sums]
    sources = {account.source for account in (before, after)}
    # Statistics tell of jemalloc alone, and cores hold no files.
    of_all = () if "statistics" in sources else OURS if "core" in sources else PARTS
    return RESIDENT if known else SIZE, [
        PartChange(name, *(each.get(name, 0 if name in of_all else None) for each in sums))
        for name in (*TOLD, *PARTS)
        if name in sums[0] or name in sums[1]
    ]


def _sums(account: Account, resident: bool) -> Dict[str, Optional[int]]:
    """The parts by name, those of all jemallocs together."""
    found: Dict[str, Optional[int]] = {}
    for part in account.parts:
        held = part.resident_bytes if resident else part.bytes
        so_far = found.get(part.part, 0)
        found[part.part] = None if held is None or so_far is None else so_far + held
    return found


def _told(sums: Dict[str, Optional[int]]) -> Dict[str, Optional[int]]:
    """As much as statistics tell of each part."""
    found = dict(sums)
    for name, parts in TOLD.items():
        several = [found.pop(part) for part in parts if part in found]
        if several:
            found[name] = None if None in several else sum(filter(None, several))
    return found
