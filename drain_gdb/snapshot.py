"""A process at one moment, and all that can be asked of it.

This is the Python interface (:func:`drain_gdb.open`, :func:`drain_gdb.current`), and what the
commands are made of.  What only some of its answers need is loaded for them: a sweep of a small
heap takes no longer than loading all of it would.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Sequence, Tuple, Type

from drain_gdb.analysis.account import Joined, join
from drain_gdb.analysis.account import account as account_of
from drain_gdb.analysis.causes import find_causes, least, telling
from drain_gdb.analysis.report import Account, Cause, Selection, Sweep
from drain_gdb.analysis.sweep import sweep as sweep_of
from drain_gdb.debuggee.protocol import Process, Target
from drain_gdb.debuggee.residence import Residence
from drain_gdb.debuggee.views import memory_of
from drain_gdb.errors import DrainError, UsageError
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.placed import Column, columns_of, residence_of
from drain_gdb.jemalloc.settings import settings_of
from drain_gdb.layout.records import Layout
from drain_gdb.memory import Memory, Progress

if TYPE_CHECKING:
    from drain_gdb.analysis.columns import ExtentColumns, SlabColumns
    from drain_gdb.analysis.holders import Request
    from drain_gdb.analysis.moment import Moment
    from drain_gdb.analysis.pins import Pins
    from drain_gdb.analysis.plan import Plan
    from drain_gdb.jemalloc.index import HeapIndex
    from drain_gdb.objects.address import Address, Places, SlabMap
    from drain_gdb.objects.single import Looker
    from drain_gdb.objects.survey import Survey


@dataclass(frozen=True)
class HeapView:
    """One jemalloc of a snapshot.

    Attributes:
        number: which one of the process's it is, from 0.
        module: path of the program or library that holds it.
        version: as it says it, None where it does not.
        verified: whether the walk equals its own statistics; None where it keeps none.

    """

    number: int
    module: str
    version: Optional[str]
    verified: Optional[bool]
    _heap: Heap

    @cached_property
    def slabs(self) -> SlabColumns:
        """Every slab."""
        from drain_gdb.analysis.columns import slab_columns

        return slab_columns(self._heap)

    @cached_property
    def extents(self) -> ExtentColumns:
        """Every extent that is no slab."""
        from drain_gdb.analysis.columns import extent_columns

        return extent_columns(self._heap)


class Snapshot:
    """A core, a recording, or a process that stands still.

    What is asked for is read when it is asked for, and remembered: nothing of it is newer
    than the moment of the snapshot.

    Attributes:
        target: what is read.
        refused: why jemallocs that are there are not among ``heaps``.

    """

    def __init__(
        self,
        target: Target,
        progress: Optional[Progress] = None,
        close: Callable[[], None] = lambda: None,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.target = target
        self._note = note
        self._progress = progress
        self._close = close

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the core or process."""
        self._close()

    def _memory(self) -> Memory:
        return memory_of(self.target, self._progress)

    @property
    def process(self) -> Process:
        """Who is being looked at."""
        return self.target.process()

    # -- walked -------------------------------------------------------------------

    @cached_property
    def _found(self) -> Tuple[List[Heap], List[DrainError]]:
        heaps, refused = find_heaps(self.target, self._memory)
        for error in refused:
            # Its frames would hold this snapshot, and with it all that was read.
            error.__traceback__ = error.__context__ = None
        return heaps, refused

    @property
    def walked(self) -> Sequence[Heap]:
        """The heaps as the walk has them."""
        return self._found[0]

    @property
    def refused(self) -> Sequence[DrainError]:
        """Why jemallocs that are there are not among the heaps."""
        return self._found[1]

    @cached_property
    def heaps(self) -> Tuple[HeapView, ...]:
        """Every jemalloc of the process; a named error where there is none."""
        proven = {"exact": True, "mismatch": False}
        return tuple(
            HeapView(
                number,
                heap.layout.module,
                heap.layout.version,
                proven.get(heap.verification.status),
                heap,
            )
            for number, heap in enumerate(self.walked)
        )

    @cached_property
    def columns(self) -> List[Column]:
        """All memory of the heaps."""
        return columns_of(self.walked)

    @cached_property
    def residence(self) -> Optional[Residence]:
        """What of the process is resident; None where that is not known."""
        return residence_of(self.target, self.columns)

    @cached_property
    def _joined(self) -> Joined:
        return join(self.columns, self.residence)

    @cached_property
    def _account(self) -> Account:
        return account_of(self._joined)

    def account(self) -> Account:
        """All resident memory of the process, in parts that add up to it."""
        return self._account

    def sweeps(
        self,
        selection: Selection = Selection(),  # noqa: B008 - it is frozen
        chosen: Optional[Sequence[int]] = None,
        every_cause: bool = True,
    ) -> List[Sweep]:
        """The report of each heap, or of those with the numbers ``chosen``.

        UsageError where ``selection`` names an arena or a size that is not there.
        """
        heaps, whole = self.walked, self.account()
        numbers = range(len(heaps)) if chosen is None else chosen
        left_out = [heap.layout.module for n, heap in enumerate(heaps) if n not in numbers]
        reports: Dict[int, Sweep] = {}
        for number in numbers:
            resident = partial(self._joined.large_resident, number)
            settings = settings_of(self.target, heaps[number])
            reports[number] = sweep_of(
                heaps[number], self.process, selection, left_out, whole, settings, resident
            )
        causes = self._causes(reports, every_cause) if selection.whole else ()
        return [replace(report, causes=causes) for report in reports.values()]

    @cached_property
    def _zeros(self) -> Optional[float]:
        """The share that holds but zeros of what lies on huge pages; None if little does."""
        whole, residence = self.account(), self.residence
        if residence is None or (whole.huge_bytes or 0) < least(whole):
            return None
        from drain_gdb.debuggee.zeros import zero_share

        return zero_share(self.target, residence)

    def _causes(self, reports: Dict[int, Sweep], every: bool) -> Tuple[Cause, ...]:
        whole = self.account()
        causes = find_causes(whole, reports, self._zeros)
        return causes if every else telling(whole, causes)

    def plans(self, chosen: Optional[Sequence[int]] = None, who: bool = False) -> List[Plan]:
        """What each remedy would give, for each heap or for those with the numbers ``chosen``.

        With ``who`` it is looked up who pins, of all heaps together; not in a recording.
        """
        from drain_gdb.analysis.granules import granules
        from drain_gdb.analysis.growth import why_no_groups
        from drain_gdb.analysis.packing import bins_of
        from drain_gdb.analysis.plan import plan

        reports = self.sweeps(chosen=chosen)
        found = self._who_pins if who and why_no_groups(self.process) is None else None
        numbers = range(len(self.walked)) if chosen is None else chosen
        return [
            plan(
                report,
                number,
                bins_of(self.walked[number]),
                self.account(),
                self._zeros,
                granules(self.walked[number]),
                found,
            )
            for report, number in zip(reports, numbers)
        ]

    def plan(self) -> Plan:
        """The plan of the one heap; UsageError where there are several (:meth:`plans`)."""
        self._require_one("plans")
        return self.plans()[0]

    def _require_one(self, several: str) -> None:
        if len(self.walked) > 1:
            raise UsageError(f"this process holds {len(self.walked)} jemallocs", f"use {several}()")

    def moment(
        self, name: str, chosen: Optional[Sequence[int]] = None, who: bool = False
    ) -> Moment:
        """What a comparison with another moment needs, read from what is called ``name``.

        With ``who`` it is looked up who owns live regions, as far as it can be known.
        """
        from drain_gdb.analysis.growth import why_no_groups
        from drain_gdb.analysis.moment import Moment, heap_moment
        from drain_gdb.debuggee.sameness import Look, identity_of

        who = who and why_no_groups(self.process) is None
        heaps = self.walked
        numbers = range(len(heaps)) if chosen is None else chosen
        roots = tuple(heaps[number].layout.rtree.root for number in numbers)
        modules = [heaps[number].layout.module for number in numbers]
        return Moment(
            name=name,
            look=Look(self.process, identity_of(self.target, modules, roots[0]), roots),
            heaps=tuple(heap_moment(heaps[number]) for number in numbers),
            reports=tuple(self.sweeps(chosen=chosen)),
            pins=self._who_lives if who else None,
        )

    def sweep(self, selection: Selection = Selection()) -> Sweep:  # noqa: B008 - it is frozen
        """The report of the one heap; UsageError where there are several (:meth:`sweeps`)."""
        self._require_one("sweeps")
        return self.sweeps(selection)[0]

    # -- surveyed -----------------------------------------------------------------

    @cached_property
    def survey(self) -> Survey:
        """The live regions: what they are and who owns them."""
        from drain_gdb.objects.survey import Survey

        return Survey(
            self.target, self.walked, self._memory, self.columns, self.residence, self._note
        )

    def pins(self, request: Optional[Request] = None) -> Pins:
        """Who pins the slabs, and what would come back if one of them went."""
        from drain_gdb.analysis.holders import Request, pins

        return pins(self.survey, self.process, self.walked, request or Request())

    def with_who(self, reports: Sequence[Sweep]) -> List[Sweep]:
        """``reports`` whose causes say who holds what pinned slabs hold, of all :meth:`pins`."""
        from drain_gdb.analysis.pins import with_who

        found = self._who_pins
        return [replace(report, causes=with_who(report.causes, found)) for report in reports]

    @property
    def _who_lives(self) -> Pins:
        """Of all live regions."""
        from drain_gdb.analysis.holders import Request

        return self.pins(Request(whole=True))

    @property
    def _who_pins(self) -> Pins:
        """Of all slabs that have room."""
        from drain_gdb.analysis.holders import WHO_PINS

        return self.pins(WHO_PINS)

    def pinners(self) -> Dict[int, Tuple[str, ...]]:
        """By the address of a slab who pins it: groups, those of most regions first."""
        from drain_gdb.analysis.holders import pinners

        return pinners(self.survey, self.process)

    # -- looked up ----------------------------------------------------------------

    @cached_property
    def indices(self) -> List[HeapIndex]:
        """Each jemalloc, to be asked for single addresses; without a walk where that will do."""
        from drain_gdb.jemalloc.index import HeapIndex, find_index
        from drain_gdb.layout.locate import find_allocators

        if "_found" in self.__dict__:
            return [
                HeapIndex(self._memory(), heap.layout, heap.bins, heap.arenas, heap.tcaches)
                for heap in self.walked
            ]
        refused: List[DrainError] = []
        found = []
        for allocator in find_allocators(self.target, self._memory()):
            try:
                found.append(find_index(allocator, self._memory))
            except DrainError as error:
                refused.append(error)
        if not found:
            raise refused[0]
        return found

    @cached_property
    def _places(self) -> Places:
        from drain_gdb.objects.address import Places

        return Places(self.target, self.indices)

    @cached_property
    def _looker(self) -> Looker:
        from drain_gdb.objects.contents import IndexContents
        from drain_gdb.objects.single import Looker

        return Looker(IndexContents(self.target, self.indices), self._note)

    def find(self, address: int, owners: bool = False) -> Address:
        """What an address is and what is there; with ``owners`` who holds it (a :meth:`survey`)."""
        from drain_gdb.jemalloc.index import LIVE

        found = self._places.find(address)
        if found.state != LIVE:
            return found
        if not owners:
            return replace(found, what=self._looker.what(address))
        survey = self.survey
        region = survey.live.region_at(address)
        what = None if region is None else survey.known(region)
        return replace(found, what=what, owners=survey.owners_of(address))

    def slab(self, address: int) -> SlabMap:
        """The slab that holds an address, region by region; TargetError where none does."""
        return self._places.slab(address)


class Lookup:
    """Looks addresses up in a process that runs between two questions.

    Where its jemallocs lie, and how, is learnt once, until that is to be forgotten.
    """

    def __init__(self, open_target: Callable[[], Target]) -> None:
        self._open_target = open_target
        self._layouts: List[Layout] = []

    def forget(self) -> None:
        """Learn anew the next time: it is another process, or has loaded more."""
        self._layouts = []

    def find(self, address: int) -> Address:
        """What an address is at this moment."""
        from drain_gdb.jemalloc.index import index_of
        from drain_gdb.objects.address import Places

        target = self._open_target()
        if not self._layouts:
            self._layouts = [index.layout for index in Snapshot(target).indices]
        found = [index_of(memory_of(target), layout) for layout in self._layouts]
        return Places(target, found).find(address)
