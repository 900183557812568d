"""The report of who pins the slabs, made of a survey of the regions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from random import Random
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from drain_gdb.analysis.growth import NO_CONTENTS, RECORDING
from drain_gdb.analysis.heap_profile import HeapProfile, weigh
from drain_gdb.analysis.pins import (
    ALL,
    OWNER,
    SAMPLE,
    SIZE,
    SPARSE,
    WHAT,
    Chain,
    Group,
    GroupRow,
    Measured,
    Piece,
    Pins,
    by_size,
    counts_of,
    measure,
    rows_of,
    together,
    usual_threshold,
)
from drain_gdb.analysis.sweep import coverage_totals
from drain_gdb.debuggee.protocol import Process
from drain_gdb.errors import UsageError
from drain_gdb.jemalloc.extents import popcount
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.live import LiveRegions
from drain_gdb.objects.fast import groups_of, looked_up
from drain_gdb.objects.naming import UNKNOWN
from drain_gdb.objects.owners import BY_PROGRAM, NOT_FOUND
from drain_gdb.objects.recogniser import EXACT, STRUCTURE
from drain_gdb.objects.survey import Survey

SAMPLED_GROUPS = 50
CHAINS = 3
"""The most frequent chains of owners of a group that are shown."""
KINDS = 4
SHOWN_BYTES = 64


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        whole: all live regions, not only survivors.
        threshold: occupancy below which a slab is sparse; None for one under which most of
            the waste lies.
        by: WHAT, OWNER or SIZE; None for what suits the program.
        contents: whether examples are to be given.
        profile: a heap profile of the same process.

    """

    whole: bool = False
    threshold: Optional[float] = None
    by: Optional[str] = None
    contents: bool = False
    profile: Optional[HeapProfile] = None


WHO_PINS = Request(threshold=1.0, by=OWNER)
"""Who owns the live regions of all slabs that have room."""


def pins(survey: Survey, process: Process, heaps: Sequence[Heap], request: Request) -> Pins:
    """Who pins the slabs of ``heaps``; UsageError where a recording does not hold what is asked."""
    threshold = request.threshold or usual_threshold(survey.live)
    request = replace(request, threshold=threshold)
    why = NO_CONTENTS if process.source == RECORDING else None
    if why is not None and (request.by or SIZE) != SIZE:
        raise UsageError(why, "of a recording there is --by size")
    if why is not None and request.contents:
        raise UsageError(why, "leave --contents out")
    by = SIZE if why is not None else request.by or OWNER
    numbers, groups = _grouped(survey, by, request)
    cached = {heap.slabs.address[row] for heap in heaps for row in heap.slabs.cached}
    found = measure(survey.live, numbers, cached, request.whole, threshold)
    rows, folded = rows_of(found, groups, request.whole)
    described = [row for _, row in rows]
    if why is None:
        samples = _Samples(survey, numbers, found, request)
        described[:SAMPLED_GROUPS] = [samples.described(*each) for each in rows[:SAMPLED_GROUPS]]
    known = [row for _, row in rows if row.known]
    return Pins(
        process=process,
        scope=ALL if request.whole else SPARSE,
        by=by,
        threshold=threshold,
        slabs=found.slabs,
        pinned_slabs=found.pinned,
        sparse_slabs=found.sparse,
        survivors=_total(found, "regions"),
        survivor_bytes=_total(found, "live_bytes"),
        recognised=sum(row.regions for row in known) + (folded.regions if folded else 0),
        recognised_bytes=sum(row.live_bytes for row in known)
        + (folded.live_bytes if folded else 0),
        waste_bytes=found.waste,
        waste_elsewhere_bytes=found.waste_elsewhere,
        groups=tuple(described),
        folded=folded,
        together=together(found, groups, lambda number: groups[number].known),
        verification=_verification(heaps),
        partial=any(coverage_totals(heap, process.damage).partial for heap in heaps),
        why_not_more=why,
        stacks=None
        if request.profile is None
        else weigh(request.profile, found.waste_by_size, survey.contents.symbol_at),
    )


def pinners(survey: Survey, process: Process) -> Dict[int, Tuple[str, ...]]:
    """By the address of each slab the groups that its live regions are of, most regions first.

    Of a recording, which holds no contents, there are none.
    """
    found: Dict[int, Tuple[str, ...]] = {}
    if process.source == RECORDING:
        return found
    numbers, groups = _grouped(survey, OWNER, Request())
    live = survey.live
    for start, nregs, first, slab, bits in zip(
        live.start, live.nregs, live.first, live.slab, live.live
    ):
        if slab and bits:
            counts = counts_of(numbers[first : first + nregs], popcount(bits))
            order = sorted(counts, key=lambda group: (-counts[group], group))
            found[start] = tuple(groups[group].what for group in order)
    return found


def _total(found: Measured, name: str) -> int:
    return sum(getattr(tally, name) for tally in found.tallies.values())


def _verification(heaps: Sequence[Heap]) -> str:
    """The worst of them."""
    said = {heap.verification.status for heap in heaps}
    return next((s for s in ("mismatch", "unavailable", "exact") if s in said), "unavailable")


def _grouped(survey: Survey, by: str, request: Request) -> Tuple[Sequence[int], List[Group]]:
    """By region the number of its group, and the groups; the first is for what is not live."""
    if by == SIZE:
        return by_size(survey.live)
    alive = survey.finder.alive
    none = Group("", "", "", False)
    if by == WHAT:
        return _by_what(survey, request)
    owners = survey.owners
    said = {BY_PROGRAM: STRUCTURE}
    groups = [
        Group(label, OWNER, said.get(rank, EXACT), label != NOT_FOUND)
        for label, rank in zip(owners.labels, owners.ranks)
    ]
    return groups_of(alive, owners.label), [none, *groups]


def _by_what(survey: Survey, request: Request) -> Tuple[Sequence[int], List[Group]]:
    """By region the number of what it is; kinds that differ in their evidence are one."""
    live, owners = survey.live, survey.owners
    rows = range(len(live)) if request.whole else _sparse(live, request.threshold or 1)
    survey.names.name_all((r for row in rows for r in live.regions(row)), owners.label)
    numbers: Dict[str, int] = {}
    groups = [Group("", "", "", False)]
    for kind in survey.kinds.names:
        if kind.what not in numbers:
            numbers[kind.what] = len(numbers)
            groups.append(Group(*kind, kind != UNKNOWN))
    table = [numbers[kind.what] for kind in survey.kinds.names]
    return groups_of(survey.finder.alive, looked_up(table, survey.kinds.of)), groups


def _sparse(live: LiveRegions, threshold: float) -> Iterator[int]:
    """The rows of sparse slabs."""
    for row, (slab, nregs) in enumerate(zip(live.slab, live.nregs)):
        if slab and popcount(live.live[row]) < threshold * nregs:
            yield row


class _Samples:
    """Some regions of each group, to say what they are and who holds them."""

    def __init__(
        self, survey: Survey, numbers: Sequence[int], found: Measured, request: Request
    ) -> None:
        self._survey = survey
        self._numbers = numbers
        self._found = found
        self._request = request

    def _sample(self, number: int) -> List[int]:
        """Regions of the group with this number: as many of each of its rows."""
        live, numbers = self._survey.live, self._numbers
        regions: List[int] = []
        chance = Random(1)
        for row, times in Counter(self._found.tallies[number].rows).items():
            first = live.first[row]
            every = range(first, first + live.nregs[row])
            own = [region for region in every if numbers[region] == number]
            regions += chance.sample(own, min(times, len(own)))
        return regions[:: -(-len(regions) // SAMPLE) or 1]

    def described(self, number: int, row: GroupRow) -> GroupRow:
        """The row with what its sample tells."""
        sample = self._sample(number)
        if not sample:
            return row
        survey = self._survey
        chains = Counter(survey.chain(region) for region in sample)
        kinds = Counter(survey.what(region) for region in sample)
        scale = row.regions / len(sample)
        return replace(
            row,
            owners=tuple(
                Chain(chain, round(count * scale))
                for chain, count in chains.most_common(CHAINS)
                if chain
            ),
            kinds=tuple(
                (what, round(100 * count / len(sample))) for what, count in kinds.most_common(KINDS)
            ),
            examples=tuple(self._examples(sample)) if self._request.contents else (),
        )

    def _examples(self, sample: Sequence[int]) -> Iterator[Piece]:
        live, contents = self._survey.live, self._survey.contents
        for region in sample[:1]:
            address, size = live.place(region), live.size[live.row_of(region)]
            data = contents.read(address, min(size, SHOWN_BYTES))
            if data is not None:
                yield Piece(address, size, data)
