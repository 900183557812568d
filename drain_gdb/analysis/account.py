"""All resident memory of a process, in parts that add up to it.

What the walks found (slabs, extents, blocks of metadata) is laid over what is resident.
Each page is counted in one part, whatever the walks say: the rest of an area, after its
jemalloc parts, is what the area is.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import DefaultDict, Dict, Iterator, List, Optional, Sequence, Tuple

from drain_gdb.analysis.report import Account, Detail, Part
from drain_gdb.debuggee.residence import (
    ABSENT,
    ALLOCATOR,
    ANONYMOUS,
    BSS,
    FILE,
    FORKED,
    HEAP,
    PAGEMAP,
    RESIDENT,
    SHARED,
    STACK,
    THREAD_STACK,
    Area,
    Residence,
)
from drain_gdb.jemalloc.placed import Claim, Column, apart

SLABS = ("live", "cached", "drainable", "pinned_waste")
EXTENTS = ("large", "large_cached", "dirty", "muzzy", "retained", "metadata")
OF_AREA = {
    FILE: "file_backed",
    BSS: "file_copies",
    HEAP: "brk_heap",
    STACK: "stacks",
    THREAD_STACK: "thread_stacks",
    SHARED: "shared",
    ANONYMOUS: "other_anonymous",
    ALLOCATOR: "unknown_allocator",
}
PARTS = (*SLABS, *EXTENTS, *OF_AREA.values())
"""The names of parts, in the order they are reported in."""
SHOWN = 16
"""Details of one part that are named; the rest are joined."""
RARE = 4
"""Rows to a stretch of pages in an unusual state from which on it is quicker to look at those."""
MIB = 1 << 20
ELSEWHERE_MIN, ELSEWHERE_SHARE = 16 * MIB, 10
"""Anonymous memory that is no jemalloc's is named from here on, and from a tenth on."""


@dataclass
class Tally:
    """Sums over memory of one kind, in bytes."""

    count: int = 0
    size: int = 0
    resident: int = 0
    shared: int = 0
    huge: int = 0

    def share(self, part: int, whole: int) -> Tally:
        """``part`` of ``whole`` of it, rounded down."""
        return Tally(
            self.count,
            part,
            self.resident * part // whole,
            self.shared * part // whole,
            self.huge * part // whole,
        )

    def add(self, other: Tally) -> None:
        """Add ``other``."""
        self.count += other.count
        self.size += other.size
        self.resident += other.resident
        self.shared += other.shared
        self.huge += other.huge

    def take(self, other: Tally) -> None:
        """Take ``other``, a part of it, away; how many it is of stays."""
        self.size -= other.size
        self.resident -= other.resident
        self.shared -= other.shared
        self.huge -= other.huge


@dataclass
class Joined:
    """The heaps of a process laid over what is resident of it.

    Attributes:
        claims: what jemalloc's memory is, to its sums.
        rests: areas, each with the sums of what in it is no jemalloc's.

    """

    residence: Optional[Residence]
    claims: DefaultDict[Claim, Tally] = field(default_factory=lambda: defaultdict(Tally))
    rests: List[Tuple[Area, Tally]] = field(default_factory=list)

    def large_resident(self, allocator: int, szind: int) -> Optional[int]:
        """Resident bytes of the large allocations of a size class, cached ones included."""
        if self.residence is None:
            return None
        parts = ("large", "large_cached")
        return sum(self.claims[Claim(allocator, part, szind)].resident for part in parts)


class _Overlap(Exception):
    """More is claimed of an area than is resident in it."""


def join(columns: Sequence[Column], residence: Optional[Residence]) -> Joined:
    """Lay all memory of the jemallocs of a process over what is resident of it."""
    try:
        return _join(columns, residence)
    except _Overlap:
        return _join(apart(columns), residence)


def _join(columns: Sequence[Column], residence: Optional[Residence]) -> Joined:
    joined = Joined(residence)
    for column in columns:
        counts = Counter(column.kinds)
        for kind, (claim, size) in enumerate(zip(column.claims, column.sums())):
            if size:
                joined.claims[claim].add(Tally(counts[kind], size))
    if residence is not None:
        for area in residence.areas:
            joined.rests.append((area, _lay(columns, area, residence, joined.claims)))
    return joined


def _lay(
    columns: Sequence[Column], area: Area, residence: Residence, claims: Dict[Claim, Tally]
) -> Tally:
    """Add to ``claims`` what of ``area`` is resident of each; returns the rest.

    Raises :class:`_Overlap`.
    """
    found: DefaultDict[Claim, Tally] = defaultdict(Tally)
    rest = Tally(1, area.size, area.resident or 0, 0, area.huge or 0)
    if area.first is not None:
        rest.shared = residence.count(area, area.start, area.end, FORKED) * residence.page
        for column in columns:
            rest.size -= _count(column, area, residence, found)
        _share_huge(area, found)
    else:
        for column in columns:
            for starts, ends, kinds in column.cut(area.start, area.end):
                for start, end, kind in zip(starts, ends, kinds):
                    found[column.claims[kind]].size += end - start
        rest.size -= sum(tally.size for tally in found.values())
        _share_out(area, found)
    for claim, tally in found.items():
        tally.size = 0
        rest.take(tally)
        claims[claim].add(tally)
    if min(rest.size, rest.resident) < 0:
        raise _Overlap
    return rest


def _count(
    column: Column, area: Area, residence: Residence, found: DefaultDict[Claim, Tally]
) -> int:
    """Add the resident pages of each claim of ``column`` in ``area``; returns all its bytes."""
    first, last = column.within(area.start, area.end)
    if first == last:
        return 0
    sums, bytes_there = _Pages(residence, area), 0
    inside = column.starts[first] >= area.start and column.ends[last - 1] <= area.end
    if column.sizes is not None and inside and sums.exceptions * RARE < last - first:
        sizes = column.sums(first, last)
        bytes_there = sum(sizes)
        counts = sums.by_exceptions(column, first, last, sizes)
    else:
        counts = {state: [0] * len(column.claims) for state in sums.states}
        for starts, ends, kinds in column.cut(area.start, area.end):
            bytes_there += sum(ends) - sum(starts)
            sums.each(starts, ends, kinds, counts)
    for state, pages in counts.items():
        for claim, number in zip(column.claims, pages):
            size = number * residence.page
            if size:
                found[claim].add(Tally(0, 0, size, size if state == FORKED else 0))
    return bytes_there


class _Pages:
    """The pages of an area, and how many of them are in which state.

    Attributes:
        states: those of RSS that there are, the most frequent one first.
        exceptions: about how many stretches are in another than that.

    """

    def __init__(self, residence: Residence, area: Area) -> None:
        assert area.first is not None
        self._pages = residence.pages
        self._first, self._last = area.first, area.first + area.size // residence.page
        self._shift = residence.page.bit_length() - 1
        self._ahead = (area.first << self._shift) - area.start
        number = {state: self._number(state) for state in RESIDENT}
        self.states = sorted(filter(number.get, number), key=number.__getitem__, reverse=True)
        absent = bytes([*self.states[:1], ABSENT])
        self.exceptions = self._pages.count(absent, self._first, self._last)
        self.exceptions += sum(map(self._number, self.states[1:]))

    def _number(self, state: int) -> int:
        return self._pages.count(state, self._first, self._last)

    def each(
        self,
        starts: Sequence[int],
        ends: Sequence[int],
        kinds: Sequence[int],
        counts: Dict[int, List[int]],
    ) -> None:
        """Count the pages of each row."""
        firsts = [start + self._ahead >> self._shift for start in starts]
        lasts = [end + self._ahead >> self._shift for end in ends]
        for state, sums in counts.items():
            number = map(self._pages.count, repeat(state), firsts, lasts)
            for kind, pages in zip(kinds, number):
                sums[kind] += pages

    def by_exceptions(
        self, column: Column, first: int, last: int, sizes: Sequence[int]
    ) -> Dict[int, List[int]]:
        """Count the pages of rows that are nearly all in one state: all, then what is not."""
        usual, *others = self.states or [ABSENT]
        counts = {state: [0] * len(sizes) for state in self.states}
        counts[usual] = [size >> self._shift for size in sizes]
        for found in re.compile(b"[^%c]+" % usual).finditer(self._pages, self._first, self._last):
            start, end = ((at << self._shift) - self._ahead for at in found.span())
            row = max(bisect_right(column.starts, start, first, last) - 1, first)
            while row < last and column.starts[row] < end:
                inside = max(column.starts[row], start), min(column.ends[row], end)
                if inside[0] < inside[1]:
                    kind = column.kinds[row]
                    span = tuple(at + self._ahead >> self._shift for at in inside)
                    counts[usual][kind] -= span[1] - span[0]
                    for state in others:
                        counts[state][kind] += self._pages.count(state, *span)
                row += 1
        return {state: counts[state] for state in self.states}


def _share_huge(area: Area, found: Dict[Claim, Tally]) -> None:
    """Huge pages of an area are its parts', by what is resident of each."""
    for tally in found.values():
        tally.huge = (area.huge or 0) * tally.resident // area.resident if area.resident else 0


FULL, EMPTY = ("",), ("retained",)
"""Of areas of which only sums are known: claims that are resident throughout (slabs were,
by 99 to 100 %), and those that are so last of all."""


def _share_out(area: Area, found: Dict[Claim, Tally]) -> None:
    """Give the claims of an area of which only the sum is known their share of it."""
    left = area.resident or 0
    ranks: List[List[Tally]] = [[], [], []]
    for claim, tally in found.items():
        ranks[0 if claim.part in FULL else 2 if claim.part in EMPTY else 1].append(tally)
    for rank in ranks:
        size = sum(tally.size for tally in rank)
        given = min(left, size)
        for tally in rank:
            tally.resident = given * tally.size // size
            left -= tally.resident
    _share_huge(area, found)


# -- the account ------------------------------------------------------------------


def account(joined: Joined) -> Account:
    """The account of the process."""
    parts = _Parts()
    for claim, tally in joined.claims.items():
        if claim.part:
            parts.add(claim.part, claim.allocator, claim.what, tally)
        else:
            _add_slabs(parts, claim, tally)
    residence = joined.residence
    if residence is None:
        return Account(None, None, tuple(parts.made(False, False, False)))
    for area, rest in joined.rests:
        _add_area(parts, area, rest)
    swapped = [area.swapped for area in residence.areas]
    huge = [area.huge for area in residence.areas]
    made = tuple(parts.made(True, residence.source == PAGEMAP, None not in huge))
    return Account(
        resident_bytes=sum(part.resident_bytes or 0 for part in made),
        source=residence.source,
        parts=made,
        exact=residence.exact,
        swapped_bytes=None if None in swapped else sum(filter(None, swapped)),
        huge_bytes=None if None in huge else sum(filter(None, huge)),
        shared_bytes=residence.pages.count(FORKED) * residence.page
        if residence.source == PAGEMAP
        else None,
    )


def _add_slabs(parts: _Parts, claim: Claim, tally: Tally) -> None:
    """Split slabs that are in one state by what their regions are."""
    waste = "pinned_waste" if claim.live else "drainable"
    whole, rest = tally.size, replace(tally)
    for part, regions in (("live", claim.live), ("cached", claim.cached)):
        share = tally.share(tally.count * regions * claim.region, whole)
        rest.take(share)
        parts.add(part, claim.allocator, None, share)
    parts.add(waste, claim.allocator, None, rest)


def _add_area(parts: _Parts, area: Area, rest: Tally) -> None:
    """Add what of ``area`` is no jemalloc's."""
    name = OF_AREA[area.kind]
    if area.kind == FILE and area.copied:
        copies = Tally(1, min(area.copied, rest.size), min(area.copied, rest.resident))
        copies.shared, copies.huge = rest.shared, rest.huge
        rest.take(copies)
        parts.add("file_copies", None, area.name, copies)
    if rest.size:
        what = area.name
        if area.kind == ANONYMOUS and what is None and rest.size < area.size:
            what = "in mappings of jemalloc's"
        parts.add(name, None, what, rest, area.resident is not None)


class _Parts:
    """The parts of an account while they are summed up."""

    def __init__(self) -> None:
        self._sums: Dict[Tuple[str, Optional[int]], _Sum] = defaultdict(_Sum)

    def add(
        self,
        part: str,
        allocator: Optional[int],
        what: Optional[str],
        tally: Tally,
        known: bool = True,
    ) -> None:
        """Add memory to a part; ``known`` is whether it is known what of it is resident."""
        found = self._sums[part, allocator]
        found.total.add(tally)
        found.known |= known
        if part not in SLABS and (what is not None or allocator is None):
            # Mappings that nothing is known of are told apart by their size.
            found.details[what, 0 if what else tally.size].add(tally)
            found.unknown[what] |= not known

    def made(self, known: bool, shared: bool, huge: bool) -> Iterator[Part]:
        """The parts in order, with what is known: residence, sharing, huge pages."""
        keys = sorted(
            self._sums, key=lambda key: (key[1] is None, key[1] or 0, PARTS.index(key[0]))
        )
        for part, allocator in keys:
            found = self._sums[part, allocator]
            if not found.total.size:
                continue
            seen = known and found.known
            yield Part(
                part,
                allocator,
                found.total.size,
                found.total.resident if seen else None,
                found.total.shared if shared else None,
                found.total.huge if huge else None,
                tuple(found.made(known)),
            )


@dataclass
class _Sum:
    """A part while it is summed up; details by what they are, and by size."""

    total: Tally = field(default_factory=Tally)
    details: DefaultDict[Tuple[Optional[str], int], Tally] = field(
        default_factory=lambda: defaultdict(Tally)
    )
    unknown: DefaultDict[Optional[str], bool] = field(default_factory=lambda: defaultdict(bool))
    known: bool = False

    def made(self, known: bool) -> Iterator[Detail]:
        """The details, largest first, small ones joined."""
        found = [
            Detail(what, t.count, t.size, t.resident if known and not self.unknown[what] else None)
            for (what, _), t in self.details.items()
        ]
        found.sort(key=lambda each: (each.resident_bytes or 0, each.bytes), reverse=True)
        yield from found[:SHOWN]
        if found[SHOWN:]:
            rest = found[SHOWN:]
            resident = [each.resident_bytes for each in rest]
            yield Detail(
                f"{len(rest)} more",
                sum(each.count for each in rest),
                sum(each.bytes for each in rest),
                None if None in resident else sum(filter(None, resident)),
            )


# -- what no allocator explains -----------------------------------------------------

OURS = (*SLABS, *EXTENTS)
ELSEWHERE = ("brk_heap", "stacks", "thread_stacks", "other_anonymous", "unknown_allocator")


@dataclass(frozen=True)
class Elsewhere:
    """Anonymous resident memory that is no jemalloc's.

    Attributes:
        bytes: how much of it there is.
        anonymous_bytes: all anonymous memory, jemalloc's included.
        details: what it is, largest first, each with the name of its part.

    """

    bytes: int
    anonymous_bytes: int
    details: Tuple[Tuple[str, Detail], ...]


def elsewhere(found: Account) -> Optional[Elsewhere]:
    """What is anonymous and no jemalloc's; None where it is little, or not known."""
    if found.resident_bytes is None:
        return None
    size = found.sum_of(*ELSEWHERE)
    whole = size + found.sum_of(*OURS)
    if size < ELSEWHERE_MIN or size * ELSEWHERE_SHARE <= whole:
        return None
    details = [
        (part.part, detail)
        for part in found.parts
        if part.part in ELSEWHERE
        for detail in part.details
        if detail.resident_bytes
    ]
    details.sort(key=lambda each: each[1].resident_bytes or 0, reverse=True)
    return Elsewhere(size, whole, tuple(details))
