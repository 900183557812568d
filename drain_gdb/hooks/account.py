"""The accounting: two moments of the heap, and what was counted between them.

What was counted is held against two independent sources: the change in live regions,
found by walking the heap at both moments, and the change in the allocator's own
counters.
"""

from __future__ import annotations

from collections import Counter as Tallies
from dataclasses import dataclass, replace
from typing import Iterable, Iterator, Mapping, Optional, Sequence, Set, Tuple, TypeVar

from drain_gdb.analysis.counters import ArenaAndClass, Passed, passed_by_bin, requests_by_bin
from drain_gdb.analysis.sweep import coverage_totals
from drain_gdb.debuggee.protocol import Process
from drain_gdb.hooks.counter import UNKNOWN, Tally
from drain_gdb.hooks.layers import ARENA, ENTRY, REQUESTS
from drain_gdb.hooks.points import ALLOCATIONS, FREES, Plan
from drain_gdb.jemalloc.heap import ACTIVE, Heap

EXACT, WITHIN, UNEQUAL, UNCHECKED = "exact", "within", "unequal", "unchecked"
"""Of a check: no difference; one that calls in flight explain; a larger one; not possible."""


NET = "allocations - frees"
OF_BINS = "regions out of bins - back into bins"
SMALL = "allocations, small ones"
BY_WALK = "live by the walk"
BY_WALK_REGIONS = "given out by slabs, by the walk"
BY_REQUESTS = "the allocator's own requests"
BY_BINS = "the bins' own counters"
CACHE_BIN_MAX = 200
"""TCACHE_NSLOTS_SMALL_MAX (tcache_types.h): regions that one refill or flush in flight may
move, by default."""


@dataclass(frozen=True)
class Moment:
    """A heap at a moment.

    Attributes:
        live: szind to allocations the application holds, large ones too.
        allocated: ``(arena, szind)`` to small regions that slabs have given out.
        caches: thread caches, each with a block of its own among the live ones.
        requests: ``(arena, szind)`` to requests so far, None if not counted.
        passed: ``(arena, szind)`` to regions that left and entered bins, ditto.
        inside: threads that stood inside the allocator.
        status: of the walk's own verification; ``partial`` if not all could be read.

    """

    live: Mapping[int, int]
    allocated: Mapping[ArenaAndClass, int]
    caches: int
    requests: Optional[Mapping[ArenaAndClass, int]]
    passed: Optional[Mapping[ArenaAndClass, Passed]]
    inside: int
    status: str
    partial: bool


def moment(heap: Heap, inside: int) -> Moment:
    """The moment at which ``heap`` was walked."""
    live: Tallies[int] = Tallies()
    allocated: Tallies[ArenaAndClass] = Tallies()
    for (kind, cached), number in heap.slabs.census.items():
        used = heap.bins[kind.szind].nregs - kind.nfree
        live[kind.szind] += number * (used - cached)
        allocated[kind.arena, kind.szind] += number * used
    for extent, (number, _) in heap.extents.sums.items():
        if extent.state == ACTIVE:
            live[extent.szind] += number
    cached_large = {r.pointer: r.szind for r in heap.tcaches.regions if r.szind >= len(heap.bins)}
    live.subtract(cached_large.values())
    return Moment(
        live=live,
        allocated=allocated,
        caches=len(heap.tcaches.descriptors),
        requests=requests_by_bin(heap),
        passed=passed_by_bin(heap),
        inside=inside,
        status=heap.verification.status,
        partial=coverage_totals(heap).partial,
    )


@dataclass(frozen=True)
class ClassRow:
    """A size class in the window; changes are end less start, unknown is None.

    Attributes:
        size: bytes; None for calls whose class could not be read.
        resized: large allocations resized in place to this class, less those from it.
        live: change in allocations the application holds.
        regions: change in small regions that slabs have given out.
        requests: change in the allocator's own count of requests; small classes only.
        passed: change in the regions that left and entered the bins; small ones only.

    """

    index: int
    size: Optional[int]
    allocs: int
    frees: int
    resized: int
    live: Optional[int]
    regions: Optional[int]
    requests: Optional[int]
    passed: Optional[Passed]


@dataclass(frozen=True)
class ThreadRow:
    """A thread: its id, its name if it is still there, what it did."""

    thread: int
    name: Optional[str]
    allocs: int
    frees: int


@dataclass(frozen=True)
class ArenaRow:
    """An arena: changes in its own counters and in what its slabs have given out."""

    arena: int
    requests: Optional[int]
    passed: Optional[Passed]
    regions: int


@dataclass(frozen=True)
class Check:
    """A figure that was counted and the one it ought to equal.

    Attributes:
        name: what is compared.
        source: where the independent figure comes from.
        of: how many calls or regions both speak of, which ``variance`` relates to.
        allowed: the difference that calls in flight explain.
        complete: whether the layer counts all that the other source does.

    """

    name: str
    source: str
    counted: int
    independent: Optional[int]
    of: int
    allowed: int
    complete: bool

    @property
    def difference(self) -> Optional[int]:
        """Counted less independent."""
        return None if self.independent is None else self.counted - self.independent

    @property
    def share(self) -> Optional[float]:
        """Of an incomplete layer, how much of what is there it counted; None if unknown."""
        if self.complete or not self.independent or self.name != SMALL:
            return None
        return self.counted / self.independent

    @property
    def variance(self) -> Optional[float]:
        """The difference as a fraction of all that was counted; None if incomplete."""
        if self.difference is None or not self.complete:
            return None
        return abs(self.difference) / self.of if self.of else float(bool(self.difference))

    @property
    def status(self) -> str:
        """EXACT, WITHIN, UNEQUAL or UNCHECKED."""
        if self.difference is None or not self.complete:
            return UNCHECKED
        if not self.difference:
            return EXACT
        return WITHIN if abs(self.difference) <= self.allowed else UNEQUAL


@dataclass(frozen=True)
class Hits:
    """What the hooks themselves did.

    Attributes:
        functions: names of those counted, to the calls of each.
        hits: stops, those at returns too.
        price: seconds that a hit takes, None while too few were measured.
        tally: the rest of what was counted.
        slabs_gone: of the slabs that frees fell in, those released by the end.

    """

    functions: Mapping[str, int]
    hits: int
    price: Optional[float]
    tally: Tally
    slabs_gone: Optional[int]


@dataclass(frozen=True)
class Window:
    """What is known of a count besides the numbers.

    Attributes:
        plan: what was hooked, None without hooks.
        size: the one size class in bytes, None for all.
        seconds: how long it lasted.
        ended: why it ended, None while it goes on.
    """

    process: Process
    module: str
    version: Optional[str]
    layer: str
    plan: Optional[Plan]
    size: Optional[int]
    seconds: float
    ended: Optional[str]


@dataclass(frozen=True)
class Count:
    """The report of a count.

    Attributes:
        end: None where the heap could not be walked at the end.
        hits: None without hooks.
        caches: change in the number of thread caches, whose blocks are among the live.

    """

    window: Window
    start: Moment
    end: Optional[Moment]
    hits: Optional[Hits]
    classes: Tuple[ClassRow, ...]
    threads: Tuple[ThreadRow, ...]
    arenas: Tuple[ArenaRow, ...]
    caches: int
    checks: Tuple[Check, ...]

    @property
    def only(self) -> Optional[str]:
        """The one side that was counted, None if both were."""
        return None if self.window.plan is None else self.window.plan.only

    @property
    def allocs(self) -> int:
        """All allocations counted."""
        return sum(row.allocs for row in self.classes)

    @property
    def frees(self) -> int:
        """All frees counted."""
        return sum(row.frees for row in self.classes)


def count(
    window: Window,
    start: Moment,
    end: Optional[Moment],
    hits: Optional[Hits],
    threads: Mapping[int, Optional[str]],
    sizes: Sequence[int],
    nbins: int,
) -> Count:
    """The report of what happened from ``start`` to ``end``.

    ``sizes`` are the bytes of each size class, the first ``nbins`` of them small;
    ``threads`` the names of those that are there.
    """
    change = _Change(start, end, nbins)
    tally = Tally() if hits is None else hits.tally
    known = {key[1] for key in (*tally.allocs, *tally.frees)}
    known |= {szind for pair in tally.resized for szind in pair}
    rows = [_row(szind, tally, change, sizes) for szind in sorted(known | change.classes())]
    rows = [row for row in rows if window.size in (None, row.size)]
    if window.layer == REQUESTS:
        rows = [_by_requests(row) for row in rows if row.index < nbins]
    report = Count(
        window=window,
        start=start,
        end=end,
        hits=hits,
        classes=tuple(rows),
        threads=tuple(_threads(tally, threads)),
        arenas=tuple(change.arenas()),
        caches=0 if end is None else end.caches - start.caches,
        checks=(),
    )
    return replace(report, checks=tuple(_checks(report, nbins)))


class _Change:
    """What changed from one moment to another; unknown is None."""

    def __init__(self, start: Moment, end: Optional[Moment], nbins: int) -> None:
        self._nbins = nbins
        self._known = end is not None
        end = end or start
        self._live = _difference(end.live, start.live)
        self._regions = _difference(end.allocated, start.allocated)
        self._requests: Optional[Tallies[ArenaAndClass]] = None
        if start.requests is not None and end.requests is not None:
            self._requests = _difference(end.requests, start.requests)
        self._passed: Optional[Tuple[Tallies[ArenaAndClass], Tallies[ArenaAndClass]]] = None
        if start.passed is not None and end.passed is not None:
            left, entered = (
                _difference(
                    {key: pair[side] for key, pair in end.passed.items()},
                    {key: pair[side] for key, pair in start.passed.items()},
                )
                for side in (0, 1)
            )
            self._passed = left, entered

    def classes(self) -> Set[int]:
        """The size classes in which anything changed."""
        figures = [self._regions, self._requests or {}, *(self._passed or ())]
        found = {szind for szind, number in self._live.items() if number}
        return found | {key[1] for each in figures for key, number in each.items() if number}

    def live(self, szind: int) -> Optional[int]:
        """Allocations the application holds."""
        return self._live[szind] if self._known else None

    def regions(self, szind: int) -> Optional[int]:
        """Small regions that slabs have given out."""
        return _sum(self._regions, 1, szind) if self._speaks_of(szind) else None

    def requests(self, szind: int) -> Optional[int]:
        """Requests by the allocator's own count, small ones alone."""
        if self._requests is None or not self._speaks_of(szind):
            return None
        return _sum(self._requests, 1, szind)

    def passed(self, szind: int) -> Optional[Passed]:
        """Small regions that left and entered the bins."""
        if self._passed is None or not self._speaks_of(szind):
            return None
        return Passed(*(_sum(figures, 1, szind) for figures in self._passed))

    def arenas(self) -> Iterator[ArenaRow]:
        """Each arena that something happened in."""
        figures = [self._regions, self._requests or {}, *(self._passed or ())]
        touched = {key[0] for each in figures for key, number in each.items() if number}
        for arena in sorted(touched):
            requests = None if self._requests is None else _sum(self._requests, 0, arena)
            passed = None
            if self._passed is not None:
                passed = Passed(*(_sum(each, 0, arena) for each in self._passed))
            yield ArenaRow(arena, requests, passed, _sum(self._regions, 0, arena))

    def _speaks_of(self, szind: int) -> bool:
        return self._known and 0 <= szind < self._nbins


Key = TypeVar("Key", int, ArenaAndClass)


def _difference(end: Mapping[Key, int], start: Mapping[Key, int]) -> Tallies[Key]:
    """What changed, the unchanged left out."""
    found = Tallies(end)
    found.subtract(start)
    return Tallies({key: number for key, number in found.items() if number})


def _sum(figures: Mapping[ArenaAndClass, int], place: int, of: int) -> int:
    return sum(number for key, number in figures.items() if key[place] == of)


def _row(szind: int, tally: Tally, change: _Change, sizes: Sequence[int]) -> ClassRow:
    return ClassRow(
        index=szind,
        size=None if szind == UNKNOWN else sizes[szind],
        allocs=sum(n for key, n in tally.allocs.items() if key[1] == szind),
        frees=sum(n for key, n in tally.frees.items() if key[1] == szind),
        resized=sum(
            n * ((after == szind) - (before == szind))
            for (before, after), n in tally.resized.items()
        ),
        live=change.live(szind),
        regions=change.regions(szind),
        requests=change.requests(szind),
        passed=change.passed(szind),
    )


def _by_requests(row: ClassRow) -> ClassRow:
    """The row where nothing but requests was counted: what is not live any more was freed."""
    if row.requests is None or row.live is None:
        return row
    return replace(row, allocs=row.requests, frees=row.requests - row.live)


def _threads(tally: Tally, names: Mapping[int, Optional[str]]) -> Iterator[ThreadRow]:
    for thread in sorted({key[0] for key in (*tally.allocs, *tally.frees)}):
        allocs, frees = (
            sum(n for key, n in tallies.items() if key[0] == thread)
            for tallies in (tally.allocs, tally.frees)
        )
        yield ThreadRow(thread, names.get(thread), allocs, frees)


def _checks(report: Count, nbins: int) -> Iterator[Check]:
    layer, rows = report.window.layer, report.classes
    allowed = report.start.inside + (0 if report.end is None else report.end.inside)
    net = report.allocs - report.frees + sum(row.resized for row in rows)
    small = [row for row in rows if 0 <= row.index < nbins]
    regions = _total(report, (row.regions for row in small))
    left, entered = (
        _total(report, (None if row.passed is None else row.passed[side] for row in small))
        for side in (0, 1)
    )
    if layer == REQUESTS:
        if left is not None and entered is not None:
            yield Check(OF_BINS, BY_WALK_REGIONS, left - entered, regions, left + entered, 0, True)
        return
    whole = report.only is None
    readable = report.hits is None or not report.hits.tally.unread
    if layer == ARENA:
        allowed *= CACHE_BIN_MAX
        both = report.allocs + report.frees
        complete = whole and readable
        yield Check(NET, BY_WALK_REGIONS, net, regions, both, allowed, complete)
        counted = {ALLOCATIONS: (report.allocs, left), FREES: (report.frees, entered)}
        for side, (figure, independent) in counted.items():
            if report.only in (None, side):
                yield Check(side, BY_BINS, figure, independent, figure, allowed, readable)
        return
    live = _total(report, (row.live for row in rows))
    if live is not None and report.window.size is None:
        live -= report.caches
    complete = whole and layer == ENTRY
    yield Check(NET, BY_WALK, net, live, report.allocs + report.frees, allowed, complete)
    if report.only != FREES:
        figure = sum(row.allocs for row in small)
        requests = _total(report, (row.requests for row in small))
        complete = layer == ENTRY and readable
        yield Check(SMALL, BY_REQUESTS, figure, requests, figure, allowed, complete)


def _total(report: Count, figures: Iterable[Optional[int]]) -> Optional[int]:
    """The sum; None where one of them, or the end, is not known."""
    known = list(figures)
    if report.end is None or None in known:
        return None
    return sum(figure for figure in known if figure is not None)
